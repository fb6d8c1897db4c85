"""Embedders that are decoders, with random weights: folders as Qwen3-Embedding, EmbeddingGemma and E5-Mistral have them
(module lists, settings and prompts), and what sentence-transformers makes of them.

    .venv-newest/bin/python crates/retriever/tests/golden/make_embedders.py    (sentence-transformers 6.2, transformers 5.24)

Per folder golden.safetensors: vectors of both sides, each text alone, the loss of one step of MultipleNegativesRankingLoss
and its gradients. The script checks that batches give the same vectors, whatever the side of the padding.
"""

import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

HERE = pathlib.Path(__file__).parent / "embedders"
QUERIES = ["where is the mill", "who keeps the ferry?", "x"]
PASSAGES = [
    "By the ford, they say, and it has stood there for longer than anybody has kept count of.", "Two sisters keep it.",
    "The tide of the north stands six miles behind the road, it is said, and nobody knows why or since when it does.",
]
SCALE = 20.0


def tokenizer(folder, begin, end, pad):
    """A byte-level BPE whose post-processor puts `begin` and `end` around a text."""
    special = list(dict.fromkeys(t for t in (pad, begin, end, "<|im_end|>") if t))
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {t: i for i, t in enumerate([*special, *letters])}
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("e", "r"), ("i", "s")]
    for merge in merges:
        words["".join(merge)] = len(words)
    backend = Tokenizer(models.BPE(vocab=words, merges=merges))
    backend.add_special_tokens(special)
    backend.decoder = decoders.ByteLevel()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    around = " ".join(t for t in (begin and f"{begin}:0", "$A:0", end and f"{end}:0") if t)
    pair = around + " " + " ".join(t for t in ("$B:1", end and f"{end}:1") if t)
    template = processors.TemplateProcessing(
        single=around, pair=pair, special_tokens=[(t, words[t]) for t in (begin, end) if t]
    )
    backend.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "padding_side": "left", "model_max_length": 128, "pad_token": pad,
        "eos_token": end or "<|im_end|>", "model_input_names": ["input_ids", "attention_mask"],
    } | ({"bos_token": begin} if begin else {})
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return len(words)


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def transformer(folder, config, classes=None):
    """The bare model, its matrices larger than a fresh one's."""
    from transformers import AutoModel

    model = AutoModel.from_config(config).float()
    with torch.no_grad():
        for name, p in model.named_parameters():
            one = "norm" in name and not config.model_type.startswith("gemma")
            p.copy_(torch.randn_like(p) * 0.2 + (1.0 if one else 0.0))
    model.save_pretrained(folder)
    if classes:
        path = folder / "config.json"
        write(path, json.loads(path.read_text()) | {"architectures": classes})


def pooling(folder, size, mode, include_prompt=True):
    modes = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]
    config = {"word_embedding_dimension": size} | {f"pooling_mode_{m}": m == mode for m in modes}
    write(folder / "1_Pooling/config.json", config | {"include_prompt": include_prompt})


def modules(folder, *names):
    rows = [("", "Transformer"), *((f"{i}_{name}", name) for i, name in enumerate(names, 1))]
    write(folder / "modules.json", [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (path, name) in enumerate(rows)
    ])


SIZES = dict(
    hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
    max_position_embeddings=128,
)


def qwen3(folder, **more):
    from transformers import Qwen3Config

    vocab = tokenizer(folder, None, "<|endoftext|>", "<|endoftext|>")
    transformer(
        folder, Qwen3Config(vocab_size=vocab, **SIZES, bos_token_id=0, eos_token_id=0, **more), ["Qwen3ForCausalLM"]
    )
    pooling(folder, 16, "lasttoken")
    modules(folder, "Pooling", "Normalize")
    instruct = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
    write(folder / "config_sentence_transformers.json", {
        "prompts": {"query": instruct, "document": ""}, "default_prompt_name": None, "similarity_fn_name": "cosine",
    })


