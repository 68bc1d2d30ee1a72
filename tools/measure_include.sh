#!/bin/sh
# What a translation unit pays at -O2, in seconds, best of five taken in turns: for the standard headers that the umbrella includes, the
# umbrella, and the single header.
set -eu
cd "$(dirname "$0")/.."
compiler=${CXX:-c++}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
echo '#include <thinwire/thinwire.hpp>' > "$folder/unit.cpp"
"$compiler" -std=c++20 -I include -M "$folder/unit.cpp" | tr ' \\' '\n\n' | grep '/thinwire/' |
    xargs grep -h '^#include <[a-z_]*\(\.h\)\?>' | grep -v '<io.h>' | sort -u > "$folder/standard.cpp"
for row in 1 2 3 4 5; do
    for name in standard include single_include; do
        unit="$folder/unit.cpp"
        [ "$name" = standard ] && unit="$folder/standard.cpp"
        begin=$(date +%s%N)
        "$compiler" -std=c++20 -O2 -I "$name" -c "$unit" -o "$folder/unit.o"
        echo "$name $((($(date +%s%N) - begin) / 1000000))"
    done
done | awk '!($1 in best) || $2 < best[$1] { best[$1] = $2 }
    END {
        printf "standard headers:                         %.2f s\n", best["standard"] / 1000
        printf "include/thinwire/thinwire.hpp:            %.2f s\n", best["include"] / 1000
        printf "single_include/thinwire/thinwire.hpp:     %.2f s\n", best["single_include"] / 1000
    }'
