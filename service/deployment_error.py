"""The error of everything that a deployment cannot be."""


class DeploymentError(ValueError):
    """A deployment that cannot be; the text names what is wrong, what was expected, and what was given.

    Attributes
    ----------
    path
        Where that stands in a deployment file: the keys and places that lead to it.
    """

    def __init__(self, text: str, path: tuple[str | int, ...] = ()) -> None:
        super().__init__(text)
        self.path = path
