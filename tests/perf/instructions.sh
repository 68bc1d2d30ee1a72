#!/bin/sh
# usage: instructions.sh PROGRAM
# Instructions for each parameter of a local step and of decode + apply, without the digest, at the level AVX2: counted
# by callgrind, so the same on a busy machine. Fails where one is above its limit. 77 (skipped) without valgrind.
set -eu
program=$1
command -v valgrind > /dev/null || { echo "perf.instructions: no valgrind here, skipped"; exit 77; }
grep -qw avx2 /proc/cpuinfo 2> /dev/null || { echo "perf.instructions: no AVX2 here, skipped"; exit 77; }
parameters=131072

# collected WHAT COUNT: instructions of the whole program.
collected() {
    said=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$1" "$2" 2>&1) &&
        count=$(echo "$said" | sed -n 's/.*Collected *: *\([1-9][0-9]*\).*/\1/p') && [ -n "$count" ] ||
        { echo "perf.instructions: callgrind counted nothing for $1: $said" >&2; return 1; }
    echo "$count"
}
# each WHAT: instructions of one more repetition.
each() {
    one=$(collected "$1" 1) && five=$(collected "$1" 5) || return 1
    echo $(((five - one) / 4))
}

digest=$(each digest)
bad=0
while read -r what limit; do
    found=$(each "$what") || exit 1
    found=$((found - digest))
    hundredths=$((100 * found / parameters))
    echo "$what: $hundredths hundredths of an instruction a parameter, at most $limit"
    [ "$hundredths" -le "$limit" ] || { echo "  above its limit"; bad=1; }
done << LIMITS
step_8 1630
step_32 2290
hadamard_8 1475
line_8 3965
apply_8 2960
LIMITS
exit $bad
