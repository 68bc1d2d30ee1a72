#!/bin/sh
# Builds the Conan package and its test_package from the working tree, without any remote. Conan itself comes from PyPI
# into a virtual environment, once.
#
#     tools/check_conan.sh FOLDER    keeps the environment and Conan's home in FOLDER
set -eu
[ $# -eq 1 ] || { echo "usage: check_conan.sh FOLDER" >&2; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
if [ ! -x "$folder/venv/bin/conan" ]; then
    rm -rf "$folder/venv"
    python3 -m venv "$folder/venv"
    "$folder/venv/bin/pip" install --quiet 'conan>=2.4,<3'
fi
export CONAN_HOME="$folder/home"
export PATH="$folder/venv/bin:$PATH"
rm -rf "$folder/test_package"
cp -r "$root/packaging/conan/test_package" "$folder/test_package"  # Conan builds inside it
conan profile detect --force > /dev/null
conan create "$root/packaging/conan" --no-remote --build=missing -c tools.cmake.cmaketoolchain:generator=Ninja \
    --settings=compiler.cppstd=20 --test-folder="$folder/test_package"
