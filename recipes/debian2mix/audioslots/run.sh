#!/usr/bin/env bash
exec "$(dirname "$0")/../../recipe.sh" "$(dirname "$0")" "$@"
