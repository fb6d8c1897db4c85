#!/usr/bin/env bash
# transformers 5.3.0: saving and loading an EmbeddingGemma-like model changes it: its sliding window is halved.
#
# Done:     a Gemma 3 text model with use_bidirectional_attention = true and sliding_window = 32 (as EmbeddingGemma has it
#           with 512) reads a text of 40 tokens, is saved with save_pretrained and loaded with from_pretrained, twice.
# Expected: the same states.
# Seen:     other states. The config halves the window when it is made (32 becomes 17), and saves the half, which is halved
#           again when it is loaded (9, then 5). A fine-tuned EmbeddingGemma has a window of 257 of 512 once it was saved.
# Known:    2026-11-29, when our states were compared with those of folders that 5.3 had written. 5.24 saves the value that
#           it was given. Ragduet keeps config.json as it was read.
. "$(dirname "$0")/common.sh"
with_packages torch==2.11.0 transformers==5.3.0
check <<'PY'
import sys
import tempfile
import torch
from transformers import AutoModel, Gemma3TextConfig, Gemma3TextModel

torch.manual_seed(0)
config = Gemma3TextConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=8, sliding_window=32, use_bidirectional_attention=True, initializer_range=0.5,
    layer_types=["sliding_attention", "full_attention"],
)
model = Gemma3TextModel(config).eval()
text = torch.randint(3, 64, (1, 40))
with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
    before = model(text).last_hidden_state
    windows = [model.config.sliding_window]
    for _ in range(2):
        model.save_pretrained(folder)
        model = AutoModel.from_pretrained(folder).eval()
        windows.append(model.config.sliding_window)
    after = model(text).last_hidden_state
changed = (before - after).abs().max().item()
print(f"windows {windows}, largest difference of the states {changed:.2g}")
sys.exit(0 if windows == [17, 9, 5] and changed > 0.01 else 1)
PY
