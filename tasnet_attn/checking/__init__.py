"""`tasnet-attn check-data`: finds problems in a data set before a run starts. `check_data` is the command."""

from tasnet_attn.checking.command import check_data
from tasnet_attn.checking.configure import configured
from tasnet_attn.checking.track import Finding

__all__ = ["Finding", "check_data", "configured"]
