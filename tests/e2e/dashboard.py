"""The dashboard in a real browser (Debian's chromium, chromium-driver, python3-selenium): a live run, a finished one, a
server that goes and comes, people who use a keyboard or a telephone. Without a browser only what programs see is tested."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import unittest

import common
from common import NETWORK, OK, TINY, USAGE

try:
    import selenium
except ImportError:  # the interpreter may be another one than Debian's
    sys.path.append("/usr/lib/python3/dist-packages")
try:
    from selenium import webdriver
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.chrome.service import Service
except ImportError:
    webdriver = None
BROWSER, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
MISSING = "needs chromium, chromium-driver and python3-selenium" if not (webdriver and BROWSER and DRIVER) else None

HOSTILE = "<img src=x onerror=\"window.owned=1\">"
LONG = ["--run.rounds", "1000000", "--run.min_round_ms", "60", "--run.eval_every", "20"]


class Dashboard(common.Case):
    def address_of(self, directory):
        path = self.folder / directory / "dashboard.address"
        self.wait_for(lambda: path.exists() and path.read_text().endswith("\n"), f"{directory} has a dashboard")
        return path.read_text().strip()

    def get(self, where, path, status=200):
        host, port = where.rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=common.LIMIT)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            self.assertEqual(answer.status, status)
            return answer.read().decode()

    def snapshot(self, where):
        return json.loads(self.get(where, "/snapshot"))

    def serve(self, *arguments):
        """`thinwire dashboard`; (process, HOST:PORT)."""
        process = self.spawn("dashboard", *arguments)
        line = process.stdout.readline().decode()
        if not line:
            self.fail("the dashboard ended: " + self.finish(process)[1])
        return process, re.fullmatch(r"http://(.+)/\n", line)[1]


class Programs(Dashboard):
    def test_settings(self):
        start = ("start", self.write_config(), "--dir", "run", *TINY, "--run.rounds", "1")
        self.refuses(USAGE, *start, "--dashboard", "0.0.0.0:0", naming=("peer.dashboard", "0.0.0.0:0", "peer.dashboard_public"))
        self.refuses(USAGE, *start, "--dashboard", "nonsense", naming=("peer.dashboard", "nonsense", "HOST:PORT"))
        self.refuses(USAGE, *start, "--peer.coordinates", "95, 0", naming=("peer.coordinates", "95, 0", "latitude"))
        self.refuses(USAGE, *start, "--peer.place", "x" * 65, naming=("peer.place", "64 bytes"))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.refuses(NETWORK, *start, "--dashboard", f"127.0.0.1:{port}", naming=("peer.dashboard", port))
        code, _, stderr = self.run_program(*start, "--dashboard", "0.0.0.0:0", "--peer.dashboard_public", "true")
        self.assertEqual(code, OK, stderr)
        self.assertFalse((self.folder / "run/dashboard.address").exists())
        self.refuses(USAGE, "dashboard", "nobody here", naming=("nobody here", "HOST:PORT"))
        self.refuses(USAGE, "dashboard", self.folder, naming=(self.folder, "metrics.jsonl"))
        self.refuses(USAGE, "dashboard", "run", "--listen", "0.0.0.0:0", naming=("--listen", "0.0.0.0:0", "--public"))
        self.refuses(USAGE, "dashboard", "run", "127.0.0.1:1", naming=("run", "one folder"))

    def test_events_go_on_where_a_reader_was(self):
        founder, _ = self.found("run", *LONG, "--dashboard", "127.0.0.1:0")
        where = self.address_of("run")
        self.wait_for(lambda: self.snapshot(where)["progress"]["round"] >= 3, "it trains")

        def events(last=None, count=3):
            with socket.create_connection(where.rsplit(":", 1), timeout=common.LIMIT) as connection:
                connection.sendall(b"GET /events HTTP/1.1\r\n" + (b"Last-Event-ID: %d\r\n" % last if last else b"") + b"\r\n")
                stream = connection.makefile("rb")
                while stream.readline() != b"\r\n":
                    pass
                found = []
                while len(found) < count:
                    line = stream.readline()
                    self.assertTrue(line)
                    if line.startswith(b"id: "):
                        data = stream.readline()
                        self.assertTrue(data.startswith(b"data: "))
                        found.append((int(line[4:]), json.loads(data[6:])))
                return found

        first = events()
        self.assertEqual(first[0][1], {"reset": True})
        again = events(first[1][0], 2)
        self.assertEqual(again[0][0], first[2][0], "nothing is lost between two connections")
        self.assertEqual(again[0][1]["rows"], first[2][1]["rows"])
        self.assertEqual(events(first[1][0] - 10**9, 1)[0][1], {"reset": True})
        self.assertEqual(events(first[1][0] + 10**9, 1)[0][1], {"reset": True})
        rows = [row[0] for _, update in first[1:] for row in update["rows"]]
        self.assertEqual(rows, list(range(rows[0], rows[0] + len(rows))))
        self.get(where, "/model.safetensors", 404)
        self.assertIn("thinwire_round ", self.get(where, "/metrics"))
        common.interrupt(founder)
        self.assertEqual(self.finish(founder)[0], OK)

    def test_train_shows_one_page(self):
        code, _, stderr = self.run_program("train", "--data", self.text, "--out", "all", "--peers", "2", "--rounds", "4", *TINY,
                                           "--dashboard", f"127.0.0.1:{common.free_port()}", "--tensorboard", "events")
        self.assertEqual(code, OK, stderr)
        self.assertEqual(len(list((self.folder / "events").iterdir())), 1, "neither the other peer nor the one alone wants port or folder")

    def test_a_thousand_viewers_who_do_not_read(self):
        founder, _ = self.found("run", "--run.rounds", "1000000", "--dashboard", "127.0.0.1:0")
        where = self.address_of("run")
        memory = lambda: int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{founder.pid}/status").read_text())[1])
        self.wait_for(lambda: self.snapshot(where)["progress"]["round"] >= 20, "it trains")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096) if hard > 0 else 4096, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        with contextlib.ExitStack() as stack:
            before = memory()
            for _ in range(1000):
                one = stack.enter_context(socket.socket())
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                one.connect(tuple(where.rsplit(":", 1)[:1]) + (int(where.rsplit(":", 1)[1]),))
                one.sendall(b"GET /events HTTP/1.1\r\n\r\n")
            held = self.snapshot(where)["progress"]["round"]
            self.wait_for(lambda: self.snapshot(where)["progress"]["round"] > held + 200, "the run goes on")
            self.assertLess(memory() - before, 48 * 1024, "kB for all of them")
        common.interrupt(founder)
        self.assertEqual(self.finish(founder)[0], OK)

    def test_addresses_and_what_is_never_told(self):
        founder, address = self.found("run", *LONG, "--status", "127.0.0.1:0", "--peer.name", HOSTILE, "--peer.place", "Bern",
                                      "--peer.coordinates", "46.9, 7.4", "--peer.hardware", "abacus")
        joiner = self.join(address, "second", "--name", "second", "--dashboard", "127.0.0.1:0", "--run.min_round_ms", "60")
        status = self.folder / "run/status.address"
        self.wait_for(status.exists, "a status")
        _, where = self.serve("127.0.0.1:1", status.read_text().strip())
        own = self.address_of("second")
        placed = lambda all: [(p["place"], p["hardware"], p["latitude"]) for p in all["people"] if p["place"]]
        for at in (where, own):
            self.wait_for(lambda: len(self.snapshot(at)["rows"]) > 3 and placed(self.snapshot(at)) == [("Bern", "abacus", 46.9)],
                          "rounds, and what the founder tells of itself, reach " + at)
        _, output, _ = self.run_program("key", "run")
        key = re.search(r"[A-Za-z0-9_-]{43}", output)[0]
        ids = [p["id"] for p in json.loads(self.get(status.read_text().strip(), "/status"))["peers"]]
        for at in (where, own):
            text = self.get(at, "/snapshot")
            for secret in (key, address, address.rsplit(":", 1)[1] + '"', str(self.folder), *ids):
                self.assertNotIn(secret, text)
        for process in (founder, joiner): common.interrupt(process)
        for process in (founder, joiner): self.assertEqual(self.finish(process)[0], OK)


@unittest.skipIf(MISSING, MISSING)
class Browser(Dashboard):
    @classmethod
    def setUpClass(cls):
        options = webdriver.ChromeOptions()
        options.binary_location = BROWSER
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        cls.browser = webdriver.Chrome(service=Service(DRIVER), options=options)
        cls.browser.set_script_timeout(60)
        cls.addClassCleanup(cls.browser.quit)

    def open(self, where, width=1280, height=900, **media):
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                     {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [
            {"name": name.replace("_", "-"), "value": value} for name, value in media.items()]})
        self.browser.get(f"http://{where}/")
        self.browser.get_log("browser")

    def script(self, text, *arguments):
        return self.browser.execute_script(text, *arguments)

    def shows(self, id):
        return self.script("return document.getElementById(arguments[0]).textContent", id)

    def round(self):
        return int(re.search(r"round ([\d,]+)", self.shows("how-far"))[1].replace(",", ""))

    def states(self):
        """{name: state}."""
        return dict(self.script("return [...document.querySelectorAll('#peers tbody tr')].map(r => [r.cells[0].children[0]"
                                ".textContent, r.cells[1].textContent])"))

    def picture(self):
        """The curve as it is drawn, without what the pointer adds."""
        return self.browser.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done("
            "document.getElementById('chart').toDataURL())))")

    def calm(self):
        """No policy was broken, nothing failed, nothing that a peer said was run."""
        told = [line for line in self.browser.get_log("browser") if line["level"] == "SEVERE"]
        self.assertEqual(told, [])
        self.assertIsNone(self.script("return window.owned || null"))

    def test_a_live_run_with_a_peer_that_is_killed_and_returns(self):
        founder, address = self.found("run", *LONG, "--run.min_peers", "4", "--peer.name", HOSTILE, "--peer.place",
                                      "</script><script>window.owned=1</script>", "--dashboard", "127.0.0.1:0")
        joiners = {name: self.join(address, name, "--name", name, "--peer.coordinates", "10, 20", "--run.min_round_ms", "60",
                                   "--peer.place", "Gao") for name in ("second", "third", "fourth")}
        where = self.address_of("run")
        self.open(where)
        self.wait_for(lambda: self.shows("status") == "live" and self.round() > 3, "it is live")
        self.wait_for(lambda: self.states() == dict.fromkeys((HOSTILE, *joiners), "present"), "all four are shown")
        self.assertIn("</script><script>window.owned=1</script>", self.shows("peers"))
        self.assertEqual(len(self.script("return [...document.querySelectorAll('#world .at')]")), 3)
        before, drawn = self.round(), self.picture()
        self.wait_for(lambda: self.round() > before and self.picture() != drawn, "the curve moves")
        self.wait_for(lambda: re.fullmatch(r"\d\.\d{4}", self.shows("validation")), "an evaluation")
        self.wait_for(lambda: self.script("return document.querySelectorAll('#samples blockquote').length") > 0, "a sample")
        self.assertIn("times less", self.shows("thin"))
        self.assertRegex(self.shows("agree"), r"\A\d of \d agree\Z")

        # The page was here from the beginning: who was there when comes with the first look back.
        slider = self.browser.find_element(By.ID, "time")
        slider.send_keys(Keys.ARROW_LEFT)
        self.wait_for(lambda: self.shows("status") == "replay" and self.states() == dict.fromkeys((HOSTILE, *joiners), "present"),
                      "all four were there")
        tokens = lambda: self.script("return [...document.querySelectorAll('#peers tbody tr')].map(r => r.cells[2].textContent)")
        self.wait_for(lambda: len(tokens()) == 4 and "0" not in tokens(), "with what they had done")
        slider.send_keys(Keys.END)
        self.assertEqual(self.run_program("ctl", "run", "pause")[0], OK)
        self.wait_for(lambda: self.shows("status") == "paused" and "the run was paused" in self.shows("events"), "it is paused")
        self.wait_for(lambda: json.loads(self.get(where, "/status"))["paused_seconds"] > 1, "that is told")
        self.assertEqual(self.run_program("ctl", "run", "resume")[0], OK)
        self.wait_for(lambda: self.shows("status") == "live" and "the run goes on, after" in self.shows("events"), "it goes on")
        self.assertIn("Paused once", self.shows("cost-note"))

        joiners["third"].send_signal(signal.SIGKILL)
        self.wait_for(lambda: self.states()["third"] == "gone", "it is gone")
        self.wait_for(lambda: "third was lost" in self.shows("events"), "that is marked")
        self.wait_for(lambda: "third was lost" in self.shows("announcer"), "and said")
        joiners["third"] = self.join(address, "third", "--name", "third", "--run.min_round_ms", "60")
        self.wait_for(lambda: self.states()["third"] == "present", "it is back")
        self.wait_for(lambda: "third returned after" in self.shows("events"), "that is marked")
        self.assertIn("1 of 1 came back", self.shows("recovered"))
        common.interrupt(joiners["second"])
        self.wait_for(lambda: self.states()["second"] == "left", "one says goodbye")
        self.wait_for(lambda: "second left" in self.shows("events"), "that is marked")
        self.calm()
        for process in (founder, joiners["third"], joiners["fourth"]): common.interrupt(process)
        for process in (founder, *joiners.values()): self.assertEqual(self.finish(process)[0], OK)
        self.wait_for(lambda: "connection lost" in self.shows("status"), "the page says that nobody is there")
        _, where = self.serve("run")
        self.wait_for(lambda: not self.snapshot(where)["loading"], "the folder is read")
        marks = [(mark["kind"], mark["seconds"]) for mark in self.snapshot(where)["marks"]]
        self.assertEqual([kind for kind, _ in marks if kind in ("paused", "resumed", "returned")], ["paused", "resumed", "returned"])
        self.assertGreater(dict(marks)["resumed"], 1)

    def test_a_server_that_dies_and_comes_back(self):
        founder, _ = self.found("run", *LONG)
        self.wait_for(lambda: len(self.events("run", "round")) > 3, "it trains")
        server, where = self.serve("run")
        self.open(where)
        self.wait_for(lambda: self.shows("status") == "not running", "no status is served: nobody knows whether it runs")
        before = self.round()
        self.wait_for(lambda: self.round() > before, "the folder is followed")
        server.kill()
        self.wait_for(lambda: "connection lost" in self.shows("status"), "the loss shows")
        self.wait_for(lambda: "may be old" in self.shows("announcer"), "and is said")
        held = self.round()
        self.wait_for(lambda: len(self.events("run", "round")) > held + 5, "rounds that the page does not see")
        server, _ = self.serve("run", "--listen", where)
        self.wait_for(lambda: "connection lost" not in self.shows("status") and self.round() > held + 5, "it heals by itself")
        rows = self.script("return fetch('snapshot').then(a => a.json()).then(s => s.rows.map(r => r[0]))")
        self.assertEqual(rows, list(range(len(rows))))
        common.interrupt(founder)
        self.assertEqual(self.finish(founder)[0], OK)
        self.wait_for(lambda: self.shows("status") == "stopped", "that it was stopped is shown")

    def finished(self):
        """A run of one peer that is over."""
        self.trained("run", 60, "--run.eval_every", "20", "--peer.name", "only")
        _, where = self.serve("run")
        return where

    def test_a_finished_run_is_replayed(self):
        where = self.finished()
        self.open(where)
        self.wait_for(lambda: self.shows("status") == "finished", "it is over")
        self.assertEqual((self.shows("percent"), self.round(), self.shows("left")), ("100", 60, "done"))
        whole = self.picture()
        samples = self.shows("samples")
        slider = self.browser.find_element(By.ID, "time")
        slider.send_keys(Keys.HOME)
        self.wait_for(lambda: self.shows("status") == "replay" and self.round() == 1, "the first round")
        for _ in range(29):
            slider.send_keys(Keys.ARROW_RIGHT)
        self.wait_for(lambda: self.round() == 30, "round 30")
        self.assertEqual((self.shows("percent"), self.shows("time-text")), ("50.0", "round 29"))
        self.assertEqual(self.shows("validation-note"), "after round 20")
        rounds = self.events("run", "round")[:30]
        self.assertIn(f"{round(100 * rounds[-1]['compute_seconds'] / sum(r['seconds'] for r in rounds))} % computing",
                      self.shows("waiting-note"))
        self.assertNotEqual(self.shows("samples"), samples)
        self.assertNotEqual(self.picture(), whole)
        slider.send_keys(Keys.END)
        self.wait_for(lambda: self.shows("status") == "finished" and self.picture() == whole, "the end again")
        self.browser.find_element(By.ID, "play").click()
        self.wait_for(lambda: self.shows("status") == "replay", "it plays")
        self.browser.find_element(By.ID, "play").click()
        self.calm()

        with self.subTest("zoom"):
            slider.send_keys(Keys.END)
            self.wait_for(lambda: self.shows("status") == "finished", "all")
            chart = self.browser.find_element(By.ID, "chart")
            away = lambda: ActionChains(self.browser).move_to_element(self.browser.find_element(By.ID, "run")).perform()
            drag = lambda: ActionChains(self.browser).move_to_element_with_offset(chart, -100, 0).click_and_hold().move_by_offset(
                200, 0).release().perform()
            # First in focus, so that all pictures are of the same state.
            zooms = (drag, lambda: chart.send_keys("+"), lambda: self.browser.find_element(By.ID, "zoom-in").click(),
                     lambda: self.browser.find_element(By.ID, "zoom-end").click(), lambda: chart.send_keys(Keys.END),
                     lambda: self.script("document.getElementById('chart').focus(); document.getElementById('chart').dispatchEvent("
                                         "new WheelEvent('wheel', {deltaY: -300, clientX: 300, bubbles: true, cancelable: true}))"))
            for zoom in zooms:
                zoom()
                away()
                self.assertNotEqual(self.picture(), whole)
                chart.send_keys("0")
                self.assertEqual(self.picture(), whole)
            chart.send_keys("+")
            one = self.picture()
            chart.send_keys(Keys.ARROW_RIGHT)
            self.assertNotEqual(self.picture(), one)
            away()

        with self.subTest("the curve as a table"):
            self.browser.find_element(By.CSS_SELECTOR, "summary").click()
            self.wait_for(lambda: "0–1" in self.shows("numbers"), "the table is filled")

    def test_screens_and_settings_of_people(self):
        where = self.finished()
        for width, height, media in ((360, 740, {}), (360, 740, {"prefers_color_scheme": "dark"}), (768, 1024, {}), (1280, 900, {}),
                                     (3840, 2160, {}), (3840, 2160, {"prefers_color_scheme": "dark"})):
            with self.subTest(width=width, **media):
                self.open(where, width, height, **media)
                self.wait_for(lambda: self.shows("status") == "finished", "it is there")
                self.assertLessEqual(self.script("return document.documentElement.scrollWidth"), width)
                wide = self.script("""return [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, .unseen, .skip, svg')
                    && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + '#' + e.id)""")
                self.assertEqual(wide, [])
                light = self.script("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
                (self.assertLess if media else self.assertGreater)(sum(light), 380)
                self.assertGreater(len(self.picture()), 3000, "the curve is drawn")
                self.calm()
        self.open(where, prefers_reduced_motion="reduce")
        self.assertEqual(self.script("return getComputedStyle(document.querySelector('#bar i')).transitionDuration"), "0s")
        self.assertLess(len(self.get(where, "/")), 200_000)
        requests = self.script("return performance.getEntriesByType('resource').map(e => new URL(e.name).pathname)")
        self.assertLessEqual(set(requests), {"/snapshot", "/events"})
        self.by_keyboard()
        self.axe(where)

    def by_keyboard(self):
        """Everything that can be clicked can be reached."""
        self.script("document.activeElement.blur(); window.scrollTo(0, 0)")
        reached = set()
        for _ in range(20):
            ActionChains(self.browser).send_keys(Keys.TAB).perform()
            reached.add(self.script("return document.activeElement.id || document.activeElement.tagName"))
        self.assertLessEqual({"play", "time", "zoom-in", "zoom-out", "zoom-all", "zoom-end", "chart", "SUMMARY"}, reached)

    def axe(self, where):
        source = axe_source()
        if not source:
            return print("no axe-core here: pip install axe-core-python", file=sys.stderr)
        for media in ({}, {"prefers_color_scheme": "dark"}):
            self.open(where, **media)
            self.wait_for(lambda: self.shows("status") == "finished", "it is there")
            self.script(source)
            found = self.browser.execute_async_script("const done = arguments[0]; axe.run().then(r => done(r.violations.map(v => "
                                                      "[v.impact, v.id, v.nodes.map(n => n.target.join(' '))])))")
            self.assertEqual(found, [])

    def test_64_peers_and_many_rounds(self):
        rounds = 100_000
        write_run(self.folder / "big", rounds, 64)
        _, where = self.serve("big")
        self.wait_for(lambda: not self.snapshot(where)["loading"], "the file is read")
        began = time.monotonic()
        text = self.get(where, "/snapshot")
        seconds = time.monotonic() - began
        self.assertLess(len(text), 2_000_000)
        self.assertEqual(json.loads(text)["rows"][-1][1], rounds - 1)
        self.open(where)
        self.wait_for(lambda: self.shows("status") == "finished" and len(self.states()) == 64, "all are shown")
        frames = self.browser.execute_async_script(FRAMES)
        frames.sort()
        print(f"{rounds} rounds, 64 peers: snapshot of {len(text)} bytes in {seconds:.3f} s; frames while zooming: median "
              f"{frames[len(frames) // 2]:.1f} ms, longest {frames[-1]:.1f} ms", file=sys.stderr)
        self.assertGreater(len(frames), 50)
        self.calm()


# The time that the page's own work takes in each of 60 frames in which it zooms and scrolls through time.
FRAMES = """
const done = arguments[0], chart = document.getElementById('chart'), slider = document.getElementById('time'), times = [];
chart.focus();
let n = 0;
const step = () => {
  if (n++ === 60) return done(times);
  if (n % 3) chart.dispatchEvent(new WheelEvent('wheel', {deltaY: n % 20 < 10 ? -120 : 120, clientX: 400, bubbles: true, cancelable: true}));
  else { slider.value = slider.max * (1 - n / 100); slider.dispatchEvent(new Event('input')); }
  const channel = new MessageChannel(), began = performance.now();
  requestAnimationFrame(() => { const drawn = performance.now(); channel.port1.onmessage = () => { times.push(performance.now() - drawn); step(); };
    channel.port2.postMessage(0); });
};
step();
"""


def write_run(folder, rounds, peers):
    """What a run of so many rounds leaves in metrics.jsonl."""
    folder.mkdir()
    with open(folder / "metrics.jsonl", "w", encoding="ascii") as out:
        line = lambda kind, round, **fields: out.write(json.dumps({"event": kind, "time": 1.7e9 + round, "peer": "p0", "round": round,
                                                                   **fields}) + "\n")
        line("start", 0, run="ab" * 32, rounds=rounds, parameters=1869504)
        for r in range(rounds):
            out.write('{"event":"round","time":%d.5,"peer":"p0","round":%d,"loss":%.4f,"tokens":512,"round_tokens":%d,"seconds":1.%d,'
                      '"contributors":%d,"agreeing":%d,"disagreeing":0,"bytes_sent":%d,"bytes_received":%d,"wait_seconds":%.1f,"term":1}\n'
                      % (1.7e9 + r, r, 1.5 + 4 / (1 + r / 500) + (r * 7919 % 1000) / 4000, 512 * peers, r % 10, peers, peers,
                         30000 * r, 30000 * r, 0.1 * r))
            if r % (rounds // 100) == 0:
                line("evaluation", r, loss=1.6 + 4 / (1 + r / 500), sample=f"what it writes after {r} rounds")
                line("peers", r, energy_joules=r * 60.0, peers=[
                    {"id": str(1000 + i), "name": f"peer{i}", "place": f"place {i}", "hardware": "8 cores", "latitude": i * 2 - 60,
                     "longitude": i * 5 - 160, "self": i == 0, "present": (r * 31 + i) % 97 != 0 or i == 0, "member": True,
                     "contributed_last": True, "last_round": r, "staleness_rounds": 0, "tokens": 512 * r, "bytes_sent": 30000 * r,
                     "bytes_received": 30000 * r, "round_trip_seconds": 0.01 + i / 1000} for i in range(peers)])
        line("end", rounds, replica_digest="cd" * 32)


def axe_source():
    """axe-core, from a package of PyPI that carries it; nothing where it cannot be had."""
    folder = pathlib.Path(os.getcwd()) / "axe"
    found = lambda: next(iter(folder.rglob("axe.min.js")), None)
    if not found():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, "axe-core-python"],
                           check=True, capture_output=True, timeout=60)
    return found().read_text(encoding="utf-8") if found() else None


if __name__ == "__main__":
    common.main()
