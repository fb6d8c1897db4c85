#!/usr/bin/env python3
"""Joint training from a weak retriever and question-answer pairs, no judged passages: each objective beside the same
start with its retriever frozen, on the shipped dataset.

    scripts/joint_table.py [objective ...] [--seeds N] [--steps N] [--out FILE.md] [--work DIR]

The start is made once: a small encoder after a few contrastive steps, and a generator that learned to answer from what
that encoder finds (passages that hold the answer's text count as golden; nothing judged). The state that is
measured on test is the one with the best dev recall. Needs target/release/ragduet
and nothing of Python but its standard library. What is done is kept in the work folder, so a call that was stopped goes
on. About three minutes a run on two cores.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
RAGDUET = os.environ.get("RAGDUET", ROOT / "target/release/ragduet")
DATA = ROOT / "datasets/maravel"

# Cosines were trained with a temperature of 0.05.
PDIST = 'objective={ distillation = { preset = "pdist", teacher_temperature = 0.2, score_temperature = 0.05 } }'
REPLUG = 'objective={ distillation = { preset = "replug_lsr", score_temperature = 0.05 } }'
EMDR2 = "objective={ emdr2 = { score_temperature = 0.05 } }"
SEQUENCE = "objective={ rag_sequence = { score_temperature = 0.05 } }"
TOKEN = "objective={ rag_token = { score_temperature = 0.05 } }"
LOOP = "objective={ leave_one_out = { teacher_temperature = 0.2, score_temperature = 0.05 } }"
OBJECTIVES = {
    # name: what differs from configs/joint/quickstart.toml
    # Its recall stays: its best state is the one that answers best.
    "frozen retriever": [PDIST, "retriever.frozen=true", "eval.best=f1"],
    "PDist": [PDIST],
    "REPLUG-LSR": [REPLUG],
    "EMDR2": [EMDR2],
    "RAG-Sequence": [SEQUENCE],
    "RAG-Sequence, both sides": [SEQUENCE, "generator.objective=marginal"],
    "RAG-Token": [TOKEN],
    "LOOP": [LOOP],
}


def ragduet(*args):
    done = subprocess.run([RAGDUET, *map(str, args)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, args))}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout


def train(kind, config, out, *sets):
    if (out / "best.json").is_file() and (out / "done").is_file():
        return
    subprocess.run(["rm", "-rf", out], check=True)
    flags = [flag for s in sets for flag in ("--set", s)]
    ragduet("train", kind, "-q", "-c", ROOT / f"configs/{config}", "--out", out, *flags)
    (out / "done").touch()


def start(work):
    """The weak retriever, and the generator that learned from what it finds."""
    retriever = work / "start-retriever"
    train("retriever", "retriever/quickstart.toml", retriever, f"data.train={DATA}", f"data.dev={DATA}",
          "run.max_steps=25", "mining.when={ after_steps = 1000000 }", "eval.every_steps=0", "loss={ info_nce = {} }")
    for split in ("train", "dev"):
        path = work / f"{split}.rag.jsonl"
        if path.is_file():
            continue
        found = work / f"{split}.found.jsonl"
        ragduet("retrieve", "-q", "-m", retriever / "best", "--data", DATA, "--split", split, "-k", 20, "-o", found)
        # Distant supervision: what is not found cannot be read.
        rows = [json.loads(line) for line in found.read_text().splitlines()]
        holds = lambda r: any(a.lower() in c["text"].lower() for a in r["answers"] for c in r["contexts"])
        kept = [r for r in rows if holds(r)]
        print(f"{split}: an answer stands in the first 20 passages of {len(kept)} of {len(rows)} questions", flush=True)
        path.write_text("".join(json.dumps(r) + "\n" for r in kept))
    generator = work / "start-generator"
    train("generator", "generator/quickstart.toml", generator, f"data.train={work}/train.rag.jsonl",
          f"data.dev={work}/dev.rag.jsonl", "contexts.golden=answering", "contexts.max_golden=1",
          "run.max_steps=3000")
    return retriever / "best", generator / "best"


def test(*model):
    found = json.loads(ragduet("eval", "rag", "-q", *model, "--data", DATA, "--split", "test", "--batch", 64, "--json"))
    answer = found["with passages"]["answer"]
    return {
        "recall@1": found["retrieval"]["recall@1"], "recall@5": found["retrieval"]["recall@5"],
        "exact match": answer["exact_match"], "F1": answer["f1"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objective", nargs="*", help=f"of {', '.join(OBJECTIVES)}; all if not given")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--set", action="append", default=[], help="override a key of every joint run")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "runs/joint-table")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    retriever, generator = start(args.work)
    kept = args.work / "start.json"
    if not kept.is_file():
        kept.write_text(json.dumps(test("-m", retriever, "-g", generator)))
    before = json.loads(kept.read_text())
    print("start", before, flush=True)
    names = list(before)
    lines = [f"| start | {' | '.join(f'{before[n]:.4f}' for n in names)} | |"]
    for objective in args.objective or OBJECTIVES:
        seen, seconds = [], []
        for seed in range(1, args.seeds + 1):
            out = args.work / f"{objective.lower().replace(' ', '-').replace(',', '')}-{seed}"
            began = time.time()
            train("joint", "joint/quickstart.toml", out, f"run.seed={seed}", f"data.train={DATA}", f"data.dev={DATA}",
                  f"retriever.model.base={retriever}", f"generator.model.base={generator}",
                  f"run.max_steps={args.steps}", "eval.every_steps=50", "eval.best=recall", "retriever.optim.lr=5e-4", "generator.optim.lr=5e-5",
                  *OBJECTIVES[objective], *args.set)
            row = out / "test.json"
            if not row.is_file():
                row.write_text(json.dumps({"seconds": time.time() - began, **test("--run", out)}))
            seen.append(json.loads(row.read_text()))
            print(objective, seed, seen[-1], flush=True)
        cell = lambda n: f"{statistics.mean(r[n] for r in seen):.4f}" + (
            f" ± {statistics.stdev(r[n] for r in seen):.4f}" if len(seen) > 1 else "")
        lines.append(f"| {objective} | {' | '.join(map(cell, names))} | {statistics.mean(r['seconds'] for r in seen):.0f} |")
    text = "# Joint training from a weak retriever, no judged passages\n\n"
    text += f"`scripts/joint_table.py`; Maravel's test split, {args.seeds} seeds (mean ± standard deviation), {args.steps} steps.\n\n"
    text += f"| objective | {' | '.join(names)} | seconds |\n|{'---|' * (len(names) + 2)}\n" + "\n".join(lines) + "\n"
    print(text)
    if args.out:
        args.out.write_text(text)


main()
