#!/usr/bin/env python3
"""The quickstart with two pretrained models, all-MiniLM-L6-v2 and SmolLM2-135M-Instruct, on the shipped dataset.

    scripts/quickstart          installs, builds and calls this
    .venv/bin/python scripts/quickstart.py [--out runs/start] [--seed 1]

Every step is a `ragduet` command, printed as you would type it. What is done is kept: called again it goes on where it
was stopped.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import sys
import time

from stages import RAGDUET, ROOT, Failed, Stages, models

DATA = ROOT / "datasets/maravel"
# Questions whose answers are printed.
SHOWN = 3


@dataclasses.dataclass
class Budget:
    """How much of each part is done."""

    minutes: int
    judged_steps: int
    label_free_questions: int
    reader_steps: int
    joint_steps: int
    zero_shot: int
    answered: int


def budget():
    """More on a processor with bf16 arithmetic, which is some three times as fast."""
    try:
        flags = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        flags = ""
    if "avx512_bf16" in flags or "amx_bf16" in flags:
        return Budget(8, 32, 224, 50, 16, 40, 200)
    return Budget(17, 16, 128, 20, 6, 20, 100)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "runs/start")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    minilm, smollm2 = models()
    began = time.time()
    out = args.out.resolve()
    stages = Stages(out, show=True)
    seed = f"run.seed={args.seed}"
    passages, does = 3, budget()

    print(f"""Two public models and a domain that neither has seen: {DATA.name}, 2,120 passages about invented islands,
5,922 questions. Retriever: all-MiniLM-L6-v2 (22 million parameters). Generator: SmolLM2-135M-Instruct. All
figures are of the test split. Expect some {does.minutes} minutes on two cores; stopped, it goes on when called again.
The trainings are short, so that all of it can be seen: scripts/showcase trains for longer, with seeds.
""", flush=True)

    print("1. A retriever fine-tuned on judged pairs, with hard negatives from BM25.", flush=True)
    judged = stages.train("judged", "retriever", "retriever/maravel.toml", f"model.base={minilm}",
                             f"run.max_steps={does.judged_steps}", "eval.max_passages=300", seed)

    print("\n2. A retriever without a judged passage: SmolLM2, frozen, says which passages make the answers likely.",
          flush=True)
    taught = stages.train("label-free", "joint", "joint/label-free.toml", f"retriever.model.base={minilm}",
                             f"generator.model.base={smollm2}", f"data.limit={does.label_free_questions}",
                             "eval.limit=100", "eval.answered=1", "eval.at_start=false", "eval.every_steps=0",
                             "retriever.optim.lr=1.5e-4", seed)
    retriever = taught / "retriever"

    print("\n   Retrieval, before and after:\n", flush=True)
    table = stages.json("retrieval", "eval", "retriever", "--index", "bm25,model", "-m", minilm, "-m", judged, "-m",
                        retriever, "--data", DATA, "--split", "test", "--depth", 100, "--measures",
                        "ndcg@10,recall@3,recall@10")
    names = ["BM25", "MiniLM as it is", "MiniLM, judged pairs", "MiniLM, taught without labels"]
    print(f"\n   {'':<32}{'nDCG@10':>10}{'recall@3':>10}{'recall@10':>11}")
    for name, system in zip(names, table, strict=True):
        m = dict(system["mean"])
        print(f"   {name:<32}{m['ndcg@10']:>10.4f}{m['recall@3']:>10.4f}{m['recall@10']:>11.4f}")

    print("\n3. What it finds for each question, as training records; the generator learns to read them (LoRA).",
          flush=True)
    records = stages.files("retrieved", [f"{s}.rag.jsonl" for s in ("train", "dev", "test")], "retrieve", "-m",
                           retriever, "--data", DATA, "--split", "train,dev,test", "-k", 5)
    reader = stages.train("reader", "generator", "generator/smollm2.toml", f"model.base={smollm2}",
                             f"data.train={records[0]}", f"data.dev={records[1]}", f"contexts.count={passages}",
                             f"run.max_steps={does.reader_steps}", "eval.limit=20", seed)

    print("\n4. Both learn from each other, from questions and answers.", flush=True)
    joint = stages.train("joint", "joint", "joint/maravel.toml", f"retriever.model.base={retriever}",
                            f"generator.model.base={reader}", f"generator.contexts.count={passages}",
                            f"run.max_steps={does.joint_steps}", "eval.limit=100", "eval.answered=1",
                            "eval.at_start=false", seed)

    print("\n5. Questions of the test split, answered from what is retrieved.", flush=True)
    [after] = stages.files("jointly.rag.jsonl", ["."], "retrieve", "-m", joint / "retriever", "--data", DATA, "--split",
                           "test", "-k", 5)
    ask = ["--contexts", passages, "--max-new-tokens", 24, "--batch", 32]
    rows = [
        ("SmolLM2 as it is, no passages", smollm2, records[2], does.zero_shot, ["--contexts", 0, *ask[2:]]),
        ("SmolLM2 as it is, with passages", smollm2, records[2], does.zero_shot, ask),
        ("fine-tuned reader, same passages", reader, records[2], does.answered, ask),
        ("both trained jointly", joint / "generator", after, does.answered, ask),
    ]
    shown, lines = [], []
    for i, (name, generator, data, questions, options) in enumerate(rows):
        answers = stages.path(f"answers-{i}.jsonl")
        report = stages.json(f"answers-{i}", "eval", "generator", "-g", generator, "--data", data, "--questions",
                             questions, *options, save=answers)["with passages"]
        support = (report.get("faithfulness") or {}).get("support")
        found = report["answer"].get("answer_in_contexts") if i else None
        figure = lambda value, width: f"{'-' if value is None else f'{value:.4f}':>{width}}"
        lines.append(f"   {name:<36}{questions:>10}{figure(found, 14)}{figure(report['answer']['exact_match'], 13)}"
                     f"{figure(report['answer']['f1'], 9)}{figure(support, 9)}")
        shown.append([json.loads(line) for line in answers.read_text().splitlines()])
    print(f"\n   {'':<36}{'questions':>10}{'answer found':>14}{'exact match':>13}{'F1':>9}{'support':>9}")
    print("\n".join(lines))
    print("   (answer found: in a passage shown; support: share of an answer's words that its passages hold)")

    first = shown[1]
    for at in range(0, len(first), max(len(first) // SHOWN, 1))[:SHOWN]:
        one = first[at]
        print(f"\n   {one['question']}   (right: {', '.join(one['golds'])})")
        for (name, *_), answers in list(zip(rows, shown))[1:]:
            answer = answers[at]
            print(f"     {name:<34} {answer['answer'].strip()[:100]!r}")
        top = shown[-1][at]["passages"][:1]
        for p in top:
            print(f"     first passage{' (judged right)' if p['gold'] else '':<15}  {p['text'][:100]}...")

    report = stages.path("report.html")
    stages.run("report", out, *[stages.path(f"answers-{i}.jsonl") for i in range(len(rows))], "-o", report)
    name = lambda p: os.path.relpath(p, ROOT)
    print(f"""
Report with all curves: {name(report)}. Ask the joint system yourself:
   {name(pathlib.Path(RAGDUET))} ask --run {name(out / 'joint')} "..."
It took {time.time() - began:.0f} s.""")


if __name__ == "__main__":
    try:
        main()
    except Failed as e:
        sys.exit(str(e))
