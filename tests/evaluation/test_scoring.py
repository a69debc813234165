"""Scoring belongs to the recipe: rates, masks, checkpoints and oracles, by a run's section or the command line."""

import json
from functools import partial
from pathlib import Path

import mir_eval
import numpy as np
import pytest
import soundfile
import torch
from lookalikes import write_librimix, write_mir1k, write_stem_folders
from test_evaluate import Bands, ThreeBands, Tones

from tasnet_attn import config
from tasnet_attn.audio.resampling import resample
from tasnet_attn.cli import main
from tasnet_attn.data import LibriMix
from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.choosing import choose
from tasnet_attn.evaluation.command import complete, evaluate, run
from tasnet_attn.evaluation.oracles import Autoencoder, ModelOracle
from tasnet_attn.evaluation.results import read_table
from tasnet_attn.filterbanks import GatedEncoder, LearnedDecoder, STFTDecoder, STFTEncoder
from tasnet_attn.heads import Magnitude, Mask
from tasnet_attn.inference.segments import separate
from tasnet_attn.metrics import si_snr
from tasnet_attn.model import SourceSeparator
from tasnet_attn.reporting.command import report
from tasnet_attn.separators import AudioSlots, QueryTransformer, ResNet, TasNet
from tasnet_attn.storage import load, save
from tasnet_attn.storage.finding import find

RATE = 8000


def learned(sources, rate=RATE):
    return SourceSeparator(
        sources, rate, GatedEncoder(16, 16), partial(TasNet, hidden=4, n_layers=1), LearnedDecoder(16, 16)
    )


def slots(sources, interchangeable=True):
    stft = {"n_fft": 512, "hop": 125, "drop": "nyquist"}
    parts = {"encoder": ResNet(4, [1, 1, 1, 1], 2), "slots": QueryTransformer(8, 1, 2), "decoder_hidden": 8, "bands": 2}
    return SourceSeparator(
        sources,
        RATE,
        STFTEncoder(**stft, power=0.3, last_frame=False),
        lambda n_features, n_sources: AudioSlots(n_features, n_sources, **parts),
        STFTDecoder(**stft),
        Magnitude("wiener", 0.3),
        interchangeable=interchangeable,
        segment=0.5,
    )


def write_run(folder, model, evaluation, data):
    """A run folder with the configuration that stage 2 reads."""
    folder.mkdir()
    save(model, folder / "model.safetensors")
    (folder / "config.yml").write_text(config.write_yaml({"data": data, "evaluation": evaluation}))
    return folder


def whole(folder, metric):
    table = read_table(folder)
    return table[table["metric"] == metric].set_index("source")["score"].to_dict()


# ---- rates ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_mir1k(tmp_path_factory.mktemp("clips"), {"abjones_1_01": 1, "bobon_1_01": 1.3})


def test_mir1k_is_scored_at_16_khz_as_mir_eval_does(clips, tmp_path):
    """By the section of the recipe's own base.yml; the references have what the network never sees."""
    recipe = config.read_yaml(Path(__file__).parents[2] / "recipes" / "mir1k" / "base.yml")
    section = {**recipe["evaluation"], "checkpoint": "best", "audio": "wav"}
    data = {"class_path": "MIR1K", "init_args": {"root": str(clips), "mixture": "mean"}}
    folder = write_run(tmp_path / "run", learned(["accompaniment", "vocals"]), section, data)
    summary = run(str(folder), str(folder))
    assert (summary["model_rate"], summary["rates"]) == (8000, [16000])
    audio, names = folder / "evaluation" / "audio" / "bobon_1_01", ["accompaniment", "vocals"]
    file, rate = soundfile.read(clips / "Wavfile" / "bobon_1_01.wav")
    mixture, heard = soundfile.read(audio / "mixture.wav")
    assert rate == heard == 16000
    np.testing.assert_allclose(mixture, file.mean(1), atol=1e-6)
    estimates = np.stack([soundfile.read(audio / f"{name}.wav")[0] for name in names])
    for at, suffix in ((16000, ""), (8000, " at 8 kHz")):
        signals = (torch.from_numpy(x) for x in (file.T, estimates, np.stack([mixture, mixture])))
        references, separated, mixed = (resample(x, 16000, at).numpy() for x in signals)
        sdr, sir, sar, _ = mir_eval.separation.bss_eval_sources(references, separated, compute_permutation=False)
        before = mir_eval.separation.bss_eval_sources(references, mixed, compute_permutation=False)[0]
        for metric, expected in (("NSDR", sdr - before), ("SIR v3", sir), ("SAR v3", sar)):
            found = whole(folder / "evaluation", metric + suffix)
            np.testing.assert_allclose([found[name] for name in names], expected, rtol=0, atol=1e-6)


