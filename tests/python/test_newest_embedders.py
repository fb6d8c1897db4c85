"""Embedders that are decoders (folders as Qwen3-Embedding, EmbeddingGemma and E5-Mistral have them) beside
sentence-transformers 6.2: vectors both ways, alone and in batches padded on either side, a step's loss and gradients, LoRA."""

import json
import pathlib
import shutil
import sys
import tempfile
import unittest
import warnings

from newest import ROOT, encode, lines, need, ragduet

need(sentence_transformers="6.2", transformers="5.24")

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from sentence_transformers import SentenceTransformer  # noqa: E402

sys.path.insert(0, str(ROOT / "crates/retriever/tests/golden"))
import make_embedders as made  # noqa: E402

ROWS = [*made.QUERIES, *made.PASSAGES]


class Embedders(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        transformers.utils.logging.disable_progress_bar()
        cls.tmp = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.tmp)
        cls.folders = {}
        for i, (name, make) in enumerate(made.FOLDERS.items()):
            torch.manual_seed(40 + i)
            cls.folders[name] = cls.tmp / name
            make(cls.folders[name])

    def check(self, folder, model, within=1e-4):
        """Both sides as the library gives them, alone and in batches."""
        for side, encoded in (("query", model.encode_query), ("passage", model.encode_document)):
            ours = encode(self.tmp, folder, side, ROWS)
            alone = np.stack([encoded(row) for row in ROWS])
            self.assertLess(np.abs(ours - alone).max(), within, side)
            for padding in ("left", "right"):
                model.tokenizer.padding_side = padding
                self.assertLess(np.abs(ours - encoded(ROWS)).max(), within, f"{side}, {padding}")

    def step(self, folder, name, more=""):
        """A run of one step over pairs, its log line, and its folder read with warnings as errors."""
        pairs = lines(self.tmp / "pairs.jsonl", [
            {"query": q, "positive": p} for q, p in zip(made.QUERIES, made.PASSAGES)
        ])
        config = self.tmp / "step.toml"
        config.write_text(
            f'[run]\nmax_steps = 1\nprecision = "fp32"\n[model]\nbase = "{folder}"\n[data]\ntrain = "{pairs}"\n'
            "[batch]\nsize = { examples = 3 }\n[loss.info_nce]\n[temperature]\nvalue = 0.05\n"
            f"[optim]\nlr = 1e-12\nweight_decay = 0.0\nwarmup = {{ steps = 0 }}\nmax_grad_norm = 0.0\n{more}"
        )
        run = self.tmp / f"{name}-run"
        ragduet("train", "retriever", "-c", config, "--out", run, "--quiet")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again = SentenceTransformer(str(run / "best"), device="cpu")
        log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return next(row for row in log if row.get("kind") == "train"), again

    def test_vectors_and_a_step(self):
        for name, folder in self.folders.items():
            with self.subTest(name):
                model = SentenceTransformer(str(folder), device="cpu")
                self.check(folder, model)
                ours, again = self.step(folder, name)
                self.check(folder, again)
                loss, gradients = made.step(model)
                norm = torch.sqrt(sum(g.double().pow(2).sum() for g in gradients.values())).item()
                self.assertAlmostEqual(ours["loss"], loss.item(), delta=1e-3 * abs(loss.item()))
                self.assertAlmostEqual(ours["grad_norm"], norm, delta=1e-3 * norm)

    def test_folders_that_the_library_writes(self):
        for name, folder in self.folders.items():
            with self.subTest(name):
                model = SentenceTransformer(str(folder), device="cpu", truncate_dim=10 if name == "gemma" else None)
                if name == "qwen3":
                    # Generators have templates, which an embedder does not use.
                    model.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
                model.save_pretrained(str(self.tmp / f"{name}-saved"))
                again = SentenceTransformer(str(self.tmp / f"{name}-saved"), device="cpu")
                self.check(self.tmp / f"{name}-saved", again)

    def test_adapters(self):
        """LoRA over a decoder, trained here, read there."""
        for name in ("qwen3", "gemma"):
            with self.subTest(name):
                _, again = self.step(self.folders[name], f"{name}-lora", "[peft.lora]\nrank = 2\n")
                self.check(self.tmp / f"{name}-lora-run/best", again)
                self.assertTrue((self.tmp / f"{name}-lora-run/best/adapter_model.safetensors").is_file())

    def test_a_plain_decoder_needs_nothing_but_its_name(self):
        """A generator's folder becomes an embedder as the library would make one of it."""
        folder = self.tmp / "plain"
        shutil.copytree(self.folders["qwen3"], folder)
        for module in ("modules.json", "config_sentence_transformers.json"):
            (folder / module).unlink()
        shutil.rmtree(folder / "1_Pooling")
        theirs = SentenceTransformer(str(folder), device="cpu")
        _, ours = self.step(folder, "plain")
        self.assertEqual(ours[1].pooling_mode, theirs[1].pooling_mode)
        away = np.abs(ours.encode(ROWS, normalize_embeddings=True) - theirs.encode(ROWS, normalize_embeddings=True))
        self.assertLess(away.max(), 1e-5)


if __name__ == "__main__":
    unittest.main()
