"""thinwire train: four peers over TCP, one of which is killed and returns."""

import errno
import json
import os
import pathlib
import signal
import socket
import time

import common
from common import FAILED, OK, USAGE, TINY, PATIENT


class Train(common.Case):
    def train(self, out, *arguments):
        return ["train", "--data", self.text, "--out", out, "--peers", "4", *TINY, *PATIENT, *arguments]

    def test_four_peers_one_killed_and_back(self):
        code, output, stderr = self.run_program(*self.train("run", "--rounds", "80", "--kill-and-return",
                                                            "--run.min_round_ms", "150"))
        self.assertEqual(code, OK, output + stderr)
        report = json.loads((self.folder / "run" / "report.json").read_text())

        loss = report["validation_loss"]
        self.assertLess(loss["final"], loss["start"] - 0.5)
        self.assertLess(loss["solo"], loss["start"] - 0.5)

        self.assertTrue(report["digests_equal"])
        self.assertEqual(len({peer["replica_digest"] for peer in report["peers"]}), 1)
        self.assertEqual([peer["round"] for peer in report["peers"]], [80] * 4)
        self.assertEqual(report["disagreeing"], 0)
        self.assertGreater(report["bytes"]["ratio"], 20)
        self.assertTrue(report["sample"]["text"])
        for name in ("parameters", "seconds", "tokens_per_second", "rounds", "rounds_done", "exit_code"):
            self.assertIn(name, report)

        event = report["kill_and_return"]
        self.assertTrue(event["returned"])
        self.assertLess(event["killed_in_round"], event["returned_in_round"])
        contributors = [line["contributors"] for line in self.events("run", "round")]
        self.assertEqual(len(contributors), 80)
        self.assertIn(3, contributors)
        back = [line for line in self.events("run/peers/3", "round") if line["round"] >= event["returned_in_round"]]
        self.assertTrue(any(line["own_included"] for line in back), "the peer that returned contributes again")

        for name in ("replica.snapshot", "log", "run.toml", "model.safetensors", "config.json"):
            self.assertTrue((self.folder / "run" / name).exists(), name)
        for word in ("validation loss", "bytes sent", "replica digest", "equal", "SIGKILL"):
            self.assertIn(word, output)

    def test_ctrl_c_saves_and_the_same_command_goes_on(self):
        arguments = self.train("run", "--rounds", "30", "--no-solo", "--run.min_round_ms", "50")
        process = self.spawn(*arguments)
        self.wait_for(lambda: len(self.events("run", "round")) >= 5, "five rounds")
        common.interrupt(process)
        code, stderr = self.finish(process)
        self.assertEqual(code, OK, stderr)
        stopped = self.events("run", "end")[-1]["round"]
        self.assertGreaterEqual(stopped, 5)
        self.assertLess(stopped, 30)

        code, output, stderr = self.run_program(*arguments)
        self.assertEqual(code, OK, output + stderr)
        report = json.loads((self.folder / "run" / "report.json").read_text())
        self.assertEqual(report["rounds_done"], 30)
        self.assertTrue(report["digests_equal"])
        # Every round at most once; one that only says who left or came back may have been replayed instead.
        rounds = [line["round"] for line in self.events("run", "round")]
        self.assertEqual(sorted(set(rounds)), rounds)
        self.assertLess(rounds[-1], 30)
        self.assertGreaterEqual(len(rounds), 24)
        # Of all parts together, and once more when there is nothing left to do.
        own = sum(line["tokens"] for line in self.events("run", "round"))
        self.assertEqual(report["peers"][0]["tokens"], own)
        code, output, stderr = self.run_program(*arguments)
        self.assertEqual(code, OK, output + stderr)
        again = json.loads((self.folder / "run" / "report.json").read_text())
        for name in ("bytes", "seconds", "tokens_per_second", "rounds_done", "validation_loss"):
            self.assertEqual(again[name], report[name], name)

    def test_a_peer_that_comes_back_when_the_others_have_ended(self):
        """What it reads first, it gets when they are gone."""
        process = self.spawn("train", "--data", self.text, "--out", "run", "--peers", "3", *TINY, "--rounds", "60",
                             "--run.min_round_ms", "100", "--no-solo", "--kill-and-return")
        folders = ("run", "run/peers/1", "run/peers/2")
        self.wait_for(lambda: all(self.events(folder, "start") for folder in folders), "all peers are there")
        # All have read their settings; the one that comes back in round 30 is to wait for them.
        settings = self.folder / "run/run.toml"
        text = settings.read_bytes()
        settings.unlink()
        os.mkfifo(settings)
        for line in process.stdout:
            if b"started again" in line:
                break
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
        self.wait_for(lambda: len(children.read_text().split()) == 1, "the others end")
        self.wait_for(lambda: hand_over(settings, text), "it reads its settings")
        output, stderr = process.communicate(timeout=common.LIMIT)
        self.refusal(FAILED, process.returncode, stderr.decode(), naming=("did not come back before",))
        self.assertIn(b"when the others had ended", output)
        report = json.loads((self.folder / "run" / "report.json").read_text())
        self.assertTrue(report["kill_and_return"]["too_late"])

    def test_second_ctrl_c_ends_at_once_and_leaves_nobody_behind(self):
        process = self.spawn(*self.train("run", "--rounds", "1000", "--no-solo", "--run.min_round_ms", "60000"))
        folders = ("run", "run/peers/1", "run/peers/2", "run/peers/3")
        self.wait_for(lambda: all(self.events(folder, "start") for folder in folders), "all peers are there")
        pids = [self.events(folder, "start")[-1]["pid"] for folder in folders]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        for line in process.stdout:
            if b"Ctrl-C again" in line:
                break
        heard = time.monotonic()
        self.wait_for(lambda: time.monotonic() > heard + 0.5, "half a second passes, in which a second signal is the same")
        process.send_signal(signal.SIGTERM)
        code, _ = self.finish(process, limit=20)
        self.assertEqual(code, 130)
        for pid in pids:
            self.wait_for(lambda: not alive(pid), f"process {pid} is gone", limit=20)

    def test_another_configuration_for_the_same_folder_is_refused(self):
        self.trained("run", 2)
        config = self.write_config()
        self.refuses(common.MISMATCH, "start", config, "--dir", "run", "--run.rounds", "2", *TINY, "--optimizer.k", "9",
                     naming=("optimizer.k", "9", "8"))
        before = {path.name: path.read_bytes() for path in (self.folder / "run").iterdir() if path.is_file()}
        self.refuses(common.MISMATCH, "train", "--data", self.text, "--out", "run", "--optimizer.k", "9",
                     naming=("optimizer.k", "9", "8"))
        self.refuses(USAGE, "train", "--data", self.text, "--out", "run", "--peers", "65", naming=("65", "64"))
        after = {path.name: path.read_bytes() for path in (self.folder / "run").iterdir() if path.is_file()}
        self.assertEqual(before, after)
        self.refuses(USAGE, "train", "--data", self.text, naming=("--out",))
        self.refuses(USAGE, "train", "--data", self.text, "--out", "one", "--peers", "1", "--kill-and-return",
                     naming=("--kill-and-return", "at least 2"))

    def test_a_failed_peer_is_one_line_on_stderr_and_spoils_no_report(self):
        code, _, stderr = self.run_program(*self.train("run", "--rounds", "2", "--no-solo"))
        self.assertEqual(code, OK, stderr)
        report = (self.folder / "run/report.json").read_bytes()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.refuses(common.NETWORK, *self.train("run", "--rounds", "2", "--no-solo", "--peer.address",
                                                     f"127.0.0.1:{taken.getsockname()[1]}"),
                         naming=("peer0", "exit code 4", "already in use"))
        self.assertEqual((self.folder / "run/report.json").read_bytes(), report)

    def test_a_folder_in_use_is_left_alone(self):
        self.found("run", "--run.rounds", "10000", "--run.min_round_ms", "20")
        address = (self.folder / "run/address").read_bytes()
        self.refuses(USAGE, *self.train("run", "--rounds", "2"), naming=("run", "used by another"))
        self.assertEqual((self.folder / "run/address").read_bytes(), address)
        self.assertFalse((self.folder / "run/run.toml").exists())

    def test_ctrl_c_while_the_peers_start(self):
        for name, file in (("first", "run.toml"), ("second", "address"), ("third", "peers/3/lock")):
            with self.subTest(file):
                process = self.spawn(*self.train(name, "--rounds", "100000", "--no-solo"))
                self.wait_for(lambda: (self.folder / name / file).exists(), file)
                common.interrupt(process)
                code, stderr = self.finish(process, limit=60)
                self.assertEqual(code, OK, stderr)

    def test_the_same_command_again_after_the_comparison(self):
        for name, key in (("drawn", []), ("stated", ["--run.id", "mine"])):
            with self.subTest(run_id=name):
                command = ["train", "--data", self.text, "--out", name, "--peers", "1", *TINY, "--rounds", "2", *key]
                losses = []
                for _ in range(2):
                    code, output, stderr = self.run_program(*command)
                    self.assertEqual(code, OK, output + stderr)
                    report = json.loads((self.folder / name / "report.json").read_text())
                    losses.append(report["validation_loss"]["solo"])
                self.assertIsNotNone(losses[0])
                self.assertEqual(losses[1], losses[0])

    def test_a_peer_that_fails_before_all_are_there_ends_the_command(self):
        arguments = self.train("run", "--rounds", "100000", "--no-solo", "--run.min_round_ms", "20")
        process = self.spawn(*arguments)
        self.wait_for(lambda: self.events("run/peers/2", "round"), "a round")
        common.interrupt(process)
        code, stderr = self.finish(process)
        self.assertEqual(code, OK, stderr)
        state = self.folder / "run/peers/2/private.state"
        state.write_bytes(state.read_bytes()[:-3])
        self.refuses(common.STORAGE, *arguments, naming=("peer2", "exit code 6", "private.state", "damaged"), limit=60)

    def test_a_peer_that_computes_nothing_is_refused(self):
        self.refuses(USAGE, *self.train("run", "--rounds", "2", "--peer.contributes", "false"),
                     naming=("peer.contributes = false", "thinwire witness"))
        self.assertFalse((self.folder / "run").exists())


def hand_over(fifo, text):
    """Gives the text, which a FIFO has room for, to whoever reads there; False: nobody does."""
    try:
        descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as problem:
        if problem.errno != errno.ENXIO:
            raise
        return False
    with open(descriptor, "wb") as file:
        file.write(text)
    return True


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


if __name__ == "__main__":
    common.main()
