#!/bin/sh
# What a translation unit pays for the umbrella and for the single header: seconds at -O2, best of three.
set -eu
cd "$(dirname "$0")/.."
compiler=${CXX:-c++}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
echo '#include <thinwire/thinwire.hpp>' > "$folder/unit.cpp"
for include in include single_include; do
    best=999999
    for _ in 1 2 3; do
        begin=$(date +%s%N)
        "$compiler" -std=c++20 -O2 -I "$include" -c "$folder/unit.cpp" -o "$folder/unit.o"
        took=$((($(date +%s%N) - begin) / 1000000))
        [ "$took" -lt "$best" ] && best=$took
    done
    printf '%s: %d.%03d s\n' "$include/thinwire/thinwire.hpp" $((best / 1000)) $((best % 1000))
done
