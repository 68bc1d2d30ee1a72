"""What cannot work is refused in one clear line with its own exit code; nothing is lost and nothing hangs."""

import hashlib
import os
import resource
import shutil
import socket
import struct
import subprocess
import threading

import common
from common import DATA, DIVERGED, MISMATCH, NETWORK, NOT_FINITE, OK, RUN_LOST, STORAGE, TINY, USAGE


class Configuration(common.Case):
    def refuses_start(self, *arguments, naming):
        self.refuses(USAGE, "start", self.write_config(), "--dir", "run", *TINY, *arguments, naming=naming)

    def test_values(self):
        self.refuses_start("--optimizer.k", "0", naming=("optimizer.k", "0", "1..65536"))
        self.refuses_start("--optimizer.k", "257", naming=("optimizer.k", "257", "256"))
        self.refuses_start("--optimizer.kay", "3", naming=("optimizer.kay", "optimizer.k"))
        self.refuses_start("--optimizer.learning_rate", "fast", naming=("optimizer.learning_rate", "fast", "number"))
        self.refuses_start("--run.rounds", naming=("run.rounds", "no value"))
        self.refuses_start("--model.hidden_size", "33", naming=("model.hidden_size", "33"))
        self.refuses_start("--model.family", "mamba", naming=("model.family", "mamba", "llama|qwen3|olmo2|gpt2"))
        self.refuses_start("--optimizer.learning_rate", "1e6", naming=("optimizer.learning_rate", "1e6", "0.0..10.0"))
        self.refuses_start("--peer.payload_bytes", "10", naming=("peer.payload_bytes", "10", "at least"))
        self.assertFalse((self.folder / "run/replica.snapshot").exists(), "nothing is founded")
        self.refuses_start("--optimizer.momentum_decay", "1", naming=("momentum_decay",))
        self.refuses_start("--peer.name", "123", naming=("peer.name", "123"))
        self.refuses(USAGE, "keys", "--no.such", "1", naming=("--no.such", "thinwire keys", "no configuration keys"))
        self.refuses(USAGE, "watch", "run", "--once", "--run.rounds=3", naming=("--run.rounds", "thinwire watch"))

    def test_files(self):
        self.refuses(USAGE, "start", "missing.toml", naming=("missing.toml",))
        broken = self.folder / "broken.toml"
        broken.write_text("[run]\nrounds = \n")
        self.refuses(USAGE, "start", broken, naming=("broken.toml:2",))
        broken.write_text('[run]\nrounds = "many"\n')
        self.refuses(USAGE, "start", broken, naming=("run.rounds", "many", "integer"))
        self.refuses(USAGE, "start", self.write_config(), naming=("peer.directory",))

    def test_every_family_trains(self):
        for family in ("llama", "qwen3", "olmo2", "gpt2"):
            with self.subTest(family):
                self.trained(family, 2, "--model.family", family)


class Data(common.Case):
    def refuses_text(self, path, *naming):
        self.refuses(DATA, "train", "--data", path, "--out", "run", "--rounds", "2", *TINY, naming=(path, *naming))
        self.assertFalse((self.folder / "run").exists(), "nothing is written for a text that cannot be used")

    def test_texts(self):
        self.refuses_text("missing.txt")
        (self.folder / "empty.txt").write_bytes(b"")
        self.refuses_text("empty.txt", "empty")
        (self.folder / "short.txt").write_bytes(b"x" * 32)
        self.refuses_text("short.txt", "32 bytes", "33")
        self.refuses_text(str(self.folder))

    def test_text_of_another_run(self):
        self.trained("run", 2)
        self.text.write_bytes(common.make_text(50000))
        self.refuses(DATA, "start", self.write_config(), "--dir", "run", "--run.rounds", "2", *TINY,
                     naming=("data.train", "SHA-256"))

    def test_joiner_with_another_text(self):
        founder, address = self.found("run", "--run.rounds", "10000", "--run.min_round_ms", "20")
        other = self.folder / "other.txt"
        other.write_bytes(common.make_text(50000))
        self.refuses(DATA, "join", self.line("run"), "--dir", "peer", "--data", other, naming=("other.txt", "SHA-256"))
        self.assertIsNone(founder.poll(), "the founder goes on")

    def test_a_text_is_long_enough_when_it_is_for_the_run(self):
        self.text.write_bytes(common.make_text(1000))  # 50 for validation: a row of 32, none of the default's 128
        self.trained("run", 4, "--peer.stop_at", "2")
        founder, address = self.found("run", "--run.rounds", "4", "--run.min_peers", "2")
        joiner = self.join(address, "peer")
        for process in (founder, joiner):
            code, stderr = self.finish(process)
            self.assertEqual(code, OK, stderr)
        self.text.write_bytes(common.make_text(600))
        self.refuses(DATA, "start", self.write_config(), "--dir", "short", *TINY, naming=("data.valid_fraction", "33"))


