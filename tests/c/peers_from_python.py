#!/usr/bin/env python3
"""Drives the shared library of thinwire::c with ctypes and the standard library alone: two peers that exchange payloads, and
the texts of errors.

    peers_from_python.py LIBRARY
"""

import array
import ctypes
import hashlib
import math
import pathlib
import random
import re
import struct
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
from payload_decode import checksum  # noqa: E402

OK, INVALID, REFUSED = 0, 1, 2
VALUES_BF16 = 2
CUT_REMAINDER, CUT_DIVISORS = 0, 1
FLOATS = ctypes.POINTER(ctypes.c_float)
BYTES = ctypes.POINTER(ctypes.c_uint8)


class Options(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("learning_rate", ctypes.c_float),
                ("momentum_decay", ctypes.c_float), ("alpha", ctypes.c_float), ("weight_decay", ctypes.c_float),
                ("clip_norm", ctypes.c_float), ("k", ctypes.c_int32), ("chunk", ctypes.c_int32), ("cut", ctypes.c_int32),
                ("values", ctypes.c_int32), ("error_feedback", ctypes.c_int32), ("basis", ctypes.c_int32),
                ("basis_seed", ctypes.c_uint64), ("rule", ctypes.c_int32), ("gradient", ctypes.c_int32),
                ("weights", ctypes.c_int32), ("contribution_clip", ctypes.c_float),
                ("threads", ctypes.c_int32), ("run", ctypes.c_uint8 * 32), ("groups", ctypes.c_void_p),
                ("group_count", ctypes.c_size_t)]


class Tensor(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("shape", ctypes.POINTER(ctypes.c_int64)), ("rank", ctypes.c_size_t),
                ("values", FLOATS), ("count", ctypes.c_size_t)]


class Floats(ctypes.Structure):
    _fields_ = [("data", FLOATS), ("count", ctypes.c_size_t)]


class Bytes(ctypes.Structure):
    _fields_ = [("data", BYTES), ("size", ctypes.c_size_t)]


class Payload(ctypes.Structure):
    _fields_ = [("peer", ctypes.c_uint64), ("bytes", Bytes)]


class Report(ctypes.Structure):
    _fields_ = [("round", ctypes.c_uint64), ("bytes_sent", ctypes.c_uint64), ("bytes_received", ctypes.c_uint64),
                ("tokens", ctypes.c_uint64), ("contributors", ctypes.c_uint32), ("rejected", ctypes.c_uint32), ("agreeing", ctypes.c_uint32),
                ("disagreeing", ctypes.c_uint32), ("own_included", ctypes.c_int32),
                ("gradient_norm", ctypes.c_float), ("learning_rate", ctypes.c_float)]


class ThinwireError(Exception):
    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


class Library:
    def __init__(self, path):
        self.c = ctypes.CDLL(path)
        self.c.thinwire_version.restype = ctypes.c_char_p
        self.c.thinwire_last_error.restype = ctypes.c_char_p
        self.c.thinwire_demo_destroy.restype = None

    def call(self, name, *arguments):
        status = getattr(self.c, "thinwire_" + name)(*arguments)
        if status != OK:
            raise ThinwireError(status, self.c.thinwire_last_error().decode())

    def options(self, **settings):
        options = Options()
        self.call("options_init", ctypes.byref(options), ctypes.c_size_t(ctypes.sizeof(options)))
        for name, value in settings.items():
            setattr(options, name, value)
        return options


class Peer:
    """An optimizer over weights in Python arrays."""

    def __init__(self, library, number, shapes, options):
        self.library, self.number = library, number
        self.shapes = {name: (ctypes.c_int64 * len(shape))(*shape) for name, shape in shapes.items()}
        self.values = {name: array.array("f", [0.0] * math.prod(shape)) for name, shape in shapes.items()}
        tensors = (Tensor * len(shapes))(*(
            Tensor(name.encode(), self.shapes[name], len(shape), self.floats(self.values[name]), math.prod(shape))
            for name, shape in shapes.items()))
        self.handle = ctypes.c_void_p()
        library.call("demo_create", tensors, ctypes.c_size_t(len(tensors)), ctypes.byref(options),
                     ctypes.byref(self.handle))

    @staticmethod
    def floats(numbers):
        return ctypes.cast(ctypes.c_void_p(numbers.buffer_info()[0]), FLOATS)

    def begin(self, gradients):
        spans = (Floats * len(gradients))(*(Floats(self.floats(g), len(g)) for g in gradients))
        out = Bytes()
        self.library.call("begin_step", self.handle, ctypes.c_uint64(self.number), spans,
                          ctypes.c_size_t(len(spans)), ctypes.byref(out))
        return ctypes.string_at(out.data, out.size)

    @staticmethod
    def payload(peer, data):
        return Payload(peer, Bytes(ctypes.cast(ctypes.c_char_p(data), BYTES), len(data)))

    def end(self, round_number, payloads):
        held = (Payload * len(payloads))(*(self.payload(peer, data) for peer, data in payloads))
        report = Report()
        self.library.call("end_step", self.handle, ctypes.c_uint64(round_number), held, ctypes.c_size_t(len(held)),
                          ctypes.byref(report))
        return report

    def validate(self, peer, data, round_number):
        payload = self.payload(peer, data)
        self.library.call("validate", self.handle, ctypes.byref(payload), ctypes.c_uint64(round_number))

    def digest(self):
        out = (ctypes.c_uint8 * 32)()
        self.library.call("replica_digest", self.handle, out)
        return bytes(out)

    def save(self):
        out = Bytes()
        self.library.call("save", self.handle, ctypes.byref(out))
        return ctypes.string_at(out.data, out.size)

    def restore(self, state):
        self.library.call("restore", self.handle, state, ctypes.c_size_t(len(state)))


