"""Data sets: tracks, segments, and one file for each data set, a LightningDataModule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasnet_attn.config import build, read
from tasnet_attn.data.base import SegmentedData
from tasnet_attn.data.librimix import LibriMix
from tasnet_attn.data.mir1k import MIR1K
from tasnet_attn.data.musdb18 import MUSDB18
from tasnet_attn.data.recordings import Recordings
from tasnet_attn.data.stem_folders import StemFolders
from tasnet_attn.data.track import MIXTURE, REST, Part, Split, Track
from tasnet_attn.errors import UserError

__all__ = [
    "MIR1K",
    "MIXTURE",
    "MUSDB18",
    "REST",
    "LibriMix",
    "Part",
    "Recordings",
    "SegmentedData",
    "Split",
    "StemFolders",
    "Track",
    "from_config",
]


def from_config(path: Path, sources: list[str], sample_rate: int, overrides: Sequence[str] = ()) -> SegmentedData:
    """Build the data set that the `data` section of a YAML file describes.

    Args:
        path: a run's or a recipe's YAML file, or a run folder.
        sources: the model's.
        sample_rate: the model's, Hz.
        overrides: `--data.key value` on top of it.

    Raises:
        UserError: no such file, no `data` section, an unknown class or key; names file and key.
    """
    section = read([f"--config={path}", *overrides]).ours.get("data")
    if section is None:
        raise UserError(f"{path}: has no `data` section")
    try:
        return build(section, SegmentedData, "data", sources=sources, sample_rate=sample_rate)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
