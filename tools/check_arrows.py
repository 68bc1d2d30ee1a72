#!/usr/bin/env python3
"""Checks what the compiler cannot: which room may include which, and a few rules every source keeps.

    tools/check_arrows.py [ROOT]    prints one line for each breach; exit code 1 when there is any
"""

import pathlib
import re
import sys

INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]')
MAX_LINES = 800
SOURCES = {".h", ".c", ".hpp", ".cpp", ".cuh", ".cu"}

# room -> rooms or single headers it may include, beside itself, config.hpp and version.hpp.
ARROWS = {
    "core": [],
    "transform": ["core"],
    "codec": ["core"],
    "comm": ["core", "codec"],
    "optim": ["core", "transform", "codec", "comm/transport.hpp"],
    "nn": ["core"],
    "backend": ["core", "nn/backend.hpp"],
    "backend/cuda": ["core", "transform", "codec", "optim", "nn", "comm/transport.hpp"],
    "nccl": ["core", "backend/cuda"],
    "io": ["core", "comm/transport.hpp"],
    "hf": ["core", "io", "nn"],
    "runtime": ["core", "codec", "comm", "io"],
}
# foreign header -> folders that may include it. Every other include in angle brackets must be thinwire's or standard.
FOREIGN = {
    "asio": ["runtime/src", "tests/unit/runtime", "tests/support"],
    "openssl/": ["runtime/src", "tests/unit/runtime"],
    "nlohmann/": ["include/thinwire/hf", "runtime/launcher", "tests"],
    "CLI/": ["runtime/launcher"],
    "toml++/": ["runtime/launcher"],
    "spdlog/": ["runtime/launcher"],
    "httplib.h": ["runtime/launcher"],
    "doctest/": ["tests"],
    "cuda_runtime.h": ["include/thinwire/backend/cuda"],
    "cublasLt.h": ["include/thinwire/backend/cuda"],
    "nccl.h": ["include/thinwire/nccl"],
}
# The library does not print, abort or exit.
SILENT = re.compile(r"\bstd::(?:cout|cerr|clog)\b|\b(?:printf|fprintf|puts)\s*\("
                    r"|(?:\bstd|[^\w:>.]|^)::(?:abort|exit|_Exit|quick_exit|terminate)\s*\(")
MARKS = re.compile(r"\b(?:" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]) + r")\b")


def code_of(line):
    """The line without a comment and without what stands in quotes."""
    return re.sub(r'"(?:[^"\\]|\\.)*"', '""', line).split("//")[0]


def room_of(name):
    """thinwire/<room>/... of an included or own header name; the headers at the top have no room."""
    parts = name.split("/")
    if parts[1:3] == ["backend", "cuda"]:
        return "backend/cuda"
    return parts[1] if len(parts) > 2 else None


def allowed(room, header):
    target = room_of(header)
    if target is None:
        return header in ("thinwire/config.hpp", "thinwire/version.hpp")
    return target == room or any(header == "thinwire/" + to or target == to for to in ARROWS[room])


def check_include(name, room, bracket, header):
    if header.startswith("thinwire/"):
        if bracket == '"':
            yield f'includes "{header}", expected <{header}>'
        if room in ARROWS and not allowed(room, header):
            yield f"<{header}> is not among what {room} may include: {', '.join(ARROWS[room]) or 'nothing'}"
        return
    for foreign, folders in FOREIGN.items():
        if header == foreign or (header.startswith(foreign) and
                                 (foreign.endswith("/") or re.match(r"asio(\.hpp$|/)", header))):
            if not any(name.startswith(folder + "/") for folder in folders):
                yield f"<{header}> may be included in {', '.join(folders)} only"
            return
    if bracket == '"' and name.startswith("include/"):
        yield f'includes "{header}", expected a root-relative <thinwire/...>'


def check_header_rules(name, text):
    lines = text.count("\n")
    if lines > MAX_LINES:
        yield f"{lines} lines, expected at most {MAX_LINES}"
    include_name = name[name.index("thinwire/"):]
    guard = re.sub(r"[/.]", "_", include_name).upper()
    if not re.match(rf"(?://.*\n|\n)*#ifndef {guard}\n#define {guard}\n", text):
        yield f"does not begin with the guard {guard}"
    for number, line in enumerate(text.split("\n"), 1):
        if re.match(r"\s*using namespace\b", line):
            yield f"{number}: using namespace in a header"


def check_file(root, path):
    name = path.relative_to(root).as_posix()
    text = path.read_text(encoding="utf-8")
    public = name.startswith(("include/thinwire/", "runtime/include/thinwire/"))
    room = room_of(name[name.index("thinwire/"):]) if public else None
    if public and room is None and not re.search(r"thinwire/(?:(?:thinwire|config|version)\.hpp|c\.h)$", name):
        yield "a header at the top, expected it in a room"
    if room is not None and room not in ARROWS:
        yield f"room '{room}' has no arrows; add it to tools/check_arrows.py"
    for number, line in enumerate(text.split("\n"), 1):
        found = INCLUDE.match(line)
        if found and not name.endswith("thinwire/thinwire.hpp"):
            for breach in check_include(name, room, found[1], found[2]):
                yield f"{number}: {breach}"
        if name.startswith(("include/", "c/", "runtime/include/", "runtime/src/")) and SILENT.search(code_of(line)):
            yield f"{number}: the library prints, aborts or exits: {line.strip()}"
    if public and path.suffix in (".h", ".hpp", ".cuh"):
        yield from check_header_rules(name, text)


def files(root):
    for top in ["include", "c", "runtime", "examples", "benchmarks", "tests", "tools", "cmake", "docs", "packaging"]:
        for path in sorted((root / top).rglob("*")):
            if path.is_file() and not {"golden", "__pycache__"} & set(path.parts):
                if not path.relative_to(root).as_posix().startswith("tests/arrows/"):
                    yield path
    yield from (path for path in sorted(root.glob("*")) if path.suffix in {".md", ".txt", ".json"})


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent).resolve()
    breaches = 0
    for path in files(root):
        found = list(check_file(root, path)) if path.suffix in SOURCES else []
        if path.suffix in SOURCES | {".py", ".sh", ".cmake", ".txt", ".md", ".json", ".toml"}:
            for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
                if MARKS.search(line):
                    found.append(f"{number}: unfinished business: {line.strip()}")
        for breach in found:
            print(f"{path.relative_to(root).as_posix()}: {breach}")
        breaches += len(found)
    if breaches:
        print(f"check_arrows: {breaches} breaches")
        sys.exit(1)


if __name__ == "__main__":
    main()
