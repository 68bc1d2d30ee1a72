"""A run that stops and goes on ends in the same bits as one that never stopped."""

import signal
import socket
import time

import common
from common import OK, STORAGE, TINY


class Resume(common.Case):
    ROUNDS = 20

    def one_peer(self, directory, *arguments):
        return self.run_program("start", self.write_config(), "--dir", directory, "--run.rounds", self.ROUNDS, *TINY,
                                *arguments)

    def test_one_peer_in_two_parts(self):
        for kind in ("demo", "adamw"):
            with self.subTest(kind):
                options = ["--optimizer.kind", kind]
                self.assertEqual(self.one_peer(f"{kind}-straight", *options)[0], OK)
                self.assertEqual(self.one_peer(f"{kind}-parts", "--peer.stop_at", "10", *options)[0], OK)
                self.assertEqual(self.events(f"{kind}-parts", "end")[-1]["round"], 10)
                self.assertEqual(self.one_peer(f"{kind}-parts", *options)[0], OK)
                self.assertEqual(self.digest(f"{kind}-straight"), self.digest(f"{kind}-parts"))

    def test_a_founder_killed_loses_nothing(self):
        self.assertEqual(self.one_peer("straight")[0], OK)
        slow = ["--run.min_round_ms", "100", "--run.rounds", self.ROUNDS]
        process, _ = self.found("killed", *slow)
        self.wait_for(lambda: len(self.events("killed", "round")) >= 7, "seven rounds")
        process.kill()
        self.finish(process)
        self.assertEqual(self.one_peer("killed")[0], OK)
        self.assertEqual(self.digest("straight"), self.digest("killed"))
        rounds = [line["round"] for line in self.events("killed", "round")]
        self.assertEqual(sorted(set(rounds)), sorted(rounds), "no round is trained twice")

    def peers(self, name, count, *arguments):
        """Runs founder and joiners to their end; the founder's digest after checking that all are equal."""
        founder, address = self.found(f"{name}/0", "--run.rounds", self.ROUNDS, "--run.min_peers", count,
                                      "--run.max_peers", count, *arguments)
        joiners = [self.join(address, f"{name}/{i}", *arguments) for i in range(1, count)]
        for process in (founder, *joiners):
            code, stderr = self.finish(process)
            self.assertEqual(code, OK, stderr)
        digests = {self.digest(f"{name}/{i}") for i in range(count)}
        self.assertEqual(len(digests), 1)
        return digests.pop()

    def test_three_peers_in_two_parts(self):
        """All leave in the same round and come back; that they left and came takes commits without payloads."""
        self.peers("parts", 3, "--peer.stop_at", "10")
        self.assertGreaterEqual(self.events("parts/2", "end")[-1]["round"], 10)
        self.peers("parts", 3)
        for i in range(3):
            self.assertEqual(sum(line["disagreeing"] for line in self.events(f"parts/{i}", "round")), 0)

    def test_a_founder_killed_under_its_joiners_is_not_waited_for_and_comes_back(self):
        """kill -9 for whoever orders the rounds: the others elect another and go on; it returns and catches up."""
        address = ["--peer.address", f"127.0.0.1:{common.free_port()}"]
        pace = ["--run.min_round_ms", "50", "--peer.takeover_ms", "1000", "--peer.min_deadline_ms", "1000"]
        run = ["--run.rounds", "10000", "--run.min_peers", "3", "--run.max_peers", "3", *pace, *address]
        founder, where = self.found("killed/0", *run)
        joiners = [self.join(where, f"killed/{i}", *pace) for i in (1, 2)]
        for _ in range(2):
            # As each of them knows: until then the joiners are in a view that the founder alone decides.
            self.wait_for(lambda: all(any(line["contributors"] == 3 for line in self.events(f"killed/{i}", "round")[-3:])
                                      for i in range(3)), "all three take part")
            founder.kill()
            self.finish(founder)
            seen = [len(self.events(f"killed/{i}", "round")) for i in (1, 2)]
            for i in (1, 2):
                self.wait_for(lambda: len(self.events(f"killed/{i}", "round")) > seen[i - 1] + 8, "the others go on")
            founder, _ = self.found("killed/0", *run)
            began = len(self.events("killed/0", "round"))
            self.wait_for(lambda: any(line["own_included"] for line in self.events("killed/0", "round")[began:]),
                          "it takes part again")
        last = max(line["round"] for i in range(3) for line in self.events(f"killed/{i}", "round")) + 1
        for process in (joiners[0], founder, joiners[1]):
            common.interrupt(process)
        for process in (founder, *joiners):
            code, stderr = self.finish(process)
            self.assertEqual(code, OK, stderr)
        for i in (1, 2):
            self.assertEqual(len(self.events(f"killed/{i}", "start")), 1, "the joiners were never started again")
        for i in range(3):
            self.assertEqual(sum(line["disagreeing"] for line in self.events(f"killed/{i}", "round")), 0)
            rounds = [line["round"] for line in self.events(f"killed/{i}", "round")]
            self.assertEqual(sorted(set(rounds)), rounds, "in order, none twice")
            proof = self.run_program("log", "verify", f"killed/{i}")
            self.assertEqual(proof[0], OK, proof[2])
        self.assertGreater(last, 20)

    def test_who_is_left_without_a_majority_says_so_and_ends(self):
        pace = ["--run.min_round_ms", "20", "--peer.takeover_ms", "1000"]
        port = common.free_port()
        founder, where = self.found("few/0", "--run.rounds", "100000", "--run.min_peers", "3", *pace,
                                    "--peer.address", f"127.0.0.1:{port}")
        joiners = [self.join(where, f"few/{i}", *pace, "--peer.reconnect_timeout_ms", "3000") for i in (1, 2)]
        for i in (1, 2):
            self.wait_for(lambda: any(line["contributors"] == 3 for line in self.events(f"few/{i}", "round")),
                          "all three take part")
        for process in (founder, joiners[0]):
            process.kill()
            self.finish(process)
        code, stderr = self.finish(joiners[1])
        self.assertEqual(code, common.RUN_LOST, stderr)
        self.assertIn("nobody orders the rounds: 1 of the 3 members are here, away: ", stderr)
        with socket.create_server(("127.0.0.1", port)) as there:
            there.settimeout(common.LIMIT)
            one = self.join(where, "few/1", *pace)  # a member without the others
            with there.accept()[0]:  # it looks for the founder
                began = time.monotonic()
                common.interrupt(one)
                code, stderr = self.finish(one)
        self.assertEqual(code, OK, stderr)
        self.assertIn("before it entered", stderr)
        self.assertLess(time.monotonic() - began, 8, "Ctrl-C waits for no majority")

    def test_each_stop_signal_saves_and_the_folder_goes_on(self):
        saved = 0
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(number.name):
                # Under nohup, as these tests may be, a hang-up is ignored.
                process, _ = self.found("stopped", "--run.rounds", "1000000", "--run.min_round_ms", "20",
                                        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))
                self.wait_for(lambda: any(line["round"] >= saved + 3 for line in self.events("stopped", "round")),
                              "it trains")
                process.send_signal(number)
                code, stderr = self.finish(process)
                self.assertEqual(code, OK, stderr)
                self.assertEqual(self.events("stopped", "start")[-1]["round"], saved)
                saved = self.events("stopped", "end")[-1]["round"]
        self.assertEqual([line["round"] for line in self.events("stopped", "round")], list(range(saved)))

    def test_each_founding_is_a_run_of_its_own(self):
        """From one configuration: no peer takes part in the other, whoever is further."""
        self.peers("first", 2, "--peer.stop_at", "4")
        founder, address = self.found("third", "--run.rounds", "1000", "--run.min_round_ms", "20")
        for here, there in (("third", "first/1"), ("first/1", "third")):
            self.run_program("allow", here, self.run_program("key", there)[1].split()[1])
        self.refuses(common.MISMATCH, "join", address, "--dir", "first/1", "--data", self.text, naming=("run",))
        common.interrupt(founder)
        self.assertEqual(self.finish(founder)[0], OK)

    def test_a_peer_without_its_key_is_no_other_peer(self):
        run = self.trained("run", 4, "--peer.stop_at", "2")
        key = run / "identity.key"
        kept = key.read_bytes()
        key.unlink()
        for command in (("start", self.write_config()), ("join", "127.0.0.1:1", "--data", self.text)):
            self.refuses(STORAGE, *command, "--dir", "run", naming=("identity.key", "log/owner"))
            self.assertFalse(key.exists())
        self.refuses(STORAGE, "key", "run", naming=("identity.key", "log/owner"))
        self.assertFalse(key.exists())
        key.touch(0o600)
        key.write_bytes(kept)
        self.trained("run", 4)

    def test_private_state_of_another_run_is_refused(self):
        self.one_peer("one", "--peer.stop_at", "2")
        self.one_peer("two", "--peer.stop_at", "2", "--run.seed", "2")
        (self.folder / "one/private.state").write_bytes((self.folder / "two/private.state").read_bytes())
        self.refuses(common.STORAGE, "start", self.write_config(), "--dir", "one", "--run.rounds", self.ROUNDS, *TINY,
                     naming=("private.state", "of run"))

    def test_a_founder_whom_nobody_comes_back_to_says_so_and_ends(self):
        run = ["--run.rounds", "100000", "--run.min_round_ms", "20", "--peer.takeover_ms", "1000"]
        founder, where = self.found("gone/0", *run, "--run.min_peers", "3")
        joiners = [self.join(where, f"gone/{i}") for i in (1, 2)]
        for i in range(3):
            self.wait_for(lambda: any(line["contributors"] == 3 for line in self.events(f"gone/{i}", "round")),
                          "all three take part")
        for process in (*joiners, founder):
            process.kill()
            self.finish(process)
        for least in ("3", "1"):  # it gathers, or waits for what its log says is under way, or for a round
            with self.subTest(min_peers=least):
                self.refuses(common.RUN_LOST, "start", self.write_config(), "--dir", "gone/0", *TINY, *run, "--run.min_peers",
                             least, "--peer.reconnect_timeout_ms", "1000", limit=30)

    def test_who_only_dials_has_no_address_of_an_earlier_start(self):
        _, where = self.found("run", "--run.rounds", "100000", "--run.min_round_ms", "20")
        for listens, options in ((True, []), (False, ["--peer.listen", "none"])):
            peer = self.join(where, "peer", *options)
            seen = len(self.events("peer", "round"))
            self.wait_for(lambda: len(self.events("peer", "round")) > seen, "it takes part")
            self.assertEqual((self.folder / "peer/address").exists(), listens)
            common.interrupt(peer)
            code, stderr = self.finish(peer)
            self.assertEqual(code, OK, stderr)

    def test_a_stop_signal_waits_for_no_evaluation(self):
        founder, _ = self.found("run", "--run.rounds", "100000", "--run.min_round_ms", "20", "--run.eval_every", "0")
        self.wait_for(lambda: len(self.events("run", "round")) >= 2, "two rounds")
        common.interrupt(founder)
        self.assertEqual(self.finish(founder)[0], OK)
        self.assertEqual([line["round"] for line in self.events("run", "evaluation")], [0])


if __name__ == "__main__":
    common.main()
