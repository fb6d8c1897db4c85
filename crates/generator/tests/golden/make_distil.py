"""distil.json: divergences of distillation and their gradients, as PyTorch and TRL compute them in f64.

Run in an environment with trl 1.16 and transformers 5: python make_distil.py. The generalised Jensen-Shannon divergence is
TRL's own `generalized_jsd_loss`; the others are `torch.nn.functional.kl_div` over log-probabilities, times T^2.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
import trl
from trl.experimental.gkd import GKDTrainer

torch.manual_seed(7)
ROWS, VOCAB = 5, 9
# Of different sizes, so that one is sure where the other is not.
student = (torch.randn(ROWS, VOCAB) * 2).double()
teacher = (torch.randn(ROWS, VOCAB) * 4).double()
targets = torch.randint(0, VOCAB, (ROWS,))


def case(config, loss):
    z = student.clone().requires_grad_(True)
    value = loss(z)
    value.backward()
    return {"config": config, "sum": value.item(), "grad": z.grad.flatten().tolist()}


def kl(first, second, t):
    """T^2 KL(softmax(second / T) || softmax(first / T)), summed."""
    a, b = F.log_softmax(first / t, -1), F.log_softmax(second / t, -1)
    return F.kl_div(a, b, reduction="sum", log_target=True) * t * t


cases = []
for t in (1.0, 2.5):
    cases.append(case({"forward_kl": {"temperature": t}}, lambda z: kl(z, teacher, t)))
    cases.append(case({"reverse_kl": {"temperature": t}}, lambda z: kl(teacher, z, t)))
    for beta in (0.0, 0.1, 0.5, 0.9, 1.0):
        config = {"generalized_jsd": {"beta": beta, "temperature": t}}
        own = lambda z: GKDTrainer.generalized_jsd_loss(z[None], teacher[None], beta=beta, temperature=t, reduction="sum")
        cases.append(case(config, own))

out = {
    "trl": trl.__version__,
    "rows": ROWS,
    "vocab": VOCAB,
    "student": student.flatten().tolist(),
    "teacher": teacher.flatten().tolist(),
    "targets": targets.tolist(),
    "nll": F.cross_entropy(student, targets, reduction="sum").item(),
    "cases": cases,
}
Path(__file__).with_name("distil.json").write_text(json.dumps(out) + "\n")
