"""What a target raises when an input makes its subject misbehave without ending the process."""


class Finding(Exception):  # noqa: N818 - no error of the fuzzer's
    """A promise that was broken; the text says which."""