def test_tracks_of_another_rate_are_scored_at_their_own(tmp_path, capsys):
    root = write_stem_folders(tmp_path / "songs", [24000], "test", 16000, channels=1)
    data = {"class_path": "StemFolders", "init_args": {"root": str(root)}}
    model = learned(["guitar", "backing"])
    folder = write_run(tmp_path / "run", model, {}, data)
    command = ["evaluate", "--model", str(folder), "--data", str(folder)]
    assert main(command) == 0
    said = "resampled to the model's 8000 Hz and back, scored at 16000 Hz"
    assert said in capsys.readouterr().out and said in (folder / "evaluation" / "table.txt").read_text()
    sources = [soundfile.read(root / f"test/track0/{name}.wav", dtype="float32")[0] for name in model.sources]
    references = torch.from_numpy(np.stack(sources))[:, None]
    estimates = torch.stack(list(separate(load(folder / "model.safetensors"), references.sum(0), 16000).values()))
    expected = si_snr(references.double(), estimates.double(), floor=0.0)[:, 0].tolist()
    assert list(whole(folder / "evaluation", "SI-SNR").values()) == pytest.approx(expected, abs=1e-6)
    assert main([*command, "--rate", "8000", "--beside", "16000", "--show", "SI-SNR at 16 kHz"]) == 0
    printed = capsys.readouterr().out
    assert "SI-SNR at 16 kHz" in printed and "SI-SNRi" not in printed and "resampled" not in printed
    assert main([*command, "--show", "SNR"]) == 2
    assert "evaluation.show: 'SNR' is not scored; choose from SDR, ISR" in capsys.readouterr().err


def test_references_order_chunks_at_the_models_rate_too(tmp_path):
    class Fast(ThreeBands):
        sample_rate = property(lambda self: 16000, lambda self, value: None)

        def read(self, start=0, length=None):
            mixture, references = super().read()
            return resample(mixture, 8000, 16000), resample(references, 8000, 16000)

    scores = evaluate(Bands(), [Fast()], tmp_path, segment=0.5, order_by_references=True)["scores"]
    for metrics in scores.values():
        assert metrics["SI-SNR"]["mean of means"]["value"] > 15


@pytest.mark.parametrize("settings", [{"rate": 10}, {"beside": [0]}, {"rate": 10**11}])
def test_absurd_rates_are_one_line(tmp_path, settings):
    with pytest.raises(UserError, match="a rate of .* Hz is too (low|high)"):
        evaluate(ModelOracle(slots(["one", "two"])), [Tones("a")], tmp_path, **settings)


# ---- flags, checkpoints, masks, oracles -----------------------------------------------------------------------------


def test_the_command_line_turns_off_what_the_run_turned_on(tmp_path):
    root = write_stem_folders(tmp_path / "songs", [4000], "test", channels=1)
    section = {"v3": True, "order_by_references": True, "audio": "wav", "window": 0.25, "baselines": ["mixture"]}
    data = {"class_path": "StemFolders", "init_args": {"root": str(root)}}
    folder = write_run(tmp_path / "run", slots(["guitar", "backing"]), section | {"rate": 16000}, data)
    command = ["evaluate", "--model", str(folder), "--data", str(folder)]
    off = [
        "--no-v3",
        "--no-order-by-references",
        "--audio",
        "none",
        "--window",
        "none",
        "--baselines",
        "--rate",
        "none",
    ]
    assert main([*command, *off]) == 0
    summary = json.loads((folder / "evaluation" / "summary.json").read_text())
    assert (summary["v3"], summary["window"], summary["baselines"], summary["rate"]) == (False, None, [], None)
    assert not (folder / "evaluation" / "audio").exists()


