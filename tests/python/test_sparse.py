"""Sparse models beside sentence-transformers' SparseEncoder: folders both ways, weights, search, a step of training."""

import json
import pathlib
import shutil
import tempfile
import unittest
import warnings

import numpy as np
import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.sparse_encoder import losses, models
from test_exports import MARAVEL, lines, minilm, ragduet, texts

SCRATCH = "model.scratch={vocab_size=800,hidden_size=32,layers=2,heads=2,intermediate_size=64,max_positions=96}"
ROWS = ["what is it?", "Where, when; and why (of all)!", "ünïcode, 漢字 & emoji 🚢", "x", "a " * 60]
FLOPS = "[loss.sum]\nterms = [{loss = {info_nce = {}}}, {loss = {flops = {queries = 0.02, passages = 0.01, warmup = 0}}}]"


class Sparse(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tmp = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.tmp)
        cls.base = cls.train("base", [SCRATCH])

    @classmethod
    def train(cls, name, settings, sparse="{}", data=MARAVEL, more="", steps=2, size=8):
        config = cls.tmp / f"{name}.toml"
        config.write_text(
            f"[run]\nseed = 1\nprecision = \"fp32\"\nmax_steps = {steps}\nlog_every = 1\n[model]\nmax_query_tokens = 48\nmax_passage_tokens = 48\n"
            f"sparse = {sparse}\n[data]\ntrain = \"{data}\"\n"
            f"[temperature]\nvalue = 1.0\n[batch]\nsize = {{ examples = {size} }}\n{FLOPS}\n{more}"
        )
        sets = [x for s in settings for x in ("--set", s)]
        ragduet("train", "retriever", "-c", config, "--out", cls.tmp / name, "--quiet", *sets)
        return cls.tmp / name / "best"

    def encode(self, folder, side, rows, words):
        corpus = lines(self.tmp / "in.jsonl", [{"_id": str(i), "text": t} for i, t in enumerate(rows)])
        out = self.tmp / "out"
        ragduet("encode", "-m", folder, "-i", corpus, "-o", out, "--side", side, "--precision", "fp32")
        found = [json.loads(x) for x in (out / "vectors.jsonl").read_text().splitlines()]
        self.assertEqual([f["id"] for f in found], [str(i) for i in range(len(rows))])
        dense = np.zeros((len(rows), len(words)), dtype=np.float32)
        for row, f in zip(dense, found):
            for word, weight in f["vector"].items():
                row[words[word]] = weight
        return dense

    def load(self, folder):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", DeprecationWarning)
            return SparseEncoder(str(folder), device="cpu")

    def check(self, folder, theirs=None):
        model = theirs or self.load(folder)
        rows = texts(10) + ROWS
        words = model.tokenizer.get_vocab()
        found = {}
        for side in ("query", "passage"):
            want = model.encode(rows, convert_to_sparse_tensor=False, show_progress_bar=False).numpy()
            ours = self.encode(folder, side, rows, words)
            np.testing.assert_allclose(ours, want, atol=1e-4)
            found[side] = want
        self.check_search(folder, rows, found["query"] @ found["passage"].T)
        return model

    def check_search(self, folder, rows, scores):
        data = self.tmp / "beir"
        (data / "qrels").mkdir(parents=True, exist_ok=True)
        lines(data / "corpus.jsonl", [{"_id": f"p{i}", "title": "", "text": t} for i, t in enumerate(rows)])
        lines(data / "queries.jsonl", [{"_id": f"q{i}", "text": t} for i, t in enumerate(rows)])
        (data / "qrels/test.tsv").write_text(
            "query-id\tcorpus-id\tscore\n" + "".join(f"q{i}\tp{i}\t1\n" for i in range(len(rows))))
        trec = self.tmp / "sparse.trec"
        ragduet("eval", "retriever", "-m", folder, "--data", data, "--precision", "fp32", "--save-run", trec)
        found = 0
        for line in trec.read_text().splitlines():
            q, _, p, _, score, _ = line.split()
            want = scores[int(q[1:]), int(p[1:])]
            self.assertAlmostEqual(float(score), want, delta=1e-4 * max(1.0, abs(want)))
            found += 1
        self.assertEqual(found, (scores > 0).sum())
        index = self.tmp / "index"
        said = ragduet("index", "build", "-m", folder, "--corpus", data / "corpus.jsonl", "-o", index,
                       "--precision", "fp32")
        self.assertIn("sparse index of", said)
        hits = json.loads(ragduet("search", "--index", index, rows[0], "-k", "3", "--json"))[0]["hits"]
        best = sorted(scores[0], reverse=True)[:3]
        np.testing.assert_allclose([h["score"] for h in hits], best, rtol=1e-3)

    def test_ours_there(self):
        self.check(self.base)
        for name, sparse in {"sum": '{pooling="sum"}', "twice": '{activation="log1p_relu"}'}.items():
            with self.subTest(name):
                self.check(self.train(name, [SCRATCH], sparse))

    def test_an_encoder_gets_a_new_head(self):
        folder = self.train("minilm", [f'model.base="{minilm()}"'], steps=1)
        self.check(folder)

    def test_theirs_here(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = SparseEncoder(modules=[models.MLMTransformer(str(self.base), max_seq_length=40),
                                            models.SpladePooling("max")], device="cpu")
        folder = self.tmp / "theirs"
        theirs.save(str(folder))
        self.check(folder, theirs)

    def test_sentence_transformers_6(self):
        """Its layout, laid out by hand: the version installed for tests is 5."""
        folder = self.tmp / "six"
        shutil.copytree(self.base, folder)
        types = [("", "sentence_transformers.base.modules.transformer.Transformer"),
                 ("1_SpladePooling", "sentence_transformers.sparse_encoder.modules.splade_pooling.SpladePooling")]
        (folder / "modules.json").write_text(json.dumps(
            [{"idx": i, "name": str(i), "path": p, "type": t} for i, (p, t) in enumerate(types)]))
        (folder / "sentence_bert_config.json").write_text(json.dumps(
            {"transformer_task": "fill-mask", "max_seq_length": 48}))
        words = self.load(self.base).tokenizer.get_vocab()
        np.testing.assert_allclose(self.encode(folder, "passage", ROWS, words),
                                   self.encode(self.base, "passage", ROWS, words), atol=1e-6)

    def test_a_step(self):
        """The loss and the gradients' norm of a step without dropout, as SpladeLoss has them."""
        still = self.tmp / "still"
        shutil.copytree(self.base, still)
        config = json.loads((still / "config.json").read_text())
        config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        (still / "config.json").write_text(json.dumps(config))
        rows = texts(12)
        queries = [" ".join(r.split()[:5]) for r in rows[:4]]
        data = lines(self.tmp / "pairs.jsonl", [
            {"query": q, "positive": rows[4 + i], "negative": rows[8 + i]} for i, q in enumerate(queries)])
        for name, more in (("plain", ""), ("cached", "[grad_cache]\nchunk_tokens = 60\n")):
            self.train(name, [f'model.base="{still}"'], data=data, steps=1, size=4,
                       more=f"{more}[optim]\nlr = 1e-5\nmax_grad_norm = 0.0\nwarmup = {{ steps = 0 }}\n")
            logged = [json.loads(x) for x in (self.tmp / name / "metrics.jsonl").read_text().splitlines()]
            ours = next(x for x in logged if x["kind"] == "train")
            model = self.load(still).train()
            loss = losses.SpladeLoss(model, losses.SparseMultipleNegativesRankingLoss(model),
                                     document_regularizer_weight=0.01, query_regularizer_weight=0.02)
            value = sum(loss([model.tokenize(t) for t in (queries, rows[4:8], rows[8:12])]).values())
            value.backward()
            norm = torch.sqrt(sum(p.grad.double().pow(2).sum() for p in model.parameters() if p.grad is not None)).item()
            self.assertAlmostEqual(ours["loss"], value.item(), delta=1e-4 * abs(value.item()))
            self.assertAlmostEqual(ours["grad_norm"], norm, delta=1e-3 * norm)


if __name__ == "__main__":
    unittest.main()
