"""Folders of the newest sentence-transformers and transformers, read with equal outputs, and ours in them."""

import json
import pathlib
import shutil
import tempfile
import unittest

from newest import ROWS, encode, lines, need, ragduet, tiny_bert

need(sentence_transformers="6.2", transformers="5.24")

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from sentence_transformers import CrossEncoder, SentenceTransformer  # noqa: E402
from sentence_transformers.base.modules import Dense, Normalize, Transformer  # noqa: E402
from sentence_transformers.cross_encoder.modules import LogitScore  # noqa: E402
from sentence_transformers.sentence_transformer.modules import Pooling  # noqa: E402
from sentence_transformers.sentence_transformer.modules.layer_norm import LayerNorm  # noqa: E402

CHATML = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
PAIRS = [("where is the mill", r) for r in ROWS]


class Folders(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
        cls.tmp = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.tmp)
        cls.base = str(tiny_bert(cls.tmp / "base"))

    def saved(self, name, *modules, **settings):
        model = SentenceTransformer(modules=[Transformer(self.base), *modules], device="cpu", **settings)
        folder = self.tmp / name
        model.eval().save_pretrained(str(folder))
        return folder

    def check(self, folder, again=False):
        """Both sides, beside what the folder gives there; and beside what it gives there after Ragduet wrote it `again`."""
        model = SentenceTransformer(str(folder), device="cpu")
        want = {"query": model.encode_query(ROWS), "passage": model.encode_document(ROWS)}
        for side, theirs in want.items():
            ours = encode(self.tmp, folder, side, ROWS)
            self.assertEqual(ours.shape, theirs.shape)
            self.assertLess(np.abs(ours - theirs).max(), 2e-5 * max(1, np.abs(theirs).max()), side)
        if not again:
            return
        pairs = lines(self.tmp / "pairs.jsonl", [{"query": q, "positive": p} for q, p in zip(ROWS, reversed(ROWS))])
        config = self.tmp / "again.toml"
        config.write_text(
            f'[run]\nmax_steps = 1\nprecision = "fp32"\n[model]\nbase = "{folder}"\n[data]\ntrain = "{pairs}"\n'
            "[optim]\nlr = 1e-12\n"
        )
        run = self.tmp / f"{folder.name}-again"
        ragduet("train", "retriever", "-c", config, "--out", run, "--quiet")
        again = SentenceTransformer(str(run / "best"), device="cpu")
        for side, theirs in (("query", again.encode_query(ROWS)), ("passage", again.encode_document(ROWS))):
            self.assertLess(np.abs(want[side] - theirs).max(), 2e-5 * max(1, np.abs(theirs).max()), f"{side}, again")

    def test_poolings(self):
        modes = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", ("mean", "cls", "max")]
        for i, mode in enumerate(modes):
            with self.subTest(mode=mode):
                self.check(self.saved(f"pool{i}", Pooling(24, mode), similarity_fn_name="dot"), again=mode == "weightedmean")

    def test_prompts_left_out_of_pooling(self):
        for i, mode in enumerate(["max", "mean", "mean_sqrt_len_tokens", "weightedmean"]):
            with self.subTest(mode=mode):
                prompts = {"query": "ask me: ", "document": "the text: "}
                self.check(self.saved(f"prompt{i}", Pooling(24, mode, include_prompt=False), prompts=prompts))

    def test_modules_behind_pooling(self):
        torch.manual_seed(2)
        norm = LayerNorm(20)
        torch.nn.init.normal_(norm.norm.weight)
        torch.nn.init.normal_(norm.norm.bias)
        self.check(self.saved(
            "modules", Pooling(24, ("cls", "mean")), Dense(48, 20, activation_function=torch.nn.GELU()), Normalize(), norm,
            Dense(20, 12, bias=False, activation_function=torch.nn.SiLU()),
            Dense(12, 12, activation_function=torch.nn.Identity()), Normalize(),
        ), again=True)

    def test_residual(self):
        dense = [Dense(24, 24, use_residual=True), Dense(24, 8, use_residual=True, activation_function=torch.nn.ReLU())]
        self.check(self.saved("residual", Pooling(24), *dense), again=True)

    def test_truncated(self):
        folder = self.saved("truncated", Pooling(24), Normalize(), truncate_dim=10)
        self.assertEqual(encode(self.tmp, folder).shape, (len(ROWS), 10))
        self.check(folder, again=True)

    def test_length_limit_of_the_tokenizer(self):
        model = SentenceTransformer(str(self.saved("long", Pooling(24))), device="cpu")
        model.max_seq_length = 7
        folder = self.tmp / "short"
        model.save_pretrained(str(folder))
        self.assertEqual(json.loads((folder / "tokenizer_config.json").read_text())["model_max_length"], 7)
        self.assertNotIn("max_seq_length", json.loads((folder / "sentence_bert_config.json").read_text()))
        self.check(folder)

    def test_what_is_not_read_is_named(self):
        folder = self.saved("euclidean", Pooling(24), similarity_fn_name="euclidean")
        given = lines(self.tmp / "one.jsonl", [{"_id": "1", "text": "x"}])
        said = ragduet("encode", "-m", folder, "-i", given, "-o", self.tmp / "no", fails=True)
        self.assertIn("similarity_fn_name", said)
        self.check(self.saved("unit", Pooling(24), Normalize(), similarity_fn_name="euclidean"))


