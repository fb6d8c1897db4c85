"""Random tiny encoders, their hidden states and one step's gradients, by transformers.

    python crates/nn/tests/golden/make.py [name...]        (transformers 5.3.0, torch 2.11.0)

Per architecture a folder with config.json and model.safetensors (as save_pretrained writes them) and
golden.safetensors: ids, lengths, hidden states of each text computed alone and, packed, the gradients of
sum(hidden * probe) for every parameter.
"""

import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import (
    AutoModel, BertConfig, DebertaV2Config, DistilBertConfig, ElectraConfig, ModernBertConfig, MPNetConfig, RobertaConfig,
    XLMRobertaConfig,
)

HERE = pathlib.Path(__file__).parent
COMMON = dict(vocab_size=61, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
CONFIGS = {
    "bert": BertConfig(**COMMON, max_position_embeddings=200),
    "bert_relu": BertConfig(**COMMON, max_position_embeddings=200, hidden_act="relu", type_vocab_size=3),
    "roberta": RobertaConfig(**COMMON, max_position_embeddings=202, type_vocab_size=1, pad_token_id=1),
    "xlm_roberta": XLMRobertaConfig(**COMMON, max_position_embeddings=202, type_vocab_size=1, pad_token_id=1),
    "distilbert": DistilBertConfig(
        vocab_size=61, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=200
    ),
    "mpnet": MPNetConfig(**COMMON, max_position_embeddings=202, pad_token_id=1),
    "modernbert": ModernBertConfig(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        local_attention=16, global_attn_every_n_layers=3, max_position_embeddings=256,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2,
    ),
    # As version 3 has it: positions in the scores alone, in buckets, by the projections of contents.
    "deberta_v3": DebertaV2Config(
        **COMMON, max_position_embeddings=200, relative_attention=True, position_buckets=12, norm_rel_ebd="layer_norm",
        share_att_key=True, pos_att_type=["p2c", "c2p"], position_biased_input=False, type_vocab_size=0,
    ),
    # As the large ones of version 2, and what else there is: a convolution, narrower embeddings, projections of positions.
    "deberta_v2": DebertaV2Config(
        **COMMON, max_position_embeddings=200, relative_attention=True, max_relative_positions=30, pos_att_type="c2p|p2c",
        type_vocab_size=2, embedding_size=20, conv_kernel_size=3, conv_act="gelu", hidden_act="gelu_new",
    ),
    "electra": ElectraConfig(**COMMON, max_position_embeddings=200, embedding_size=12),
    "electra_wide": ElectraConfig(**COMMON, max_position_embeddings=200, embedding_size=32, hidden_act="relu"),
}
LENGTHS = [1, 7, 150, 23]


def main():
    for i, (name, config) in enumerate(CONFIGS.items()):
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        torch.manual_seed(i)
        eager = name == "mpnet" or name.startswith("deberta")
        model = AutoModel.from_config(config, attn_implementation="eager" if eager else "sdpa").float()
        with torch.no_grad():
            # Larger than the initialisation, so that every part matters in the outcome.
            for n, p in model.named_parameters():
                p.copy_(torch.randn_like(p) * (0.15 if p.dim() > 1 else 0.3) + (1.0 if "orm.weight" in n else 0.0))
        model.eval()
        folder = HERE / name
        model.save_pretrained(folder)
        texts = [torch.randint(3, 61, (l,)) for l in LENGTHS]
        hidden = [model(input_ids=t[None]).last_hidden_state[0] for t in texts]
        packed = torch.cat(hidden)
        probe = torch.randn_like(packed)
        (packed * probe).sum().backward()
        out = {"ids": torch.cat(texts), "lengths": torch.tensor(LENGTHS), "hidden": packed.detach(), "probe": probe}
        for n, p in model.named_parameters():
            if p.grad is not None and not n.startswith("pooler"):
                out[f"grad.{n}"] = p.grad
        save_file({k: v.contiguous() for k, v in out.items()}, folder / "golden.safetensors")


main()
