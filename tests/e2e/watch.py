"""Watching a run: /status, /metrics and `thinwire watch` while peers train, clients that misbehave, and the event log."""

import contextlib
import http.client
import http.server
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import threading

import common
from common import NETWORK, OK, STORAGE, USAGE, TINY

ANY = ["--status", "127.0.0.1:0"]
LONG = ["--run.rounds", "1000000", "--run.min_round_ms", "10"]


def parse_metrics(test, text):
    """The text format 0.0.4, strictly; {(name, labels): value}."""
    name = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
    sample = re.compile(rf'({name})(?:\{{((?:{name}="(?:[^"\\\n]|\\["\\n])*",?)*)\}})? (NaN|[+-]Inf|-?[0-9.]+(?:e[+-]?[0-9]+)?)')
    samples, family, kind, helped = {}, None, None, None
    seen = set()
    test.assertTrue(text.endswith("\n"))
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            helped, words = line.split(" ", 3)[2:]
            test.assertTrue(words, line)
        elif line.startswith("# TYPE "):
            family, kind = line.split(" ")[2:]
            test.assertEqual(family, helped)
            test.assertNotIn(family, seen, "a family comes once, in one piece")
            seen.add(family)
            test.assertIn(kind, ("counter", "gauge"))
            test.assertTrue(family.startswith("thinwire_"))
            test.assertEqual(kind == "counter", family.endswith("_total"), family)
        else:
            match = sample.fullmatch(line)
            test.assertIsNotNone(match, line)
            test.assertEqual(match[1], family)
            test.assertNotIn((match[1], match[2]), samples, "a sample comes once")
            samples[match[1], match[2]] = float(match[3])
            if kind == "counter":
                test.assertGreaterEqual(float(match[3]), 0)
    return samples


class Watching(common.Case):
    def where(self, directory):
        """Host and port of a peer's status, once it is there."""
        path = self.folder / directory / "status.address"
        self.wait_for(lambda: path.exists() and path.read_text().endswith("\n"), f"{directory} has a status")
        host, port = path.read_text().strip().rsplit(":", 1)
        return host, int(port)

    def get(self, directory, path="/status"):
        connection = http.client.HTTPConnection(*self.where(directory), timeout=common.LIMIT)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            self.assertEqual(answer.status, 200)
            return answer.read().decode()

    def status(self, directory):
        return json.loads(self.get(directory))

    def raw(self, directory, request):
        with socket.create_connection(self.where(directory), timeout=common.LIMIT) as connection:
            connection.sendall(request)
            answer = b""
            while more := connection.recv(65536):
                answer += more
            return answer

    def three(self, *arguments):
        founder, address = self.found("run", *LONG, "--run.min_peers", "3", "--peer.name", "first", *ANY, *arguments)
        joiners = [self.join(address, name, "--name", name, *ANY) for name in ("second", "third")]
        for directory in ("run", "second", "third"):
            self.wait_for(lambda: self.status(directory)["round"] >= 3, f"{directory} trains")
        return founder, joiners

    def end(self, founder, joiners):
        for process in (founder, *joiners): common.interrupt(process)
        for process in (founder, *joiners):
            code, stderr = self.finish(process)
            self.assertEqual(code, OK, stderr)

    def watch(self, *arguments):
        code, output, stderr = self.run_program("watch", *arguments, "--once")
        self.assertEqual(code, OK, stderr)
        return output


