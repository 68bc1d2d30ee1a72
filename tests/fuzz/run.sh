#!/usr/bin/env bash
# Builds the fuzzers with clang, AddressSanitizer and UndefinedBehaviorSanitizer and runs them from the seeds in the tree: the
# parsers of foreign bytes never read outside them, throw, hang or take memory beyond what they announce.
#   run.sh WORKFOLDER            a short run with a fixed number of inputs and a fixed seed, as the test "fuzz"
#   run.sh WORKFOLDER SECONDS    so long for each fuzzer; what it finds stays in WORKFOLDER
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)"
work="$1"
seconds="${2:-0}"
compiler="${CLANGXX:-clang++}"
flags="-std=c++20 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -I$root/include -I$root/runtime/include -I$root/runtime/src"
mkdir -p "$work"
# shellcheck disable=SC2086
"$compiler" $flags "$root/tests/fuzz/fuzz_seeds.cpp" -o "$work/fuzz_seeds"
rm -rf "$work/seeds"
"$work/fuzz_seeds" "$work/seeds"
diff -r "$work/seeds" "$root/tests/fuzz/seeds" || { echo "tests/fuzz/seeds: run fuzz_seeds again"; exit 1; }
# Sources of the parsers that are not in headers.
sources_of() {
    [ "$1" != invite ] || echo "$root/runtime/src/access_rules.cpp"
}
for target in section:12000 payload:20000 snapshot:300000 message:120000 model_file:50000 log:10000 invite:150000; do
    name="${target%:*}"
    # shellcheck disable=SC2086
    "$compiler" $flags -fsanitize=fuzzer "$root/tests/fuzz/fuzz_$name.cpp" -o "$work/fuzz_$name" $(sources_of "$name")
    limit="-runs=${target#*:}"
    [ "$seconds" = 0 ] || limit="-max_total_time=$seconds"
    mkdir -p "$work/corpus/$name"
    [ "$seconds" != 0 ] || rm -f "$work/corpus/$name"/*
    "$work/fuzz_$name" "$limit" -seed=1 -max_len=20000 -timeout=10 -rss_limit_mb=2048 -print_final_stats=0 \
        -artifact_prefix="$work/crash_${name}_" "$work/corpus/$name" "$root/tests/fuzz/seeds/$name" > "$work/$name.log" 2>&1 ||
        { tail -40 "$work/$name.log"; echo "fuzz_$name failed; its input is in $work"; exit 1; }
    echo "$name: $(grep DONE "$work/$name.log")"
done