class CrossEncoders(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
        cls.tmp = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.tmp)

    def llama(self, name, kind, template=None):
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers
        from transformers import LlamaConfig, PreTrainedTokenizerFast

        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        words = {t: i for i, t in enumerate(["<|end|>", "<|im_start|>", "<|im_end|>", *letters])}
        merges = [("y", "e"), ("ye", "s"), ("n", "o")]
        for merge in merges:
            words["".join(merge)] = len(words)
        backend = Tokenizer(models.BPE(vocab=words, merges=merges))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens(["<|end|>", "<|im_start|>", "<|im_end|>"])
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend, eos_token="<|end|>", pad_token="<|end|>", model_max_length=96,
        )
        if template:
            tokenizer.chat_template = template
        torch.manual_seed(3)
        more = {"num_labels": 1} if kind.__name__.endswith("SequenceClassification") else {}
        model = kind(LlamaConfig(
            vocab_size=len(words), hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=96, initializer_range=0.3, pad_token_id=0,
            tie_word_embeddings=name.startswith("tied"), **more,
        ))
        folder = self.tmp / name
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    def scores(self, folder):
        """Ragduet's logits of the pairs, which keep their order as a run."""
        corpus = lines(self.tmp / "corpus.jsonl", [{"_id": f"d{i}", "text": p} for i, (_, p) in enumerate(PAIRS)])
        queries = lines(self.tmp / "queries.jsonl", [{"_id": "q", "text": PAIRS[0][0]}])
        (self.tmp / "qrels").mkdir(exist_ok=True)
        (self.tmp / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td0\t1\n")
        self.assertTrue(corpus.is_file() and queries.is_file())
        first, again = self.tmp / "first.trec", self.tmp / "again.trec"
        again.unlink(missing_ok=True)
        first.write_text("".join(f"q Q0 d{i} {i} {-i} x\n" for i in range(len(PAIRS))))
        ragduet(
            "rerank", "--rerank", folder, "--run", first, "--data", self.tmp, "--split", "test", "-o", again,
            "--precision", "fp32",
        )
        found = {row.split()[2]: float(row.split()[4]) for row in again.read_text().splitlines()}
        return [found[f"d{i}"] for i in range(len(PAIRS))]

    def check(self, folder):
        model = CrossEncoder(str(folder), device="cpu")
        want = model.predict(PAIRS, activation_fn=torch.nn.Identity())
        np.testing.assert_allclose(self.scores(folder), want, atol=5e-5 * max(1, np.abs(want).max()))

    def test_logit_score(self):
        for i, (name, template, no) in enumerate([
            ("untied", None, 2), ("tied", None, 2), ("untied-chat", CHATML, 2), ("tied-one", CHATML, None),
        ]):
            with self.subTest(name):
                base = self.llama(f"{name}-base", transformers.LlamaForCausalLM, template)
                transformer = Transformer(base, transformer_task="text-generation")
                model = CrossEncoder(modules=[transformer, LogitScore(5, no)], device="cpu")
                if i == 2:
                    model.max_seq_length = 40
                model.save_pretrained(str(self.tmp / name))
                self.check(self.tmp / name)

    def test_classifiers_with_a_chat_template(self):
        base = self.llama("classifier", transformers.LlamaForSequenceClassification, CHATML)
        model = CrossEncoder(base, device="cpu")
        model.save_pretrained(str(self.tmp / "saved"))
        config = json.loads((self.tmp / "saved/sentence_bert_config.json").read_text())
        self.assertIn("message", config["modality_config"])
        self.check(self.tmp / "saved")

    def test_ours_scores_the_same_there_whatever_the_base_has_for_a_template(self):
        base = self.llama("base", transformers.LlamaForCausalLM, CHATML)
        rows = [{"query": f"what is {r}", "positive": r, "negatives": [ROWS[i - 1]]} for i, r in enumerate(ROWS)]
        pairs = lines(self.tmp / "train.jsonl", rows)
        config = self.tmp / "ce.toml"
        config.write_text(
            f'[run]\nmax_steps = 2\nprecision = "fp32"\n[model]\nbase = "{base}"\n[data]\ntrain = "{pairs}"\n[loss.softmax]\n'
        )
        ragduet("train", "cross-encoder", "-c", config, "--out", self.tmp / "run", "--quiet")
        best = self.tmp / "run/best"
        self.assertFalse((best / "chat_template.jinja").exists())
        self.check(best)


if __name__ == "__main__":
    unittest.main()
