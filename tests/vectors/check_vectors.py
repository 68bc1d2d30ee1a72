#!/usr/bin/env python3
"""check_vectors.py GENERATOR ROOT FOLDER: the build writes the test vectors of the payload format bit for bit, and the decoder that
was written from docs/payload-format.md reads them, reads payloads of other seeds and refuses altered ones."""

import json
import pathlib
import subprocess
import sys

generator, root, folder = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
kept = root / "tests/data/payload"
sys.path.insert(0, str(root / "tools"))
sys.dont_write_bytecode = True
import payload_decode  # noqa: E402


def make(seed):
    made = folder / seed
    made.mkdir(parents=True, exist_ok=True)
    subprocess.run([generator, str(made), seed], check=True)
    return sorted(made.glob("*.payload"))


def problem_of(payload, data):
    wanted = json.loads(payload.with_suffix(".json").read_text(encoding="utf-8"))
    try:
        header, contents, _ = payload_decode.read_payload(data, wanted["sections"], wanted.get("k"))
    except payload_decode.Refused as problem:
        return f"refused: {problem}"
    if any(header[name] != value for name, value in wanted["header"].items()):
        return "another header"
    found = payload_decode.hashlib.sha256(b"".join(contents)).hexdigest()
    return None if found == wanted["contents"] else "other contents"


def main():
    first = make("1")
    names = sorted(p.name for p in kept.iterdir())
    if names != sorted(p.name for p in (folder / "1").iterdir()):
        sys.exit("tests/data/payload: other files than payload_vectors writes")
    for name in names:
        if (kept / name).read_bytes() != (folder / "1" / name).read_bytes():
            sys.exit(f"tests/data/payload/{name}: this build writes other bytes: the format changed")
    read = 0
    for payload in first + make("2") + make("3"):
        data = payload.read_bytes()
        problem = problem_of(payload, data)
        if problem:
            sys.exit(f"{payload}: {problem}")
        read += 1
        for at in range(0, len(data), 1 + len(data) // 7):
            altered = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1:]
            if not problem_of(payload, altered):
                sys.exit(f"{payload}: read with byte {at} altered")
    print(f"{read} payloads read, {len(names) // 2} of them the test vectors")


main()
