"""Stages of a script that calls `ragduet`: each is done once, kept in a work folder, and goes on where it was stopped.

A stage is a command. What it made is used again only while the command, the config file it names and the stages it
builds on are the same; otherwise it is made anew. Only the standard library is needed.
"""

import hashlib
import json
import os
import pathlib
import random
import shlex
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
RAGDUET = os.environ.get("RAGDUET", str(ROOT / "target/release/ragduet"))


class Stages:
    """The stages of a work folder. `show`: print each command as it would be typed."""

    def __init__(self, work, show=False, quiet=False):
        self.work, self.show, self.quiet = pathlib.Path(work), show, quiet
        self.work.mkdir(parents=True, exist_ok=True)
        self.keys = {}
        if not pathlib.Path(RAGDUET).is_file():
            sys.exit(f"no {RAGDUET}: cargo build --release -p ragduet-cli, or set RAGDUET")

    def path(self, name):
        return self.work / name

    def key(self, args):
        """What decides whether a stage is the same: its arguments, the files among them, the stages they name."""
        digest = hashlib.sha256()
        inside = f"{self.work}/"
        for arg in map(str, args):
            value = arg.split("=", 1)[-1]
            if value.startswith(inside):
                name = next((n for n in sorted(self.keys, key=len, reverse=True)
                             if value == inside + n or value.startswith(f"{inside}{n}/")), None)
                digest.update(f"{value[len(inside):]}:{self.keys.get(name)}\n".encode())
            else:
                digest.update(f"{arg}\n".encode())
                file = pathlib.Path(value)
                if file.suffix == ".toml" and file.is_file():
                    digest.update(file.read_bytes())
        return digest.hexdigest()

    def typed(self, args):
        """A command as it would be typed in the project's folder."""
        short = [str(a).replace(f"{ROOT}/", "") for a in args]
        return shlex.join(["ragduet", *short])

    def _run(self, args, capture):
        if self.show:
            print(f"   $ {self.typed([a for a in args if a not in ('-q', '--json')])}", flush=True)
        out = subprocess.PIPE if capture else None
        done = subprocess.run([RAGDUET, *map(str, args)], stdout=out, text=True, cwd=ROOT)
        if done.returncode != 0:
            sys.exit(f"{self.typed(args)}: exit code {done.returncode}. Call the script again to go on from here.")
        return done.stdout

    def _stage(self, name, args, make, files=()):
        """Runs `make` unless it was done and its files are there; the record: key, seconds, what `make` returned."""
        # Its own name is part of the command, too.
        self.keys.pop(name, None)
        key = self.keys[name] = self.key(args)
        kept = self.path(f"{name}.stage.json")
        record = json.loads(kept.read_text()) if kept.is_file() else {}
        if record.get("key") != key:
            record = {"key": key, "command": self.typed(args), "seconds": 0.0, "done": False, "fresh": True}
        elif record["done"] and all(pathlib.Path(f).exists() for f in files):
            if self.show:
                print(f"   $ {self.typed(args)}\n   (done before, kept)", flush=True)
            return record
        else:
            record["fresh"] = False
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(record))
        began = time.time()
        try:
            record["result"] = make(record["fresh"])
            record["done"] = True
        finally:
            record["seconds"] += time.time() - began
            kept.write_text(json.dumps(record))
        return record

    def train(self, name, job, config, *sets):
        """A training run in the folder NAME; the folder with its best model, and the seconds it took."""
        out = self.path(name)
        args = ["train", job, "-c", ROOT / "configs" / config, "--out", out]
        for s in sets:
            args += ["--set", s]
        if self.quiet:
            args.append("-q")

        def make(fresh):
            if fresh and out.exists():
                shutil.rmtree(out)
            resumed = (out / "checkpoints").is_dir() and any((out / "checkpoints").iterdir())
            if not resumed and out.exists():
                shutil.rmtree(out)
            # What training prints of its outcome is for the eye of one who runs it alone.
            self._run(["train", job, "--resume", "--out", out, *(["-q"] if self.quiet else [])] if resumed else args,
                      capture=True)

        record = self._stage(name, args, make, [out / "best"])
        return out / "best", record["seconds"]

    def file(self, name, *args):
        """A command that writes the file NAME (`-o` is added); its path."""
        return self.files(name, ["."], *args)[0]

    def files(self, name, files, *args):
        """A command that writes files into the folder NAME, or NAME itself (`.`); their paths."""
        out = self.path(name)
        whole = [*args, "-o", out]
        paths = [out / f for f in files]
        self._stage(name, whole, lambda _: self._run(self._quiet(whole), capture=True) and None, paths)
        return paths

    def json(self, name, *args, save=None):
        """What a command prints with `--json`. `save`: a file that it writes as well (`--save` is added)."""
        whole = [*args, *(["--save", save] if save else []), "--json"]
        make = lambda _: json.loads(self._run(self._quiet(whole), capture=True))
        return self._stage(name, whole, make, [save] if save else [])["result"]

    @staticmethod
    def _quiet(args):
        """`-q` belongs behind the sub-command."""
        words = next(i for i, a in enumerate(args) if not (str(a).isalpha() and str(a).islower()))
        return [*args[:words], "-q", *args[words:]]


def models():
    """The two pretrained models: a folder of MiniLM and a GGUF file of SmolLM2."""
    found = [ROOT / "models/all-MiniLM-L6-v2", ROOT / "models/SmolLM2-135M-Instruct.gguf"]
    for path in found:
        if not path.exists():
            sys.exit(f"{path.relative_to(ROOT)} is missing: scripts/setup --models")
    return found


def p_value(ours, theirs, rounds=10_000, seed=1):
    """Two-sided paired randomization test of the mean difference of two lists of figures by question."""
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    differences = [d for d in differences if d != 0]
    if not differences:
        return 1.0
    total, n, draw = abs(sum(differences)), len(differences), random.Random(seed)
    everything, beyond = sum(differences), 0
    for _ in range(rounds):
        flips = format(draw.getrandbits(n), f"0{n}b")
        flipped = sum(d for d, bit in zip(differences, flips) if bit == "1")
        beyond += abs(everything - 2 * flipped) >= total - 1e-12
    return (beyond + 1) / (rounds + 1)
