"""Bottleneck adapters' folders that Ragduet wrote, in AdapterHub's `adapters` 1.3.0 (environment as in make_bottleneck.py):
loaded with every tensor, with the outputs of the originals.

    cargo build --release --workspace --example adapt
    /tmp/hub/bin/python crates/nn/tests/golden/peft/check_bottleneck.py
"""

import json
import pathlib
import subprocess
import tempfile

import adapters
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

HERE = pathlib.Path(__file__).resolve().parent
ADAPT = HERE.parents[4] / "target/release/examples/adapt"


def main():
    for folder in sorted(HERE.glob("bn_*")):
        base = json.loads((folder / "adapter_config.json").read_text())["model_name"]
        two, causal = "t5" in base, base.startswith("lm/")
        kind = AutoModelForSeq2SeqLM if two else AutoModelForCausalLM if causal else AutoModel
        model = kind.from_pretrained(HERE.parent / base, dtype=torch.float32, attn_implementation="eager")
        adapters.init(model)
        with tempfile.TemporaryDirectory() as out:
            subprocess.run([ADAPT, HERE.parent / base, folder, out], check=True)
            stored = load_file(f"{out}/adapter.safetensors")
            name = model.load_adapter(out, use_safetensors=True)
        held = dict(model.named_parameters())
        for key, value in stored.items():
            (own,) = [p for n, p in held.items() if n.endswith(key)]
            assert torch.equal(own, value), (folder.name, key)
        model.set_active_adapters(name)
        model.eval()
        golden, rows = load_file(folder / "golden.safetensors"), []
        with torch.no_grad():
            for text in golden["ids"].split(golden["lengths"].tolist()):
                more = {"decoder_input_ids": text[None]} if two else {}
                out = model(input_ids=text[None], attention_mask=torch.ones(1, len(text), dtype=torch.long), **more)
                rows.append((out.logits if causal else out.last_hidden_state)[0])
        off = (torch.cat(rows) - golden["outputs"]).abs().max().item()
        assert off < 1e-5, (folder.name, off)
        print(folder.name, off)


main()
