#!/usr/bin/env python3
"""Reads a payload of format 2 (docs/payload-format.md) without any of thinwire's code.

    payload_decode.py PAYLOAD LAYOUT.json          compares with the JSON's header fields and digest of the contents
    payload_decode.py --bits PAYLOAD LAYOUT.json   prints, per section, bits a position beside log2 C(n, k) / k

LAYOUT.json: {"k": k of the layout, "sections": [[name, chunks, chunk_size, kept], ...], "header": {...}, "contents": SHA-256}; k may be left out
where the payload states it, and the last two always."""

import hashlib
import json
import math
import pathlib
import struct
import sys

CODES = {0: "f32", 1: "sign", 2: "bf16", 3: "q4", 4: "q2"}
LEVELS = {"q4": (16, 19, 23, 28, 33, 40, 48, 57), "q2": (5, 7)}
MASK64 = (1 << 64) - 1


class Refused(Exception):
    pass


def refuse_unless(condition, why):
    if not condition:
        raise Refused(why)


def checksum(data):
    odd = 0x9E3779B97F4A7C15
    lanes = [0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89]
    for number, at in enumerate(range(0, len(data), 8)):
        word = (lanes[number % 4] ^ int.from_bytes(data[at:at + 8], "little")) * odd & MASK64
        lanes[number % 4] = (word << 29 | word >> 35) & MASK64
    total = len(data)
    for lane in lanes:
        total = (total ^ lane) * odd & MASK64
        total ^= total >> 32
    return total


class Bits:
    """A bit stream, lowest bit first."""

    def __init__(self, data):
        self.value, self.size, self.at = int.from_bytes(data, "little"), 8 * len(data), 0

    def get(self, bits):
        refuse_unless(self.at + bits <= self.size, "bit stream too short")
        field = self.value >> self.at & ((1 << bits) - 1)
        self.at += bits
        return field

    def end(self):
        """Bytes taken; the rest of the last is zero."""
        refuse_unless(self.get(-self.at % 8) == 0, "padding")
        return self.at // 8


def half_of(size):
    return 1 << ((size - 1).bit_length() - 1)


