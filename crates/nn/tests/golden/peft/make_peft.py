"""Adapters over the goldens' bases: their folders, outputs and one step's gradients, by peft.

    python crates/nn/tests/golden/peft/make_peft.py [case...]      (peft 0.21.2, transformers 5.3.0, torch 2.11.0)

Per case a folder with the adapter as save_pretrained writes it (base_model_name_or_path is the base's golden folder) and
golden.safetensors: ids, lengths, the outputs of each text computed alone (logits, or an encoder's hidden states) and the
gradients of sum(outputs * probe) for each of the adapter's parameters.
"""

import json
import pathlib
import sys
import warnings

import torch
from peft import IA3Config, LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*")
HERE = pathlib.Path(__file__).parent
LM, SEQ2SEQ, ENCODER = "CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION"
BERT_FF = r".*layer\.\d+\.output\.dense"
CASES = {
    "lora_llama": ("lm/llama", LM, LoraConfig(
        r=3, lora_alpha=5, target_modules="all-linear", rank_pattern={"q_proj": 2},
        alpha_pattern={"layers.1.mlp.up_proj": 7},
    )),
    "lora_gpt2": ("lm/gpt2", LM, LoraConfig(
        r=2, lora_alpha=6, target_modules=["c_attn", "c_proj"], use_rslora=True, fan_in_fan_out=True,
    )),
    "lora_neox": ("lm/gpt_neox", LM, LoraConfig(r=2, target_modules=["query_key_value", "dense_4h_to_h"])),
    "lora_tables_llama": ("lm/llama", LM, LoraConfig(
        r=2, lora_alpha=4, target_modules=["embed_tokens", "v_proj"], modules_to_save=["lm_head"],
    )),
    "lora_head_llama": ("lm/llama", LM, LoraConfig(r=2, lora_alpha=4, target_modules=["lm_head", "o_proj"])),
    "dora_llama": ("lm/llama", LM, LoraConfig(r=2, target_modules=["q_proj", "v_proj", "down_proj"], use_dora=True)),
    "dora_bert": ("bert", ENCODER, LoraConfig(r=2, target_modules=["query", "intermediate.dense"], use_dora=True)),
    "lora_modernbert": ("modernbert", ENCODER, LoraConfig(r=2, target_modules=["Wqkv", "mlp.Wo"])),
    "ia3_llama": ("lm/llama", LM, IA3Config(
        target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"],
    )),
    "ia3_gpt2": ("lm/gpt2", LM, IA3Config(
        target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"], fan_in_fan_out=True,
    )),
    "ia3_bert": ("bert", ENCODER, IA3Config(
        target_modules=rf".*attention\.self\.(key|value)|{BERT_FF}", feedforward_modules=BERT_FF,
    )),
    "lora_t5": ("lm/t5", SEQ2SEQ, LoraConfig(r=2, target_modules="all-linear")),
    "dora_flan": ("lm/flan_t5", SEQ2SEQ, LoraConfig(r=2, target_modules=["q", "v", "wo"], use_dora=True)),
    "ia3_t5": ("lm/t5", SEQ2SEQ, IA3Config(target_modules=["k", "v", "wo"], feedforward_modules=["wo"])),
    "prompt_llama": ("lm/llama", LM, PromptTuningConfig(num_virtual_tokens=5)),
    "prompt_gpt2": ("lm/gpt2", LM, PromptTuningConfig(num_virtual_tokens=3)),
    "prompt_bert": ("bert", ENCODER, PromptTuningConfig(num_virtual_tokens=4)),
    "prefix_llama": ("lm/llama", LM, PrefixTuningConfig(num_virtual_tokens=5)),
    "prefix_mistral": ("lm/mistral", LM, PrefixTuningConfig(num_virtual_tokens=4)),
    "prefix_gpt2": ("lm/gpt2", LM, PrefixTuningConfig(num_virtual_tokens=3)),
    "prefix_projected_llama": ("lm/llama", LM, PrefixTuningConfig(
        num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=6,
    )),
    "prompt_t5": ("lm/t5", SEQ2SEQ, PromptTuningConfig(num_virtual_tokens=4)),
    "prompt_mt5": ("lm/mt5", SEQ2SEQ, PromptTuningConfig(num_virtual_tokens=3, num_transformer_submodules=1)),
    "prefix_t5": ("lm/t5", SEQ2SEQ, PrefixTuningConfig(num_virtual_tokens=4, token_dim=18, num_attention_heads=3)),
    "prefix_projected_flan": ("lm/flan_t5", SEQ2SEQ, PrefixTuningConfig(
        num_virtual_tokens=3, token_dim=18, num_attention_heads=3, prefix_projection=True, encoder_hidden_size=6,
    )),
    "lora_bias_bert": ("bert", ENCODER, LoraConfig(r=2, target_modules=["query", "intermediate.dense"], bias="lora_only")),
    "lora_bias_gpt2": ("lm/gpt2", LM, LoraConfig(r=2, target_modules=["c_attn"], bias="lora_only", fan_in_fan_out=True)),
    "lora_all_biases_bert": ("bert", ENCODER, LoraConfig(r=2, target_modules=["query"], bias="all")),
    "lora_all_biases_gpt2": ("lm/gpt2", LM, LoraConfig(r=2, target_modules=["c_attn"], bias="all", fan_in_fan_out=True)),
    "lora_all_biases_neox": ("lm/gpt_neox", LM, LoraConfig(r=2, target_modules=["dense_4h_to_h"], bias="all")),
    "dora_bias_bert": ("bert", ENCODER, LoraConfig(r=2, target_modules=["value"], bias="lora_only", use_dora=True)),
    # Gemma multiplies what its table holds, with an adapter's part, but no learned rows.
    "lora_tables_gemma3": ("lm/gemma3_old", LM, LoraConfig(
        r=2, lora_alpha=4, target_modules=["embed_tokens", "q_proj", "down_proj"],
    )),
    "prompt_gemma3": ("lm/gemma3", LM, PromptTuningConfig(num_virtual_tokens=5)),
    "prefix_gemma3": ("lm/gemma3", LM, PrefixTuningConfig(num_virtual_tokens=4)),
    "lora_tokens_llama": ("lm/llama", LM, LoraConfig(
        r=2, target_modules=["q_proj"], trainable_token_indices=[5, 9, 30], layers_to_transform=[1], layers_pattern="layers",
    )),
    "lora_tokens_gemma3": ("lm/gemma3", LM, LoraConfig(
        r=2, target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [9, 5]},
    )),
    "lora_tokens_bert": ("bert", ENCODER, LoraConfig(
        r=2, target_modules=["query"], trainable_token_indices={"word_embeddings": [3, 7, 8]},
    )),
    "lora_layers_t5": ("lm/t5", SEQ2SEQ, LoraConfig(
        r=2, target_modules=["q", "wo"], layers_to_transform=[1], layers_pattern=["layers", "block"],
    )),
    "lora_b_bias_bert": ("bert", ENCODER, LoraConfig(r=2, target_modules=["query", "output.dense"], lora_bias=True)),
    "lora_b_bias_gpt2": ("lm/gpt2", LM, LoraConfig(
        r=2, lora_alpha=6, target_modules=["c_attn"], fan_in_fan_out=True, lora_bias=True,
    )),
}
LENGTHS = [1, 7, 30, 12]


