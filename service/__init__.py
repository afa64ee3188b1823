"""The control plane of sluice: settings, model repository, servicers, gateway and commands."""

__version__ = "0.1.0"