class Runs(Watching):
    def test_three_peers_while_they_train(self):
        founder, joiners = self.three("--log-file", "events.jsonl", "--run.snapshot_every", "5", "--run.eval_every", "2")
        with self.subTest("status"):
            self.check_status()
        with self.subTest("metrics"):
            self.check_metrics()
        with self.subTest("watch"):
            self.check_watch()
        with self.subTest("who waits for whom"):
            self.check_waiting(joiners[0])
        with self.subTest("clients that misbehave"):
            self.check_misuse()
        follower = self.spawn("watch", "run")
        self.line_with(follower, b"first: round ")
        self.end(founder, joiners)
        self.assertFalse((self.folder / "run/status.address").exists())
        self.line_with(follower, b"no status.address")
        common.interrupt(follower)
        self.assertEqual(self.finish(follower)[0], OK)
        self.check_log()

    def line_with(self, process, words):
        """The next line of a process with these words; without one in time it is killed, which ends its output."""
        limit = threading.Timer(common.LIMIT, process.kill)
        limit.start()
        try:
            while words not in (line := process.stdout.readline()):
                self.assertTrue(line, f"no line with {words}")
            return line
        finally:
            limit.cancel()

    def check_status(self):
        first, second = self.status("run"), self.status("second")
        self.assertEqual((first["role"], first["peer"], second["role"], second["peer"]),
                         ("founder", "first", "joiner", "second"))
        self.assertEqual(first["run"], second["run"])
        for one in (first, second):
            self.assertEqual((one["rounds"], one["k"], one["disagreeing_total"]), (1000000, 8, 0))
            for field in ("loss", "learning_rate", "tokens", "compute_seconds", "wait_seconds", "bytes_sent",
                          "bytes_received", "rounds_per_second", "rounds_per_second_minute", "tokens_per_second"):
                self.assertGreater(one[field], 0, field)
            self.assertGreater(len(one["shares"]), 2)
        self.assertGreater(first["validation_loss"], 0)
        self.assertGreater(first["log_bytes"], 0)
        self.assertEqual({p["name"] for p in first["peers"]}, {"first", "second", "third"})
        self.assertEqual([p["name"] for p in first["peers"] if p["self"]], ["first"])
        self.wait_for(lambda: self.status("run")["replica"]["round"] >= 5, "a snapshot")
        before = self.status("run")
        self.wait_for(lambda: self.status("run")["round"] > before["round"], "it goes on")

    def check_metrics(self):
        text = self.get("run", "/metrics")
        samples = parse_metrics(self, text)
        self.assertGreater(samples["thinwire_round", None], 0)
        self.assertEqual(sum(name == "thinwire_peer_present" for name, _ in samples), 3)
        if promtool := shutil.which("promtool"):
            done = subprocess.run([promtool, "check", "metrics"], input=text.encode(), capture_output=True)
            self.assertEqual((done.returncode, done.stdout + done.stderr), (0, b""))
        self.assertEqual(self.get("run", "/healthz"), "ok\n")
        # Neither where a peer is, nor what its key is, nor where its files are.
        everything = text + self.get("run") + self.get("second") + self.get("second", "/metrics")
        keys = re.findall(r"^ed25519 (\S+)", (self.folder / "run/access").read_text(), re.MULTILINE)
        self.assertEqual(len(keys), 2)
        for secret in (*keys, "127.0.0.1", str(self.folder), (self.folder / "run/address").read_text().strip()):
            self.assertNotIn(secret, everything)

    def check_watch(self):
        found = json.loads(self.watch("run", "second", ":".join(map(str, self.where("third"))), "--json"))
        self.assertEqual([one["status"]["peer"] for one in found["watched"]], ["first", "second", "third"])
        self.assertEqual((found["agreement"]["verdict"], found["agreement"]["peers"]), ("agree", 3))
        self.assertIn("weights agree: 3 peers in round", self.watch("run", "second", "third"))
        output = self.watch("run")
        for words in ("first (founder)", "second ", "third ", "rounds/s"):
            self.assertIn(words, output)
        self.check_terminal()

    def check_terminal(self):
        """On a terminal of 80 columns the table is drawn over itself."""
        try:
            ours, theirs = pty.openpty()
        except OSError as problem:
            print("no pseudo terminal here:", problem)
            return
        process = subprocess.Popen([common.PROGRAM, "watch", "run", "second"], stdin=subprocess.DEVNULL, stdout=theirs,
                                   stderr=theirs, cwd=self.folder)
        self.started.append(process)
        os.close(theirs)
        seen = b""
        while b"\x1b[4A\x1b[J" not in seen:
            self.assertLess(len(seen), 10000, "drawn again and again")
            self.assertTrue(select.select([ours], [], [], common.LIMIT)[0], seen)
            seen += os.read(ours, 65536)
        self.assertNotIn(b"\x1b", seen.replace(b"\x1b[4A\x1b[J", b""))
        self.assertLess(max(map(len, seen.replace(b"\x1b[4A\x1b[J", b"").split(b"\r\n"))), 80)
        common.interrupt(process)
        self.assertEqual(process.wait(common.LIMIT), OK)
        os.close(ours)

    def check_waiting(self, second):
        """A peer that stands still is named by the founder, who waits for it."""
        second.send_signal(signal.SIGSTOP)
        awaited = lambda: [p["name"] for p in self.status("run")["peers"] if p["awaited"]]
        self.wait_for(lambda: awaited() == ["second"], "the founder waits for the second peer")
        self.assertIn("until second sends", self.watch("run"))
        second.send_signal(signal.SIGCONT)
        held = self.status("run")["round"]
        self.wait_for(lambda: self.status("run")["round"] > held, "the round goes on")

    def check_misuse(self):
        self.assertIn(b"HTTP/1.1 405 ", self.raw("run", b"POST /status HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"))
        self.assertIn(b"HTTP/1.1 404 ", self.raw("run", b"GET /model.safetensors HTTP/1.1\r\n\r\n"))
        self.assertIn(b"HTTP/1.1 404 ", self.raw("run", b"GET /../identity.key HTTP/1.1\r\n\r\n"))
        self.assertIn(b"HTTP/1.1 431 ", self.raw("run", b"GET /status HTTP/1.1\r\nX: " + b"x" * 50000))
        self.assertIn(b"HTTP/1.1 421 ", self.raw("run", b"GET /status HTTP/1.1\r\nHost: example.org\r\n\r\n"))
        where = self.where("run")
        with contextlib.ExitStack() as stack:
            slow = stack.enter_context(socket.create_connection(where))
            slow.sendall(b"GET /sta")
            for _ in range(200):
                stack.enter_context(socket.create_connection(where))
            before = self.status("run")["round"]
            self.wait_for(lambda: self.status("run")["round"] >= before + 10, "rounds go on", limit=30)

    def check_log(self):
        lines = [json.loads(line) for line in (self.folder / "run/events.jsonl").read_text().splitlines()]
        run = self.events("run", "start")[0]["run"]
        for line in lines:
            self.assertEqual(list(line)[:6], ["ts", "level", "run", "round", "peer", "event"])
            self.assertEqual((line["run"], line["peer"]), (run, "first"))
            self.assertGreaterEqual(line["round"], 0)
        events = [line["event"] for line in lines]
        for event in ("listening", "status", "gathering", "enrolled", "peer_entered", "left"):
            self.assertIn(event, events)
        self.assertNotIn("round", events, "that is what metrics.jsonl is for")

    def test_train_gives_each_peer_its_own(self):
        code, _, stderr = self.run_program("train", "--data", self.text, "--out", "run", "--peers", "2", "--no-solo",
                                           "--rounds", "4", *TINY, "--log-file", "events.jsonl", "--status",
                                           f"127.0.0.1:{common.free_port()}")
        self.assertEqual(code, OK, stderr)
        for directory, name in (("run", "peer0"), ("run/peers/1", "peer1")):
            lines = [json.loads(line) for line in (self.folder / directory / "events.jsonl").read_text().splitlines()]
            self.assertEqual({line["peer"] for line in lines}, {name})
            self.assertEqual(lines[-1]["event"], "finished")
            self.assertIn("status", [line["event"] for line in lines])


