"""Goldens for `answer`: transformers' copy of SQuAD's evaluation script. Run with the repository's .venv."""
import json, pathlib, random
from transformers.data.metrics.squad_metrics import compute_exact, compute_f1, normalize_answer

random.seed(7)
PIECES = ["the", "The", "a", "an", "An", "cat", "Cat", "dogs", "U.S.", "A-", "theory", "42", "3.5", "-", "—", "a–b", "É",
          "é", "naïve", "İ", "ΣΑΣ", "x\u001cy", "\u3000", "  ", "\n", "a\u0301", "_", "the_end", "$5", "中文", "。", "ß", "'s", "the\u0345", "a\u093e", "an\u24d0", "a\u2160", "the\u00b2", "\u05b0a", ""]

def text(n):
    return random.choice(["", " ", ""]).join(random.choice(PIECES) + random.choice([" ", " ", "", "-"]) for _ in range(n))

rows = []
def add(prediction, references):
    golds = [g for g in references if normalize_answer(g)] or [""]
    rows.append(dict(prediction=prediction, references=references, normalised=normalize_answer(prediction),
                     exact=max(compute_exact(g, prediction) for g in golds),
                     f1=max(compute_f1(g, prediction) for g in golds)))
for p, r in [("", []), ("", [""]), ("the", ["a"]), ("x", []), ("x", ["the"]), ("", ["x"]), ("...", ["!"]), ("the cat", ["Cat.", "dog"]),
             ("a b b", ["b a b c", "b"]), ("", ["x", "an"])]:
    add(p, r)
for _ in range(400):
    add(text(random.randrange(7)), [text(random.randrange(7)) for _ in range(random.randrange(4))])
pathlib.Path(__file__).with_name("squad.json").write_text(json.dumps(rows, ensure_ascii=False, separators=(",", ":")))
