#!/usr/bin/env python3
"""Our dense indexes beside faiss and hnswlib: the same vectors, two threads each, in turns; medians and ratios.

    cargo build --release -p ragduet-index-benches
    env -u OPENBLAS_CORETYPE .venv/bin/python scripts/bench_index.py

Needs faiss-cpu and hnswlib in .venv. Rows are unit vectors around random centres, 100 a centre. On a machine that others
load, `--cpu --threads 1` compares the time that each contestant had a core instead of the time that passed.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import faiss  # noqa: E402
import hnswlib  # noqa: E402
import numpy as np  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
M, EF_CONSTRUCTION, K = 16, 200, 10
CPU = False  # --cpu


def clustered(n, dim, centres, rng):
    x = centres[rng.integers(len(centres), size=n)] + rng.uniform(-1, 1, (n, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


class Ours:
    """`benches/index/contest.rs`, asked line by line."""

    def __init__(self, corpus, queries, threads):
        folder = Path(tempfile.mkdtemp())
        np.save(folder / "corpus.npy", corpus)
        np.save(folder / "queries.npy", queries)
        binary = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/index_contest"
        self.process = subprocess.Popen(
            [binary, folder / "corpus.npy", folder / "queries.npy"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "RAYON_NUM_THREADS": str(threads)},
        )

    def __call__(self, what, number=0):
        before = on_core(self.process.pid)
        self.process.stdin.write(f"{what} {number}\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return on_core(self.process.pid) - before if CPU else answer["seconds"], answer["ids"]


def on_core(pid):
    """Seconds that the threads of a process have run so far."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def timed(run):
    clock = (lambda: on_core(os.getpid())) if CPU else time.perf_counter
    start = clock()
    result = run()
    return clock() - start, result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--builds", type=int, default=3)
    parser.add_argument("--hnsw-rs", action="store_true", help="build by hnsw_rs, too")
    parser.add_argument("--cpu", action="store_true", help="time on a core instead of time passed")
    args = parser.parse_args()
    global CPU
    CPU = args.cpu
    faiss.omp_set_num_threads(args.threads)
    rng = np.random.default_rng(7)
    centres = rng.uniform(-1, 1, (max(1, args.rows // 100), args.dim))
    corpus, queries = (clustered(n, args.dim, centres, rng) for n in (args.rows, args.queries))
    ours = Ours(corpus, queries, args.threads)
    flat = faiss.IndexFlatIP(args.dim)
    flat.add(corpus)

    def scores(name, seconds, base):
        median = statistics.median(seconds)
        ratio = statistics.median(b / s for b, s in zip(base, seconds))
        print(f"{name:<28}{len(queries) / median:>10.0f} queries/s {ratio:>6.2f} x", flush=True)

    truth = flat.search(queries, K)[1]
    recall = lambda ids: np.mean([len(set(a) & set(b)) / K for a, b in zip(truth, ids)])  # noqa: E731
    ours("scan"), ours("int8")
    rounds = [(ours("scan")[0], timed(lambda: flat.search(queries, K))[0], ours("int8")[0])
              for _ in range(args.rounds)]
    ours_s, faiss_s, int8_s = zip(*rounds)
    scores("scan: faiss Flat", faiss_s, faiss_s)
    scores("scan: ours", ours_s, faiss_s)
    scores("scan: ours, int8", int8_s, faiss_s)
    assert recall(ours("scan")[1]) > 0.999
    print(f"recall of int8 {recall(ours('int8')[1]):.4f}")

    def hnswlib_build():
        index = hnswlib.Index("ip", args.dim)
        index.init_index(len(corpus), M=M, ef_construction=EF_CONSTRUCTION)
        index.add_items(corpus, num_threads=args.threads)
        return index

    builders = ["native"] + ["hnsw_rs"] * args.hnsw_rs
    times = {name: [] for name in ["hnswlib", *builders]}
    for _ in range(args.builds):
        seconds, peer = timed(hnswlib_build)
        times["hnswlib"].append(seconds)
        for name in reversed(builders):
            times[name].append(ours(name)[0])
    for name, seconds in times.items():
        ratio = statistics.median(b / s for b, s in zip(times["hnswlib"], seconds))
        print(f"build: {name:<21}{len(corpus) / statistics.median(seconds):>10.0f} rows/s {ratio:>10.2f} x")

    for ef in (16, 32, 64, 128):
        peer.set_ef(ef)
        walk = lambda: peer.knn_query(queries, k=K, num_threads=args.threads)  # noqa: E731
        walk(), ours("walk", ef)
        rounds = [(ours("walk", ef)[0], timed(walk)[0]) for _ in range(args.rounds)]
        ours_s, peer_s = zip(*rounds)
        scores(f"ef {ef}: hnswlib {recall(walk()[0]):.4f}", peer_s, peer_s)
        scores(f"ef {ef}: ours    {recall(ours('walk', ef)[1]):.4f}", ours_s, peer_s)


if __name__ == "__main__":
    main()
