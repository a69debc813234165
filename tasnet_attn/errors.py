"""The one exception that means: the user can mend this."""

import re


class UserError(Exception):
    """A mistake in what was given (a file, a key, a value); its text says what is wrong and what to do."""


def explain(error: Exception) -> str:
    """One line for a jsonargparse error, which lists every type it tried: the key, and what is wrong with it."""
    text = str(error)
    key = re.search(r'[Kk]ey "([^"]+)"', text)
    where = f"{key[1]}: " if key else ""
    if option := re.search(r"Option '([^']+)' is not accepted", text):
        owner = re.search(r"class_path[ =]'([^']+)'", text)
        name = owner[1].rpartition(".")[2] if owner else "it"
        return f"{where}{name} has no setting {option[1]!r}; check its spelling"
    lines = [line.strip(" -") for line in re.sub(r'Parser key "[^"]+":', "", text).splitlines()]
    dull = ("Does not validate", "Subtypes", "Errors:", "Given value", "Expected a <class 'NoneType'>")
    return where + "; ".join(dict.fromkeys(line for line in lines if line and not line.startswith(dull)))
