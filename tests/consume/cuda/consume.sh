#!/bin/sh
# consume.cuda: installs thinwire with the component cuda, and nccl where nvcc finds nccl.h, and builds and runs a project that asks
# for them.
#
#     consume.sh NVCC CMAKE SOURCE FOLDER GENERATOR COMPILER
#
# CMAKE_CUDA_ARCHITECTURES is not set: the sources have to compile for the oldest device that nvcc knows, which is its default.
# Ends with 77 (skipped) where there is no nvcc. Needs no device: without one the program expects to be told.
set -eu
nvcc=$1 cmake=$2 source=$3 out=$4 generator=$5 compiler=$6
if ! nvcc=$(command -v "$nvcc"); then
    echo "consume.cuda: no nvcc here (CUDA toolkit 13 or later), skipped"
    exit 77
fi
rm -rf "$out"
mkdir -p "$out"
nccl=OFF
printf '#include <nccl.h>\n' > "$out/has_nccl.cu"
if "$nvcc" -E "$out/has_nccl.cu" > /dev/null 2>&1; then nccl=ON; else echo "consume.cuda: nvcc finds no nccl.h, without the component nccl"; fi
"$cmake" -S "$source" -B "$out/thinwire" -G "$generator" "-DCMAKE_CXX_COMPILER=$compiler" "-DCMAKE_INSTALL_PREFIX=$out/installed" \
    -DCMAKE_INSTALL_LIBDIR=lib "-DCUDAToolkit_ROOT=$(dirname "$nvcc")/.." -DTHINWIRE_CUDA=ON "-DTHINWIRE_NCCL=$nccl" -DTHINWIRE_HF=OFF -DTHINWIRE_C=OFF \
    -DTHINWIRE_RUNTIME=OFF -DTHINWIRE_LAUNCHER=OFF -DTHINWIRE_TESTS=OFF -DTHINWIRE_EXAMPLES=OFF -DTHINWIRE_BENCHMARKS=OFF
"$cmake" --install "$out/thinwire"
"$cmake" -S "$source/tests/consume/cuda" -B "$out/consumer" -G "$generator" "-DCMAKE_CXX_COMPILER=$compiler" \
    "-DCMAKE_CUDA_COMPILER=$nvcc" "-DCMAKE_CUDA_HOST_COMPILER=$compiler" -DCMAKE_BUILD_TYPE=Release \
    "-Dthinwire_DIR=$out/installed/lib/cmake/thinwire"
"$cmake" --build "$out/consumer"
"$out/consumer/consumer"
[ $nccl = OFF ] || "$out/consumer/node"
