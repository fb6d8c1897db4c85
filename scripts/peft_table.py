#!/usr/bin/env python3
"""Every PEFT method on a retriever and on a generator beside full fine-tuning, on the shipped dataset.

    scripts/peft_table.py [retriever|generator] [--out FILE.md] [--work DIR]

The fourteen kinds of things in Maravel are split in two: a base is trained from random weights on one half, and each
method adapts it to the other half, at three learning rates; the best on dev is measured on test. Needs
target/release/ragduet and nothing of Python but its standard library. About 30 minutes a side on two cores; what is
done is kept in the work folder, so a call that was stopped goes on. Speeds are measured apart, in turns, at the end:
leave the machine alone then.
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

ROUNDS, SPEED_STEPS = 3, 30
ROOT = pathlib.Path(__file__).resolve().parents[1]
RAGDUET = os.environ.get("RAGDUET", ROOT / "target/release/ragduet")
DATA = ROOT / "datasets/maravel"

LORA = '[peft.lora]\nrank = 8\nalpha = 16.0\n'
METHODS = {
    # name: (config, learning rates of the retriever, of the generator)
    "full fine-tuning": ("", [3e-4, 1e-3, 2e-3], [5e-4, 1e-3, 2e-3]),
    "LoRA": (LORA, [3e-3, 1e-2, 3e-2], [3e-3, 1e-2, 3e-2]),
    "LoRA, rank-stabilised": (LORA + "rank_stabilized = true\n", [3e-3, 1e-2, 3e-2], [3e-3, 1e-2, 3e-2]),
    "LoRA+": (LORA + "b_lr_ratio = 8.0\n", [1e-3, 3e-3, 1e-2], [1e-3, 3e-3, 1e-2]),
    "DoRA": (LORA + "dora = true\n", [3e-3, 1e-2, 3e-2], [3e-3, 1e-2, 3e-2]),
    "(IA)^3": ("[peft.ia3]\n", [1e-2, 3e-2, 1e-1], [1e-2, 3e-2, 1e-1]),
    # Few: every soft token moves a text's learned positions, which a base this small is not used to.
    "prompt": ("[peft.prompt]\ntokens = 4\n", [1e-3, 1e-2, 1e-1], [1e-3, 1e-2, 1e-1]),
    "prefix": ("[peft.prefix]\ntokens = 4\n", [1e-3, 1e-2, 1e-1], [1e-3, 1e-2, 1e-1]),
    "prefix, projected": (
        "[peft.prefix]\ntokens = 4\nprojection = 128\n", [1e-4, 1e-3, 1e-2], [1e-4, 1e-3, 1e-2]
    ),
    "bottleneck, Houlsby": (
        '[peft.bottleneck]\nkind = "houlsby"\nreduction = 8.0\n', [3e-3, 1e-2, 3e-2], [3e-3, 1e-2, 3e-2]
    ),
    "bottleneck, Pfeiffer": (
        '[peft.bottleneck]\nkind = "pfeiffer"\nreduction = 8.0\n', [3e-3, 1e-2, 3e-2], [3e-3, 1e-2, 3e-2]
    ),
    "bottleneck, parallel": (
        '[peft.bottleneck]\nkind = "parallel"\nreduction = 8.0\nscaling = 4.0\n',
        [3e-3, 1e-2, 3e-2], [3e-3, 1e-2, 3e-2],
    ),
}

RETRIEVER = """
seed = 1
{peft}
[model]
{model}
max_query_tokens = 48
max_passage_tokens = 128
{scratch}
[data]
train = "{data}"
split = "train"
dev = "{data}"
dev_split = "dev"
[loss.info_nce]
[batch]
size = {{ examples = 64 }}
[train]
epochs = {epochs}
[optim]
lr = {lr}
weight_decay = {decay}
warmup = {{ ratio = 0.1 }}
[eval]
measures = ["ndcg@10", "recall@10"]
at_start = false
"""
RETRIEVER_SCRATCH = """
[model.scratch]
vocab_size = 4000
hidden_size = 128
layers = 2
heads = 4
intermediate_size = 512
max_positions = 160
dropout = 0.0
"""
GENERATOR = """
seed = 1
{peft}
[model]
{model}
{scratch}
[data]
train = "{data}/train.rag.jsonl"
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
[train]
epochs = 100
max_steps = {steps}
[optim]
lr = {lr}
beta2 = 0.98
weight_decay = {decay}
warmup = {{ ratio = 0.05 }}
[eval]
questions = 300
batch = 64
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
    """Two halves: as BEIR folders, and as records whose context is the gold passage."""
    corpus = {r["_id"]: r for r in rows(DATA / "corpus.jsonl")}
    queries = {r["_id"]: r for r in rows(DATA / "queries.jsonl")}
    kind = {i: q["metadata"]["fact"].split(":")[0] for i, q in queries.items()}
    kinds = sorted(set(kind.values()))
    halves = {"a": set(kinds[::2]), "b": set(kinds[1::2])}
    for half, mine in halves.items():
        folder = work / half
        (folder / "qrels").mkdir(parents=True, exist_ok=True)
        for name in ("corpus.jsonl", "queries.jsonl"):
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(DATA / name)
        for split in ("train", "dev", "test"):
            lines = (DATA / f"qrels/{split}.tsv").read_text().splitlines()
            kept = [l for l in lines[1:] if kind[l.split("\t")[0]] in mine]
            (folder / f"qrels/{split}.tsv").write_text("\n".join([lines[0], *kept]) + "\n")
            with open(folder / f"{split}.rag.jsonl", "w") as out:
                for a in rows(DATA / "answers.jsonl"):
                    if a["split"] != split or kind[a["_id"]] not in mine:
                        continue
                    p = corpus[a["passage"]]
                    passage = {"id": p["_id"], "title": p["title"], "text": p["text"]}
                    out.write(json.dumps({
                        "id": a["_id"], "question": a["question"], "answers": a["answers"], "contexts": [passage],
                        "gold": [passage],
                    }) + "\n")
    return {h: ", ".join(sorted(k)) for h, k in halves.items()}


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
    def __init__(self, name, work):
        self.name, self.work, self.retriever = name, work, name == "retriever"

    def config(self, peft, lr, base):
        model = f'base = "{base}"' if base else ""
        # From random weights: longer, at the rates of the quickstart.
        if self.retriever:
            text = RETRIEVER.format(
                peft=peft, model=model, scratch="" if base else RETRIEVER_SCRATCH, data=self.work / ("b" if base else "a"),
                epochs=3.0 if base else 8.0, lr=lr, decay=0.0 if peft else 0.01,
            )
        else:
            text = GENERATOR.format(
                peft=peft, model=model, scratch="" if base else GENERATOR_SCRATCH, data=self.work / ("b" if base else "a"),
                steps=400 if base else 2000, lr=lr, decay=0.0 if peft else 0.01,
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
                        "--set", f"train.max_steps={SPEED_STEPS}", "--set", "save.every_steps=0",
                        *([] if self.retriever else ["--set", "eval.questions=1"]),
                    )
                seen[name].append(done["pairs_per_second" if self.retriever else "tokens_per_second"])
        return {name: statistics.median(values) for name, values in seen.items()}

    def test(self, model):
        if self.retriever:
            found, _, _ = run("eval", "retriever", "-m", model, "--data", self.work / "b", "--split", "test",
                              "--measures", "ndcg@10,recall@10", "--json")
            return found["mean"]["ndcg@10"], found["mean"]["recall@10"]
        found, _, _ = run("eval", "generator", "-g", model, "--data", self.work / "b/test.rag.jsonl", "--batch", 64, "--json")
        answer = found["with passages"]["answer"]
        return answer["f1"], answer["exact_match"]

    def table(self):
        base = self.train("base", "", 1e-3 if self.retriever else 3e-3, None)
        frozen = self.test(base["out"])
        print(f"{'frozen base':<24} test {frozen[0]:.4f} {frozen[1]:.4f}", flush=True)
        lines = [("frozen base", None, frozen)]
        for name, (peft, of_retriever, of_generator) in METHODS.items():
            rates = of_retriever if self.retriever else of_generator
            best = max((self.train(name, peft, lr, base["out"]) for lr in rates), key=lambda r: r["dev"])
            lines.append((name, best, self.test(best["out"])))
            print(f"{name:<24} test {lines[-1][2][0]:.4f} {lines[-1][2][1]:.4f}", flush=True)
        speeds = self.speeds(lines, base["out"])
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
    parser.add_argument("side", nargs="*", choices=["retriever", "generator"], default=["retriever", "generator"])
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "runs/peft-table")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    halves = prepare(args.work)
    text = "# PEFT methods beside full fine-tuning, on the shipped dataset\n\n"
    text += f"`scripts/peft_table.py`, two CPU cores, seed 1. The bases know {halves['a']}; adapted to {halves['b']}.\n"
    text += "Each method at three learning rates, chosen on dev. The generator is shown the gold passage.\n"
    for side in args.side:
        text += f"\n## {side.capitalize()}\n\n{Side(side, args.work).table()}\n"
    print(text)
    if args.out:
        args.out.write_text(text)


main()
