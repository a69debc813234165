"""Complex features and masks; magnitudes are in test_model.py."""

from functools import partial

import pytest
import torch

from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.oracles import ModelOracle
from tasnet_attn.filterbanks import STFTDecoder, STFTEncoder
from tasnet_attn.heads import Magnitude, Mask
from tasnet_attn.losses import SISNR, Spectral
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import LTL

COMPLEX = {"power": 0.3, "features": "complex"}
SMALL = partial(LTL, hidden=6, heads=2, ffn=4, transformer_layers=1)


def complex_model(head=None, **settings):
    encoder = STFTEncoder(64, 16, **COMPLEX | settings)
    return SourceSeparator(["a", "b"], 8000, encoder, SMALL, STFTDecoder(64, 16), head or Mask(kind="complex"))


def as_complex(interleaved, dim):
    return torch.view_as_complex(interleaved.unflatten(dim, (-1, 2)).movedim(dim + 1, -1).contiguous())


def test_complex_features_keep_the_phase_and_compress_the_magnitude():
    waveform = torch.randn(2, 300)
    encoder, plain = STFTEncoder(64, 16, **COMPLEX), STFTEncoder(64, 16, power=0.3)
    encoded, magnitude = encoder(waveform), plain(waveform)
    assert encoder.n_features == 2 * plain.n_features == encoded.features.shape[1]
    found = as_complex(encoded.features, 1)
    torch.testing.assert_close(found.abs(), magnitude.features, atol=1e-5, rtol=1e-5)
    spectrum = torch.view_as_complex(encoded.carrier.movedim(1, -1).contiguous())
    torch.testing.assert_close(found, spectrum / spectrum.abs() * spectrum.abs() ** 0.3, atol=1e-5, rtol=1e-5)
    assert torch.equal(encoded.carrier, magnitude.carrier)
    same = STFTEncoder(64, 16, features="complex")(waveform)
    assert torch.equal(as_complex(same.features, 1), spectrum)


@pytest.mark.parametrize("subtract", [False, True])
def test_complex_masks_multiply_features_and_carrier(subtract):
    head = Mask(subtract=subtract, kind="complex")
    encoded = STFTEncoder(16, 4, **COMPLEX)(torch.randn(2, 50))
    stage = torch.randn(2, 3 - subtract, 18, 13)
    masks = as_complex(stage, 2)
    if subtract:
        masks = torch.cat([masks, 1 - masks.sum(1, keepdim=True)], dim=1)
    carrier = torch.view_as_complex(encoded.carrier.movedim(1, -1).contiguous())
    applied = torch.view_as_complex(head.apply(stage, encoded).movedim(2, -1).contiguous())
    torch.testing.assert_close(applied, masks * carrier.unsqueeze(1))
    predicted = as_complex(head.predict(stage, encoded), 2)
    torch.testing.assert_close(predicted, masks * as_complex(encoded.features, 1).unsqueeze(1))


def test_the_right_complex_mask_restores_a_source_which_no_real_one_does():
    voice, other = torch.randn(2, 1, 500)
    encoder, decoder = STFTEncoder(64, 16, features="complex"), STFTDecoder(64, 16)
    encoded, own = encoder(voice + other), encoder(voice)
    mask = as_complex(own.features, 1) / as_complex(encoded.features, 1)
    stage = torch.view_as_real(mask).movedim(-1, 2).flatten(1, 2).unsqueeze(1)
    restored = decoder(Mask(kind="complex").apply(stage, encoded), 500)[:, 0]
    torch.testing.assert_close(restored, voice, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("loss", [SISNR(), Spectral("l2")])
def test_a_complex_model_takes_a_step_and_silence_has_finite_gradients(loss):
    model = complex_model()
    for references in (torch.randn(1, 2, 1, 400), torch.zeros(1, 2, 1, 400)):
        loss(model.analyse(references.sum(1)), references, model).backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
        assert references.any() == any(parameter.grad.any() for parameter in model.parameters())
        model.zero_grad(set_to_none=False)


def test_its_description_builds_it_again_and_its_oracle_is_that_of_magnitudes():
    model = complex_model()
    again = SourceSeparator.from_config(model.config)
    assert again.config == model.config and again.head.parts == again.encoder.parts == 2
    mixture, references = torch.randn(1, 400), torch.randn(2, 1, 400)
    plain = SourceSeparator(["a", "b"], 8000, STFTEncoder(64, 16, power=0.3), SMALL, STFTDecoder(64, 16))
    expected = ModelOracle(plain)(mixture, references)
    torch.testing.assert_close(ModelOracle(model)(mixture, references), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: complex_model(Mask()), "the encoder's features are complex, the head Mask is for real ones"),
        (lambda: complex_model(Magnitude()), "the head Magnitude is for real ones"),
        (lambda: complex_model(features="magnitude"), "features are real, the head Mask is for complex ones"),
        (lambda: Mask("sigmoid", kind="complex"), "complex masks are linear"),
        (lambda: Mask(kind="polar"), "kind 'polar'"),
        (lambda: STFTEncoder(64, 16, features="phase"), "features 'phase'"),
    ],
)
def test_what_does_not_fit_is_said(build, said):
    with pytest.raises(ValueError, match=said):
        build()


def test_the_command_says_it_in_one_line():
    config = complex_model().config | {"head": None}
    with pytest.raises(UserError, match="^model: SourceSeparator: the encoder's features are complex") as refused:
        SourceSeparator.from_config(config)
    assert "\n" not in str(refused.value)
