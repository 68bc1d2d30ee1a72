#!/bin/sh
# Everything of thinwire::cuda that needs a device, for whoever has one: builds the device tests and the benchmark for it, runs the tests, again
# under compute-sanitizer (memcheck, racecheck, synccheck, initcheck) where that is installed, those of several devices as one peer where NCCL is,
# and then the benchmark, beside PyTorch where python3 has one with CUDA. What fails does not keep the rest from running.
#
#     gpu_check.sh [--nvcc PATH] [--steps N] [--out FOLDER] [SHAPE ...]
#
# Needs the driver, the CUDA toolkit 13 or later with cuBLAS, a host compiler of C++20 that nvcc takes, and doctest (Debian and Ubuntu: cuda-nvcc-13-0
# cuda-cudart-dev-13-0 libcublas-dev-13-0 g++ doctest-dev); what it makes use of: compute-sanitizer (cuda-sanitizer-13-0), NCCL (libnccl-dev).
#
# SHAPE: 124M, 1B (both where none is named) or tiny. Ends with 77 where there is no device or no nvcc, with 1 when something else is missing or fails.
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
mkdir -p "$out"
# has HEADER: whether nvcc and its host compiler find it.
has() {
    printf '#include <%s>\n' "$1" > "$out/has.cu"
    "$nvcc" -std=c++20 -E "$out/has.cu" > /dev/null 2>&1
}
missing=
has vector || missing="$missing a host compiler of C++20 that nvcc takes (g++),"
has cublasLt.h || missing="$missing cuBLAS (libcublas-dev-13-0, or that of your toolkit),"
has doctest/doctest.h || missing="$missing doctest (doctest-dev),"
if [ -n "$missing" ]; then
    echo "gpu_check: not here, with the Debian or Ubuntu package:${missing%,}" >&2
    exit 1
fi
echo "gpu_check: $device"
failed=0
THINWIRE_CUDA_ARCH=native "$root/tests/cuda/compile.sh" "$nvcc" "$root" "$out" || failed=1

sanitizer=$(command -v compute-sanitizer || command -v "$(dirname "$nvcc")/compute-sanitizer" || true)
[ -n "$sanitizer" ] || echo "gpu_check: no compute-sanitizer here, not run"
# sanitized PROGRAM TOOL...: runs it under each.
sanitized() {
    program=$1
    shift
    [ -n "$sanitizer" ] || return 0
    for tool in "$@"; do
        echo "gpu_check: $program under compute-sanitizer $tool"
        "$sanitizer" --tool "$tool" --error-exitcode 1 "$out/$program" > "$out/$program.$tool.txt" 2>&1 || failed=1
        tail -n 5 "$out/$program.$tool.txt"
    done
}
if [ -x "$out/cuda_tests" ]; then
    echo "gpu_check: device tests"
    "$out/cuda_tests" || failed=1
    sanitized cuda_tests memcheck racecheck synccheck initcheck
fi

devices=$(echo "$device" | wc -l)
if ! has nccl.h; then
    echo "gpu_check: no NCCL here (nccl.h), nothing of several devices as one peer run"
elif [ -x "$out/node_tests" ]; then
    [ "$devices" -gt 1 ] || echo "gpu_check: one device here: of the tests of several devices as one peer only those of a group of one run"
    echo "gpu_check: several devices as one peer, over NCCL"
    "$out/node_tests" || failed=1
    sanitized node_tests memcheck
fi

# shown NAME COMMAND...: runs it, keeps and shows what it says, and remembers a failure.
shown() {
    name=$1
    shift
    "$@" > "$out/$name.txt" 2>&1 || { failed=1; echo "gpu_check: $name failed"; }
    cat "$out/$name.txt"
}
if [ -x "$out/benchmark_gpu" ]; then
    echo "gpu_check: benchmark, $steps steps"
    shown benchmark "$out/benchmark_gpu" "$steps" "$@"
fi
if python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2> /dev/null; then
    shown pytorch python3 "$root/benchmarks/pytorch_gpu.py" "$steps" "$@"
    shown pytorch_compiled python3 "$root/benchmarks/pytorch_gpu.py" --compile "$steps" "$@"
else
    echo "gpu_check: python3 has no torch with CUDA, no comparison"
fi
[ "$failed" = 0 ] || { echo "gpu_check: something above failed"; exit 1; }
