"""BERTScore of texts by bert-score 0.3.13 over a tiny BERT: `python make_bertscore.py` (needs `pip install --target /tmp/bs
--no-deps bert-score`). Writes bertscore/ (the encoder's folder) and bertscore.json."""
import importlib.util, json, pathlib, sys, types
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModel, AutoTokenizer, BertConfig, PreTrainedTokenizerFast

package = types.ModuleType("bert_score")  # its __init__ wants plotting libraries
package.__path__, package.__version__ = ["/tmp/bs/bert_score"], "0.3.13"
sys.modules["bert_score"] = package
spec = importlib.util.spec_from_file_location("bert_score.utils", "/tmp/bs/bert_score/utils.py")
utils = importlib.util.module_from_spec(spec)
spec.loader.exec_module(utils)

HERE = pathlib.Path(__file__).parent
folder = HERE / "bertscore"
words = "the a hull is of black pine oak grey stone it was built in spring by old men near sea 32 metres tall .".split()
vocab = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
inner = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
inner.normalizer = normalizers.Lowercase()
inner.pre_tokenizer = pre_tokenizers.Whitespace()
inner.post_processor = processors.TemplateProcessing(
    single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
)
PreTrainedTokenizerFast(
    tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
    mask_token="[MASK]", model_max_length=24,
).save_pretrained(folder)
torch.manual_seed(4)
AutoModel.from_config(BertConfig(
    vocab_size=len(vocab), hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24,
    max_position_embeddings=24, initializer_range=0.5,
)).save_pretrained(folder)

predictions = ["black pine", "The hull is of oak.", "", "32 metres", "it was built in spring by old men near the sea " * 4, "stone", "a tall tall oak"]
references = [["black pine"], ["the hull is of black pine", "oak"], ["grey stone"], ["32", "32 metres tall ."],
              ["old men built it near the sea"], [""], ["sea"]]
tokenizer = AutoTokenizer.from_pretrained(folder)
# transformers 5 lacks what bert-score calls on empty texts.
tokenizer.build_inputs_with_special_tokens = lambda ids: [2, *ids, 3]
out = {"predictions": predictions, "references": references, "scores": []}
for layer in (1, 2, 3):
    model = AutoModel.from_pretrained(folder).eval()
    model.encoder.layer = torch.nn.ModuleList(model.encoder.layer[:layer])
    for idf in (False, True):
        flat = [(p, r) for p, rs in zip(predictions, references) for r in rs]
        if idf:
            weights = utils.get_idf_dict([r for rs in references for r in rs], tokenizer, nthreads=0)
        else:
            from collections import defaultdict
            weights = defaultdict(lambda: 1.0)
            weights[tokenizer.sep_token_id] = 0
            weights[tokenizer.cls_token_id] = 0
        scores = utils.bert_cos_score_idf(
            model, [r for _, r in flat], [p for p, _ in flat], tokenizer, weights, verbose=False, device="cpu",
            batch_size=1, all_layers=False,
        )
        best, at = [], 0
        for rs in references:
            best.append(scores[at:at + len(rs)].max(dim=0)[0].tolist())
            at += len(rs)
        out["scores"].append({"layer": layer, "idf": idf, "prf": best})
(HERE / "bertscore.json").write_text(json.dumps(out))
