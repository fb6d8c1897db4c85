#!/usr/bin/env python
"""Small sparse models of every family as sentence-transformers saves them, with its vectors, loss and gradients.

    .venv/bin/python crates/retriever/tests/golden/make_sparse.py
"""

import json
import pathlib
import shutil
import warnings

import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.sparse_encoder import losses, models
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

HERE = pathlib.Path(__file__).parent
TOKENIZER = HERE.parents[2] / "text/tests/golden/tiny"
# Of that tokenizer.
PAD = 0
QUERIES = ["what is a harbour?", "where, when and why", "x"]
PASSAGES = [
    "The harbour lies north of the island, behind a road of granite.",
    "Copper and ember, nobody knows when.",
    "A falcon.",
    "An anchor is where ships stay for the night, and why not.",
    "what is a harbour?",
    "the the the the the the the the the the the the",
]
SMALL = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=64)
FAMILIES = {
    "bert": SMALL | dict(hidden_act="gelu"),
    "bert_untied": SMALL | dict(hidden_act="relu", tie_word_embeddings=False),
    "distilbert": dict(dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=64),
    "roberta": SMALL | dict(max_position_embeddings=66, pad_token_id=PAD),
    "mpnet": SMALL | dict(max_position_embeddings=66, pad_token_id=PAD),
    "modernbert": SMALL | dict(global_attn_every_n_layers=1, pad_token_id=0, bos_token_id=None, eos_token_id=None,
                               cls_token_id=None, sep_token_id=None),
}


def build(name, settings, words):
    torch.manual_seed(len(name))
    config = AutoConfig.for_model(name.split("_")[0], vocab_size=words, **settings)
    # As an encoder saves it: no dropout, so that training passes are the same.
    for key in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"):
        if hasattr(config, key):
            setattr(config, key, 0.0)
    model = AutoModelForMaskedLM.from_config(config)
    with torch.no_grad():
        for key, p in model.named_parameters():
            # Beyond what training starts from, so that nothing is near 0: norms, biases and words apart.
            p.add_(torch.randn_like(p) * (0.3 if p.dim() > 1 else 0.2))
    return model


def main():
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    golden = {"queries": QUERIES, "passages": PASSAGES, "models": {}}
    for name, settings in FAMILIES.items():
        folder = HERE / "sparse" / name
        shutil.rmtree(folder, ignore_errors=True)
        plain = folder / "plain"
        build(name, settings, len(tokenizer)).save_pretrained(plain)
        tokenizer.save_pretrained(plain)
        activation = "log1p_relu" if name == "distilbert" else "relu"
        pooling = "sum" if name == "roberta" else "max"
        model = SparseEncoder(modules=[
            models.MLMTransformer(str(plain), max_seq_length=32),
            models.SpladePooling(pooling, activation_function=activation),
        ], device="cpu")
        shutil.rmtree(plain)
        vectors = {side: model.encode(rows, convert_to_sparse_tensor=False).tolist()
                   for side, rows in (("queries", QUERIES), ("passages", PASSAGES))}
        model.save(str(folder), create_model_card=False)
        loss = losses.SpladeLoss(model, losses.SparseMultipleNegativesRankingLoss(model), document_regularizer_weight=0.01,
                                 query_regularizer_weight=0.02, document_regularizer_threshold=155, query_regularizer_threshold=155)
        model.train()
        features = [model.preprocess(rows) if hasattr(model, "preprocess") else model.tokenize(rows)
                    for rows in (QUERIES, PASSAGES[:3], PASSAGES[3:])]
        parts = loss(features)
        sum(parts.values()).backward()
        inner = model[0].auto_model
        golden["models"][name] = vectors | {
            "loss": {k: v.item() for k, v in parts.items()},
            "gradients": {k: [p.grad.sum().item(), p.grad.double().norm().item()]
                          for k, p in inner.named_parameters() if p.grad is not None},
        }
    (HERE / "sparse.json").write_text(json.dumps(golden) + "\n")


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    main()
