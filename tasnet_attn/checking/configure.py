"""What a training command line says about its data; the model and the trainer may be anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasnet_attn import config
from tasnet_attn.data import SegmentedData
from tasnet_attn.errors import UserError
from tasnet_attn.model import SourceSeparator


def configured(configs: Sequence[Path], overrides: Sequence[str] = ()) -> SegmentedData:
    """The data set that a training command line describes; what does not concern the data is not looked at.

    Raises:
        UserError: no such file, a key or value that does not fit; names it.
    """
    named = ", ".join(map(str, configs))
    ours = config.read([*(f"--config={file}" for file in configs), *overrides]).ours
    stated, schema = ours.get("model", {}), config.settings(SourceSeparator)
    if "data" not in ours or not {"sources", "sample_rate"} <= stated.keys():
        what = "names no data set (data.class_path) or no model.sources; a conf.yml goes on top of its base.yml"
        raise UserError(f"{named}: {what}: give both")
    try:
        given = {
            key: config.complete(stated[key], schema[key].annotation, f"model.{key}")
            for key in ("sources", "sample_rate")
        }
        return config.build(ours["data"], SegmentedData, "data", **given)
    except UserError as error:
        raise UserError(f"{named}: {error}") from error
