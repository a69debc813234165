"""The reader of configurations: layers, overrides, checks against constructors, classes by name, trust."""

import json
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasnet_attn import config
from tasnet_attn.config import Configurable
from tasnet_attn.errors import UserError
from tasnet_attn.filterbanks import Encoder, GatedEncoder
from tasnet_attn.losses import SISNR, Loss
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import LTL, Separator
from tasnet_attn.separators.base import Separator as Base

SEPARATOR = config.settings(SourceSeparator)["separator"].annotation


class Part(Configurable):
    abstract = True


class Bolt(Part):
    def __init__(
        self, length: int, head: Literal["hex", "round"] = "hex", weight: float = 1.0, name: str | None = None
    ):
        if length < 1:
            raise ValueError(f"length {length} must be at least 1")
        self.length = length


class Frame(Part):
    def __init__(
        self, parts: list[Part], sizes: dict[str, float] | None = None, where: Path = Path("x"), on: bool = True
    ):
        self.parts, self.where = parts, where


class Inherits(Bolt):
    """Without its own constructor."""


class Passes(Bolt):
    fixed = ("weight",)

    def __init__(self, length: int, colour: str = "grey", **rest):
        super().__init__(length, weight=2.0, **rest)


def built(value, annotation=Part, **given):
    return config.build(value, annotation, "part", **given)


def refused(value, said, annotation=Part, **given):
    with pytest.raises(UserError, match=said) as caught:
        built(value, annotation, **given)
    assert "\n" not in str(caught.value)


def test_what_is_described_is_built_again():
    frame = Frame([Bolt(3), Bolt(4, head="round")], {"a": 1.5})
    written = json.loads(json.dumps(config.describe(frame)))
    again = built(written)
    assert config.describe(again) == written
    assert again.parts[1].length == 4 and again.where == Path("x")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"class_path": "Bolt"}, r"^part\.length: Bolt requires it"),
        ({"class_path": "Bolt", "init_args": {"length": 0}}, r"ValueError: length 0 must.*test_config\.py:\d+"),
        ({"class_path": "Bolt", "init_args": {"length": 2.5}}, r"^part\.length: 2\.5 is not a whole number"),
        ({"class_path": "Bolt", "init_args": {"length": True}}, r"True is not a whole number"),
        ({"class_path": "Bolt", "init_args": {"length": 1, "head": "hx"}}, r"'hx' is neither 'hex' nor 'round'"),
        ({"class_path": "Bolt", "init_args": {"length": 1, "weight": float("nan")}}, r"nan is not a finite number"),
        ({"class_path": "Bolt", "init_args": {"length": 1, "lenght": 2}}, r"part\.lenght: .*did you mean 'length'"),
        ({"class_path": "Bolt", "init_args": None}, r"part\.init_args: null is not a mapping"),
        ({"class_path": "Bolt", "init_args": [1]}, r"part\.init_args: \[1\] is not a mapping"),
        ({"class_path": None, "init_args": {}}, r"part\.class_path: null is not a class's name"),
        ({"class_path": "Bolt", "length": 1}, r"unexpected key 'length' next to class_path"),
        ({"init_args": {"length": 1}}, r"has no class"),
        ("Bolts", r"no class 'Bolts'; did you mean Bolt\?"),
        ("Part", r"no class 'Part'"),
        (3, r"3 must be a class's name or class_path"),
        ({"class_path": "Frame", "init_args": {"parts": {"a": 1}}}, r"part\.parts: .*is not a list"),
        ({"class_path": "Frame", "init_args": {"parts": ["Bolt"]}}, r"part\.parts\[0\]\.length: Bolt requires it"),
        (
            {"class_path": "Frame", "init_args": {"parts": [], "sizes": {"a": "b"}}},
            r"part\.sizes\.a: 'b' is not a finite",
        ),
        ({"class_path": "Frame", "init_args": {"parts": [], "on": "no"}}, r"part\.on: 'no' is not true or false"),
        ("os.system", r"unknown class 'os\.system'; add --import os"),
    ],
)
def test_mistakes_are_one_line_with_path_value_and_what_is_allowed(value, said):
    refused(value, said)


