#!/bin/sh
# Says which C and C++ sources clang-format 14 would change; `check_format.sh --fix` changes them.
set -eu
cd "$(dirname "$0")/.."
format=$(command -v clang-format-14 || command -v clang-format) || { echo "check_format: no clang-format" >&2; exit 1; }
"$format" --version | grep -q 'version 14\.' || { echo "check_format: $("$format" --version), expected 14" >&2; exit 1; }
mode='--dry-run -Werror'
[ "${1:-}" = --fix ] && mode=-i
# shellcheck disable=SC2086
find include c runtime tests examples benchmarks packaging \( -name '*.[ch]pp' -o -name '*.[ch]' -o -name '*.cuh' \) -print0 | xargs -0 "$format" $mode
