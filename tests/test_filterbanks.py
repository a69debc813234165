import pytest
import torch

from tasnet_attn.config import with_former
from tasnet_attn.filterbanks import (
    GammatoneBank,
    GammatoneEncoder,
    GatedEncoder,
    LearnedDecoder,
    STFTDecoder,
    STFTEncoder,
)
from tasnet_attn.heads import Magnitude

SHAPES = [(16, 16), (16, 8), (20, 7), (5, 1), (1, 1)]


@pytest.mark.parametrize(("kernel", "stride"), SHAPES)
@pytest.mark.parametrize("length", [1, 3, 16, 17, 100])
def test_any_kernel_stride_and_length_decodes_to_the_input_s_length(kernel, stride, length):
    encoded = GatedEncoder(24, kernel, stride)(torch.randn(3, length))
    decoded = LearnedDecoder(24, kernel, stride)(encoded.carrier.unsqueeze(1).expand(-1, 2, -1, -1), length)
    assert decoded.shape == (3, 2, length)
    assert decoded.abs().amax(-1).min() > 0


@pytest.mark.parametrize(("kernel", "stride"), SHAPES)
def test_gated_encoder_equals_a_loop_over_segments(kernel, stride):
    encoder, x = GatedEncoder(6, kernel, stride), torch.randn(101)
    encoded = encoder(x[None])
    u, v = encoder.content.filters()[:, 0], encoder.gate.filters()[:, 0]
    padded = torch.cat([torch.zeros(kernel - stride), x, torch.zeros(kernel)])
    for frame in range(encoded.features.shape[-1]):
        segment = padded[frame * stride : frame * stride + kernel]
        norm = segment.norm() + 1e-8
        w = torch.relu(u @ (segment / norm)) * torch.sigmoid(v @ (segment / norm))
        torch.testing.assert_close(encoded.features[0, :, frame], w, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(encoded.carrier[0, :, frame], w * norm, atol=1e-5, rtol=1e-5)
    assert (frame + 1) * stride >= len(x)  # nothing is left over


def test_segments_of_the_paper():
    """20 s at 44.1 kHz in segments of 220 samples are 4010."""
    assert GatedEncoder(2, 220)(torch.zeros(1, 882_000)).features.shape[-1] == 4010


@pytest.mark.parametrize("encoder", [GatedEncoder(24, 16), GammatoneEncoder(24, 16, 8000, n_centres=6)])
def test_features_ignore_the_level_and_the_carrier_keeps_it(encoder):
    x = torch.randn(2, 100)
    soft, loud = encoder(x), encoder(1000 * x)
    torch.testing.assert_close(loud.features, soft.features)
    torch.testing.assert_close(loud.carrier, 1000 * soft.carrier, rtol=1e-4, atol=1e-3)
    assert torch.equal(encoder(x, scale=soft.scale).features, soft.features)
    assert torch.equal(encoder(3 * x, scale=soft.scale).scale, soft.scale)


def test_silence_has_finite_gradients():
    x = torch.zeros(1, 64, requires_grad=True)
    GatedEncoder(4, 16)(x).carrier.sum().backward()
    assert x.grad.isfinite().all()


def test_published_gammatone_bank():
    """Spot values of Ditter & Gerkmann's bank at 8 kHz, 16 taps, 128 filters."""
    bank = GammatoneBank(128, 16, 8000)
    filters = bank.filters()
    assert filters.shape == (128, 1, 16)
    assert len(bank.centres) == 24
    expected = [100, 137.48, 179.231, 225.741, 3304.908, 3707.661]
    assert bank.centres[:4] + bank.centres[-2:] == pytest.approx(expected, abs=1e-3)
    assert filters[0, 0, 0].item() == pytest.approx(1.96921182e-4, rel=1e-6)
    assert filters[0, 0, -1].item() == pytest.approx(7.48349938e-4, rel=1e-6)
    assert torch.equal(filters[3], -filters[0])


def test_gammatone_rows_are_the_formula():
    """g(t) = t exp(-2 pi b t) cos(2 pi f t + phi), up to the common scaling, filter by filter."""
    import math

    rate, taps, n_filters = 16_000, 40, 70
    bank = GammatoneBank(n_filters, taps, rate, n_centres=8)
    pairs = [35 // 8 + (k < 35 % 8) for k in range(8)]
    row = 0
    for centre, n_phases in zip(bank.centres, pairs, strict=True):
        b = (24.7 + 0.108 * centre) / (math.pi / 2)
        for j in range(n_phases):
            naive = torch.tensor(
                [
                    n / rate * math.exp(-2 * math.pi * b * n / rate)
                    * math.cos(2 * math.pi * centre * n / rate + j * math.pi / n_phases)
                    for n in range(1, taps + 1)
                ]
            )  # fmt: skip
            filters = bank.filters()[:, 0]
            cosine = torch.nn.functional.cosine_similarity(filters[row + j], naive, dim=0)
            assert cosine.item() == pytest.approx(1, abs=1e-6)
            assert torch.equal(filters[row + j + n_phases], -filters[row + j])
        row += 2 * n_phases
    assert row == n_filters
    rms = bank.filters().square().mean(-1).sqrt()
    torch.testing.assert_close(rms, rms.max().expand_as(rms))


def test_full_band_gammatone_bank_reaches_nyquist():
    bank = GammatoneBank(500, 220, 44_100)
    assert len(bank.centres) == 40
    assert bank.centres[-1] == pytest.approx(21_908, abs=1)
    narrow = GammatoneBank(500, 220, 44_100, n_centres=24)
    assert narrow.centres[-1] == pytest.approx(3707.661, abs=1e-3)
    ranks = [torch.linalg.matrix_rank(b.filters()[:, 0].double(), rtol=1e-4).item() for b in (bank, narrow)]
    assert ranks[0] > 1.5 * ranks[1]


def test_half_of_the_gammatone_code_is_the_other_half_s_negative():
    """relu(a) - relu(-a) = a: the code loses nothing of the filterbank's output."""
    encoder, x = GammatoneEncoder(24, 16, 8000, n_centres=6), torch.randn(1, 160)
    carrier = encoder(x).carrier.unflatten(1, (6, 2, 2))
    linear = encoder.analysis(x.unsqueeze(1)).unflatten(1, (6, 2, 2)) / encoder.energy
    torch.testing.assert_close(carrier[:, :, 0] - carrier[:, :, 1], linear[:, :, 0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"n_filters": 127}, "even"),
        ({"n_filters": 46}, "24 centres need at least 48"),
        ({"n_centres": 25}, "only 24 centres fit"),
        ({"f_min": 4000.0}, "Nyquist"),
    ],
)
def test_gammatone_errors_are_clear(settings, said):
    with pytest.raises(ValueError, match=said):
        GammatoneBank(**{"n_filters": 128, "kernel_size": 16, "sample_rate": 8000} | settings)


