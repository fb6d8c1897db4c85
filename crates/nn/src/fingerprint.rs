//! What a model's folder holds, as one number: whether the weights are those that something was made with.

use crate::hub;
use fs_err::{self as fs, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// Endings of files that decide what a model computes.
const ENDINGS: [&str; 6] = ["safetensors", "bin", "json", "txt", "model", "jinja"];

/// Files beside a model that say something about it and decide nothing.
const BESIDE: [&str; 3] = ["manifest.json", "ragduet_prompt.json", "best.json"];

/// A hash of a model's folder: weights, configs and tokenizer, and of an adapter also its base; of a GGUF file its bytes.
///
/// # Errors
/// Files that cannot be read; an adapter's base that is not there.
pub fn of_model(dir: &Path) -> io::Result<String> {
    if dir.is_file() {
        let mut hash = Xxh3::new();
        add(&mut hash, dir)?;
        return Ok(format!("{:016x}", hash.digest()));
    }
    let decides = |path: &Path| {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        ENDINGS.contains(&ending) && !BESIDE.contains(&name)
    };
    let mut hash = Xxh3::new();
    let files = files(dir)?;
    for path in files.iter().filter(|p| decides(p)) {
        hash.update(path.strip_prefix(dir).unwrap_or(path).as_os_str().as_encoded_bytes());
        add(&mut hash, path)?;
        if path.file_name().is_some_and(|n| n == "adapter_config.json") {
            let config: serde_json::Value = serde_json::from_slice(&fs::read(path)?)?;
            if let Some(base) = config.get("base_model_name_or_path").and_then(|b| b.as_str()) {
                let base = hub::resolve(base).map_err(io::Error::other)?;
                hash.update(of_model(&base)?.as_bytes());
            }
        }
    }
    Ok(format!("{:016x}", hash.digest()))
}

/// A hash of a corpus: a file's bytes; of a folder its `corpus.*`, else all of it.
///
/// # Errors
/// Files that cannot be read.
pub fn of_corpus(path: &Path) -> io::Result<String> {
    let mut hash = Xxh3::new();
    if path.is_dir() {
        let all = files(path)?;
        let named = |p: &&PathBuf| {
            p.parent() == Some(path)
                && p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("corpus."))
        };
        let corpus: Vec<&PathBuf> = all.iter().filter(named).collect();
        let chosen = if corpus.is_empty() { all.iter().collect() } else { corpus };
        for file in chosen {
            add(&mut hash, file)?;
        }
    } else {
        add(&mut hash, path)?;
    }
    Ok(format!("{:016x}", hash.digest()))
}

/// All files under a folder, in order.
fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut out, mut folders) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
            match (hidden, path.is_dir()) {
                (true, _) => {}
                // A link to a folder may lead back here.
                (false, true) if !path.is_symlink() => folders.push(path),
                (false, true) => {}
                (false, false) => out.push(path),
            }
        }
    }
    out.sort();
    Ok(out)
}

fn add(hash: &mut Xxh3, path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    hash.update(&file.metadata()?.len().to_le_bytes());
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            n => hash.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_bases_and_texts_make_another_hash_and_notes_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let (model, base) = (dir.path().join("m"), dir.path().join("base"));
        for d in [&model, &base] {
            fs::create_dir_all(d).unwrap();
            fs::write(d.join("model.safetensors"), "weights").unwrap();
        }
        let config = serde_json::json!({ "base_model_name_or_path": base });
        fs::write(model.join("adapter_config.json"), config.to_string()).unwrap();
        let first = of_model(&model).unwrap();
        fs::write(model.join("README.md"), "words").unwrap();
        assert_eq!(of_model(&model).unwrap(), first);
        fs::write(base.join("model.safetensors"), "Weights").unwrap();
        let second = of_model(&model).unwrap();
        assert_ne!(second, first);
        fs::write(model.join("model.safetensors"), "weightS").unwrap();
        assert_ne!(of_model(&model).unwrap(), second);

        let corpus = dir.path().join("beir");
        fs::create_dir_all(&corpus).unwrap();
        fs::write(corpus.join("corpus.jsonl"), "a").unwrap();
        let first = of_corpus(&corpus).unwrap();
        fs::write(corpus.join("queries.jsonl"), "q").unwrap();
        assert_eq!(of_corpus(&corpus).unwrap(), first);
        fs::write(corpus.join("corpus.jsonl"), "b").unwrap();
        assert_ne!(of_corpus(&corpus).unwrap(), first);
    }
}
