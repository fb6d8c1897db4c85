"""losses.json: sentence-transformers' losses over lists on given logits; cross/: a tiny CrossEncoder with its scores.

Run with sentence-transformers 5.3: python make_cross.py.
"""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import losses
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

HERE = Path(__file__).parent


class Fake(torch.nn.Module):
    """A model that gives the logits it was made with, in order."""

    num_labels = 1
    device = torch.device("cpu")

    def __init__(self, logits):
        super().__init__()
        self.logits, self.at = logits, 0

    def tokenizer(self, pairs, **_):
        self.now = len(pairs)
        return Tokens()

    def forward(self, **_):
        out = self.logits[self.at:self.at + self.now]
        self.at += self.now
        return (out.unsqueeze(1),)


class Tokens(dict):
    def to(self, device):
        return self


def of(make, lists, labels):
    logits = torch.tensor([x for row in lists for x in row], requires_grad=True)
    loss = make(Fake(logits))
    docs = [["d"] * len(row) for row in lists]
    value = loss([["q"] * len(lists), docs], [torch.tensor(row) for row in labels])
    value.backward()
    return {"loss": value.item(), "grad": logits.grad.tolist()}


torch.manual_seed(3)
draw = lambda lengths: [(torch.randn(n) * 2).tolist() for n in lengths]
even, ragged = [4, 4, 4], [5, 2, 3]
out = []
for lengths in (even, ragged):
    lists = draw(lengths)
    binary = [[1.0] + [0.0] * (n - 1) for n in lengths]
    graded = [sorted(torch.randint(0, 4, (n,)).float().tolist(), reverse=True) for n in lengths]
    for labels in (binary, graded):
        L = losses.LambdaLoss
        schemes = {
            "ndcg_loss1": losses.NDCGLoss1Scheme(), "ndcg_loss2": losses.NDCGLoss2Scheme(),
            "lambda_rank": losses.LambdaRankScheme(), "ndcg_loss2_plus": losses.NDCGLoss2PPScheme(),
        }
        cases = [({"lambda": {"scheme": s}}, lambda m, w=w: L(m, weighting_scheme=w)) for s, w in schemes.items()]
        cases += [
            ({"lambda": {"k": 2, "sigma": 0.5}}, lambda m: L(m, k=2, sigma=0.5)),
            ({"rank_net": {}}, lambda m: losses.RankNetLoss(m)),
            ({"rank_net": {"k": 3}}, lambda m: losses.RankNetLoss(m, k=3)),
            ({"list_net": {}}, lambda m: losses.ListNetLoss(m)),
        ]
        if lengths is even:  # Lists that are not filled count there.
            cases += [
                ({"list_mle": {}}, lambda m: losses.ListMLELoss(m, respect_input_order=False)),
                ({"list_mle": {"position_weights": True}}, lambda m: losses.PListMLELoss(m, respect_input_order=False)),
            ]
        for config, make in cases:
            out.append({"config": config, "scores": lists, "labels": labels, **of(make, lists, labels)})
        if labels is binary:
            logits = torch.tensor([x for row in lists for x in row], dtype=torch.float64, requires_grad=True)
            flat = torch.tensor([x for row in labels for x in row], dtype=torch.float64)
            value = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0))(logits, flat)
            value.backward()
            out.append({"config": {"bce": {"pos_weight": 3.0}}, "scores": lists, "labels": labels,
                        "loss": value.item(), "grad": logits.grad.tolist()})
(HERE / "losses.json").write_text(json.dumps(out) + "\n")

words = "[PAD] [UNK] [CLS] [SEP] [MASK] what colour has the house river stone is red green blue of village ? .".split()
tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
tokenizer.normalizer = normalizers.BertNormalizer()
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
tokenizer.post_processor = processors.TemplateProcessing(
    single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
)
fast = PreTrainedTokenizerFast(
    tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
    mask_token="[MASK]", model_max_length=64,
)
torch.manual_seed(5)
config = BertConfig(
    vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
    max_position_embeddings=64, num_labels=1, initializer_range=0.4,
)
folder = HERE / "cross"
shutil.rmtree(folder, ignore_errors=True)
BertForSequenceClassification(config).save_pretrained(folder)
fast.save_pretrained(folder)
model = CrossEncoder(str(folder))
pairs = [
    ["what colour has the house ?", "the house of the village is red ."],
    ["what colour has the river ?", "the stone is blue"],
    ["river", "the river is green . the stone is red . the house of the village is green ."],
]
CrossEncoder(str(folder)).save_pretrained(str(folder))
(folder / "README.md").unlink(missing_ok=True)
wanted = {"pairs": pairs, "sigmoid": model.predict(pairs).tolist(),
          "identity": model.predict(pairs, activation_fn=torch.nn.Identity()).tolist()}
(folder / "scores.json").write_text(json.dumps(wanted) + "\n")
print(wanted)
