#!/bin/sh
# usage: exact_builds.sh SOURCE_ROOT WORK_DIR
# Compiles exact_digest.cpp with every compiler found, with flags that an integrator may use and for AArch64, where a
# cross compiler and qemu are installed. The first build records a run; fails unless all print one digest of it.
set -eu
root=$1
work=$2
mkdir -p "$work"

# One build a line: compiler, what runs the program ("native" or an emulator), flags.
builds=$work/builds
: > "$builds"
for compiler in g++ clang++; do
    command -v "$compiler" > /dev/null || continue
    for flags in "-O3 -march=native -ffast-math" "-O0" "-O2" "-O2 -ffast-math" "-O3 -march=native"; do
        echo "$compiler native $flags" >> "$builds"
    done
done
if command -v clang++ > /dev/null; then echo "clang++ native -Ofast -mavx2 -mfma" >> "$builds"; fi
emulator=$(command -v qemu-aarch64 || command -v qemu-aarch64-static || true)
if command -v aarch64-linux-gnu-g++ > /dev/null && [ -n "$emulator" ]; then
    for flags in "-O2" "-O3 -ffast-math"; do
        echo "aarch64-linux-gnu-g++ $emulator $flags -static" >> "$builds"
    done
else
    echo "AArch64 is left out: no aarch64-linux-gnu-g++ or no qemu-aarch64 here"
fi
count=$(wc -l < "$builds")
[ "$count" -ge 2 ] || { echo "no two builds to compare"; exit 1; }

# build N: compiles the N-th line to $work/exact_N, replays the log (N > 1) and writes what came out to $work/found_N.
build() {
    sed -n "$1p" "$builds" > "$work/line_$1"
    read -r compiler runner flags < "$work/line_$1"
    [ "$runner" != native ] || runner=
    # shellcheck disable=SC2086  # the flags are words
    "$compiler" -std=c++20 $flags -I"$root/include" -I"$root/tests" "$root/tests/exact/exact_digest.cpp" \
        -o "$work/exact_$1" -pthread &&
        if [ "$1" = 1 ]; then
            "$work/exact_1" record "$work/log"
        else
            $runner "$work/exact_$1" replay "$work/log"
        fi
}

expected=$(build 1) || { echo "$(cat "$work/line_1"): $expected"; exit 1; }
echo "$expected  $(cat "$work/line_1")"
bad=0
check() {
    wait "$2" || bad=1
    echo "$(cat "$work/found_$1")  $(cat "$work/line_$1")"
    [ "$(cat "$work/found_$1")" = "$expected" ] || { echo "  differs from the first"; bad=1; }
}
n=2
while [ "$n" -le "$count" ]; do # two at a time: CI has two cores
    build "$n" > "$work/found_$n" 2>&1 &
    one=$!
    if [ "$n" -lt "$count" ]; then
        build $((n + 1)) > "$work/found_$((n + 1))" 2>&1 &
        check $((n + 1)) $!
    fi
    check "$n" "$one"
    n=$((n + 2))
done
[ "$bad" = 0 ] && echo "$count builds, one digest"