def test_gammatone_encoder_has_nothing_to_train():
    assert not list(GammatoneEncoder(24, 16, 8000, n_centres=6).parameters())


@pytest.mark.parametrize("window", ["hann", "hamming"])
@pytest.mark.parametrize(("n_fft", "hop"), [(64, 16), (64, 25), (128, 64)])
def test_stft_equals_torch_stft(n_fft, hop, window):
    x = torch.randn(2, 500)
    taper = {"hann": torch.hann_window, "hamming": torch.hamming_window}[window](n_fft)
    expected = torch.stft(x, n_fft, hop, window=taper, pad_mode="constant", return_complex=True)
    encoded = STFTEncoder(n_fft, hop, window)(x)
    torch.testing.assert_close(torch.view_as_complex(encoded.carrier.movedim(1, -1).contiguous()), expected)
    torch.testing.assert_close(encoded.features, expected.abs())


@pytest.mark.parametrize(("n_fft", "hop"), [(64, 16), (64, 25), (64, 31), (63, 16), (63, 25)])
@pytest.mark.parametrize("length", [1, 16, 20, 500, 501])
def test_stft_inverse_restores_the_waveform(n_fft, hop, length):
    x = torch.randn(2, length)
    restored = STFTDecoder(n_fft, hop)(STFTEncoder(n_fft, hop)(x).carrier.unsqueeze(1), length)
    torch.testing.assert_close(restored[:, 0], x, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("drop", ["dc", "nyquist"])
def test_a_dropped_bin_comes_back_as_zero(drop):
    t = torch.arange(4000) / 8000
    tone = torch.sin(2 * torch.pi * 1000 * t)[None]
    encoded = STFTEncoder(256, 64, drop=drop)(tone)
    assert encoded.features.shape[1] == 128
    restored = STFTDecoder(256, 64, drop=drop)(encoded.carrier.unsqueeze(1), 4000)[:, 0]
    assert (restored - tone)[:, 300:-300].abs().max() < 1e-3


def test_stft_scale_and_power():
    x = torch.randn(2, 500)
    plain = STFTEncoder(64, 16)(x)
    scaled = STFTEncoder(64, 16, normalise="max")(x)
    assert scaled.features.amax(dim=(1, 2)) == pytest.approx([1, 1])
    torch.testing.assert_close(scaled.features * scaled.scale, plain.features)
    torch.testing.assert_close(STFTEncoder(64, 16, power=0.3)(x).features, plain.features.clamp_min(1e-8) ** 0.3)
    silence = torch.zeros(1, 500, requires_grad=True)
    STFTEncoder(64, 16, power=0.3)(silence).carrier.sum().backward()
    assert silence.grad.isfinite().all()


@pytest.mark.parametrize(("n_fft", "hop"), [(64, 16), (64, 40), (63, 16), (63, 40)])
@pytest.mark.parametrize("length", [1, 16, 80, 160, 501])
def test_stft_has_the_stated_frames_and_the_maximum_of_its_blocks(n_fft, hop, length):
    encoder, x = STFTEncoder(n_fft, hop, normalise="max"), torch.randn(2, length)
    encoded = encoder(x)
    assert encoded.features.shape[-1] == encoder.n_frames(length) == 1 + length // hop
    torch.testing.assert_close(encoder.clip_scale(x.split(7, dim=-1), length), encoded.scale)


@pytest.mark.parametrize("cls", [STFTEncoder, STFTDecoder])
def test_hops_that_leave_samples_out_are_refused(cls):
    with pytest.raises(ValueError, match="hop 65 is longer than a window of 64"):
        cls(64, 65)


@pytest.mark.parametrize("build", [lambda: STFTEncoder(64, 16, power=0.0), lambda: Magnitude(power=0.0)])
def test_an_exponent_of_zero_is_refused(build):
    with pytest.raises(ValueError, match="power 0.0 must be above 0"):
        build()


@pytest.mark.parametrize(("init", "deviation"), [("glorot", 0.0527), ("filterbank", 0.00426)])
def test_how_a_gated_encoder_starts(init, deviation):
    """Both maps; a file that does not say it (version 0.1.0) is of the second kind."""
    encoder = GatedEncoder(500, 220, init=init)
    for weight in (*encoder.content.parameters(), *encoder.gate.parameters()):
        assert weight.std().item() == pytest.approx(deviation, rel=0.02)
    with pytest.raises(ValueError, match="init 'zeros'"):
        GatedEncoder(4, 16, init="zeros")
    old = {"class_path": "GatedEncoder", "init_args": {"n_filters": 4, "kernel_size": 16}}
    assert with_former(old)["init_args"]["init"] == GatedEncoder.former["init"] == "filterbank"


@pytest.mark.parametrize("stride", [0, -1, 9])
@pytest.mark.parametrize("cls", [GatedEncoder, LearnedDecoder])
def test_strides_that_leave_samples_out_are_refused(cls, stride):
    with pytest.raises(ValueError, match=f"stride {stride} must lie between 1 and the kernel size 8"):
        cls(4, 8, stride)
