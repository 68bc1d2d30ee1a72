#!/bin/sh
# usage: exact_builds.sh SOURCE_ROOT WORK_DIR
# Compiles exact_digest.cpp with every compiler found and flags an integrator may use; fails unless all print one digest.
set -eu
root=$1
work=$2
mkdir -p "$work"
expected=
count=0
for compiler in g++ clang++; do
    command -v "$compiler" >/dev/null || continue
    for flags in "-O0" "-O2" "-O3 -march=native" "-O3 -march=native -ffast-math"; do
        program=$work/exact_$compiler$(printf %s "$flags" | tr -c 'A-Za-z0-9\n' _)
        # shellcheck disable=SC2086  # the flags are words
        "$compiler" -std=c++20 $flags -I"$root/include" "$root/tests/exact/exact_digest.cpp" -o "$program" -pthread
        found=$("$program") || { echo "$compiler $flags: $found"; exit 1; }
        echo "$found  $compiler $flags"
        [ -n "$expected" ] || expected=$found
        [ "$found" = "$expected" ] || { echo "differs from the first"; exit 1; }
        count=$((count + 1))
    done
done
[ "$count" -ge 2 ] || { echo "no two builds to compare"; exit 1; }
