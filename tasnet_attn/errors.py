"""The one exception that means: the user can fix this."""


class UserError(Exception):
    """A mistake in what was given (a file, a key, a value); its text says what is wrong and what to do."""


def first_line(error: BaseException) -> str:
    """What another library's exception says, as part of one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