class Files(common.Case):
    def test_truncated_snapshot(self):
        run = self.trained()
        snapshot = run / "replica.snapshot"
        whole = snapshot.read_bytes()
        for size in (0, 7, len(whole) // 2, len(whole) - 1):
            snapshot.write_bytes(whole[:size])
            self.refuses(STORAGE, "start", self.write_config(), "--dir", "run", "--run.rounds", "4", *TINY,
                         naming=("replica.snapshot",))
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        snapshot.write_bytes(flipped)
        self.refuses(STORAGE, "start", self.write_config(), "--dir", "run", "--run.rounds", "4", *TINY,
                     naming=("replica.snapshot",))
        self.assertEqual(snapshot.read_bytes(), bytes(flipped), "a damaged snapshot is left for a person to look at")

    def test_damaged_private_state(self):
        run = self.trained()
        (run / "private.state").write_bytes((run / "private.state").read_bytes()[:-3])
        self.refuses(STORAGE, "start", self.write_config(), "--dir", "run", "--run.rounds", "4", *TINY,
                     naming=("private.state", "damaged"))

    def test_foreign_weights(self):
        run = self.trained()
        weights = run / "model.safetensors"
        header = b'{"stran\\u001bger":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
        weights.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
        self.refuses(STORAGE, "generate", run, "--prompt", "a", naming=("stran\\x1bger",))
        weights.write_bytes(b"GGUF" + bytes(100))
        self.refuses(STORAGE, "generate", run, "--prompt", "a", naming=("safetensors",))
        self.refuses(STORAGE, "inspect", weights, naming=("neither",))

    def test_wrong_shapes(self):
        run = self.trained()
        other = self.trained("wide", 2, "--model.intermediate_size", "48")
        (run / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
        self.refuses(STORAGE, "eval", run, "--data", self.text, naming=("shape", "48", "64"))

    def test_full_disk(self):
        """A limit on the size of files: the writes fail as on a full disk."""
        run = self.trained("run", 4, "--peer.stop_at", "2")
        before = {name: (run / name).read_bytes() for name in ("replica.snapshot", "model.safetensors")}
        limit = 20000
        self.refuses(STORAGE, "start", self.write_config(), "--dir", "run", "--run.rounds", "4", *TINY,
                     preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
                     naming=("run/", "File too large"))
        for name, bytes_before in before.items():
            self.assertEqual((run / name).read_bytes(), bytes_before, name)
        self.assertEqual([p.name for p in run.iterdir() if p.name.endswith(".tmp")], [])
        self.trained("run", 4)
        self.trained("straight", 4)
        self.assertEqual(self.digest("run"), self.digest("straight"), "with room again it goes on where it was")

    def test_what_is_printed_where_nothing_can_be_written(self):
        self.trained()
        for arguments in (("keys",), ("--help",), ("key", "run"), ("inspect", "run/replica.snapshot"), ("invite", "run"),
                          ("log", "show", "run"), ("log", "verify", "run"), ("eval", "run", "--data", self.text),
                          ("generate", "run", "--prompt", "a", "--count", "9")):
            with open("/dev/full", "w") as full:
                done = subprocess.run([common.PROGRAM, *map(str, arguments)], stdout=full, stderr=subprocess.PIPE,
                                      cwd=self.folder, timeout=common.LIMIT)
            self.refusal(STORAGE, done.returncode, done.stderr.decode(), naming=("standard output",))

    def test_the_disk_fills_up_under_the_run_log(self):
        """The log is the only file that grows beyond the limit. Of two, the second cannot decide alone: it waits, and both
        go on when there is room."""
        limit = 300000
        options = ["--run.rounds", "10000", "--run.min_peers", "2", "--run.snapshot_every", "10000"]
        founder, address = self.found("run", *options,
                                      preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        joiner = self.join(address, "peer", "--peer.reconnect_timeout_ms", "1000")
        code, stderr = self.finish(founder)
        self.refusal(STORAGE, code, stderr, naming=("run/log/", "File too large"))
        code, stderr = self.finish(joiner)
        self.refusal(RUN_LOST, code, stderr)
        stopped = self.events("run", "end")[-1]["round"]
        self.assertLessEqual(abs(self.events("peer", "end")[-1]["round"] - stopped), 1)
        until = ["--peer.stop_at", stopped + 5]
        founder, address = self.found("run", *options, *until)
        for process in (founder, self.join(address, "peer", *until)):
            code, stderr = self.finish(process)
            self.assertEqual(code, OK, stderr)
        self.assertEqual(self.digest("run"), self.digest("peer"))

    def test_a_run_log_that_lost_its_end(self):
        run = self.trained("run", 8, "--peer.stop_at", "4")
        segment = run / "log" / "00000000000000000000.log"
        segment.write_bytes(segment.read_bytes()[:-1000])
        arguments = ("start", self.write_config(), "--dir", "run", "--run.rounds", "8", *TINY)
        self.refuses(DIVERGED, *arguments, naming=("run/log", "round 4", "lost"))
        shutil.rmtree(run / "log")
        code, _, stderr = self.run_program(*arguments)
        self.assertEqual(code, OK, stderr)
        self.trained("straight", 8)
        self.assertEqual(self.digest("run"), self.digest("straight"))

    def test_a_founder_that_cannot_write_leaves_the_others_to_go_on_and_returns_later(self):
        founder, address = self.found("run", "--run.rounds", "10000", "--run.min_peers", "2", "--run.min_round_ms", "50")
        joiner = self.join(address, "peer", "--run.min_round_ms", "50")
        self.wait_for(lambda: len(self.events("peer", "round")) >= 3, "three rounds")
        state = self.folder / "run/private.state"
        while not state.is_dir():
            state.unlink(missing_ok=True)
            try:
                state.mkdir()
            except FileExistsError:
                pass  # the founder was faster
        code, stderr = self.finish(founder)
        self.refusal(STORAGE, code, stderr, naming=("private.state",))
        seen = len(self.events("peer", "round"))
        self.wait_for(lambda: len(self.events("peer", "round")) > seen + 5, "the joiner goes on alone")
        common.interrupt(joiner)
        code, stderr = self.finish(joiner, limit=30)
        self.assertEqual(code, OK, stderr)
        state.rmdir()
        until = ["--peer.stop_at", self.events("peer", "end")[-1]["round"] + 5]
        founder, address = self.found("run", "--run.rounds", "10000", "--run.min_peers", "2", *until)
        for process in (founder, self.join(address, "peer", *until)):
            code, stderr = self.finish(process)
            self.assertEqual(code, OK, stderr)
        self.assertEqual(self.digest("run"), self.digest("peer"))

    def test_folder_in_use(self):
        process, _ = self.found("run", "--run.rounds", "10000", "--run.min_round_ms", "20")
        self.refuses(USAGE, "start", self.write_config(), "--dir", "run", *TINY, naming=("run", "used by another"))
        self.assertIsNone(process.poll())

    def test_folder_that_cannot_be(self):
        self.refuses(STORAGE, "start", self.write_config(), "--dir", self.text / "run", *TINY, naming=("text.txt/run",))

    def test_a_path_that_cannot_be_looked_at(self):
        (self.folder / "loop").symlink_to("loop")
        for arguments in (("generate", "loop", "--prompt", "a"), ("eval", "loop", "--data", self.text), ("inspect", "loop"),
                          ("log", "show", "loop"), ("invite", "loop")):
            self.refuses(STORAGE, *arguments, naming=("cannot look at 'loop", "symbolic links"))


class Numbers(common.Case):
    def test_not_finite(self):
        self.refuses(NOT_FINITE, "start", self.write_config(), "--dir", "run", *TINY, "--run.rounds", "5",
                     "--model.initializer_range", "1e18", naming=("training:", "expected a finite number"))
        self.assertTrue((self.folder / "run/replica.snapshot").exists())

    def test_not_finite_keeps_the_last_good_weights_and_the_others_go_on(self):
        options = ["--run.rounds", "10000", "--run.min_peers", "2"]
        founder, address = self.found("run", *options, "--peer.stop_at", "3")
        for process in (founder, self.join(address, "peer", "--peer.stop_at", "3")):
            code, stderr = self.finish(process)
            self.assertEqual(code, OK, stderr)
        set_last_weight(self.folder / "run/replica.snapshot", struct.pack("<f", float("nan")))
        before = (self.folder / "run/model.safetensors").read_bytes()
        founder, address = self.found("run", *options)
        joiner = self.join(address, "peer")
        code, stderr = self.finish(founder)
        self.refusal(NOT_FINITE, code, stderr, naming=("loss of round",))  # 3, or 4: that they left may be one
        self.assertEqual((self.folder / "run/model.safetensors").read_bytes(), before)
        seen = len(self.events("peer", "round"))
        self.wait_for(lambda: len(self.events("peer", "round")) > seen + 5, "the joiner goes on alone")
        common.interrupt(joiner)
        code, stderr = self.finish(joiner, limit=60)
        self.assertEqual(code, OK, stderr)
        self.assertIn("left in round", stderr)


class Replicas(common.Case):
    def test_a_replica_that_differs_goes_back_to_weights_that_do_not(self):
        def run(rounds):
            founder, address = self.found("peers/0", "--run.rounds", "60", "--run.min_peers", "3", "--peer.stop_at",
                                          rounds)
            others = [self.join(address, f"peers/{i}", "--peer.stop_at", rounds) for i in (1, 2)]
            return [self.finish(process) for process in (founder, *others)]

        for code, stderr in run(4):
            self.assertEqual(code, OK, stderr)
        set_last_weight(self.folder / "peers/2/replica.snapshot", struct.pack("<f", 0.5))
        before = (self.folder / "peers/2/replica.snapshot").read_bytes()
        first, second, (third, stderr) = run(60)
        for code, others_stderr in (first, second):
            self.assertEqual(code, OK, others_stderr)
            self.assertNotIn("expected equal digests", others_stderr)
        self.assertEqual(third, OK, stderr)
        # The last snapshot is the spoilt one, so that it differs again; then the log is replayed from its beginning.
        told = [line for line in stderr.splitlines() if "expected equal digests" in line]
        self.assertEqual(len(told), 2, stderr)
        for line, where in zip(told, ("the last snapshot", "the log's first snapshot")):
            self.assertIn(where, line)
        differed = [event["round"] for event in self.events("peers/2", "round") if event["disagreeing"] > 0]
        self.assertLessEqual(differed[0], 4 + 16, "sixteen rounds look at every weight")
        self.assertEqual((self.folder / "peers/2/replica.snapshot.differs").read_bytes(), before)
        for i in (0, 1, 2):
            self.assertEqual(self.events(f"peers/{i}", "end")[-1]["round"], 60)
            self.assertEqual(self.digest("peers/0"), self.digest(f"peers/{i}"))


def set_last_weight(snapshot, value):
    """Changes a snapshot's last weight and writes the digest that makes the file whole again."""
    data = bytearray(snapshot.read_bytes()[:-32])
    at = 16
    for section in (1, 2, 3):
        tag, length = struct.unpack_from("<IQ", data, at)
        assert tag == section
        at += 12 + length
    data[at - 4:at] = value
    snapshot.write_bytes(bytes(data) + hashlib.sha256(data).digest())


class Network(common.Case):
    def test_port_in_use(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.refuses(NETWORK, "start", self.write_config(), "--dir", "run", *TINY, "--peer.address",
                         f"127.0.0.1:{port}", naming=(port,))
            for key in ("peer.status", "peer.dashboard"):
                self.refuses(NETWORK, "start", self.write_config(), "--dir", "run", *TINY, f"--{key}",
                             f"127.0.0.1:{port}", naming=(key, port))
            self.assertFalse((self.folder / "run/replica.snapshot").exists(), "no run was founded")
            founder, _ = self.found("run", "--optimizer.k", "4", "--run.rounds", "1000000")
            control = self.folder / "run/control"
            self.wait_for(control.exists, "it trains")
            founder.kill()
            founder.communicate()
            self.assertTrue(control.exists(), "what a peer that was killed leaves")
            self.refuses(NETWORK, "start", self.write_config(), "--dir", "run", *TINY, "--optimizer.k", "4",
                         "--peer.address", f"127.0.0.1:{port}", naming=(port,))
            self.assertFalse(control.exists())

    def test_unreachable_founder(self):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.know_somebody("peer")
        for options in ([], common.PLAINTEXT):
            self.refuses(NETWORK, "join", f"127.0.0.1:{port}", "--dir", "peer", "--data", self.text,
                         "--peer.connect_timeout_ms", "1500", *options, limit=30, naming=(port,))
            self.refuses(USAGE, "join", "no colon here", "--dir", "peer", "--data", self.text,
                         "--peer.connect_timeout_ms", "1500", *options, limit=30, naming=("no colon here",))

    def test_addresses(self):
        for where in ("", "127.0.0.1", "127.0.0.1:99999", ":4400", "::1:4400"):
            self.refuses(USAGE, "join", where, "--dir", "peer", naming=(f"join: '{where}'", "host:port"))
        self.assertFalse((self.folder / "peer").exists())
        self.refuses(USAGE, "start", self.write_config(), "--dir", "run", "--peer.address", "here",
                     naming=("peer.address", "here", "host:port"))
        self.trained()
        for where in ("foo:99999", "foo:0", "foo"):
            self.refuses(USAGE, "invite", "run", "--address", where, naming=(where, "1..65535"))

    def test_a_peer_in_plaintext_that_meets_tls(self):
        _, address = self.found("run", "--run.rounds", "10000", "--run.min_round_ms", "20")
        self.refuses(MISMATCH, "join", address, "--dir", "peer", "--data", self.text, "--peer.connect_timeout_ms",
                     "100000", *common.PLAINTEXT, limit=50, naming=(address, "TLS", "peer.plaintext"))

    def know_somebody(self, directory):
        """Puts a key that nobody has on the list of a joiner that was never invited."""
        self.assertEqual(self.run_program("key", directory)[0], OK)
        code, _, stderr = self.run_program("allow", directory, "A" * 43)
        self.assertEqual(code, OK, stderr)

    def test_ctrl_c_while_no_founder_answers(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            joiner = self.join(f"127.0.0.1:{silent.getsockname()[1]}", "peer", "--peer.connect_timeout_ms", "600000",
                               *common.PLAINTEXT)
            silent.settimeout(common.LIMIT)
            connection, _ = silent.accept()
            with connection:
                common.receive_frame(connection)
                common.interrupt(joiner)
                code, stderr = self.finish(joiner, limit=30)
                self.assertEqual(code, OK, stderr)
                self.assertIn("before it entered", stderr)

    def test_founder_that_is_something_else(self):
        """A server that answers garbage, and one that says nothing."""
        self.know_somebody("peer")
        http = b"HTTP/1.1 400 Bad Request\r\n\r\n" * 20
        # Only what answers a TLS hello with something else is surely no peer; the rest may come to answer yet.
        for answer, options, expected in ((http, common.PLAINTEXT, NETWORK), (b"", common.PLAINTEXT, NETWORK),
                                          (http, [], MISMATCH), (b"", [], NETWORK)):
            with self.subTest(answer[:8], options=options), socket.create_server(("127.0.0.1", 0)) as server:
                ended = threading.Event()
                thread = threading.Thread(target=answer_all, args=(server, answer, ended))
                thread.start()
                code, _, stderr = self.run_program("join", f"127.0.0.1:{server.getsockname()[1]}", "--dir", "peer",
                                                   "--data", self.text, "--peer.connect_timeout_ms", "2000", *options,
                                                   limit=30)
                ended.set()
                thread.join()
                self.refusal(expected, code, stderr)

    def test_founder_with_another_version(self):
        """A founder of a later version reads the stable beginning of a hello and refuses the rest."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(common.LIMIT)
            heard = []

            def refuse_one():
                connection, _ = server.accept()
                with connection:
                    heard.append(common.receive_frame(connection))
                    text = "the peer speaks protocol 1, the run protocol 99"
                    connection.sendall(common.frame(common.REFUSE, b"\x01" + common.wire_text(text)))
                    connection.recv(1)

            thread = threading.Thread(target=refuse_one)
            thread.start()
            self.refuses(MISMATCH, "join", f"127.0.0.1:{server.getsockname()[1]}", "--dir", "peer", "--data",
                         self.text, *common.PLAINTEXT, limit=30, naming=("refused", "protocol 99"))
            thread.join()
        kind, body = heard[0]
        self.assertEqual(kind, common.HELLO)
        self.assertEqual(body[:4], b"TWIR")

    def test_peer_with_another_version(self):
        """A peer of a later version, whose hello goes on in a way that this founder does not know."""
        founder, address = self.found("run", "--run.rounds", "10000", "--run.min_round_ms", "20", *common.PLAINTEXT)
        host, port = address.split(":")
        hello = b"TWIR" + struct.pack("<H", 99) + common.wire_text("9.0.0") + b"what version 99 says next"
        with socket.create_connection((host, int(port)), timeout=common.LIMIT) as peer:
            peer.sendall(common.frame(common.HELLO, hello))
            kind, body = common.receive_frame(peer)
            self.assertEqual(kind, common.REFUSE)
            self.assertEqual(body[0], 1, "the code for another version")
            for word in (b"protocol 99", b"9.0.0", b"protocol 5"):
                self.assertIn(word, body)
            self.assertEqual(peer.recv(1), b"", "and the connection ends")
        seen = len(self.events("run", "round"))
        self.wait_for(lambda: len(self.events("run", "round")) > seen, "the founder goes on")

    def test_garbage_on_the_port(self):
        founder, address = self.found("run", "--run.rounds", "60", "--run.min_round_ms", "20")
        host, port = address.split(":")
        held = []
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(4096), b"\xff" * 64, b"", b"TW"):
            connection = socket.create_connection((host, int(port)))
            connection.sendall(garbage)
            held.append(connection)
        joiner = self.join(address, "peer")
        for process in (founder, joiner):
            code, stderr = self.finish(process)
            self.assertEqual(code, OK, stderr)
        for connection in held:
            connection.close()
        self.assertEqual(self.digest("run"), self.digest("peer"))

    def test_peer_with_another_configuration(self):
        founder, address = self.found("run", "--run.rounds", "10000", "--run.min_round_ms", "20")
        self.refuses(MISMATCH, "join", self.line("run"), "--dir", "peer", "--data", self.text, "--optimizer.k", "5",
                     naming=("optimizer.k", "5", "8"))
        for key, value, of_the_run in (("run.min_round_ms", "30", "20"), ("peer.takeover_ms", "9000", "5000")):
            self.refuses(MISMATCH, "join", self.line("run"), "--dir", key, "--data", self.text, "--" + key, value,
                         naming=(key, value, of_the_run))
        self.assertIsNone(founder.poll(), "the founder goes on")

    def test_peer_of_another_run(self):
        founder, address = self.found("run", "--run.rounds", "10000", "--run.min_round_ms", "20")
        other, other_address = self.found("other", "--run.rounds", "10000", "--run.min_round_ms", "20",
                                          "--run.seed", "2")
        peer = self.join(address, "peer", "--peer.stop_at", "1")
        code, stderr = self.finish(peer)
        self.assertEqual(code, OK, stderr)
        self.refuses(MISMATCH, "join", self.line("other"), "--dir", "peer", "--data", self.text,
                     naming=("belongs to run", "expected another folder"))
        # Its log names the peers of its own run.
        code, stderr = self.finish(self.join(other_address, "peer", "--peer.stop_at", "2"))
        self.assertEqual(code, OK, stderr)
        self.assertIn("left in round", stderr)
        (self.folder / "fresh").mkdir()
        shutil.copy(self.folder / "peer/access", self.folder / "fresh/access")
        self.refuses(MISMATCH, "join", other_address, "--dir", "fresh", "--data", self.text,
                     naming=("not trusted", "it has key"))
        self.assertIsNone(founder.poll())
        self.assertIsNone(other.poll())

    def test_founder_lost_and_nothing_lost_with_it(self):
        founder, address = self.found("run", "--run.rounds", "10000", "--run.min_round_ms", "20", "--run.min_peers", "2")
        joiner = self.join(address, "peer", "--peer.reconnect_timeout_ms", "1000")
        self.wait_for(lambda: len(self.events("peer", "round")) >= 3, "three rounds")
        founder.kill()
        self.finish(founder)
        code, stderr = self.finish(joiner, limit=30)
        self.refusal(RUN_LOST, code, stderr)
        stopped = self.events("peer", "end")[-1]["round"]
        self.assertGreaterEqual(stopped, 3)

        until = stopped + 10
        founder, address = self.found("run", "--run.rounds", "10000", "--run.min_peers", "2", "--peer.stop_at", until)
        joiner = self.join(address, "peer", "--peer.stop_at", until)
        for process in (founder, joiner):
            code, stderr = self.finish(process)
            self.assertEqual(code, OK, stderr)
        self.assertEqual(self.digest("run"), self.digest("peer"))


def answer_all(server, answer, ended):
    """Accepts and answers until told to end."""
    server.settimeout(0.1)
    connections = []
    while not ended.is_set():
        try:
            connection, _ = server.accept()
        except TimeoutError:
            continue
        connections.append(connection)
        if answer:
            try:
                connection.sendall(answer)
            except OSError:
                pass
    for connection in connections:
        connection.close()


if __name__ == "__main__":
    common.main()
