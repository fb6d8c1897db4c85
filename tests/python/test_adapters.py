"""Adapter folders that Ragduet wrote, in the real peft: loaded without a warning, with the outputs of the originals.

Through PeftModel: AutoModel of transformers 5.3.0 leaves the adapters of bare encoders at random values, peft's own
folders included.

Run by scripts/test after `cargo build --release --workspace --example adapt`.
"""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest
import warnings

import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

ROOT = pathlib.Path(__file__).resolve().parents[2]
ADAPT = pathlib.Path(os.environ.get("RAGDUET", ROOT / "target/release/ragduet")).parent / "examples/adapt"
GOLDEN = ROOT / "crates/nn/tests/golden"


class Adapters(unittest.TestCase):
    def setUp(self):
        self.tmp = tempfile.TemporaryDirectory()
        self.addCleanup(self.tmp.cleanup)
        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()

    def outputs(self, model, name, head):
        golden = load_file(GOLDEN / "peft" / name / "golden.safetensors")
        rows = []
        with torch.no_grad():
            for text in golden["ids"].split(golden["lengths"].tolist()):
                mask = torch.ones(1, len(text), dtype=torch.long)
                # What an encoder-decoder reads is what it writes.
                more = {"decoder_input_ids": text[None]} if model.config.is_encoder_decoder else {}
                out = model(input_ids=text[None], attention_mask=mask, **more)
                rows.append((out.logits if head else out.last_hidden_state)[0][-len(text):])
        return torch.cat(rows), golden["outputs"]

    def check(self, name):
        folder = GOLDEN / "peft" / name
        base = GOLDEN / json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
        head = base.parent.name == "lm"
        two = json.loads((base / "config.json").read_text()).get("is_encoder_decoder")
        out = pathlib.Path(self.tmp.name) / name
        subprocess.run([ADAPT, base, folder, out], check=True, capture_output=True, text=True)
        kind = AutoModelForSeq2SeqLM if two else AutoModelForCausalLM if head else AutoModel
        with warnings.catch_warnings():
            # peft only warns of tensors that it does not find.
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", DeprecationWarning)
            if name == "lora_tables_llama":
                warnings.filterwarnings("ignore", message=".*modules_to_save.*")
            plain = kind.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
            model = PeftModel.from_pretrained(plain, out).eval()
        ours, theirs = self.outputs(model, name, head)
        # The originals were made on a machine with other vector units: outputs of size 4 differ by 3e-5 between the two.
        bound = 2e-5 * max(1.0, theirs.abs().max().item())
        self.assertLess((ours - theirs).abs().max().item(), bound, name)

    def test_every_case(self):
        cases = sorted(p.parent.name for p in (GOLDEN / "peft").glob("*/adapter_model.safetensors"))
        self.assertGreater(len(cases), 15)
        for name in cases:
            with self.subTest(name):
                self.check(name)


if __name__ == "__main__":
    unittest.main()
