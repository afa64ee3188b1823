"""The subcommands of `sluice`, one file each."""
