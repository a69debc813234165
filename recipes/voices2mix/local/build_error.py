"""What goes wrong and is told to the user in one line."""


class BuildError(Exception):
    """The corpus cannot be built; the message says what to do."""
