"""`tasnet-attn models`: the models that need no path, and the card of one."""

from __future__ import annotations

from pathlib import Path

from tasnet_attn import terminal
from tasnet_attn.config import write_yaml
from tasnet_attn.errors import UserError, one_line, printable
from tasnet_attn.files import touching
from tasnet_attn.storage.finding import HUB, find
from tasnet_attn.storage.models import load
from tasnet_attn.storage.shipped import score, shipped
from tasnet_attn.storage.tensors import read_facts


def models() -> str:
    """A table of the named models: name, sources, rate, size, score, licence; and how to use one."""
    rows = []
    for name, file in shipped().items():
        try:
            rows.append(_row(name, file))
        except UserError as error:  # anyone may put a file into a folder of models
            terminal.warn(f"left out: {one_line(error)}")
    if not rows:
        return (
            "no models ship with this version; train one (tasnet-attn demo shows how), or use one from the hub: " + HUB
        )
    heads = ["name", "sources", "rate", "size", "score", "licence"]
    use = f"tasnet-attn separate sound.mp3 --model {rows[0][0]}      its card: tasnet-attn models {rows[0][0]}"
    return f"{terminal.table(heads, rows)}\n\n{use}"


def _row(name: str, file: Path) -> list[str]:
    facts = read_facts(file)
    with touching(file):
        size = f"{file.stat().st_size / 1e6:.1f} MB"
    licence = facts.get("licence", "not stated")
    return [name, ", ".join(facts["sources"]), f"{facts['sample_rate']} Hz", size, score(facts), licence]


def configuration(model: str) -> str:
    """The `model` section of a training's configuration, as YAML: `train --fork` needs it and a model's weights."""
    return write_yaml({"model": load(model).config})


def card(model: str) -> str:
    """The card of a model, for a terminal: a named one, or a folder in Hugging Face's layout, also on the hub.

    Raises:
        UserError: no such model, or it has no card.
    """
    file = find(model)
    for beside in (file.with_suffix(".md"), file.with_name("README.md")):
        if beside.is_file():
            with touching(beside):
                return printable(beside.read_text(encoding="utf-8", errors="replace"))
    raise UserError(f"{file}: has no card next to it; for its header: tasnet-attn export {model} --to huggingface")
