"""`thinwire log`: what a run did can be shown, proved and rebuilt; what does not fit is named."""

import hashlib
import json
import re
import shutil
import struct

import common
from common import DIVERGED, MISMATCH, OK, STORAGE, TINY, USAGE

SEGMENT = "log/00000000000000000000.log"
FIRST = "log/00000000000000000000.snapshot"


def flip_last_weight(snapshot):
    """Changes one bit of a snapshot's last weight, high enough that no update rounds it away, and the digest with it."""
    data = bytearray(snapshot.read_bytes()[:-32])
    at = 16
    for section in (1, 2, 3):
        tag, length = struct.unpack_from("<IQ", data, at)
        assert tag == section
        at += 12 + length
    data[at - 2] ^= 0x40
    snapshot.write_bytes(bytes(data) + hashlib.sha256(data).digest())


class Log(common.Case):
    def log(self, command, *arguments, code=OK):
        found, stdout, stderr = self.run_program("log", command, *arguments)
        self.assertEqual(found, code, stderr)
        return stdout

    def four_peers(self, rounds):
        options = ["--run.rounds", rounds, "--run.min_peers", "4"]
        founder, address = self.found("run", *options)
        for process in (founder, *[self.join(address, f"peers/{i}") for i in (1, 2, 3)]):
            code, stderr = self.finish(process)
            self.assertEqual(code, OK, stderr)
        return self.folder / "run"

    def test_four_peers_can_be_proved(self):
        run = self.four_peers(18)
        said = self.log("verify", run)
        self.assertIn("rounds 0 to 19: 72 payloads", said)
        self.assertIn("72 contributions come from the weights that the log gives", said)
        self.assertIn("replica.snapshot' at round 18, bit for bit", said)
        self.assertIn("72 contributions", self.log("verify", run / "log"))
        lines = [json.loads(line) for line in self.log("show", run, "--json").splitlines()]
        self.assertEqual([line["round"] for line in lines], list(range(19)))
        self.assertEqual([len(line["contributions"]) for line in lines], [4] * 18 + [0], "the last one ends the run")
        self.assertEqual([line["tentative"] for line in lines], [False] * 19)
        sizes = {line["round"]: line["payload_bytes"] for line in self.events("run", "round")}
        for line in lines[:-1]:
            self.assertIn(sizes[line["round"]], [part["bytes"] for part in line["contributions"]])
            self.assertEqual(line["bytes"], sum(part["bytes"] for part in line["contributions"]))
        table = self.log("show", run, "--from", "5", "--to", "7").splitlines()
        self.assertEqual([row.split()[0] for row in table], ["round", "5", "6"])
        self.refuses(USAGE, "log", "show", run, "--from", "20", naming=("20", "0 to 19"))
        self.refuses(STORAGE, "log", "verify", "nothing", naming=("nothing",))
        self.refuses(STORAGE, "log", "verify", run / "peers", naming=("peers",))
        self.damage_is_named(run)
        self.weights_that_differ_are_named(run)

    def damage_is_named(self, run):
        segment = run / SEGMENT
        whole = segment.read_bytes()
        for at in (len(whole) // 3, len(whole) // 2, len(whole) - 1000):
            altered = bytearray(whole)
            altered[at] ^= 1
            segment.write_bytes(altered)
            code, _, stderr = self.run_program("log", "verify", run)
            self.refusal(STORAGE, code, stderr, naming=(SEGMENT,))
            place = re.search(r"damaged at byte (\d+), where round (\d+) should begin", stderr)
            self.assertIsNotNone(place, stderr)
            self.assertLessEqual(int(place[1]), at)
            self.assertLess(at - int(place[1]), len(whole) / 17, "in the round that is named")
            self.assertLessEqual(abs(int(place[2]) - at * 18 // len(whole)), 1)
            self.refuses(STORAGE, "log", "rebuild", run, "--round", "18", "--out", "none", naming=("damaged",))
            self.assertFalse((self.folder / "none").exists())
        segment.write_bytes(whole)
        self.log("verify", run)

    def weights_that_differ_are_named(self, run):
        for name, naming in (("replica.snapshot", ("replica.snapshot", "round 18", "weight")),
                             (FIRST, (FIRST, "began"))):
            before = (run / name).read_bytes()
            flip_last_weight(run / name)
            self.refuses(DIVERGED, "log", "verify", run, naming=naming)
            altered = bytearray(before)
            altered[len(before) // 2] ^= 1
            (run / name).write_bytes(altered)
            self.refuses(STORAGE, "log", "verify", run, naming=(name, "digest"))
            (run / name).write_bytes(before)
        self.log("verify", run)
        other = self.trained("other", 2, "--run.seed", "2")
        shutil.copy(other / "replica.snapshot", run / "replica.snapshot")
        self.refuses(MISMATCH, "log", "verify", run, naming=("replica.snapshot", "of run"))

    def test_any_round_is_rebuilt_bit_for_bit(self):
        for kind in ("demo", "adamw"):
            with self.subTest(kind):
                options = ["--optimizer.kind", kind]
                run = self.trained(kind, 12, *options, "--peer.stop_at", "7")
                then = {name: (run / name).read_bytes() for name in ("replica.snapshot", "model.safetensors",
                                                                      "config.json")}
                self.trained(kind, 12, *options)
                out = self.folder / f"{kind}-at-7"
                self.log("rebuild", run, "--round", "7", "--out", out)
                for name, bytes_then in then.items():
                    self.assertEqual((out / name).read_bytes(), bytes_then, name)
                self.log("rebuild", run / "log", "--round", "12", "--out", f"{kind}-at-12")
                self.assertEqual((self.folder / f"{kind}-at-12/replica.snapshot").read_bytes(),
                                 (run / "replica.snapshot").read_bytes())
                self.log("rebuild", run, "--round", "0", "--out", f"{kind}-at-0")
                self.assertEqual((self.folder / f"{kind}-at-0/replica.snapshot").read_bytes(),
                                 (run / FIRST).read_bytes())
        self.refuses(USAGE, "log", "rebuild", run, "--round", "14", "--out", "more", naming=("14", "0 to 13"))
        self.refuses(USAGE, "log", "rebuild", run, "--round", "7", "--out", run, naming=("another folder",))

    def test_a_log_is_read_while_its_founder_writes_it_and_after_it_was_killed(self):
        founder, _ = self.found("run", "--run.rounds", "10000")
        self.wait_for(lambda: len(self.events("run", "round")) >= 10, "ten rounds")
        self.log("verify", "run/log")
        self.assertIsNone(founder.poll())
        founder.kill()
        self.finish(founder)
        self.log("verify", "run")

    def test_old_rounds_go_once_a_snapshot_covers_them(self):
        options = ["--run.keep_log", "1 MB", "--run.snapshot_every", "20", "--optimizer.k", "64"]
        run = self.trained("run", 400, *options, "--peer.stop_at", "390", "--run.eval_every", "0")
        log = run / "log"
        snapshots = sorted(int(path.stem) for path in log.glob("*.snapshot"))
        segments = sorted(int(path.stem) for path in log.glob("*.log"))
        self.assertGreater(segments[0], 0)
        self.assertGreater(segments[1], snapshots[0], "as much as can go went")
        self.assertLessEqual(segments[0], snapshots[0])
        self.assertLessEqual(len(snapshots), 2)
        self.assertLess(sum(path.stat().st_size for path in log.glob("*.log")), 1300000)
        self.assertIn("equal", self.log("verify", run))
        self.log("rebuild", run, "--round", str(snapshots[0] + 3), "--out", "early")
        self.refuses(USAGE, "log", "rebuild", run, "--round", str(snapshots[0] - 1), "--out", "earlier",
                     naming=(snapshots[0], 390))
        self.trained("run", 400, *options, "--run.eval_every", "0")
        self.trained("straight", 400, *options, "--run.keep_log", "all", "--run.eval_every", "0")
        self.assertEqual(self.digest("run"), self.digest("straight"))
        base = sorted(log.glob("*.snapshot"))[0]
        flip_last_weight(base)
        code, _, stderr = self.run_program("log", "verify", run)
        self.refusal(DIVERGED, code, stderr, naming=(base.name,))
        misfit = int(re.search(r"round (\d+) does not fit: 1 of 1 contributions", stderr)[1])
        self.assertLess(misfit - int(base.stem), 16, "sixteen rounds look at every weight")

    def test_what_a_small_run_keeps_by_rounds_can_be_rebuilt_and_the_rest_is_gone(self):
        run = self.trained("run", 200, "--run.keep_log", "50 rounds", "--run.snapshot_every", "10", "--run.eval_every",
                           "0")
        log = run / "log"
        snapshots = sorted(int(path.stem) for path in log.glob("*.snapshot"))
        segments = sorted(int(path.stem) for path in log.glob("*.log"))
        self.assertLessEqual(segments[0], snapshots[0])
        self.assertGreater(segments[0], snapshots[0] - 16, "what cannot be rebuilt is gone")
        self.assertGreaterEqual(segments[0], 200 - 2 * (50 + 10) - 16)
        self.assertLessEqual(segments[0], 200 - 50)
        self.assertIn("equal", self.log("verify", run))
        self.log("rebuild", run, "--round", str(snapshots[0] + 1), "--out", "early")

    def test_a_peer_is_a_number_in_text_as_everywhere(self):
        run = self.trained("run", 2)
        number = re.search(r"^peer +(\d+)$", self.run_program("key", run)[1], re.MULTILINE)[1]
        first = json.loads(self.log("show", run, "--json").splitlines()[0])
        self.assertEqual([part["peer"] for part in first["contributions"]], [number])


if __name__ == "__main__":
    common.main()
