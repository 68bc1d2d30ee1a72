"""Peers of unequal speed, a witness, and rounds that overlap."""

import contextlib
import signal
import threading

import common
from common import OK

LONG = ["--run.rounds", "1000000", "--run.snapshot_every", "50", "--schedule.kind", "constant"]


@contextlib.contextmanager
def slowed(process):
    """As on a slow computer: the process runs for a twentieth of each second."""
    ended = threading.Event()

    def hold_back():
        while not ended.is_set():
            process.send_signal(signal.SIGSTOP)
            ended.wait(0.95)
            process.send_signal(signal.SIGCONT)
            ended.wait(0.05)

    thread = threading.Thread(target=hold_back)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class Unequal(common.Case):
    def ended(self, *processes):
        for process in processes:
            common.interrupt(process)
        for process in processes:
            code, stderr = self.finish(process)
            self.assertEqual(code, OK, stderr)

    def rounds(self, directory):
        return self.events(directory, "round")

    def test_rounds_that_close_by_time(self):
        """A peer whose every micro-batch takes longer than a round costs the others nothing, and what it finishes counts."""
        founder, address = self.found("run", *LONG, "--run.min_peers", "2", "--run.round_ms", "100",
                                      "--run.micro_batches", "64", "--peer.min_deadline_ms", "100")
        quick = self.join(address, "quick")
        self.wait_for(lambda: len(self.rounds("quick")) > 5, "the quick ones train")
        slow = self.join(address, "slow")
        self.wait_for(lambda: len(self.rounds("slow")) > 0, "the slow one trains")
        with slowed(slow):
            held_from = len(self.rounds("slow"))
            in_it = lambda: [e for e in self.rounds("slow")[held_from:] if e["own_included"]]
            self.wait_for(lambda: len(in_it()) >= 5, "the slow one contributes")
        self.ended(founder, quick, slow)
        self.assertGreater(max(e["tokens"] for e in self.rounds("run")), 4 * 32, "more than one micro-batch a round")
        together = [e for e in self.rounds("run") if e["round"] >= in_it()[0]["round"]]
        own = [e for e in together if e["own_included"]]
        self.assertGreater(len(own), 0.8 * len(together), "the quick one hardly misses a round")
        self.assertGreater(len(together), 4 * len(in_it()), "nobody waits for the slow one")
        seconds = sorted(e["seconds"] for e in together)
        self.assertLess(seconds[len(seconds) // 2], 0.6, "a round that waits for the slow one takes a second")

    def test_rounds_that_close_by_tokens(self):
        aim = 32 * 4 * 32  # 32 micro-batches of 4 rows
        founder, address = self.found("run", *LONG, "--run.min_peers", "2", "--run.round_tokens", aim,
                                      "--run.micro_batches", "1000")
        other = self.join(address, "other")
        self.wait_for(lambda: len(self.rounds("other")) >= 30, "rounds")
        self.ended(founder, other)
        tokens = sorted(e["round_tokens"] for e in self.rounds("run")[15:])
        self.assertLess(abs(tokens[len(tokens) // 2] - aim), aim / 2)

    def test_a_witness_keeps_a_run_of_two_alive_and_its_weights(self):
        founder, address = self.found("run", *LONG, "--run.min_peers", "2", "--run.eval_every", "10")
        other = self.join(address, "other")
        self.wait_for(lambda: len(self.rounds("other")) > 3, "both train")
        witness = self.spawn("witness", self.line("run"), "--dir", "witness", "--peer.threads", "1")
        self.wait_for(lambda: len(self.rounds("witness")) > 3, "the witness follows")
        self.assertEqual({e["tokens"] for e in self.rounds("witness")}, {0})
        # Rounds that it caught up with are no sign that it has a say: without that, two are lost with their founder.
        self.wait_for(lambda: self.rounds("other")[-1]["members"] == 3, "the witness votes")
        founder.kill()
        founder.communicate()
        before = len(self.rounds("other"))
        self.wait_for(lambda: len(self.rounds("other")) > before + 20, "the run goes on without its founder")
        self.ended(other, witness)
        # The same round in both logs has the same weights: a proof over every payload's digest.
        for directory in ("other", "witness"):
            code, output, stderr = self.run_program("log", "verify", directory)
            self.assertEqual(code, OK, stderr)

    def test_a_peer_that_is_late_when_the_run_ends(self):
        founder, address = self.found("run", "--run.rounds", "40", "--run.min_peers", "2", "--run.round_ms", "100",
                                      "--run.micro_batches", "64")
        quick = self.join(address, "quick")
        slow = self.join(address, "slow")
        self.wait_for(lambda: len(self.rounds("slow")) > 0, "the slow one trains")
        with slowed(slow):
            for process in (founder, quick, slow):
                code, stderr = self.finish(process)
                self.assertEqual(code, OK, stderr)
        self.assertEqual(len({self.digest(directory) for directory in ("run", "quick", "slow")}), 1)
        again, _ = self.found("run", "--run.rounds", "40", "--run.round_ms", "100", "--run.micro_batches", "64")
        code, stderr = self.finish(again)
        self.assertEqual(code, OK, stderr)

    def test_overlapped_rounds_agree(self):
        founder, address = self.found("run", "--run.rounds", "80", "--run.min_peers", "2", "--run.overlap", "true",
                                      "--run.snapshot_every", "30")
        other = self.join(address, "other")
        for process in (founder, other):
            code, stderr = self.finish(process)
            self.assertEqual(code, OK, stderr)
        self.assertEqual(self.digest("run"), self.digest("other"))
        losses = [e["loss"] for e in self.rounds("run") if e["loss"] is not None]
        self.assertLess(sum(losses[-5:]), 0.8 * sum(losses[:5]))
        self.assertEqual(self.events("run", "end")[-1]["round"], 80)


if __name__ == "__main__":
    common.main()
