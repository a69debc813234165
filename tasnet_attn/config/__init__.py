"""One reader of configurations: from YAML layers and `--key value` to checked plain data, and from that to objects.

A component is described by plain data, ``{"class_path": "LTL", "init_args": {"hidden": 500}}``, or by its bare name.
**The constructor is the schema**: its annotations are checked here, once for all classes, and its defaults are the only
ones. Class names are looked up among the subclasses of our bases that this process has imported; nothing here imports
what a file names.
"""

from tasnet_attn.config.components import (
    IMPORTED,
    Configurable,
    describe,
    import_modules,
    known,
    name_of,
    settings,
    with_former,
)
from tasnet_attn.config.documents import parse_value, parse_yaml, read_json, read_yaml, write_yaml
from tasnet_attn.config.layers import SECTIONS, Layers, argument, moved, read
from tasnet_attn.config.schema import build, complete, complete_arguments

__all__ = [
    "IMPORTED",
    "SECTIONS",
    "Configurable",
    "Layers",
    "argument",
    "build",
    "complete",
    "complete_arguments",
    "describe",
    "import_modules",
    "known",
    "moved",
    "name_of",
    "parse_value",
    "parse_yaml",
    "read",
    "read_json",
    "read_yaml",
    "settings",
    "with_former",
    "write_yaml",
]
