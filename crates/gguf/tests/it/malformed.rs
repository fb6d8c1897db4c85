//! Damaged files are errors: no panic, and no memory for what is not there.

use crate::types::golden;
use proptest::prelude::*;
use ragduet_gguf::{Error, GgufFile, Result, Vocabulary, is_gguf};
use std::path::Path;

fn read_all(path: &Path) -> Result<()> {
    let file = GgufFile::open(path)?;
    // A vocabulary is not in these files: an error is right.
    let _ = Vocabulary::read(file.metadata());
    for tensor in file.tensors() {
        file.read(&tensor.name)?;
    }
    Ok(())
}

fn with(bytes: &[u8]) -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    std::fs::write(&path, bytes).unwrap();
    read_all(&path)
}

#[test]
fn a_file_that_ends_too_early_is_an_error_wherever_it_ends() {
    let whole = std::fs::read(golden("types.gguf")).unwrap();
    // The last tensor is padded.
    let end = whole.len() - 28;
    assert!(with(&whole).is_ok());
    for cut in (0..end).step_by(29).chain([end - 1]) {
        let e = with(&whole[..cut]).unwrap_err();
        assert!(matches!(e, Error::Malformed { .. } | Error::NotGguf(_)), "{cut}: {e}");
    }
}

#[test]
fn other_files_and_versions_are_told_apart() {
    let whole = std::fs::read(golden("types.gguf")).unwrap();
    let version = |n: u32| [&whole[..4], &n.to_le_bytes(), &whole[8..]].concat();
    assert!(with(&version(2)).is_ok());
    assert!(matches!(with(&version(1)), Err(Error::Version { version: 1, .. })));
    assert!(matches!(with(&version(4)), Err(Error::Version { version: 4, .. })));
    assert!(matches!(with(&version(3u32.swap_bytes())), Err(Error::BigEndian(_))));
    assert!(matches!(with(b"version https://git-lfs.github.com/spec/v1\n"), Err(Error::NotGguf(_))));
    let dir = tempfile::tempdir().unwrap();
    let blob = dir.path().join("sha256-0123");
    std::fs::write(&blob, &whole).unwrap();
    assert!(is_gguf(&blob));
    std::fs::write(&blob, "GGU").unwrap();
    assert!(!is_gguf(&blob) && !is_gguf(dir.path()));
}

/// Puts a number in the place where the bytes of another stand.
fn patched(old: &[u8], new: &[u8]) -> Result<()> {
    let mut whole = std::fs::read(golden("types.gguf")).unwrap();
    let at = whole.windows(old.len()).position(|w| w == old).unwrap();
    whole[at..at + new.len()].copy_from_slice(new);
    with(&whole)
}

#[test]
fn absurd_counts_and_places_are_errors() {
    let huge = u64::MAX.to_le_bytes();
    let named = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    // The length of a key; the number of values; that of tensors.
    assert!(patched(&named("test.text"), &huge).is_err());
    let whole = std::fs::read(golden("types.gguf")).unwrap();
    for at in [8, 16] {
        for n in [u64::MAX, 1 << 60, 1 << 32] {
            let mut bytes = whole.clone();
            bytes[at..at + 8].copy_from_slice(&n.to_le_bytes());
            assert!(matches!(with(&bytes), Err(Error::Malformed { .. })), "{at} {n}");
        }
    }
    // A tensor's dimensions, sizes, type and place.
    let name = named("q4_0.weight");
    let tensor = |more: &[u8]| [name.as_slice(), more].concat();
    let after = |skip: usize, new: &[u8]| {
        let at = whole.windows(name.len()).position(|w| w == name).unwrap() + name.len() + skip;
        let mut bytes = whole.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        with(&bytes)
    };
    assert!(patched(&tensor(&[]), &named("q4_1.weight")).unwrap_err().to_string().contains("twice"));
    for dimensions in [0u32, 5, u32::MAX] {
        assert!(matches!(after(0, &dimensions.to_le_bytes()), Err(Error::Malformed { .. })));
    }
    for size in [0u64, 33, 1 << 62, u64::MAX] {
        assert!(matches!(after(4, &size.to_le_bytes()), Err(Error::Malformed { .. })), "{size}");
    }
    let e = after(20, &10u32.to_le_bytes()).unwrap_err();
    assert!(matches!(&e, Error::TensorType { found, .. } if found == "Q2_K"), "{e}");
    assert!(e.to_string().contains("Q4_K"), "{e}");
    for place in [1u64, 1 << 20, u64::MAX - 31] {
        assert!(matches!(after(24, &place.to_le_bytes()), Err(Error::Malformed { .. })), "{place}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn no_change_of_bytes_panics(changes in prop::collection::vec((0usize..2000, any::<u8>()), 1..6)) {
        let mut whole = std::fs::read(golden("types.gguf")).unwrap();
        for (at, byte) in changes {
            whole[at] = byte;
        }
        let _ = with(&whole);
    }
}
