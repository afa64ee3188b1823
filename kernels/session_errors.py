"""Why there is no session."""


class SessionError(Exception):
    """A model cannot be loaded; the text says why, in ONNX Runtime's words where they are the better ones."""


class DeviceError(SessionError):
    """A model cannot be loaded where it was meant to run, and perhaps could be elsewhere."""
