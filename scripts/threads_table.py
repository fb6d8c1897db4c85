#!/usr/bin/env python3
"""Training with one thread, with all, and with all that spin, on an idle machine and a busy one: scripts/threads_table.py [--rounds N]

Contestants take turns in every round; medians, and their ratios to one thread. Busy means two programs for every core that
compute beside the training. The default must cost at most 1.1x of threads that spin where the machine is idle, and at most
1.3x of one thread where it is busy.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
LOAD = "import itertools\nfor i in itertools.count(): i * i % 7"
CONTESTANTS = {
    "one thread": {"OMP_NUM_THREADS": "1"},
    "spinning": {"OMP_WAIT_POLICY": "ACTIVE"},
    "default": {},
}


def seconds(binary, config, steps, more):
    """Wall seconds of the steps alone: a run of all steps less one of a single step."""

    def run(n):
        with tempfile.TemporaryDirectory() as out:
            command = [binary, "train", "retriever", "-q", "-c", config, "--out", f"{out}/run", "--set"]
            command += [f"run.max_steps={n}", "--set", "run.epochs=9.0"]
            environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
            start = time.monotonic()
            subprocess.run(command, check=True, cwd=ROOT, env={**environment, **more}, stdout=subprocess.DEVNULL)
            return time.monotonic() - start

    return run(steps + 1) - run(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=ROOT / "target/release/ragduet")
    parser.add_argument("--config", default="configs/retriever/quickstart.toml")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--set-env", action="append", default=[], help="NAME=VALUE of one more contestant")
    options = parser.parse_args()
    contestants = CONTESTANTS | {pair: dict([pair.split("=", 1)]) for pair in options.set_env}
    table = {}
    for state, programs in ("idle", 0), ("busy", 2 * os.cpu_count()):
        load = [subprocess.Popen([sys.executable, "-c", LOAD]) for _ in range(programs)]
        try:
            took = {name: [] for name in contestants}
            for _ in range(options.rounds):
                for name, environment in contestants.items():
                    took[name].append(seconds(options.binary, options.config, options.steps, environment))
        finally:
            for program in load:
                program.kill()
        table[state] = {name: statistics.median(all) for name, all in took.items()}
        one = table[state]["one thread"]
        for name, median in table[state].items():
            print(f"{state}  {name:24} {median:7.2f} s  {median / one:5.2f}x of one thread", flush=True)
    if options.json:
        options.json.write_text(json.dumps(table, indent=1) + "\n")
    idle = table["idle"]["default"] / table["idle"]["spinning"]
    busy = table["busy"]["default"] / table["busy"]["one thread"]
    print(f"default: {idle:.2f}x of spinning threads when idle (at most 1.1), {busy:.2f}x of one thread when busy (at most 1.3)")
    sys.exit(not (idle <= 1.1 and busy <= 1.3))


if __name__ == "__main__":
    main()
