#!/bin/sh
# From a clone to a byte-level model of the King James Bible, trained by four local peers over TCP, one of which is
# killed and comes back. Fresh Debian 12, root or sudo. About three minutes of training on two cores.
#
#     tools/quickstart.sh [FOLDER]    keeps text and results in FOLDER (default: build/quickstart)
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
folder=${1:-build/quickstart}

tools/setup.sh run
cmake --preset quickstart
cmake --build --preset quickstart

mkdir -p "$folder"
if [ ! -s "$folder/kjv.txt" ]; then
    bible -f gen1:1-rev22:21 > "$folder/kjv.txt.tmp"
    mv "$folder/kjv.txt.tmp" "$folder/kjv.txt"
fi
# With 512 tokens a peer and round the steps of muon, the default rule, would take longer than the gradient.
exec build/thinwire train --data "$folder/kjv.txt" --peers 4 --rounds 400 \
    --optimizer.rule signum --out "$folder/run" --kill-and-return
