"""Stages of scripts: done once, made anew where something that they depend on has changed, gone on with where stopped."""

import importlib
import json
import os
import pathlib
import stat
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Stands for `ragduet`: notes its arguments, writes what is asked for, and fails in the way that FAULT says.
FAKE = """#!/usr/bin/env python3
import json, os, pathlib, sys
here = pathlib.Path(__file__).parent
with (here / "calls").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
fault = (here / "fault").read_text() if (here / "fault").exists() else ""
out = next((sys.argv[i + 1] for i, a in enumerate(sys.argv) if a in ("--out", "-o", "--save")), None)
if out and sys.argv[1] == "train":
    (pathlib.Path(out) / "checkpoints/step-1").mkdir(parents=True, exist_ok=True)
if fault:
    sys.exit(7)
if out and sys.argv[1] == "train":
    (pathlib.Path(out) / "best").mkdir(exist_ok=True)
elif out:
    pathlib.Path(out).write_text("x")
print(json.dumps({"n": 1}))
"""


class Stages(unittest.TestCase):
    def setUp(self):
        held = tempfile.TemporaryDirectory()
        self.addCleanup(held.cleanup)
        self.dir = pathlib.Path(held.name).resolve()
        binary = self.dir / "ragduet"
        binary.write_text(FAKE)
        binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
        os.environ["RAGDUET"] = str(binary)
        sys.path.insert(0, str(ROOT / "scripts"))
        self.addCleanup(sys.path.remove, str(ROOT / "scripts"))
        self.module = importlib.reload(importlib.import_module("stages"))
        self.data = self.dir / "data.jsonl"
        self.data.write_text("{}\n")

    def calls(self):
        file = self.dir / "calls"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        file.unlink(missing_ok=True)
        return lines

    def chain(self, seed=1):
        """A training, an evaluation of it, and nothing in memory of the calls before."""
        self.module.CONTENTS.clear()
        stages = self.module.Stages(self.dir / "work", quiet=True)
        best = stages.train("run", "retriever", "retriever/maravel.toml", f"data.train={self.data}", f"run.seed={seed}")
        got = stages.json("eval", "eval", "retriever", "-m", best, save=stages.path("answers.jsonl"))
        return best, got

    def test_what_is_done_is_kept_until_something_changes(self):
        best, got = self.chain()
        self.assertEqual((best, got), (self.dir / "work/run/best", {"n": 1}))
        first, second = self.calls()
        self.assertEqual(first[:2] + first[-1:], ["train", "retriever", "-q"])
        self.assertEqual(second[:3], ["eval", "retriever", "-q"])
        self.chain()
        self.assertEqual(self.calls(), [])
        # Another setting, the contents of a file, a lost output: the stage and what builds on it.
        self.chain(seed=2)
        self.assertEqual(len(self.calls()), 2)
        self.data.write_text("{}\n{}\n")
        self.chain(seed=2)
        self.assertEqual(len(self.calls()), 2)
        (self.dir / "work/answers.jsonl").unlink()
        self.chain(seed=2)
        self.assertEqual([c[0] for c in self.calls()], ["eval"])
        (self.dir / "work/run.stage.json").write_text("{cut")
        self.chain(seed=2)
        self.assertEqual([c[0] for c in self.calls()], ["train"])

    def test_a_stopped_training_goes_on_and_only_that_one(self):
        (self.dir / "fault").write_text("x")
        with self.assertRaisesRegex(self.module.Failed, "exit code 7.*Call the script again"):
            self.chain()
        (self.dir / "fault").unlink()
        self.chain()
        calls = self.calls()
        self.assertIn("--resume", calls[1])
        self.assertEqual([c[0] for c in calls], ["train", "train", "eval"])
        # What another command left behind is not gone on with.
        (self.dir / "fault").write_text("x")
        with self.assertRaises(self.module.Failed):
            self.chain(seed=3)
        (self.dir / "fault").unlink()
        self.chain(seed=4)
        calls = self.calls()
        self.assertNotIn("--resume", calls[1])
        self.assertIn("run.seed=4", calls[1])

    def test_no_stage_begins_behind_the_deadline(self):
        stages = self.module.Stages(self.dir / "work", quiet=True)
        stages.deadline = 0
        with self.assertRaises(self.module.OutOfTime):
            stages.json("eval", "eval", "retriever", "-m", "x")
        stages.deadline = None
        stages.json("eval", "eval", "retriever", "-m", "x")
        stages.deadline = 0
        self.assertEqual(stages.json("eval", "eval", "retriever", "-m", "x"), {"n": 1})

    def test_p_values(self):
        p = self.module.p_value
        self.assertEqual(p([0.5, 0.2], [0.5, 0.2]), 1.0)
        # Of 2^8 signs, two are as far from 0.
        self.assertAlmostEqual(p([1.0] * 8, [0.0] * 8), 2 / 256, delta=0.004)
        self.assertGreater(p([1.0, 0.0] * 20, [0.0, 1.0] * 20), 0.9)


if __name__ == "__main__":
    unittest.main()
