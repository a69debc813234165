"""Separate every sound of a folder with one loaded model; a bad file does not stop the rest.

python examples/batch.py MODEL FOLDER OUT

The command for the same is `tasnet-attn separate FOLDER --model MODEL --out OUT`, which also takes --jobs, --shard
and --skip-existing.
"""

import sys
from pathlib import Path

import tasnet_attn

model_name, folder, out = sys.argv[1:]
model = tasnet_attn.load(model_name)
failed = []
for song in sorted(Path(folder).iterdir()):
    try:
        files = tasnet_attn.separate_file(model, song, out, format="flac")
    except tasnet_attn.UserError as error:  # not a sound, damaged, too short
        failed.append(str(error))
    else:
        print(f"{song.name} -> {', '.join(str(file) for file in files)}")
for line in failed:
    print(f"failed: {line}", file=sys.stderr)
sys.exit(1 if failed else 0)
