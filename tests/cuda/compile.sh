#!/bin/sh
# cuda.compile: what nvcc makes of the kernels; needs no device.
#
#     compile.sh NVCC SOURCE FOLDER
#
# 1. Every .cuh alone, included twice, with all warnings as errors.
# 2. The device tests for sm_80, sm_90 and sm_100, linked: no kernel may spill, use a stack, or have static shared memory
#    (what a launch asks for, launch() bounds). FOLDER/cuda_tests then runs on a machine that has a device.
#
# 3. The benchmark benchmarks/gpu.cu.
# 4. The tests of several devices as one peer, linked with NCCL as FOLDER/node_tests; a line says so where nvcc finds no nccl.h.
#
# THINWIRE_CUDA_ARCH=native, or another -arch, builds FOLDER/cuda_tests, node_tests and benchmark_gpu for that one, each by itself:
# warnings are no errors there and no resources are checked. Ends with 1 where one did not build.
# Needs doctest (Debian: doctest-dev) and cuBLASLt beside nvcc. Ends with 77 (skipped) where there is no nvcc.
set -eu
nvcc=$1 source=$2 out=$3
if ! command -v "$nvcc" > /dev/null; then
    echo "cuda.compile: no nvcc here (CUDA toolkit 13 or later), skipped"
    exit 77
fi
release=$("$nvcc" --version | sed -n 's/.*release \([0-9]*\).*/\1/p')
if [ "${release:-0}" -lt 13 ]; then
    echo "cuda.compile: $nvcc is of CUDA release ${release:-unknown}, 13 or later is needed, skipped"
    exit 77
fi
mkdir -p "$out"
strict='-Werror all-warnings'
[ -z "${THINWIRE_CUDA_ARCH:-}" ] || strict=
flags="-std=c++20 $strict -I$source/include -I$source/tests"
# So that what is linked finds the toolkit's libraries without LD_LIBRARY_PATH.
toolkit=$(dirname "$(dirname "$(readlink -f "$(command -v "$nvcc")")")")
rpath=
for folder in "$toolkit/lib64" "$toolkit/lib"; do [ ! -d "$folder" ] || rpath="$rpath -Xlinker -rpath -Xlinker $folder"; done

# The tests in one unit, so that each kernel is compiled once. They also include the host's optimizer, whose unroll
# pragmas nvcc's front end does not know (1675).
for test in backend demo transformer; do
    printf '#include <cuda/%s_test.cpp>\n' "$test"
done > "$out/device_tests.cu"
tests_for() {
    # shellcheck disable=SC2086
    "$nvcc" $flags -diag-suppress 1675 -Xcompiler -O0 -Xptxas -v "$@" -c "$out/device_tests.cu" -o "$out/device_tests.o" \
        > "$out/resources.txt" 2>&1 || { cat "$out/resources.txt"; return 1; }
    # shellcheck disable=SC2086
    "$nvcc" "$out/main.o" "$out/device_tests.o" $rpath -lcublasLt -o "$out/cuda_tests"
}
# What needs NCCL, whose kernels these are once more: for one architecture.
has_nccl=no
printf '#include <nccl.h>\n' > "$out/has_nccl.cu"
if "$nvcc" -E "$out/has_nccl.cu" > /dev/null 2>&1; then has_nccl=yes; else echo "cuda.compile: nvcc finds no nccl.h, nothing of thinwire::nccl compiled"; fi
rm -f "$out/cuda_tests" "$out/node_tests" "$out/benchmark_gpu"
node_tests_for() {
    [ $has_nccl = yes ] || return 0
    printf '#include <cuda/node_test.cpp>\n' > "$out/node_tests.cu"
    # shellcheck disable=SC2086
    "$nvcc" $flags -diag-suppress 1675 -Xcompiler -O0 "-arch=$1" "$out/node_tests.cu" "$out/main.o" $rpath -lcublasLt -lnccl -o "$out/node_tests"
}
# What needs speed: benchmarks/gpu.cu.
benchmark_for() {
    # shellcheck disable=SC2086
    "$nvcc" $flags -diag-suppress 1675 -O3 "-arch=$1" "$source/benchmarks/gpu.cu" $rpath -lcublasLt -o "$out/benchmark_gpu"
}
main_of_tests() { "$nvcc" -std=c++20 -Xcompiler -O0 -c "$source/tests/main.cpp" -o "$out/main.o"; }
if [ -n "${THINWIRE_CUDA_ARCH:-}" ]; then
    failed=0
    benchmark_for "$THINWIRE_CUDA_ARCH" || { failed=1; echo "cuda.compile: the benchmark did not build"; }
    if main_of_tests; then
        tests_for "-arch=$THINWIRE_CUDA_ARCH" || { failed=1; echo "cuda.compile: the device tests did not build"; }
        node_tests_for "$THINWIRE_CUDA_ARCH" || { failed=1; echo "cuda.compile: the tests of several devices did not build"; }
    else
        failed=1
        echo "cuda.compile: the tests did not build: $source/tests/main.cpp"
    fi
    exit $failed
fi

cd "$source/include"
for header in $(find thinwire -name '*.cuh' | sort); do
    case $header in thinwire/nccl/*) [ $has_nccl = yes ] || continue ;; esac
    unit=$out/$(echo "$header" | tr '/' '_' | sed 's/\.cuh$//').cu
    printf '#include <%s>\n#include <%s>\n' "$header" "$header" > "$unit"
    # shellcheck disable=SC2086
    "$nvcc" $flags -arch=sm_90 -ptx "$unit" -o "$unit.ptx" || { echo "cuda.compile: <$header> alone"; exit 1; }
done

main_of_tests
tests_for -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=sm_90 -gencode arch=compute_100,code=sm_100
benchmark_for sm_90
node_tests_for sm_90

awk '
/Compiling entry function/ { kernel = $0; sub(/.*function ./, "", kernel); sub(/. for/, " for", kernel); kernels++ }
/bytes stack frame/ {
    stacks++
    if ($0 !~ /^ *0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads/) { print kernel ":" $0; bad = 1 }
}
/Used [0-9]+ registers/ {
    used++
    if ($0 ~ /bytes smem/) { print kernel ": static shared memory: " $0; bad = 1 }
    match($0, /Used [0-9]+/); n = substr($0, RSTART + 5, RLENGTH - 5) + 0
    if (n > most) most = n
}
END {
    printf "cuda.compile: %d kernels for sm_80, sm_90 and sm_100, at most %d registers\n", kernels, most
    if (kernels < 108 || stacks < kernels || used != kernels) { print "cuda.compile: expected 36 kernels or more for each"; bad = 1 }
    exit bad
}' "$out/resources.txt"
