#!/usr/bin/env python3
"""rag.json: losses of transformers' RagSequenceForGeneration and RagTokenForGeneration on random logits.

    .venv/bin/python crates/joint/tests/golden/make_rag.py

Only `get_nll` is called, on logits and document scores; what stands in for the model is tiny.
"""

import json
import pathlib

import torch
from transformers import BartConfig, DPRConfig, DPRQuestionEncoder, RagConfig
from transformers import BartForConditionalGeneration, RagSequenceForGeneration, RagTokenForGeneration

V, PAD = 12, 1
torch.manual_seed(5)
generator = BartConfig(
    vocab_size=V, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
    encoder_ffn_dim=8, decoder_ffn_dim=8, max_position_embeddings=16, pad_token_id=PAD, bos_token_id=0, eos_token_id=2,
)
encoder = DPRConfig(vocab_size=V, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
# No token at the start that would be left out of the likelihood.
config = RagConfig.from_question_encoder_generator_configs(
    encoder, generator, vocab_size=V, pad_token_id=PAD, bos_token_id=0, eos_token_id=2, exclude_bos_score=False
)
cases = []
for kind, cls in (("sequence", RagSequenceForGeneration), ("token", RagTokenForGeneration)):
    model = cls(config, question_encoder=DPRQuestionEncoder(encoder), generator=BartForConditionalGeneration(generator))
    for b, k, lengths in ((1, 1, [4]), (2, 3, [5, 3]), (3, 4, [2, 6, 3]), (2, 2, [1, 4])):
        t = max(lengths)
        # transformers shifts the target left by one: the first token is the decoder's start and is not scored.
        target = torch.full((b, t + 1), PAD)
        target[:, 0] = 0
        for i, n in enumerate(lengths):
            target[i, 1 : n + 1] = torch.randint(3, V, (n,))
        logits = torch.randn(b * k, t + 1, V)
        scores = torch.randn(b, k) * 2
        loss = model.get_nll(logits, scores, target, reduce_loss=True, epsilon=0.0, n_docs=k)
        logp = logits.log_softmax(-1).view(b, k, t + 1, V)
        shifted = target[:, 1:]
        values = logp[:, :, :t].gather(-1, shifted[:, None, :, None].expand(b, k, t, 1)).squeeze(-1)
        mask = (shifted != PAD).float()
        cases.append({
            "kind": kind, "scores": scores.tolist(), "mask": mask.tolist(), "loss": loss.item(), "lengths": lengths,
            "values": (values * mask[:, None]).tolist(),
        })
path = pathlib.Path(__file__).with_name("rag.json")
path.write_text(json.dumps({"cases": cases}))
print(path, [(c["kind"], c["lengths"], round(c["loss"], 4)) for c in cases])
