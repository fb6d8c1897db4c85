//! Beside the gguf Python package (`golden/make_types.py`).

use ragduet_gguf::{Array, Error, GgufFile, GgufWriter, TensorPlan, TensorType, Value, is_gguf, quantize};
use std::path::{Path, PathBuf};

pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn floats(name: &str) -> Vec<f32> {
    let bytes = std::fs::read(golden(name)).unwrap();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

#[test]
fn every_type_is_dequantized_to_the_same_bits() {
    let file = GgufFile::open(&golden("types.gguf")).unwrap();
    let wanted = floats("types.f32");
    let kinds: Vec<TensorType> = file.tensors().iter().map(|t| t.kind).collect();
    assert_eq!(kinds, TensorType::ALL);
    for (tensor, wanted) in file.tensors().iter().zip(wanted.chunks_exact(512)) {
        assert_eq!(tensor.shape, [2, 256], "{}", tensor.name);
        let got = file.read(&tensor.name).unwrap();
        let bits = |all: &[f32]| all.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&got), bits(wanted), "{}", tensor.name);
    }
}

#[test]
fn metadata_of_every_type_are_read() {
    let file = GgufFile::open(&golden("types.gguf")).unwrap();
    let all = file.metadata();
    assert_eq!(all.text("general.architecture").unwrap(), Some("llama"));
    assert_eq!(all.text("test.text").unwrap(), Some("naïve ▁"));
    for (key, n) in [("u8", 200), ("u16", 60_000), ("u32", 4_000_000_000), ("u64", 1 << 40)] {
        assert_eq!(all.count(&format!("test.{key}")).unwrap(), Some(n));
    }
    for (key, n) in [("i8", -3.0), ("i16", -300.0), ("i32", -70_000.0), ("i64", -((1u64 << 40) as f64))] {
        assert_eq!(all.number(&format!("test.{key}")).unwrap(), Some(n));
        assert!(all.count(&format!("test.{key}")).is_err());
    }
    // As it was written, not as an f32 holds it.
    assert_eq!(all.number("test.f32").unwrap(), Some(1e-5));
    assert_eq!(all.number("test.f64").unwrap(), Some(0.1));
    assert_eq!(all.flag("test.bool").unwrap(), Some(true));
    assert_eq!(all.texts("test.texts").unwrap().unwrap(), ["a", "", "ü"]);
    assert_eq!(all.numbers("test.numbers").unwrap().unwrap(), [1.5, -2.0]);
    assert_eq!(all.integers("test.integers").unwrap().unwrap(), [3, -4]);
    assert_eq!(all.integers("test.flags").unwrap().unwrap(), [1, 0]);
    assert_eq!(all.text("test.nothing").unwrap(), None);
    let e = all.flag("test.text").unwrap_err().to_string();
    assert!(e.contains("test.text") && e.contains("true or false"), "{e}");
    assert!(all.same_count("test.integers").is_err());
}

#[test]
fn what_is_written_is_what_the_package_writes() {
    let numbers = floats("numbers.f32");
    let mut writer = GgufWriter::new();
    writer.set("general.architecture", "llama");
    writer.set("llama.block_count", 2u32);
    writer.set("llama.attention.layer_norm_rms_epsilon", 1e-5f32);
    writer.set("tokenizer.ggml.add_bos_token", false);
    let tokens = ["a", "Ġthe", "<|end|>"].map(String::from).to_vec();
    writer.set("tokenizer.ggml.tokens", Value::Array(Array::Text(tokens)));
    for (name, kind) in [
        ("f32", TensorType::F32),
        ("f16", TensorType::F16),
        ("bf16", TensorType::Bf16),
        ("q8_0", TensorType::Q8_0),
    ] {
        writer.plan(TensorPlan { name: format!("{name}.weight"), shape: vec![8, 96], kind });
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("own.gguf");
    writer.write::<Error>(&path, |_| Ok(numbers.clone())).unwrap();
    assert!(is_gguf(&path));
    let (own, wanted) = (std::fs::read(&path).unwrap(), std::fs::read(golden("written.gguf")).unwrap());
    let differs = own.iter().zip(&wanted).position(|(a, b)| a != b);
    assert_eq!((own.len(), differs), (wanted.len(), None));
}

#[test]
fn numbers_that_a_type_does_not_hold_are_refused() {
    let refused = |kind, x: f32| quantize("x", kind, &[x; 32]).unwrap_err().to_string();
    assert!(refused(TensorType::F16, 1e5).contains("65504"));
    assert!(refused(TensorType::Q8_0, 1e9).contains("BF16"));
    assert!(refused(TensorType::Bf16, f32::NAN).contains("NaN"));
    assert!(refused(TensorType::Q4K, 1.0).contains("are written"));
    assert!(quantize("x", TensorType::Q8_0, &[1.0; 31]).is_err());
    // A tensor of another size than planned.
    let mut writer = GgufWriter::new();
    writer.plan(TensorPlan { name: "x".into(), shape: vec![2, 2], kind: TensorType::F32 });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    assert!(writer.write::<Error>(&path, |_| Ok(vec![1.0; 3])).is_err());
    assert!(!path.exists());
}
