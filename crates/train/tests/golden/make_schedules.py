"""Learning-rate factors of transformers' schedules: python make_schedules.py > schedules.json"""

import json

import torch
from transformers import optimization as o


def factors(make, total):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedule = make(optimizer)
    out = []
    for _ in range(total + 1):
        out.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return out


cases = []
for total, warmup in [(10, 3), (25, 0), (40, 40), (1, 0)]:
    for name, make in [
        ("linear", lambda opt: o.get_linear_schedule_with_warmup(opt, warmup, total)),
        ("constant", lambda opt: o.get_constant_schedule_with_warmup(opt, warmup)),
        ("cosine", lambda opt: o.get_cosine_schedule_with_warmup(opt, warmup, total)),
        (
            {"cosine": {"cycles": 1.5}},
            lambda opt: o.get_cosine_schedule_with_warmup(opt, warmup, total, num_cycles=1.5),
        ),
        (
            {"cosine": {"min_ratio": 0.1}},
            lambda opt: o.get_cosine_with_min_lr_schedule_with_warmup(opt, warmup, total, min_lr_rate=0.1),
        ),
    ]:
        cases.append({"schedule": name, "warmup": warmup, "total": total, "factors": factors(make, total)})
print(json.dumps(cases, indent=0))
