#!/usr/bin/env python3
"""What viewers of the dashboard cost a run: rounds a second with and without VIEWERS readers of /events on loopback, in
turns, as ratios; and how long a long run takes to show.

    benchmarks/dashboard_load.py PROGRAM [--viewers 1000] [--seconds 20] [--turns 4]
    benchmarks/dashboard_load.py PROGRAM --rounds 1000000     a run of 64 peers and so many rounds from its folder
"""

import argparse
import json
import os
import pathlib
import resource
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "e2e"))


class Viewers:
    """Reads all that comes, on one thread."""

    def __init__(self, where, count):
        self.bytes = self.lost = 0
        self.poll = selectors.EpollSelector()
        self.sockets = []
        for _ in range(count):
            one = socket.create_connection(where, timeout=30)
            one.sendall(b"GET /events HTTP/1.1\r\n\r\n")
            one.setblocking(False)
            self.poll.register(one, selectors.EVENT_READ)
            self.sockets.append(one)
        self.over = False
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self):
        while not self.over:
            for key, _ in self.poll.select(0.2):
                got = key.fileobj.recv(1 << 16)
                self.bytes += len(got)
                if not got:
                    self.lost += 1
                    self.poll.unregister(key.fileobj)

    def end(self):
        self.over = True
        self.thread.join()
        for one in self.sockets:
            one.close()


def memory_of(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1])


def other_threads(pid):
    """Seconds of processor time of all threads but the one that trains: the node, the page."""
    spent = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        if task.name != str(pid):
            fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
            spent += int(fields[11]) + int(fields[12])
    return spent / os.sysconf("SC_CLK_TCK")


def viewers(options, folder):
    (folder / "text").write_bytes(os.urandom(300000))
    (folder / "run.toml").write_text(f'[data]\ntrain = "{folder}/text"\n')
    run = subprocess.Popen([options.program, "start", folder / "run.toml", "--dir", folder / "run", "--run.rounds", "100000000",
                            "--run.eval_every", "0", "--peer.threads", "1", "--peer.durable", "false", "--model.hidden_size", "64",
                            "--model.intermediate_size", "128", "--model.num_hidden_layers", "2", "--data.sequence_length", "64",
                            "--dashboard", "127.0.0.1:0"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not (folder / "run/dashboard.address").exists():
            time.sleep(0.05)
        host, port = (folder / "run/dashboard.address").read_text().strip().rsplit(":", 1)

        def pace():
            """Rounds a second, by the peer's own count; processor time a second of its other threads."""
            count = lambda: json.load(urllib.request.urlopen(f"http://{host}:{port}/status"))["round"]
            first, began, spent = count(), time.monotonic(), other_threads(run.pid)
            time.sleep(options.seconds)
            passed = time.monotonic() - began
            return (count() - first) / passed, (other_threads(run.pid) - spent) / passed

        time.sleep(3)
        ratios, before = [], memory_of(run.pid)
        for _ in range(options.turns):
            alone, quiet = pace()
            crowd = Viewers((host, int(port)), options.viewers)
            time.sleep(2)
            watched, busy = pace()
            most = memory_of(run.pid)
            crowd.end()
            time.sleep(1)
            ratios.append(watched / alone)
            print(f"{alone:.1f} rounds/s alone, {watched:.1f} with {options.viewers} viewers, {watched / alone:.3f} times; "
                  f"{1000 * quiet:.0f} and {1000 * busy:.0f} ms of processor time a second beside the training; "
                  f"{crowd.bytes / 1e6:.1f} MB, {crowd.lost} dropped; memory {before / 1024:.0f} MB at first, {most / 1024:.0f} MB with them, "
                  f"{memory_of(run.pid) / 1024:.0f} MB after", flush=True)
        print(f"median ratio {statistics.median(ratios):.3f}")
    finally:
        run.send_signal(signal.SIGINT)
        run.wait()


def long_run(options, folder):
    sys.argv[1:] = [options.program]
    from dashboard import write_run
    began = time.monotonic()
    write_run(folder / "big", options.rounds, 64)
    size = (folder / "big/metrics.jsonl").stat().st_size
    print(f"{options.rounds} rounds, 64 peers: {size / 1e6:.0f} MB written in {time.monotonic() - began:.1f} s")
    began = time.monotonic()
    page = subprocess.Popen([options.program, "dashboard", folder / "big"], stdout=subprocess.PIPE, text=True)
    where = page.stdout.readline().strip()
    try:
        while json.load(urllib.request.urlopen(where + "snapshot"))["loading"]:
            time.sleep(0.1)
        print(f"read in {time.monotonic() - began:.1f} s; {memory_of(page.pid) / 1024:.0f} MB of memory")
        for _ in range(3):
            began = time.monotonic()
            text = urllib.request.urlopen(where + "snapshot").read()
            print(f"snapshot of {len(text)} bytes in {1000 * (time.monotonic() - began):.1f} ms")
        if options.hold:
            input(f"{where} until a line comes: ")
    finally:
        page.send_signal(signal.SIGINT)
        page.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--viewers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--hold", action="store_true", help="with --rounds: serve on until a line comes")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, options.viewers + 200) if hard > 0 else options.viewers + 200, hard))
    with tempfile.TemporaryDirectory() as folder:
        (long_run if options.rounds else viewers)(options, pathlib.Path(folder))


if __name__ == "__main__":
    main()
