"""Adapters over the goldens' bases (bottlenecks, LoRA, (IA)^3), by AdapterHub's `adapters` 1.3.0, which wants transformers 4:

    python -m venv /tmp/hub && /tmp/hub/bin/pip install adapters==1.3.0 torch
    /tmp/hub/bin/python crates/nn/tests/golden/peft/make_bottleneck.py

Folders as in make_peft.py, with AdapterHub's files.
"""

import json
import pathlib
import sys

import adapters
import torch
from adapters import DoubleSeqBnConfig, IA3Config, LoRAConfig, ParBnConfig, SeqBnConfig
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

HERE = pathlib.Path(__file__).parent
CASES = {
    "bn_houlsby_llama": ("lm/llama", DoubleSeqBnConfig(reduction_factor=4)),
    "bn_pfeiffer_llama": ("lm/llama", SeqBnConfig(reduction_factor=4)),
    "bn_parallel_gpt2": ("lm/gpt2", ParBnConfig(reduction_factor=4)),
    "bn_houlsby_gpt2": ("lm/gpt2", DoubleSeqBnConfig(reduction_factor=2, non_linearity="gelu")),
    "bn_houlsby_bert": ("bert", DoubleSeqBnConfig(reduction_factor=4)),
    "bn_pfeiffer_bert": ("bert", SeqBnConfig(reduction_factor=8)),
    "bn_parallel_roberta": ("roberta", ParBnConfig(reduction_factor=4)),
    "bn_houlsby_distilbert": ("distilbert", DoubleSeqBnConfig(reduction_factor=4)),
    "bn_houlsby_t5": ("lm/t5", DoubleSeqBnConfig(reduction_factor=4)),
    "bn_pfeiffer_flan": ("lm/flan_t5", SeqBnConfig(reduction_factor=4)),
    "bn_parallel_mt5": ("lm/mt5", ParBnConfig(reduction_factor=4)),
    "bn_left_out_bert": ("bert", SeqBnConfig(reduction_factor={"1": 2, "default": 8}, leave_out=[0])),
    "bn_reductions_llama": ("lm/llama", DoubleSeqBnConfig(reduction_factor={"1": 2, "default": 8})),
    "hub_lora_bert": ("bert", LoRAConfig(
        r=3, alpha=5, intermediate_lora=True, output_lora=True, attn_matrices=["q", "k"], leave_out=[0],
    )),
    "hub_lora_llama": ("lm/llama", LoRAConfig(r=2, alpha=8, intermediate_lora=True)),
    "hub_ia3_bert": ("bert", IA3Config()),
    "hub_ia3_roberta": ("roberta", IA3Config(output_lora=True)),
}
LENGTHS = [1, 7, 30, 12]


def ours(key, ia3):
    """The name here: LoRA and (IA)^3 have peft's."""
    at, lora, part = key.partition(".loras.golden.")
    if lora:
        return f"base_model.model.{at}." + ("ia3_l" if ia3 else f"{part}.weight")
    return key.replace(".adapters.golden.", ".adapters.ragduet.")


def main():
    only = sys.argv[1:]
    for i, (name, (base, config)) in enumerate(CASES.items()):
        if only and name not in only:
            continue
        torch.manual_seed(200 + i)
        causal = base.startswith("lm/")
        two = "t5" in base
        kind = AutoModelForSeq2SeqLM if two else AutoModelForCausalLM if causal else AutoModel
        model = kind.from_pretrained(HERE.parent / base, dtype=torch.float32, attn_implementation="eager")
        adapters.init(model)
        model.add_adapter("golden", config=config)
        model.train_adapter("golden")
        model.set_active_adapters("golden")
        with torch.no_grad():
            for n, p in model.named_parameters():
                if p.requires_grad:
                    p.copy_(torch.randn_like(p) * 0.3 + (1.0 if "ia3" in name else 0.0))
        model.eval()
        folder = HERE / name
        folder.mkdir(exist_ok=True)
        model.save_adapter(str(folder), "golden", use_safetensors=True, with_head=False)
        path = folder / "adapter_config.json"
        written = json.loads(path.read_text())
        written["model_name"] = base
        path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")
        texts = [torch.randint(3, model.config.vocab_size, (l,)) for l in LENGTHS]
        outputs = []
        for text in texts:
            # An encoder-decoder writes what it reads.
            more = {"decoder_input_ids": text[None]} if two else {}
            out = model(input_ids=text[None], attention_mask=torch.ones(1, len(text), dtype=torch.long), **more)
            outputs.append((out.logits if causal else out.last_hidden_state)[0])
        packed = torch.cat(outputs)
        probe = torch.randn_like(packed)
        (packed * probe).sum().backward()
        out = {"ids": torch.cat(texts), "lengths": torch.tensor(LENGTHS), "outputs": packed.detach(), "probe": probe}
        stored = load_file(folder / "adapter.safetensors")
        for n, p in model.named_parameters():
            if p.requires_grad:
                key = next(k for k in stored if n.endswith(k))
                out[f"grad.{ours(key, 'ia3' in name)}"] = p.grad
        save_file({k: v.contiguous() for k, v in out.items()}, folder / "golden.safetensors")
        for extra in folder.iterdir():
            if extra.name not in ("adapter_config.json", "adapter.safetensors", "golden.safetensors"):
                extra.unlink()
        print(name, len(stored), packed.detach().std().item())


main()