def split_frequencies(m, c, cache={}):
    """(lowest count of the window, frequencies, whether the last is the escape)"""
    if (m, c) in cache:
        return cache[m, c]
    h = half_of(m)
    r = m - h
    lowest, highest = max(0, c - r), min(h, c)
    mode = max(lowest, min(highest, (c + 1) * (h + 1) // (m + 2)))
    weights = {mode: 1 << 30}
    low = high = mode
    while low > lowest:
        w = weights[low] * (low * (r + low - c)) // ((h - low + 1) * (c - low + 1))
        if w < 1 << 14:
            break
        low -= 1
        weights[low] = w
    while high < highest:
        w = weights[high] * ((h - high) * (c - high)) // ((high + 1) * (r + high + 1 - c))
        if w < 1 << 14:
            break
        high += 1
        weights[high] = w
    escape = low > lowest or high < highest
    symbols = high - low + 1 + escape
    total = sum(weights.values())
    found = [1 + weights[i] * (32768 - symbols) // total for i in range(low, high + 1)]
    found[mode - low] += 32768 - escape - sum(found)
    cache[m, c] = low, found + [1] * escape, escape
    return cache[m, c]


class Symbols:
    def __init__(self, words, states):
        self.words, self.at, self.next, self.x = words, 0, 0, []
        if words:
            refuse_unless(len(words) >= 2 * states, "states")
            self.x = [words[2 * i] | words[2 * i + 1] << 16 for i in range(states)]
            self.at = 2 * states
            refuse_unless(all(x >= 1 << 16 for x in self.x), "state")

    def get(self, frequencies):
        if len(frequencies) == 1:
            return 0
        refuse_unless(self.x, "symbols without words")
        i = self.next % len(self.x)
        self.next += 1
        slot, s, start = self.x[i] & 32767, 0, 0
        while start + frequencies[s] <= slot:
            start += frequencies[s]
            s += 1
        x = frequencies[s] * (self.x[i] >> 15) + slot - start
        if x < 1 << 16:
            refuse_unless(self.at < len(self.words), "words")
            x = x << 16 | self.words[self.at]
            self.at += 1
        self.x[i] = x
        return s

    def end(self):
        refuse_unless(self.at == len(self.words) and all(x == 1 << 16 for x in self.x), "symbols do not end")
        refuse_unless(bool(self.words) == (self.next > 0), "words without symbols")


class Supports:
    def __init__(self, data, size, kept, counts):
        words, prefix = 0, 0
        while True:
            refuse_unless(prefix < len(data) and prefix < 5, "number of words")
            byte = data[prefix]
            refuse_unless(prefix == 0 or byte != 0, "number of words")
            words |= (byte & 127) << 7 * prefix
            prefix += 1
            if byte < 128:
                break
        refuse_unless(prefix + 2 * words <= len(data), "words")
        self.symbols = Symbols(struct.unpack_from(f"<{words}H", data, prefix), 1 if len(counts) * kept < 4096 else 4)
        self.plain = Bits(data[prefix + 2 * words:])
        self.places = [[] for _ in counts]
        batch = max(1, 4096 // kept)
        for first in range(0, len(counts), batch):
            self.batch(range(first, min(first + batch, len(counts))), size, counts)
        for chunk in self.places:
            chunk.sort()
        self.symbols.end()
        self.bytes = prefix + 2 * words + self.plain.end()

    def split(self, m, c):
        low, frequencies, escape = split_frequencies(m, c)
        s = self.symbols.get(frequencies)
        if not (escape and s == len(frequencies) - 1):
            return low + s
        h = half_of(m)
        i = self.plain.get(16)
        refuse_unless(max(0, c - (m - h)) <= i <= min(h, c), "escape")
        refuse_unless(not low <= i < low + len(frequencies) - 1, "escape")
        return i

    def batch(self, chunks, size, counts):
        seeds = [[] for _ in range(17)]  # blocks: (chunk, first place, count)
        for chunk in chunks:
            m, base, c = size, 0, counts[chunk]
            while m & (m - 1) and c > 0:
                h, lower = half_of(m), self.split(m, c)
                seeds[h.bit_length() - 1].append((chunk, base, lower))
                m, base, c = m - h, base + h, c - lower
            if c > 0:
                seeds[m.bit_length() - 1].append((chunk, base, c))
        halves = []
        for j in range(16, -1, -1):
            blocks = [b for b in halves + seeds[j] if b[2] > 0]
            halves = []
            singles = [b for b in blocks if b[2] == 1]
            pairs = [b for b in blocks if b[2] == 2 and j >= 6]
            for chunk, base, c in blocks:
                if c == 1 or (c == 2 and j >= 6):
                    continue
                if j <= 3:
                    self.subset(j, chunk, base, c)
                else:
                    lower = self.split(1 << j, c)
                    halves += [(chunk, base, lower), (chunk, base + (1 << (j - 1)), c - lower)]
            for chunk, base, _ in singles:
                self.places[chunk].append(base + self.plain.get(j))
            for chunk, base, _ in pairs:
                first, apart = self.plain.get(j), self.plain.get(j - 1) + 1
                refuse_unless(apart < 1 << (j - 1) or first < 1 << (j - 1), "pair")
                self.places[chunk] += [base + first, base + (first + apart) % (1 << j)]

    def subset(self, j, chunk, base, c):
        masks = [m for m in range(1 << (1 << j)) if bin(m).count("1") == c]
        n = len(masks)
        starts = [t * 32768 // n for t in range(n + 1)]
        mask = masks[self.symbols.get([starts[t + 1] - starts[t] for t in range(n)])]
        self.places[chunk] += [base + p for p in range(1 << j) if mask >> p & 1]


def f32_bits(value):
    return struct.unpack("<I", struct.pack("<f", value))[0]


def check_scale(field, used, levels):
    """Refuses a scale that is not the smallest with which these values can be written."""
    scale_of = lambda f: (16 + f % 16) * 2.0 ** (f // 16 - 128)
    scale, top = scale_of(field), max(used)
    for i in range(len(levels) - 1, top, -1):
        other = min(max((f32_bits(levels[top] * scale / levels[i]) + (1 << 18)) >> 19, 48), 3535) - 48
        possible = {level * scale_of(other) for level in levels}
        if other != field and all(levels[level] * scale in possible for level in used):
            raise Refused("scale")


def read_values(bits, code, count):
    """Bit patterns of f32."""
    if code == "f32":
        return [bits.get(32) for _ in range(count)]
    if code == "bf16":
        return [bits.get(16) << 16 for _ in range(count)]
    if code == "sign":
        return [0x3f800000 | bits.get(1) << 31 for _ in range(count)]
    if count == 0:
        return []
    levels = LEVELS[code]
    width = len(levels).bit_length() - 1
    field = bits.get(12)
    refuse_unless(field <= 217 * 16 + 15, "scale")
    codes = [bits.get(width + 1) for _ in range(count)]
    check_scale(field, {c % len(levels) for c in codes}, levels)
    scale = (16 + field % 16) * 2.0 ** (field // 16 - 128)
    return [f32_bits(levels[c % len(levels)] * scale) | (c >> width) << 31 for c in codes]


def read_section(data, chunks, size, kept, code):
    """Per chunk (places, bits of values), and the bits that counts and supports take."""
    refuse_unless(data and data[0] <= 1, "flags")
    counts, at = [kept] * chunks, 1
    if data[0] == 1:
        refuse_unless(code not in ("f32", "bf16"), "counts")
        bits = Bits(data[1:])
        counts = [bits.get(kept.bit_length()) for _ in range(chunks)]
        refuse_unless(all(c <= kept for c in counts) and any(c < kept for c in counts), "counts")
        at += bits.end()
    supports = Supports(data[at:], size, kept, counts)
    at += supports.bytes
    bits = Bits(data[at:])
    values = [read_values(bits, code, c) for c in counts]
    refuse_unless(at + bits.end() == len(data), "bytes left over")
    refuse_unless(all(v & 0x7fffffff <= 227 << 23 for chunk in values for v in chunk), "value")
    return list(zip(supports.places, values)), 8 * at


def sane(bits):
    return bits == 0 or 27 << 23 <= bits <= 147 << 23


def read_payload(data, sections, k=None):
    refuse_unless(len(data) >= 128 and data[:4] == b"TWPL", "not a payload")
    version, kind, code = struct.unpack_from("<HBB", data, 4)
    refuse_unless(version == 2 and kind <= 1, "version or kind")
    refuse_unless(code in CODES, "value code")
    rate, decay = struct.unpack_from("<II", data, 72)
    header = {"kind": kind, "values": CODES[code], "run": data[8:40].hex(), "replica": data[84:116].hex(),
              "learning_rate": rate, "weight_decay": decay}
    for name, form, at in (("round", "<Q", 40), ("peer", "<Q", 48), ("fingerprint", "<Q", 56), ("k", "<I", 64),
                           ("chunk", "<I", 68), ("tokens", "<I", 80), ("sections", "<I", 116)):
        header[name] = struct.unpack_from(form, data, at)[0]
    refuse_unless(header["sections"] == len(sections), "number of sections")
    k = header["k"] if k is None else k
    refuse_unless(header["k"] == k or kind == 0 and 1 <= header["k"] < k, "k")
    refuse_unless(sane(rate) and sane(decay), "rates")
    refuse_unless(header["tokens"] <= 1 << 24, "tokens")
    numbers = struct.unpack_from("<ff", data, 72)
    refuse_unless(numbers[0] * numbers[1] <= 1.0, "rates")
    at, contents, support_bits = 120, [], []
    for _, chunks, size, kept in sections:
        refuse_unless(at + 12 <= len(data), "section")
        length = struct.unpack_from("<I", data, at)[0]
        refuse_unless(at + 4 + length + 8 <= len(data), "section")
        section = data[at + 4:at + 4 + length]
        at += 4 + length
        if kind == 1:
            refuse_unless(length == 4 * chunks, "dense section")
            values = struct.unpack(f"<{chunks}I", section)
            refuse_unless(all(v & 0x7fffffff <= 187 << 23 for v in values), "element")
            contents.append(section)
            support_bits.append(0)
            continue
        kept = min(kept, header["k"]) if header["k"] < k else kept
        found, bits = read_section(section, chunks, size, kept, CODES[code])
        contents.append(b"".join(struct.pack(f"<I{len(p)}H{len(p)}I", len(p), *p, *v) for p, v in found))
        support_bits.append((bits, [len(p) for p, _ in found]))
    refuse_unless(at + 8 == len(data), "length")
    refuse_unless(struct.unpack_from("<Q", data, at)[0] == checksum(data[:at]), "checksum")
    return header, contents, support_bits


def log2_choose(n, k):
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)


def show_bits(sections, support_bits):
    print("section                                    chunks      n  sent  bits a position   bound")
    for (name, chunks, size, _), (bits, counts) in zip(sections, support_bits):
        sent = sum(counts)
        if sent:
            bound = sum(log2_choose(size, c) for c in counts) / sent
            print(f"{name:42s} {chunks:6d} {size:6d} {sent:5d} {bits / sent:16.3f} {bound:7.3f}")
        else:
            print(f"{name:42s} {chunks:6d} {size:6d}     0   ({bits} bits)")


def main():
    words = [w for w in sys.argv[1:] if w != "--bits"]
    if len(words) != 2:
        sys.exit(__doc__)
    wanted = json.loads(pathlib.Path(words[1]).read_text(encoding="utf-8"))
    try:
        header, contents, support_bits = read_payload(pathlib.Path(words[0]).read_bytes(), wanted["sections"], wanted.get("k"))
    except Refused as problem:
        sys.exit(f"{words[0]}: refused: {problem}")
    if "--bits" in sys.argv:
        show_bits(wanted["sections"], support_bits)
    found = hashlib.sha256(b"".join(contents)).hexdigest()
    for name, value in wanted.get("header", {}).items():
        if header[name] != value:
            sys.exit(f"{words[0]}: {name} is {header[name]}, expected {value}")
    if "contents" in wanted and wanted["contents"] != found:
        sys.exit(f"{words[0]}: the contents have the digest {found}, expected {wanted['contents']}")


if __name__ == "__main__":
    main()
