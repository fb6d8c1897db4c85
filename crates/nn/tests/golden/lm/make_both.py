"""Decoders as encoders that see both sides, by transformers: states and one step's gradients of the folders that
make_lm.py wrote, with a key of config.json changed.

    python crates/nn/tests/golden/lm/make_both.py        (transformers 5.3.0, torch 2.11.0; 5.24 gives the same)

Per folder both.json (the changed keys) and both.safetensors: the states of each text alone and the gradients of
sum(states * probe), under the bare model's names. A batch, padded on either side, is checked to give the same states.
"""

import json
import pathlib
import shutil
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

HERE = pathlib.Path(__file__).parent
BOTH = {"is_causal": False}
CASES = {
    "llama_tied_biased": BOTH, "llama_llama3": BOTH, "mistral": BOTH, "qwen2_sliding": BOTH, "qwen3_layer_types": BOTH,
    "smollm3_sliding": BOTH, "gpt2": BOTH, "gpt_neox": BOTH, "gemma3": {"use_bidirectional_attention": True},
    "gemma3_old": BOTH, "gemma3_multimodal": BOTH | {"use_bidirectional_attention": True},
    "gemma2": BOTH, "phi3_longrope": BOTH, "olmo2": BOTH, "granite": BOTH,
}


def padded(texts, side):
    width = max(map(len, texts))
    ids = torch.full((len(texts), width), 3)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        at = slice(width - len(text), width) if side == "left" else slice(0, len(text))
        ids[row, at], mask[row, at] = text, 1
    return ids, mask


def main():
    check = "--check" in sys.argv
    for i, (name, changes) in enumerate(CASES.items()):
        if not (HERE / name).is_dir():
            continue
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder) / "model"
            shutil.copytree(HERE / name, folder)
            config = json.loads((folder / "config.json").read_text())
            (config["text_config"] if "text_config" in config else config).update(changes)
            (folder / "config.json").write_text(json.dumps(config))
            # Softcapped scores are computed by eager attention alone, dropped ones of GPT-2 scaled by it.
            model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        model = getattr(model, "language_model", model)
        golden = load_file(HERE / name / "golden.safetensors")
        texts = golden["ids"].split(golden["lengths"].tolist())
        alone = [model(input_ids=t[None], use_cache=False).last_hidden_state[0] for t in texts]
        # Left padding moves learned positions; the longest text of a batch decides for all where the length scales.
        if name not in ("gpt2", "phi3_longrope"):
            for side in ("left", "right"):
                ids, mask = padded(texts, side)
                states = model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
                for row, want in enumerate(alone):
                    away = (states[row][mask[row] == 1] - want).abs().max().item()
                    assert away < 1e-4, (name, side, row, away)
        packed = torch.cat(alone)
        torch.manual_seed(i)
        probe = torch.randn_like(packed)
        (packed * probe).sum().backward()
        out = {"states": packed.detach(), "probe": probe}
        out |= {f"grad.{n}": p.grad for n, p in model.named_parameters() if p.grad is not None}
        out = {k: v.contiguous() for k, v in out.items()}
        path = HERE / name / "both.safetensors"
        if check:
            before = load_file(path)
            away = max((before[k] - v).abs().max().item() for k, v in out.items())
            print(name, "differs by at most", away)
            continue
        save_file(out, path)
        (HERE / name / "both.json").write_text(json.dumps(changes) + "\n")
        print(name, packed.std().item())


main()
