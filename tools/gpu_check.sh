#!/bin/sh
# Everything of thinwire::cuda that needs a device, for whoever has one: builds the device tests and the benchmark for it, runs the tests, again
# under compute-sanitizer (memcheck, racecheck) where that is installed, those of several devices as one peer where NCCL is, and then the
# benchmark, beside PyTorch where python3 has one with CUDA.
#
#     gpu_check.sh [--nvcc PATH] [--steps N] [--out FOLDER] [SHAPE ...]
#
# SHAPE: 124M, 1B (both where none is named) or tiny. Ends with 77 where there is no device or no nvcc, with 1 when a test fails.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
nvcc=${NVCC:-nvcc} steps=20 out=$root/build/gpu_check
usage() {
    echo "gpu_check: $1" >&2
    echo "usage: gpu_check.sh [--nvcc PATH] [--steps N] [--out FOLDER] [124M|1B|tiny ...]" >&2
    exit 2
}
while [ $# -gt 0 ]; do
    case $1 in
        --nvcc | --steps | --out)
            [ $# -gt 1 ] || usage "$1 without a value"
            case $1 in --nvcc) nvcc=$2 ;; --steps) steps=$2 ;; --out) out=$2 ;; esac
            shift 2
            ;;
        124M | 1B | tiny) break ;;
        *) usage "'$1' is no option and no shape" ;;
    esac
done
for shape in "$@"; do
    case $shape in 124M | 1B | tiny) ;; *) usage "no shape '$shape'; expected 124M, 1B or tiny" ;; esac
done
case $steps in '' | *[!0-9]* | 0) usage "--steps $steps, expected a number of at least 1" ;; esac

if ! command -v nvidia-smi > /dev/null || ! device=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>&1); then
    echo "gpu_check: no NVIDIA device here (nvidia-smi finds none), skipped"
    exit 77
fi
command -v "$nvcc" > /dev/null || nvcc=/usr/local/cuda/bin/nvcc
if ! command -v "$nvcc" > /dev/null; then
    echo "gpu_check: no nvcc here (CUDA toolkit 13 or later; --nvcc PATH), skipped"
    exit 77
fi
echo "gpu_check: $device"
mkdir -p "$out"
THINWIRE_CUDA_ARCH=native "$root/tests/cuda/compile.sh" "$nvcc" "$root" "$out"

failed=0
echo "gpu_check: device tests"
"$out/cuda_tests" || failed=1
sanitizer=$(command -v compute-sanitizer || command -v "$(dirname "$nvcc")/compute-sanitizer" || true)
if [ -n "$sanitizer" ]; then
    for tool in memcheck racecheck; do
        echo "gpu_check: device tests under compute-sanitizer $tool"
        "$sanitizer" --tool "$tool" --error-exitcode 1 "$out/cuda_tests" > "$out/$tool.txt" 2>&1 || failed=1
        tail -n 5 "$out/$tool.txt"
    done
else
    echo "gpu_check: no compute-sanitizer here, not run"
fi

devices=$(echo "$device" | wc -l)
if [ ! -x "$out/node_tests" ]; then
    echo "gpu_check: no NCCL here (nccl.h), nothing of several devices as one peer run"
else
    [ "$devices" -gt 1 ] || echo "gpu_check: one device here: of the tests of several devices as one peer only those of a group of one run"
    echo "gpu_check: several devices as one peer, over NCCL"
    "$out/node_tests" || failed=1
fi

# shown NAME COMMAND...: runs it, keeps and shows what it says, and remembers a failure.
shown() {
    name=$1
    shift
    "$@" > "$out/$name.txt" 2>&1 || { failed=1; echo "gpu_check: $name failed"; }
    cat "$out/$name.txt"
}
echo "gpu_check: benchmark, $steps steps"
shown benchmark "$out/benchmark_gpu" "$steps" "$@"
if python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2> /dev/null; then
    shown pytorch python3 "$root/benchmarks/pytorch_gpu.py" "$steps" "$@"
    shown pytorch_compiled python3 "$root/benchmarks/pytorch_gpu.py" --compile "$steps" "$@"
else
    echo "gpu_check: python3 has no torch with CUDA, no comparison"
fi
[ "$failed" = 0 ] || { echo "gpu_check: something above failed"; exit 1; }
