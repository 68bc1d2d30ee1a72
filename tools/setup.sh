#!/bin/sh
# Installs the Debian 12 packages that thinwire needs and that are missing. Root, or sudo.
#
#     tools/setup.sh run     to build and run the launcher, with the quickstart's text
#     tools/setup.sh test    also what tools/test.sh uses
set -eu

run='g++ cmake ninja-build libasio-dev libssl-dev nlohmann-json3-dev libcli11-dev libtomlplusplus-dev libspdlog-dev libcpp-httplib-dev
    pkg-config bible-kjv'
test='doctest-dev valgrind clang libclang-rt-14-dev clang-format clang-tidy g++-aarch64-linux-gnu qemu-user python3 python3-venv spin
    iproute2 faketime chromium chromium-driver python3-selenium'

case "${1:-}" in
run) wanted=$run ;;
test) wanted="$run $test" ;;
*)
    echo "usage: tools/setup.sh run|test" >&2
    exit 2
    ;;
esac

command -v apt-get > /dev/null || {
    echo "setup: no apt-get here; install what these Debian packages hold: $wanted" >&2
    exit 1
}

missing=
for package in $wanted; do
    dpkg-query -W -f '${Status}' "$package" 2> /dev/null | grep -q '^install ok installed$' || missing="$missing $package"
done
if [ -z "$missing" ]; then
    echo "setup: everything is installed"
    exit 0
fi
echo "setup: installing$missing"
as_root=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo > /dev/null || {
        echo "setup: not root and no sudo; run as root: apt-get install$missing" >&2
        exit 1
    }
    as_root='sudo'
fi
$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update
# shellcheck disable=SC2086
$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 install --no-install-recommends -y $missing \
    < /dev/null > /dev/null
