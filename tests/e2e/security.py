"""Keys, invites and lists between real processes, and strangers at a founder's port."""

import json
import os
import pathlib
import re
import resource
import signal
import socket
import ssl
import stat
import subprocess
import time

import common
from common import DATA, MISMATCH, NETWORK, OK, STORAGE, USAGE, TINY

LONG = ["--run.rounds", "1000000", "--run.min_round_ms", "20"]


class Peers(common.Case):
    def key(self, directory):
        code, output, stderr = self.run_program("key", directory)
        self.assertEqual(code, OK, stderr)
        return re.search(r"^key +(\S{43})$", output, re.MULTILINE)[1]

    def joins(self, where, directory, *arguments):
        code, _, stderr = self.run_program("join", where, "--dir", directory, "--data", self.text, "--peer.threads", "1",
                                           *arguments)
        self.assertEqual(code, OK, stderr)
        return stderr

    def no_entry(self, code, where, directory, *naming):
        """Refused with that code; nothing of the run is in the folder afterwards."""
        self.refuses(code, "join", where, "--dir", directory, "--data", self.text, "--peer.threads", "1",
                     "--peer.connect_timeout_ms", "3000", naming=naming)
        for name in ("replica.snapshot", "model.safetensors", "metrics.jsonl"):
            self.assertFalse((self.folder / directory / name).exists(), name)

    def end(self, founder):
        common.interrupt(founder)
        code, stderr = self.finish(founder)
        self.assertEqual(code, OK, stderr)
        return stderr

    def rss(self, process):
        text = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", text)[1])