def gemma(folder, **more):
    from transformers import Gemma3TextConfig

    vocab = tokenizer(folder, "<bos>", "<eos>", "<pad>")
    transformer(folder, Gemma3TextConfig(
        vocab_size=vocab, **SIZES, query_pre_attn_scalar=8, sliding_window=12, sliding_window_pattern=3,
        use_bidirectional_attention=True, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    ))
    # As EmbeddingGemma's folder has it; transformers 5.3 would write its half.
    path = folder / "config.json"
    write(path, json.loads(path.read_text()) | {"sliding_window": 12})
    pooling(folder, 16, "mean_tokens")
    for name, (inputs, outputs) in {"2_Dense": (16, 40), "3_Dense": (40, 16)}.items():
        write(folder / name / "config.json", {
            "in_features": inputs, "out_features": outputs, "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
        })
        save_file({"linear.weight": torch.randn(outputs, inputs) * 0.3}, folder / name / "model.safetensors")
    modules(folder, "Pooling", "Dense", "Dense", "Normalize")
    write(folder / "sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": False})
    write(folder / "config_sentence_transformers.json", {
        "model_type": "SentenceTransformer",
        "prompts": {
            "query": "task: search result | query: ", "document": "title: none | text: ",
            "Clustering": "task: clustering | query: ",
        },
        "default_prompt_name": None, "similarity_fn_name": "cosine",
    } | more)


def e5_mistral(folder):
    from transformers import MistralConfig

    vocab = tokenizer(folder, "<s>", "</s>", "</s>")
    transformer(folder, MistralConfig(vocab_size=vocab, **SIZES, sliding_window=9, bos_token_id=1, eos_token_id=0))
    pooling(folder, 16, "lasttoken")
    modules(folder, "Pooling", "Normalize")
    write(folder / "sentence_bert_config.json", {"max_seq_length": 48, "do_lower_case": False})
    write(folder / "config_sentence_transformers.json", {
        "prompts": {"web_search_query": "Instruct: retrieve passages\nQuery: "}, "default_prompt_name": None,
    })


def both_sides(folder):
    """What Llama-Embed-Nemotron is, by a key of transformers."""
    from transformers import LlamaConfig

    vocab = tokenizer(folder, "<|begin|>", None, "<|end|>")
    sizes = SIZES | dict(num_hidden_layers=2)
    transformer(folder, LlamaConfig(vocab_size=vocab, **sizes, is_causal=False, bos_token_id=1, eos_token_id=0))
    pooling(folder, 16, "mean_tokens", include_prompt=False)
    modules(folder, "Pooling", "Normalize")
    write(folder / "config_sentence_transformers.json", {
        "prompts": {"query": "Instruct: find\nQuery:", "document": ""}, "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    })


FOLDERS = {"qwen3": qwen3, "gemma": gemma, "e5_mistral": e5_mistral, "both_sides": both_sides}


def step(model):
    """Loss and gradients of one step of MultipleNegativesRankingLoss over the pairs."""
    prompts = {"query": model.prompts.get("query", ""), "passage": model.prompts.get("document", "")}
    vectors = {}
    for side, texts in (("query", QUERIES), ("passage", PASSAGES)):
        features = model.preprocess([prompts[side] + t for t in texts])
        if prompts[side] and not model[1].include_prompt:
            # As `encode` counts a prompt: without the end token that follows it.
            alone = model.preprocess([prompts[side]])["input_ids"][0].tolist()
            features["prompt_length"] = len(alone) - (alone[-1] in model.tokenizer.all_special_ids)
        vectors[side] = model(features)["sentence_embedding"]
    scores = vectors["query"] @ vectors["passage"].T * SCALE
    loss = torch.nn.functional.cross_entropy(scores, torch.arange(len(QUERIES)))
    model.zero_grad()
    loss.backward()
    gradients = {}
    for i, module in enumerate(model):
        body = module.model if i == 0 else module
        for name, p in body.named_parameters():
            gradients[name if i == 0 else f"{i}.{name}"] = p.grad
    return loss.detach(), gradients


def golden(folder):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    sides = {"query": (model.encode_query, QUERIES), "passage": (model.encode_document, PASSAGES)}
    out = {}
    for side, (encode, texts) in sides.items():
        alone = torch.stack([torch.as_tensor(encode(text)) for text in texts])
        for padding in ("left", "right"):
            model.tokenizer.padding_side = padding
            away = (torch.as_tensor(encode(texts)) - alone).abs().max().item()
            assert away < 1e-5, (folder.name, side, padding, away)
        out[f"vectors.{side}"] = alone
    loss, gradients = step(model)
    out["loss"] = loss[None]
    out |= {f"grad.{name}": g for name, g in gradients.items()}
    save_file({k: v.contiguous() for k, v in out.items()}, folder / "golden.safetensors")
    print(folder.name, {k: tuple(v.shape) for k, v in out.items() if "." not in k or k.startswith("v")}, loss.item())


def main():
    shutil.rmtree(HERE, ignore_errors=True)
    for i, (name, make) in enumerate(FOLDERS.items()):
        torch.manual_seed(i)
        make(HERE / name)
        golden(HERE / name)


if __name__ == "__main__":
    main()
