"""generate, eval, inspect, keys, help, version: what works on files."""

import json
import os
import pathlib
import pty
import re
import signal
import subprocess

import common
from common import DATA, OK, STORAGE, USAGE


class Model(common.Case):
    def test_generate(self):
        run = self.trained()
        code, once, stderr = self.run_program("generate", run, "--prompt", "in the ", "--count", "100", "--seed", "5")
        self.assertEqual(code, OK, stderr)
        self.assertTrue(once.startswith("in the "))
        again = self.run_program("generate", run, "--prompt", "in the ", "--count", "100", "--seed", "5")[1]
        other = self.run_program("generate", run, "--prompt", "in the ", "--count", "100", "--seed", "6")[1]
        self.assertEqual(once, again)
        self.assertNotEqual(once, other)
        self.refuses(USAGE, "generate", run, "--prompt", "", naming=("--prompt",))
        self.refuses(USAGE, "generate", run, "--prompt", "a", "--temperature", "-1", naming=("--temperature", "-1"))
        self.refuses(STORAGE, "generate", "nowhere", "--prompt", "a", naming=("nowhere", "config.json"))
        self.check_terminal(run)

    def check_terminal(self, run):
        """What an untrained model writes is no command to a terminal; elsewhere it comes as it is."""
        arguments = [common.PROGRAM, "generate", run, "--prompt", "a", "--count", "300", "--temperature", "5"]
        raw = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=common.LIMIT).stdout
        self.assertTrue(any(byte < 32 and byte not in b"\n" for byte in raw), raw)
        try:
            ours, theirs = pty.openpty()
        except OSError as problem:
            print("no pseudo terminal here:", problem)
            return
        subprocess.run(arguments, stdin=subprocess.DEVNULL, stdout=theirs, timeout=common.LIMIT, check=True)
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the other end is closed and empty
                break
        os.close(ours)
        self.assertGreater(len(shown), 300)
        for character in shown.decode().replace("\r\n", ""):
            self.assertTrue(ord(character) >= 32 and not 127 <= ord(character) < 160, repr(shown))

    def test_a_signal_ends_what_only_reads(self):
        run = self.trained()
        process = self.spawn("generate", run, "--prompt", "a", "--count", "1000000")
        used = lambda: int(pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11])
        self.wait_for(lambda: process.poll() is not None or used() > 50, "it has computed for a while")
        common.interrupt(process)
        code, stderr = self.finish(process)
        self.assertEqual((code, stderr), (-signal.SIGINT, ""))

    def test_who_reads_a_listing_may_go_away(self):
        run = self.trained()
        for arguments in (("log", "show", run), ("keys",), ("inspect", run / "log")):
            ours, theirs = os.pipe()
            os.close(ours)
            done = subprocess.run([common.PROGRAM, *arguments], stdin=subprocess.DEVNULL, stdout=theirs,
                                  stderr=subprocess.PIPE, timeout=common.LIMIT)
            os.close(theirs)
            self.assertEqual((done.returncode, done.stderr), (-signal.SIGPIPE, b""), arguments)

    def test_evaluate(self):
        run = self.trained(rounds=30)
        code, output, stderr = self.run_program("eval", run, "--data", self.text, "--json")
        self.assertEqual(code, OK, stderr)
        found = json.loads(output)
        self.assertLess(found["loss"], 5.0)
        self.assertGreater(found["tokens"], 50000)
        self.assertAlmostEqual(found["bits_per_byte"] / found["loss"], 1.442695, places=4)
        noise = self.folder / "noise.bin"
        noise.write_bytes(bytes((i * i * 31 + i // 7) % 256 for i in range(4000)))
        worse = json.loads(self.run_program("eval", run, "--data", noise, "--json")[1])
        self.assertGreater(worse["loss"], found["loss"])
        self.refuses(DATA, "eval", run, "--data", "missing.txt", naming=("missing.txt",))

    def test_inspect(self):
        run = self.trained()
        for name, words in (("replica.snapshot", ("snapshot", "round     4", "hidden_size = 32")),
                            ("log", ("run log", "5 from 0", "learning rate")),
                            ("", ("run log", "5 from 0", "learning rate")),
                            ("model.safetensors", ("safetensors", "embed_tokens")),
                            ("private.state", ("private state",))):
            code, output, stderr = self.run_program("inspect", run / name)
            self.assertEqual(code, OK, stderr)
            for word in words:
                self.assertIn(word, output)
        self.refuses(STORAGE, "inspect", self.text, naming=("text.txt",))
        self.refuses(STORAGE, "inspect", "missing", naming=("missing",))
        segment = run / "log" / "00000000000000000000.log"
        self.refuses(STORAGE, "inspect", segment, naming=("folder",))
        last = segment.read_bytes().rindex(b"TWLF")  # the mark that the rounds before it are final
        torn = segment.read_bytes()[:last - 5]
        (self.folder / "torn").mkdir()
        (self.folder / "torn" / segment.name).write_bytes(torn)
        code, output, stderr = self.run_program("inspect", "torn")
        self.assertEqual(code, OK, stderr)
        self.assertRegex(output, r"unfinished +\d+ bytes of round 4,")
        self.assertEqual((self.folder / "torn" / segment.name).read_bytes(), torn)
        (self.folder / "empty").mkdir()
        self.refuses(STORAGE, "inspect", "empty", naming=("empty", "no segment"))

    def test_payload(self):
        log = (self.trained() / "log" / "00000000000000000000.log").read_bytes()
        begin = log.index(b"TWPL")
        end = begin + 120
        for _ in range(int.from_bytes(log[begin + 116:end], "little")):  # sections, each behind its length
            end += 4 + int.from_bytes(log[end:end + 4], "little")
        end += 8  # the checksum
        (self.folder / "payload").write_bytes(log[begin:end])
        code, output, _ = self.run_program("inspect", "payload")
        self.assertEqual(code, OK)
        self.assertIn("thinwire payload", output)
        (self.folder / "payload").write_bytes(log[begin:end - 1])
        self.refuses(STORAGE, "inspect", "payload", naming=("truncated",))

    def test_help_and_version(self):
        self.assertRegex(self.run_program("--version")[1], r"^thinwire \d+\.\d+\.\d+\n$")
        for command in ("train", "start", "join", "generate", "eval", "inspect"):
            code, output, _ = self.run_program(command, "--help")
            self.assertEqual(code, OK)
            self.assertIn("Exit codes:", output)
            self.assertIn(f"thinwire {command} ", output)
        code, output, _ = self.run_program("keys")
        self.assertEqual(code, OK)
        self.assertIn("--optimizer.k 64", output)
        page = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "launcher.md").read_text()
        for key in re.findall(r"--([a-z]+\.[a-z_0-9]+)", output):
            self.assertIn(f"| `{key}` |", page, "docs/launcher.md describes every key")
        self.refuses(USAGE, naming=("subcommand",))
        self.refuses(USAGE, "trian", naming=("trian",))

    def test_rows_of_an_evaluation_are_as_long_as_help_says(self):
        self.assertRegex(self.run_program("eval", "--help")[1], r"0: the model's\s+longest, at most\s+1024")
        for longest, expected in (("64", 64), ("1100", 1024)):
            run = self.trained("run" + longest, 1, "--data.sequence_length", longest, "--run.batch_size", "1",
                               "--run.eval_windows", "1", "--run.sample_tokens", "0")
            code, output, stderr = self.run_program("eval", run, "--data", self.text, "--windows", "1", "--json")
            self.assertEqual(code, OK, stderr)
            self.assertEqual(json.loads(output)["sequence_length"], expected)


if __name__ == "__main__":
    common.main()
