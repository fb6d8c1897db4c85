#!/usr/bin/env bash
# transformers 5.3.0: the tokenizer of a GGUF file of a Llama with byte-level BPE has five tokens too many and another end.
#
# Done:     a GGUF file of the architecture `llama` with a byte-level BPE vocabulary (tokenizer.ggml.model = gpt2, pre =
#           smollm; as llama.cpp's converter writes SmolLM2), begin token 1, end token 2, padding 2, unknown 0, read by
#           AutoTokenizer.from_pretrained(folder, gguf_file=...).
# Expected: a tokenizer of as many tokens as the file has, whose end is token 2.
# Seen:     a CodeLlamaTokenizer with five tokens more (`▁<PRE>`, `▁<MID>`, `▁<SUF>`, `▁<EOT>`, `<FILL_ME>`), whose ids a
#           model of the file has no rows for; its end is the file's begin token, and no padding token is set.
# Known:    2026-11-29, when our reading of a GGUF file was compared. llama.cpp is what ours is held to.
. "$(dirname "$0")/common.sh"
with_packages torch==2.11.0 transformers==5.3.0 gguf==0.19.0
FOLDER=$folder check <<'PY'
import os
import pathlib
import sys

import numpy as np
from gguf import GGUFWriter, TokenType
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer

folder = pathlib.Path(os.environ["FOLDER"])
special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
tokens = special + sorted(ByteLevel.alphabet()) + ["he", "ll"]
writer = GGUFWriter(folder / "model.gguf", "llama")
writer.add_block_count(1)
writer.add_context_length(64)
writer.add_embedding_length(8)
writer.add_feed_forward_length(8)
writer.add_head_count(1)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("smollm")
writer.add_token_list(tokens)
writer.add_token_types([TokenType.CONTROL if t in special else TokenType.NORMAL for t in tokens])
writer.add_token_merges(["h e", "l l"])
writer.add_bos_token_id(1)
writer.add_eos_token_id(2)
writer.add_unk_token_id(0)
writer.add_pad_token_id(2)
writer.add_tensor("token_embd.weight", np.zeros((len(tokens), 8), dtype=np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
read = AutoTokenizer.from_pretrained(folder, gguf_file="model.gguf")
more = [t for t, _ in sorted(read.get_vocab().items(), key=lambda x: x[1]) if t not in tokens]
print(f"{type(read).__name__}: {len(read)} tokens of the file's {len(tokens)}, more: {more}; end {read.eos_token}, padding {read.pad_token}")
sys.exit(0 if len(more) == 5 and read.eos_token == special[1] else 1)
PY
