#!/usr/bin/env bash
# transformers 5.3.0: with rope_type "dynamic", logits of a short text depend on the texts before it.
#
# Done:     a Llama with max_position_embeddings = 16 and dynamic NTK scaling reads a text of 10 tokens, then one of 60,
#           then the first one again; each call alone, no cache, no gradient.
# Expected: the same logits for the same text. Dynamic scaling is a function of a text's length, and 10 tokens are within
#           the original length, for which the frequencies are to be the original ones.
# Seen:     the first text's logits differ after the longer text, and stay so: the frequencies of the longer text are kept.
#           The attribute that the rotary embedding compares with (`max_seq_len_cached`) is not the one it writes
#           (`None_max_seq_len_cached`, after a layer type that is None), so it never sees that it has to go back.
# Known:    2026-11-23, when our logits were compared text by text. Ragduet computes each text by its own length.
. "$(dirname "$0")/common.sh"
with_packages torch==2.11.0 transformers==5.3.0
check <<'PY'
import sys
import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=4, max_position_embeddings=16, initializer_range=0.5,
    rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0},
)
model = LlamaForCausalLM(config).eval()
short, long = torch.randint(0, 64, (1, 10)), torch.randint(0, 64, (1, 60))
with torch.no_grad():
    before = model(short).logits
    again = model(short).logits
    model(long)
    after = model(short).logits
same, changed = (before - again).abs().max().item(), (before - after).abs().max().item()
rotary = model.model.rotary_emb
print(f"largest difference of the short text's logits: asked twice {same:.2g}, after the long text {changed:.2g}")
print("max_seq_len_cached", rotary.max_seq_len_cached, "| None_max_seq_len_cached", rotary.__dict__.get("None_max_seq_len_cached"))
sys.exit(0 if same == 0 and changed > 0.1 else 1)
PY
