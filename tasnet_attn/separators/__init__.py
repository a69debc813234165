"""The systems, one file each."""

from tasnet_attn.separators.audioslots import AudioSlots
from tasnet_attn.separators.base import Separator
from tasnet_attn.separators.dual_path import DualPath
from tasnet_attn.separators.folds import Bands, Chunks, Fold
from tasnet_attn.separators.hourglass import Hourglass
from tasnet_attn.separators.ltl import LTL
from tasnet_attn.separators.resnet import ResNet
from tasnet_attn.separators.samsnet import SamsNet
from tasnet_attn.separators.skip_attention import SkipAttentionHourglass
from tasnet_attn.separators.slots import QueryTransformer, SlotAttention
from tasnet_attn.separators.tasnet import TasNet

__all__ = [
    "AudioSlots",
    "Bands",
    "Chunks",
    "DualPath",
    "Fold",
    "Hourglass",
    "LTL",
    "QueryTransformer",
    "ResNet",
    "SamsNet",
    "Separator",
    "SkipAttentionHourglass",
    "SlotAttention",
    "TasNet",
]