class Refusals(Watching):
    def test_settings(self):
        start = ("start", self.write_config(), "--dir", "run", *TINY, "--run.rounds", "1")
        self.refuses(USAGE, *start, "--status", "0.0.0.0:0", naming=("peer.status", "0.0.0.0:0", "status_public"))
        self.refuses(USAGE, *start, "--status", "[::]:0", naming=("peer.status", "status_public"))
        for where in ("nonsense", "example.org:9400"):
            self.refuses(USAGE, *start, "--status", where, "--peer.status_public", "true",
                         naming=("peer.status", where, "HOST:PORT"))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.refuses(NETWORK, *start, "--status", f"127.0.0.1:{port}", naming=("peer.status", port))
        for name in (self.folder / "log", "../log", "a/b", "..", "identity.key", "access.lock", "metrics.jsonl", "log"):
            self.refuses(USAGE, *start, "--log-file", name, naming=("peer.log_file", name, "a file in DIR"))
        self.refuses(USAGE, "train", "--data", self.text, "--out", "all", *TINY, "--log-file", self.folder / "log",
                     naming=("peer.log_file", "a file in DIR"))
        (self.folder / "run/folder").mkdir()
        self.refuses(STORAGE, *start, "--log-file", "folder", naming=("peer.log_file", "run/folder"))
        (self.folder / "run/log.jsonl").symlink_to("/dev/full")
        code, _, stderr = self.run_program(*start, "--status", "0.0.0.0:0", "--peer.status_public", "true",
                                           "--log-file", "log.jsonl")
        self.assertEqual(code, OK, stderr)
        self.assertIn("warning: peer.log_file: ", stderr, "a full disk is told of and ends nothing")
        self.refuses(USAGE, "watch", "nobody here", naming=("nobody here", "HOST:PORT"))

    def test_json_on_stderr(self):
        code, _, stderr = self.run_program("--log-json", "start", self.write_config(), "--dir", "run", *TINY,
                                           "--run.rounds", "2", "--peer.name", "first", *ANY)
        self.assertEqual(code, OK, stderr)
        lines = [json.loads(line) for line in stderr.splitlines()]
        self.assertEqual({line["peer"] for line in lines}, {"first"})
        self.assertEqual(lines[-1]["event"], "finished")
        code, _, stderr = self.run_program("eval", "nowhere", "--data", self.text, "--log-json")
        line = json.loads(stderr)
        self.assertEqual((line["event"], line["level"], line["exit_code"], line["run"]), ("error", "error", code, None))


