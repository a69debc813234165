"""The one exception that means: the user can fix this."""


class UserError(Exception):
    """A mistake in what was given (a file, a key, a value); its text says what is wrong and what to do."""
