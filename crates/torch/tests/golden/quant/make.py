"""Weights quantised by bitsandbytes 0.50.2 on the CPU: NF4 with double quantisation, and int8 by row.

pip install --no-deps --target /tmp/bnb bitsandbytes; PYTHONPATH=/tmp/bnb .venv/bin/python make.py
"""

from pathlib import Path

import bitsandbytes.functional as F
import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from safetensors.torch import save_file

torch.manual_seed(1)


def weight(rows, columns):
    w = torch.randn(rows, columns) * 0.05
    # Outliers, and rows of very different size.
    w[torch.rand(rows, columns) < 0.002] *= 20
    # bitsandbytes' int8 takes 16 bits: these numbers are the same in both.
    return (w * torch.exp(torch.randn(rows, 1) * 0.5)).half().float()


cases = {
    "odd_columns": weight(261, 70),
    "whole_blocks": weight(40, 128),
    "less_than_a_block": weight(3, 5),
    "one": weight(1, 1),
    "zero_rows": weight(24, 96),
    "zeros": torch.zeros(5, 77),
}
cases["zero_rows"][3:9] = 0

out = {}
for name, w in cases.items():
    codes, s = F.quantize_4bit(w, blocksize=64, quant_type="nf4", compress_statistics=True)
    out[f"{name}.weight"] = w
    out[f"{name}.codes"] = codes.flatten()
    out[f"{name}.scales"] = s.absmax
    out[f"{name}.nested"] = s.state2.absmax
    out[f"{name}.offset"] = s.offset.reshape(1)
    # Its own vectorised kernel takes blocks by row and is wrong where they cross rows (96 columns); this is what its
    # other devices do.
    absmax = F.dequantize_blockwise(s.absmax, s.state2) + s.offset
    out[f"{name}.nf4"] = _dequantize_4bit_compute(codes.flatten(), absmax, s.code, 64, w.shape, torch.float32)
    i8, stats, _ = F.int8_vectorwise_quant(w.half())
    out[f"{name}.int8"] = i8
    out[f"{name}.stats"] = stats
save_file({k: v.contiguous() for k, v in out.items()}, Path(__file__).with_name("quant.safetensors"))