class Invites(Peers):
    def test_start_invite_join(self):
        founder, address = self.found("run", "--run.rounds", "60", "--run.min_round_ms", "50", "--run.min_peers", "2")
        line = self.line("run")
        joiner = self.spawn("join", f" {line} \r\n", "--dir", "peer", "--data", self.text, "--peer.threads", "1")
        for process in (founder, joiner):
            code, stderr = self.finish(process)
            self.assertEqual(code, OK, stderr)
        self.assertEqual(self.digest("run"), self.digest("peer"))
        self.assertTrue(all(event["contributors"] == 2 for event in self.events("run", "round")))
        for path in ("run/identity.key", "run/access", "peer/identity.key", "peer/access"):
            self.assertEqual(stat.S_IMODE((self.folder / path).stat().st_mode), 0o600, path)
        access = (self.folder / "run/access").read_text()
        self.assertIn("ed25519 " + self.key("peer"), access)
        self.assertIn("ed25519 " + self.key("run"), (self.folder / "peer/access").read_text())
        self.assertEqual(len(re.findall("^used ", access, re.MULTILINE)), 1)

    def test_a_peer_returns_by_line_and_by_address_and_with_another_founder_process(self):
        founder, address = self.found("run", *LONG)
        line = self.line("run")

        def takes_part(where):
            before = len(self.events("peer", "round"))
            peer = self.spawn("join", where, "--dir", "peer", "--data", self.text, "--peer.threads", "1")
            took = lambda: any(event["own_included"] for event in self.events("peer", "round")[before:])
            self.wait_for(lambda: took() or peer.poll() is not None, "it takes part")
            self.end(peer)
            self.assertTrue(took())

        takes_part(line)
        takes_part(line)
        takes_part(address)
        self.end(founder)
        founder, address = self.found("run", *LONG)
        takes_part(address)
        self.end(founder)

    def test_an_invite_outlives_the_founder_and_its_death(self):
        port = common.free_port()
        options = [*LONG, "--peer.address", f"127.0.0.1:{port}"]
        founder, _ = self.found("run", *options)
        line, other = self.line("run"), self.line("run")
        self.joins(other, "first", "--peer.stop_at", "1")
        founder.send_signal(signal.SIGKILL)
        self.finish(founder)
        founder, _ = self.found("run", *options)
        self.joins(line, "second", "--peer.stop_at", "1")
        self.no_entry(MISMATCH, other, "third", "used before")
        self.end(founder)

    def test_lines_that_let_nobody_in(self):
        founder, address = self.found("run", *LONG)
        line = self.line("run")
        self.no_entry(USAGE, line[:-1], "peer", "damaged or not whole")
        self.no_entry(USAGE, line[:40] + ("A" if line[40] != "A" else "B") + line[41:], "peer", "damaged or not whole")
        self.no_entry(USAGE, line.replace("thinwire1", "thinwire2"), "peer", "thinwire1_")
        self.no_entry(USAGE, "thinwire1_", "peer", "damaged or not whole")
        self.no_entry(USAGE, address, "peer", "names no key of a peer", "thinwire invite")
        self.refuses(USAGE, "join", line, "--dir", "peer", "--data", self.text, *common.PLAINTEXT, naming=("plaintext",))
        self.joins(line, "peer", "--peer.stop_at", "1")
        self.no_entry(MISMATCH, line, "other", "used before")

        expired = self.line("run", "--expires", "1s")
        end = time.time() + 1.1
        self.wait_for(lambda: time.time() > end, "a second passes")
        self.no_entry(MISMATCH, expired, "other", "has expired")
        forgotten = self.line("run")
        access = self.folder / "run/access"
        access.write_text("".join(row for row in access.read_text().splitlines(True) if not row.startswith("invite")))
        self.no_entry(MISMATCH, forgotten, "other", "not known here")
        nowhere = self.line("run", "--address", f"127.0.0.1:{common.free_port()}")
        self.no_entry(NETWORK, nowhere, "other", "nobody to enrol with")
        self.assertIsNone(founder.poll(), "the founder goes on")
        stderr = self.end(founder)
        self.assertIn("asks to enrol: the invite was used before", stderr)
        self.assertNotIn(line[10:40], stderr)

    def test_what_is_wrong_before_a_peer_enters_neither_uses_its_invite_nor_makes_it_a_member(self):
        founder, _ = self.found("run", *LONG)
        line = self.line("run")
        self.refuses(DATA, "join", line, "--dir", "peer", "--data", "nothing.txt", naming=("data.train", "nothing.txt"))
        for key, value in (("peer.name", "n" * 65), ("peer.advertise", "none"), ("peer.advertise", "a" * 300 + ":1"),
                           ("peer.place", "p" * 65), ("run.keep_log", "much")):
            self.refuses(USAGE, "join", line, "--dir", "peer", "--data", self.text, f"--{key}", value, naming=(key,))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            for key in ("peer.listen", "peer.status", "peer.dashboard"):
                self.refuses(NETWORK, "join", line, "--dir", "peer", "--data", self.text, f"--{key}", f"127.0.0.1:{port}",
                             naming=(port,))
        file = self.folder / "file"
        file.touch()
        self.refuses(STORAGE, "join", line, "--dir", "peer", "--data", self.text, "--peer.tensorboard", file / "folder",
                     naming=(file,))
        access = self.folder / "peer/access"
        access.touch(0o600)
        access.write_text("ed25519 x\n")
        self.refuses(STORAGE, "join", line, "--dir", "peer", "--data", self.text, naming=("peer/access", "line 1"))
        self.assertIn("open invite", self.run_program("key", "run")[1])
        self.joins(line, "other", "--peer.stop_at", "1")
        self.end(founder)

    def test_a_peer_that_cannot_go_on_where_it_entered_leaves(self):
        founder, _ = self.found("run", *LONG, "--peer.name", "run")
        members = lambda: [p["name"] for p in json.loads(self.run_program("ctl", "run", "status", "--json")[1])["peers"]
                           if p["member"]]
        (self.folder / "log" / "metrics.jsonl").mkdir(parents=True)
        for name, code, options in (("text", DATA, ("--data", self.write_config())),
                                    ("payload", USAGE, ("--data", self.text, "--peer.payload_bytes", "1")),
                                    ("log", STORAGE, ("--data", self.text))):
            self.refuses(code, "join", self.line("run"), "--dir", name, "--name", name, *options)
            self.wait_for(lambda: members() == ["run"], f"{name} has left", limit=30)

    def test_a_line_from_the_standard_input(self):
        founder, _ = self.found("run", *LONG)

        def joins(directory):
            process = subprocess.Popen([common.PROGRAM, "join", "-", "--dir", directory, "--data", self.text,
                                        "--peer.threads", "1", "--peer.stop_at", "1"], stdin=subprocess.PIPE,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=self.folder)
            self.started.append(process)
            return process

        waiting = joins("waiting")
        state = lambda: pathlib.Path(f"/proc/{waiting.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        self.wait_for(lambda: state() == "S", "it waits for the line")
        common.interrupt(waiting)
        self.assertEqual(waiting.wait(common.LIMIT), -signal.SIGINT)
        entering = joins("peer")
        _, stderr = entering.communicate(f"\r\n  {self.line('run')}\r\n".encode(), common.LIMIT)
        self.assertEqual(entering.returncode, OK, stderr)
        self.end(founder)

    def test_no_error_tells_a_line(self):
        founder, _ = self.found("run", *LONG)
        line = self.line("run")
        for arguments in (("join", "use " + line), ("join", "use: " + line), ("join", line[:60], line[60:]), (line,),
                          ("join", line, "--peer.address", line), ("join", line, "--nothing")):
            code, _, stderr = self.run_program(*arguments, "--data", self.text)
            self.refusal(USAGE, code, stderr)
            for part in (line[12:30], line[-20:]):
                self.assertNotIn(part, stderr)
        self.end(founder)

    def test_the_line_of_another_run(self):
        founder, _ = self.found("run", *LONG)
        line = self.line("run")
        self.end(founder)
        # Another run of the same peer, at the same place.
        for name in ("identity.key", "access"):
            other = self.folder / "other" / name
            other.parent.mkdir(exist_ok=True)
            other.write_bytes((self.folder / "run" / name).read_bytes())
            other.chmod(0o600)
        founder, _ = self.found("other", *LONG, "--run.seed", "2", "--peer.address",
                                (self.folder / "run/address").read_text().strip())
        self.no_entry(MISMATCH, line, "peer", "the invite is for run", "this is run")
        # Somebody else at the same place.
        self.end(founder)
        founder, _ = self.found("foreign", *LONG, "--peer.address", (self.folder / "run/address").read_text().strip())
        self.no_entry(MISMATCH, line, "peer", "not trusted", self.key("foreign"), self.key("run"))
        self.end(founder)

    def test_folders_that_cannot_invite(self):
        self.refuses(USAGE, "invite", "nothing", naming=("nothing", "expected the folder of a peer"))
        self.key("fresh")
        self.refuses(USAGE, "invite", "fresh", naming=("fresh", "holds no address"))
        self.refuses(USAGE, "invite", "fresh", "--address", "a:1", naming=("fresh", "holds no run"))
        self.trained("run", 2)
        code, _, stderr = self.run_program("invite", "run")
        self.assertEqual(code, OK, stderr)
        self.assertIn("warning: no peer runs in 'run'", stderr)
        for text in ("0s", "5", "h", "1w", "366d", "-1h", "99999999999999999999s"):
            self.refuses(USAGE, "invite", "run", f"--expires={text}", naming=("--expires", text, "24h"))
        self.refuses(USAGE, "invite", "run", "--address", "nowhere", naming=("nowhere", "host:port"))
        self.refuses(USAGE, "invite", "run", *["--address", "a:1"] * 9, naming=("9 addresses",))


class Lists(Peers):
    def test_allow_and_revoke_while_the_run_goes_on(self):
        founder, address = self.found("run", *LONG)
        self.refuses(USAGE, "allow", "run", "short", naming=("5 characters", "43"))
        self.key("peer")
        self.assertEqual(self.run_program("allow", "peer", self.key("run"))[0], OK)
        self.no_entry(MISMATCH, address, "peer", "does not know this key", self.key("peer"))
        self.assertEqual(self.run_program("allow", "run", self.key("peer"), "--name", "lab")[0], OK)
        joiner = self.join(address, "peer")
        self.wait_for(lambda: any(event["own_included"] for event in self.events("peer", "round")), "it takes part")
        self.refuses(USAGE, "revoke", "run", "labs", naming=("labs", "0 keys"))
        self.assertEqual(self.run_program("revoke", "run", "lab")[0], OK)
        code, stderr = self.finish(joiner, limit=30)
        self.refusal(MISMATCH, code, stderr, naming=("does not know this key",))
        self.assertIsNone(founder.poll())
        stderr = self.end(founder)
        self.assertIn("no longer on the list", stderr)
        self.assertIn(f"its key {self.key('peer')}", stderr)

    def test_files_that_others_may_read_or_that_are_damaged(self):
        self.trained("run", 2, "--peer.stop_at", "1")
        start = ("start", self.write_config(), "--dir", "run", "--run.rounds", "2", *TINY)
        key, access = self.folder / "run/identity.key", self.folder / "run/access"
        key.chmod(0o640)
        self.refuses(STORAGE, *start, naming=("identity.key", "mode 600"))
        self.refuses(STORAGE, "key", "run", naming=("identity.key", "mode 600"))
        key.chmod(0o600)
        access.write_text("ed25519 x\n")
        access.chmod(0o600)
        self.refuses(STORAGE, *start, naming=("run/access", "line 1"))
        access.write_text("")
        access.chmod(0o644)
        self.refuses(STORAGE, *start, naming=("run/access", "mode 600"))
        access.unlink()
        before = key.read_bytes()
        key.write_bytes(before[:50])
        self.refuses(STORAGE, *start, naming=("identity.key", "Ed25519"))
        self.assertEqual(key.read_bytes(), before[:50])
        key.write_bytes(before)
        self.assertEqual(self.run_program(*start)[0], OK)


class Strangers(Peers):
    def test_other_protocols_at_the_port(self):
        founder, address = self.found("run", *LONG)
        host, port = address.split(":")
        for words in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", os.urandom(4096), common.frame(common.HELLO, b"TWIR" + bytes(100))):
            with socket.create_connection((host, int(port)), timeout=common.LIMIT) as stranger:
                stranger.sendall(words)
                stranger.shutdown(socket.SHUT_WR)
                self.assertLess(len(stranger.makefile("rb").read()), 100)
        for newest, word in ((ssl.TLSVersion.TLSv1_2, "unsupported protocol|protocol version"),
                             (ssl.TLSVersion.TLSv1_3, "alert|no application protocol|required|handshake failure")):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.maximum_version = newest
            context.set_alpn_protocols(["thinwire/1"])
            with socket.create_connection((host, int(port)), timeout=common.LIMIT) as stranger:
                with self.assertRaisesRegex(ssl.SSLError, re.compile(word, re.IGNORECASE)):
                    with context.wrap_socket(stranger) as secured:
                        secured.recv(1)
        self.refuses(MISMATCH, "join", address, "--dir", "plain", "--data", self.text, *common.PLAINTEXT,
                     "--peer.connect_timeout_ms", "1500", limit=30, naming=(port,))
        self.joins(self.line("run"), "peer", "--peer.stop_at", "1")
        stderr = self.end(founder)
        for words in ("http request", "unsupported protocol", "peer did not return a certificate"):
            self.assertIn(words, stderr)

    def test_many_idle_connections_cost_little_and_keep_nobody_out(self):
        founder, address = self.found("run", *LONG)
        host, port = address.split(":")
        line = self.line("run")
        seen = len(self.events("run", "round"))
        self.wait_for(lambda: len(self.events("run", "round")) > seen + 5, "the run goes on")
        before = self.rss(founder)
        held = [socket.create_connection((host, int(port)), timeout=common.LIMIT) for _ in range(300)]
        self.joins(line, "peer", "--peer.stop_at", "1")
        self.assertLess(self.rss(founder) - before, 8192, "kB for 300 idle connections, of which 64 are held")
        for connection in held:
            connection.close()
        self.end(founder)

    def test_no_descriptors_left(self):
        """A founder that may open few files is flooded; its peer stays, and another enters when the flood is over."""
        founder, address = self.found("run", *LONG, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40)))
        host, port = address.split(":")
        first = self.join(address, "first")
        self.wait_for(lambda: any(event["own_included"] for event in self.events("first", "round")), "it takes part")
        held = [socket.create_connection((host, int(port)), timeout=common.LIMIT) for _ in range(100)]
        seen = self.events("first", "round")[-1]["round"]
        self.wait_for(lambda: self.events("first", "round")[-1]["round"] > seen + 20, "the run goes on under the flood")
        for connection in held:
            connection.close()
        self.joins(self.line("run"), "second", "--peer.stop_at", "1")
        self.end(founder)
        self.end(first)


if __name__ == "__main__":
    common.main()
