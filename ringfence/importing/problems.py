"""What ends an import."""


class ComposeError(Exception):
    """The files cannot be imported; the message names the file, and what to do."""