def test_numbers_are_taken_as_people_write_them():
    bolt = {"class_path": "Bolt", "init_args": {"length": 3.0, "weight": 2}}
    assert config.complete(bolt, Part, "part")["init_args"] == {"length": 3, "head": "hex", "weight": 2.0, "name": None}
    assert config.parse_yaml("{a: 1e-3, b: 1E5, c: -.5e2, d: 1e}") == {"a": 1e-3, "b": 1e5, "c": -50.0, "d": "1e"}


def test_a_class_without_a_constructor_has_its_bases_settings_and_one_that_passes_on_has_both():
    assert list(config.settings(Inherits)) == ["length", "head", "weight", "name"]
    assert list(config.settings(Passes)) == ["length", "colour", "head", "name"]
    assert config.describe(built({"class_path": "Inherits", "init_args": {"length": 2}}))["init_args"]["length"] == 2
    refused({"class_path": "Passes", "init_args": {"length": 2, "weight": 1.0}}, "no such setting")


def test_every_component_of_ours_names_its_settings_without_a_catch_all():
    for base in (Encoder, Separator, Loss):
        for cls in config.known(base):
            assert not {"args", "kwargs"} & config.settings(cls).keys(), cls


# ---- names ----------------------------------------------------------------------------------------------------------


@given(before=st.integers(0, 12), after=st.integers(0, 12))
@settings(max_examples=20, deadline=None)
def test_x_trans_y_is_a_separators_name(before, after):
    description = config.complete(f"{before}_trans_{after}", SEPARATOR, "model.separator")
    assert description["class_path"] == "LTL"
    arguments = description["init_args"]
    assert (arguments["lstm_before"], arguments["lstm_after"]) == (before, after)
    made = config.build(description, SEPARATOR, "model.separator")
    assert isinstance(made, partial) and made.func is LTL


def test_a_name_and_a_setting_may_not_contradict_each_other():
    description = {"class_path": "3_trans_0", "init_args": {"bidirectional": True, "lstm_before": 3}}
    assert config.complete(description, SEPARATOR, "s")["init_args"]["bidirectional"]
    description["init_args"]["lstm_before"] = 2
    refused(description, "2 contradicts '3_trans_0'", SEPARATOR)


def test_attention_that_does_not_exist():
    said = r"^part\.attention: 'both' is neither 'causal' nor 'full' nor null"
    refused({"class_path": "LTL", "init_args": {"attention": "both"}}, said, SEPARATOR)
    refused("LTLL", "did you mean LTL", SEPARATOR)


def test_ours_win_over_a_users_class_of_the_same_name_and_two_of_a_users_are_an_error():
    mine = type("SISNR", (Loss,), {"__module__": __name__})
    assert built("SISNR", Loss).__class__ is SISNR
    assert built(f"{__name__}.SISNR", Loss, classes=[mine]).__class__ is mine
    one = type("Twin", (Loss,), {"__module__": "a_module"})
    two = type("Twin", (Loss,), {"__module__": "b_module"})
    refused("Twin", "several classes: a_module.Twin, b_module.Twin; give the full path", Loss)
    assert built("b_module.Twin", Loss).__class__ is two
    assert config.describe(one()) == {"class_path": "a_module.Twin", "init_args": {}}


def test_a_subclass_that_goes_by_its_base_s_own_name_stands_for_nothing():
    """torch.export traces modules as such subclasses, and leaves them behind."""
    double = type("GatedEncoder", (GatedEncoder,), {"__module__": GatedEncoder.__module__})
    assert double not in config.known(Encoder) and GatedEncoder in config.known(Encoder)


