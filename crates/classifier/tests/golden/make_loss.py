"""Losses of classifiers by torch.nn.functional in float64 (torch 2.11.0): `python make_loss.py`."""
import json, pathlib
import torch
import torch.nn.functional as F

torch.manual_seed(3)
x = (torch.randn(6, 4, dtype=torch.float64) * 2)
y = torch.tensor([0, 3, 1, 1, 2, 0])
w = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)
flags = torch.randint(0, 2, (6, 4)).double()
numbers = torch.randn(6, dtype=torch.float64)
out = dict(
    logits=x.tolist(), classes=y.tolist(), weights=w.tolist(), flags=flags.int().tolist(), numbers=numbers.tolist(),
    ce=F.cross_entropy(x, y).item(), ce_weighted=F.cross_entropy(x, y, w).item(),
    ce_smooth=F.cross_entropy(x, y, label_smoothing=0.1).item(),
    ce_smooth_weighted=F.cross_entropy(x, y, w, label_smoothing=0.1).item(),
    bce=F.binary_cross_entropy_with_logits(x, flags).item(),
    bce_weighted=F.binary_cross_entropy_with_logits(x, flags, pos_weight=w).item(),
    mse=F.mse_loss(x[:, 0], numbers).item(),
)
pathlib.Path(__file__).with_name("loss.json").write_text(json.dumps(out))
