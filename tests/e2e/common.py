"""What the end-to-end tests share: the program, a folder, a tiny model, real processes.

Every test file is called as `python3 NAME.py PROGRAM [unittest arguments]` and works in folders that it makes itself.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import zlib

PROGRAM = str(pathlib.Path(sys.argv[1]).resolve()) if len(sys.argv) > 1 else "thinwire"
LIMIT = 120  # seconds that any one command may take before it counts as hanging

OK, FAILED, USAGE, DATA, NETWORK, MISMATCH, STORAGE, DIVERGED, RUN_LOST, NOT_FINITE = range(10)

TINY = [
    "--model.hidden_size", "32", "--model.intermediate_size", "64", "--model.num_hidden_layers", "2",
    "--model.num_attention_heads", "2", "--data.sequence_length", "32", "--run.batch_size", "4",
    "--optimizer.learning_rate", "0.012", "--optimizer.k", "8", "--optimizer.chunk", "16",
    "--schedule.warmup", "4", "--run.eval_windows", "16", "--peer.threads", "1",
]

# What tests that speak the protocol themselves need: no TLS.
PLAINTEXT = ["--peer.plaintext", "true"]

# A round waits for every peer, however busy the machine is: what is compared bit for bit must not depend on time.
PATIENT = ["--peer.min_deadline_ms", "60000"]


def make_text(size=60000):
    """Text with something to learn: words of a small vocabulary in a fixed pseudo-random order."""
    words = "in the beginning was a light and it said let there be water over all earth".split()
    state, out, length = 12345, [], 0
    while length < size:
        state = (state * 1103515245 + 12345) % 2**31
        word = words[(state >> 16) % len(words)]
        out.append(word)
        length += len(word) + 1
    return " ".join(out)[:size].encode()


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="thinwire-e2e-", dir=os.getcwd()))
        self.text = self.folder / "text.txt"
        self.text.write_bytes(make_text())
        self.started = []
        self.founders = {}  # address: folder

    def tearDown(self):
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        end = time.monotonic() + 10
        while (left := self.left_behind()) and time.monotonic() < end:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        shutil.rmtree(self.folder, ignore_errors=True)

    def left_behind(self):
        """The processes that those which this test started have started themselves, stopped ones among them: whatever
        runs the program in this test's folder."""
        folder, pids = str(self.folder.resolve()), []
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                if os.readlink(process / "cwd") == folder and os.readlink(process / "exe") == PROGRAM:
                    pids.append(int(process.name))
        return pids

    def run_program(self, *arguments, limit=LIMIT, preexec_fn=None):
        """Runs to the end; (exit code, stdout, stderr). Running longer than `limit` is a failure."""
        try:
            done = subprocess.run([PROGRAM, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True,
                                  timeout=limit, cwd=self.folder, preexec_fn=preexec_fn)
        except subprocess.TimeoutExpired:
            self.fail(f"hangs: {arguments}")
        return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")

    def spawn(self, *arguments, preexec_fn=None):
        process = subprocess.Popen([PROGRAM, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, cwd=self.folder, preexec_fn=preexec_fn)
        self.started.append(process)
        return process

    def finish(self, process, limit=LIMIT):
        """(exit code, stderr) of a spawned process."""
        try:
            _, stderr = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            self.fail("hangs: " + " ".join(process.args))
        return process.returncode, stderr.decode(errors="replace")

    def refuses(self, code, *arguments, naming=(), **options):
        """The program ends with `code` and one error line that holds every word of `naming`."""
        found, _, stderr = self.run_program(*arguments, **options)
        self.refusal(code, found, stderr, naming)

    def refusal(self, code, found, stderr, naming=()):
        self.assertEqual(found, code, stderr)
        errors = [line for line in stderr.splitlines() if line.startswith("thinwire: error:")]
        self.assertEqual(len(errors), 1, stderr)
        for word in naming:
            self.assertIn(str(word), errors[0])

    def wait_for(self, holds, what, limit=LIMIT):
        """Waits for an event outside this process; fails when it does not come."""
        end = time.monotonic() + limit
        while not holds():
            if time.monotonic() > end:
                self.fail("did not happen: " + what + self.all_statuses())
            time.sleep(0.02)

    def all_statuses(self):
        """What every peer here says of the run: for whoever reads why a test failed."""
        said = ""
        for control in sorted(self.folder.glob("*/control")):
            try:
                done = subprocess.run([PROGRAM, "ctl", control.parent, "status"], stdin=subprocess.DEVNULL,
                                      capture_output=True, text=True, timeout=10)
                said += f"\n{control.parent.name}:\n{done.stdout}{done.stderr}"
            except subprocess.TimeoutExpired:
                said += f"\n{control.parent.name}: no answer"
        return said

    def write_config(self, name="run.toml"):
        """A TOML file that says where the text is."""
        path = self.folder / name
        path.write_text(f'[data]\ntrain = "{self.text}"\n')
        return path

    def found(self, directory, *arguments, preexec_fn=None):
        """Starts a founder; (process, address)."""
        address = self.folder / directory / "address"
        if address.exists():
            address.unlink()
        process = self.spawn("start", self.write_config(), "--dir", directory, *TINY, *PATIENT, *arguments,
                             preexec_fn=preexec_fn)
        self.wait_for(lambda: address.exists() or process.poll() is not None, "the founder listens")
        if process.poll() is not None:
            self.fail("the founder ended: " + self.finish(process)[1])
        where = address.read_text().strip()
        self.founders[where] = directory
        return process, where

    def line(self, directory, *arguments):
        """A new invite of a founder's folder."""
        code, output, stderr = self.run_program("invite", directory, *arguments)
        self.assertEqual(code, OK, stderr)
        self.assertEqual(len(output.splitlines()), 1)
        return output.strip()

    def join(self, address, directory, *arguments):
        """Starts a joiner: with an invite the first time, then by the founder's address."""
        known = (self.folder / directory / "access").exists() or "--peer.plaintext" in arguments
        where = address if known else self.line(self.founders[address])
        return self.spawn("join", where, "--dir", directory, "--data", self.text, "--peer.threads", "1", *arguments)

    def events(self, directory, kind=None):
        path = self.folder / directory / "metrics.jsonl"
        if not path.exists():
            return []
        lines = []
        for line in path.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                continue  # the line that a SIGKILL cut
        return [line for line in lines if kind is None or line["event"] == kind]

    def digest(self, directory):
        return self.events(directory, "end")[-1]["replica_digest"]

    def trained(self, directory="run", rounds=4, *arguments):
        """A folder with a tiny model that one peer trained."""
        config = self.write_config()
        code, _, stderr = self.run_program("start", config, "--dir", directory, "--run.rounds", rounds, *TINY,
                                           *arguments)
        self.assertEqual(code, OK, stderr)
        return self.folder / directory


HELLO, REFUSE = 0, 2  # message_type of include/thinwire/comm/message.hpp


def frame(kind, body):
    """A frame as include/thinwire/comm/frame.hpp describes it."""
    head = struct.pack("<II", len(body), kind)
    check = kind | (zlib.crc32(head) & 0xFFFFFF00)
    return struct.pack("<III", len(body), check, zlib.crc32(body)) + body


def receive_frame(connection):
    """(type, body) of the next frame; an EOFError when the stream ends before it."""
    def receive(count):
        data = b""
        while len(data) < count:
            more = connection.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    length, check, _ = struct.unpack("<III", receive(12))
    return check & 0xFF, receive(length)


def wire_text(text):
    return struct.pack("<I", len(text)) + text.encode()


def free_port():
    """A port that no connection of this machine is given by chance, so that a founder can come back to it."""
    for port in range(20000 + os.getpid() % 700 * 16, 32000):
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
    raise OSError("no free port")


def interrupt(process):
    process.send_signal(signal.SIGINT)


def main():
    del sys.argv[1:2]
    unittest.main(verbosity=2)