def test_classes_of_earlier_places_are_found():
    for path in ("tasnet_attn.filterbanks.GatedEncoder", "GatedEncoder", "tasnet_attn.GatedEncoder"):
        made = built({"class_path": path, "init_args": {"n_filters": 4, "kernel_size": 2}}, Encoder)
        assert type(made) is GatedEncoder
    moved = config.moved({"lr_scheduler": {"class_path": "tasnet_attn.schedules.WarmupCosine"}})
    assert moved == {"lr_scheduler": {"class_path": "tasnet_attn.training.schedules.WarmupCosine"}}


def test_what_the_owner_gives_is_no_setting_unless_it_says_the_same():
    class Data(Part):
        given = ("rate",)

        def __init__(self, rate: int, root: str = "a"):
            self.rate = rate

    description = {"class_path": "Data", "init_args": {"rate": 8000}}
    assert built(description, rate=8000).rate == 8000
    assert config.describe(built("Data", rate=8000))["init_args"] == {"root": "a"}
    refused(description, r"part\.rate: the model or the run sets it to 44100", rate=44100)


# ---- the user's modules ---------------------------------------------------------------------------------------------


def test_import_finds_a_module_of_the_working_folder_for_that_import_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_sep.py").write_text(
        textwrap.dedent("""
        from tasnet_attn.separators import Separator
        class OfAFolder(Separator):
            def __init__(self, n_features: int, n_sources: int, width: int = 3):
                super().__init__()
                if width > 5:
                    raise ValueError(f"width {width} is too much")
        """)
    )
    (tmp_path / "yaml.py").write_text("raise SystemExit('a file of the folder took the place of a library')")
    before = list(sys.path)
    config.import_modules(["my_sep"])
    assert sys.path == before
    encoder = {"class_path": "GatedEncoder", "init_args": {"n_filters": 4, "kernel_size": 2}}
    decoder = {"class_path": "LearnedDecoder", "init_args": {"n_filters": 4, "kernel_size": 2}}
    model = {"sources": ["a"], "sample_rate": 8, "encoder": encoder, "separator": "OfAFolder", "decoder": decoder}
    built_model = SourceSeparator.from_config(model)
    assert built_model.config["separator"]["class_path"] == "my_sep.OfAFolder"
    model["separator"] = {"class_path": "my_sep.OfAFolder", "init_args": {"width": 6}}
    with pytest.raises(UserError, match=r"model\.separator: ValueError: width 6 is too much \(.*my_sep\.py:7\)"):
        SourceSeparator.from_config(model)


@pytest.mark.parametrize(
    ("text", "said"), [(None, "no such module"), ("1 / 0", r"ZeroDivisionError.*broken\.py:1"), ("import nope", "nope")]
)
def test_a_module_that_cannot_be_imported_is_one_line(tmp_path, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    name = f"broken_{abs(hash(text))}" if text is None else f"broken_{len(text)}"
    if text is not None:
        (tmp_path / f"{name}.py").write_text(text)
        said = said.replace("broken", name)
    with pytest.raises(UserError, match=f"--import {name}: .*{said}"):
        config.import_modules([name])


# ---- YAML, layers, overrides ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "line"),
        ("a: 1\na: 2\n", "line 2: 'a' is given twice"),
        ("a: &x [1]\nb: [*x, *x]\n", r"\*x refers to more than one value"),
        ("? [1]\n: 2\n", "cannot be a key"),
        ("[" * 3000, "nested too deeply|line"),
        ("root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1\n", "not a configuration"),
        ("- 1\n", "a mapping"),
        ("", "a mapping"),
        ("a: !!python/object/apply:os.system [ls]\n", "line 1"),
    ],
)
def test_what_is_no_configuration_is_one_line_without_its_text(tmp_path, text, said):
    file = tmp_path / "c.yml"
    file.write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        config.read_yaml(file)
    assert (
        str(caught.value).startswith(str(file)) and "\n" not in str(caught.value) and "daemon" not in str(caught.value)
    )


