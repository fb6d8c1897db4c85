#!/usr/bin/env python
"""Losses over scored pairs as sentence-transformers 5.3 computes them, with gradients.

    .venv/bin/python crates/retriever/tests/golden/make_scored.py
"""

import json
import pathlib

import torch
from sentence_transformers.losses import CoSENTLoss, CosineSimilarityLoss

torch.manual_seed(3)
PAIRS, DIM = 6, 5
labels = torch.tensor([0.9, 0.1, 0.5, 0.5, 1.0, 0.0], dtype=torch.float32)
first, second = (torch.randn(PAIRS, DIM, dtype=torch.float32) for _ in range(2))


def computed(loss, labels):
    u, v = (t.clone().requires_grad_() for t in (first, second))
    value = loss(u, v, labels)
    value.backward()
    return {"loss": value.item(), "queries": u.grad.flatten().tolist(), "passages": v.grad.flatten().tolist()}


cosent = CoSENTLoss(None, scale=20.0)
cosine = CosineSimilarityLoss(None)
out = {
    "labels": labels.tolist(),
    "dim": DIM,
    "queries": first.flatten().tolist(),
    "passages": second.flatten().tolist(),
    "cosent": computed(lambda u, v, y: cosent.compute_loss_from_embeddings([u, v], y), labels),
    "cosine_similarity": computed(lambda u, v, y: cosine.compute_loss_from_embeddings([u, v], y), labels),
}
(pathlib.Path(__file__).parent / "scored.json").write_text(json.dumps(out) + "\n")
