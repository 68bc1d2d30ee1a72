"""What other programs read of a run: event files by TensorBoard's own reader, and the Grafana board's queries."""

import contextlib
import importlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import urllib.request

import common
from common import OK, STORAGE, TINY

BOARD = pathlib.Path(__file__).resolve().parents[2] / "packaging" / "grafana" / "thinwire.json"


def accumulator():
    """TensorBoard's reader, installed from PyPI into this folder; None where it cannot be had."""
    folder = pathlib.Path(os.getcwd()) / "tensorboard"
    name = "tensorboard.backend.event_processing.event_accumulator"
    sys.path.insert(0, str(folder))
    for attempt in range(2):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name).EventAccumulator
        if attempt == 0:
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, "tensorboard",
                                "protobuf", "numpy", "absl-py", "packaging", "six"], check=True, capture_output=True, timeout=120)
        importlib.invalidate_caches()
    return None


class Monitors(common.Case):
    def test_tensorboard_reads_the_event_files(self):
        reader = accumulator()
        if not reader:
            self.skipTest("no tensorboard here, and it cannot be had from PyPI")
        # Two processes, one after the other: two files of one run.
        self.trained("run", 10, "--tensorboard", "events", "--run.eval_every", "5", "--run.sample_tokens", "20", "--peer.stop_at", "6")
        self.trained("run", 10, "--tensorboard", "events", "--run.eval_every", "5", "--run.sample_tokens", "20")
        self.assertEqual(len(list((self.folder / "events").iterdir())), 2)
        read = reader(str(self.folder / "events"))
        read.Reload()
        tags = read.Tags()
        self.assertEqual(set(tags["scalars"]), {"loss/train", "loss/validation", "learning_rate", "gradient_norm", "tokens_per_second",
                                                "contributors", "payload_bytes"})
        rounds = {line["round"]: line for line in self.events("run", "round")}
        for tag, field in (("loss/train", "loss"), ("learning_rate", "learning_rate"), ("gradient_norm", "gradient_norm")):
            found = read.Scalars(tag)
            self.assertEqual([one.step for one in found], list(range(10)))
            for one in found:
                self.assertAlmostEqual(one.value, rounds[one.step][field], delta=1e-6 * max(1, abs(one.value)))
        evaluations = {line["round"]: line for line in self.events("run", "evaluation")}
        for one in read.Scalars("loss/validation"):
            self.assertAlmostEqual(one.value, evaluations[one.step]["loss"], places=5)
        samples = [(one.step, one.tensor_proto.string_val[0].decode()) for one in read.Tensors("sample")]
        self.assertEqual(dict(samples), {round: line["sample"] for round, line in evaluations.items()})

    def test_a_folder_that_cannot_be(self):
        self.refuses(STORAGE, "start", self.write_config(), "--dir", "run", *TINY, "--run.rounds", "1", "--tensorboard",
                     self.folder / "text.txt" / "events", naming=("peer.tensorboard", "text.txt/events"))

    def test_samples_are_equal_for_equal_weights(self):
        """A run that is stopped and goes on writes what one that never stopped writes; its weights do not depend on it."""
        for name, extra in (("whole", ()), ("none", ("--run.sample_tokens", "0"))):
            self.trained(name, 6, "--run.eval_every", "2", *extra)
        samples = [line["sample"] for line in self.events("whole", "evaluation")]
        self.assertEqual(len(samples), len(self.events("none", "evaluation")))
        self.assertTrue(all(len(sample.encode()) <= 96 for sample in samples))
        self.assertNotIn("sample", self.events("none", "evaluation")[0])
        self.assertEqual(self.digest("whole"), self.digest("none"))
        self.trained("parts", 6, "--run.eval_every", "2", "--peer.stop_at", "3")
        self.trained("parts", 6, "--run.eval_every", "2")
        self.assertEqual(self.events("parts", "evaluation")[-1]["sample"], samples[-1])

    def test_the_grafana_board_asks_for_what_is_served(self):
        founder, _ = self.found("run", "--run.rounds", "1000000", "--run.min_round_ms", "10", "--run.snapshot_every", "3", "--status",
                                "127.0.0.1:0")
        where = self.folder / "run/status.address"
        self.wait_for(lambda: where.exists() and where.read_text().endswith("\n"), "a status")
        page = lambda: urllib.request.urlopen(f"http://{where.read_text().strip()}/metrics", timeout=common.LIMIT).read().decode()
        self.wait_for(lambda: "thinwire_momentum_energy" in page(), "a snapshot")
        served = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page(), re.M))
        # Read where the machine tells it.
        served["thinwire_energy_joules_total"] = "counter"
        board = json.loads(BOARD.read_text())
        queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
        self.assertGreater(len(queries), 15)
        for query in queries:
            names = set(re.findall(r"\bthinwire_\w+", query))
            self.assertTrue(names, query)
            self.assertLessEqual(names, set(served), query)
            for name in names:
                rated = re.search(rf"(?:rate|increase)\({name}\b", query)
                self.assertEqual(bool(rated), served[name] == "counter" and "energy" not in query, query)
        self.assertEqual(len({panel["id"] for panel in board["panels"]}), len(board["panels"]))
        if promtool := shutil.which("promtool"):
            rules = [{"record": f"board:{i}", "expr": query.replace("$__rate_interval", "1m").replace("$instance", ".*")}
                     for i, query in enumerate(queries)]
            path = self.folder / "rules.yml"
            path.write_text(json.dumps({"groups": [{"name": "board", "rules": rules}]}))  # which is YAML
            done = subprocess.run([promtool, "check", "rules", path], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        else:
            print("no promtool here: the board's queries are compared by name only", file=sys.stderr)
        common.interrupt(founder)
        self.assertEqual(self.finish(founder)[0], OK)


if __name__ == "__main__":
    common.main()