def test_nested_anchors_are_refused_at_once(tmp_path):
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    (tmp_path / "bomb.yml").write_text("\n".join(lines))
    with pytest.raises(UserError, match="write it out"):
        config.read_yaml(tmp_path / "bomb.yml")


def layered(tmp_path, *texts, overrides=()):
    arguments = []
    for i, text in enumerate(texts):
        (tmp_path / f"{i}.yml").write_text(textwrap.dedent(text))
        arguments += ["--config", str(tmp_path / f"{i}.yml")]
    return config.read([*arguments, *overrides])


def test_later_layers_win_key_by_key(tmp_path):
    layers = layered(
        tmp_path,
        "{model: {sources: [a], sample_rate: 8000}, data: MUSDB18, trainer: {max_steps: 3}}",
        "{model: {sample_rate: 16000, separator: LTL}, data: {init_args: {root: x, segment: 2}}}",
        overrides=["--data.root", "y", "--model.separator.window=8", "--trainer.max_steps", "5", "--flag"],
    )
    assert layers.ours["model"]["sample_rate"] == 16000 and layers.ours["model"]["sources"] == ["a"]
    assert layers.ours["model"]["separator"] == {"class_path": "LTL", "init_args": {"window": 8}}
    assert layers.ours["data"] == {"class_path": "MUSDB18", "init_args": {"root": "y", "segment": 2}}
    assert layers.theirs[-2:] == ["--trainer.max_steps=5", "--flag"]


def test_another_class_keeps_what_both_have(tmp_path):
    one = "model: {separator: {class_path: LTL, init_args: {hidden: 9, window: 4}}}"
    swapped = layered(tmp_path, one, overrides=["--model.separator", "TasNet"]).ours["model"]["separator"]
    assert swapped == {"class_path": "TasNet", "init_args": {"hidden": 9}}
    named = layered(tmp_path, one, overrides=["--model.separator=2_trans_1"]).ours["model"]["separator"]
    assert named == {
        "class_path": "LTL",
        "init_args": {"hidden": 9, "window": 4, "lstm_before": 2, "lstm_after": 1},
    }


def test_the_loss_is_ours_and_the_optimiser_lightnings(tmp_path):
    layers = layered(
        tmp_path,
        "task: {loss: SISNR, optimizer: {class_path: Adam, init_args: {lr: 1}}}",
        overrides=["--task.loss.cap=20", "--task.optimizer.lr=2"],
    )
    assert layers.ours == {"task": {"loss": {"class_path": "SISNR", "init_args": {"cap": 20}}}}
    assert json.loads(layers.theirs[0].removeprefix("--config=")) == {
        "task": {"optimizer": {"class_path": "Adam", "init_args": {"lr": 1}}}
    }
    assert layers.theirs[1] == "--task.optimizer.lr=2"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: null", "model: null is not a mapping"),
        ("data: [1]", r"data: \[1\] is not a mapping"),
        ("data: {class_path: MUSDB18, init_args: null}", r"data\.init_args: null is not a mapping"),
        ("task: 3", "task: 3 is not a mapping"),
    ],
)
def test_a_section_that_is_no_mapping_is_one_line(tmp_path, text, said):
    with pytest.raises(UserError, match=said):
        layers = layered(tmp_path, "data: {class_path: MUSDB18, init_args: {root: x}}", text)
        config.complete(layers.ours["data"], Base, "data")


def test_arguments_that_are_none(tmp_path):
    for arguments, said in (
        (["x.yml"], "expected --key value"),
        (["--config"], "needs a value"),
        (["--model.x"], "value"),
    ):
        with pytest.raises(UserError, match=said):
            config.read(arguments)


def test_an_override_that_is_no_mapping_is_named_by_its_path(tmp_path):
    with pytest.raises(UserError, match=r"^data\.init_args: \[1\] is not a mapping"):
        layered(tmp_path, "data: {class_path: MUSDB18, init_args: {root: x}}", overrides=["--data.init_args", "[1]"])
