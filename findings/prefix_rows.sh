#!/usr/bin/env bash
# peft 0.21.2: prefix tuning of an encoder-decoder with an even number of layers trains half of its parameters only.
#
# Done:     T5 models of 2, 3, 4 and 6 layers with PrefixTuningConfig(SEQ_2_SEQ_LM), one backward pass of the loss; the
#           gradient of `prompt_encoder` is summed for each of its 2 * layers blocks (keys and values of a layer).
# Expected: every block has a gradient: layer l of the decoder is to have a pair of its own.
# Seen:     with 3 layers every block has one. With 2, 4 and 6 every second pair has none: the rows are laid out twice, for
#           self-attention and for cross-attention, the second part is emptied, and layer l is left with the pair
#           2 l mod layers. The saved file holds all rows, so they look trained; two layers share each pair.
# Known:    2026-11-23. Ragduet reads and trains such prefixes the same way (`nn/src/peft/soft.rs::pair_of`), so that
#           folders mean the same in both.
. "$(dirname "$0")/common.sh"
with_packages torch==2.11.0 transformers==5.3.0 peft==0.21.2
check <<'PY'
import sys
import torch
from peft import PrefixTuningConfig, TaskType, get_peft_model
from transformers import T5Config, T5ForConditionalGeneration

good = True
for layers in (2, 3, 4, 6):
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=32, d_model=16, d_kv=8, d_ff=32, num_layers=layers, num_decoder_layers=layers, num_heads=2,
        decoder_start_token_id=0, dropout_rate=0.0,
    )
    model = get_peft_model(
        T5ForConditionalGeneration(config), PrefixTuningConfig(task_type=TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=2)
    )
    model.eval()
    model(input_ids=torch.tensor([[3, 4, 5, 1]]), labels=torch.tensor([[7, 8, 1]])).loss.backward()
    rows = model.prompt_encoder["default"].embedding.weight.grad.view(2, layers, 2, 16)
    used = [rows[:, pair].abs().sum().item() > 0 for pair in range(layers)]
    print(f"{layers} layers: pairs with a gradient {[p for p, u in enumerate(used) if u]} of {list(range(layers))}")
    good &= used == [p in {2 * l % layers for l in range(layers)} for p in range(layers)]
    good &= all(used) == (layers % 2 == 1)
sys.exit(0 if good else 1)
PY
