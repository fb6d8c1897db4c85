"""fusion.json: fusion in the decoder by transformers on the tiny encoder-decoders of crates/nn/tests/golden/lm: the encoder
reads each text alone, its states are laid one after another and given to the decoder; and what decoder-only models look at.

Run with transformers 5.3: python make_fusion.py.
"""

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.modeling_outputs import BaseModelOutput

HERE = Path(__file__).parent
MODELS = HERE / "../../../nn/tests/golden/lm"
PARTS, TARGETS = [[9, 14, 3], [21], [5, 5, 30, 2]], [4, 6, 1]

torch.manual_seed(11)
parts = [[torch.randint(2, 37, (n,)).tolist() for n in row] for row in PARTS]
targets = [torch.randint(2, 37, (n,)).tolist() + [1] for n in TARGETS]
out = {"parts": parts, "targets": targets, "models": {}}
for name in ("t5", "flan_t5"):
    model = AutoModelForSeq2SeqLM.from_pretrained(MODELS / name, dtype=torch.float32, attn_implementation="eager").eval()
    seen = []
    for texts, target in zip(parts, targets):
        states = torch.cat([model.encoder(input_ids=torch.tensor([t])).last_hidden_state for t in texts], 1)
        encoded = BaseModelOutput(last_hidden_state=states)
        done = model(encoder_outputs=encoded, labels=torch.tensor([target]), output_attentions=True)
        nll = torch.nn.functional.cross_entropy(done.logits[0], torch.tensor(target), reduction="none")
        greedy = model.generate(
            encoder_outputs=encoded, attention_mask=torch.ones(states.shape[:2]), do_sample=False, max_new_tokens=20,
            eos_token_id=1, pad_token_id=0,
        )[0, 1:].tolist()
        # Izacard and Grave, 2021 (arXiv 2012.04584), as Atlas computes it: attention times the norm of the value, averaged
        # over layers, heads and the answer's tokens.
        weights = 0
        for attention, block in zip(done.cross_attentions, model.decoder.block):
            a = block.layer[1].EncDecAttention
            value = a.v(states).view(1, states.shape[1], a.n_heads, a.key_value_proj_dim).transpose(1, 2)
            weights = weights + (attention * value.norm(dim=-1).unsqueeze(2)).mean(dim=(1, 2))[0]
        weights = weights / len(done.cross_attentions)
        seen.append({"nll": nll.tolist(), "greedy": greedy, "attention": weights.tolist()})
    out["models"][name] = seen
    print(name, [s["greedy"] for s in seen])
out["causal"] = {}
text = torch.randint(2, 37, (24,)).tolist()
for name in ("llama", "mistral", "gpt2", "qwen3"):
    model = AutoModelForCausalLM.from_pretrained(MODELS / name, dtype=torch.float32, attn_implementation="eager").eval()
    values = []
    wide = model.config.hidden_size
    for module_name, module in model.named_modules():
        if module_name.endswith("v_proj"):
            module.register_forward_hook(lambda m, i, o: values.append(o))
        if module_name.endswith("attn.c_attn"):
            module.register_forward_hook(lambda m, i, o: values.append(o[..., 2 * wide:]))
    attentions = model(torch.tensor([text]), output_attentions=True).attentions
    weights = 0
    for attention, value in zip(attentions, values):
        heads = attention.shape[1]
        size = getattr(model.config, "head_dim", None) or wide // heads
        value = value.view(len(text), -1, size).norm(dim=-1)
        value = value.repeat_interleave(heads // value.shape[1], 1).T.unsqueeze(1)
        # The last six tokens are learned: the rows before them predict them.
        weights = weights + (attention[0] * value)[:, -7:-1].mean(dim=(0, 1))
    out["causal"][name] = (weights / len(attentions)).tolist()
out["text"] = text
(HERE / "fusion.json").write_text(json.dumps(out) + "\n")
