#!/usr/bin/env python3
"""Checks packaging/ against the project: versions, features, options and names agree, as far as no package manager is
needed to tell. (Conan's recipe is also run, by the test packaging.conan.)"""

import json
import pathlib
import re
import sys

root = pathlib.Path(__file__).resolve().parent.parent
problems = []


def expect(condition, text):
    if not condition:
        problems.append(text)


def main():
    cmake = (root / "CMakeLists.txt").read_text(encoding="utf-8")
    header = (root / "include/thinwire/version.hpp").read_text(encoding="utf-8")
    version = re.search(r'VERSION_STRING "([^"]+)"', header)[1]
    numbers = [re.search(rf"VERSION_{part} (\d+)", header)[1] for part in ("MAJOR", "MINOR", "PATCH")]
    options = set(re.findall(r"^option\((THINWIRE_\w+)", cmake, re.MULTILINE))
    expect(".".join(numbers) == version, f"version.hpp: {'.'.join(numbers)} in parts, {version} as text")

    port = root / "packaging/vcpkg/ports/thinwire"
    manifest = json.loads((port / "vcpkg.json").read_text(encoding="utf-8"))
    portfile = (port / "portfile.cmake").read_text(encoding="utf-8")
    expect(manifest["name"] == port.name, f"vcpkg.json: name {manifest['name']}, expected {port.name}")
    expect(manifest["version-semver"] == version, f"vcpkg.json: {manifest['version-semver']}, expected {version}")
    expect(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", manifest["name"]), "vcpkg.json: name")
    expect(manifest["license"] == "MIT" and (root / "LICENSE").read_text(encoding="utf-8").startswith("MIT License"),
           "vcpkg.json: licence differs from LICENSE")
    for name, feature in manifest["features"].items():
        expect(feature.get("description"), f"vcpkg.json: feature {name} has no description")
        expect(re.search(rf"^\s+{name} THINWIRE_{name.upper()}$", portfile, re.MULTILINE),
               f"portfile.cmake: feature {name} sets no option")
        expect(f"COMPONENTS {name})" in (port / "usage").read_text(encoding="utf-8"), f"usage: no component {name}")
    used = set(re.findall(r"THINWIRE_\w+", portfile))
    conan = (root / "packaging/conan/conanfile.py").read_text(encoding="utf-8")
    compile(conan, "conanfile.py", "exec")
    used |= {f"THINWIRE_{option}" for option in re.findall(r'"([A-Z]+)":? (?:True|False|bool)', conan)}
    for option in sorted(used - options):
        problems.append(f"packaging: option {option} does not exist in CMakeLists.txt")
    # What is on by default at the top level and not asked for must be turned off by name.
    for option in sorted({"THINWIRE_LAUNCHER", "THINWIRE_TESTS", "THINWIRE_EXAMPLES", "THINWIRE_BENCHMARKS"} - used):
        problems.append(f"packaging: {option} is left at its default")
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    expect(re.search(rf"^## {re.escape(version)}\b", changelog, re.MULTILINE), f"CHANGELOG.md: no entry for {version}")

    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
