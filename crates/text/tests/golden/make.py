"""Makes tokenizer.golden.json: what transformers and sentence-transformers say about a set of hard texts.

    python crates/text/tests/golden/make.py <tokenizer directory> <output.json>

The tiny tokenizer beside this script is written by the test `the_tiny_tokenizer_is_what_training_gives`
(RAGDUET_UPDATE=1); its golden is made with

    python crates/text/tests/golden/make.py crates/text/tests/golden/tiny crates/text/tests/golden/tiny.golden.json

Without an output file the golden goes to standard output, which is how the test on a real model gets it.
"""

import json
import sys
import warnings

warnings.simplefilter("error")
from transformers import AutoTokenizer, __version__  # noqa: E402

TEXTS = [
    "",
    " ",
    "The retriever finds passages.",
    "  leading and trailing  \n",
    "Ünïcödé, naïve café, Äußerung, İstanbul, ǅ ǆ, ﬁne",
    "e\u0301 combining, \u1e9b\u0323 and \u212b",
    "東京は日本の首都です。检索增强生成 한국어 텍스트",
    "emoji 🦀🚀 👩‍👩‍👧‍👦 🇩🇪 ☃️",
    "control\u0000chars\u0007 and \u200bzero\u200dwidth\ufeff \ufffd",
    "tabs\tand\r\nnewlines\u2028\u2029\u0085 and\u00a0spaces\u3000",
    "[CLS] special [SEP] tokens [MASK] inside [PAD] text [UNK]",
    "[cls]not[SEP]quite [ MASK ]",
    "don't stop: e.g. U.S.A., 3.14% of $1,000 -- (really?)",
    "x" * 150,
    "ßẞſ ς Σ ΑΣ",
    "مرحبا بالعالم שלום עולם नमस्ते दुनिया สวัสดี",
    "a" * 99 + " " + "b" * 100 + " " + "c" * 101,
    "http://example.org/?q=a+b&c=%20#frag <html>&amp;</html>",
    "passages " * 700,
    "\u001c\u001d between separators \u001e\u001f",
    "𝔉𝔯𝔞𝔨𝔱𝔲𝔯 ａｂｃ １２３ ①②③ ½",
]
PROMPTS = ["query: ", "passage: ", "Represent this sentence for searching relevant passages: ", "[unclosed", "x"]
LIMITS = [3, 8, 64, 512]


def main():
    directory = sys.argv[1]
    tokenizer = AutoTokenizer.from_pretrained(directory)
    special = {k: getattr(tokenizer, f"{k}_token_id") for k in ["pad", "unk", "cls", "sep", "mask"]}
    golden = {
        "transformers": __version__,
        "special": special,
        "all_special": sorted(set(tokenizer.all_special_ids)),
        "vocab_size": len(tokenizer),
        "texts": TEXTS,
        "prompts": PROMPTS,
        "singles": [],
        "pairs": [],
        "stripped_prompted": [],
        "prefix_lens": [],
        "decoded": [],
    }
    for limit in LIMITS:
        out = tokenizer(TEXTS, truncation=True, max_length=limit)
        golden["singles"].append(
            {"max_len": limit, "ids": out["input_ids"], "type_ids": out["token_type_ids"]}
        )
    bare = tokenizer(TEXTS, add_special_tokens=False, truncation=True, max_length=8)
    golden["bare"] = bare["input_ids"]
    for limit in [5, 16, 65]:
        firsts, seconds = TEXTS, TEXTS[3:] + TEXTS[:3]
        out = tokenizer(firsts, seconds, truncation="longest_first", max_length=limit)
        golden["pairs"].append(
            {"max_len": limit, "ids": out["input_ids"], "type_ids": out["token_type_ids"]}
        )
    # sentence_transformers.models.Transformer.tokenize: prompt in front, strip, longest_first.
    for prompt in PROMPTS:
        texts = [(prompt + text).strip() for text in TEXTS]
        golden["stripped_prompted"].append(
            tokenizer(texts, truncation="longest_first", max_length=32)["input_ids"]
        )
        # SentenceTransformer._get_prompt_length
        ids = tokenizer([prompt.strip()], truncation="longest_first", max_length=256)["input_ids"][0]
        length = len(ids) - (1 if ids[-1] in tokenizer.all_special_ids else 0)
        golden["prefix_lens"].append(length)
    for ids in golden["singles"][2]["ids"]:
        # The decoder of tokenizer.json; the clean-up of transformers on top of it is not ours.
        text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        golden["decoded"].append(text)
    text = json.dumps(golden, ensure_ascii=True, separators=(",", ":"))
    if len(sys.argv) > 2:
        with open(sys.argv[2], "w", encoding="utf-8") as file:
            file.write(text + "\n")
    else:
        print(text)


main()
