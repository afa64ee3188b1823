"""The subcommands of `sluice`, one module each; they import what is heavy inside their functions."""
