"""choices.json: T-Few's losses and the gradients of (IA)^3 vectors, on the tiny models of crates/nn/tests/golden.

    python make_choices.py        (peft 0.21.2, transformers 5.3.0, torch 2.11.0)

The losses are written out from their definitions (arXiv 2205.05638, and the authors' code for the 1e-2), choice by
choice, each computed alone, in plain PyTorch; the adapters are peft's. No code of T-Few runs here.
"""

import json
import warnings
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*")
HERE = Path(__file__).parent
GOLDEN = HERE / "../../../nn/tests/golden"
# Prompt tokens, the choices' tokens, the right choice.
RECORDS = [(9, [3, 1, 5], 1), (4, [2, 2], 0), (12, [1, 6, 2, 4], 3), (1, [4, 3], 1)]
WEIGHTS = [
    {"language_model": 1.0, "unlikelihood": 1.0, "length_normalized": 1.0, "length_norm": 1.0},
    {"language_model": 0.5, "unlikelihood": 2.0, "length_normalized": 0.7, "length_norm": 0.5},
]


def log_probs(model, seq2seq, prompt, choice):
    """log p of each token of a choice."""
    if seq2seq:
        decoder = torch.tensor([[0] + choice[:-1]])
        logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=decoder).logits[0]
    else:
        logits = model(input_ids=torch.tensor([prompt + choice])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits, -1)[torch.arange(len(choice)), torch.tensor(choice)]


def losses(scored, w):
    right = torch.cat([choices[y] for choices, y in scored])
    wrong = torch.cat([c for choices, y in scored for i, c in enumerate(choices) if i != y])
    lm = -right.mean()
    ul = -(torch.log(1 - wrong.exp() + 1e-2)).mean()
    ln = 0.0
    for choices, y in scored:
        beta = torch.stack([c.sum() / len(c) ** w["length_norm"] for c in choices])
        ln = ln - (beta[y] - torch.log(beta.exp().sum()))
    return lm, ul, ln / len(scored)


torch.manual_seed(5)
tokens = lambda n: torch.randint(3, 37, (n,)).tolist()
records = [
    {"prompt": tokens(p), "choices": [tokens(n) for n in choices], "answer": y} for p, choices, y in RECORDS
]
out = {"records": records, "models": []}
for name, base, auto in [("ia3_llama", "lm/llama", AutoModelForCausalLM), ("ia3_t5", "lm/t5", AutoModelForSeq2SeqLM)]:
    seq2seq = auto is AutoModelForSeq2SeqLM
    model = PeftModel.from_pretrained(
        auto.from_pretrained(GOLDEN / base, dtype=torch.float32), GOLDEN / "peft" / name, is_trainable=True
    ).eval()
    named = {n.replace(".default", ""): p for n, p in model.named_parameters() if p.requires_grad}
    for w in WEIGHTS:
        model.zero_grad()
        scored = [
            ([log_probs(model, seq2seq, r["prompt"], c) for c in r["choices"]], r["answer"]) for r in records
        ]
        lm, ul, ln = losses(scored, w)
        total = w["language_model"] * lm + w["unlikelihood"] * ul + w["length_normalized"] * ln
        total.backward()
        values = {"language_model": lm, "unlikelihood": ul, "length_normalized": ln, "total": total}
        out["models"].append({
            "adapter": name, "base": base, "seq2seq": seq2seq, "weights": w,
            **{k: v.item() for k, v in values.items()},
            "sums": [[c.sum().item() for c in choices] for choices, _ in scored],
            "grads": {n: p.grad.reshape(-1).tolist() for n, p in named.items()},
        })
        print(name, {k: round(v.item(), 5) for k, v in values.items()}, len(named))
(HERE / "choices.json").write_text(json.dumps(out) + "\n")
