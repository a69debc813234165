"""The extra that contains a missing package, from the installed metadata, which repeat pyproject.toml."""

from __future__ import annotations

DISTRIBUTION = "tasnet-attn"


def advice(error: ModuleNotFoundError) -> str | None:
    """What a command lacks and how to install it; None: none of our extras has that module.

    Distributions are assumed to be named like their modules, except for case, hyphens and underscores.
    """
    import re
    from importlib.metadata import PackageNotFoundError, requires

    extras: dict[str, list[str]] = {}
    try:
        for requirement in requires(DISTRIBUTION) or ():
            if found := re.match(r"""([\w.-]+).*;.*\bextra == ["']([\w-]+)["']""", requirement):
                extras.setdefault(found[2], []).append(_plain(found[1]))
    except PackageNotFoundError:  # a clone on the path that was never installed
        return None
    bring = [extra for extra, names in extras.items() if _plain(error.name or "") in names]
    if not bring:
        return None
    smallest = min(bring, key=lambda extra: len(extras[extra]))  # "test" and "all" repeat the others
    return f"needs {error.name}, which is not installed; pip install '{DISTRIBUTION}[{smallest}]'"


def require(*modules: str) -> None:
    """Raise ModuleNotFoundError for the first module that is not installed, before any work that needs it."""
    from importlib.util import find_spec

    for module in modules:
        if find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
