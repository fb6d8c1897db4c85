#!/usr/bin/env -S .venv/bin/python
"""One table of retrieval systems on a BEIR directory: words, an encoder as it is and fine-tuned, ColBERT, bi-encoders
distilled from it and from a cross-encoder, SPLADE, hybrids, the cross-encoder over what words and a hybrid find. What is
trained already is not trained again.

    scripts/retrieval_table.py DATA --encoder FOLDER [--work runs/retrieval-table] [--seed 1] [--out table.md]

Everything is chosen on dev (early evaluation, weights of fusions) and measured on test.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
BINARY = ROOT / "target/release/ragduet"
MEASURES = ["ndcg@10", "recall@100", "mrr"]


def run(*args):
    done = subprocess.run([BINARY, *map(str, args)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    if done.returncode:
        sys.exit(f"failed: {' '.join(map(str, args))}")
    return done.stdout


def train(a, kind, config, name, *settings):
    out = a.work / name
    if not (out / "best").exists():
        started = time.time()
        sets = [f"run.seed={a.seed}", f"model.base={a.encoder}", f"data.train={a.data}", f"data.dev={a.data}", *settings]
        run("train", kind, "-c", config, "--out", out, *[x for s in sets for x in ("--set", s)],
            *(["--resume"] if (out / "checkpoints").exists() else []))
        print(f"{name}: {time.time() - started:.0f} s", flush=True)
    return out / "best"


def file_of(system):
    """Where `eval retriever --save-run` puts a system's ranking."""
    return "".join(c if c.isalnum() or c == "." else "-" for c in system) + ".trec"


def ranking(path):
    found = {}
    for line in path.read_text().splitlines():
        query, _, passage, *_ = line.split(maxsplit=3)
        found.setdefault(query, []).append(passage)
    return found


