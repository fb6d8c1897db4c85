"""Tiny GGUF files of every family, as llama.cpp's converter would write them, and what transformers computes.

    python make_gguf.py       (transformers 5.3.0, torch 2.11.0, gguf 0.19.0, sentencepiece 0.2.1)

FAMILY.gguf: random weights and a tokenizer: byte-level BPE (llama, qwen2, qwen3), SentencePiece's BPE (gemma3, llama_spm).
cases.json: texts, the ids that the original tokenizers give, the config. logits.safetensors: logits of the first texts.
The order of Llama's q and k, the names, Gemma's norms and the factors of Llama 3's scaling are written down here anew.
"""

import io
import json
import math
import pathlib

import numpy as np
import sentencepiece
import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType, quants
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, Qwen2Config, Qwen3Config

HERE = pathlib.Path(__file__).parent
SOURCE = (pathlib.Path(__file__).resolve().parents[5] / "README.md").read_text()
SOURCE += "Straße, naïve café, Привет мир 你好世界 こんにちは. 1234567890 " * 5
TEXTS = [
    "The retriever finds passages, and the generator answers.", "I'll say it's 2024: 1,234.5", "  two  spaces\n\n\tand a tab ",
    "def f(x):\n    return x ** 2", "Straße Привет 你好 🚀", "<|im_start|>user\nhi<|im_end|>", "", " ", "don't CAN'T 'Re", "caf\u00e9 e\u0301",
]
COMMON = dict(
    hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=128, initializer_range=0.3, bos_token_id=0, eos_token_id=1, pad_token_id=None,
)
LLAMA3 = dict(rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
LLAMA3_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2_WORDS = LLAMA3_WORDS.replace(r"\p{N}{1,3}", r"\p{N}")
SPECIAL = ["<|begin|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_bpe(kind):
    tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "llama-bpe"))
    cuts = {
        "llama-bpe": [pre_tokenizers.Split(Regex(LLAMA3_WORDS), "isolated")],
        "qwen2": [pre_tokenizers.Split(Regex(QWEN2_WORDS), "isolated")],
        "smollm": [pre_tokenizers.Digits(individual_digits=True)],
    }[kind]
    if kind == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cuts + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "smollm")])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=360, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator([SOURCE], trainer)
    return tokenizer


def add_byte_bpe(writer, tokenizer, kind, begin):
    vocab = sorted(tokenizer.get_vocab().items(), key=lambda x: x[1])
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(kind)
    writer.add_token_list([t for t, _ in vocab])
    writer.add_token_types([TokenType.CONTROL if t in SPECIAL else TokenType.NORMAL for t, _ in vocab])
    writer.add_token_merges([" ".join(m) for m in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(begin)
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def pieces(space):
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SOURCE.splitlines()), model_writer=out, vocab_size=520, model_type="bpe", byte_fallback=True,
        add_dummy_prefix=space, remove_extra_whitespaces=False, normalization_rule_name="identity", character_coverage=0.999,
        # Behind such a symbol llama.cpp puts a space where SentencePiece does not.
        user_defined_symbols=[] if space else ["\n", "\n\n", "<table>"], control_symbols=["<start_of_turn>", "<end_of_turn>"], minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())


def add_pieces(writer, sp, space):
    kinds = []
    for i in range(len(sp)):
        kinds.append(
            TokenType.UNKNOWN if sp.is_unknown(i) else TokenType.CONTROL if sp.is_control(i) else TokenType.UNUSED if sp.is_unused(i)
            else TokenType.BYTE if sp.is_byte(i) else TokenType.NORMAL
        )
        if sp.id_to_piece(i) in ("\n", "\n\n", "<table>"):
            kinds[-1] = TokenType.USER_DEFINED
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([sp.id_to_piece(i) for i in range(len(sp))])
    writer.add_token_scores([sp.get_score(i) for i in range(len(sp))])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(sp.bos_id())
    writer.add_eos_token_id(sp.eos_id())
    writer.add_unk_token_id(sp.unk_id())
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(space)


def interleaved(weight, heads):
    """Row i of the first half of a head, then row i of the second, and so on."""
    half = weight.shape[0] // heads // 2
    out = np.empty_like(weight)
    for h in range(heads):
        for i in range(half):
            out[(h * half + i) * 2] = weight[h * 2 * half + i]
            out[(h * half + i) * 2 + 1] = weight[h * 2 * half + half + i]
    return out


NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}
GEMMA = {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm"}


def add_model(writer, arch, config, model):
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    if arch == "gemma3":
        writer.add_sliding_window(config.sliding_window)
        rope = rope["full_attention"]
    writer.add_rope_freq_base(rope["rope_theta"])
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if arch in ("qwen3", "gemma3"):
        writer.add_key_length(head)
        writer.add_value_length(head)
    if arch == "llama":
        writer.add_rope_dimension_count(head)
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_string(f"{arch}.rope.scaling.type", rope["rope_type"])
        writer.add_rope_scaling_factor(rope["factor"])
        if rope["rope_type"] == "yarn":
            writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if rope["rope_type"] == "llama3":
        factors = []
        for i in range(0, head, 2):
            wave = 2 * math.pi * rope["rope_theta"] ** (i / head)
            old, low, high, factor = rope["original_max_position_embeddings"], rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
            if wave < old / high:
                factors.append(1.0)
            elif wave > old / low:
                factors.append(factor)
            else:
                smooth = (old / wave - low) / (high - low)
                factors.append(1 / ((1 - smooth) / factor + smooth))
        writer.add_tensor("rope_freqs.weight", np.array(factors, dtype=np.float32))
    names = NAMES | (GEMMA if arch == "gemma3" else {})
    for name, t in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        path, part = name.rsplit(".", 1)
        w = t.float().numpy()
        if arch == "gemma3" and name.endswith("norm.weight"):
            w = w + 1
        if arch == "llama" and "q_proj" in name:
            w = interleaved(w, config.num_attention_heads)
        if arch == "llama" and "k_proj" in name:
            w = interleaved(w, config.num_key_value_heads)
        if path.startswith("model.layers."):
            _, _, layer, inner = path.split(".", 3)
            ours = f"blk.{layer}.{names[inner]}.{part}"
        else:
            ours = f"{names[path]}.{part}"
        writer.add_tensor(ours, w.astype(np.float32))


def main():
    torch.manual_seed(3)
    configs = {
        "llama": (LlamaConfig(**COMMON, vocab_size=360, rope_parameters=LLAMA3, attention_bias=True), "llama-bpe"),
        "llama_spm": (LlamaConfig(**COMMON, vocab_size=520, tie_word_embeddings=True, rope_parameters=dict(rope_type="linear", factor=2.0, rope_theta=300.0)), True),
        "qwen2": (Qwen2Config(**COMMON, vocab_size=360, rope_parameters=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32, rope_theta=1000.0)), "qwen2"),
        "qwen3": (Qwen3Config(**COMMON, vocab_size=360, head_dim=16, tie_word_embeddings=True, rms_norm_eps=1e-5), "smollm"),
        "gemma3": (
            Gemma3TextConfig(**COMMON | dict(num_hidden_layers=7, initializer_range=0.2), vocab_size=520, head_dim=16, query_pre_attn_scalar=16, sliding_window=6,
                             rope_parameters=dict(full_attention=dict(rope_type="linear", factor=3.0, rope_theta=700.0),
                                                  sliding_attention=dict(rope_type="default", rope_theta=10000.0))),
            False,
        ),
    }
    cases, logits = {}, {}
    for name, (config, words) in configs.items():
        arch = name.split("_")[0]
        model = AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for p in model.parameters():
                if p.dim() == 1:
                    p.add_(torch.randn_like(p) * 0.2)
        writer = GGUFWriter(HERE / f"{name}.gguf", arch)
        add_model(writer, arch, config, model)
        texts = TEXTS
        if isinstance(words, str):
            tokenizer = byte_bpe(words)
            add_byte_bpe(writer, tokenizer, words, words == "llama-bpe")
            ids = [tokenizer.encode(t).ids for t in texts]
        else:
            sp = pieces(words)
            # Control symbols are no text to SentencePiece, and it puts a space before an empty text in neither program.
            texts = [t for t in TEXTS if t.strip() and "<|" not in t]
            add_pieces(writer, sp, words)
            ids = [sp.encode(t) for t in texts]
        cases[name] = {"texts": texts, "ids": ids, "config": json.loads(config.to_json_string(use_diff=False))}
        with torch.no_grad():
            logits[name] = model(torch.tensor([ids[0]])).logits[0].contiguous()
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    (HERE / "cases.json").write_text(json.dumps(cases, ensure_ascii=False) + "\n")
    save_file(logits, HERE / "logits.safetensors")


main()
