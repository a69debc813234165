"""Every recipe takes a training step, its network made small; any separator does with any data set's base.yml."""

import copy
import re

import pytest
import torch
from conftest import SMALL_SEPARATORS
from lookalikes import write_librimix
from test_recipes import CONFS, RECIPES, arguments, each_recipe, name_of

from tasnet_attn import config, separators
from tasnet_attn.data import SegmentedData
from tasnet_attn.errors import UserError
from tasnet_attn.losses import SISNR, Loss
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import Separator
from tasnet_attn.training.command import parse, train


def layered(conf, base=None):
    """The sections that a recipe's files set, as `train` layers them, with its separator made small."""
    files = arguments(conf) if base is None else ["--config", str(base), *arguments(conf)[2:4]]
    ours = copy.deepcopy(config.read(files).ours)
    name, settings = parts(ours["model"]["separator"])
    ours["model"]["separator"] = {"class_path": name, "init_args": {**settings, **SMALL_SEPARATORS.get(name, {})}}
    return ours


def parts(component):
    return (component, {}) if isinstance(component, str) else (component["class_path"], component.get("init_args", {}))


def recipes():
    """One recipe of each separator: {its class: conf.yml}."""
    return {parts(config.read(arguments(conf)).ours["model"]["separator"])[0]: conf for conf in reversed(CONFS)}


def kinds():
    """One recipe of each kind of model, by its parts' classes and by whether its features are complex."""
    found = {}
    for conf in reversed(CONFS):
        model = config.read(arguments(conf)).ours["model"]
        named = [parts(model.get(part, "Mask")) for part in ("encoder", "separator", "decoder", "head")]
        found[tuple(name for name, _ in named), named[0][1].get("features")] = conf
    return sorted(found.values())


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


BASES = sorted(RECIPES.glob("*/base.yml"))


def test_there_are_so_many():
    """A recipe that is not found is not tested."""
    assert (len(CONFS), len(BASES)) == (35, 9)


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES, ids=lambda path: path.parent.name)
def test_any_model_on_any_data_set(base):
    """Every kind of conf.yml on every base.yml: the whole configuration parses, the network takes a step."""
    for conf in kinds():
        try:
            full = parse(["--config", str(base), *arguments(conf)[2:4]])
            ours = layered(conf, base)
            takes_a_step({**full, "model": ours["model"]})
        except Exception as error:
            raise AssertionError(f"{name_of(conf)} on {base.parent.name}: {error}") from error


@pytest.mark.parametrize(
    ("base", "options", "said"),
    [
        ("librimix", ["--model.sources=[vocals, drums, bass, other]"], "mixtures of 2 speakers, but the model has 4"),
        ("mir1k", ["--model.sources=[vocals, drums, bass, other]"], "MIR-1K has no source 'bass'"),
        ("mir1k", ["--data.init_args.remix=0.5"], "data: MIR1K: mixture 'mean' takes no augmentation; set it to 'sum'"),
        (
            "librimix",
            ["--model.stitch=middle", "--model.segment=1"],
            "stitch 'middle' needs a segment, an STFT encoder",
        ),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, base, options, said):
    root = write_librimix(tmp_path / "set")
    files = ["--config", str(RECIPES / base / "base.yml"), "--config", str(RECIPES / "musdb18/ltl/conf.yml")]
    with pytest.raises(UserError, match=re.escape(said)) as raised:
        full = parse([*files, f"--data.init_args.root={root}", *options])
        SourceSeparator.from_config(full["model"])
        given = {"sources": full["model"]["sources"], "sample_rate": full["model"]["sample_rate"], "seed": 0}
        config.build(full["data"], SegmentedData, "data", **given).tracks("train")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("base", "option"), [
    ("mir1k", "data.mixture=mean"), ("librimix", "data.noisy=true"), ("musdb18", "model.sources=[vocals, drums]"),
])  # fmt: skip
def test_nothing_is_subtracted_from_a_mixture_that_is_not_the_sum(tmp_path, base, option):
    files = [f"--config={RECIPES / base / 'base.yml'}", f"--config={RECIPES / 'mir1k/hourglass_park/conf.yml'}"]
    small = [f"--model.separator.{key}" for key in ("n_stacks=1", "channels=8", "stem=[8]")]
    options = [
        "--model.head.subtract=true",
        f"--{option}",
        "--trainer.accelerator=cpu",
        f"--out={tmp_path / 'run'}",
    ]
    with pytest.raises(UserError, match="model.head.subtract: .* is not the sum of the sources") as raised:
        train([*files, *small, *options])
    assert "\n" not in str(raised.value)
