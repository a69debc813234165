"""The systems, one file each."""

from tasnet_attn.separators.base import Separator
from tasnet_attn.separators.hourglass import Hourglass
from tasnet_attn.separators.ltl import LTL
from tasnet_attn.separators.skip_attention import SkipAttentionHourglass
from tasnet_attn.separators.tasnet import TasNet

__all__ = ["LTL", "Hourglass", "Separator", "SkipAttentionHourglass", "TasNet"]
