"""Parameters after each of ten steps of transformers' Adafactor. Writes adafactor.json beside itself."""

import json
from pathlib import Path

import torch
from transformers.optimization import Adafactor

SHAPES = [[6, 5], [7], [1, 8], [8, 1], [2, 3, 4]]
STEPS = 10
BASE = dict(lr=3e-3, scale_parameter=True, beta1=None, weight_decay=0.0, clip_threshold=1.0, decay_rate=-0.8)
CASES = {
    "the paper's": {},
    "own size, first moment, decay": dict(lr=1e-2, scale_parameter=False, beta1=0.9, weight_decay=0.1),
    "looser clip, slower decay": dict(lr=5e-2, clip_threshold=2.0, decay_rate=-0.5, weight_decay=0.01),
}


def flat(t):
    return [round(float(x), 9) for x in t.detach().reshape(-1)]


torch.manual_seed(3)
start = [torch.randn(s) * 0.5 for s in SHAPES]
# Some gradients are much larger than those before: what the clip is for.
grads = [[torch.randn(s) * (1 + 9 * (step % 4 == 3)) for s in SHAPES] for step in range(STEPS)]
cases = []
for name, changes in CASES.items():
    o = BASE | changes
    params = [torch.nn.Parameter(torch.tensor(flat(t)).reshape(t.shape)) for t in start]
    opt = Adafactor(params, relative_step=False, warmup_init=False, **o)
    after = []
    for step in range(STEPS):
        for p, g in zip(params, grads[step]):
            p.grad = torch.tensor(flat(g)).reshape(g.shape)
        opt.step()
        after.append([flat(p) for p in params])
    cases.append({"name": name, **o, "after": after})
out = {
    "shapes": SHAPES,
    "start": [flat(t) for t in start],
    "grads": [[flat(g) for g in gs] for gs in grads],
    "cases": cases,
}
Path(__file__).with_name("adafactor.json").write_text(json.dumps(out) + "\n")