def score(a, cross, pairs):
    """The cross-encoder's scores, each pair once, and milliseconds a pair. Parts of 100 questions are kept, so that a run
    that was stopped goes on where it was."""
    kept = a.work / "cross-scores"
    kept.mkdir(exist_ok=True)
    parts = [json.loads(file.read_text()) for file in kept.glob("*.json")]
    missing = {}
    for query, passage in sorted(pairs - {(q, d) for part in parts for q, d, _ in part["scores"]}):
        missing.setdefault(query, []).append(passage)
    queries = list(missing)
    for i in range(0, len(queries), 100):
        asked, answered = a.work / "cross-asked.trec", a.work / "cross-answered.trec"
        asked.write_text("".join(f"{q} Q0 {d} {k + 1} {-k} asked\n" for q in queries[i:i + 100]
                                 for k, d in enumerate(missing[q])))
        started = time.time()
        run("rerank", "--rerank", cross, "--rerank-depth", 1_000_000, "--run", asked, "--data", a.data, "--split", "test",
            "-o", answered)
        columns = [line.split() for line in answered.read_text().splitlines()]
        parts.append({"seconds": time.time() - started, "scores": [[c[0], c[2], float(c[4])] for c in columns]})
        (kept / f"{len(parts):04}.json").write_text(json.dumps(parts[-1]))
    scores = {(q, d): s for part in parts for q, d, s in part["scores"]}
    return scores, 1000 * sum(part["seconds"] for part in parts) / len(scores)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path, help="a BEIR directory with train, dev and test")
    parser.add_argument("--encoder", type=pathlib.Path, required=True, help="folder of the encoder all start from")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "runs/retrieval-table")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rerank", nargs="*", default=["bm25=100", "hybrid bm25 + distilled-colbert=30"],
                        help="systems that are re-ranked, and how many passages of a question")
    parser.add_argument("--no-splade", action="store_true", help="an encoder without a masked-language-model head makes a "
                        "poor SPLADE, and a slow one")
    parser.add_argument("--out", type=pathlib.Path)
    a = parser.parse_args()
    a.data, a.encoder = a.data.resolve(), a.encoder.resolve()
    a.work.mkdir(parents=True, exist_ok=True)

    words = ["mining.with={lexical={}}"]
    cross = train(a, "cross-encoder", "configs/reranker/covid-qa.toml", "cross", f"first_stage.model={a.encoder}",
                  "first_stage.mining.with={lexical={}}", "batch.negatives_per_query=3", "model.max_tokens=192",
                  "eval.depth=20", "eval.limit=60")
    dense = train(a, "retriever", "configs/retriever/covid-qa.toml", "dense", *words, 'mining.when="start"',
                  "mining.select.rank_min=1", "mining.select.rank_max=40", "run.epochs=3.0", "eval.max_passages=1000")
    colbert = train(a, "retriever", "configs/retriever/colbert.toml", "colbert", "run.epochs=2.0",
                    "batch.negatives_per_query=1", "model.max_passage_tokens=180")
    distilled = train(a, "retriever", "configs/retriever/distil.toml", "distilled", f"teacher.cross_encoder.path={cross}",
                      "batch.negatives_per_query=2", "mining.select.count=8")
    from_colbert = train(a, "retriever", "configs/retriever/distil-colbert.toml", "distilled-colbert",
                         f"teacher.retriever.path={colbert}")
    splade = [] if a.no_splade else [train(a, "retriever", "configs/retriever/splade.toml", "splade")]

    common = ["--data", a.data, "--split", "test", "--measures", ",".join(MEASURES), "--json"]
    runs = a.work / "runs"
    models = [x for m in (a.encoder, dense, colbert, distilled, from_colbert, *splade) for x in ("-m", m)]
    rows = json.loads(run("eval", "retriever", *models, "--index", "bm25,model,hybrid", "--fusion", "z_score",
                          "--learn-weights", "dev", "--save-run", runs, *common))
    packed = json.loads(run("eval", "retriever", "-m", colbert, "--bits", 4, "--index", "model,bm25",
                            "--save-run", a.work / "runs-4bit", *common))
    rows += [dict(r, system=f"{r['system']}, 4 bits") for r in packed if r["system"] != "bm25"]
    wanted = [(name, int(depth)) for name, _, depth in (w.rpartition("=") for w in a.rerank)]
    firsts = {name: ranking(runs / file_of(name)) for name, _ in wanted}
    pairs = {(q, d) for name, depth in wanted for q, found in firsts[name].items() for d in found[:depth]}
    scores, ms = score(a, cross, pairs)
    for name, depth in wanted:
        again = a.work / f"reranked-{depth}-{file_of(name)}"
        again.write_text("".join(
            f"{q} Q0 {d} {i + 1} {s} reranked\n" for q, found in firsts[name].items()
            for i, (s, d) in enumerate(sorted(((scores[q, d], d) for d in found[:depth]), reverse=True)
                                       + [(-1000.0 - i, d) for i, d in enumerate(found[depth:])])))
        found = json.loads(run("eval", "run", again, "--qrels", a.data / "qrels/test.tsv", "--measures",
                               ",".join(MEASURES), "--compare", runs / "bm25.trec", "--json"))
        base = next(r for r in rows if r["system"] == name)
        rows.append({
            "system": f"{name}, first {depth} re-ranked", "mean": [[m, found["mean"][m]] for m in MEASURES],
            "latency_ms": base["latency_ms"] + depth * ms, "bytes_per_passage": base["bytes_per_passage"],
            "p_value": found["compared"][MEASURES[0]]["test"]["p_value"],
        })
    number = lambda v, digits: "" if v is None else f"{v:.{digits}f}"
    text = "| system | " + " | ".join(MEASURES) + " | ms/query | bytes/passage | p |\n|---|" + "---|" * 6 + "\n"
    for r in rows:
        values = " | ".join(f"{v:.4f}" for _, v in r["mean"])
        text += (f"| {r['system']} | {values} | {number(r['latency_ms'], 1)} | {number(r['bytes_per_passage'], 0)} "
                 f"| {number(r['p_value'], 4)} |\n")
    text += f"\np: {MEASURES[0]} against {rows[0]['system']}'s, paired randomisation. Seed {a.seed}.\n"
    print(text)
    if a.out:
        a.out.write_text(text)


main()
