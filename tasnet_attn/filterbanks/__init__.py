"""Encoders and decoders: learned gated, multi-phase gammatone and STFT, on asteroid-filterbanks' `Filterbank`.

Shapes: N = batch x channels, T samples, F features, L frames, S sources.
"""

from tasnet_attn.filterbanks.base import EPS, Decoder, Encoded, Encoder
from tasnet_attn.filterbanks.gammatone import GammatoneBank, GammatoneEncoder, erb_frequency, erb_number
from tasnet_attn.filterbanks.learned import GatedEncoder, LearnedDecoder, pad_to_frames
from tasnet_attn.filterbanks.stft import STFTDecoder, STFTEncoder

__all__ = [
    "EPS",
    "Decoder",
    "Encoded",
    "Encoder",
    "GammatoneBank",
    "GammatoneEncoder",
    "GatedEncoder",
    "LearnedDecoder",
    "STFTDecoder",
    "STFTEncoder",
    "erb_frequency",
    "erb_number",
    "pad_to_frames",
]
