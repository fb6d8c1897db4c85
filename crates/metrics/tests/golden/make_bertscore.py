"""Goldens for `bertscore`: `greedy_cos_idf` and `get_idf_dict` of bert-score 0.3.13 on random vectors in f64.
Needs torch and transformers (the repository's .venv) and bert-score's sources: pip install --target /tmp/bs --no-deps bert-score."""
import importlib.util, json, pathlib, random, sys, types
import torch

package = types.ModuleType("bert_score")  # its __init__ wants plotting libraries
package.__path__, package.__version__ = ["/tmp/bs/bert_score"], "0.3.13"
sys.modules["bert_score"] = package
spec = importlib.util.spec_from_file_location("bert_score.utils", "/tmp/bs/bert_score/utils.py")
utils = importlib.util.module_from_spec(spec)
spec.loader.exec_module(utils)

random.seed(9)
torch.manual_seed(9)
DIM, CLS, SEP = 4, 0, 1
table = torch.randn(30, DIM)

def ids(n):
    return [CLS] + [random.randrange(2, 30) for _ in range(n)] + [SEP]

def vectors(tokens):
    return (table[tokens] + 0.5 * torch.randn(len(tokens), DIM) + 0.5).float()

cases = []
lengths = [([0], [3]), ([3], [0]), ([0], [0]), ([1], [1])] + [([random.randrange(8)], [random.randrange(8) for _ in range(random.randrange(1, 4))]) for _ in range(40)]
references = [[ids(n) for n in refs] for _, refs in lengths]
idf = utils.get_idf_dict([r for refs in references for r in refs], None, nthreads=0)  # texts are ids already
for i, (([n], _), refs) in enumerate(zip(lengths, references)):
    p = ids(n)
    pv, rvs = vectors(p), [vectors(r) for r in refs]
    weigh = {"plain": lambda t: [float(x not in (CLS, SEP)) for x in t], "idf": lambda t: [idf[x] for x in t]}
    want = {}
    for kind, w in weigh.items():
        all_ = []
        for r, rv in zip(refs, rvs):
            mask = lambda t: torch.ones(1, len(t), dtype=torch.long)
            row = lambda t: torch.tensor([w(t)], dtype=torch.float64)
            # f64 throughout: the mask, made f32 inside, is exact
            torch.Tensor.float = torch.Tensor.double
            out = utils.greedy_cos_idf(rv.double()[None].clone(), mask(r), row(r), pv.double()[None].clone(), mask(p), row(p))
            all_.append([x.item() for x in out])
        want[kind] = [max(x) for x in zip(*all_)]
    cases.append(dict(prediction=p, vectors=pv.flatten().tolist(), references=[dict(ids=r, vectors=rv.flatten().tolist()) for r, rv in zip(refs, rvs)], **want))
pathlib.Path(__file__).with_name("bertscore.json").write_text(json.dumps(dict(dim=DIM, special=[CLS, SEP], cases=cases), separators=(",", ":")))