def base_of(name, task):
    kind = {LM: AutoModelForCausalLM, SEQ2SEQ: AutoModelForSeq2SeqLM, ENCODER: AutoModel}[task]
    return kind.from_pretrained(HERE.parent / name, dtype=torch.float32, attn_implementation="eager")


def main():
    only = sys.argv[1:]
    for i, (name, (base, task, config)) in enumerate(CASES.items()):
        if only and name not in only:
            continue
        torch.manual_seed(100 + i)
        config.task_type = task
        model = get_peft_model(base_of(base, task), config)
        soft = config.is_prompt_learning
        with torch.no_grad():
            # Away from the start, so that every part matters in the outcome.
            for n, p in model.named_parameters():
                if p.requires_grad:
                    p.copy_(torch.randn_like(p) * 0.3 + (1.0 if "ia3" in n or "magnitude" in n else 0.0))
        model.eval()
        folder = HERE / name
        model.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        path = folder / "adapter_config.json"
        written = json.loads(path.read_text())
        written["base_model_name_or_path"] = base
        for key in ("target_modules", "feedforward_modules"):
            if isinstance(written.get(key), list):
                written[key].sort()
        path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")

        vocab = model.get_base_model().config.vocab_size
        texts = [torch.randint(3, vocab, (l,)) for l in LENGTHS]
        outputs = []
        for text in texts:
            given = dict(input_ids=text[None], attention_mask=torch.ones(1, len(text), dtype=torch.long))
            # An encoder-decoder writes what it reads.
            out = model(**given, decoder_input_ids=text[None]) if task == SEQ2SEQ else model(**given)
            rows = out.last_hidden_state[0] if task == ENCODER else out.logits[0]
            outputs.append(rows[-len(text):])
        packed = torch.cat(outputs)
        probe = torch.randn_like(packed)
        (packed * probe).sum().backward()
        out = {"ids": torch.cat(texts), "lengths": torch.tensor(LENGTHS), "outputs": packed.detach(), "probe": probe}
        stored = load_file(folder / "adapter_model.safetensors")
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        if soft:
            if not config.prefix_projection if hasattr(config, "prefix_projection") else True:
                (p,) = trained.values()
                used = config.num_virtual_tokens
                # The decoder's rows of a prompt are used nowhere.
                assert task == SEQ2SEQ or len(p) == used
                assert not p.grad[used:].any()
                out["grad.prompt_embeddings"] = p.grad[:used]
        else:
            for n, p in trained.items():
                if p.grad is None:
                    # A bias that nothing here reads (a pooler's).
                    assert "pooler" in n, n
                    continue
                key = n.replace(".default", "").replace(".modules_to_save", "")
                key = key if key in stored else key.removesuffix(".weight")
                assert key in stored, (n, key)
                out[f"grad.{key}"] = p.grad
        save_file({k: v.contiguous() for k, v in out.items()}, folder / "golden.safetensors")
        print(name, sorted(stored)[:2], packed.detach().std().item())


main()
