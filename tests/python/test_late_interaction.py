"""Late interaction beside PyLate: folders both ways, token vectors, MaxSim scores, losses and gradients of a step."""

import json
import pathlib
import shutil
import tempfile
import unittest
import warnings

import numpy as np
import torch
from pylate import losses, models, scores
from test_exports import MARAVEL, lines, minilm, ragduet, texts

SCRATCH = "model.scratch={vocab_size=800,hidden_size=32,layers=2,heads=2,intermediate_size=64,max_positions=96}"
ROWS = ["what is it?", "Where, when; and why (of all)!", "ünïcode, 漢字 & emoji 🚢", "x", "a " * 60]


class LateInteraction(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tmp = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.tmp)
        cls.base = cls.train("base", [SCRATCH])

    @classmethod
    def train(cls, name, settings, late="{dim=16}"):
        config = cls.tmp / f"{name}.toml"
        config.write_text(
            "[run]\nseed = 1\nprecision = \"fp32\"\nmax_steps = 2\n[model]\nmax_query_tokens = 16\nmax_passage_tokens = 48\n"
            f"late_interaction = {late}\n[data]\ntrain = \"{MARAVEL}\"\n"
            "[batch]\nsize = { examples = 8 }\n"
        )
        sets = [x for s in settings for x in ("--set", s)]
        ragduet("train", "retriever", "-c", config, "--out", cls.tmp / name, "--quiet", *sets)
        return cls.tmp / name / "best"

    def encode(self, model, side, rows):
        corpus = lines(self.tmp / "in.jsonl", [{"_id": str(i), "text": t} for i, t in enumerate(rows)])
        out = self.tmp / "out"
        ragduet("encode", "-m", model, "-i", corpus, "-o", out, "--side", side, "--precision", "fp32")
        counts = [int(n) for n in (out / "counts.jsonl").read_text().split()]
        return np.split(np.load(out / "embeddings.npy"), np.cumsum(counts)[:-1])

    def load(self, folder):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", DeprecationWarning)
            return models.ColBERT(str(folder), device="cpu")

    def check(self, folder, theirs=None):
        model = theirs or self.load(folder)
        rows = texts(10) + ROWS
        found = {}
        for side in ("query", "passage"):
            want = model.encode(rows, is_query=side == "query", show_progress_bar=False)
            ours = self.encode(folder, side, rows)
            for text, a, b in zip(rows, ours, want):
                self.assertEqual(a.shape, b.shape, (side, text))
                self.assertLess(np.abs(a - b).max(), 1e-4, (side, text))
            found[side] = (ours, want)
        self.check_search(folder, rows, found["query"][1], found["passage"][1])
        return model

    def check_search(self, folder, rows, queries, passages):
        """The scores of `eval retriever`, exact MaxSim, beside PyLate's (pair by pair: padding scores 0 there)."""
        data = self.tmp / "beir"
        (data / "qrels").mkdir(parents=True, exist_ok=True)
        lines(data / "corpus.jsonl", [{"_id": f"p{i}", "title": "", "text": t} for i, t in enumerate(rows)])
        lines(data / "queries.jsonl", [{"_id": f"q{i}", "text": t} for i, t in enumerate(rows)])
        (data / "qrels/test.tsv").write_text(
            "query-id\tcorpus-id\tscore\n" + "".join(f"q{i}\tp{i}\t1\n" for i in range(len(rows))))
        trec = self.tmp / "late.trec"
        ragduet("eval", "retriever", "-m", folder, "--data", data, "--precision", "fp32", "--save-run", trec)
        for line in trec.read_text().splitlines():
            q, _, p, _, score, _ = line.split()
            pair = [torch.tensor(queries[int(q[1:])])[None], torch.tensor(passages[int(p[1:])])[None]]
            self.assertAlmostEqual(float(score), scores.colbert_scores(*pair).item(), delta=1e-3)

    def test_ours_in_pylate(self):
        model = self.check(self.base)
        self.assertEqual((model.query_length, model.document_length), (16, 48))

    def test_settings(self):
        for name, late in {
            "attend": "{dim=16,attend_to_expansion=true}",
            "unexpanded": "{dim=16,expand_queries=false}",
            "keep": '{dim=16,skip=[],query_marker="[X]",passage_marker="[Y]"}',
        }.items():
            with self.subTest(name):
                self.check(self.train(name, [SCRATCH], late))

    def test_theirs_here(self):
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = models.ColBERT(str(minilm()), device="cpu", embedding_size=24, query_length=20, document_length=40)
        folder = self.tmp / "pylate"
        theirs.save(str(folder))
        self.check(folder, theirs)

    def test_stanford(self):
        """Their layout: the encoder under `bert.` and `linear.weight` in one file, lengths in artifact.metadata."""
        from safetensors.torch import load_file, save_file

        folder = self.tmp / "stanford"
        folder.mkdir()
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            shutil.copy(self.base / name, folder)
        weights = {f"bert.{k}": v for k, v in load_file(self.base / "model.safetensors").items()}
        weights["linear.weight"] = load_file(self.base / "1_Dense/model.safetensors")["linear.weight"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((self.base / "config.json").read_text()) | {"architectures": ["HF_ColBERT"]}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "artifact.metadata").write_text(json.dumps({
            "query_token_id": "[Q] ", "doc_token_id": "[D] ", "query_maxlen": 16, "doc_maxlen": 48,
            "attend_to_mask_tokens": False, "mask_punctuation": True,
        }))
        for side in ("query", "passage"):
            for a, b in zip(self.encode(folder, side, ROWS), self.encode(self.base, side, ROWS)):
                np.testing.assert_allclose(a, b, atol=1e-6)

    def test_sentence_transformers_6(self):
        """The layout of its MultiVectorEncoder, laid out by hand: the version installed for tests is 5."""
        folder = self.tmp / "six"
        shutil.copytree(self.base, folder)
        prefix = "sentence_transformers"
        modules = [("", f"{prefix}.base.modules.transformer.Transformer"), ("1_Dense", f"{prefix}.base.modules.dense.Dense"),
                   ("2_MultiVectorMask", f"{prefix}.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask"),
                   ("3_Normalize", f"{prefix}.base.modules.normalize.Normalize")]
        (folder / "modules.json").write_text(json.dumps(
            [{"idx": i, "name": str(i), "path": p, "type": t} for i, (p, t) in enumerate(modules)]))
        ours = json.loads((self.base / "config_sentence_transformers.json").read_text())
        (folder / "2_MultiVectorMask").mkdir()
        (folder / "2_MultiVectorMask/config.json").write_text(json.dumps(
            {"skiplist_words": ours["skiplist_words"], "skiplist_tasks": ["document"], "keep_only_token_ids": None}))
        (folder / "config_sentence_transformers.json").write_text(json.dumps({
            "model_type": "MultiVectorEncoder", "prompts": {"query": "[Q] ", "document": "[D] "},
            "similarity_fn_name": "maxsim"}))
        (folder / "sentence_bert_config.json").write_text(json.dumps({
            "query_expansion": {"strategy": "fixed", "attend": False, "token": None, "length": 16},
            "document_length": 48}))
        for side in ("query", "passage"):
            for a, b in zip(self.encode(folder, side, ROWS), self.encode(self.base, side, ROWS)):
                np.testing.assert_allclose(a, b, atol=1e-6)

    def step(self, name, data, loss, more=""):
        """One step without dropout: the loss and the gradients' norm that ours logs."""
        still = self.tmp / "still"
        if not still.exists():
            shutil.copytree(self.base, still)
            config = json.loads((still / "config.json").read_text())
            config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
            (still / "config.json").write_text(json.dumps(config))
        toml = self.tmp / f"{name}.toml"
        toml.write_text(
            f'[run]\nprecision = "fp32"\nmax_steps = 1\nlog_every = 1\n[model]\nbase = "{still}"\n[data]\ntrain = "{data}"\n[batch]\n'
            f"size = {{ examples = 4 }}\nnegatives_per_query = 3\n{loss}\n"
            f"[optim]\nlr = 1e-5\nwarmup = {{ steps = 0 }}\nmax_grad_norm = 0.0\n{more}"
        )
        run = self.tmp / name
        ragduet("train", "retriever", "-c", toml, "--out", run, "--quiet")
        logged = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
        return still, next(x for x in logged if x["kind"] == "train")

    def compare(self, ours, value, model):
        norm = torch.sqrt(sum(p.grad.double().pow(2).sum() for p in model.parameters() if p.grad is not None)).item()
        self.assertAlmostEqual(ours["loss"], value.item(), delta=1e-4 * abs(value.item()))
        self.assertAlmostEqual(ours["grad_norm"], norm, delta=1e-3 * norm)

    def passages(self):
        # No skipped tokens: PyLate's training scores a skipped token 0, which counts where all others are below.
        rows = [" ".join(w for w in t.split() if w.isalnum()) for t in texts(16)]
        return [" ".join(p.split()[3:8]) for p in rows[:4]], [rows[4 * i:4 * i + 4] for i in range(4)]

    def test_contrastive_step(self):
        queries, groups = self.passages()
        data = lines(self.tmp / "pairs.jsonl",
                     [{"query": q, "positive": g[0], "negative": g[1]} for q, g in zip(queries, groups)])
        for name, more in (("contrastive", ""), ("cached", "[grad_cache]\nchunk_tokens = 100\n")):
            folder, ours = self.step(name, data, "[temperature]\nvalue = 0.5", more)
            model = self.load(folder).train()
            loss = losses.Contrastive(model, temperature=0.5)
            features = [model.tokenize(queries, is_query=True)] + [
                model.tokenize([g[k] for g in groups], is_query=False, pad=True) for k in (0, 1)]
            value = loss(features)
            value.backward()
            self.compare(ours, value, model)

    def test_distillation_step(self):
        queries, groups = self.passages()
        teacher = [[3.0, 1.0, 0.5, -1.0], [0.2, 0.1, 0.0, 2.0], [1.0, 1.0, 1.0, 0.0], [5.0, -2.0, 0.3, 0.1]]
        data = lines(self.tmp / "kd.jsonl", [
            {"query": q, "positive": g[0], "negatives": g[1:], "scores": t}
            for q, g, t in zip(queries, groups, teacher)])
        for normalize in (True, False):
            folder, ours = self.step(f"kd-{normalize}", data,
                                     f"[loss.kl]\nnormalize = {str(normalize).lower()}\n[temperature]\nvalue = 1.0")
            model = self.load(folder).train()
            loss = losses.Distillation(model, normalize_scores=normalize)
            flat = [p for g in groups for p in g]
            features = [model.tokenize(queries, is_query=True), model.tokenize(flat, is_query=False, pad=True)]
            value = loss(features, torch.tensor(teacher))
            value.backward()
            self.compare(ours, value, model)


if __name__ == "__main__":
    unittest.main()
