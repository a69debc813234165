"""YAML as plain data: no dates, no bytes, no text without end; and values of options as they were written."""

import json

import pytest

from tasnet_attn import config
from tasnet_attn.errors import UserError

TEXTS = ["stems #2", "# 1", "2024 #2", "a: b", "2024", "2024-05-01", "1e-3", "null", "", " a ", "[x", "a\nb", "é🎵"]


@pytest.mark.parametrize("text", ["2024-05-01", "2024-05-01 12:30:00", "2024-05-01T12:30:00Z"])
def test_a_date_is_text(text):
    assert config.parse_yaml(f"out: {text}") == {"out": text}
    assert config.parse_yaml(config.write_yaml({"out": text})) == {"out": text}


@pytest.mark.parametrize("text", ["!!timestamp 2024-05-01", "!!binary aGk=", "!!set {a, b}", "!!omap [a: 1]"])
def test_nothing_but_plain_data_even_if_a_tag_asks_for_it(text, tmp_path):
    (tmp_path / "c.yml").write_text(f"out: {text}\n")
    with pytest.raises(UserError, match=r"c\.yml: not a configuration: line 1: .*") as caught:
        config.read_yaml(tmp_path / "c.yml")
    assert "\n" not in str(caught.value)


def test_text_that_aliases_repeat_without_end_is_refused():
    """60 kB and 12,000 aliases would be 720 MB."""
    few = config.parse_yaml("a: &a xyz\nb: [*a, *a]\n")
    assert few == {"a": "xyz", "b": ["xyz", "xyz"]}
    text = f"x: &a {'y' * 60_000}\nb: [{', '.join(['*a'] * 12_000)}]\n"
    with pytest.raises(ValueError, match=r"line 2: \*a repeats too much text; write it out"):
        config.parse_yaml(text)
    with pytest.raises(UserError, match="repeats too much"):
        config.read([f"--trainer.devices={text}"])


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("stems #2", "stems #2"), ("'stems' #2", "stems"), ("2024 #2", "2024 #2"), ("#", "#"), ("a\nb", "a\nb"),
        ("2024-05-01", "2024-05-01"), ("5", 5), ("'5'", "5"), ("1e-3", 1e-3), ("null", None), ("", None),
        ("[a, b] # two", ["a", "b"]), ("{a: 1}", {"a": 1}), ("!!str 5", "5"),
    ],
)  # fmt: skip
def test_text_of_an_option_is_taken_as_it_is_unless_it_is_quoted(written, meant):
    assert config.read([f"--data.root={written}"]).ours == {"data": {"root": meant}}


@pytest.mark.parametrize("value", [*TEXTS, 5, 0.5, True, None, ["a #b", "5"], {"a": "2024"}], ids=json.dumps)
def test_an_argument_of_a_sweep_is_read_as_its_value(value):
    assert config.read([config.argument("data.root", value)]).ours == {"data": {"root": value}}
    if isinstance(value, str):  # Lightning's parser takes text as it is
        assert config.argument("trainer.precision", value) == f"--trainer.precision={value}"
        assert config.argument("task.optimizer", value) == f"--task.optimizer={value}"
