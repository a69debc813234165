#!/usr/bin/env bash
# The stages of every recipe, once. A recipe's run.sh calls this with its own folder; options as in Asteroid:
#   --stage N --stop-stage N   0 check the data (errors stop it here), 1 train, 2 evaluate, 3 report, 4 write the model
#                              to one file
#   --tag NAME                 part of the run folder's name, exp/<data set>_<model>_<tag>
#   --id 0,1                   the GPUs to use
#   --import MODULE            a module with your own classes, for every stage; may be given several times
#   --python PATH              the Python to use
# Everything else goes to `tasnet-attn train`, for example --trainer.max_epochs 10. With the same tag, stage 1 resumes.
# The last output is the table of scores that the recipe's paper reports.
set -euo pipefail
recipe=$(cd "$1" && pwd); shift
stage=0 stop=100 tag=base python=python imports=() train=()
while [ $# -gt 0 ]; do
  case $1 in
    --stage) stage=$2; shift 2 ;;
    --stop-stage) stop=$2; shift 2 ;;
    --tag) tag=$2; shift 2 ;;
    --id) export CUDA_VISIBLE_DEVICES=$2; shift 2 ;;
    --import) imports+=(--import "$2"); shift 2 ;;
    --import=*) imports+=("$1"); shift ;;
    --python) python=$2; shift 2 ;;
    *) train+=("$1"); shift ;;
  esac
done
files=("$(dirname "$recipe")/base.yml" "$recipe/conf.yml") # the data set, the model
if [ -f "$recipe/data.yml" ]; then files+=("$recipe/data.yml"); fi # this recipe's settings for this data set only
run=exp/$(basename "$(dirname "$recipe")")_$(basename "$recipe")_$tag
# -P: no file of the working folder replaces a library
tasnet_attn() { "$python" -P -m tasnet_attn.cli "$@" ${imports[@]+"${imports[@]}"}; }
due() { [ "$stage" -le "$1" ] && [ "$stop" -ge "$1" ]; }

if due 0; then
  echo "== stage 0: data"
  tasnet_attn check-data "${files[@]}" --run "$run" ${train[@]+"${train[@]}"}
fi
if due 1; then
  echo "== stage 1: train into $run"
  tasnet_attn train "${files[@]/#/--config=}" --out "$run" --ckpt_path last ${train[@]+"${train[@]}"}
fi
if due 2; then echo "== stage 2: evaluate"; tasnet_attn evaluate --model "$run" --data "$run" --audio ogg; fi
if due 3; then echo "== stage 3: report"; tasnet_attn report "$run"; fi
if due 4; then echo "== stage 4: export"; tasnet_attn export "$run" --to safetensors; fi
if due 2; then echo "== scores"; cat "$run/evaluation/table.txt"; fi
