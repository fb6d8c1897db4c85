"""losses.json: TRL's own losses on random log-probabilities.

Run in an environment with trl 1.16 and transformers 5: python make_losses.py. The trainers' loss functions are called on
objects that have only what they read, with models that return the log-probabilities given.
"""

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import torch
import trl
from trl import DPOTrainer, KTOTrainer, SFTTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

torch.manual_seed(5)
PAIRS, LENGTH = 6, 9


class Accelerator(SimpleNamespace):
    device = torch.device("cpu")

    def gather(self, x):
        return x

    gather_for_metrics = gather

    def unwrap_model(self, m):
        return m


class Model(torch.nn.Module):
    """Returns the log-probabilities given."""

    is_gradient_checkpointing = False

    def __init__(self, log_probs):
        super().__init__()
        self.log_probs = log_probs

    def forward(self, **kwargs):
        x, zeros = self.log_probs, torch.zeros_like(self.log_probs)
        mask = x != 0
        return SimpleNamespace(log_probs=x, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool(), label_mask=mask)


def rows(n):
    """Log-probabilities per token of n completions of unequal length, 0 elsewhere: [n, LENGTH - 1], mask [n, LENGTH]."""
    tokens = torch.randint(2, LENGTH - 1, (n,))
    mask = (torch.arange(LENGTH)[None] >= LENGTH - tokens[:, None]).long()
    policy = -torch.rand(n, LENGTH - 1) * 3 * mask[:, 1:]
    reference = -torch.rand(n, LENGTH - 1) * 3 * mask[:, 1:]
    return policy, reference, mask


