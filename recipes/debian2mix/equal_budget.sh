#!/usr/bin/env bash
# The table of separators at equal CPU time: equal_budget.sh [SECONDS [further options of `tasnet-attn ablate`]]
# SECONDS of one core for each training, 1200 by default; there are 18. Run again, it goes on.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) seconds=${1:-1200} out=exp/equal_budget asteroid=tasnet_attn.separators.asteroid
shift $(($# > 0))
python=${PYTHON:-python}
export OMP_NUM_THREADS=1 GOMP_SPINCOUNT=0
mkdir -p exp
if [ ! -f "$out.yml" ]; then "$python" -P "$here/local/budget.py" plan "$here/equal_budget.yml" "$seconds" "$out.yml"; fi
"$python" -P -m tasnet_attn.cli ablate "$out.yml" --out "$out" --import $asteroid "$@"
"$python" -P "$here/local/budget.py" table "$out.yml" "$out" "$here/speakers.yml"
