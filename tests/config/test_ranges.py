"""Every setting of every class of ours, with every kind of bad value: it builds, or one line says what is allowed."""

import math

import pytest
import torch
from conftest import SMALL_SEPARATORS

import tasnet_attn.data
import tasnet_attn.losses
import tasnet_attn.model
import tasnet_attn.separators.asteroid  # noqa: F401
from tasnet_attn import config
from tasnet_attn.config import Configurable
from tasnet_attn.config.components import is_ours
from tasnet_attn.config.schema import REQUIRED, _alternatives
from tasnet_attn.errors import UserError
from tasnet_attn.model import SourceSeparator
from tasnet_attn.storage.filling import NoDraws

BAD = [-1, 0, 1, -0.5, 0.5, math.nan, math.inf, True, "x", "", [], [-1], ["x"], {"a": 1}, None, 10**30, 1e30]
GIVEN = {
    "n_features": 24,
    "n_sources": 2,
    "sources": ["vocals", "accompaniment"],
    "sample_rate": 8000,
    "seed": 0,
    "width": 16,
}
NEEDED = {"n_filters": 48, "kernel_size": 16, "n_fft": 64, "hop": 16, "sample_rate": 8000, "root": "x"}
FEW_BANDS = {"class_path": "Bands", "init_args": {"n_bands": 4}}
CLASSES = [
    cls for cls in config.known(Configurable) if is_ours(cls) and cls is not SourceSeparator and config.settings(cls)
]


@pytest.mark.slow
@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_class_of_ours(cls):
    given = {key: GIVEN[key] for key in cls.given}
    needed = {k: s for k, s in config.settings(cls).items() if s.default is REQUIRED and k not in given}
    small = SMALL_SEPARATORS | {"DualPath": {"fold": FEW_BANDS, **SMALL_SEPARATORS["DualPath"]}}
    small["Bands"] = FEW_BANDS["init_args"]
    base = small.get(cls.__name__, {}) | {key: NEEDED.get(key, 3) for key in needed}

    def build(arguments):
        with torch.device("meta"), NoDraws():
            config.build({"class_path": cls.__name__, "init_args": arguments}, cls, "part", **given)

    build(base)
    for key in config.settings(cls).keys() - given.keys():
        for value in BAD:
            try:
                build({**base, key: value})
            except UserError as error:
                assert str(error).startswith("part") and "\n" not in str(error), (key, value)
            else:
                numbers = isinstance(value, (int, float)) and not isinstance(value, bool)
                assert not numbers or abs(value) < 1e12, (key, value)
                assert value is not True or bool in _alternatives(config.settings(cls)[key].annotation), key
