"""Augmentation: drawn from (seed, epoch, index), off unless asked for, and the mixture follows the sources."""

import numpy as np
import pytest
import torch
from lookalikes import write_librimix, write_mir1k, write_stem_folders

from tasnet_attn.data import MIR1K, MUSDB18, LibriMix, StemFolders, Track, from_config
from tasnet_attn.data.augment import Augmentation, room
from tasnet_attn.data.segments import Segments
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
    everything = {"remix": 0.5, "gain": 6.0, "swap": 0.5, "polarity": 0.5, "speed": 0.2, "noise": 0.5}
    first, second = segments(root, **everything), segments(root, workers=2, **everything)
    for key in reversed(KEYS):  # asked for in another order, by another object
        second[key]
    for key in KEYS:
        for ours, theirs in zip(first[key], second[key], strict=True):
            assert torch.equal(ours, theirs)
    other = segments(root, seed=1, **everything)
    assert not any(torch.equal(first[key][0], other[key][0]) for key in KEYS)


class Tone(Track):
    """Sources that are tones of 400 and 1000 Hz of any length, with a hum as the rest."""

    def __init__(self, name, length=20_000):
        self.name, self.sources, self.sample_rate, self.length = name, SOURCES, 8000, length

    def read(self, start=0, length=None):
        time = (start + torch.arange(self.length - start if length is None else length)) / 8000
        references = torch.stack([torch.sin(6.2832 * hertz * time) for hertz in (400, 1000)])[:, None]
        return references.sum(0) + self.read_rest(start, len(time)), references

    def read_rest(self, start, length):
        return torch.full((1, length), 0.25)


def tones(length=4000, **augmentation):
    return Segments([Tone("a"), Tone("b", length)], 4000, 40, 0, "all", Augmentation(**augmentation))


def pitch(source):
    return torch.fft.rfft(source[0] * torch.hann_window(4000), 1 << 17).abs().argmax().item() * 8000 / (1 << 17)


@pytest.mark.parametrize("remix", [0.0, 1.0])
def test_speed_moves_the_pitch_of_every_source_by_a_factor_of_its_own(remix):
    """Both up and down, by at most the given factor, evenly on a logarithmic scale; the rest stays."""
    changed, factors = tones(remix=remix, speed=0.25), []
    for index in range(len(changed)):
        mixture, references = changed[0, index]
        assert references.shape == (2, 1, 4000)
        torch.testing.assert_close(mixture - references.sum(0), torch.full((1, 4000), 0.25), atol=1e-5, rtol=0)
        factors.append([pitch(ours) / hertz for ours, hertz in zip(references, (400, 1000), strict=True)])
    factors = torch.tensor(factors).log() / torch.tensor(1.25).log()
    assert factors.abs().max() < 1.02 and factors.max() > 0.8 and factors.min() < -0.8
    assert abs(torch.corrcoef(factors.T)[0, 1]) < 0.5


def test_a_track_too_short_for_a_speed_is_played_at_the_nearest(root):
    exact = tones(4000, speed=0.25)
    short = [index for index in range(40) if exact.draw(0, index)[0].length == 4000]
    for index in short:  # the only one of 4000 samples: never faster
        assert all(pitch(ours) < 1.02 * hertz for ours, hertz in zip(exact[0, index][1], (400, 1000), strict=True))


def test_noise_lies_below_the_mixture_and_not_in_the_sources():
    plain, noisy, ratios, tilts = tones(), tones(noise=0.5), [], []
    for index in range(40):
        (mixture, references), (clean, before) = noisy[0, index], plain[0, index]
        assert torch.equal(references, before)
        if (noise := mixture - clean).any():
            ratios.append(10 * (clean.square().mean() / noise.square().mean()).log10())
            spectrum = torch.fft.rfft(noise).abs().square()[0]
            tilts.append((spectrum[1:200].mean() / spectrum[1000:].mean()).log10())
            assert abs(noise.mean()) < 1e-6
    assert 10 <= len(ratios) <= 30 and 9.99 < min(ratios) < 20 and 30 < max(ratios) < 40.01
    assert min(tilts) < 1 < 2 < max(tilts)  # white to brown


def test_a_room_keeps_the_direct_sound_where_it_was_and_decays():
    rng = np.random.default_rng(0)
    for _ in range(10):
        responses = room((2, 1), 8000, rng)
        assert (responses[..., 0] == 1).all() and not responses[..., 1:20].any()  # 0.9 m: the shortest mean free path
        late = np.square(responses).sum((0, 1))[::-1].cumsum()[::-1]
        assert (np.diff(late) <= 0).all() and late[-1] < 1e-4 * late[1]
        assert 0.15 * 8000 <= responses.shape[-1] < 0.52 * 8000


def test_reverb_is_in_the_sources_too(root):
    plain, wet = tones(), tones(reverb=0.5)
    heard = 0
    for index in range(40):
        (mixture, references), (_, before) = wet[0, index], plain[0, index]
        torch.testing.assert_close(mixture - references.sum(0), torch.full((1, 4000), 0.25), atol=1e-4, rtol=0)
        heard += not torch.equal(references, before)
        torch.testing.assert_close(references[..., :20], before[..., :20], atol=1e-4, rtol=0)
    assert 8 <= heard <= 32


def test_every_data_set_takes_them(tmp_path):
    """MIR-1K as well, where a clip's loudest sample is measured with the segment as it is trained on."""
    clips = write_mir1k(tmp_path, {"amy_1_01": 3.0, "abjones_1_01": 3.0})
    settings = {"gain": 6.0, "speed": 0.1, "noise": 1.0, "remix": 0.5}
    data = MIR1K(["vocals"], 8000, clips, **settings)
    mixture, references, clip = data.segments("train")[0, 3]
    track, start = data.segments("train").draw(0, 3)
    whole, before = track.read()
    torch.testing.assert_close(clip[:, start : start + 16_128], mixture)
    torch.testing.assert_close(clip[:, :start], whole[:, :start])
    assert not torch.equal(references, before[..., start : start + 16_128]) and mixture.shape == (1, 16_128)
    with pytest.raises(ValueError, match="mixture 'mean' takes no augmentation; set it to 'sum' or turn gain off"):
        MIR1K(["vocals"], 8000, clips, mixture="mean", gain=1.0)


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
    changed = segments(root, "valid", remix=1.0, gain=6.0, swap=1.0, polarity=1.0, speed=0.5, reverb=1.0, noise=1.0)
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
        "augmentation: none; off: remix, gain, swap, polarity, speed, reverb, noise; channels: all",
        "augmentation: remix 0.5, gain 4 dB, swap 1, polarity 0.25; off: speed, reverb, noise; channels: random",
    ]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("remix", 1.5), ("swap", -0.1), ("polarity", 2.0), ("gain", -3.0), ("noise", 1.1), ("speed", 1.5)],
)
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
