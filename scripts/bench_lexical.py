"""Queries per second of the lexical index and of bm25s: see scripts/bench_lexical."""
import json, os, pathlib, random, re, statistics, subprocess, sys, tempfile, time

for name in ["RAYON_NUM_THREADS", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS"]:
    os.environ[name] = "1"
import bm25s, Stemmer

TOPS = [10, 100]
ours = pathlib.Path("target/release/index_lexical")


def corpora(data, mixed):
    """The terms of COVID-QA's passages and questions, and of texts mixed of its sentences."""
    rows = lambda name: [json.loads(line) for line in (data / name).read_text().splitlines()]
    stemmer = Stemmer.Stemmer("english")
    tokens = lambda texts: bm25s.tokenize(texts, stopwords="english", stemmer=stemmer, return_ids=False, show_progress=False)
    passages = [f"{row['title']} {row['text']}" for row in rows("corpus.jsonl")]
    questions = tokens([row["text"] for row in rows("queries.jsonl")])
    yield "COVID-QA", tokens(passages), questions
    sentences = tokens([s for passage in passages for s in re.split(r"(?<=[.!?]) ", passage)])
    rng = random.Random(7)
    texts = [sum((rng.choice(sentences) for _ in range(rng.randrange(1, 9))), []) or ["empty"] for _ in range(mixed)]
    yield "Mixed sentences", texts, questions


class Bm25s:
    def __init__(self, texts, backend):
        started = time.perf_counter()
        self.index = bm25s.BM25(method="lucene", k1=0.9, b=0.4, backend=backend)
        self.index.index(texts, show_progress=False)
        self.build = time.perf_counter() - started

    def run(self, queries):
        top = {}
        for k in TOPS:
            self.index.retrieve(queries[:2], k=k, show_progress=False)  # numba compiles
            started = time.perf_counter()
            scores = self.index.retrieve(queries, k=k, show_progress=False).scores
            rate = len(queries) / (time.perf_counter() - started)
            top[str(k)] = dict(rate=rate, best=float(scores[:, 0].astype("f8").sum()))
        return dict(build=self.build, top=top)


def measure(name, texts, queries, rounds):
    rivals = {"bm25s numpy": Bm25s(texts, "numpy")}
    try:
        rivals["bm25s numba"] = Bm25s(texts, "numba")
    except ImportError as error:
        print(f"bm25s numba left out: {error}")
    with tempfile.TemporaryDirectory() as folder:
        files = [pathlib.Path(folder) / file for file in ["texts.txt", "queries.txt"]]
        for file, rows in zip(files, [texts, queries]):
            file.write_text("\n".join(" ".join(row) for row in rows) + "\n")
        runs = {"ragduet": []} | {rival: [] for rival in rivals}
        for _ in range(rounds):
            runs["ragduet"].append(json.loads(subprocess.run([ours, *files], check=True, capture_output=True, text=True).stdout))
            for rival in rivals:
                runs[rival].append(rivals[rival].run(queries))
    print(f"\n{name}: {len(texts)} texts, {len(queries)} queries, one thread, median of {rounds}\n")
    print("| | build s | " + " | ".join(f"top {k}, queries/s | ours is faster by" for k in TOPS) + " |")
    print("|---|---|" + "---|---|" * len(TOPS))
    median = lambda who, get: statistics.median(map(get, runs[who]))
    for who in runs:
        cells = [f"{median(who, lambda run: run['build']):.2f}"]
        for k in map(str, TOPS):
            rate = lambda who: median(who, lambda run: run["top"][k]["rate"])
            cells += [f"{rate(who):.0f}", f"{rate('ragduet') / rate(who):.1f} x"]
            # What is fast and wrong is not fast.
            a, b = runs["ragduet"][0]["top"][k]["best"], runs[who][0]["top"][k]["best"]
            assert abs(a - b) < 1e-4 * abs(b), (who, k, a, b)
        print(f"| {who} | " + " | ".join(cells) + " |")


rounds, data, mixed = int(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
for corpus in corpora(data, mixed):
    measure(*corpus, rounds)
