#!/usr/bin/env python3
"""Rounds of four peers over slow links, as root: benchmark_slow_links in network namespaces.

A peer's namespace has one tun device; `tbf` shapes what leaves it, and benchmark_slow_links network delays every packet
and gives each receiver a link of the same rate. Payloads have the size of GPT-2 small's (64x64 chunks, sign values),
compute is a timer. Beside each row: what a peer must receive over its rate, and a dense float32 ring all-reduce.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile

PARAMETERS = 124_439_808
PEERS = 4
QUEUE_MS = 100


def call(*words):
    subprocess.run(words, check=True)


@contextlib.contextmanager
def links(program, mbit, delay_ms, congestion):
    """The namespaces' names; everything is gone afterwards."""
    names = [f"thinwire{os.getpid()}_{i}" for i in range(PEERS)]
    made, network = [], None
    try:
        for i, name in enumerate(names):
            call("ip", "netns", "add", name)
            made.append(name)
            call("ip", "-n", name, "link", "set", "lo", "up")
            call("ip", "-n", name, "tuntap", "add", "dev", "wan", "mode", "tun")
            call("ip", "-n", name, "addr", "add", f"10.77.0.{i + 1}/24", "dev", "wan")
            call("ip", "-n", name, "link", "set", "dev", "wan", "mtu", "9000" if mbit > 100 else "1500",
                 "txqueuelen", "5000", "up")
            burst, queue = max(20000, int(mbit * 1e6 / 8 * 0.002)), max(30000, int(mbit * 1e6 / 8 * QUEUE_MS / 1e3))
            call("tc", "-n", name, "qdisc", "add", "dev", "wan", "root", "tbf", "rate", f"{mbit}mbit",
                 "burst", str(burst), "limit", str(queue))
            call("ip", "-n", name, "route", "replace", "10.77.0.0/24", "dev", "wan", "congctl", congestion)
        network = subprocess.Popen([program, "network", str(mbit), str(delay_ms), str(QUEUE_MS), *names],
                                   stdout=subprocess.PIPE)
        if not network.stdout.readline():
            sys.exit("slow_links: the network did not start")
        yield names
    finally:
        if network:
            network.kill()
            network.wait()
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False)


def run(names, limit, *commands):
    """One program in each namespace; what they print."""
    running = [subprocess.Popen(["ip", "netns", "exec", name, *command], stdout=subprocess.PIPE)
               for name, command in zip(names, commands)]
    try:
        lines = [json.loads(p.communicate(timeout=limit)[0] or "null") for p in running]
    finally:
        for p in running:
            p.kill()
            p.wait()
    if None in lines:
        sys.exit("slow_links: a program failed")
    return lines


def rounds(names, program, size, count, compute_ms, mode):
    with tempfile.TemporaryDirectory(prefix="thinwire_slow_links_") as folder:
        subprocess.run([program, "keys", folder, str(PEERS)], check=True, stdout=subprocess.DEVNULL)
        lines = run(names, 570, *([program, "peer", folder, str(i), str(PEERS), str(size), str(count),
                                   str(compute_ms), mode] for i in range(PEERS)))
    mean = lambda key: sum(line[key] for line in lines) / PEERS
    return {"round_s": mean("round_s"), "exchange_s": mean("exchange_s"), "sent": mean("sent"),
            "received": mean("received"), "missing": max(line["missing"] for line in lines)}


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("program", help="build/benchmarks/benchmark_slow_links")
    parse.add_argument("--mbit", default="1000,100,20,10,1")
    parse.add_argument("--k", default="8,16,32")
    parse.add_argument("--bytes", help="payloads of these sizes instead of those of --k")
    parse.add_argument("--modes", default="turn,overlap")
    parse.add_argument("--round-trip-ms", type=float, default=50)
    parse.add_argument("--compute-ms", type=int, default=1000)
    parse.add_argument("--seconds", type=float, default=25, help="about how long a row may take, but for 3 rounds")
    parse.add_argument("--congestion", default="cubic")
    parse.add_argument("--no-ring", action="store_true")
    parse.add_argument("--json")
    o = parse.parse_args()
    program = os.path.abspath(o.program)
    rows = []
    sizes = {}
    if o.bytes:
        sizes = {f"{size}": int(size) for size in o.bytes.split(",")}
    else:
        for k in o.k.split(","):
            sizes[f"k={k}"] = json.loads(subprocess.check_output([program, "payload", k]))["bytes"]
    print(f"{PEERS} peers, {o.round_trip_ms:g} ms round trip, {o.congestion}, compute {o.compute_ms} ms; "
          f"payloads {', '.join(f'{k}: {size} bytes' for k, size in sizes.items())}")
    print(f"{'Mbit/s':>7} {'payload':>8} {'':8} {'round s':>8} {'speed':>6} {'bound':>6} {'exchange s':>10} "
          f"{'received / rate':>15} {'beyond payloads':>15} {'missing':>7} {'dense s':>8}")
    for mbit in map(int, o.mbit.split(",")):
        dense = 2 * (PEERS - 1) / PEERS * 4 * PARAMETERS * 8 / (mbit * 1e6)
        with links(program, mbit, o.round_trip_ms / 2, o.congestion) as names:
            if dense < 30 and not o.no_ring:
                lines = run(names, 300, *([program, "ring", str(i), str(PEERS), str(4 * PARAMETERS), "1"]
                                          for i in range(PEERS)))
                measured = max(line["seconds"] for line in lines)
                rows.append({"what": "ring", "mbit": mbit, "bound_s": dense, "seconds": measured})
                print(f"{mbit:7}     dense ring all-reduce, measured: {measured:.2f} s, its bound {dense:.2f} s",
                      flush=True)
            for k, size in sizes.items():
                least = (PEERS - 1) * size * 8 / (mbit * 1e6)
                for mode in o.modes.split(","):
                    compute = o.compute_ms / 1e3
                    expected = max(compute, least) if mode == "overlap" else compute + least
                    count = max(3, int(o.seconds / (expected + 0.1)))
                    row = rounds(names, program, size, count, o.compute_ms, mode)
                    speed = compute / row["round_s"]
                    bound = compute / expected
                    beyond = row["received"] - (PEERS - 1) * size
                    row.update({"what": "rounds", "mbit": mbit, "name": k, "payload": size, "mode": mode,
                                "rounds": count, "speed": speed, "bound": bound, "least_s": least, "dense_s": dense})
                    rows.append(row)
                    print(f"{mbit:7} {k:>8} {mode:8} {row['round_s']:8.3f} {speed:6.1%} {bound:6.1%} "
                          f"{row['exchange_s']:10.3f} {least:15.3f} {beyond:15.0f} {row['missing']:7} {dense:8.1f}",
                          flush=True)
    if o.json:
        with open(o.json, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
