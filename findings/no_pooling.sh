#!/usr/bin/env bash
# sentence-transformers 6.2.0: a Pooling folder whose modes are all off pools by the mean, without a word.
#
# Done:     a folder with `1_Pooling/config.json` in the form that all releases before 6 wrote, every `pooling_mode_*` false,
#           is loaded and encodes a text.
# Expected: an error: the folder says that nothing is pooled. 5.3.0 fails in it (it concatenates an empty list).
# Seen:     the mean over the tokens; no warning is given.
# Known:    2026-11-29. Ragduet refuses such a folder.
. "$(dirname "$0")/common.sh"
with_packages torch==2.11.0 transformers==5.24.0 sentence-transformers==6.2.0
check <<'PY'
import json
import os
import sys
import tempfile
import warnings
import torch
from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertModel, BertTokenizerFast

torch.manual_seed(0)
temporary = tempfile.TemporaryDirectory()
folder = temporary.name
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "small", "mill"]
with open(f"{folder}/vocab.txt", "w") as out:
    out.write("\n".join(words))
BertTokenizerFast(f"{folder}/vocab.txt").save_pretrained(folder)
BertModel(BertConfig(vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, initializer_range=0.5)).save_pretrained(folder)
os.mkdir(f"{folder}/1_Pooling")
modes = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]
with open(f"{folder}/1_Pooling/config.json", "w") as out:
    json.dump({"word_embedding_dimension": 16, **{f"pooling_mode_{mode}": False for mode in modes}}, out)
kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
with open(f"{folder}/modules.json", "w") as out:
    json.dump([{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"} for i, (path, kind) in enumerate(kinds)], out)

with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    model = SentenceTransformer(folder, device="cpu").eval()
about = [str(w.message) for w in said if "pooling" in str(w.message).lower()]
with torch.no_grad():
    got = model.encode("a small mill", convert_to_tensor=True)
    ids = model.tokenizer("a small mill", return_tensors="pt")
    mean = model[0].auto_model(**ids).last_hidden_state[0].mean(0)
print("pooling:", model[1].pooling_mode, "warnings:", about)
print(f"distance to the mean: {(got - mean).abs().max().item():.2g}")
sys.exit(0 if (got - mean).abs().max() < 1e-5 and not about else 1)
PY
