"""The data set of a training command line; model and trainer are ignored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasnet_attn import config
from tasnet_attn.data import SegmentedData
from tasnet_attn.errors import UserError
from tasnet_attn.model import SourceSeparator


def configured(configs: Sequence[Path], overrides: Sequence[str] = ()) -> SegmentedData:
    """The data set that a training command line describes; everything else is ignored.

    Raises:
        UserError: no such file, or a wrong key or value; names it.
    """
    named = ", ".join(map(str, configs))
    ours = config.read([*(f"--config={file}" for file in configs), *overrides]).ours
    stated, schema = ours.get("model", {}), config.settings(SourceSeparator)
    if not isinstance(stated, dict):
        raise UserError(f"{named}: model: {stated!r} is not a section with sources and sample_rate")
    if "data" not in ours or not {"sources", "sample_rate"} <= stated.keys():
        what = "has no data set (data.class_path) or no model.sources; a conf.yml extends its base.yml"
        raise UserError(f"{named}: {what}: give both")
    try:
        given = {
            key: config.complete(stated[key], schema[key].annotation, f"model.{key}")
            for key in ("sources", "sample_rate")
        }
        return config.build(ours["data"], SegmentedData, "data", **given)
    except UserError as error:
        raise UserError(f"{named}: {error}") from error
