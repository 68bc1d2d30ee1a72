"""A run over a network that is slow, loses, falls apart and heals; peers that stop and wrong clocks.

Each peer is a process in a network namespace of its own (`_network.py`). Root, or skipped with exit code 77.
"""

import glob
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import unittest

import common
from _network import Network, Unavailable
from common import OK, PROGRAM, TINY

TAKEOVER = 2.0      # seconds
PORT = 7000
FRESH = 5.0         # seconds beyond what the protocol's own times explain, on a busy machine
RUN = ["--run.rounds", "1000000", "--run.min_round_ms", "50", "--run.snapshot_every", "1000"]
TIMES = ["--peer.takeover_ms", int(TAKEOVER * 1000), "--peer.min_deadline_ms", "1000"]
FAKETIME = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")


class Run(common.Case):
    """Peers 0 (the founder), 1, ... of one run, each in its namespace and in the folder of that name."""

    def setUp(self):
        super().setUp()
        self.processes, self.environment = {}, {}

    def network(self, peers):
        self.net = Network(peers)
        self.addCleanup(self.net.close)  # after tearDown, which ends the processes
        self.peers = range(peers)

    def spawn_in(self, peer, *arguments):
        with open(self.folder / f"{peer}.stderr", "ab") as stderr:
            process = subprocess.Popen(["ip", "netns", "exec", self.net.space(peer), PROGRAM, *map(str, arguments)],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
                                       cwd=self.folder, env={**os.environ, **self.environment.get(peer, {})})
        self.started.append(process)
        self.processes[peer] = process

    def address(self, peer):
        return f"{self.net.host(peer)}:{PORT}"

    def begin(self, *arguments):
        """All peers enter; returns when a round has a payload of each."""
        count = len(self.peers)
        self.spawn_in(0, "start", self.write_config(), "--dir", "0", "--peer.address", self.address(0), *TINY, *RUN,
                      *TIMES, "--run.min_peers", count, "--run.max_peers", count, *arguments)
        self.wait_for(lambda: (self.folder / "0/control").exists() or self.ended(0), "the founder listens")
        for peer in self.peers[1:]:
            self.spawn_in(peer, "join", self.line("0"), "--dir", peer, "--data", self.text, "--peer.threads", "1",
                          "--peer.listen", self.address(peer), *TIMES)
        for _ in range(5):  # whoever orders the rounds knows by then how long one takes
            self.all_contribute()

    def ended(self, peer):
        return self.processes[peer].poll() is not None

    def rounds(self, peer):
        return self.events(str(peer), "round")

    def newest(self, peer):
        return max((line["round"] for line in self.rounds(peer)), default=-1)

    def all_contribute(self, limit=common.LIMIT):
        """Each peer shows a further round with payloads of all."""
        seen = {peer: self.newest(peer) for peer in self.peers}
        for peer in self.peers:
            self.wait_for(lambda: any(line["contributors"] == len(self.peers) and line["round"] > seen[peer]
                                      for line in self.rounds(peer)), f"{peer} sees payloads of all", limit)

    def go_on(self, peers, further, bound):
        """Each of these applies so many further rounds within `bound` seconds; how long the slowest took."""
        began, seen = time.monotonic(), {peer: self.newest(peer) for peer in peers}
        for peer in peers:
            self.wait_for(lambda: self.newest(peer) >= seen[peer] + further, f"{peer} goes on",
                          bound - (time.monotonic() - began))
        return time.monotonic() - began

    def status(self, peer):
        code, output, stderr = self.run_program("ctl", peer, "status", "--json")
        self.assertEqual(code, OK, stderr)
        return json.loads(output)

    def sequencer(self, asked=0):
        status = {peer: self.status(peer) for peer in self.peers}
        return next(peer for peer in self.peers if status[peer]["self"] == status[asked]["sequencer"])

    def end(self):
        """All are there, the run is stopped: equal weights, no contribution from others, a loss that fell."""
        self.all_contribute()
        code, _, stderr = self.run_program("ctl", "0", "stop")
        self.assertEqual(code, OK, stderr)
        for peer in self.peers:
            code = self.processes[peer].wait(common.LIMIT)
            self.assertEqual(code, OK, (self.folder / f"{peer}.stderr").read_text())
        ends = {(line["round"], line["replica_digest"]) for peer in self.peers for line in self.events(str(peer), "end")}
        self.assertEqual(len(ends), 1, ends)
        for peer in self.peers:
            rounds = self.rounds(peer)
            self.assertEqual(len(self.events(str(peer), "start")), 1, "never started again")
            self.assertEqual(sum(line["disagreeing"] + line["rejected"] for line in rounds), 0)
            numbers = [line["round"] for line in rounds]
            self.assertEqual(sorted(set(numbers)), numbers, "in order, none twice")
            losses = [line["loss"] for line in rounds if line["loss"] is not None]
            self.assertLess(statistics.mean(losses[-5:]), statistics.mean(losses[:5]) - 0.2)

    def report(self, what, seconds):
        print(f"{what}: {seconds:.2f} s", file=sys.stderr)


