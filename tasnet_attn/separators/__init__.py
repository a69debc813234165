"""The systems, one file each."""

from tasnet_attn.separators.base import Separator
from tasnet_attn.separators.ltl import LTL
from tasnet_attn.separators.tasnet import TasNet

__all__ = ["LTL", "Separator", "TasNet"]
