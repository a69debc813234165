"""Tiny models of every kind for the export tests, and a directory of their exported files."""

from functools import partial

from conftest import tasnet_model

from tasnet_attn.filterbanks import GammatoneEncoder, STFTDecoder, STFTEncoder
from tasnet_attn.heads import Magnitude, Mask
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import (
    LTL,
    AudioSlots,
    Bands,
    Chunks,
    DualPath,
    Hourglass,
    QueryTransformer,
    ResNet,
    SamsNet,
    SkipAttentionHourglass,
    SlotAttention,
    TasNet,
)


def spectrogram_model(separator, head, segment, drop=None, interchangeable=False, **settings):
    return SourceSeparator(
        ["guitar", "backing"],
        8000,
        STFTEncoder(64, 16, drop=drop, **settings),
        separator,
        STFTDecoder(64, 16, drop=drop),
        head,
        segment=segment,
        interchangeable=interchangeable,
    )


def hourglass(separator, segment=0.032, **settings):
    network = partial(separator, n_stacks=1, n_poolings=2, channels=4, stem=[2], **settings)
    return spectrogram_model(network, Mask("clipped"), segment, normalise="max", drop="nyquist")


def audioslots(slots):
    network = partial(AudioSlots, encoder=ResNet(4, (1, 1, 1, 1), 2), slots=slots, decoder_hidden=8)
    head = Magnitude("wiener", power=0.3)
    return spectrogram_model(network, head, 0.128, power=0.3, drop="nyquist", last_frame=False, interchangeable=True)


def dual_path(fold, **settings):
    path = partial(LTL, transformer_layers=1, hidden=4, heads=2, ffn=4)
    path = partial(path, **settings) if settings else partial(path, bidirectional=True)
    norm = None if settings else "layer"
    return partial(DualPath, fold=fold, width=6, n_blocks=1, within=path, across=path, norm=norm)


def samsnet(segment=0.05):
    return spectrogram_model(partial(SamsNet, channels=2, n_modules=1, slices=3), Mask("sigmoid"), segment)


# every separator, every encoder, one way and both ways; fixed windows where the recipes have them
KINDS = {
    "TasNet, gated": lambda: tasnet_model(partial(TasNet, hidden=6, n_layers=2)),
    "LTL, gammatone, both ways": lambda: tasnet_model(
        partial(LTL, hidden=6, heads=2, ffn=8, transformer_layers=1, bidirectional=True, window=9),
        GammatoneEncoder(24, 16, 8000, n_centres=6),
    ),
    "DualPath, bands": lambda: spectrogram_model(
        dual_path(partial(Bands, n_bands=3)), Mask(kind="complex"), None, power=0.3, features="complex"
    ),
    "DualPath, chunks": lambda: tasnet_model(
        dual_path(partial(Chunks, size=4), lstm_before=0, attention="full", ffn_layer="lstm", project=False)
    ),
    "Hourglass, Park's": lambda: hourglass(Hourglass),
    "Hourglass, the report's": lambda: hourglass(Hourglass, batch_norm=True, growth=2, kernel_size=3),
    "SkipAttentionHourglass": lambda: hourglass(SkipAttentionHourglass),
    "SamsNet": samsnet,
    "AudioSlots, transformer": lambda: audioslots(QueryTransformer(8, 1, 2)),
    "AudioSlots, Slot Attention": lambda: audioslots(SlotAttention(8, 2)),
}
