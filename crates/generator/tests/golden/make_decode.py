"""decode.json: transformers' generate on a model that is a table, and its sampling filters.

The table model gives the same logits in tests/decode.rs: a hash of the last two tokens and the candidate. Run with
transformers 5.3: python make_decode.py.
"""

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.modeling_outputs import CausalLMOutput

VOCAB = 64
M = (1 << 64) - 1


def logit(a, b, t):
    x = (a * 0x9E3779B97F4A7C15 + b * 0xC2B2AE3D27D4EB4F + t * 0x165667B19E3779F9 + 0x27220A95) & M
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & M
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & M
    x ^= x >> 31
    # 20 bits: exact in f32, in [-4, 4).
    return (x >> 44) / 131072 - 4


class TableConfig(PretrainedConfig):
    model_type = "table"

    def __init__(self, vocab_size=VOCAB, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.num_hidden_layers = 1


class Table(PreTrainedModel, GenerationMixin):
    config_class = TableConfig
    main_input_name = "input_ids"

    def __init__(self, config):
        super().__init__(config)
        self.unused = torch.nn.Parameter(torch.zeros(1))
        self.memo = {}

    def row(self, a, b):
        if (a, b) not in self.memo:
            self.memo[a, b] = [logit(a, b, t) for t in range(VOCAB)]
        return self.memo[a, b]

    def prepare_inputs_for_generation(self, input_ids, **kwargs):
        return {"input_ids": input_ids}

    def forward(self, input_ids, return_dict=True, **kwargs):
        rows = [self.row(r[-2] if len(r) > 1 else 0, r[-1]) for r in input_ids.tolist()]
        return CausalLMOutput(logits=torch.tensor(rows, dtype=torch.float32)[:, None])


model = Table(TableConfig()).eval()
prompts = [[5, 9, 13], [40, 2, 61], [7, 7, 7], [1, 30, 22], [63, 0, 11]]
cases = [
    {},
    {"eos_token_id": [3]},
    {"eos_token_id": [3, 17, 44, 51]},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.8, "eos_token_id": [3, 17]},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 1, "max_new_tokens": 40},
    {"no_repeat_ngram_size": 3, "repetition_penalty": 1.1, "eos_token_id": [3, 17], "min_new_tokens": 30},
    {"min_new_tokens": 64, "eos_token_id": [3, 17, 44]},
]
for beams in (2, 4, 5):
    for stop in (False, True, "never"):
        for penalty in (1.0, 0.0, 2.0, -0.5):
            cases.append(
                {
                    "num_beams": beams,
                    "early_stopping": stop,
                    "length_penalty": penalty,
                    "eos_token_id": [3, 17, 44] if beams == 4 else [3],
                    "num_return_sequences": beams if penalty in (0.0, -0.5) else 1,
                }
            )
# Many ways to end, all beams returned: here the ways to stop differ.
for stop in (False, True, "never"):
    for penalty in (0.6, 1.0):
        cases.append(
            {
                "num_beams": 3,
                "early_stopping": stop,
                "length_penalty": penalty,
                "eos_token_id": list(range(3, 60, 7)),
                "num_return_sequences": 3,
            }
        )
cases += [
    {"num_beams": 3},
    {"num_beams": 3, "repetition_penalty": 1.4, "eos_token_id": [3, 17], "num_return_sequences": 2},
    {"num_beams": 3, "no_repeat_ngram_size": 2, "eos_token_id": [3], "length_penalty": 1.5},
    {"num_beams": 3, "min_new_tokens": 20, "eos_token_id": [3, 17, 44, 51], "num_return_sequences": 3},
    {"num_beams": 4, "max_new_tokens": 7, "eos_token_id": [3], "early_stopping": "never"},
]
out = {"transformers": transformers.__version__, "prompts": prompts, "cases": []}
for case in cases:
    case = {"max_new_tokens": 64, **case}
    config = GenerationConfig(
        do_sample=False, pad_token_id=0 if "eos_token_id" in case else None, output_scores=True,
        return_dict_in_generate=True, use_cache=False, **case,
    )
    n = case.get("num_return_sequences", 1)
    sequences, scores = [], []
    # Alone: what is generated must not depend on the batch. (Once more together, below.)
    for p in prompts:
        r = model.generate(torch.tensor([p]), generation_config=config)
        sequences.append([s[len(p) :].tolist() for s in r.sequences])
        if "num_beams" in case:
            scores.append(r.sequences_scores.tolist())
    together = model.generate(torch.tensor(prompts), generation_config=config).sequences[:, 3:].tolist()
    eos = case.get("eos_token_id", [])

    def cut(tokens):
        end = next((i + 1 for i, t in enumerate(tokens) if t in eos), len(tokens))
        return tokens[:end]

    sequences = [[cut(s) for s in group] for group in sequences]
    flat = [s for group in sequences for s in group]
    assert flat == [cut(s) for s in together], case
    out["cases"].append({"config": case, "sequences": sequences, "scores": scores})

# Filters: kept tokens and their probabilities.
rng = np.random.default_rng(3)
rows = (rng.standard_normal((3, 400)) * 3).round(4).astype(np.float32)
rows[1, :30] = rows[1].max()  # a plateau of ties, wider than top-k
out["logits"] = rows.tolist()
out["filters"] = []
for f in [
    {"temperature": 0.7},
    {"temperature": 1.9, "top_k": 20},
    {"top_k": 1},
    {"top_p": 0.9},
    {"top_p": 0.3, "temperature": 2.0},
    {"top_p": 0.995, "temperature": 3.0},
    {"min_p": 0.05},
    {"min_p": 1.0},
    {"temperature": 1.5, "top_k": 40, "top_p": 0.8, "min_p": 0.1},
    {"temperature": 0.8, "top_k": 390, "top_p": 0.7},
]:
    warpers = LogitsProcessorList()
    if "temperature" in f:
        warpers.append(TemperatureLogitsWarper(f["temperature"]))
    if "top_k" in f:
        warpers.append(TopKLogitsWarper(f["top_k"]))
    if "top_p" in f:
        warpers.append(TopPLogitsWarper(f["top_p"]))
    if "min_p" in f:
        warpers.append(MinPLogitsWarper(f["min_p"]))
    p = warpers(None, torch.tensor(rows)).softmax(-1)
    kept = [[[i, float(v)] for i, v in enumerate(r.tolist()) if v > 0] for r in p]
    # Which of the tied tokens of row 1 top-p keeps is a matter of the sort: only their number is compared.
    out["filters"].append({"config": f, "kept": [[[i, round(v, 8)] for i, v in r] if len(r) < 60 else
                           {"count": len(r), "tokens": sum(i for i, _ in r), "first": r[0], "last": r[-1]} for r in kept]})
Path(__file__).with_name("decode.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")
