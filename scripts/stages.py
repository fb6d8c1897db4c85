"""Stages of a script that calls `ragduet`: each is done once, kept in a work folder, and goes on where it was stopped.

A stage is a command. What it made is used again only while the command, the binary, the contents of the files that it
names and the stages that it builds on are the same; otherwise it is made anew. Only the standard library is needed.
"""

import hashlib
import json
import os
import pathlib
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
RAGDUET = os.path.abspath(os.environ.get("RAGDUET", ROOT / "target/release/ragduet"))


class Failed(Exception):
    """A command that failed; what it is."""


class OutOfTime(Exception):
    """No further stage begins."""


CONTENTS = {}


def content(path):
    """A digest of a file, with the config that it extends, or of all files of a folder."""
    if path in CONTENTS:
        return CONTENTS[path]
    digest = hashlib.sha256()
    if path.is_dir():
        for inner in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(f"{inner.relative_to(path)}:{content(inner)}\n".encode())
    else:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        if path.suffix == ".toml":
            for line in path.read_text().splitlines():
                if line.startswith("extends"):
                    digest.update(content(path.parent / line.split("=", 1)[1].strip().strip("\"'")).encode())
    CONTENTS[path] = digest.hexdigest()
    return CONTENTS[path]


def write(path, value):
    """JSON, whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(value))
    new.replace(path)


class Stages:
    """The stages of a work folder. `show`: print each command as it would be typed."""

    def __init__(self, work, show=False, quiet=False):
        self.work, self.show, self.quiet = pathlib.Path(work).resolve(), show, quiet
        self.work.mkdir(parents=True, exist_ok=True)
        # After this moment no stage begins; None: never.
        self.deadline = None
        # What each stage made, and the stage's key.
        self.made = {}
        if not pathlib.Path(RAGDUET).is_file():
            sys.exit(f"no {RAGDUET}: cargo build --release -p ragduet-cli, or set RAGDUET")

    def path(self, name):
        return self.work / name

    def key(self, args):
        """What decides whether a stage is the same: binary, arguments, the files that they name, the stages they build
        on."""
        digest = hashlib.sha256(content(pathlib.Path(RAGDUET)).encode())
        for arg in map(str, args):
            path = pathlib.Path(arg.split("=", 1)[-1])
            inside = path.is_absolute() and (path == self.work or self.work in path.parents)
            if inside:
                own = [key for made, key in self.made.items() if path == made or made in path.parents]
                # The work folder itself is everything in it.
                own = own or sorted(key for made, key in self.made.items() if path in made.parents)
                digest.update(f"{path.relative_to(self.work)}:{own}\n".encode())
            else:
                digest.update(f"{arg}\n".encode())
                if path.is_absolute() and path.exists():
                    digest.update(content(path).encode())
        return digest.hexdigest()

    def typed(self, args):
        """A command as it would be typed in the project's folder."""
        short = [str(a).replace(f"{ROOT}/", "") for a in args]
        return shlex.join(["ragduet", *short])

    def _run(self, args, capture):
        if self.show:
            print(f"   $ {self.typed([a for a in args if a not in ('-q', '--json')])}", flush=True)
        out = subprocess.PIPE if capture else None
        child = subprocess.Popen([RAGDUET, *map(str, args)], stdout=out, text=True, cwd=ROOT)
        before = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        try:
            said, _ = child.communicate()
        except KeyboardInterrupt:
            # It was sent to the child as well, which saves before it ends.
            child.communicate()
            sys.exit("\nstopped; call the script again to go on from here")
        finally:
            signal.signal(signal.SIGTERM, before)
        if child.returncode != 0:
            raise Failed(f"{self.typed(args)}: exit code {child.returncode}. Call the script again to go on from here.")
        return said

    def _stage(self, name, args, make, outputs):
        """Runs `make` unless it was done and its outputs are there; the record: key, seconds, what `make` returned."""
        outputs = [pathlib.Path(o) for o in outputs]
        for o in outputs:
            # Its own outputs are part of the command, too.
            self.made.pop(o, None)
        key = self.key(args)
        self.made.update(dict.fromkeys(outputs, key))
        kept = self.path(f"{name}.stage.json")
        try:
            record = json.loads(kept.read_text())
        except (OSError, ValueError):
            record = {}
        if record.get("key") == key and record["done"] and all(o.exists() for o in outputs):
            if self.show:
                print(f"   $ {self.typed(args)}\n   (done before, kept)", flush=True)
            return record
        if self.deadline is not None and time.time() > self.deadline:
            raise OutOfTime
        if record.get("key") != key or record["done"]:
            # What another command left behind goes before the new one is begun.
            for o in outputs:
                shutil.rmtree(o) if o.is_dir() else o.unlink(missing_ok=True)
            record = {"key": key, "command": self.typed(args), "seconds": 0.0, "done": False}
            write(kept, record)
        began = time.time()
        try:
            record["result"] = make()
            record["done"] = True
        finally:
            record["seconds"] += time.time() - began
            write(kept, record)
        return record

    def train(self, name, job, config, *sets):
        """A training run in the folder NAME; the folder with its best model."""
        out = self.path(name)
        args = ["train", job, "-c", ROOT / "configs" / config, "--out", out]
        for s in sets:
            args += ["--set", s]
        quiet = ["-q"] if self.quiet else []

        def make():
            resumed = (out / "checkpoints").is_dir() and any((out / "checkpoints").iterdir())
            if not resumed and out.exists():
                shutil.rmtree(out)
            # What training prints of its outcome is for the eye of one who runs it alone.
            self._run(["train", job, "--resume", "--out", out, *quiet] if resumed else [*args, *quiet], capture=True)

        self._stage(name, args, make, [out])
        return out / "best"

    def files(self, name, files, *args):
        """A command that writes files into the folder NAME (`-o` is added); their paths."""
        out = self.path(name)
        whole = [*args, "-o", out]
        self._stage(name, whole, lambda: self._run(self._quiet(whole), capture=True) and None, [out])
        return [out / f for f in files]

    def run(self, *args):
        """A command that is run each time; what it prints."""
        return self._run(self._quiet(args), capture=True)

    def json(self, name, *args, **saved):
        """What a command prints with `--json`. `saved`: files or folders that it writes as well, by their options."""
        options = [word for option, path in saved.items() for word in (f"--{option.replace('_', '-')}", path)]
        whole = [*args, *options, "--json"]
        make = lambda: json.loads(self._run(self._quiet(whole), capture=True))
        return self._stage(name, whole, make, saved.values())["result"]

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
