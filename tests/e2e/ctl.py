"""The run changed while it goes on: by any peer's operator, for all peers in the same round."""

import json

import common
from common import FAILED, MISMATCH, NETWORK, OK, USAGE

LONG = ["--run.rounds", "1000000", "--run.snapshot_every", "50"]


class Control(common.Case):
    def ctl(self, directory, *arguments, code=OK):
        found, output, stderr = self.run_program("ctl", directory, *arguments)
        self.assertEqual(found, code, stderr)
        return output

    def status(self, directory):
        return json.loads(self.ctl(directory, "status", "--json"))

    def contributes(self, name, directory="run"):
        number = self.status(name)["self"]
        seen = self.status(directory)["round"]
        self.wait_for(lambda: any(p["id"] == number and p["member"] and p["last_round"] >= seen
                                  for p in self.status(directory)["peers"]), f"{name} contributes")

    def test_a_run_is_paused_resumed_and_stopped_and_peers_are_shown_out_and_in(self):
        founder, address = self.found("run", *LONG, "--run.min_peers", "3", "--peer.name", "first", "--log-file",
                                      "events.jsonl")
        others = {"second": self.join(address, "second", "--name", "second"),
                  "third": self.join(address, "third", "--name", "third", "--peer.payload_bytes", "1000")}
        for name in others:
            self.wait_for(lambda: (self.folder / name / "control").exists(), f"{name} is in the run")
            self.contributes(name)

        sent = {d: self.events(d, "round")[-1]["payload_bytes"] for d in ("run", "second", "third")}
        self.assertTrue(800 < sent["third"] <= 1000 < min(sent["run"], sent["second"]), sent)

        self.ctl("second", "pause")
        for directory in ("run", "second", "third"):
            self.wait_for(lambda: self.status(directory)["paused"], f"{directory} is paused")
        # The round that was under way may still reach one or the other; then nothing moves.
        rounds = lambda: [self.status(directory)["round"] for directory in ("run", "second", "third")]
        self.wait_for(lambda: len(set(rounds())) == 1, "all stand in one round")
        before = rounds()
        for _ in range(10):
            self.assertEqual(rounds(), before)
        self.ctl("third", "resume")
        self.wait_for(lambda: min(rounds()) > before[0] + 3, "all go on")
        for directory in ("run", "second", "third"):
            newest = self.events(directory, "round")[-1]
            self.assertGreater(newest["paused_seconds"], 0, newest)

        self.ctl("run", "remove", "second")
        code, stderr = self.finish(others["second"])
        self.refusal(MISMATCH, code, stderr, naming=("removed",))
        others["second"] = self.join(address, "second", "--name", "second")
        self.wait_for(lambda: (self.folder / "second/control").exists(), "it is back")
        self.contributes("second")

        number = self.status("second")["self"]
        self.ctl("third", "ban", number)
        code, stderr = self.finish(others["second"])
        self.refusal(MISMATCH, code, stderr, naming=("banned",))
        again = self.join(address, "second", "--name", "second", "--peer.connect_timeout_ms", "1000")
        code, stderr = self.finish(again)
        self.refusal(MISMATCH, code, stderr, naming=("banned",))
        self.wait_for(lambda: self.status("run")["banned"] == [number], "the ban is in its log")
        self.assertRegex(self.ctl("run", "status"), rf"banned +{number} +second\n")
        self.ctl("run", "pardon", number)
        self.assertEqual(self.status("run")["banned"], [])
        others["second"] = self.join(address, "second", "--name", "second")
        self.wait_for(lambda: (self.folder / "second/control").exists(), "it is back")
        self.contributes("second")

        self.ctl("second", "set", "optimizer.learning_rate", "0.001")
        self.ctl("third", "set", "run.batch_size", "2")
        set_at = self.status("run")["round"]
        self.assertIn("optimizer.learning_rate = 0.001", self.ctl("run", "status"))
        self.wait_for(lambda: min(rounds()) > set_at + 5, "rounds with other settings")
        for directory in ("run", "second", "third"):
            newest = self.events(directory, "round")[-1]
            self.assertLess(newest["learning_rate"], 0.0010001)
            self.assertEqual(newest["tokens"], 2 * 32)
        before = self.events("second", "round")[-1]["payload_bytes"]
        self.ctl("third", "set", "optimizer.k", "2")
        self.wait_for(lambda: max(self.events(d, "round")[-1]["payload_bytes"] for d in ("run", "second", "third")) < 0.9 * before,
                      "smaller payloads of all")
        self.ctl("run", "set", "run.batch_size")
        self.wait_for(lambda: "run.batch_size" not in self.status("third")["settings"], "the run's own batch again")

        banned = number
        number = self.status("third")["self"]
        self.ctl("second", "promote", "third")
        for directory in ("run", "second", "third"):
            self.wait_for(lambda: self.status(directory)["sequencer"] == number, f"{directory} follows third")
        others["second"].kill()
        others["second"].communicate()
        (self.folder / "second/control").unlink()  # which a kill leaves
        self.wait_for(lambda: any(p["name"] == "second" and not p["present"] for p in self.status("run")["peers"]),
                      "second is away")
        self.refuses(USAGE, "ctl", "run", "promote", "second", naming=("promote", "away"))
        seen = self.status("run")["round"]
        self.wait_for(lambda: self.status("run")["round"] > seen + 3, "the run goes on")
        others["second"] = self.join(address, "second", "--name", "second")
        self.wait_for(lambda: (self.folder / "second/control").exists(), "it is back")
        self.contributes("second")

        told = self.ctl("run", "status")
        self.assertRegex(told, r"present +this peer, first\n")
        self.assertRegex(told, r"present +sequencer, third\n")
        self.assertEqual((self.folder / "run/control").stat().st_mode & 0o777, 0o600)
        self.ctl("second", "stop")
        for process in (founder, *others.values()):
            code, stderr = self.finish(process)
            self.assertEqual(code, OK, stderr)
            self.assertIn("stopped", stderr)
        self.assertEqual(len({self.digest(directory) for directory in ("run", "second", "third")}), 1)
        for directory in ("run", "second", "third"):
            self.assertFalse((self.folder / directory / "control").exists())
        self.check_what_was_told("run", banned)

    def check_what_was_told(self, directory, banned):
        """Each change of the run in the peer's events, and in the log."""
        events = [json.loads(line) for line in (self.folder / directory / "events.jsonl").read_text().splitlines()]
        told = [(event["event"], event.get("name")) for event in events]
        for expected in (("member_added", "second"), ("paused", None), ("resumed", None), ("member_removed", "second"),
                         ("banned", "second"), ("pardoned", "second"), ("set", None)):
            self.assertIn(expected, told)
        self.assertEqual({event["peer_id"] for event in events if event["event"] in ("banned", "pardoned")}, {banned})

        code, output, stderr = self.run_program("log", "show", directory, "--json")
        self.assertEqual(code, OK, stderr)
        records = [json.loads(line) for line in output.splitlines()]
        self.assertFalse(any(record["whole"] for record in records))
        logged = [change for record in records for change in record["changes"]]
        for what in ("banned", "pardoned"):
            self.assertEqual([change["peer_id"] for change in logged if change["what"] == what], [banned])
        self.assertEqual([change["what"] for change in logged if change["what"] in ("paused", "resumed", "stopped")],
                         ["paused", "resumed", "stopped"])
        self.assertIn({"what": "set", "key": "run.batch_size", "value": "2"}, logged)
        self.assertIn({"what": "set", "key": "run.batch_size", "value": None}, logged)
        at = next(record["round"] for record in records if "banned" in (c["what"] for c in record["changes"]))
        line = self.run_program("log", "show", directory, "--from", at, "--to", at + 1)[1].splitlines()[1]
        self.assertRegex(line, rf"; now in all: .*banned {banned}")

    def test_who_returns_to_a_paused_run_is_told(self):
        log = ("--log-file", "events.jsonl")
        founder, _ = self.found("run", *LONG, *log)
        self.wait_for(lambda: self.events("run", "round"), "a round")
        self.ctl("run", "pause")
        founder.kill()
        founder.communicate()
        told = self.folder / "run/events.jsonl"
        told.unlink()
        founder, _ = self.found("run", *LONG, *log)
        self.wait_for(lambda: told.exists() and '"event":"paused"' in told.read_text(), "it is told")
        self.ctl("run", "resume")
        common.interrupt(founder)
        self.assertEqual(self.finish(founder)[0], OK)

    def test_a_peer_that_is_asked_to_show_itself_out(self):
        mirror = "\u202e"  # turns the direction of what follows
        founder, address = self.found("run", *LONG, "--run.min_peers", "3", "--peer.name", "first" + mirror)
        peers = {name: self.join(address, name, "--name", name + mirror) for name in ("second", "third")}
        for name in peers:
            self.wait_for(lambda: (self.folder / name / "control").exists(), f"{name} is in the run")
            self.contributes(name)
        for name, how in (("second", "remove"), ("third", "ban")):
            code, _, stderr = self.run_program("ctl", name, how, name + mirror)
            self.assertEqual(code, OK, stderr)
            self.assertIn("has ended", stderr)
            self.refusal(MISMATCH, *self.finish(peers[name]))
        self.assertIn("this peer, sequencer, first?\n", self.ctl("run", "status"))
        self.wait_for(lambda: self.status("run")["banned"], "the ban is in its log")
        seen = self.status("run")["round"]
        self.wait_for(lambda: self.status("run")["round"] > seen + 1, "it has told of it")
        common.interrupt(founder)
        code, stderr = self.finish(founder)
        self.assertEqual(code, OK, stderr)
        self.assertRegex(stderr, r"second\? \(\d+\) is no member of the run any more\n")
        self.assertRegex(stderr, r"warning: third\? \(\d+\) is banned from the run\n")

    def test_a_setting_that_makes_a_round_endless_is_no_trap(self):
        for setting in (("run.micro_batches", "65536"), ("run.round_ms", "600000")):
            for end in ("stop", "Ctrl-C"):
                with self.subTest(setting=setting, end=end):
                    run = setting[0] + end
                    founder, _ = self.found(run, *LONG, "--run.batch_size", "256")
                    self.wait_for(lambda: self.events(run, "round"), "it trains")
                    self.ctl(run, "set", *setting)
                    if end == "stop":
                        self.ctl(run, "stop")
                    else:
                        common.interrupt(founder)
                    self.assertEqual(self.finish(founder, limit=8)[0], OK)

    def test_ctrl_c_in_a_paused_run_ends_at_once(self):
        founder, _ = self.found("run", *LONG)
        self.wait_for(lambda: self.events("run", "round"), "it trains")
        self.ctl("run", "pause")
        common.interrupt(founder)
        code, stderr = self.finish(founder, limit=8)
        self.assertEqual(code, OK, stderr)
        self.assertIn("saved", stderr)

    def test_what_cannot_be_asked(self):
        self.refuses(NETWORK, "ctl", "nothing", "status", naming=("no peer runs in 'nothing'",))
        self.trained("run", 2)
        self.refuses(NETWORK, "ctl", "run", "pause", naming=("no peer runs in 'run'",))
        founder, _ = self.found("other", *LONG)
        for arguments, naming in ((("kick",), ("kick", "remove (a peer, which may come back)", "pardon")), (("ban",), ("needs a peer",)),
                                  (("pause", "3"), ("takes nothing",)), (("ban", "nobody"), ("nobody", "0 peers")),
                                  (("set",), ("needs a key", "run.batch_size")), (("ban", "3", "4"), ("no value",)),
                                  (("set", "optimizer.k", "9"), ("optimizer.k", "at most 8")),
                                  (("set", "optimizer.chunk", "8"), ("optimizer.chunk", "expected one of")),
                                  (("set", "run.batch_size", "0"), ("run.batch_size", "1..65536")),
                                  (("set", "run.batch_size", "1000"), ("at most 64",)),
                                  (("remove", "3"), ("remove 3", "expected a peer")), (("promote", "3"), ("promote 3",)),
                                  (("set", "optimizer.k", ""), ("empty",)),
                                  (("set", "optimizer.learning_rate", "0"), ("learning_rate 0", "more than 0")),
                                  (("set", "run.round_ms", "0.0" + 600 * "0"), ("run.round_ms",))):
            self.refuses(USAGE, "ctl", "other", *arguments, naming=naming)
        code, _, stderr = self.run_program("ctl", "other", "ban", "3")
        self.assertEqual(code, OK, stderr)
        self.assertIn("number 3", stderr)
        common.interrupt(founder)
        self.assertEqual(self.finish(founder)[0], OK)

    def test_a_founder_that_waits_for_others_is_stopped(self):
        founder, _ = self.found("run", *LONG, "--run.min_peers", "2")
        self.wait_for(lambda: (self.folder / "run/control").exists(), "it is in its run")
        self.ctl("run", "stop")
        code, stderr = self.finish(founder, limit=30)
        self.assertEqual(code, OK, stderr)
        self.assertIn("stopped in round 1, saved", stderr)  # behind the commit that stopped it

    def test_a_change_waits_for_a_round_that_lasts(self):
        founder, _ = self.found("run", *LONG, "--run.min_round_ms", "13000")
        self.wait_for(lambda: (self.folder / "run/control").exists(), "it is in its run")
        self.ctl("run", "set", "optimizer.k", "4")
        self.assertEqual(self.status("run")["settings"], {"optimizer.k": "4"})
        common.interrupt(founder)
        self.assertEqual(self.finish(founder)[0], OK)

    def test_without_a_majority_a_change_is_not_waited_for(self):
        pace = ["--run.min_round_ms", "20", "--peer.takeover_ms", "1000"]
        founder, address = self.found("run", *LONG, *pace, "--run.min_peers", "2")
        second = self.join(address, "second")
        self.wait_for(lambda: (self.folder / "second/control").exists(), "it is in the run")
        self.contributes("second")
        founder.kill()
        founder.communicate()
        self.refuses(FAILED, "ctl", "second", "pause", naming=("pause", "nobody has ordered the rounds for 10 s"), limit=60)
        common.interrupt(second)
        self.assertEqual(self.finish(second)[0], OK)

    def test_words_too_many_and_numbers_with_zeros(self):
        founder, _ = self.found("run", *LONG)
        self.wait_for(lambda: (self.folder / "run/control").exists(), "it is in its run")
        self.refuses(USAGE, "ctl", "run", "status", "lab2", naming=("status", "takes nothing more"))
        self.refuses(USAGE, "ctl", "run", "pause", "--json", naming=("pause", "--json"))
        self.assertFalse(self.status("run")["paused"])
        self.ctl("run", "ban", "007")
        self.assertEqual(self.status("run")["banned"], ["7"])
        self.ctl("run", "pardon", "07")
        self.assertEqual(self.status("run")["banned"], [])
        common.interrupt(founder)
        self.assertEqual(self.finish(founder)[0], OK)


if __name__ == "__main__":
    common.main()
