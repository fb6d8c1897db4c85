"""Adapters of AdapterHub's `adapters` 1.3 over a small BERT, read with equal outputs or refused by name."""

import pathlib
import shutil
import sys
import tempfile
import unittest

from newest import ROWS, ROOT, encode, lines, need, ragduet, tiny_bert

# It wants older releases of transformers and others, which lie apart.
sys.path.insert(0, str(ROOT / ".venv-newest/adapters"))
need(adapters="1.3")

import adapters  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from adapters import IA3Config, LoRAConfig, ParBnConfig, PromptTuningConfig, SeqBnConfig  # noqa: E402
from transformers import AutoTokenizer, BertModel  # noqa: E402


class AdapterHub(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        transformers.utils.logging.set_verbosity_error()
        cls.tmp = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.tmp)
        cls.base = str(tiny_bert(cls.tmp / "base"))

    def saved(self, name, config):
        """The folder, and what gives the mean of the states of each text."""
        model = BertModel.from_pretrained(self.base)
        adapters.init(model)
        model.add_adapter(name, config=config)
        model.train_adapter(name)
        model.set_active_adapters(name)
        torch.manual_seed(4)
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p.add_(torch.randn_like(p) * 0.2)
        folder = self.tmp / name
        model.save_adapter(str(folder), name, use_safetensors=True, with_head=False)
        tokenizer = AutoTokenizer.from_pretrained(self.base)
        tokenizer.save_pretrained(folder)
        model.eval()

        def vectors():
            with torch.no_grad():
                states = [model(**tokenizer(row, return_tensors="pt")).last_hidden_state[0].mean(0) for row in ROWS]
            return torch.stack(states).numpy()

        return folder, vectors

    def test_read_with_equal_outputs(self):
        cases = {
            "seq": SeqBnConfig(reduction_factor=4),
            "left": SeqBnConfig(reduction_factor={"1": 2, "default": 4}, leave_out=[0], non_linearity="gelu"),
            "par": ParBnConfig(reduction_factor=4),
            "lora": LoRAConfig(r=3, alpha=6, init_weights="bert"),
            "lora_all": LoRAConfig(
                r=2, alpha=6, init_weights="bert", intermediate_lora=True, output_lora=True, attn_matrices=["q", "k", "v"],
                leave_out=[1],
            ),
            "ia3": IA3Config(),
        }
        plain = encode(self.tmp, self.base, "passage", ROWS, "--pooling", "mean")
        for name, config in cases.items():
            with self.subTest(name):
                folder, vectors = self.saved(name, config)
                ours, want = encode(self.tmp, folder, "passage", ROWS, "--pooling", "mean"), vectors()
                self.assertLess(np.abs(ours - want).max(), 2e-5 * np.abs(want).max())
                self.assertGreater(np.abs(plain - want).max(), 1e-2)

    def test_what_is_not_read_is_named(self):
        given = lines(self.tmp / "in.jsonl", [{"_id": "1", "text": "x"}])
        cases = {
            "prompt": (PromptTuningConfig(prompt_length=3), "config.architecture: `prompt_tuning`"),
            "dora": (LoRAConfig(use_dora=True), "config.use_dora"),
            "gated": (LoRAConfig(use_gating=True), "config.use_gating"),
        }
        for name, (config, said) in cases.items():
            with self.subTest(name):
                folder, _ = self.saved(name, config)
                self.assertIn(said, ragduet(
                    "encode", "-m", folder, "-i", given, "-o", self.tmp / "no", "--pooling", "mean", fails=True,
                ))


if __name__ == "__main__":
    unittest.main()
