#!/usr/bin/env python3
"""Peak memory and speed of LoRA fine-tuning, Ragduet beside peft and transformers: scripts/lora_memory.py MODEL [--steps N]

MODEL is a Hugging Face folder of a decoder-only model. Both train the same rows (prompt and completion, all of one length),
2,048 tokens a step, rank 16 in every linear layer, bf16, each in a process of its own; the peak is the process's resident
set, the base included. Python's is measured with and without gradient checkpointing. Needs `scripts/setup --reference`.
"""

import argparse
import json
import os
import pathlib
import random
import resource
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
TOKENS, LENGTH, LEARNED = 2048, 512, 64


def rows(tokenizer, n):
    """Texts of LENGTH tokens each; the last LEARNED are learned."""
    draw = random.Random(5)
    words = ["harbor", "lighthouse", "river", "bridge", "market", "stone", "winter", "council", "was built", "in the year"]
    made = []
    while len(made) < n:
        ids = tokenizer(" ".join(draw.choice(words) for _ in range(LENGTH)))["input_ids"][:LENGTH]
        prompt, completion = tokenizer.decode(ids[:-LEARNED]), tokenizer.decode(ids[-LEARNED:])
        made.append({"prompt": prompt, "completion": completion})
    return made


def theirs(model_dir, file, steps, checkpointing):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16)
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    if checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4)
    texts = [json.loads(line) for line in file.open()]
    size, times = TOKENS // LENGTH, []
    for step in range(steps):
        started = time.monotonic()
        batch, labels = [], []
        for row in texts[step * size : (step + 1) * size]:
            prompt = tokenizer(row["prompt"])["input_ids"]
            answer = tokenizer(row["completion"])["input_ids"]
            batch.append((prompt + answer)[:LENGTH])
            labels.append(([-100] * len(prompt) + answer)[:LENGTH])
        longest = max(map(len, batch))
        pad = tokenizer.pad_token_id or 0
        ids = torch.tensor([b + [pad] * (longest - len(b)) for b in batch])
        mask = torch.tensor([[1] * len(b) + [0] * (longest - len(b)) for b in batch])
        target = torch.tensor([b + [-100] * (longest - len(b)) for b in labels])
        model(input_ids=ids, attention_mask=mask, labels=target).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.monotonic() - started)
    return times


def measured(command, environment=None):
    """Peak resident bytes of a command, and what it wrote."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})})
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(map(str, command))}: failed")
    return usage.ru_maxrss * 1024, said, time.monotonic() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--binary", default=ROOT / "target/release/ragduet")
    parser.add_argument("--part", choices=["theirs", "checkpointed"], help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        times = theirs(options.model, options.rows, options.steps, options.part == "checkpointed")
        print(json.dumps({"seconds": times, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
        return
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as tmp:
        tmp = pathlib.Path(tmp)
        file = tmp / "rows.jsonl"
        made = rows(AutoTokenizer.from_pretrained(options.model), options.steps * TOKENS // LENGTH)
        file.write_text("".join(json.dumps(row) + "\n" for row in made))
        table = {}
        for part in "theirs", "checkpointed":
            command = [sys.executable, __file__, options.model, "--part", part, "--rows", file, "--steps", str(options.steps)]
            peak, said, _ = measured(command)
            seconds = json.loads(said.splitlines()[-1])["seconds"]
            table["peft" if part == "theirs" else "peft, gradient checkpointing"] = (peak, min(seconds[1:] or seconds))
        for recompute in False, True:
            config = tmp / "sft.toml"
            config.write_text(
                f'[run]\nprecision = "bf16"\nmax_steps = {options.steps}\nlog_every = 1\n[model]\nbase = "{options.model}"\n'
                f"recompute = {str(recompute).lower()}\n"
                f'[data]\ntrain = "{file}"\n[prompt]\nmax_tokens = {LENGTH + 8}\n'
                f"[batch]\ntokens = {TOKENS + 32}\n[optim]\nlr = 2e-4\n[peft.lora]\nrank = 16\nalpha = 32.0\n"
            )
            out = tmp / f"run-{recompute}"
            peak, _, _ = measured([options.binary, "train", "generator", "-q", "-c", config, "--out", out])
            lines = [json.loads(line) for line in (out / "metrics.jsonl").open()]
            speed = [line["tokens_per_second"] for line in lines if "tokens_per_second" in line]
            seconds = [TOKENS / s for s in speed]
            table["ragduet, recompute" if recompute else "ragduet"] = (peak, min(seconds[1:] or seconds or [float("nan")]))
        theirs_peak = table["peft"][0]
        for name, (peak, seconds) in table.items():
            print(f"{name:30} {peak / 1e9:6.2f} GB  {peak / theirs_peak:5.2f}x  {TOKENS / seconds:7.1f} tokens/s")


if __name__ == "__main__":
    main()
