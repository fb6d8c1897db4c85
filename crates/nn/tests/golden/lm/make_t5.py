"""Random tiny encoder-decoders, their logits and one step's gradients, by transformers.

    python crates/nn/tests/golden/lm/make_t5.py        (transformers 5.3.0, torch 2.11.0)

As make_lm.py; golden.safetensors holds sources and targets, the logits of each pair computed alone, and the loss that
transformers gives for `labels` (the targets without their first token). Sources, and the targets of `t5`, are longer
than the greatest distance that positions tell apart. `flan_t5` and `mt5` have a head of their own and are written as
on the hub: the config as transformers 4 wrote it.
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoModelForSeq2SeqLM, MT5Config, T5Config, UMT5Config

HERE = pathlib.Path(__file__).parent
VOCAB = 37
COMMON = dict(
    vocab_size=VOCAB, d_model=16, d_kv=6, d_ff=24, num_layers=2, num_heads=3, decoder_start_token_id=0,
    pad_token_id=0, eos_token_id=1,
)
CONFIGS = {
    "t5": T5Config(**COMMON, relative_attention_num_buckets=12, relative_attention_max_distance=20),
    "t5_silu": T5Config(**COMMON | dict(num_decoder_layers=3), feed_forward_proj="gated-silu"),
    "flan_t5": T5Config(**COMMON, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "mt5": MT5Config(**COMMON | dict(num_decoder_layers=1)),
    "umt5": UMT5Config(**COMMON),
    "umt5_relu": UMT5Config(
        **COMMON | dict(num_decoder_layers=3), feed_forward_proj="relu", relative_attention_num_buckets=12,
        relative_attention_max_distance=20,
    ),
}
SOURCES, TARGETS = [3, 150, 21, 7], [5, 9, 40, 1]


def write(name, config):
    folder = HERE / name
    model = AutoModelForSeq2SeqLM.from_config(config, attn_implementation="eager").float()
    untied = name in ("flan_t5", "mt5")
    if untied:
        model.lm_head.weight = torch.nn.Parameter(torch.randn(VOCAB, 16))
    with torch.no_grad():
        # Larger than the initialisation, so that every part matters in the outcome.
        for n, p in model.named_parameters():
            p.copy_(torch.randn_like(p) * 0.3 + (1.0 if "norm" in n else 0.0))
    model.save_pretrained(folder)
    if untied:
        path = folder / "config.json"
        edited = json.loads(path.read_text())
        edited["tie_word_embeddings"] = False
        edited.pop("scale_decoder_outputs", None)
        edited["torch_dtype"] = edited.pop("dtype", "float32")
        path.write_text(json.dumps(edited, indent=2) + "\n")
    return folder


def main():
    for i, (name, config) in enumerate(CONFIGS.items()):
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        torch.manual_seed(100 + i)
        folder = write(name, config)
        model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        own_head = model.lm_head.weight.data_ptr() != model.shared.weight.data_ptr()
        assert own_head == (name in ("flan_t5", "mt5")), name
        sources = [torch.randint(2, VOCAB, (l,)) for l in SOURCES]
        targets = [torch.cat([torch.zeros(1, dtype=torch.long), torch.randint(2, VOCAB, (l - 1,))]) for l in TARGETS]
        logits = [model(input_ids=s[None], decoder_input_ids=t[None]).logits[0] for s, t in zip(sources, targets)]
        packed = torch.cat(logits)
        probe = torch.randn_like(packed)
        (packed * probe).sum().backward()
        # Targets as labels: transformers shifts them behind the start token itself.
        losses = torch.tensor([
            model(input_ids=s[None], labels=torch.cat([t[1:], torch.ones(1, dtype=torch.long)])[None]).loss.item()
            for s, t in zip(sources, targets)
        ])
        out = {
            "ids": torch.cat(sources), "lengths": torch.tensor(SOURCES), "target_ids": torch.cat(targets),
            "target_lengths": torch.tensor(TARGETS), "logits": packed.detach(), "probe": probe, "losses": losses,
        }
        for n, p in model.named_parameters():
            out[f"grad.{n}"] = p.grad
        save_file({k: v.contiguous() for k, v in out.items()}, folder / "golden.safetensors")
        print(name, sum(p.numel() for p in model.parameters()), packed.detach().std().item())


main()
