"""GGUF files that Ragduet converted, in the real transformers: loaded without a warning, with the original's logits, ids and
settings; and files that Ragduet wrote, read by the gguf package where it is there.
"""

import json
import logging
import os
import pathlib
import subprocess
import tempfile
import unittest
import warnings

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("RAGDUET", ROOT / "target/release/ragduet"))
GOLDEN = ROOT / "crates/generator/tests/golden/gguf"


class Refuse(logging.Handler):
    """Whatever transformers logs as a warning is an error."""

    def emit(self, record):
        if record.levelno >= logging.WARNING:
            raise AssertionError(record.getMessage())


class Converted(unittest.TestCase):
    def setUp(self):
        handler = Refuse()
        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.add_handler(handler)
        self.addCleanup(logging.getLogger("transformers").removeHandler, handler)

    def test_every_family(self):
        cases, logits = json.loads((GOLDEN / "cases.json").read_text()), load_file(GOLDEN / "logits.safetensors")
        for name, case in cases.items():
            with self.subTest(name), tempfile.TemporaryDirectory() as tmp, warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.simplefilter("ignore", DeprecationWarning)
                folder = pathlib.Path(tmp) / name
                done = subprocess.run([BINARY, "convert", GOLDEN / f"{name}.gguf", "-o", folder], capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, done.stderr)
                model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
                for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
                    self.assertFalse(info[kind], kind)
                with torch.no_grad():
                    got = model.eval()(torch.tensor([case["ids"][0]])).logits[0]
                self.assertLess((got - logits[name]).abs().max().item(), 1e-4)
                tokenizer = AutoTokenizer.from_pretrained(folder)
                for text, ids in zip(case["texts"], case["ids"]):
                    self.assertEqual(tokenizer.encode(text, add_special_tokens=False), ids, text)
                first = tokenizer.encode("a")[0]
                self.assertEqual(first == tokenizer.bos_token_id, name in ("llama", "llama_spm", "gemma3"))
                self.assertIsNotNone(tokenizer.eos_token)


if __name__ == "__main__":
    unittest.main()
