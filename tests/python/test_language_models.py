"""Folders of language models that Ragduet wrote, in the real transformers: loaded without a warning, with the same
logits and the same greedy continuation.

Run by scripts/test after `cargo build --release --workspace --example resave`.
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
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESAVE = pathlib.Path(os.environ.get("RAGDUET", ROOT / "target/release/ragduet")).parent / "examples/resave"
GOLDEN = ROOT / "crates/nn/tests/golden/lm"
PROMPT = [5, 30, 12, 8, 19, 33, 4, 4, 21]
NEW = 64


# T5Config and MT5Config of transformers 5.3 call every head tied, so that a head of its own, as Flan-T5's on the hub,
# is loaded with this warning whatever config.json says.
OWN_HEAD = "to tie shared.weight to lm_head.weight, but both are present in the checkpoints"
# Phi-3's own files say the length of pre-training and no factor.
FACTOR = "Please set the `factor` field of `rope_parameters`"


class Refuse(logging.Handler):
    """Whatever transformers logs as a warning is an error."""

    def emit(self, record):
        if record.levelno >= logging.WARNING and not any(w in record.getMessage() for w in (OWN_HEAD, FACTOR)):
            raise AssertionError(record.getMessage())


class LanguageModels(unittest.TestCase):
    def setUp(self):
        self.tmp = tempfile.TemporaryDirectory()
        self.addCleanup(self.tmp.cleanup)
        handler = Refuse()
        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.add_handler(handler)
        self.addCleanup(logging.getLogger("transformers").removeHandler, handler)

    def load(self, folder):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", DeprecationWarning)
            both = AutoConfig.from_pretrained(folder).is_encoder_decoder
            auto = AutoModelForSeq2SeqLM if both else AutoModelForCausalLM
            # sdpa ignores `scale_attn_by_inverse_layer_idx`.
            model, info = auto.from_pretrained(
                folder, output_loading_info=True, attn_implementation="eager"
            )
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            self.assertFalse(info[kind], kind)
        return model.eval()

    def check(self, name):
        out = pathlib.Path(self.tmp.name) / name
        config = json.loads((GOLDEN / name / "config.json").read_text())
        # Learned positions end; rotary ones do not.
        places = config.get("n_positions", 10**9)
        rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
        if "longrope" in (rope.get("type"), rope.get("rope_type")):
            # Beyond these, keys in a cache have other frequencies than those of a whole text.
            original = "original_max_position_embeddings"
            places = config.get(original) or rope[original]
        new = min(NEW, places - len(PROMPT))
        args = [RESAVE, GOLDEN / name, out, str(new), *map(str, PROMPT)]
        done = subprocess.run(args, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        ours = json.loads(done.stdout)
        model = self.load(out)
        self.assertEqual(model.dtype, torch.float32)
        self.assertEqual(model.config.architectures, [type(model).__name__])
        ids = torch.tensor([PROMPT])

        def logits(model, continued):
            if not model.config.is_encoder_decoder:
                return model(continued).logits[0]
            return model(input_ids=ids, decoder_input_ids=continued).logits[0]

        with torch.no_grad():
            whole = ids
            if model.config.is_encoder_decoder:
                whole = torch.tensor([[0]])
                target = torch.cat([whole, ids], 1)
                self.assertIs(model.lm_head.weight is model.shared.weight, name not in ("flan_t5", "mt5"))
            else:
                target = ids
            theirs = logits(model, target)
            before = logits(self.load(GOLDEN / name).float(), target)
            tokens = []
            for _ in range(new):
                tokens.append(logits(model, whole)[-1].argmax().item())
                whole = torch.cat([whole, torch.tensor([tokens[-1:]])], 1)
        self.assertLess((theirs - before).abs().max().item(), 1e-6, name)
        self.assertLess((theirs - torch.tensor(ours["logits"])).abs().max().item(), 1e-4, name)
        self.assertEqual(ours["tokens"], tokens, name)
        for file in ("config.json", "generation_config.json"):
            self.assertTrue((out / file).is_file(), file)
        kept = json.loads((GOLDEN / name / "generation_config.json").read_text())
        self.assertEqual(json.loads((out / "generation_config.json").read_text()), kept)

    def test_every_variant(self):
        folders = sorted(p.parent.name for p in GOLDEN.glob("*/config.json"))
        self.assertGreater(len(folders), 20)
        for name in folders:
            # transformers warns of the dynamic scaling's own key `rope_theta`, and is not the same text by text
            # beyond the length of pre-training.
            if name != "llama_dynamic":
                with self.subTest(name):
                    self.check(name)

    def test_generate_stops_at_the_kept_end_token(self):
        out = pathlib.Path(self.tmp.name) / "stops"
        args = [RESAVE, GOLDEN / "llama", out, str(NEW), *map(str, PROMPT)]
        tokens = json.loads(subprocess.run(args, capture_output=True, text=True, check=True).stdout)["tokens"]
        config = json.loads((out / "generation_config.json").read_text())
        config["eos_token_id"] = [36, tokens[3]]
        (out / "generation_config.json").write_text(json.dumps(config))
        again = pathlib.Path(self.tmp.name) / "again"
        subprocess.run([RESAVE, out, again, "1", "3"], check=True, capture_output=True)
        model = self.load(again)
        ids = torch.tensor([PROMPT])
        got = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False, pad_token_id=0
        )[0, len(PROMPT):].tolist()
        self.assertEqual(got, tokens[: tokens.index(tokens[3]) + 1])


if __name__ == "__main__":
    unittest.main()
