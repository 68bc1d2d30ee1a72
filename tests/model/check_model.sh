#!/bin/sh
# check_model.sh MODEL FOLDER: every state of the model keeps its assertion, and its variants that must break it
# do. Needs spin and a C compiler.
set -eu
model=$1
mkdir -p "$2"
cd "$2"

check() { # name flags...
    name=$1
    shift
    spin "$@" -a "$model" > /dev/null
    ${CC:-cc} -O2 -w -DSAFETY -DNOFAIR -DMEMLIM=4096 -o "pan_$name" pan.c
    "./pan_$name" -m100000 -w24 -E > "$name.txt"
    grep -q '^State-vector' "$name.txt" || { echo "model: $name did not run" >&2; cat "$name.txt" >&2; exit 1; }
    sed -n 's/.*errors: *\([0-9]*\).*/\1/p' "$name.txt"
}

errors=$(check whole)
states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' whole.txt)
! grep -q 'depth too small\|reached -DMEMLIM' whole.txt || { echo "model: not searched to the end" >&2; exit 1; }
[ "$errors" = 0 ] || { echo "model: the assertion fails" >&2; cat whole.txt >&2; exit 1; }
for variant in SINGLE TRUSTING STUBBORN ACCEPTING; do
    errors=$(check "$variant" "-D$variant")
    [ "${errors:-0}" -gt 0 ] || { echo "model: the variant $variant passes, it must fail" >&2; exit 1; }
done
echo "model: $states states keep the assertion; its four broken variants fail"
