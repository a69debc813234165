"""Prints what docs/papers.md shows of the look-alikes: every recipe's last table, after 24 steps of a tiny network.

python tests/benchmarks/bench_papers.py [RECIPE ...]      # some, like mir1k/hourglass_park; table1 is AudioSlots'
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "recipes")]

from lookalikes import write_everything  # noqa: E402
from test_recipes import RECIPES, options, run_sh  # noqa: E402

SHOWN = [
    "musdb18/tasnet", "musdb18/ltl", "musdb18/ltl_causal", "musdb18/ltl_gammatone", "musdb18/ltl_bidirectional",
    "musdb18/samsnet", "mir1k/hourglass_park", "mir1k/hourglass_report", "mir1k/hourglass_constant",
    "mir1k/skip_attention", "librimix/tasnet", "librimix/audioslots", "librimix/audioslots_autoencoder", "table1",
]  # fmt: skip


def main(recipes):
    """Run them, one after the other, in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        write_everything(Path(folder))
        for recipe in recipes or SHOWN:
            if recipe == "table1":
                settings = [*options(RECIPES / "librimix" / "audioslots" / "conf.yml"), "--trainer.max_steps=24"]
                settings = [x for x in settings if "slots=QueryTransformer" not in x]  # each row says its own
                script = RECIPES / "librimix" / "local" / "table1.py"
                subprocess.run([sys.executable, script, *settings], cwd=folder, check=True, capture_output=True)
                printed = (Path(folder) / "exp" / "audioslots_table1" / "table.md").read_text()
            else:
                settings = [*options(RECIPES / recipe / "conf.yml"), "--trainer.max_steps=24", "--stop-stage", "2"]
                finished, _ = run_sh(recipe, Path(folder), "--python", sys.executable, *settings)
                assert finished.returncode == 0, finished.stderr
                printed = finished.stdout.rpartition("== scores\n")[2]
            print(f"== {recipe}\n{printed}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
