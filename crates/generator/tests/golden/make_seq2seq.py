"""seq2seq.json: transformers' generate and loss on the tiny encoder-decoders of crates/nn/tests/golden/lm.

Sources are padded into one batch here and packed there. Run with transformers 5.3: python make_seq2seq.py.
"""

import json
from pathlib import Path

import torch
from transformers import AutoModelForSeq2SeqLM

HERE = Path(__file__).parent
MODELS = HERE / "../../../nn/tests/golden/lm"
LENGTHS, TARGETS = [9, 1, 150, 33], [4, 12, 1, 7]
CASES = [
    {},
    {"eos_token_id": [1, 30, 12]},
    {"repetition_penalty": 1.4},
    {"no_repeat_ngram_size": 2, "eos_token_id": [1, 5]},
    {"num_beams": 4},
    {"num_beams": 3, "num_return_sequences": 2, "no_repeat_ngram_size": 2, "length_penalty": 0.6},
    {"num_beams": 5, "early_stopping": True, "repetition_penalty": 1.2, "eos_token_id": [1, 9, 22]},
]

torch.manual_seed(7)
sources = [torch.randint(2, 37, (n,)).tolist() for n in LENGTHS]
targets = [torch.randint(2, 37, (n,)).tolist() + [1] for n in TARGETS]


def padded(rows, value):
    width = max(map(len, rows))
    return torch.tensor([r + [value] * (width - len(r)) for r in rows])


ids = padded(sources, 0)
mask = padded([[1] * len(s) for s in sources], 0)
out = {"sources": sources, "targets": targets, "models": {}}
for name in ("t5", "flan_t5"):
    model = AutoModelForSeq2SeqLM.from_pretrained(MODELS / name, dtype=torch.float32).eval()
    cases = []
    for case in CASES:
        settings = {"max_new_tokens": 64, "do_sample": False, "eos_token_id": [1], **case}
        with torch.no_grad():
            done = model.generate(
                input_ids=ids, attention_mask=mask, pad_token_id=0, return_dict_in_generate=True, output_scores=True,
                **settings,
            )
        n = settings.get("num_return_sequences", 1)
        rows = []
        for row in done.sequences.tolist():
            row = row[1:]
            ends = [i for i, t in enumerate(row) if t in settings["eos_token_id"]]
            rows.append(row[: ends[0] + 1] if ends else row)
        cases.append({"config": settings, "sequences": [rows[i:i + n] for i in range(0, len(rows), n)]})
    loss = model(input_ids=ids, attention_mask=mask, labels=padded(targets, -100)).loss.item()
    out["models"][name] = {"cases": cases, "loss": loss}
    print(name, loss, [[len(s) for r in c["sequences"] for s in r] for c in cases])
(HERE / "seq2seq.json").write_text(json.dumps(out) + "\n")
