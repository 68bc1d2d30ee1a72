#!/bin/sh
# clang-tidy over all public headers at once, in one translation unit; runtime and launcher sources too with --sources,
# which takes minutes and a build folder with compile_commands.json.
#
#     tools/check_tidy.sh [--sources BUILD]
set -eu
cd "$(dirname "$0")/.."
tidy=$(command -v clang-tidy-14 || command -v clang-tidy) || { echo "check_tidy: no clang-tidy" >&2; exit 1; }
if [ "${1:-}" = --sources ]; then
    find runtime c -name '*.cpp' | xargs -P 2 -n 1 "$tidy" --quiet -p "$2"
    exit
fi
unit=$(mktemp --suffix .cpp)
trap 'rm -f "$unit"' EXIT
for root in include runtime/include; do
    (cd "$root" && find thinwire -name '*.hpp' ! -path '*/detail/*' | sort | sed 's/.*/#include <&>/')
done > "$unit"
"$tidy" --quiet --config-file=.clang-tidy "$unit" -- -std=c++20 -I include -I runtime/include