class Hostile(Watching):
    def serve(self, answer):
        """HOST:PORT of a server whose answers are these bytes, over and over where it is a function."""
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                try:
                    self.wfile.write(answer)
                    while answer.endswith(b"endless"):
                        self.wfile.write(answer)
                except OSError:
                    pass  # the client had enough

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return "127.0.0.1:%d" % server.server_address[1]

    def test_answers_that_are_no_status(self):
        evil = "\x1b]0;owned\x07\x1b[2J\r\n\u202e\u009b31m"
        document = json.dumps({"run": evil, "round": 3, "peer": evil, "phase": evil, "peers": [{"name": evil}]})
        head = b"HTTP/1.1 200 OK\r\n\r\n"
        for output in (self.watch(self.serve(head + document.encode())),
                       self.watch(self.serve(head + document.encode()), "--json")):
            self.assertRegex(output, r"\A[\n -~]+\Z")
        with socket.create_server(("127.0.0.1", 0)) as silent:
            answers = (b"", b"\x00\xff" * 100, head + b"{", head + b"[" * 1000000, head + b"endless",
                       b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{}", b"HTTP/1.1 500 \x1b[2J\r\n\r\n",
                       b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n")
            where = [*map(self.serve, answers), "127.0.0.1:%d" % silent.getsockname()[1]]
            code, output, stderr = self.run_program("watch", *where, "--once", "--json")
        self.assertEqual(code, NETWORK, stderr)
        found = json.loads(output)
        self.assertRegex(output, r"\A[\n -~]+\Z")
        self.assertEqual(len(found["watched"]), len(where))
        for one in found["watched"]:
            self.assertIsNone(one["status"])
            self.assertTrue(one["error"])


if __name__ == "__main__":
    common.main()