def test_every_setting_of_the_section_is_an_option_and_every_flag_has_a_no(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    printed = capsys.readouterr().out
    for key, value in complete({}).items():
        name = key.replace("_", "-")
        assert f"--{name}" in printed or key == "name"
        assert not isinstance(value, bool) or f"--no-{name}" in printed


def test_the_last_checkpoint_is_another(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    best, last = learned(["one", "two"]), learned(["one", "two"])
    for name, model in (("best", best), ("last", last)):
        state = {f"model.{key}": value for key, value in model.state_dict().items()}
        torch.save({"state_dict": state, "model_config": model.config}, tmp_path / "checkpoints" / f"{name}.ckpt")
        for key, value in model.state_dict().items():
            chosen = choose(tmp_path, name)[0][""].state_dict()[key]
            torch.testing.assert_close(chosen, value)
    assert find(tmp_path).stem == "best"
    (tmp_path / "config.yml").write_text("evaluation: {checkpoint: last}")
    for key, value in load(tmp_path).state_dict().items():  # what the recipe scores is what separates, and is exported
        torch.testing.assert_close(value, last.state_dict()[key])
    assert find(tmp_path, "best").stem == "best"
    save(last, tmp_path / "file.safetensors")
    root = write_stem_folders(tmp_path / "songs", split="test", channels=1, sources=["one", "two"])
    data = {"data": {"class_path": "StemFolders", "init_args": {"root": str(root)}}}
    (tmp_path / "data.yml").write_text(config.write_yaml(data))
    for place, asked, scored in (
        ("", {}, "last"), ("", {"checkpoint": "best"}, "best"), ("checkpoints/last.ckpt", {}, "last"),
        ("file.safetensors", {}, None),
    ):  # fmt: skip
        summary = run(str(tmp_path / place), str(tmp_path / "data.yml"), str(tmp_path / "scores"), **asked)
        assert summary["checkpoint"] == scored
    with pytest.raises(UserError, match="different names"):
        choose(tmp_path, oracle="remix", sources=["one", "one"])
    (tmp_path / "checkpoints" / "last.ckpt").unlink()
    assert find(tmp_path).stem == "best"
    with pytest.raises(UserError, match="last.ckpt: no such file, but evaluation.checkpoint is 'last'"):
        choose(tmp_path, "last")


@pytest.fixture(scope="module")
def speakers(tmp_path_factory):
    return write_librimix(tmp_path_factory.mktemp("speakers"))


@pytest.mark.slow
def test_masks_are_chosen_at_evaluation(speakers, tmp_path):
    """Both from one run: the first in the folder itself."""
    data = {"class_path": "LibriMix", "init_args": {"root": str(speakers)}}
    section = {"mask": ["wiener", "binary"], "overlap": 0.0, "order_by_references": True}
    folder = write_run(tmp_path / "run", slots(["a", "b"]), section, data)
    run(str(folder), str(folder))
    tracks = LibriMix(["a", "b"], RATE, speakers).tracks("test")
    for mask, below in (("wiener", ""), ("binary", "masks/binary")):
        model = load(folder / "model.safetensors")
        model.head = Magnitude(mask, 0.3)
        evaluate(model, tracks, tmp_path / mask, overlap=0.0, order_by_references=True)
        assert whole(tmp_path / mask, "SI-SNR") == whole(folder / "evaluation" / below, "SI-SNR")
    summary = json.loads((folder / "evaluation" / "masks" / "binary" / "summary.json").read_text())
    assert summary["mask"] == "binary" and "binary masks" in summary["name"]
    page = report([folder]).read_text()
    assert "run, wiener masks" in page and "run, binary masks" in page
    run(str(folder), str(folder), mask=["binary"])  # alone: Wiener masks' scores lie where these go
    assert whole(folder / "evaluation", "SI-SNR") == whole(tmp_path / "binary", "SI-SNR")
    model = learned(["a", "b"])
    assert isinstance(model.head, Mask)
    save(model, tmp_path / "mask.safetensors")
    with pytest.raises(UserError, match="--mask binary: its head is a Mask"):
        run(str(tmp_path / "mask.safetensors"), str(folder), mask="binary")


@pytest.mark.slow
def test_oracles_of_a_run_are_evaluated_in_its_place(speakers, tmp_path):
    data = {"class_path": "LibriMix", "init_args": {"root": str(speakers)}}
    folder = write_run(
        tmp_path / "run",
        slots(["speech"], interchangeable=False),
        {"oracle": "autoencoder", "sources": ["a", "b"], "mask": "binary"},
        data,
    )
    tracks = LibriMix(["a", "b"], RATE, speakers).tracks("test")
    model = load(folder / "model.safetensors")
    assert run(str(folder), str(folder))["oracle"] == "autoencoder"
    evaluate(Autoencoder(model, "binary"), tracks, tmp_path / "autoencoder")
    assert whole(folder / "evaluation", "SI-SNR") == whole(tmp_path / "autoencoder", "SI-SNR")
    run(str(folder), str(folder), str(tmp_path / "ours"), oracle="masks", mask="wiener")
    evaluate(ModelOracle(model, "wiener"), tracks, tmp_path / "masks")
    assert whole(tmp_path / "ours", "SI-SNR") == whole(tmp_path / "masks", "SI-SNR")
    save(slots(["a", "b"]), tmp_path / "two.safetensors")
    with pytest.raises(UserError, match="an autoencoder has one source; this model has 2"):
        run(str(tmp_path / "two.safetensors"), str(folder), oracle="autoencoder")
