"""Files for the reader and the writer, made by the gguf Python package (pip install gguf==0.19.0).

types.gguf     a tensor of each type that is read, of random blocks, and metadata of each type
types.f32      what the package dequantizes them to, f32, one tensor after the other
written.gguf   numbers.f32 (8 x 96) as F32, F16, BF16 and Q8_0: what our writer must give, byte for byte
"""
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as T, GGUFWriter, quants
from gguf.constants import GGML_QUANT_SIZES, GGUFValueType

HERE = Path(__file__).parent
random = np.random.default_rng(7)
TYPES = [T.F32, T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q4_K, T.Q5_K, T.Q6_K]
# Where the scales of a block are, which must be finite halves.
SCALES = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}


def blocks(kind, count):
    _, size = GGML_QUANT_SIZES[kind]
    if kind == T.F32:
        return random.standard_normal(count).astype(np.float32).view(np.uint8).reshape(count, size)
    if kind == T.F16:
        return random.standard_normal(count).astype(np.float16).view(np.uint8).reshape(count, size)
    out = random.integers(0, 256, (count, size), dtype=np.uint8)
    if kind == T.BF16:
        return (random.standard_normal(count).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8).reshape(count, size)
    for at in SCALES[kind]:
        out[:, at : at + 2] = random.normal(0, 0.05, count).astype(np.float16).view(np.uint8).reshape(count, 2)
    return out


def types():
    writer = GGUFWriter(HERE / "types.gguf", "llama")
    for name, value, kind in [
        ("u8", 200, GGUFValueType.UINT8), ("i8", -3, GGUFValueType.INT8), ("u16", 60000, GGUFValueType.UINT16),
        ("i16", -300, GGUFValueType.INT16), ("u32", 4_000_000_000, GGUFValueType.UINT32),
        ("i32", -70000, GGUFValueType.INT32), ("u64", 1 << 40, GGUFValueType.UINT64),
        ("i64", -(1 << 40), GGUFValueType.INT64), ("f32", 1e-5, GGUFValueType.FLOAT32),
        ("f64", 0.1, GGUFValueType.FLOAT64), ("bool", True, GGUFValueType.BOOL), ("text", "naïve ▁", GGUFValueType.STRING),
    ]:
        writer.add_key_value(f"test.{name}", value, kind)
    writer.add_array("test.texts", ["a", "", "ü"])
    writer.add_array("test.numbers", [1.5, -2.0])
    writer.add_array("test.integers", [3, -4])
    writer.add_array("test.flags", [True, False])
    out = b""
    for kind in TYPES:
        block, size = GGML_QUANT_SIZES[kind]
        data = blocks(kind, 2 * 256 // block).reshape(2, 256 // block * size)
        out += quants.dequantize(data, kind).astype(np.float32).tobytes()
        writer.add_tensor(f"{kind.name.lower()}.weight", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (HERE / "types.f32").write_bytes(out)


def written():
    numbers = (random.standard_normal((8, 96)) * np.array([1e-3, 1, 30, 0, 1e-8, 5, 1, 1])[:, None]).astype(np.float32)
    (HERE / "numbers.f32").write_bytes(numbers.tobytes())
    writer = GGUFWriter(HERE / "written.gguf", "llama")
    writer.add_uint32("llama.block_count", 2)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_bool("tokenizer.ggml.add_bos_token", False)
    writer.add_array("tokenizer.ggml.tokens", ["a", "Ġthe", "<|end|>"])
    for kind in [T.F32, T.F16, T.BF16, T.Q8_0]:
        writer.add_tensor(f"{kind.name.lower()}.weight", quants.quantize(numbers, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


types()
written()
