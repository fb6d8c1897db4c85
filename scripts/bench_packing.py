"""Packed against padded fine-tuning of a small Llama on COVID-QA's lengths: answer tokens per second. Called by
scripts/bench_peers packing.

Prompts are the question and k passages (its gold one and others of its article; k = 1, 3, or drawn from 0 to 4 as in
training with dropped and mixed contexts), then the answer; token ids are those of all-MiniLM-L6-v2's tokenizer. Eight
examples a step. transformers pads them to the longest, as its collators do; Ragduet lays them one after another, and
`padded` is Ragduet made to compute the padding too.
"""

import datetime
import json
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

ROOT = pathlib.Path(__file__).resolve().parents[1]
BINARY = ROOT / "target/release/generator_speed"
STEPS, SIZE, LIMIT = 6, 8, 1024
SIDES = ["transformers padded", "ragduet padded", "ragduet packed"]


def rows(path):
    return [json.loads(line) for line in open(path)]


def main():
    rounds, data, minilm = int(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
    tok = AutoTokenizer.from_pretrained(minilm)
    ids = lambda text: tok(text, add_special_tokens=False, verbose=False)["input_ids"]
    corpus = {r["_id"]: ids(r["text"]) for r in rows(data / "corpus.jsonl")}
    names = list(corpus)
    golds = {}
    for split in ("train", "dev", "test"):
        for line in (data / f"qrels/{split}.tsv").read_text().splitlines()[1:]:
            q, p, _ = line.split("\t")
            golds.setdefault(q, p)
    questions = [a for a in rows(data / "answers.jsonl") if a["_id"] in golds]
    rng = random.Random(1)
    tmp = pathlib.Path(tempfile.mkdtemp())
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=32000, hidden_size=384, num_hidden_layers=6, num_attention_heads=6, num_key_value_heads=2,
        intermediate_size=1024, max_position_embeddings=2048, initializer_range=0.05, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(tmp / "model")

    def steps(k):
        out = []
        for _ in range(STEPS):
            step = []
            for a in rng.sample(questions, SIZE):
                at = names.index(golds[a["_id"]])
                n = rng.randrange(5) if k is None else k
                passages = [corpus[names[(at + i) % len(names)]] for i in range(n)]
                prompt = sum(passages, []) + ids(a["question"])
                answer = ids(a["answers"][0])[:200]
                prompt = prompt[-(LIMIT - len(answer)):]
                step.append({"ids": prompt + answer, "from": len(prompt)})
            out.append(step)
        return out

    def theirs(plan, precision):
        model = LlamaForCausalLM.from_pretrained(tmp / "model", dtype=torch.float32).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
        losses, learned, started = [], 0, 0.0
        for i, step in enumerate(plan):
            longest = max(len(e["ids"]) for e in step)
            pad = lambda row, with_: torch.tensor(row + [with_] * (longest - len(row)))
            inputs = torch.stack([pad(e["ids"], 0) for e in step])
            mask = torch.stack([pad([1] * len(e["ids"]), 0) for e in step])
            labels = torch.stack([pad([-100] * e["from"] + e["ids"][e["from"]:], -100) for e in step])
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
                loss = model(input_ids=inputs, attention_mask=mask, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
            if i == 0:
                started = time.perf_counter()
            else:
                learned += sum(len(e["ids"]) - e["from"] for e in step)
        return {"rate": learned / (time.perf_counter() - started), "losses": losses}

    def ours(path, precision, how):
        done = subprocess.run(
            [BINARY, "sft", tmp / "model", precision, path, how], capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)

    lines = [
        "# Packed against padded fine-tuning", "",
        f"{datetime.date.today()}; `scripts/bench_peers packing {rounds}`; a Llama of 34M random parameters, {SIZE} examples a "
        f"step, {STEPS - 1} steps, medians of {rounds} rounds in turns, {torch.get_num_threads()} threads. Answer tokens per "
        "second.", "",
        "| passages | padding | precision | " + " | ".join(SIDES) + " | packed / ragduet padded | packed / transformers |",
        "|---|---|---|---|---|---|---|---|",
    ]
    apart = 0.0
    for name, k in (("1", 1), ("3", 3), ("0 to 4", None)):
        plan = steps(k)
        path = tmp / f"{k}.json"
        path.write_text(json.dumps(plan))
        real = sum(len(e["ids"]) for s in plan for e in s)
        whole = sum(SIZE * max(len(e["ids"]) for e in s) for s in plan)
        for precision in ("fp32", "bf16"):
            rates = {s: [] for s in SIDES}
            for r in range(rounds):
                got = {
                    SIDES[0]: theirs(plan, precision), SIDES[1]: ours(path, precision, "padded"),
                    SIDES[2]: ours(path, precision, "packed"),
                }
                for s in SIDES:
                    rates[s].append(got[s]["rate"])
                if precision == "fp32":
                    # Later ones drift apart with the weights, as two runs of the same trainer do.
                    first = [got[s]["losses"][0] for s in SIDES]
                    apart = max([apart] + [abs(a - first[2]) / first[2] for a in first])
                print(name, precision, {s: round(v[-1], 1) for s, v in rates.items()}, flush=True)
            m = {s: statistics.median(v) for s, v in rates.items()}
            lines.append(
                f"| {name} | {100 * (1 - real / whole):.0f} % | {precision} | " + " | ".join(f"{m[s]:.1f}" for s in SIDES)
                + f" | {m[SIDES[2]] / m[SIDES[1]]:.2f} | {m[SIDES[2]] / m[SIDES[0]]:.2f} |"
            )
    lines += ["", f"The first step's losses in fp32 differ by at most {apart:.1e} of their value."]
    text = "\n".join(lines) + "\n"
    print(text)
    (ROOT / f"benches/results/packing-{datetime.date.today()}.md").write_text(text)


main()
