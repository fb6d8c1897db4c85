"""Goldens for `classification`: scikit-learn 1.9.1 and scipy 1.17.1."""
import json, math, pathlib, random, warnings
import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, confusion_matrix, mean_absolute_error, mean_squared_error, precision_recall_fscore_support

warnings.simplefilter("ignore")
random.seed(5)
classes, numbers = [], []

def add(gold, pred, n):
    for zero in (0.0, 1.0):
        prf = lambda **k: [np.asarray(x, float).tolist() for x in precision_recall_fscore_support(gold, pred, zero_division=zero, **k)[:3]]
        classes.append(dict(gold=gold, predicted=pred, classes=n, zero_division=zero, accuracy=float(accuracy_score(gold, pred)),
                            each=prf(labels=list(range(n))), macro=prf(average="macro"), micro=prf(average="micro"), weighted=prf(average="weighted"),
                            confusion=confusion_matrix(gold, pred, labels=list(range(n))).tolist()))
add([0], [0], 1); add([0], [1], 2); add([0, 0], [1, 1], 3); add([2, 2, 1], [2, 2, 2], 4); add([0, 1, 2], [0, 1, 2], 3)
for _ in range(40):
    n, m = random.randrange(1, 7), random.randrange(1, 30)
    add([random.randrange(n) for _ in range(m)], [random.randrange(n) for _ in range(m)], n)

def num(x):
    return None if math.isnan(x) else float(x)
def reg(a, b):
    two = len(a) > 1
    numbers.append(dict(gold=a, predicted=b, mse=mean_squared_error(a, b), mae=mean_absolute_error(a, b),
                        pearson=num(pearsonr(a, b)[0]) if two else None, spearman=num(spearmanr(a, b)[0]) if two else None))
reg([1.0], [2.0]); reg([1.0, 2.0], [2.0, 1.0]); reg([1.0, 1.0], [2.0, 3.0]); reg([0.0, -0.0, 1.0], [1.0, 2.0, 3.0]); reg([1e-9, 2e-9, 4e-9], [1e9, 2e9, 3e9])
for i in range(40):
    m = random.randrange(2, 40)
    draw = (lambda: random.gauss(3, 2)) if i % 2 else (lambda: float(random.randrange(5)))
    a = [draw() for _ in range(m)]
    reg(a, [x * random.choice([0, 0.5]) + draw() for x in a])
sets = []
for i in range(30):
    n, m = random.randrange(2, 6), random.randrange(1, 25)  # a single column is a binary task to scikit-learn
    draw = lambda: [[int(random.random() < 0.4) for _ in range(n)] for _ in range(m)]
    gold, pred = draw(), draw()
    if i < 3:
        gold = [[0] * n for _ in gold]
    for zero in (0.0, 1.0):
        prf = lambda **k: [np.asarray(x, float).tolist() for x in precision_recall_fscore_support(np.array(gold), np.array(pred), zero_division=zero, **k)[:3]]
        sets.append(dict(gold=gold, predicted=pred, zero_division=zero, accuracy=float(np.mean([g == p for g, p in zip(gold, pred)])),
                         each=prf(), macro=prf(average="macro"), micro=prf(average="micro"), weighted=prf(average="weighted")))
pathlib.Path(__file__).with_name("classification.json").write_text(json.dumps(dict(classes=classes, numbers=numbers, sets=sets), separators=(",", ":")))
