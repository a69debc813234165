"""Data sets: reading, segments, and one file for each set, each a LightningDataModule."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from tasnet_attn.data.base import SegmentedData, Split, Track
from tasnet_attn.data.stem_folders import StemFolders
from tasnet_attn.errors import UserError

__all__ = ["SegmentedData", "Split", "StemFolders", "Track", "from_config"]
