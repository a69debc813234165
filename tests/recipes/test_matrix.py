"""Any separator runs with any data set's base.yml: every pair takes a training step, the network made small."""

from pathlib import Path

import pytest
import torch
import yaml

from tasnet_attn import losses, separators
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import Separator

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = {
    "TasNet": {"hidden": 8, "n_layers": 2},
    "LTL": {"hidden": 8, "heads": 2, "ffn": 8, "transformer_layers": 1, "lstm_before": 1},
    "Hourglass": {"n_stacks": 2, "n_poolings": 2, "channels": 4, "growth": 0, "stem": [2]},
    "SkipAttentionHourglass": {"n_stacks": 1, "n_poolings": 2, "channels": 4, "stem": [2]},
    "SamsNet": {"channels": 4, "n_modules": 1},
    "AudioSlots": {
        "encoder": {"class_path": "ResNet", "init_args": {"channels": 4, "groups": 2, "blocks": [1, 1, 1, 1]}},
        "slots": {"class_path": "QueryTransformer", "init_args": {"width": 16, "n_layers": 1, "heads": 2, "ffn": 16}},
        "decoder_hidden": 8,
    },
}


def name_of(component):
    return (component if isinstance(component, str) else component["class_path"]).rpartition(".")[2]


def recipes():
    """One recipe of each separator: {its class: conf.yml}."""
    found = {}
    for conf in sorted(RECIPES.glob("*/*/conf.yml")):
        found.setdefault(name_of(yaml.safe_load(conf.read_text())["model"]["separator"]), conf)
    return found


BASES = sorted(RECIPES.glob("*/base.yml"))


def test_the_matrix_is_complete():
    ours = {cls.__name__ for cls in vars(separators).values() if isinstance(cls, type) and issubclass(cls, Separator)}
    assert set(SMALL) == ours - {"Separator"}
    assert {"TasNet", "LTL", "Hourglass", "SkipAttentionHourglass"} <= set(recipes()) <= set(SMALL)
    assert {"demo", "mir1k"} <= {base.parent.name for base in BASES}


@pytest.mark.parametrize("base", BASES, ids=lambda path: path.parent.name)
@pytest.mark.parametrize("separator", recipes())
def test_a_training_step(separator, base):
    recipe, data_set = (yaml.safe_load(path.read_text()) for path in (recipes()[separator], base))
    config = {**data_set["model"], **recipe["model"]}
    if config.get("interchangeable"):
        config.pop("stitch", None)  # "middle" is for named sources, as its error says
    arguments = config["separator"]["init_args"] if isinstance(config["separator"], dict) else {}
    config["separator"] = {"class_path": separator, "init_args": {**arguments, **SMALL[separator]}}
    encoder = config["encoder"]["init_args"]
    if "sample_rate" in encoder:
        encoder["sample_rate"] = config["sample_rate"]
    model = SourceSeparator.from_config(config)
    seconds = min(model.segment or 0.5, 0.5)
    references = torch.randn(2, len(model.sources), 1, int(seconds * model.sample_rate))
    task = {**data_set.get("task", {}), **recipe.get("task", {})}
    described = task.get("loss", "SISNR")
    loss = getattr(losses, name_of(described))(**(described.get("init_args", {}) if described != "SISNR" else {}))
    separation = model.analyse(references.sum(1))
    assert separation.estimates.shape == references.shape
    value = loss(separation, references, model)
    value.backward()
    assert value.isfinite()
    assert any(p.grad is not None and p.grad.any() for p in model.separator.parameters())
