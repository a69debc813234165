"""The commands as a user calls them."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from conftest import tasnet_model

from tasnet_attn import save
from tasnet_attn.cli import main
from tasnet_attn.options import ABOUT, parser, recipe, train_arguments, train_help
from tasnet_attn.training.command import parse


@pytest.fixture
def model(tmp_path):
    return str(save(tasnet_model(), tmp_path / "model.safetensors"))


@pytest.fixture
def song(tmp_path):
    soundfile.write(tmp_path / "song.wav", 0.1 * np.random.default_rng(0).normal(size=(9000, 2)), 8000)
    return tmp_path / "song.wav"


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "tasnet_attn.cli", *arguments], capture_output=True, text=True)


def test_help_imports_nothing_heavy():
    code = "import sys, tasnet_attn.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    assert "argparse" in loaded
    assert not {"torch", "numpy", "pytorch_lightning", "asteroid", "jsonargparse", "yaml", "scipy"} & set(loaded)


def test_separate_imports_no_training():
    code = "import sys, tasnet_attn.inference.segments, tasnet_attn.model\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    assert "torch" in loaded
    assert not {"pytorch_lightning", "asteroid", "jsonargparse", "museval", "matplotlib"} & set(loaded)


def test_every_command_has_the_short_options_and_says_how_much_to_print():
    """-m, -o, -d, -q, -v, -h: wherever the long one exists."""
    short = {"--model": "-m", "--out": "-o", "--device": "-d", "--quiet": "-q", "--verbose": "-v", "--help": "-h"}
    (commands,) = (action.choices for action in parser()._actions if isinstance(action.choices, dict))
    assert commands.keys() | {"train"} == ABOUT.keys()
    for name, command in commands.items():
        found = {option: action.option_strings for action in command._actions for option in action.option_strings}
        assert {"--quiet", "--verbose", "--help", "--import"} <= found.keys(), name
        assert all(short[option] in found[option] for option in found.keys() & short.keys()), name
    assert all(f"-{letter}, --" in train_help() for letter in "odqvh")


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("command", ["", *ABOUT])
def test_every_help_fits_one_screen(command, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    try:
        assert main([*command.split(), "--help"]) == 0
    except SystemExit as ended:
        assert not ended.code
    lines = capsys.readouterr().out.splitlines()
    assert any("tasnet-attn" in line or "--out DIR" in line for line in lines)
    assert len(lines) <= (24 if command in ("", "train") else 40 if width == 100 else 48)
    assert max(map(len, lines)) <= width
    assert not any("class '" in line or "positional arguments" in line for line in lines)


def test_train_alone_says_what_it_needs(capsys):
    assert main(["train"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    command = line.partition("try: ")[2].split()
    assert command[:2] == ["tasnet-attn", "train"]
    parse(command[2:])  # it would run


def test_the_settings_that_help_shows_exist(capsys):
    """Of `train`, whose help is written by hand; the same settings by their short names are the same run."""
    base = recipe("demo") / "base.yml"
    files = ["--config", str(base), "--config", str(base.parent / "ltl" / "conf.yml")]
    values = ["--trainer.max_epochs=3", "--early_stopping.patience=4", "--task.optimizer.init_args.lr=0.1"]
    values += ["--data.batch_size=2", "--data.segment=1", "--data.segments_per_epoch=9", "--data.workers=0"]
    values += ["--trainer.precision=bf16-mixed", "--ema=0.9", "--trainer.max_time=00:01:00:00", "--seed_everything=3"]
    names = [value.partition("=")[0] for value in values]
    assert all(name in train_help() or f" {name.partition('.')[2]} " in train_help() for name in names)
    whole = parse([*files, *values, "--out=x", "--trainer.accelerator=cpu"])
    assert parse(train_arguments([*files, *values, "-o", "x", "-d", "cpu"])) == whole


def test_help_all_has_every_setting(capsys):
    assert main(["train", "--help-all"]) == 0
    text = capsys.readouterr().out
    for setting in ("transformer_layers=4", "segments_per_epoch=1000", "cap=null", "--trainer.max_epochs", "--ema"):
        assert setting in text
    assert "<class" not in text and "Lightning Trainer command line tool" not in text


def test_separate(model, song, tmp_path, capsys):
    assert main(["separate", str(song), "--model", model, "--out", str(tmp_path / "out"), "--sources", "backing"]) == 0
    assert [path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.wav")] == [
        "song/backing.wav"
    ]
    assert "backing.wav" in capsys.readouterr().out
    arguments = ["separate", str(song), "-m", model, "-d", "cpu", "-o", str(tmp_path / "again")]
    assert main([*arguments, "-q"]) == 0
    assert capsys.readouterr() == ("", "") and (tmp_path / "again" / "song" / "guitar.wav").is_file()
    assert main([*arguments, "--verbose"]) == 0
    assert f"{song}: " in capsys.readouterr().err


def test_a_bad_input_does_not_stop_the_rest(model, song, tmp_path, capsys):
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio")
    arguments = ["separate", str(bad), str(tmp_path / "missing.wav"), str(song), "--model", model]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and "bad.wav" in errors[0] and "missing.wav" in errors[1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".separated", "song"]


def nan_file(tmp_path):
    soundfile.write(tmp_path / "nan.wav", np.full((100, 1), np.nan), 8000, "FLOAT")
    return tmp_path / "nan.wav"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["separate", "SONG", "--model", "nowhere"], "nowhere: no such model"),
        (["separate", "nowhere.wav", "--model", "MODEL"], "nowhere.wav: no such file"),
        (
            ["separate", "SONG", "--model", "MODEL", "--sources", "drums"],
            "no source 'drums'; it separates guitar, backing",
        ),
        (["separate", "SONG", "--model", "SONG"], "not a checkpoint that can be read safely"),
        (["separate", "CORRUPT", "--model", "MODEL"], "corrupt.wav: cannot be read as audio"),
        (["separate", "EMPTY", "--model", "MODEL"], "empty: no audio files"),
        (["separate", "NAN", "--model", "MODEL"], "nan.wav: NaN or infinite value at sample 0"),
        (["evaluate", "--model", "MODEL", "--data", "nowhere.yml"], "nowhere.yml: no such file"),
        (["check-data", "nowhere.yml"], "nowhere.yml: no such file"),
        (["train", "--config", "nowhere.yml"], "nowhere.yml"),
        (["export", "nowhere"], "nowhere: no such model"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments, said, model, song, tmp_path, capsys):
    (tmp_path / "corrupt.wav").write_bytes(b"RIFF but not really")
    (tmp_path / "empty").mkdir()
    names = {"SONG": song, "MODEL": model, "CORRUPT": tmp_path / "corrupt.wav", "EMPTY": tmp_path / "empty"}
    names["NAN"] = nan_file(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    arguments = [str(names.get(a, a)) for a in arguments]
    if arguments[0] == "separate":
        arguments += ["--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and "Traceback" not in error
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before and path.is_file()] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["separate", "a.wav", "--model", "m", "--overlapp", "3"], "--overlapp"),
        (["seperate", "a.wav"], "no command 'seperate'; the commands are demo, train, separate"),
    ],
)
def test_an_unknown_word_is_one_line_and_status_2(arguments, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_bug_of_ours_shows_its_traceback(model, song, monkeypatch):
    monkeypatch.setattr("tasnet_attn.inference.running.in_parts", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["separate", str(song), "--model", model])


def test_check_data_lists_the_bundled_songs(capsys):
    from tasnet_attn.demo import recipe

    assert main(["check-data", str(recipe("demo") / "base.yml")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in lines if line[:1] in (["train"], ["valid"], ["test"])] == [
        ["train", "3"], ["valid", "3"], ["test", "1"],
    ]  # fmt: skip
    assert lines[-1] == ["verdict:", "OK"]


@pytest.mark.slow
def test_export(model, tmp_path, capsys):
    assert main(["export", model, "--out", str(tmp_path / "other.safetensors")]) == 0
    from tasnet_attn import load

    x = torch.randn(1, 1, 500)
    assert torch.equal(load(tmp_path / "other.safetensors")(x), load(model)(x))
    assert main(["export", "-m", model, "-o", str(tmp_path / "again.safetensors"), "--half"]) == 0
    assert (tmp_path / "again.safetensors").stat().st_size < (tmp_path / "other.safetensors").stat().st_size
    capsys.readouterr()
    assert main(["export", "--half"]) == 2 and "needs MODEL" in capsys.readouterr().err
    assert main(["export", model, "--out", model]) == 2
    assert "is the model itself" in capsys.readouterr().err


def test_the_demo_end_to_end_in_two_steps(tmp_path, capsys):
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--steps", "2"]) == 0
    for path in ("index.html", "spectrograms.png", "run/checkpoints/last.ckpt", "test/audio/metal-madness/guitar.wav"):
        assert (out / path).stat().st_size > 1000, path
    summary = json.loads((out / "test" / "summary.json").read_text())
    assert summary
    printed = capsys.readouterr().out
    assert printed.count("SI-SNRi") == 2 and printed.count("guitar") == 2
    assert (out / "index.html").stat().st_size < 4_000_000


def test_the_demo_does_not_write_into_a_folder_of_another_kind(tmp_path, capsys):
    (tmp_path / "thesis.tex").touch()
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "already exists" in capsys.readouterr().err
