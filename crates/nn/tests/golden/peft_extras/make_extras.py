"""What peft does with adapters beyond running them: PiSSA trained and converted, and weighted combinations.

    python crates/nn/tests/golden/peft_extras/make_extras.py      (peft 0.21.2, transformers 5.3.0, torch 2.11.0)

Singular vectors have no sign of their own, so goldens are outputs: PiSSA's at the start and after steps of SGD, those of
combinations for each kind.
"""

import json
import pathlib
import shutil
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

warnings.filterwarnings("ignore")
HERE = pathlib.Path(__file__).parent
BASES = HERE.parent
STEPS, LR = 4, 0.5


def base_of(name):
    return AutoModelForCausalLM.from_pretrained(BASES / name, dtype=torch.float32, attn_implementation="eager")


def keep(model, folder, base, **how):
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, **how)
    (folder / "README.md").unlink(missing_ok=True)
    for path in folder.rglob("adapter_config.json"):
        written = json.loads(path.read_text())
        written["base_model_name_or_path"] = base
        if isinstance(written["target_modules"], list):
            written["target_modules"].sort()
        path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")


def pissa(base, kind="pissa", **more):
    torch.manual_seed(7)
    settings = dict(r=3, lora_alpha=5, init_lora_weights="pissa", task_type="CAUSAL_LM") | more
    plain = base_of(base).eval()
    texts = [torch.randint(3, plain.config.vocab_size, (l,)) for l in (9, 4)]
    run = lambda m: torch.cat([m(input_ids=t[None]).logits[0] for t in texts])
    out = {"ids": torch.cat(texts), "lengths": torch.tensor([9, 4]), "plain": run(plain).detach()}
    model = get_peft_model(plain, LoraConfig(**settings)).eval()
    out["start"] = run(model).detach()
    first = HERE / "first"
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(first)
    model.peft_config["default"].init_lora_weights = "pissa"
    trained = [p for p in model.parameters() if p.requires_grad]
    out["probe"] = torch.randn_like(out["start"])
    for _ in range(STEPS):
        loss = (run(model) * out["probe"]).mean()
        for p, g in zip(trained, torch.autograd.grad(loss, trained)):
            p.data -= LR * g
    out["trained"] = run(model).detach()
    name = f"{kind}_{base.split('/')[1]}"
    if model.peft_config["default"].use_dora:
        # peft's conversion loses the magnitudes.
        (HERE / name).mkdir(exist_ok=True)
    else:
        keep(model, HERE / name, base, path_initial_model_for_weight_conversion=str(first))
    shutil.rmtree(first)
    save_file({k: v.contiguous() for k, v in out.items()}, HERE / name / "golden.safetensors")
    print(name, (out["trained"] - out["plain"]).abs().max().item(), (out["start"] - out["plain"]).abs().max().item())


def combine():
    torch.manual_seed(8)
    base = "lm/llama"
    configs = {
        "a": LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "v_proj", "down_proj"]),
        "b": LoraConfig(r=3, lora_alpha=2, target_modules=["q_proj", "up_proj"], use_rslora=True),
        "c": LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "k_proj"], rank_pattern={"k_proj": 1}),
    }
    model = None
    for name, config in configs.items():
        config.task_type = "CAUSAL_LM"
        if model is None:
            model = get_peft_model(base_of(base), config, adapter_name=name)
        else:
            model.add_adapter(name, config)
    with torch.no_grad():
        for n, p in model.named_parameters():
            if "lora_" in n:
                p.copy_(torch.randn_like(p) * 0.3)
    model.eval()
    shutil.rmtree(HERE / "combine", ignore_errors=True)
    keep(model, HERE / "combine", base)
    text = torch.randint(3, model.get_base_model().config.vocab_size, (11,))
    out = {"ids": text}
    for kind, adapters, weights, more in [
        ("linear", ["a", "b"], [0.7, -0.3], {}),
        ("cat", ["a", "c"], [0.7, 0.4], {}),
        ("cat_negative", ["a", "b", "c"], [0.7, -0.4, 1.3], {}),
        ("svd", ["a", "c"], [0.7, 0.4], {"svd_rank": 2}),
        ("svd_full", ["a", "b", "c"], [0.5, 0.4, -0.2], {"svd_rank": 8}),
    ]:
        model.add_weighted_adapter(adapters, weights, kind, combination_type=kind.split("_")[0], **more)
        model.set_adapter(kind)
        out[kind] = model(input_ids=text[None]).logits[0].detach()
        print(kind, out[kind].std().item())
    save_file({k: v.contiguous() for k, v in out.items()}, HERE / "combine" / "golden.safetensors")


pissa("lm/llama", target_modules=["q_proj", "down_proj"], rank_pattern={"down_proj": 2})
pissa("lm/llama", "pissa_dora", target_modules=["q_proj", "down_proj"], use_dora=True)
pissa("lm/gpt2", target_modules=["c_attn", "mlp.c_proj"], fan_in_fan_out=True, use_rslora=True)
combine()
