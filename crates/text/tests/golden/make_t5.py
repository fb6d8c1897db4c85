"""t5/tokenizer.json, a tiny tokenizer of T5's kind (unigram pieces, an end-of-sequence token behind every text), and
t5/golden.json: what transformers gives for sources and targets.

    python crates/text/tests/golden/make_t5.py        (transformers 5.3.0)
"""

import json
import pathlib

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

HERE = pathlib.Path(__file__).parent / "t5"
LINES = [
    "What colour is the door? The door is red, the gate is green.",
    "Question: which river runs through Rome? Context: the Tiber runs through Rome.",
    "Answer the question from the passages. If they do not say, answer: unknown.",
] * 4
SOURCES = ["", "What colour is the door?", "  Context:\n\nthe Tiber  runs ", "naïve 東京 🦀", "the door </s> is", "x" * 900]
TARGETS = ["red", "the Tiber", "unknown.", "naïve 東京", "a  b"]

HERE.mkdir(exist_ok=True)
t = Tokenizer(models.Unigram())
t.normalizer = normalizers.Sequence([normalizers.Strip(left=False), normalizers.Replace("  ", " ")])
t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
t.decoder = decoders.Metaspace(prepend_scheme="always")
t.train_from_iterator(
    LINES,
    trainers.UnigramTrainer(vocab_size=150, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>"),
)
t.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
PreTrainedTokenizerFast(
    tokenizer_object=t, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", model_max_length=512
).save_pretrained(HERE)
again = AutoTokenizer.from_pretrained(HERE)
golden = {
    "sources": [[s, again(s).input_ids] for s in SOURCES],
    "targets": [[s, again(text_target=s).input_ids] for s in TARGETS],
}
(HERE / "golden.json").write_text(json.dumps(golden) + "\n")
print({k: [len(ids) for _, ids in v] for k, v in golden.items()})
