#!/usr/bin/env bash
# transformers 5.3.0: from_pretrained of a LoRA folder over a bare encoder leaves the adapter out, without an error.
#
# Done:     a BertModel gets a LoRA by peft 0.21.2 (task type FEATURE_EXTRACTION) whose update is clearly not zero; the
#           folder is saved, and loaded by `AutoModel.from_pretrained(folder)` and by `PeftModel.from_pretrained`. The same
#           with a LlamaForCausalLM and `AutoModelForCausalLM`.
# Expected: both ways give the adapted model, as `from_pretrained` of an adapter folder is documented to do.
# Seen:     PeftModel does, and so does AutoModelForCausalLM for the language model. AutoModel of the bare encoder raises
#           nothing; it prints a table of UNEXPECTED and MISSING keys, keeps the adapter's initial values (B = 0), and
#           computes exactly what the base does. Also with a folder that transformers itself wrote (`add_adapter`,
#           `save_pretrained`).
# Known:    2026-11-23. sentence-transformers 5.3 loads by this way, so an exported LoRA retriever is its base there:
#           run `ragduet merge` first, or load with PeftModel.
. "$(dirname "$0")/common.sh"
with_packages torch==2.11.0 transformers==5.3.0 peft==0.21.2
check <<'PY'
import sys
import tempfile
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModel, AutoModelForCausalLM, BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
temporary = tempfile.TemporaryDirectory()
folder = temporary.name
ids = torch.randint(0, 64, (1, 9))


def adapt(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=1.0)
    return model.eval()


def far(a, b):
    return (a - b).abs().max().item()


BertModel(BertConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)).save_pretrained(f"{folder}/encoder")
LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, intermediate_size=64)).save_pretrained(f"{folder}/lm")

with torch.no_grad():
    lora = LoraConfig(r=4, target_modules=["query", "value"], task_type="FEATURE_EXTRACTION")
    model = adapt(get_peft_model(BertModel.from_pretrained(f"{folder}/encoder"), lora))
    model.save_pretrained(f"{folder}/adapter")
    adapted = model(ids).last_hidden_state
    base = BertModel.from_pretrained(f"{folder}/encoder").eval()(ids).last_hidden_state
    peft = PeftModel.from_pretrained(BertModel.from_pretrained(f"{folder}/encoder"), f"{folder}/adapter").eval()(ids).last_hidden_state
    auto = AutoModel.from_pretrained(f"{folder}/adapter").eval()(ids).last_hidden_state

    own = BertModel.from_pretrained(f"{folder}/encoder")
    own.add_adapter(LoraConfig(r=4, target_modules=["query", "value"]))
    adapt(own).save_pretrained(f"{folder}/own")
    own_adapted = own(ids).last_hidden_state
    own_auto = AutoModel.from_pretrained(f"{folder}/own").eval()(ids).last_hidden_state

    lm = adapt(get_peft_model(LlamaForCausalLM.from_pretrained(f"{folder}/lm"), LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")))
    lm.save_pretrained(f"{folder}/lm-adapter")
    lm_auto = AutoModelForCausalLM.from_pretrained(f"{folder}/lm-adapter").eval()

    rows = [
        ("adapted encoder against its base", far(adapted, base), False),
        ("PeftModel against adapted", far(peft, adapted), True),
        ("AutoModel against adapted", far(auto, adapted), False),
        ("AutoModel against base", far(auto, base), True),
        ("transformers' own folder: AutoModel against adapted", far(own_auto, own_adapted), False),
        ("transformers' own folder: AutoModel against base", far(own_auto, base), True),
        ("AutoModelForCausalLM against adapted language model", far(lm_auto(ids).logits, lm(ids).logits), True),
    ]
for name, value, zero in rows:
    print(f"{name}: {value:.2g}")
sys.exit(0 if all((value < 1e-5) == zero for _, value, zero in rows) else 1)
PY
