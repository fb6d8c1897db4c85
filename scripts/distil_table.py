#!/usr/bin/env python3
"""A small generator with and without a teacher, on the shipped dataset.

    scripts/distil_table.py [--seeds N] [--steps N] [--teacher-steps N] [--only REGEX] [--out FILE.md] [--work DIR]

The teacher is the quickstart's generator (128 wide, two layers, from random weights). The student is half as wide with one
layer, and learns for a fraction of the steps: from the answers alone, from the teacher's distribution (several
divergences, asked in every step or its likeliest tokens kept), from the teacher's answers. All students have the teacher's
tokenizer, the same steps, batches and learning rate. Prompts show the gold passage; training prompts exchange the answer
in it. Scored on the test questions, means over seeds. Needs target/release/ragduet and nothing of Python but its standard
library. What is done is kept in the work folder, so a call that was stopped goes on.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
RAGDUET = os.environ.get("RAGDUET", ROOT / "target/release/ragduet")
DATA = ROOT / "datasets/maravel"
KL = "objective.logits = {{ weight = {}, divergence.{} }}"
METHODS = {
    "no teacher": None,
    "forward KL, weight 0.5": KL.format(0.5, "forward_kl = {}"),
    "forward KL, T = 2, weight 0.5": KL.format(0.5, "forward_kl = { temperature = 2.0 }"),
    "forward KL, weight 1": KL.format(1.0, "forward_kl = {}"),
    "reverse KL, weight 0.5": KL.format(0.5, "reverse_kl = {}"),
    "Jensen-Shannon, beta 0.5, weight 0.5": KL.format(0.5, "generalized_jsd = { beta = 0.5 }"),
    "forward KL, weight 0.5, 64 tokens kept": KL.format(0.5, "forward_kl = {}") + "\nteacher.cache.top_k = { k = 64 }",
    "teacher's answers": "objective.sequence = {}",
}
CONFIG = """
run.seed = {seed}
run.max_steps = {steps}
{more}
[data]
train = "{work}/train.rag.jsonl"
dev = "{work}/dev.rag.jsonl"
[prompt]
max_tokens = 400
[prompt.template]
instruction = ""
question = "first"
[contexts]
count = 1
substitute_rate = 1.0
[batch]
tokens = 2048
[optim]
lr = 3e-3
beta2 = 0.98
weight_decay = 0.01
warmup = {{ ratio = 0.05 }}
[eval]
limit = 200
batch_size = 64
at_start = false
[model.scratch]
vocab_size = 4000
hidden_size = {hidden}
layers = {layers}
heads = 4
kv_heads = 4
intermediate_size = {inner}
max_positions = 512
"""


def rows(path):
    with open(path) as f:
        return [json.loads(line) for line in f]


def prepare(work):
    corpus = {r["_id"]: r for r in rows(DATA / "corpus.jsonl")}
    files = {name: open(work / f"{name}.rag.jsonl", "w") for name in ("train", "dev", "test")}
    for a in rows(DATA / "answers.jsonl"):
        p = corpus[a["passage"]]
        passage = {"id": p["_id"], "title": p["title"], "text": p["text"]}
        record = {"id": a["_id"], "question": a["question"], "answers": a["answers"], "contexts": [passage], "gold": [passage]}
        files[a["split"]].write(json.dumps(record) + "\n")
    for file in files.values():
        file.close()


def run(*args):
    """What a command prints as JSON, and its peak memory in MiB."""
    with tempfile.TemporaryFile() as log, tempfile.TemporaryFile() as out:
        child = subprocess.Popen([RAGDUET, *map(str, args)], stdout=out, stderr=log)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0), out.seek(0)
        if child.returncode != 0:
            sys.exit(f"{args}: exit code {child.returncode}\n{log.read().decode()[-2000:]}")
        return json.loads(out.read()), usage.ru_maxrss / 1024


def train(work, name, command, seed, more, size, steps):
    """Trains and measures, unless it was done before."""
    out = work / re.sub(r"[^a-z0-9]+", "-", f"{name}-{seed}".lower())
    kept = out / "row.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    subprocess.run(["rm", "-rf", out], check=True)
    hidden, layers = size
    config = work / "config.toml"
    config.write_text(CONFIG.format(
        seed=seed, more=more, work=work, steps=steps, hidden=hidden, layers=layers, inner=3 * hidden
    ))
    done, memory = run("train", command, "-c", config, "--out", out, "--json")
    found, _ = run("eval", "generator", "-g", out / "best", "--data", work / "test.rag.jsonl", "--batch", 64, "--json")
    answer = found["with passages"]["answer"]
    row = {"model": str(out / "best"), "f1": answer["f1"], "exact": answer["exact_match"],
           "speed": done["tokens_per_second"], "memory": memory}
    kept.write_text(json.dumps(row))
    print(f"{name:<40} seed {seed}  test F1 {row['f1']:.4f}  exact match {row['exact']:.4f}", flush=True)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--teacher-steps", type=int, default=2400)
    parser.add_argument("--only", default="", help="the methods whose names match")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "runs/distil-table")
    args = parser.parse_args()
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    prepare(work)
    teacher = train(work, "teacher", "generator", 1, "", (128, 2), args.teacher_steps)
    taught = f'teacher.base = "{teacher["model"]}"\nteacher.store = "{work}/said"\n'
    lines = []
    for name, more in METHODS.items():
        if not re.search(args.only, name):
            continue
        command, text = ("distil", taught + more) if more else ("generator", "")
        all_seeds = [train(work, name, command, seed, text, (64, 1), args.steps) for seed in range(1, args.seeds + 1)]
        f1 = [r["f1"] for r in all_seeds]
        mean = {key: statistics.mean(r[key] for r in all_seeds) for key in ("f1", "exact", "speed", "memory")}
        lines.append(
            f"| {name} | {mean['f1']:.4f} ({min(f1):.4f}-{max(f1):.4f}) | {mean['exact']:.4f} | {mean['speed']:.0f} "
            f"| {mean['memory']:.0f} |"
        )
    text = (
        "# A small generator with and without a teacher, on the shipped dataset\n\n"
        f"`scripts/distil_table.py`: teacher 128 wide, 2 layers, {args.teacher_steps} steps; students 64 wide, 1 layer, "
        f"{args.steps} steps, {args.seeds} seeds. Test questions with their gold passage.\n\n"
        "| student learns from | test F1 (lowest-highest) | exact match | tokens/s | peak MiB |\n|---|---|---|---|---|\n"
        f"| (the teacher) | {teacher['f1']:.4f} | {teacher['exact']:.4f} | {teacher['speed']:.0f} | {teacher['memory']:.0f} |\n"
        + "\n".join(lines) + "\n"
    )
    print(text)
    if args.out:
        args.out.write_text(text)


main()
