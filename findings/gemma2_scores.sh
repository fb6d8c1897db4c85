#!/usr/bin/env bash
# transformers 5.3.0: Gemma 2 loaded as usual leaves the cap on attention scores out, without a word.
#
# Done:     a Gemma 2 with attn_logit_softcapping = 2 reads a text with the default attention and with
#           attn_implementation = "eager", with the cap and with none.
# Expected: the same states from both, since they differ in speed alone; or a warning.
# Seen:     the default is sdpa, which takes the cap as an argument and does nothing with it: its states with the cap are
#           those of the model without one. Eager attention caps.
# Known:    2026-11-29, when our logits were compared. 5.24 chooses eager attention for Gemma 2. Ragduet caps.
. "$(dirname "$0")/common.sh"
with_packages torch==2.11.0 transformers==5.3.0
check <<'PY'
import sys
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM

text = torch.randint(3, 64, (1, 12), generator=torch.Generator().manual_seed(1))


def logits(attention, cap):
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, initializer_range=0.5, attn_logit_softcapping=cap,
    )
    more = {} if attention is None else {"attn_implementation": attention}
    model = Gemma2ForCausalLM._from_config(config, **more).eval()
    with torch.no_grad():
        return model(text).logits, model.config._attn_implementation


usual, name = logits(None, 2.0)
eager, _ = logits("eager", 2.0)
without, _ = logits(None, None)
away, same = (usual - eager).abs().max().item(), (usual - without).abs().max().item()
print(f"default attention: {name}; with the cap it differs from eager by {away:.2g}, from itself without a cap by {same:.2g}")
sys.exit(0 if name == "sdpa" and away > 0.01 and same == 0 else 1)
PY
