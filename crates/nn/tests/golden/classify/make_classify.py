"""Random tiny classifiers, their logits and the gradients of a loss, by transformers' AutoModelForSequenceClassification.

    python crates/nn/tests/golden/classify/make_classify.py [case...]        (transformers 5.3.0, torch 2.11.0)

Per case a folder as save_pretrained writes it, and golden.safetensors: ids, types, lengths, targets, the logits of
each text, the loss (cross-entropy, squared error or binary cross-entropy by problem_type) and its gradients.
"""

import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import (
    AutoModelForSequenceClassification, BertConfig, DebertaV2Config, DistilBertConfig, ElectraConfig, Gemma2Config,
    Gemma3TextConfig, GPT2Config, GPTNeoXConfig, LlamaConfig, MistralConfig, ModernBertConfig, MPNetConfig, Phi3Config,
    Qwen2Config, Qwen3Config, RobertaConfig, SmolLM3Config, XLMRobertaConfig,
)

HERE = pathlib.Path(__file__).parent
COMMON = dict(vocab_size=61, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24)
MODERN = dict(
    vocab_size=61, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
    local_attention=16, global_attn_every_n_layers=2, max_position_embeddings=64,
    pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2,
)
LLAMA = COMMON | dict(num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0)
SINGLE, SEVERAL, NUMBER = "single_label_classification", "multi_label_classification", "regression"
CASES = {
    "bert": (BertConfig(**COMMON, max_position_embeddings=64), 3, SINGLE),
    "bert_multi": (BertConfig(**COMMON, max_position_embeddings=64), 3, SEVERAL),
    "roberta_regression": (
        RobertaConfig(**COMMON, max_position_embeddings=66, type_vocab_size=1, pad_token_id=1), 1, NUMBER
    ),
    "xlm_roberta": (XLMRobertaConfig(**COMMON, max_position_embeddings=66, type_vocab_size=1, pad_token_id=1), 3, SINGLE),
    "distilbert": (
        DistilBertConfig(vocab_size=61, dim=16, n_layers=2, n_heads=4, hidden_dim=24, max_position_embeddings=64),
        3, SINGLE,
    ),
    "mpnet": (MPNetConfig(**COMMON, max_position_embeddings=66, pad_token_id=1), 3, SINGLE),
    "modernbert_cls": (ModernBertConfig(**MODERN, classifier_pooling="cls"), 3, SINGLE),
    "modernbert_mean": (
        ModernBertConfig(**MODERN, classifier_pooling="mean", classifier_bias=True, norm_bias=True,
                         classifier_activation="silu"),
        3, SINGLE,
    ),
    "llama": (LlamaConfig(**LLAMA), 3, SINGLE),
    "llama_tied": (LlamaConfig(**LLAMA, tie_word_embeddings=True), 1, NUMBER),
    "mistral": (MistralConfig(**LLAMA, sliding_window=8), 3, SINGLE),
    "qwen2": (Qwen2Config(**LLAMA), 3, SEVERAL),
    "qwen3": (Qwen3Config(**LLAMA, head_dim=8), 3, SINGLE),
    "smollm3": (SmolLM3Config(**LLAMA), 3, SINGLE),
    "gpt2": (GPT2Config(vocab_size=61, n_embd=16, n_layer=2, n_head=4, n_positions=64, pad_token_id=0), 3, SINGLE),
    "gpt_neox": (GPTNeoXConfig(**COMMON | dict(num_attention_heads=2), max_position_embeddings=64, pad_token_id=0), 3, SINGLE),
    "deberta": (
        DebertaV2Config(
            **COMMON, max_position_embeddings=64, relative_attention=True, position_buckets=12, norm_rel_ebd="layer_norm",
            share_att_key=True, pos_att_type=["p2c", "c2p"], position_biased_input=False, type_vocab_size=0,
        ),
        3, SINGLE,
    ),
    "electra": (ElectraConfig(**COMMON, max_position_embeddings=64, embedding_size=12), 1, NUMBER),
    "gemma2": (Gemma2Config(**LLAMA, head_dim=8, query_pre_attn_scalar=8, sliding_window=8), 3, SINGLE),
    "phi3": (Phi3Config(**LLAMA), 3, SINGLE),
    "gemma3": (
        Gemma3TextConfig(**LLAMA, head_dim=8, query_pre_attn_scalar=8, sliding_window=8, sliding_window_pattern=2),
        3, SINGLE,
    ),
}
LENGTHS = [1, 7, 40, 23]


def main():
    only = sys.argv[1:]
    for i, (name, (config, labels, problem)) in enumerate(CASES.items()):
        if only and name not in only:
            continue
        torch.manual_seed(i)
        config.num_labels = labels
        config.problem_type = problem
        model = AutoModelForSequenceClassification.from_config(
            config, attn_implementation="eager" if name in ("mpnet", "deberta", "gemma2") else "sdpa"
        ).float()
        with torch.no_grad():
            for n, p in model.named_parameters():
                p.copy_(torch.randn_like(p) * (0.15 if p.dim() > 1 else 0.3) + (1.0 if "norm" in n.lower() and "weight" in n and not name.startswith("gemma") else 0.0))
        model.eval()
        folder = HERE / name
        model.save_pretrained(folder)
        texts = [torch.randint(3, 61, (n,)) for n in LENGTHS]
        segmented = name.startswith("bert")
        types = [(torch.arange(len(t)) >= len(t) // 2).long() * segmented for t in texts]
        logits = torch.cat([
            model(input_ids=t[None], **({"token_type_ids": s[None]} if segmented else {})).logits
            for t, s in zip(texts, types)
        ])
        if problem == SINGLE:
            targets = torch.tensor([0.0, 2, 1, 2])
            loss = torch.nn.functional.cross_entropy(logits, targets.long())
        elif problem == NUMBER:
            targets = torch.tensor([0.5, -1.0, 2.0, 0.0])
            loss = torch.nn.functional.mse_loss(logits.squeeze(1), targets)
        else:
            targets = torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)
        loss.backward()
        out = {
            "ids": torch.cat(texts), "types": torch.cat(types), "lengths": torch.tensor(LENGTHS), "targets": targets,
            "logits": logits.detach(), "loss": loss.detach()[None],
        }
        for n, p in model.named_parameters():
            if p.grad is not None:
                out[f"grad.{n}"] = p.grad
        save_file({k: v.contiguous().clone() for k, v in out.items()}, folder / "golden.safetensors")


main()