class Slow(Run):
    def test_300_ms_round_trip_between_all(self):
        self.network(4)
        for cable in self.net.cables:
            cable.delay = 0.075
        self.begin()
        # To the sequencer, to all, back and to all again: four ways of 150 ms, and nobody is left out for it.
        taken = self.go_on(self.peers, 20, 20 * 1.5 + FRESH)
        self.report("300 ms: a round", taken / 20)
        self.assertGreater(taken / 20, 0.3, "the delay is real")
        for peer in self.peers:
            self.assertTrue(all(line["contributors"] == 4 for line in self.rounds(peer)[-15:]))
        self.end()

    def test_loss_and_jitter(self):
        """5 % of the frames lost and up to 80 ms of jitter between any two."""
        self.network(4)
        for cable in self.net.cables:
            cable.loss, cable.delay, cable.jitter = 0.025, 0.01, 0.04
        self.begin()
        self.report("5 % loss: a round", self.go_on(self.peers, 20, 20 * 1.5 + FRESH) / 20)
        self.assertGreater(self.net.dropped, 50)
        self.end()

    def test_one_peer_at_1_mbit(self):
        """Payloads of the size that the default model has: each round is half a second of that peer's cable."""
        self.network(4)
        self.net.cables[3].rate = 1e6 / 8
        self.begin("--model.hidden_size", "64", "--optimizer.k", "64", "--optimizer.chunk", "16")
        self.report("1 Mbit/s: a round", self.go_on(self.peers, 15, 15 * 3 + FRESH) / 15)
        self.assertTrue(all(line["own_included"] for line in self.rounds(3)[-10:]), "the slow one is waited for")
        self.end()


class Apart(Run):
    def test_a_split_heals(self):
        """Two of five are cut off without a reset: three go on, two wait and then have what the three decided."""
        self.network(5)
        self.begin()
        self.net.split((0, 1, 2), (3, 4))
        self.report("split: ten rounds of three", self.go_on((0, 1, 2), 10, TAKEOVER + FRESH))
        stood = {peer: self.newest(peer) for peer in (3, 4)}
        self.go_on((0, 1, 2), 40, 40 * 0.5 + FRESH)
        self.assertEqual(stood, {peer: self.newest(peer) for peer in (3, 4)}, "no quorum, no round")
        self.assertFalse(self.ended(3) or self.ended(4))
        self.net.split(self.peers)
        began = time.monotonic()
        self.all_contribute(limit=30 + FRESH)
        self.report("split: all contribute after it heals", time.monotonic() - began)
        self.end()

    def test_the_founder_is_cut_off_and_then_one_direction_of_another(self):
        self.network(5)
        self.begin()
        self.net.split((1, 2, 3, 4), (0,))
        self.report("founder cut off: ten rounds", self.go_on((1, 2, 3, 4), 10, 2 * TAKEOVER + FRESH))
        stood = self.newest(0)
        self.go_on((1, 2, 3, 4), 20, 20 * 0.5 + FRESH)
        self.assertEqual(self.newest(0), stood, "no quorum, no round")
        self.net.split(self.peers)
        began = time.monotonic()
        self.all_contribute(limit=30 + FRESH)
        self.report("founder cut off: contributes after it heals", time.monotonic() - began)

        sequencer = self.sequencer(1)
        others = [peer for peer in self.peers if peer != sequencer]
        self.net.cables[sequencer].mute = True  # it hears all and nobody hears it
        self.report("mute sequencer: ten rounds", self.go_on(others, 10, 2 * TAKEOVER + FRESH))
        self.net.cables[sequencer].mute = False
        self.all_contribute(limit=30 + FRESH)
        self.end()


class Stopped(Run):
    def stop_for(self, peer, seconds):
        """SIGSTOP; the others go on; SIGCONT once the stop lasted `seconds`; it contributes again."""
        others = [other for other in self.peers if other != peer]
        began = time.monotonic()
        self.processes[peer].send_signal(signal.SIGSTOP)
        taken = self.go_on(others, 10, 2 * TAKEOVER + FRESH)
        while time.monotonic() - began < seconds:
            self.go_on(others, 2, FRESH)
        self.processes[peer].send_signal(signal.SIGCONT)
        continued = time.monotonic()
        self.all_contribute(limit=15)
        return taken, time.monotonic() - continued

    def test_sigstop_of_a_member_and_of_the_sequencer(self):
        self.network(4)
        self.begin()
        for role in ("member", "sequencer"):
            sequencer = self.sequencer()
            peer = sequencer if role == "sequencer" else next(p for p in self.peers if p not in (0, sequencer))
            taken, back = self.stop_for(peer, 3 * TAKEOVER)
            self.report(f"SIGSTOP of the {role}: ten rounds of the others", taken)
            self.report(f"SIGCONT of the {role}: contributes", back)
        self.end()


class Clocks(Run):
    @unittest.skipUnless(FAKETIME, "no libfaketime (Debian: faketime)")
    def test_an_hour_ahead_and_an_hour_behind(self):
        self.network(4)
        for peer, offset in ((1, "+1h"), (2, "-1h")):
            self.environment[peer] = {"LD_PRELOAD": FAKETIME[0], "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        self.begin()
        self.go_on(self.peers, 30, 30 * 0.5 + FRESH)
        now = time.time()
        for peer, offset in ((0, 0), (1, 3600), (2, -3600), (3, 0)):
            self.assertAlmostEqual(self.rounds(peer)[-1]["time"] - now, offset, delta=60)
        self.end()


if __name__ == "__main__":
    try:
        Network(1).close()
    except Unavailable as problem:
        print(f"e2e.network: no network of its own here ({problem}), skipped")
        sys.exit(77)
    common.main()
