"""`tasnet-attn check-data`: opens every file of a data set before a run does."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from tasnet_attn.data import Split, from_config
from tasnet_attn.errors import UserError


def check_data(path: Path) -> str:
    """List the splits of a data set; every track's files are found and their headers agree.

    Args:
        path: a YAML file with `data`, `model.sources` and `model.sample_rate`: a recipe's base.yml, or a run folder.

    Returns:
        A line for each split.

    Raises:
        UserError: the first thing that would stop a run; names the file.
    """
    import yaml

    file = path / "config.yml" if path.is_dir() else path
    try:
        model = yaml.safe_load(file.read_text())["model"]
        sources, sample_rate = model["sources"], model["sample_rate"]
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{file}: needs model.sources, model.sample_rate and a data section: {error!r}") from error
    data = from_config(file, sources, sample_rate)
    lines = [f"{', '.join(sources)} at {sample_rate} Hz, {type(data).__name__}"]
    for split in get_args(Split):
        tracks = data.tracks(split)
        minutes = sum(track.length for track in tracks) / sample_rate / 60
        lines.append(f"{split:6} {len(tracks):5} tracks {minutes:9.2f} min")
    return "\n".join(lines)