def expect(condition, text):
    if not condition:
        sys.exit(f"peers_from_python: {text}")


def expect_error(status, text, call):
    try:
        call()
    except ThinwireError as e:
        expect(e.status == status and text in str(e), f"status {e.status} '{e}', expected {status} '{text}'")
        return
    expect(False, f"no error, expected '{text}'")


def gradients_of(peer, draw):
    """Of half the squared distance of every weight to 1, seen through noise."""
    return [array.array("f", [w - 1.0 + 0.1 * draw.uniform(-1, 1) for w in v]) for v in peer.values.values()]


def fingerprint(shapes, options):
    """As docs/payload-format.md has it, of the options that train() leaves as they are: no groups, DCT, signum."""
    data = b"".join(struct.pack(f"<I{len(shape)}q", len(shape), *shape) for shape in shapes.values())
    data += struct.pack("<BIQBf", options.values, options.chunk, checksum(struct.pack("<BQB", 0, 0, 0)),
                        options.weights, options.contribution_clip)
    for _ in shapes:
        data += struct.pack("<ffBfII", 1, 1, 0, 0, options.k, len(b"signum")) + b"signum"
    cut_sides = [side for shape in shapes.values() for side in shape[-2:]]
    if options.cut == CUT_REMAINDER and any(remains(side, options.chunk) for side in cut_sides):
        data += b"\1"
    return checksum(data)


def remains(side, chunk):
    """Whether a dimension is cut with a remainder."""
    divisor = max(d for d in range(1, min(side, chunk) + 1) if side % d == 0)
    return side > chunk and 2 * divisor < chunk


def share(peer, round_number):
    """The digest of a sixteenth of the weights, likewise."""
    part, digest = round_number % 16, hashlib.sha256()
    for values in peer.values.values():
        begin, end = (len(values) // 16 * at + len(values) % 16 * at // 16 for at in (part, part + 1))
        digest.update(struct.pack(f"<{end - begin}f", *values[begin:end]))
    return digest.digest()


def train(library, **settings):
    shapes = {"weight": (32, 24), "bias": (24,), "odd": (67, 5)}
    options = library.options(learning_rate=0.01, momentum_decay=0.9, k=32, values=VALUES_BF16, **settings)
    peers = [Peer(library, number, shapes, options) for number in (10, 11)]
    draws = [random.Random(peer.number) for peer in peers]
    for round_number in range(60):
        payloads = [(peer.number, peer.begin(gradients_of(peer, draw))) for peer, draw in zip(peers, draws)]
        peers[0].validate(*payloads[1], round_number)
        for peer, (_, data) in zip(peers, payloads):
            expect(data[56:64] == struct.pack("<Q", fingerprint(shapes, options)), "the fingerprint of the format's page")
            expect(data[84:116] == share(peer, round_number), f"round {round_number}: the share of the format's page")
        arrived = payloads[:1] if round_number % 7 == 6 else payloads
        for peer in peers:
            report = peer.end(round_number, arrived)
            expect(report.contributors == len(arrived) and report.disagreeing == 0 and report.round == round_number,
                   f"round {round_number}: {report.contributors} contributors, {report.disagreeing} disagree")
        expect(peers[0].digest() == peers[1].digest(), f"round {round_number}: digests differ")
    distance = sum((w - 1.0) ** 2 for v in peers[0].values.values() for w in v)
    expect(distance < 0.6 * sum(len(v) for v in peers[0].values.values()), f"squared distance {distance}: nothing was learnt")
    peers[1].restore(peers[1].save())
    return peers


def errors(library, peers):
    peer, other = peers
    gradients = gradients_of(peer, random.Random(1))
    gradients[1][5] = math.nan
    expect_error(INVALID, "thinwire_begin_step: gradient of 'bias': element 5 is nan, expected a finite number",
                 lambda: peer.begin(gradients))
    expect_error(INVALID, "gradient_count 1, expected 3", lambda: peer.begin(gradients[:1]))
    gradients[1] = gradients[1][:20]
    expect_error(INVALID, "gradient of 'bias': 20 elements, expected 24", lambda: peer.begin(gradients))
    expect_error(INVALID, "commit of round 3, expected round 60", lambda: peer.end(3, []))
    expect_error(REFUSED, "not a thinwire payload", lambda: peer.validate(10, b"hello, peer", 60))
    data = bytearray(other.begin(gradients_of(other, random.Random(2))))
    data[-20] ^= 1
    expect_error(REFUSED, "checksum differs (bad_checksum)", lambda: peer.validate(11, bytes(data), 60))
    expect(peer.end(60, [(11, bytes(data))]).rejected == 1, "a damaged payload is applied")
    expect_error(REFUSED, "private state: not one of thinwire", lambda: peer.restore(b"x" * 100))
    expect_error(INVALID, "k 0, expected 1..4096", lambda: Peer(library, 1, {"w": (4,)}, library.options(k=0)))
    expect_error(INVALID, "demo is null", lambda: library.call("abandon", None))


def main():
    library = Library(sys.argv[1])
    expect(re.fullmatch(rb"\d+\.\d+\.\d+", library.c.thinwire_version()), "version")
    train(library, cut=CUT_DIVISORS)
    peers = train(library)
    errors(library, peers)
    for peer in peers:
        library.c.thinwire_demo_destroy(peer.handle)
    # Nothing but the functions of the header is visible.
    listed = subprocess.run(["nm", "-D", "--defined-only", sys.argv[1]], capture_output=True, text=True, check=True)
    foreign = [line for line in listed.stdout.splitlines() if not line.split()[-1].startswith("thinwire_")]
    expect(not foreign, f"other symbols are visible: {foreign[:3]}")


if __name__ == "__main__":
    main()