def common(**extra):
    return SimpleNamespace(
        accelerator=Accelerator(),
        aux_loss_enabled=False,
        precompute_ref_logps=False,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        _metrics={"train": defaultdict(list), "eval": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
        **extra,
    )


out = {"trl": trl.__version__, "cases": []}
policy, reference, mask = rows(2 * PAIRS)
c, r = slice(0, PAIRS), slice(PAIRS, None)
out["pairs"] = {
    "chosen": policy[c].sum(1).tolist(),
    "rejected": policy[r].sum(1).tolist(),
    "reference_chosen": reference[c].sum(1).tolist(),
    "reference_rejected": reference[r].sum(1).tolist(),
    "chosen_tokens": mask[c].sum(1).tolist(),
    "rejected_tokens": mask[r].sum(1).tolist(),
    "nll_sum": -policy[c].sum().item(),
    "nll_tokens": int(mask[c].sum()),
}


def add(name, config, loss, metrics, sft_weight=0.0):
    out["cases"].append(
        {"name": name, "config": {"loss": config, "sft_weight": sft_weight}, "loss": float(loss), "metrics": metrics}
    )


def dpo(config, types, beta, weights=None, smoothing=0.0, sft_weight=0.0):
    base = Model(reference)
    me = common(
        model=Model(policy),
        ref_model=base,
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        beta=beta,
        label_smoothing=smoothing,
        loss_types=types,
        loss_weights=weights or [1.0] * len(types),
        use_weighting=False,
    )
    inputs = {"completion_mask": mask, "input_ids": torch.zeros_like(mask), "attention_mask": torch.ones_like(mask)}
    loss = DPOTrainer._compute_loss(me, me.model, inputs, False)
    m = me._metrics["train"]
    metrics = {
        k: m["rewards/" + n][0]
        for k, n in [("chosen", "chosen"), ("rejected", "rejected"), ("margin", "margins"), ("accuracy", "accuracies")]
    }
    add("+".join(types), config, loss, metrics, sft_weight)


for beta in (0.1, 0.7):
    dpo({"dpo": {"beta": beta}}, ["sigmoid"], beta)
    dpo({"hinge": {"beta": beta}}, ["hinge"], beta)
    dpo({"ipo": {"beta": beta}}, ["ipo"], beta)
    dpo({"robust": {"beta": beta, "label_smoothing": 0.2}}, ["robust"], beta, smoothing=0.2)
    dpo({"dpo": {"beta": beta}}, ["sigmoid", "sft"], beta, [1.0, 0.35], sft_weight=0.35)


def cpo(name, config, chosen, rejected, kind, beta, gamma=0.0, smoothing=0.0, alpha=0.0, nll=0.0):
    me = SimpleNamespace(
        alpha=0.0, beta=beta, loss_type=kind, simpo_gamma=gamma, label_smoothing=smoothing, accelerator=Accelerator()
    )
    losses, a, b = CPOTrainer.cpo_loss(me, chosen, rejected)
    metrics = {
        "chosen": a.mean().item(),
        "rejected": b.mean().item(),
        "margin": (a - b).mean().item(),
        "accuracy": (a > b).float().mean().item(),
    }
    add(name, config, losses.mean() + alpha * nll, metrics)


# Conservative DPO is CPO's sigmoid on log-ratios.
ratio = (policy - reference).sum(1)
cpo("cdpo", {"dpo": {"beta": 0.3, "label_smoothing": 0.15}}, ratio[c], ratio[r], "sigmoid", 0.3, smoothing=0.15)
average = policy.sum(1) / mask.sum(1)
nll = out["pairs"]["nll_sum"] / out["pairs"]["nll_tokens"]
for beta, gamma, smoothing, alpha in [(2.0, 1.0, 0.0, 0.0), (0.1, 0.5, 0.1, 0.0), (2.5, 0.8, 0.0, 0.7)]:
    config = {"simpo": {"beta": beta, "gamma": gamma, "label_smoothing": smoothing, "cpo_alpha": alpha}}
    cpo("simpo", config, average[c], average[r], "simpo", beta, gamma, smoothing, alpha, nll)

for beta in (0.1, 1.5):
    me = SimpleNamespace(beta=beta, accelerator=Accelerator())
    losses, a, b, _, _ = ORPOTrainer.odds_ratio_loss(me, average[c], average[r])
    metrics = {
        "chosen": a.mean().item(),
        "rejected": b.mean().item(),
        "margin": (a - b).mean().item(),
        "accuracy": (a > b).float().mean().item(),
    }
    add("orpo", {"orpo": {"beta": beta, "completion_only": True}}, nll - losses.mean(), metrics)

# KTO on mixed labels; 4 of 7 desirable, once with a positive estimate of the divergence and once with a clamped one.
out["kto"] = []
for shift, beta, wd, wu in [(0.8, 0.1, 1.0, 1.0), (0.8, 0.5, 1.3, 0.9), (-3.0, 0.1, 1.0, 1.0)]:
    p, ref, m = rows(7)
    p_kl, ref_kl, m_kl = rows(7)
    p_kl = p_kl.minimum(ref_kl + shift) if shift < 0 else (ref_kl + shift).clamp(max=0) * m_kl[:, 1:]
    labels = torch.tensor([1, 0, 1, 1, 0, 0, 1]).bool()
    me = common(
        model=Model(p),
        ref_model=Model(ref),
        calculate_KL=True,
        loss_type="kto",
        beta=beta,
        desirable_weight=wd,
        undesirable_weight=wu,
        _compute_kl_logps=None,
    )
    kl = {id(me.model): p_kl.sum(1), id(me.ref_model): ref_kl.sum(1)}
    me._compute_kl_logps = lambda which, batch, kl=kl: kl[id(which)]
    batch = {
        "label": labels,
        "input_ids": torch.zeros_like(m),
        "completion_mask": m,
        "attention_mask": torch.ones_like(m),
    }
    loss = KTOTrainer._compute_loss(me, me.model, batch, False)
    s, sr = p.sum(1), ref.sum(1)
    out["kto"].append(
        {
            "config": {"loss": {"kto": {"beta": beta, "desirable_weight": wd, "undesirable_weight": wu}}},
            "chosen": s[labels].tolist(),
            "rejected": s[~labels].tolist(),
            "reference_chosen": sr[labels].tolist(),
            "reference_rejected": sr[~labels].tolist(),
            "mismatched": (p_kl.sum(1) - ref_kl.sum(1)).tolist(),
            "loss": float(loss),
            "metrics": {
                "chosen": me._metrics["train"]["rewards/chosen"][0],
                "rejected": me._metrics["train"]["rewards/rejected"][0],
                "margin": me._metrics["train"]["rewards/margins"][0],
            },
        }
    )

# Supervised, two micro-batches of one window.
micro = [rows(3)[0], rows(2)[0]]
window = sum(int((x != 0).sum()) for x in micro)


def sft(kind):
    total = 0.0
    for x in micro:
        me = common(model=Model(x), compute_loss_func=None, label_smoother=None)
        me.accelerator.parallelism_config = None
        me.accelerator.num_processes = 1
        me._get_tp_size = me.get_tp_size = lambda: 1
        me.args = SimpleNamespace(loss_type=kind, average_tokens_across_devices=True, max_length=None)
        inputs = {"input_ids": torch.zeros(x.shape[0], LENGTH).long(), "attention_mask": torch.ones(x.shape[0], LENGTH)}
        total += float(SFTTrainer.compute_loss(me, me.model, inputs, num_items_in_batch=window))
    return total


out["sft"] = {
    "nll": [(-x).flatten().tolist() for x in micro],
    "window": window,
    "nll_loss": sft("nll"),
    "dft_loss": sft("dft"),
}
Path(__file__).with_name("losses.json").write_text(json.dumps(out, indent=1) + "\n")
