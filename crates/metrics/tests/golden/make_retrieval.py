"""Makes retrieval.json: random rankings, and what pytrec_eval (pytrec_eval-terrier) says of them.

    .venv/bin/python crates/metrics/tests/golden/make_retrieval.py

trec_eval has no cut for the reciprocal rank, so mrr@k is recip_rank of the ranking cut to k in trec_eval's order
(score as float32, then the greater document id).
"""
import json
import random
import struct
from pathlib import Path

import pytrec_eval

NAMES = {
    "ndcg@1": "ndcg_cut_1", "ndcg@3": "ndcg_cut_3", "ndcg@10": "ndcg_cut_10", "ndcg@1000": "ndcg_cut_1000",
    "recall@1": "recall_1", "recall@10": "recall_10", "recall@100": "recall_100",
    "precision@1": "P_1", "precision@10": "P_10", "precision@100": "P_100",
    "hit@1": "success_1", "hit@10": "success_10",
    "mrr": "recip_rank", "map": "map", "map@10": "map_cut_10", "map@100": "map_cut_100", "r_precision": "Rprec",
}
ASK = {
    "ndcg_cut.1,3,10,1000", "recall.1,10,100", "P.1,10,100", "success.1,10", "recip_rank", "map", "map_cut.10,100",
    "Rprec",
}


def f32(x):
    return struct.unpack("f", struct.pack("f", x))[0]


def cut(docs, k):
    order = sorted(docs.items(), key=lambda item: (f32(item[1]), item[0].encode()), reverse=True)
    return dict(order[:k])


def score(qrels, run, level):
    got = pytrec_eval.RelevanceEvaluator(qrels, ASK, relevance_level=level).evaluate(run)
    out = {q: {name: v[theirs] for name, theirs in NAMES.items()} for q, v in got.items()}
    for k in (1, 5, 10):
        short = {q: cut(docs, k) for q, docs in run.items()}
        got = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}, relevance_level=level).evaluate(short)
        for q in out:
            out[q][f"mrr@{k}"] = got[q]["recip_rank"]
    return out


def random_case(rng, level, ties, grades, long):
    qrels, run = {}, {}
    for i in range(12):
        q = f"q{i}"
        pool = [rng.choice(["d", "D", "doc-", "é"]) + str(rng.randrange(2000)) for _ in range(150 if long else 25)]
        pool = list(dict.fromkeys(pool))
        judged = rng.sample(pool, rng.randint(1, len(pool) // 2))
        if rng.random() < 0.9:
            qrels[q] = {d: rng.choice(grades) for d in judged}
            # trec_eval reads outside its table (and may die) where all grades of a query are negative or none
            # reaches a relevance level above 1.
            if level > 1 or max(qrels[q].values()) < 0:
                qrels[q][judged[0]] = max(grades)
        if rng.random() < 0.85:
            returned = rng.sample(pool, rng.randint(1, len(pool)))
            if ties:
                run[q] = {d: float(rng.randint(0, 4)) for d in returned}
            else:
                run[q] = {d: rng.gauss(0, 3) for d in returned}
    return qrels, run, level


def main():
    rng = random.Random(20240607)
    cases = []
    for level in (1, 2):
        for ties in (False, True):
            for grades in ([0, 1], [0, 1, 2, 3], [-2, -1, 0, 1, 4], [0, 0, -1]):
                if max(grades) < level:
                    continue
                for long in (False, True):
                    cases.append(random_case(rng, level, ties, grades, long))
    # Scores that differ as doubles and not as floats: a tie for trec_eval.
    close = {"a": 1.0 + 1e-12, "b": 1.0, "c": 1.0 - 1e-12, "d": 0.5}
    cases.append(({"q": {"a": 1, "d": 2}}, {"q": close}, 1))
    # Nothing relevant; nothing retrieved that is judged; negative scores; a single document; huge and tiny scores.
    cases.append((
        {"none": {"a": 0, "b": -1}, "miss": {"z": 1}, "neg": {"a": 3, "b": 1}, "one": {"a": 1},
         "wide": {"a": 1, "b": 2, "c": 3}},
        {"none": {"a": 1.0, "b": 0.5}, "miss": {"a": 1.0}, "neg": {"a": -2.0, "b": -1.0}, "one": {"a": 0.0},
         "wide": {"a": 1e30, "b": 1e-30, "c": 0.0, "x": -1e30}}, 1))
    out = [{"qrels": q, "run": r, "level": level, "want": score(q, r, level)} for q, r, level in cases]
    path = Path(__file__).with_name("retrieval.json")
    path.write_text(json.dumps(out, ensure_ascii=False, separators=(",", ":")) + "\n")
    print(len(out), "cases,", sum(len(c["want"]) for c in out), "queries,", path.stat().st_size, "bytes")


main()
