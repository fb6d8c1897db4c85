"""Search over token vectors: Ragduet's multi-vector indexes and fast-plaid, in turns. Called by scripts/bench_multi_vector.

Ragduet is the example `multi_vector` of crates/index, which keeps its indexes in memory between the turns; fast-plaid is
its Python package on the CPU with as many threads. Recall is against Ragduet's exact index.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from fast_plaid import search

ROOT = pathlib.Path(__file__).resolve().parents[1]
DIM, QUERIES, QUERY_TOKENS, WORDS, K = 128, 400, 32, 4000, 10
# fast-plaid takes seconds for each.
PEER_QUERIES = 40
THREADS = len(os.sched_getaffinity(0))


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def synthetic(directory, passages):
    """Tokens are words (of a Zipf-like frequency) in the direction of their passage; queries blur tokens of a passage."""
    rng = np.random.default_rng(0)
    words = unit(rng.standard_normal((WORDS, DIM)))
    lengths = rng.integers(60, 161, passages)
    owner = np.repeat(np.arange(passages), lengths)
    topics = unit(rng.standard_normal((passages, DIM)))
    word = np.minimum(rng.zipf(1.2, owner.size), WORDS) - 1
    tokens = unit(words[word] + 0.4 * topics[owner] + 0.5 * unit(rng.standard_normal((owner.size, DIM))))
    starts = np.cumsum(lengths) - lengths
    asked = rng.choice(passages, QUERIES)
    rows = (starts[asked][:, None] + rng.integers(0, lengths[asked][:, None], (QUERIES, QUERY_TOKENS))).ravel()
    queries = unit(tokens[rows] + 0.7 * unit(rng.standard_normal((rows.size, DIM))))
    for name, data, counts in [("passages", tokens, lengths), ("queries", queries, [QUERY_TOKENS] * QUERIES)]:
        np.save(directory / f"{name}.npy", data)
        (directory / f"{name}.txt").write_text("".join(f"{n}\n" for n in counts))


def read(directory, name):
    counts = [int(line) for line in (directory / f"{name}.txt").read_text().split()]
    return list(torch.split(torch.from_numpy(np.load(directory / f"{name}.npy")), counts))


def encoded(source, directory, qrels, limit):
    """What `ragduet encode` wrote to source/{passages,queries}: all passages, the first judged queries. Returns what is
    relevant to each query, by row."""
    lines = lambda path: [json.loads(line) for line in path.read_text().splitlines()]
    ids = {name: lines(source / name / "ids.jsonl") for name in ("passages", "queries")}
    counts = {name: lines(source / name / "counts.jsonl") for name in ids}
    row = {name: at for at, name in enumerate(ids["passages"])}
    judged = {}
    for line in pathlib.Path(qrels).read_text().splitlines()[1:]:
        query, passage, grade = line.split("\t")
        if int(grade) > 0:
            judged.setdefault(query, set()).add(row[passage])
    kept = [at for at, name in enumerate(ids["queries"]) if name in judged][:limit]
    ends = np.cumsum(counts["queries"])
    vectors = np.load(source / "queries/embeddings.npy")
    np.save(directory / "queries.npy", np.concatenate([vectors[ends[q] - counts["queries"][q]:ends[q]] for q in kept]))
    os.symlink((source / "passages/embeddings.npy").resolve(), directory / "passages.npy")
    for name, numbers in [("passages", counts["passages"]), ("queries", [counts["queries"][q] for q in kept])]:
        (directory / f"{name}.txt").write_text("".join(f"{n}\n" for n in numbers))
    return [judged[ids["queries"][q]] for q in kept]


def ndcg(relevant, ids):
    gain = sum(1 / np.log2(place + 2) for place, hit in enumerate(ids[:10]) if hit in relevant)
    return gain / sum(1 / np.log2(place + 2) for place in range(min(10, len(relevant))))


def main():
    rounds, what = int(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(THREADS)
    relevant = None
    with tempfile.TemporaryDirectory() as tmp:
        if what.isdigit():
            directory = pathlib.Path(tmp)
            synthetic(directory, int(what))
        elif len(sys.argv) > 3:
            directory = pathlib.Path(tmp)
            limit = int(sys.argv[4]) if len(sys.argv) > 4 else None
            relevant = encoded(pathlib.Path(what), directory, sys.argv[3], limit)
        else:
            directory = pathlib.Path(what)
        passages, queries = read(directory, "passages"), read(directory, "queries")
        ours = subprocess.Popen(
            [ROOT / "target/release/index_multi_vector", directory],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "RAYON_NUM_THREADS": str(THREADS)},
        )
        print("ragduet", ours.stdout.readline().strip())
        started = time.perf_counter()
        theirs = search.FastPlaid(index=os.path.join(tmp, "plaid"), device="cpu")
        theirs.create(documents_embeddings=passages, nbits=4)
        print("fast-plaid", json.dumps({"build_seconds": time.perf_counter() - started}))
        size = sum(path.stat().st_size for path in pathlib.Path(tmp, "plaid").rglob("*") if path.is_file())
        print("fast-plaid", json.dumps({"bytes_on_disk": size}))

        def ask(name):
            ours.stdin.write(f"{name} {K}\n")
            ours.stdin.flush()
            answer = json.loads(ours.stdout.readline())
            return answer["seconds"], answer["ids"]

        def plaid(alone):
            asked = queries[:PEER_QUERIES]
            started = time.perf_counter()
            if alone:
                found = [theirs.search(query[None], top_k=K, show_progress=False)[0] for query in asked]
            else:
                found = theirs.search(asked, top_k=K, show_progress=False)
            seconds = time.perf_counter() - started
            return seconds, [[hit[0] for hit in hits] for hits in found]

        turns = {
            "ragduet exact": lambda: ask("exact"),
            "ragduet": lambda: ask("default"),
            "ragduet, PLAID's settings": lambda: ask("plaid"),
            "fast-plaid": lambda: plaid(False),
            "ragduet, one by one": lambda: ask("alone"),
            "fast-plaid, one by one": lambda: plaid(True),
        }
        print(f"{len(passages)} passages, {len(queries)} queries, top {K}, {THREADS} threads, {rounds} rounds", flush=True)
        seconds, found = {name: [] for name in turns}, {}
        for _ in range(rounds):
            for name, turn in turns.items():
                took, found[name] = turn()
                seconds[name].append(took / len(found[name]))
                print(f"{name}: {took:.1f} s for {len(found[name])} queries", file=sys.stderr, flush=True)
        truth = [set(ids) for ids in found["ragduet exact"]]
        for name in turns:
            recall = statistics.mean(len(t & set(ids)) / len(t) for t, ids in zip(truth, found[name]))
            first = statistics.mean(ids[:1] == t[:1] for t, ids in zip(found["ragduet exact"], found[name]))
            per_query = statistics.median(seconds[name]) * 1e3
            quality = "" if relevant is None else f"  nDCG@10 {statistics.mean(map(ndcg, relevant, found[name])):.4f}"
            print(f"{name:<28}{per_query:>9.2f} ms/query  recall@{K} {recall:.4f}  same first {first:.4f}{quality}")
        ours.stdin.close()
        ours.wait()


if __name__ == "__main__":
    main()
