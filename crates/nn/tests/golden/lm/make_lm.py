"""Random tiny language models, their logits and one step's gradients, by transformers.

    python crates/nn/tests/golden/lm/make_lm.py        (transformers 5.3.0, torch 2.11.0)

Per variant a folder with config.json, generation_config.json and model.safetensors (as save_pretrained writes them,
some then rewritten in the spelling of transformers 4) and golden.safetensors: ids, lengths, logits of each text
computed alone and the gradients of sum(logits * probe) for every parameter. The folder is read back by transformers
before anything is computed.
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM, Gemma2Config, Gemma3Config, Gemma3TextConfig, GPT2Config, GPTNeoXConfig, GraniteConfig,
    LlamaConfig, MistralConfig, Olmo2Config, Phi3Config, Qwen2Config, Qwen3Config, SmolLM3Config,
)

HERE = pathlib.Path(__file__).parent
VOCAB = 37
COMMON = dict(
    vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=None,
)
WIDE = COMMON | dict(head_dim=8)
NEOX = dict(
    vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
    max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
)
GPT2 = dict(
    vocab_size=VOCAB, n_embd=16, n_inner=24, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2,
    resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1,
)
ROPE = dict(rope_theta=500.0)
LLAMA3 = ROPE | dict(
    rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32
)
YARN = ROPE | dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)
FOUR = WIDE | dict(num_hidden_layers=4)
# A hidden size whose root is no round number, and a scale of scores that is not the head's.
GEMMA3 = WIDE | dict(hidden_size=24, num_hidden_layers=3, query_pre_attn_scalar=10, sliding_window=6)
GEMMA3_ROPES = dict(
    full_attention=dict(rope_type="linear", factor=3.0, rope_theta=700.0),
    sliding_attention=dict(rope_type="default", rope_theta=50.0),
)
# Texts of 40 tokens are beyond the 32 of pre-training.
LONGROPE = ROPE | dict(rope_type="longrope", short_factor=[1.0, 1.2, 1.5], long_factor=[2.0, 3.0, 4.5])
PHI3 = COMMON | dict(hidden_size=32, original_max_position_embeddings=32)
TINY_VISION = dict(
    hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4,
)

# Configs; the second of a pair are keys to set (None: to remove) in the written config.json.
CONFIGS = {
    "llama": LlamaConfig(**COMMON),
    "llama_tied_biased": LlamaConfig(
        **WIDE, tie_word_embeddings=True, attention_bias=True, mlp_bias=True, rms_norm_eps=1e-5
    ),
    "llama_mha_gelu": LlamaConfig(**COMMON | dict(num_key_value_heads=None), hidden_act="gelu"),
    "llama_linear": LlamaConfig(**WIDE, rope_parameters=ROPE | dict(rope_type="linear", factor=3.0)),
    "llama_dynamic": LlamaConfig(
        **WIDE | dict(max_position_embeddings=32), rope_parameters=ROPE | dict(rope_type="dynamic", factor=2.0)
    ),
    "llama_llama3": LlamaConfig(**WIDE, rope_parameters=LLAMA3),
    "llama_llama3_old": (
        LlamaConfig(**WIDE),
        {"rope_parameters": None, "rope_theta": 500.0, "rope_scaling": LLAMA3 | {"rope_theta": None}},
    ),
    "llama_linear_old": (
        LlamaConfig(**WIDE),
        {"rope_parameters": None, "rope_theta": 700.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
    ),
    "llama_yarn": LlamaConfig(**WIDE, rope_parameters=YARN),
    "llama_yarn_factors": LlamaConfig(
        **WIDE, rope_parameters=YARN | dict(mscale=0.8, mscale_all_dim=0.5, beta_fast=8.0, beta_slow=0.5,
                                            truncate=False)
    ),
    "llama_bf16": LlamaConfig(**COMMON, dtype="bfloat16"),
    "mistral": MistralConfig(**WIDE, sliding_window=6, rope_parameters=ROPE),
    "mistral_global": MistralConfig(**COMMON, sliding_window=None),
    "qwen2": Qwen2Config(**COMMON, rope_parameters=dict(rope_theta=1e6)),
    "qwen2_sliding": Qwen2Config(**COMMON, use_sliding_window=True, sliding_window=5, max_window_layers=1),
    "qwen3": Qwen3Config(**WIDE, tie_word_embeddings=True, attention_bias=True),
    "qwen3_layer_types": Qwen3Config(
        **WIDE, use_sliding_window=True, sliding_window=9, layer_types=["sliding_attention", "full_attention"]
    ),
    "smollm3": SmolLM3Config(**COMMON | dict(num_hidden_layers=4)),
    "smollm3_sliding": SmolLM3Config(
        **COMMON, tie_word_embeddings=False, no_rope_layers=[0, 1], use_sliding_window=True, sliding_window=7,
        attention_bias=True, mlp_bias=True,
    ),
    "gpt2": GPT2Config(**GPT2),
    "gpt2_scaled": GPT2Config(
        **GPT2 | dict(activation_function="gelu"), scale_attn_by_inverse_layer_idx=True, tie_word_embeddings=False
    ),
    "gpt_neox": (GPTNeoXConfig(**NEOX), {}),
    "gpt_neox_serial": (
        GPTNeoXConfig(**NEOX, use_parallel_residual=False, attention_bias=False, hidden_act="gelu_new"),
        {"rope_parameters": None, "rotary_pct": 0.5, "rotary_emb_base": 300},
    ),
    "gemma3": Gemma3TextConfig(**GEMMA3, sliding_window_pattern=2, rope_parameters=GEMMA3_ROPES),
    "gemma3_old": (
        Gemma3TextConfig(
            **GEMMA3 | dict(num_key_value_heads=1), attention_bias=True, tie_word_embeddings=False,
            hidden_activation="gelu", sliding_window_pattern=3,
        ),
        {
            "layer_types": None, "rope_parameters": None, "sliding_window_pattern": 3, "rope_theta": 900.0,
            "rope_local_base_freq": 40.0, "rope_scaling": {"factor": 2.0, "rope_type": "linear"},
        },
    ),
    "gemma2": Gemma2Config(**GEMMA3, attn_logit_softcapping=2.0, final_logit_softcapping=3.0),
    "gemma2_uncapped": Gemma2Config(
        **GEMMA3 | dict(num_key_value_heads=1), attn_logit_softcapping=None, final_logit_softcapping=None,
        attention_bias=True, tie_word_embeddings=False, hidden_activation="gelu",
        layer_types=["full_attention", "sliding_attention", "sliding_attention"],
        rope_parameters=dict(rope_type="linear", factor=3.0, rope_theta=700.0),
    ),
    "phi3": Phi3Config(**COMMON, sliding_window=6),
    "phi3_longrope": Phi3Config(
        **PHI3, tie_word_embeddings=True, hidden_act="gelu", rope_parameters=LONGROPE, partial_rotary_factor=0.75
    ),
    "phi3_old": (
        Phi3Config(**PHI3),
        {
            "rope_parameters": None, "rope_theta": 500.0, "partial_rotary_factor": 0.75,
            "rope_scaling": {
                "type": "longrope", "short_factor": LONGROPE["short_factor"], "long_factor": LONGROPE["long_factor"],
            },
        },
    ),
    "llama_longrope": LlamaConfig(
        **WIDE, rope_parameters=ROPE | dict(
            rope_type="longrope", short_factor=[1.0, 1.1, 1.3, 1.6], long_factor=[2.0, 3.0, 4.5, 6.0], factor=4.0,
            original_max_position_embeddings=32,
        )
    ),
    "olmo2": Olmo2Config(**COMMON),
    "olmo2_tied_biased": Olmo2Config(
        **WIDE | dict(num_key_value_heads=None), tie_word_embeddings=True, attention_bias=True, rope_parameters=YARN
    ),
    "granite": GraniteConfig(
        **COMMON, embedding_multiplier=12.0, logits_scaling=3.0, residual_multiplier=0.22, attention_multiplier=0.1
    ),
    "granite_tied_biased": GraniteConfig(
        **WIDE, tie_word_embeddings=True, attention_bias=True, mlp_bias=True, embedding_multiplier=3.0,
        attention_multiplier=0.3, residual_multiplier=0.7, logits_scaling=0.5, rope_parameters=YARN,
    ),
    "gemma3_multimodal": Gemma3Config(
        text_config=GEMMA3 | dict(num_hidden_layers=2, layer_types=["full_attention", "sliding_attention"]),
        vision_config=TINY_VISION, mm_tokens_per_image=1, bos_token_id=1, eos_token_id=2,
    ),
}
LENGTHS = [1, 7, 40, 22]


def write(name, config, changes):
    folder = HERE / name
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float()
    with torch.no_grad():
        # Larger than the initialisation, so that every part matters in the outcome.
        for n, p in model.named_parameters():
            # Gemma stores its norms' weights less 1.
            norm = ("norm" in n or ".ln_" in n) and not name.startswith("gemma")
            p.copy_(torch.randn_like(p) * 0.3 + (1.0 if norm and "weight" in n else 0.0))
    if name.endswith("bf16"):
        model.bfloat16()
    model.save_pretrained(folder)
    if changes:
        path = folder / "config.json"
        edited = json.loads(path.read_text())
        for key, value in changes.items():
            if value is None:
                edited.pop(key, None)
            else:
                edited[key] = {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value
        edited["torch_dtype"] = edited.pop("dtype", "float32")
        path.write_text(json.dumps(edited, indent=2) + "\n")
    return folder


def main():
    only = sys.argv[1:]
    for i, (name, config) in enumerate(CONFIGS.items()):
        if only and name not in only:
            continue
        config, changes = config if isinstance(config, tuple) else (config, None)
        torch.manual_seed(i)
        folder = write(name, config, changes)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        texts = [torch.randint(3, VOCAB, (l,)) for l in LENGTHS]
        logits = []
        for text in texts:
            # transformers 5.3 keeps the frequencies of the longest text so far ("dynamic"), although it means not to.
            rotary = getattr(getattr(model, "model", None), "rotary_emb", None)
            if hasattr(rotary, "original_inv_freq"):
                rotary.inv_freq = rotary.original_inv_freq.clone()
            logits.append(model(input_ids=text[None], use_cache=False).logits[0])
        packed = torch.cat(logits)
        probe = torch.randn_like(packed)
        (packed * probe).sum().backward()
        out = {"ids": torch.cat(texts), "lengths": torch.tensor(LENGTHS), "logits": packed.detach(), "probe": probe}
        for n, p in model.named_parameters():
            # Of several models the language model, under the names of its own.
            if p.grad is not None:
                out[f"grad.{n.replace('model.language_model.', 'model.')}"] = p.grad
        save_file({k: v.contiguous() for k, v in out.items()}, folder / "golden.safetensors")
        stored = load_file(folder / "model.safetensors")
        print(name, sum(p.numel() for p in model.parameters()), len(stored), packed.detach().std().item())


main()
