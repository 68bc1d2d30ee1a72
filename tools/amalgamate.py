#!/usr/bin/env python3
"""Writes include/thinwire/thinwire.hpp (the umbrella) and single_include/thinwire/thinwire.hpp (the host core in one file).

The single header holds every public header of the host core that a training program calls: all below include/thinwire but detail/, hf/, what
needs a device or a foreign library, and what only drives a run (the protocol's machines and the log), each pasted once, after those it includes. The
umbrella includes those of them that an own training loop calls: not the transformer (nn/, backend/) and its files (io/).
Both depend on nothing but the headers' bytes.

    tools/amalgamate.py            writes both
    tools/amalgamate.py --check    says what differs, exit code 1, and writes nothing
"""

import argparse
import pathlib
import re
import sys

NOT_IN_CORE = {"hf", "cuda", "mpi", "nccl", "runtime"}
UMBRELLA = "thinwire/thinwire.hpp"
# For who writes a runtime: a second of compile time that a training program does not pay.
FOR_RUNTIMES = {f"thinwire/{name}.hpp" for name in (
    "comm/effect", "comm/follower", "comm/frame", "comm/machine", "comm/message", "comm/participant", "comm/sequencer", "comm/view",
    "io/run_log",
    "optim/demo_shards", "optim/demo_cut")}
# For who trains our transformer: another second.
FOR_TRANSFORMERS = {"backend", "io", "nn"}
INCLUDE = re.compile(r'^\s*#\s*include\s+[<"](thinwire/[^>"]+)[>"].*$')


def public_headers(include):
    for path in sorted(include.glob("thinwire/**/*.hpp")):
        parts = path.relative_to(include).parts
        if "detail" in parts or NOT_IN_CORE & set(parts) or "/".join(parts) == UMBRELLA:
            continue
        if "/".join(parts) not in FOR_RUNTIMES:
            yield "/".join(parts)


def umbrella(headers, says):
    lines = ["#ifndef THINWIRE_THINWIRE_HPP", "#define THINWIRE_THINWIRE_HPP", "", f"/// {says} Written by tools/amalgamate.py."]
    lines += [f"#include <{header}>" for header in headers]
    lines += ["", "#endif  // THINWIRE_THINWIRE_HPP", ""]
    return "\n".join(lines)


def paste(include, header, text, done, out):
    """Appends to `out` the headers that `text` includes and that are not done, then `text` without those includes, then
    those of them that include `header` back: the bodies of what it declares."""
    done.add(header)
    guard = header.upper().replace("/", "_").replace(".", "_")
    if not re.search(rf"^#ifndef {guard}\n#define {guard}$", text, re.MULTILINE):
        raise SystemExit(f"amalgamate: <{header}> has no guard {guard}")
    kept, bodies = [], []
    for line in text.split("\n"):
        found = INCLUDE.match(line)
        if not found:
            kept.append(line)
        elif found[1] not in done:
            path = include / found[1]
            if not path.is_file():
                raise SystemExit(f"amalgamate: <{header}> includes <{found[1]}>, which does not exist")
            text_there = path.read_text(encoding="utf-8")
            if f"#include <{header}>" in text_there:
                bodies.append((found[1], text_there))
            else:
                paste(include, found[1], text_there, done, out)
    out.append(f"// ---- {header}\n" + re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip("\n") + "\n")
    for body, text_there in bodies:
        paste(include, body, text_there, done, out)


def single(include, headers):
    version = re.search(r'VERSION_STRING "([^"]+)"', (include / "thinwire/version.hpp").read_text(encoding="utf-8"))[1]
    licence = (include.parent / "LICENSE").read_text(encoding="utf-8").strip("\n").split("\n")
    out = ["".join(("// " + line).rstrip() + "\n" for line in [
        f"thinwire {version} in one file, written by tools/amalgamate.py from include/thinwire. Change those instead.",
        "", *licence])]
    paste(include, UMBRELLA, umbrella(headers, "All of the host core that a training program calls."), set(), out)
    return "\n".join(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent)
    arguments = parser.parse_args()
    include = arguments.root / "include"
    headers = list(public_headers(include))
    own_loop = [h for h in headers if h.split("/")[1] not in FOR_TRANSFORMERS]
    wanted = {include / UMBRELLA: umbrella(own_loop, "What an own training loop calls: the optimizers and what carries payloads."),
              arguments.root / "single_include" / UMBRELLA: single(include, headers)}
    stale = [path for path, text in wanted.items() if not path.is_file() or path.read_bytes() != text.encode("utf-8")]
    for path in stale:
        if not arguments.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(wanted[path].encode("utf-8"))
        print(f"{'differs' if arguments.check else 'wrote'}: {path.relative_to(arguments.root)}")
    if arguments.check and stale:
        print("amalgamate: run tools/amalgamate.py and commit what it writes")
        sys.exit(1)


if __name__ == "__main__":
    main()
