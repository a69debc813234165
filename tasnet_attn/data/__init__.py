"""Data sets: reading, segments, and one file for each set, each a LightningDataModule."""

from __future__ import annotations

from pathlib import Path

from tasnet_attn.data.base import SegmentedData, Split, Track
from tasnet_attn.data.librimix import LibriMix
from tasnet_attn.data.mir1k import MIR1K
from tasnet_attn.data.musdb18 import MUSDB18
from tasnet_attn.data.stem_folders import StemFolders
from tasnet_attn.errors import UserError, explain

__all__ = ["MIR1K", "MUSDB18", "LibriMix", "SegmentedData", "Split", "StemFolders", "Track", "from_config"]


def from_config(path: Path, sources: list[str], sample_rate: int) -> SegmentedData:
    """Build the data module that the `data` section of a YAML file describes.

    Args:
        path: a run's or a recipe's YAML file, or a run folder.
        sources: the model's.
        sample_rate: the model's, Hz.

    Raises:
        UserError: no such file, no `data` section, an unknown class or key; names file and key.
    """
    import yaml
    from jsonargparse import ArgumentError, ArgumentParser

    file = path / "config.yml" if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{file}: no such file; give a YAML file with a `data` section")
    try:
        config = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict) or "data" not in config:
        raise UserError(f"{file}: has no `data` section")
    section = config["data"]
    if isinstance(section, str):
        section = {"class_path": section}
    section.setdefault("init_args", {}).update(sources=sources, sample_rate=sample_rate)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(SegmentedData, "data", required=True)
    try:
        return parser.instantiate_classes(parser.parse_object({"data": section})).data
    except (ArgumentError, ValueError) as error:
        raise UserError(f"{file}: {explain(error)}") from error
