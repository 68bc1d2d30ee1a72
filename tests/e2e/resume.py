"""A run that stops and goes on ends in the same bits as one that never stopped."""

import common
from common import OK, TINY


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
        joiners = [self.join(address, f"{name}/{i}", "--peer.index", i, *arguments) for i in range(1, count)]
        for process in (founder, *joiners):
            code, stderr = self.finish(process)
            self.assertEqual(code, OK, stderr)
        digests = {self.digest(f"{name}/{i}") for i in range(count)}
        self.assertEqual(len(digests), 1)
        return digests.pop()

    def test_three_peers_in_two_parts(self):
        straight = self.peers("straight", 3)
        self.peers("parts", 3, "--peer.stop_at", "10")
        self.assertEqual(self.events("parts/2", "end")[-1]["round"], 10)
        self.assertEqual(self.peers("parts", 3), straight)

    def test_a_founder_killed_under_its_joiners_comes_back_to_them(self):
        straight = self.peers("straight", 3)
        address = ["--peer.address", f"127.0.0.1:{common.free_port()}"]
        slow = ["--run.rounds", self.ROUNDS, "--run.min_peers", "3", "--run.max_peers", "3", "--run.min_round_ms",
                "100", *address]
        founder, where = self.found("killed/0", *slow)
        joiners = [self.join(where, f"killed/{i}", "--peer.index", i, "--peer.reconnect_timeout_ms", "120000")
                   for i in (1, 2)]
        for rounds in (4, 11):
            self.wait_for(lambda: len(self.events("killed/0", "round")) >= rounds, f"{rounds} rounds")
            founder.kill()
            self.finish(founder)
            founder, _ = self.found("killed/0", *slow)
        for process in (founder, *joiners):
            code, stderr = self.finish(process)
            self.assertEqual(code, OK, stderr)
        for i in (1, 2):
            self.assertEqual(len(self.events(f"killed/{i}", "start")), 1, "the joiners were never started again")
        self.assertEqual({self.digest(f"killed/{i}") for i in range(3)}, {straight})

    def test_private_state_of_another_run_is_refused(self):
        self.one_peer("one", "--peer.stop_at", "2")
        self.one_peer("two", "--peer.stop_at", "2", "--run.seed", "2")
        (self.folder / "one/private.state").write_bytes((self.folder / "two/private.state").read_bytes())
        self.refuses(common.STORAGE, "start", self.write_config(), "--dir", "one", "--run.rounds", self.ROUNDS, *TINY,
                     naming=("private.state", "of run"))


if __name__ == "__main__":
    common.main()
