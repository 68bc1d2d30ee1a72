#!/bin/sh
# Everything: installs what the tests need, builds, runs all of them, and ends with CTest's summary. Arguments go to
# ctest, as in: tools/test.sh -L unit
set -eu
cd "$(dirname "$0")/.."

tools/setup.sh test
cmake --preset ci
cmake --build --preset ci
ctest --preset ci "$@"
