"""Classifiers that Ragduet trained, in the real transformers and peft: loaded without a warning or a missing tensor, and
the probabilities that `ragduet classify` gives.

Run by scripts/test after `cargo build --release -p ragduet-cli`.
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
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModel, AutoModelForSequenceClassification, AutoTokenizer, BertConfig, DistilBertConfig, GPT2Config, LlamaConfig,
    ModernBertConfig, PreTrainedTokenizerFast, RobertaConfig,
)

ROOT = pathlib.Path(__file__).resolve().parents[2]
RAGDUET = pathlib.Path(os.environ.get("RAGDUET", ROOT / "target/release/ragduet"))
WORDS = "red blue rose brick sky sea the a is near not".split()
COMMON = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, vocab_size=len(WORDS) + 4)
BASES = {
    "bert": BertConfig(**COMMON, max_position_embeddings=40),
    "roberta": RobertaConfig(**COMMON, max_position_embeddings=42, type_vocab_size=1, pad_token_id=0),
    "distilbert": DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=48, vocab_size=COMMON["vocab_size"]),
    "modernbert": ModernBertConfig(**COMMON, pad_token_id=0, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3),
    "llama": LlamaConfig(**COMMON, num_key_value_heads=2),
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=COMMON["vocab_size"]),
}
TEXTS = ["the rose is red", "sky", "a sea near the sky is not red"]
PAIRS = ["the sky", "the rose is near the sea", "brick"]


def tokenizer(decoder):
    vocab = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    inner = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    if not decoder:
        inner.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        eos_token="[SEP]", model_max_length=40,
    )


class Classifiers(unittest.TestCase):
    def setUp(self):
        self.tmp = tempfile.TemporaryDirectory()
        self.addCleanup(self.tmp.cleanup)
        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
        self.dir = pathlib.Path(self.tmp.name)
        rows = [
            {"text": t, "text_pair": p, "label": l}
            for t, p, l in zip(TEXTS * 4, PAIRS * 2 + PAIRS[::-1] * 2, ["yes", "no", "maybe"] * 4)
        ]
        (self.dir / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        asked = [{"id": str(i), "text": t, "text_pair": p} for i, (t, p) in enumerate(zip(TEXTS, PAIRS))]
        (self.dir / "ask.jsonl").write_text("".join(json.dumps(r) + "\n" for r in asked))

    def ragduet(self, *args):
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [RAGDUET, "-q", *map(str, args)], check=True, capture_output=True, text=True, env=env
        ).stdout

    def base(self, name):
        torch.manual_seed(1)
        folder = self.dir / f"{name}-base"
        BASES[name].initializer_range = 0.3  # so that texts differ
        AutoModel.from_config(BASES[name]).save_pretrained(folder)
        tokenizer(name in ("llama", "gpt2")).save_pretrained(folder)
        return folder

    def train(self, name, peft=""):
        base = self.base(name)
        config = self.dir / "config.toml"
        config.write_text(
            f'[run]\nprecision = "fp32"\nepochs = 3.0\n{peft}\n[model]\nbase = "{base}"\n[data]\ntrain = "{self.dir}/train.jsonl"\n'
            "[optim]\nlr = 1e-2\n"
        )
        out = self.dir / f"{name}-run"
        self.ragduet("train", "classifier", "-c", config, "--out", out)
        lines = self.ragduet("classify", "--precision", "fp32", "-m", out / "best", "--input", self.dir / "ask.jsonl").splitlines()
        return base, out / "best", [json.loads(l)["scores"] for l in lines]

    def check(self, model, ours, folder, segmented):
        tok = AutoTokenizer.from_pretrained(folder)
        with torch.no_grad():
            batch = tok(TEXTS, PAIRS, return_tensors="pt", padding=True, return_token_type_ids=segmented)
            theirs = model.eval()(**batch).logits.softmax(-1)
        self.assertEqual(list(ours[0]), ["maybe", "no", "yes"])
        ours = torch.tensor([list(s.values()) for s in ours])
        self.assertLess((ours - theirs).abs().max().item(), 1e-5)
        self.assertGreater((theirs[0] - theirs[1]).abs().max().item(), 1e-3)

    def test_whole_models(self):
        for name in BASES:
            with self.subTest(name), warnings.catch_warnings():
                _, folder, ours = self.train(name)
                warnings.simplefilter("error")
                warnings.simplefilter("ignore", DeprecationWarning)
                model, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
                for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
                    self.assertFalse(info[key], f"{name}: {key} {info[key]}")
                self.assertEqual(model.config.id2label, {0: "maybe", 1: "no", 2: "yes"})
                self.check(model, ours, folder, name == "bert")

    def test_lora(self):
        for name in ("bert", "roberta", "distilbert", "llama"):
            with self.subTest(name), warnings.catch_warnings():
                base, folder, ours = self.train(name, "[peft.lora]\nrank = 4")
                saved = json.loads((folder / "adapter_config.json").read_text())["modules_to_save"]
                # A bare base has no head: ours was drawn, and what of it the adapter does not hold is not there.
                warnings.simplefilter("error")
                warnings.simplefilter("ignore", DeprecationWarning)
                warnings.filterwarnings("ignore", message=".*modules_to_save.*")
                plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
                model = PeftModel.from_pretrained(plain, folder)
                self.assertTrue(saved, name)
                if plain.config.pad_token_id is None:
                    plain.config.pad_token_id = 0
                self.check(model, ours, folder, name == "bert")


if __name__ == "__main__":
    unittest.main()
