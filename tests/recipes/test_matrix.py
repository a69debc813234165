"""Every recipe takes a training step, its network made small; any separator does with any data set's base.yml."""

import copy

import pytest
import torch
from conftest import SMALL_SEPARATORS
from test_recipes import CONFS, RECIPES, arguments, each_recipe

from tasnet_attn import config, separators
from tasnet_attn.losses import SISNR, Loss
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import Separator


def layered(conf, base=None):
    """The sections that a recipe's files set, as `train` layers them, with its separator made small."""
    files = arguments(conf)
    files[1] = str(base or files[1])
    ours = copy.deepcopy(config.read(files).ours)
    name, settings = parts(ours["model"]["separator"])
    ours["model"]["separator"] = {"class_path": name, "init_args": {**settings, **SMALL_SEPARATORS.get(name, {})}}
    return ours


def parts(component):
    return (component, {}) if isinstance(component, str) else (component["class_path"], component.get("init_args", {}))


def recipes():
    """One recipe of each separator: {its class: conf.yml}."""
    return {parts(config.read(arguments(conf)).ours["model"]["separator"])[0]: conf for conf in reversed(CONFS)}


def takes_a_step(ours):
    """On a quarter of a second of noise: shapes, a finite loss, gradients in the separator."""
    model = SourceSeparator.from_config(ours["model"])
    seconds = min(model.segment or 0.25, 0.25)
    references = torch.randn(2, len(model.sources), 1, int(seconds * model.sample_rate))
    loss = config.build(ours.get("task", {}).get("loss"), Loss | None, "task.loss") or SISNR()
    separation = model.analyse(references.sum(1))
    assert separation.estimates.shape == references.shape
    value = loss(separation, references, model)
    value.backward()
    assert value.isfinite()
    assert any(p.grad is not None and p.grad.any() for p in model.separator.parameters())


@each_recipe
def test_a_recipe_takes_a_training_step(conf):
    takes_a_step(layered(conf))


@each_recipe
def test_songs_of_a_batch_do_not_see_each_other(conf):
    """In stereo, at two levels."""
    model = SourceSeparator.from_config(layered(conf)["model"]).eval()
    length = int(min(model.segment or 0.1, 0.1) * model.sample_rate)
    loud, quiet = torch.randn(2, 2, length), 0.01 * torch.randn(1, 2, length)
    with torch.no_grad():
        together = model(torch.cat([loud, quiet]))
        alone = torch.cat([model(loud), model(quiet)])
    for ours, theirs in zip(together, alone, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())


def test_every_separator_has_a_recipe():
    ours = {cls.__name__ for cls in vars(separators).values() if isinstance(cls, type) and issubclass(cls, Separator)}
    assert ours - {"Separator"} <= set(recipes())


@pytest.mark.slow
@pytest.mark.parametrize("base", sorted(RECIPES.glob("*/base.yml")), ids=lambda path: path.parent.name)
@pytest.mark.parametrize("separator", recipes())
def test_any_separator_with_any_data_set(separator, base):
    ours = layered(recipes()[separator], base)
    if ours["model"].get("interchangeable"):
        ours["model"].pop("stitch", None)  # "middle" is for named sources, as its error says
    _, encoder = parts(ours["model"]["encoder"])
    if "sample_rate" in encoder:
        encoder["sample_rate"] = ours["model"]["sample_rate"]
    takes_a_step(ours)
