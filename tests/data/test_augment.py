"""Augmentation: drawn from (seed, epoch, index), off unless asked for, and the mixture follows the sources."""

import pytest
import torch
from lookalikes import write_librimix, write_stem_folders

from tasnet_attn.data import MUSDB18, LibriMix, StemFolders, from_config
from tasnet_attn.errors import UserError

SOURCES = ["guitar", "backing"]
KEYS = [(epoch, index) for epoch in (0, 3) for index in range(40)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = write_stem_folders(tmp_path_factory.mktemp("stems"))
    write_stem_folders(root, (3000,), "valid")
    write_stem_folders(root / "three", (3000, 3000), channels=3)
    return write_stem_folders(root / "mono", (3000, 3000), channels=1).parent


def segments(root, split="train", **settings):
    return StemFolders(SOURCES, 8000, root, segment=0.125, **settings).segments(split)


def choices(plain, changed, options):
    """Which of `options` (from a source [C, T]) each source became, over all segments."""
    chosen = []
    for key in KEYS:
        mixture, references = changed[key]
        torch.testing.assert_close(mixture, references.sum(0))
        for ours, before in zip(references, plain[key][1], strict=True):
            equal = [torch.equal(ours, option(before)) for option in options]
            assert sum(equal) == 1
            chosen.append(equal.index(True))
    return chosen


@pytest.mark.parametrize("which", ["swap", "polarity"])
def test_every_source_by_itself_with_the_probability_asked_for(root, which):
    options = [lambda x: x, (lambda x: x.flip(0)) if which == "swap" else (lambda x: -x)]
    plain = segments(root)
    chosen = choices(plain, segments(root, **{which: 0.3}), options)
    assert sum(chosen) == pytest.approx(0.3 * len(chosen), abs=5 * (0.21 * len(chosen)) ** 0.5)
    pairs = list(zip(chosen[::2], chosen[1::2], strict=True))
    assert len(set(pairs)) == 4  # neither source follows the other
    assert choices(plain, segments(root, **{which: 0.3}), options) == chosen
    assert choices(plain, segments(root, **{which: 1.0}), options) == [1] * len(chosen)


def test_three_channels_rotate_and_one_stays(root):
    rotated = choices(
        segments(root / "three"), segments(root / "three", swap=1.0), [lambda x: x.roll(1, 0), lambda x: x.roll(2, 0)]
    )
    assert set(rotated) == {0, 1}
    mono, plain = segments(root / "mono", swap=1.0), segments(root / "mono")
    assert all(torch.equal(mono[key][1], plain[key][1]) for key in KEYS)


def test_gain_is_in_decibels_and_uniform(root):
    """20 log10 of the ratio of amplitudes: each source's own, spread evenly over -6 to 6 dB."""
    plain, changed = segments(root), segments(root, gain=6.0)
    levels = []
    for key in KEYS:
        ratio = changed[key][1].square().mean((1, 2)) / plain[key][1].square().mean((1, 2))
        levels.append(10 * ratio.log10())
        torch.testing.assert_close(changed[key][0], changed[key][1].sum(0))
    levels = torch.stack(levels)  # 80 x 2, of a standard deviation of 12 dB / sqrt(12)
    assert 5.5 < levels.abs().max() <= 6.001 and levels.mean().abs() < 5 * 3.5 / 160**0.5
    assert levels.std().item() == pytest.approx(12 / 12**0.5, rel=0.2)
    assert (levels[:, 0] - levels[:, 1]).abs().min() > 0


def test_all_at_once_are_a_pure_function_of_the_key(root):
    everything = {"remix": 0.5, "gain": 6.0, "swap": 0.5, "polarity": 0.5}
    first, second = segments(root, **everything), segments(root, workers=2, **everything)
    for key in reversed(KEYS):  # asked for in another order, by another object
        second[key]
    for key in KEYS:
        for ours, theirs in zip(first[key], second[key], strict=True):
            assert torch.equal(ours, theirs)
        torch.testing.assert_close(first[key][0], first[key][1].sum(0))
    other = segments(root, seed=1, **everything)
    assert not any(torch.equal(first[key][0], other[key][0]) for key in KEYS)


def test_noise_is_left_as_it_is(tmp_path):
    write_librimix(tmp_path, noisy=True)
    names = ["a", "b"]
    data = LibriMix(names, 8000, tmp_path, noisy=True, segment=0.1, gain=6.0, polarity=0.5, remix=0.5).segments("train")
    for key in KEYS:
        mixture, references = data[key]
        track, start = data.draw(*key)
        rest = track.read_rest(start, 800)
        torch.testing.assert_close(mixture - references.sum(0), rest, atol=2e-4, rtol=0)  # 16 bit


def test_off_for_validation_and_by_default(root):
    plain = segments(root, "valid")
    changed = segments(root, "valid", remix=1.0, gain=6.0, swap=1.0, polarity=1.0)
    for index in range(len(plain)):
        assert torch.equal(changed[0, index][0], plain[0, index][0])
    data = segments(root)
    for key in KEYS:
        track, start = data.draw(*key)
        assert torch.equal(data[key][1], track.read(start, 1000)[1])


def test_a_run_says_what_is_on(root, caplog):
    said = []
    for settings in ({}, {"remix": 0.5, "gain": 4, "swap": 1, "polarity": 0.25, "channels": "random"}):
        caplog.clear()
        StemFolders(SOURCES, 8000, root, **settings).setup("fit")
        said += caplog.messages
    assert said == [
        "augmentation: none; off: remix, gain, swap, polarity; channels: all",
        "augmentation: remix 0.5, gain 4 dB, swap 1, polarity 0.25; channels: random",
    ]


@pytest.mark.parametrize(("setting", "value"), [("remix", 1.5), ("swap", -0.1), ("polarity", 2.0), ("gain", -3.0)])
def test_values_that_make_no_sense(tmp_path, setting, value):
    with pytest.raises(ValueError, match=f"{setting} {value}"):
        MUSDB18(["vocals"], 8000, **{setting: value})
    file = tmp_path / "base.yml"
    file.write_text(f"data: {{class_path: StemFolders, init_args: {{{setting}: {value}}}}}\n")
    range_or_class = (
        f"data.{setting}: {value} must be at least 0" if value < 0 else f"data: StemFolders: {setting} {value}"
    )
    with pytest.raises(UserError, match=f"base.yml: {range_or_class}"):
        from_config(file, SOURCES, 8000)
