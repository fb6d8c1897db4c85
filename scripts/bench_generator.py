"""Generation and fine-tuning of a small Llama, Ragduet beside transformers, in turns. Called by scripts/bench_peers.

The model has random weights (34M parameters), made once. transformers generates with `generate` (sdpa, its cache) and
trains in a plain loop with its own loss and torch's AdamW, with LoRA by peft (rank 16, every linear layer); Ragduet is benches/generator_speed.rs. Both decode greedily,
without an end of sequence, the same prompts; in fp32 the tokens are compared. Loading and warming up are not counted.
"""

import datetime
import json
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

ROOT = pathlib.Path(__file__).resolve().parents[1]
BINARY = ROOT / "target/release/generator_speed"
PROMPT, NEW, BATCHES = 64, 128, (1, 16)
TEXTS, LENGTH, STEPS = 8, 256, 3
WHATS = [f"generate, batch {b}, tokens/s" for b in BATCHES] + [
    f"train, {TEXTS} x {LENGTH}, tokens/s", f"LoRA, {TEXTS} x {LENGTH}, tokens/s"
]
SIDES = [
    "transformers fp32 (its default)",
    "ragduet fp32",
    "transformers bf16",
    "ragduet bf16 (its default here)",
]


def main():
    rounds = int(sys.argv[1])
    tmp = pathlib.Path(tempfile.mkdtemp())
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=32000, hidden_size=384, num_hidden_layers=6, num_attention_heads=6, num_key_value_heads=2,
        intermediate_size=1024, max_position_embeddings=2048, initializer_range=0.05, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(tmp / "model")

    def texts(name, n, length):
        ids = torch.randint(0, config.vocab_size, (n, length))
        (tmp / name).write_text(json.dumps(ids.tolist()))
        return ids

    prompts = {b: texts(f"prompts{b}.json", b, PROMPT) for b in BATCHES}
    learned = texts("learned.json", TEXTS, LENGTH)

    def ours(*args):
        done = subprocess.run([BINARY, *map(str, args)], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    def ours_generate(batch, precision):
        return ours("generate", tmp / "model", precision, tmp / f"prompts{batch}.json", NEW, 1)

    def ours_train(precision, lora):
        return ours("lora" if lora else "train", tmp / "model", precision, tmp / "learned.json", STEPS)

    def load():
        return LlamaForCausalLM.from_pretrained(tmp / "model", dtype=torch.float32)

    generators = {"fp32": load().eval(), "bf16": load().to(torch.bfloat16).eval()}

    def theirs_generate(batch, precision):
        model, ids = generators[precision], prompts[batch]
        mask = torch.ones_like(ids)

        def run(n):
            return model.generate(input_ids=ids, attention_mask=mask, do_sample=False, min_new_tokens=n,
                                  max_new_tokens=n, pad_token_id=0)

        run(8)
        started = time.perf_counter()
        out = run(NEW)
        rate = batch * NEW / (time.perf_counter() - started)
        assert out.shape == (batch, PROMPT + NEW)
        return {"rate": rate, "tokens": out[:, PROMPT:].tolist()}

    def theirs_train(precision, lora):
        model = load().train()
        if lora:
            model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01)
        losses = []

        def step():
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
                loss = model(input_ids=learned, labels=learned).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            losses.append(loss.item())

        step()
        started = time.perf_counter()
        for _ in range(STEPS):
            step()
        return {"rate": STEPS * learned.numel() / (time.perf_counter() - started), "losses": losses}

    results = {(w, s): [] for w in WHATS for s in SIDES}
    notes = []
    for r in range(rounds):
        for i, what in enumerate(WHATS):
            got = {}
            for side in SIDES:
                who, precision = side.split()[:2]
                if i < len(BATCHES):
                    got[side] = (ours_generate if who == "ragduet" else theirs_generate)(BATCHES[i], precision)
                else:
                    got[side] = (ours_train if who == "ragduet" else theirs_train)(precision, what.startswith("LoRA"))
                results[(what, side)].append(got[side]["rate"])
                print(f"round {r + 1}: {what:<32} {side:<34} {got[side]['rate']:.1f}", flush=True)
            if r == 0:
                notes.append(same_work(what, got))

    medians = {k: statistics.median(v) for k, v in results.items()}
    lines = []
    for what in WHATS:
        base, low = medians[(what, SIDES[0])], medians[(what, SIDES[2])]
        lines += [f"| {what} | median | min - max | x its default | x same precision |", "|---|---|---|---|---|"]
        for side in SIDES:
            m, v = medians[(what, side)], results[(what, side)]
            like = base if "fp32" in side else low
            lines.append(f"| {side} | {m:.1f} | {min(v):.1f} - {max(v):.1f} | {m / base:.2f} | {m / like:.2f} |")
        lines.append("")
    cpu = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())[1]
    head = (
        f"# Generators beside transformers\n\n{datetime.date.today()}; {cpu}, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}, Python {platform.python_version()}; a Llama of "
        f"{generators['fp32'].num_parameters() / 1e6:.1f}M random parameters (6 layers, 384 wide, 6 heads, 2 of keys, 1024 "
        f"inner, 32000 tokens); prompts of {PROMPT} tokens, {NEW} new ones, greedy; training with AdamW and clipping, "
        f"{STEPS} steps; transformers' bf16 is a bf16 model for generation and autocast for training; {rounds} rounds in "
        "turns (`scripts/bench_peers generator`).\n\n"
    )
    tail = "Same work: " + "; ".join(notes) + ".\n"
    out = ROOT / "benches/results"
    name = f"peers-generator-{datetime.date.today()}"
    (out / f"{name}.md").write_text(head + "\n".join(lines) + "\n" + tail)
    raw = [{"what": k[0], "who": k[1], "runs": v, "median": medians[k]} for k, v in results.items()]
    (out / f"{name}.json").write_text(json.dumps(raw, indent=1) + "\n")
    print(head + "\n".join(lines) + "\n" + tail)


def same_work(what, got):
    """What tells that both sides did the same."""
    a, b = got[SIDES[0]], got[SIDES[1]]
    if "losses" in a:
        # Adapters start elsewhere at random, but change nothing before the first step.
        n = 1 if what.startswith("LoRA") else None
        off = max(abs(x - y) for x, y in zip(a["losses"][:n], b["losses"]))
        assert off < 1e-3, (a["losses"], b["losses"])
        which = "the first LoRA loss" if n else "training losses"
        return f"{which} in fp32 differ by at most {off:.1e}"
    assert all(len(t) == NEW for t in b["tokens"])
    pairs = list(zip(a["tokens"], b["tokens"]))
    # A random model's likeliest tokens can be as close as rounding; after that texts go apart for good.
    same = sum(x == y for x, y in pairs)
    assert same >= 0.8 * len(pairs), [next((i for i, (s, t) in enumerate(zip(x, y)) if s != t), None) for x, y in pairs]
    return f"{what.rsplit(',', 1)[0]}: {same} of {len(pairs)} texts equal in fp32"


main()
