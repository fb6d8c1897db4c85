#!/usr/bin/env bash
# sentence-transformers 6.2.0: pooling by the first token with `include_prompt=False` takes the first token behind the prompt.
#
# Done:     a BERT of random weights with pooling `cls` and `include_prompt=False`, as many instruction-tuned folders have
#           it, encodes a text with a prompt.
# Expected: the state of [CLS], which stands before the prompt: the mode is documented as the first token (CLS token), and
#           sentence-transformers 5.3.0 takes it, whatever the prompt.
# Seen:     the state of the first token behind the prompt. Prompt tokens are struck from the mask, [CLS] with them, and the
#           first token of what is left is taken.
# Known:    2026-11-29. The same folder gives other vectors than in 5.3.0 as soon as a prompt is used.
. "$(dirname "$0")/common.sh"
with_packages torch==2.11.0 transformers==5.24.0 sentence-transformers==6.2.0
check <<'PY'
import sys
import tempfile
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import BertConfig, BertModel, BertTokenizerFast

torch.manual_seed(0)
temporary = tempfile.TemporaryDirectory()
folder = temporary.name
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "find", "this", "a", "small", "mill"]
with open(f"{folder}/vocab.txt", "w") as out:
    out.write("\n".join(words))
BertTokenizerFast(f"{folder}/vocab.txt").save_pretrained(folder)
BertModel(BertConfig(vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, initializer_range=0.5)).save_pretrained(folder)

model = SentenceTransformer(modules=[Transformer(folder), Pooling(16, "cls", include_prompt=False)], device="cpu").eval()
with torch.no_grad():
    got = model.encode("a small mill", prompt="find this ", convert_to_tensor=True)
    ids = model.tokenizer("find this a small mill", return_tensors="pt")
    states = model[0].auto_model(**ids).last_hidden_state[0]
tokens = model.tokenizer.convert_ids_to_tokens(ids["input_ids"][0])
near = [(got - state).abs().max().item() for state in states]
for token, distance in zip(tokens, near):
    print(f"{token:>8}: {distance:.2g}")
place = min(range(len(near)), key=near.__getitem__)
print("taken:", tokens[place])
sys.exit(0 if near[place] < 1e-5 and tokens[place] == "a" else 1)
PY
