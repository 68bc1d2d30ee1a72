"""kill -9, SIGSTOP, departures and arrivals without end: the run goes on, and its replicas stay equal.

    soak.py PROGRAM [--seconds N] [--seed N] [--any-port] [--json FILE]

What is done, to whom and how long it lasts is drawn from the seed. A majority of the peers is always up, except where
all are killed at once. Peers come back where they listened before. Prints how long recoveries took.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import random
import signal
import statistics
import subprocess
import sys
import time

import common
from common import OK, PROGRAM, TINY

RUN = ["--run.rounds", "1000000", "--run.min_round_ms", "100", "--run.snapshot_every", "200"]
TIMES = ["--peer.takeover_ms", "1000", "--peer.min_deadline_ms", "500", "--peer.connect_timeout_ms", "60000",
         "--peer.status", "127.0.0.1:0"]
PEERS, MOST = 5, 8  # at first; with those who join later
STUCK = 30.0  # seconds without a round while a majority is up


class Peer:
    def __init__(self, number, folder):
        self.number, self.folder = number, folder / str(number)
        self.process = None
        self.state = "new"    # up, stopped, leaving, down
        self.until = 0.0      # when it is to continue or to start again
        self.rounds, self.ends, self.offset = [], [], 0

    def read(self):
        """Takes what its metrics.jsonl says beyond what was read before."""
        path = self.folder / "metrics.jsonl"
        if not path.exists():
            return
        with open(path, "rb") as file:
            file.seek(self.offset)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self.offset += whole
        for line in data[:whole].splitlines():
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue  # the line that a SIGKILL cut
            if event["event"] == "round":
                self.rounds.append(event)
            elif event["event"] == "end":
                self.ends.append(event)

    def contribution_after(self, moment):
        return next((r["time"] for r in self.rounds if r["time"] > moment and r["own_included"]), None)


class Soak(common.Case):
    def setUp(self):
        super().setUp()
        self.random = random.Random(OPTIONS.seed)
        self.peers, self.faults, self.returns = [], [], []
        self.port = common.free_port()
        self.config = self.write_config()

    def log(self, line):
        print(f"{time.monotonic() - self.began:7.2f} {line}", file=sys.stderr, flush=True)

    # ------------------------------------------------------------------------------------------------------ processes

    def up(self, *states):
        return [peer for peer in self.peers if peer.state in (states or ("up",))]

    def launch(self, peer, *arguments):
        with open(self.folder / f"{peer.number}.stderr", "ab") as stderr:
            peer.process = subprocess.Popen([PROGRAM, *map(str, arguments)], stdin=subprocess.DEVNULL,
                                            stdout=subprocess.DEVNULL, stderr=stderr, cwd=self.folder)
        self.started.append(peer.process)
        peer.state = "up"

    def start(self, peer):
        """For the first time, or again."""
        if peer.number == 0:
            return self.launch(peer, "start", self.config, "--dir", "0", "--peer.address", f"127.0.0.1:{self.port}",
                               *TINY, *RUN, *TIMES, "--run.max_peers", MOST)
        known = (peer.folder / "log").exists()
        # A peer that was away does not yet have the keys of those who joined meanwhile on its list.
        others = [p for p in self.up() if p is not peer and (p.folder / "address").exists() and
                  (p.number < PEERS or not known)]
        via = self.random.choice(others) if others else self.peers[0]
        where = (via.folder / "address").read_text().strip() if known else self.line(via.number)
        self.launch(peer, "join", where, "--dir", peer.number, "--data", self.text, "--peer.threads", "1",
                    *([] if OPTIONS.any_port else ["--peer.listen", f"127.0.0.1:{self.port + peer.number}"]), *TIMES)

    def add(self):
        peer = Peer(len(self.peers), self.folder)
        self.peers.append(peer)
        self.start(peer)
        return peer

    def complaint(self, peer):
        """What it says of itself and of the run."""
        last = [{key: r[key] for key in ("round", "term", "contributors", "time")} for r in peer.rounds[-2:]]
        status = ""
        if peer.state == "up":
            watched = self.run_program("watch", peer.number, "--once", "--json")[1]
            told = json.loads(watched)["watched"][0]["status"] if watched else None
            if told:
                names = ("peer_id", "phase", "round", "term", "sequencer", "last_refusal")
                awaited = [other["name"] for other in told["peers"] if other["awaited"]]
                away = [other["name"] for other in told["peers"] if not other["present"]]
                status = f"{ {name: told[name] for name in names} } awaits {awaited}, away {away}\n"
        return (f"peer {peer.number}, {peer.state}, {last}\n{status}"
                + (self.folder / f"{peer.number}.stderr").read_text()[-1500:])

    def look(self):
        """Nobody ended that was not told to, and rounds are closed."""
        for peer in self.peers:
            peer.read()
            if peer.state in ("up", "stopped") and peer.process.poll() is not None:
                self.fail(f"ended with {peer.process.returncode}: {self.complaint(peer)}")
        newest = max((peer.rounds[-1]["time"] for peer in self.peers if peer.rounds), default=time.time())
        now = time.time()
        if now - max([newest, *(r["time"] for r in self.returns[-3:])]) > STUCK:
            self.fail("no round any more: " + "\n".join(map(self.complaint, self.peers)))

    def wait(self, holds, what, limit=common.LIMIT):
        def looked():
            self.look()
            self.revive()
            return holds()
        self.wait_for(looked, what, limit)

    def revive(self):
        """Those whose time has come go on."""
        for peer in self.peers:
            if peer.state not in ("stopped", "down", "leaving") or time.monotonic() < peer.until:
                continue
            if peer.state == "stopped":
                peer.process.send_signal(signal.SIGCONT)
                peer.state = "up"
                self.returns.append({"what": "SIGCONT", "peer": peer.number, "time": time.time()})
            elif peer.process.poll() is not None:
                self.assertEqual(peer.process.returncode, OK if peer.state == "leaving" else -signal.SIGKILL,
                                 self.complaint(peer))
                self.returns.append({"what": "restart", "peer": peer.number, "time": time.time()})
                self.start(peer)

    # --------------------------------------------------------------------------------------------------------- faults

    def sequencer(self):
        for peer in self.random.sample(self.up(), len(self.up())):
            code, output, _ = self.run_program("ctl", peer.number, "status", "--json")
            if code != OK:
                continue  # it is only just starting
            answer = json.loads(output)
            if answer["self"] == answer["sequencer"]:
                return peer
            names = {p["id"]: p["name"] for p in answer["peers"]}
            for other in self.up():
                if other.rounds and other.rounds[-1]["peer"] == names.get(answer["sequencer"]):
                    return other
        return None

    def victim(self, role):
        """Somebody who is up, of this role if there is one; who it is and what it is."""
        sequencer = self.sequencer()
        named = {"sequencer": [sequencer] if sequencer else [], "founder": [self.peers[0]],
                 "member": [peer for peer in self.peers[1:] if peer is not sequencer]}
        able = [peer for peer in named[role] if peer.state == "up"] or self.up()
        peer = self.random.choice(able)
        return peer, "sequencer" if peer is sequencer else "founder" if peer.number == 0 else "member"

    def strike(self, kind, role, lasts):
        peer, role = self.victim(role)
        fault = {"what": kind, "role": role, "peer": peer.number, "time": time.time()}
        number = {"SIGKILL": signal.SIGKILL, "SIGSTOP": signal.SIGSTOP, "SIGINT": signal.SIGINT}[kind]
        peer.process.send_signal(number)
        peer.state = {"SIGKILL": "down", "SIGSTOP": "stopped", "SIGINT": "leaving"}[kind]
        peer.until = time.monotonic() + lasts
        fault["survivors"] = [other.number for other in self.up()]
        self.faults.append(fault)
        self.log(f"{kind} {role} {peer.number} for {lasts:.1f} s, {len(self.up())} of {len(self.peers)} up")

    def kill_all(self):
        moment = time.time()
        for peer in self.peers:
            peer.until = time.monotonic()
            if peer.process.poll() is None:
                peer.process.kill()
                peer.state = "down"
        for peer in self.peers:
            peer.process.wait()
        self.faults.append({"what": "SIGKILL of all", "role": "all", "peer": None, "time": moment,
                            "survivors": [peer.number for peer in self.peers]})
        self.log("SIGKILL of all")

    def storm(self, seconds):
        end, all_killed = time.monotonic() + seconds, False
        while time.monotonic() < end:
            pause = time.monotonic() + self.random.uniform(0.5, 4.0)
            self.wait(lambda: time.monotonic() > pause, "time goes by")
            kind = self.random.choices(("SIGKILL", "SIGSTOP", "SIGINT", "join"), (60, 20, 8, 12))[0]
            role = self.random.choice(("sequencer", "founder", "member"))
            lasts = self.random.uniform(0.2, 5.0)
            if not all_killed and time.monotonic() > end - seconds / 2:
                all_killed = True
                self.kill_all()
            elif kind == "join" and len(self.peers) < MOST:
                self.wait(lambda: any((peer.folder / "control").exists() for peer in self.up()), "somebody can invite")
                peer = self.add()
                self.returns.append({"what": "join", "peer": peer.number, "time": time.time()})
                self.log(f"{peer.number} joins")
            else:
                kind = "SIGKILL" if kind == "join" else kind
                # Those who are up after it are a majority of all that were ever let in.
                self.wait(lambda: len(self.taking_part()) > len(self.peers) // 2 + 1, "a majority is up without one")
                self.strike(kind, role, lasts)

    def taking_part(self):
        """Up, and took part since it last came."""
        back = {r["peer"]: r["time"] for r in self.returns}
        return [peer for peer in self.up() if peer.contribution_after(back.get(peer.number, 0)) is not None]

    # ----------------------------------------------------------------------------------------------------- afterwards

    def table(self):
        """{what: seconds}: to the end of the first round that began after a fault, at the slowest of those who were not
        struck themselves; from a return to the first contribution in a record."""
        found = {}
        for fault in self.faults:
            slowest = []
            for number in fault["survivors"]:
                struck = min((f["time"] for f in self.faults if f["time"] > fault["time"] and
                              f["peer"] in (number, None)), default=float("inf"))
                after = [r["time"] for r in self.peers[number].rounds if r["time"] > fault["time"]]
                if len(after) > 1 and after[1] < struck:
                    slowest.append(after[1] - fault["time"])
            if slowest:
                found.setdefault(f"{fault['what']}, {fault['role']}", []).append(max(slowest))
        for back in self.returns:
            peer = self.peers[back["peer"]]
            struck = min((f["time"] for f in self.faults if f["time"] > back["time"] and
                          f["peer"] in (peer.number, None)), default=float("inf"))
            at = peer.contribution_after(back["time"])
            if at is not None and at < struck:
                found.setdefault(f"{back['what']} to first contribution", []).append(at - back["time"])
        return found

    def test_the_run_goes_on(self):
        self.began = time.monotonic()
        self.add()
        self.wait(lambda: (self.peers[0].folder / "control").exists(), "the founder listens")
        for _ in range(PEERS - 1):
            self.add()
        self.wait(lambda: all(peer.rounds and peer.rounds[-1]["contributors"] == PEERS for peer in self.peers),
                  "all contribute")
        self.storm(OPTIONS.seconds)
        self.wait(lambda: len(self.taking_part()) == len(self.peers), "all are back")
        self.log("all are back")
        code, _, stderr = self.run_program("ctl", "1", "stop")
        self.assertEqual(code, OK, stderr)
        for peer in self.peers:
            self.assertEqual(peer.process.wait(common.LIMIT), OK, self.complaint(peer))
            peer.state = "ended"
            peer.read()

        ends = {(peer.ends[-1]["round"], peer.ends[-1]["replica_digest"]) for peer in self.peers}
        self.assertEqual(len(ends), 1, f"equal weights in the same round: {ends}")
        for peer in self.peers:
            # A round that was applied and is not known to be final after a kill is finished again, without a loss.
            numbers = [r["round"] for r in peer.rounds if r["loss"] is not None]
            self.assertEqual(sorted(set(numbers)), numbers, f"rounds of {peer.number}: in order, none twice")
            self.assertEqual(sum(r["disagreeing"] + r["rejected"] for r in peer.rounds), 0)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            proofs = pool.map(lambda peer: self.run_program("log", "verify", peer.number, limit=600), self.peers)
            for code, _, stderr in proofs:
                self.assertEqual(code, OK, stderr)
        losses = [r["loss"] for r in self.peers[0].rounds if r["loss"] is not None]
        self.assertLess(statistics.mean(losses[-10:]), statistics.mean(losses[:10]) - 0.5)
        for process in self.started:
            self.assertFalse(pathlib.Path(f"/proc/{process.pid}/fd").exists(), "no process is left")
        self.show()

    def show(self):
        rows = {}
        for what, seconds in sorted(self.table().items()):
            ordered = sorted(seconds)
            rows[what] = {"count": len(ordered), "median": statistics.median(ordered),
                          "p90": ordered[(len(ordered) * 9 + 9) // 10 - 1], "max": ordered[-1]}
        total = self.peers[0].ends[-1]["round"]
        print(f"{len(self.faults)} faults, {len(self.returns)} returns, {total} rounds, {len(self.peers)} peers, "
              f"seed {OPTIONS.seed}", file=sys.stderr)
        print(f"{'seconds':40}{'count':>6}{'median':>8}{'p90':>8}{'max':>8}", file=sys.stderr)
        for what, row in rows.items():
            print(f"{what:40}{row['count']:6}{row['median']:8.2f}{row['p90']:8.2f}{row['max']:8.2f}", file=sys.stderr)
        if OPTIONS.json:
            OPTIONS.json.write_text(json.dumps({"seconds": OPTIONS.seconds, "seed": OPTIONS.seed, "rounds": total,
                                                "faults": self.faults, "returns": self.returns, "table": rows}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--any-port", action="store_true", help="another port after each start")
    parser.add_argument("--json", type=lambda name: pathlib.Path(name).resolve())
    OPTIONS = parser.parse_args()
    del sys.argv[1:]
    common.unittest.main(verbosity=2)
