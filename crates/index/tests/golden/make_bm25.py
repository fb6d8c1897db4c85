"""Goldens for the lexical index. Reference tools: bm25s 0.3.16, PyStemmer 3.1.0.

    python make_bm25.py [covid-qa]

`bm25.json`: scores of all texts for each variant, over the same lists of tokens. `bm25_covid_qa.json`, where the folder is given:
the ten best passages of COVID-QA (row numbers; ties by row) for each question, through bm25s' own tokeniser.
"""
import json, pathlib, random, sys
import bm25s, numpy as np, Stemmer

HERE = pathlib.Path(__file__).parent
random.seed(3)

def words(n):
    return [f"w{int(200 ** random.random())}" for _ in range(n)]

texts = [words(random.randrange(1, 40)) for _ in range(80)]
queries = [words(random.randrange(1, 8)) for _ in range(30)] + [["w1"] * 3, ["w1", "w2", "w1"]]
cases = []
for method, k1, b, delta in [("lucene", 0.9, 0.4, 0.5), ("lucene", 1.5, 0.75, 0.5), ("robertson", 1.2, 0.75, 0.5), ("atire", 1.5, 0.5, 0.5),
                             ("bm25l", 1.5, 0.75, 0.5), ("bm25l", 0.9, 1.0, 0.0), ("bm25+", 1.5, 0.75, 1.0), ("bm25+", 0.9, 0.0, 0.5)]:
    index = bm25s.BM25(method=method, k1=k1, b=b, delta=delta)
    index.index(texts, show_progress=False)
    scores = [[float(f"{s:.7g}") for s in index.get_scores(query)] for query in queries]
    cases.append(dict(variant=method.replace("+", "plus"), k1=k1, b=b, delta=delta, scores=scores))
join = lambda rows: [" ".join(row) for row in rows]
(HERE / "bm25.json").write_text(json.dumps(dict(texts=join(texts), queries=join(queries), cases=cases), separators=(",", ":")))

if len(sys.argv) > 1:
    data = pathlib.Path(sys.argv[1])
    rows = lambda name: [json.loads(line) for line in (data / name).read_text().splitlines()]
    tokens = lambda texts: bm25s.tokenize(texts, stopwords="english", stemmer=Stemmer.Stemmer("english"), return_ids=False, show_progress=False)
    index = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
    index.index(tokens([f"{row['title']} {row['text']}" for row in rows("corpus.jsonl")]), show_progress=False)
    best = []
    for query in tokens([row["text"] for row in rows("queries.jsonl")]):
        scores = index.get_scores(query)
        best.append(np.lexsort((np.arange(len(scores)), -scores))[:10].tolist())
    (HERE / "bm25_covid_qa.json").write_text(json.dumps(best, separators=(",", ":")))
