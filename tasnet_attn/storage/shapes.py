"""The shapes of facts in a file's header, whose author may be a stranger."""

from __future__ import annotations

from types import NoneType
from typing import Any, NamedTuple


class Maybe(NamedTuple):
    """The shape of a value that may be missing."""

    shape: Any


NUMBER = (int, float)
EITHER = (int, float, NoneType)
INTERVAL = {"value": EITHER, "low": EITHER, "high": EITHER}
FIGURE = {"value": NUMBER, "low": Maybe(EITHER), "high": Maybe(EITHER)}
SHAPES: dict[str, Any] = {
    "sources": [str],
    "sample_rate": int,
    "licence": str,
    "credits": str,
    "cost": str,
    "fails": [str],
    "versions": {...: str},
    "training": {"data": Maybe({"class_path": Maybe(str), "init_args": Maybe({})})},
    "scores": {"convention": str, "tracks": int, "sources": {...: {...: INTERVAL}}},
    "tested": [
        {"corpus": str, "mixtures": int}
        | {name: Maybe(FIGURE) for name in ("SI-SNRi", "SDR", "better than the mixture")}
    ],
}


def fits(value: Any, shape: Any) -> bool:
    """Whether a value has a shape: a type or several; [of each item]; {key: of its value, ...: of all other values}.

    Examples:
        >>> fits([{"a": 1, "b": "x"}], [{"a": int, ...: str}]), fits({"a": True}, {"a": int})
        (True, False)
        >>> fits({}, {"a": int}), fits({}, {"a": Maybe(int)})
        (False, True)
    """
    if isinstance(shape, Maybe):
        return fits(value, shape.shape)
    if isinstance(shape, list):
        return isinstance(value, list) and all(fits(each, shape[0]) for each in value)
    if isinstance(shape, dict):
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            return False
        needed = {key for key, each in shape.items() if key is not ... and not isinstance(each, Maybe)}
        others = shape.get(..., object)
        return needed <= value.keys() and all(fits(each, shape.get(key, others)) for key, each in value.items())
    return isinstance(value, shape) and (shape is object or not isinstance(value, bool))


def well_formed(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts without those of another shape than the card and the tables show."""
    return {key: value for key, value in facts.items() if key not in SHAPES or fits(value, SHAPES[key])}
