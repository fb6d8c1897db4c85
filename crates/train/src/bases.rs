//! The base models that a config names, and whether they are still what they were.

use std::collections::BTreeMap;
use std::io::{Read, Result};
use std::path::{Path, PathBuf};
use toml::{Table, Value};
use xxhash_rust::xxh3::Xxh3;

/// The key under which configs name a model that is trained on, or kept frozen beneath an adapter.
const BASE: &str = "base";

/// A hash of the folder (or the GGUF file) of each base model, by its key in a resolved config. Ids of the hub are not looked into: a revision
/// of one does not change.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn of(config: &str) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    let table: Table = toml::from_str(config).map_err(std::io::Error::other)?;
    walk("", &table, &mut |key, folder| {
        if Path::new(folder).exists() {
            all.insert(key.to_string(), format!("{:016x}", hash(Path::new(folder))?));
        }
        Ok(())
    })?;
    Ok(all)
}

fn walk(path: &str, table: &Table, found: &mut impl FnMut(&str, &str) -> Result<()>) -> Result<()> {
    for (key, value) in table {
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            Value::Table(inner) => walk(&full, inner, found)?,
            Value::String(folder) if key == BASE => found(&full, folder)?,
            _ => {}
        }
    }
    Ok(())
}

/// A hash of what is computed with: weights, tokenizer and settings, by name; cards and the like may change.
fn hash(folder: &Path) -> Result<u64> {
    let files = if folder.is_file() { vec![folder.to_path_buf()] } else { deciding(folder)? };
    let mut all = Xxh3::new();
    let mut buffer = vec![0; 1 << 20];
    for path in files {
        all.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        let mut file = fs_err::File::open(path)?;
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            all.update(&buffer[..n]);
        }
    }
    Ok(all.digest())
}

fn deciding(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        let kept =
            path.extension().is_some_and(|e| e == "json" || e == "safetensors" || e == "txt" || e == "jinja");
        if path.is_file() && kept {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_count_and_cards_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs_err::write(dir.path().join(name), text).unwrap();
        put("model.safetensors", "1");
        put("README.md", "1");
        let config = format!(
            "a = 1\n[retriever.model]\nbase = {:?}\n[generator.model]\nbase = \"org/name\"\n",
            dir.path()
        );
        let before = of(&config).unwrap();
        assert_eq!(before.keys().collect::<Vec<_>>(), ["retriever.model.base"]);
        put("README.md", "2");
        assert_eq!(of(&config).unwrap(), before);
        put("model.safetensors", "2");
        assert_ne!(of(&config).unwrap(), before);

        put("model.gguf", "1");
        let config = format!("[model]\nbase = {:?}\n", dir.path().join("model.gguf"));
        let before = of(&config).unwrap();
        assert_eq!(before.keys().collect::<Vec<_>>(), ["model.base"]);
        put("model.gguf", "2");
        assert_ne!(of(&config).unwrap(), before);
    }
}
