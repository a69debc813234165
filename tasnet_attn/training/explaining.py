"""One-line errors for exceptions of Lightning, jsonargparse and the system in a training."""

from __future__ import annotations

import difflib
import errno
import os
import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from tasnet_attn import config
from tasnet_attn.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # such an error may not name its file


@contextmanager
def explaining(out: Path) -> Iterator[None]:
    """Turn a Trainer's exceptions that are not our bugs into one line."""
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # which Lightning turns into status 1
            raise KeyboardInterrupt from error
        raise
    except MisconfigurationException as error:
        raise UserError(f"trainer: {explain(error)}") from error
    except (ValueError, TypeError) as error:  # a setting, if Lightning's own code rejects it
        if not traceback.extract_tb(error.__traceback__)[-1].filename.startswith(str(Path(lightning.__file__).parent)):
            raise
        raise UserError(f"trainer: {explain(error)}") from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            f"{out}: a process that reads data was killed, perhaps for lack of memory; use fewer data.workers or "
            "a shorter data.segment; resume with --ckpt_path last",
            status=1,
        ) from error
    except OSError as error:  # a logger's, or Lightning's own files
        name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
        if not (Path(name).is_relative_to(out) or not name and error.errno in FULL):
            raise
        raise UserError(f"{name or out}: {error.strerror}", status=1) from error


def misspelt(text: str, settings: Callable[[], Iterable[Any]]) -> str:
    """One line for a key that does not exist, with the nearest existing one; empty: something else is wrong.

    Args:
        text: the message of jsonargparse.
        settings: returns the parser's settings, each with its key as `dest`.
    """
    for pattern in (r"unrecognized arguments: --([\w.]+)", r"Group '(.*)' does not accept option '(.*)'",
                    r"Option '([\w.]+)' is not accepted$"):  # fmt: skip
        if found := re.search(pattern, text):
            key = ".".join(found.groups())
            known = {action.dest for action in settings()}
            known |= {dest.partition(".")[0] for dest in known} | set(config.SECTIONS)
            parts = key.split(".")
            top = difflib.get_close_matches(parts[0], [name for name in known if "." not in name], n=1)
            close = difflib.get_close_matches(key, known, n=1) if parts[0] in known else top
            guess = f"; did you mean {close[0]}?" if close else "; --help-all lists every setting"
            return f"{key if parts[0] in known else parts[0]}: no such setting{guess}"
    return ""


def explain(error: Exception) -> str:
    """One line for a jsonargparse error, which lists every type it tried: the key, and what is wrong with it."""
    text = str(error)
    keys = re.findall(r'[Kk]ey "([^"]+)"', text)  # a setting's within a class's
    where = f"{'.'.join(dict.fromkeys(keys))}: " if keys else ""
    if denied := re.search(r"Importing '([^']+)' is not allowed", text):
        module = denied[1].rpartition(".")[0]
        return f"{where}unknown class or function {denied[1]!r}; add --import {module} if you trust it"
    if option := re.search(r"Option '([^']+)' is not accepted", text):
        owner = re.search(r"class_path[ =]'([^']+)'", text)
        name = owner[1].rpartition(".")[2] if owner else "it"
        return f"{where}{name} has no setting {option[1]!r}; check its spelling"
    if problem := re.search(r"Problem with given class_path '(?:[^']*\.)?(\w+)':\s*[- ]*(\S.*)", text):
        return f"{where}{problem[1]}: {problem[2]}"
    named = re.search(r"Expected a dot import path string: (\w+)$", text, re.MULTILINE)
    if named and not re.search("Expected a <class '(int|float)'>", text):
        return f"{where}no class {named[1]!r}; for your own class use --import"
    lines = [line.strip(" -") for line in re.sub(r'Parser key "[^"]+":', "", text).splitlines()]
    lines = [re.sub("^Type .* expects a function or a callable class:", "", line).strip() for line in lines]
    dull = (
        "Expected a path but",
        "Expected a dot import",
        "Does not validate",
        "Subtypes",
        "Errors:",
        "Given value",
        "Expected a <class 'NoneType'>",
    )
    return where + "; ".join(dict.fromkeys(line for line in lines if line and not line.startswith(dull)))
