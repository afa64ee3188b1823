"""What is said of a model's configuration that cannot be used."""

FILE_NAME = "config.pbtxt"


class ModelConfigError(ValueError):
    """A configuration that cannot be used; the text names the field and what was expected and given."""
