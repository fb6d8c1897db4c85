#!/usr/bin/env bash
# adapters 1.3.0: (IA)^3 scales the feed-forward layer before its activation.
#
# Done:     a BertModel gets an `IA3Config` adapter; the vector of each `intermediate.dense` is made to differ from 1, those
#           of the attention stay 1. What the feed-forward layer gives is compared with two formulas.
# Expected: W2 (l * act(W1 x)), as the paper has it ("(l_ff * gamma(W1 x)) W2", arXiv 2205.05638) and as peft computes it,
#           which scales the input of the second matrix.
# Seen:     W2 act(l * (W1 x + b1)): the vector is applied to the first matrix' output, the bias with it, and GELU comes
#           after. Vectors cannot be moved from one library to the other.
# Known:    2026-11-29.
. "$(dirname "$0")/common.sh"
with_packages torch==2.11.0 transformers==4.57.6 adapters==1.3.0
check <<'PY'
import sys
import torch
import adapters
from adapters import IA3Config
from transformers import BertConfig, BertModel

torch.manual_seed(0)
model = BertModel(BertConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, initializer_range=0.5))
adapters.init(model)
model.add_adapter("a", config=IA3Config())
model.set_active_adapters("a")
vectors = {name: p for name, p in model.named_parameters() if "loras" in name}
for name, p in vectors.items():
    print(name, tuple(p.shape))
(vector,) = [p for name, p in vectors.items() if "intermediate.dense" in name]
with torch.no_grad():
    vector.copy_(torch.rand_like(vector) * 2)
model.eval()

layer = model.encoder.layer[0]
kept = {}
layer.intermediate.register_forward_hook(lambda module, given, out: kept.update(x=given[0], out=out))
with torch.no_grad():
    model(torch.randint(0, 64, (1, 7)))
    dense = layer.intermediate.dense
    inner = torch.nn.functional.linear(kept["x"], dense.weight, dense.bias)
    scale, act = vector.view(-1), torch.nn.functional.gelu
    before, behind = act(scale * inner), scale * act(inner)
distance = lambda other: (kept["out"] - other).abs().max().item()
print(f"scaled before the activation: {distance(before):.2g}; behind it, as in the paper: {distance(behind):.2g}")
sys.exit(0 if distance(before) < 1e-5 < 1e-2 < distance(behind) else 1)
PY
