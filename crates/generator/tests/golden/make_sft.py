"""sft/: a tiny Llama, examples with masks, and the loss and gradients of an accumulation window of two padded batches.

Run with transformers 5: python make_sft.py. What is computed is what TRL's SFTTrainer computes by default: labels of
-100 where nothing is learned, padding on the right, and transformers' own loss with `num_items_in_batch` set to the
labels of the whole window, summed over its batches. The trainer itself is not run.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(11)
OUT = Path(__file__).parent / "sft"
OUT.mkdir(exist_ok=True)
config = LlamaConfig(
    vocab_size=300, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
)
model = LlamaForCausalLM(config)
with torch.no_grad():
    for p in model.parameters():
        p.add_(0.2 * torch.randn_like(p))
model.save_pretrained(OUT)

# (length, first learned token); 0 learns everything.
SHAPES = [[(9, 4), (21, 15), (2, 1)], [(30, 28), (5, 0)]]
batches = [
    [(torch.randint(3, 300, (n,)).tolist(), [i >= start for i in range(n)]) for n, start in batch] for batch in SHAPES
]
# Labels are shifted, so the first token is never one.
items = sum(sum(mask[1:]) for batch in batches for _, mask in batch)
total = 0.0
for batch in batches:
    longest = max(len(ids) for ids, _ in batch)
    pad = lambda values, with_: torch.tensor([v + [with_] * (longest - len(v)) for v in values])
    out = model(
        input_ids=pad([ids for ids, _ in batch], 0),
        attention_mask=pad([[1] * len(ids) for ids, _ in batch], 0),
        labels=pad([[t if on else -100 for t, on in zip(ids, mask)] for ids, mask in batch], -100),
        num_items_in_batch=torch.tensor(items),
    )
    out.loss.backward()
    total += out.loss.item()
save_file({name: p.grad.contiguous() for name, p in model.named_parameters()}, OUT / "grads.safetensors")
window = [[{"ids": ids, "loss": mask} for ids, mask in batch] for batch in batches]
(OUT / "window.json").write_text(json.dumps({"items": items, "loss": total, "batches": window}))
print(items, total)
