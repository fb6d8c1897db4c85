//! Models by folder or by id of the Hugging Face hub (`org/name` or `org/name@revision`).
//!
//! The hub's cache is the one that the Python tools share (`HF_HOME`, `HF_HUB_CACHE`), the token comes from
//! `HF_TOKEN` or the file that `hf auth login` leaves, another endpoint from `HF_ENDPOINT`; `HF_HUB_OFFLINE=1`
//! means the cache only.

use crate::{Error, Result};
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use ragduet_gguf::is_gguf;
use std::path::{Path, PathBuf};

/// The files of a model directory, beside the weights, that are fetched where the repository has them.
const OPTIONAL: [&str; 13] = [
    "generation_config.json",
    "chat_template.jinja",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
    "2_Normalize/config.json",
];

/// The local directory of a model: `name` itself where it is one, else the hub's snapshot. A GGUF file stands for a
/// directory.
pub fn resolve(name: &str) -> Result<PathBuf> {
    let path = Path::new(name);
    if is_gguf(path) {
        return Ok(path.into());
    }
    let fail = |reason: String| Err(Error::Hub { id: name.into(), reason });
    if path.is_dir() {
        let has = |file: &str| path.join(file).is_file();
        let is_model =
            ["config.json", "modules.json", "adapter_config.json", "router_config.json"].into_iter().any(has);
        if !is_model && has("config.toml") && has("environment.json") {
            return fail(match path.join("best").is_dir() {
                true => format!("the folder of a run; its model is {}", path.join("best").display()),
                false => "the folder of a run that has no model yet (best/)".into(),
            });
        }
        return Ok(path.into());
    }
    let (id, revision) = name.split_once('@').unwrap_or((name, "main"));
    let looks_like_id = id.matches('/').count() <= 1
        && !id.starts_with(['.', '/', '~'])
        && id.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    if !looks_like_id || name.to_ascii_lowercase().ends_with(".gguf") {
        return fail("no such folder or GGUF file".into());
    }
    if path.is_file() {
        return fail("a file, but no GGUF file; give the folder of a model".into());
    }
    let repo = Repo::with_revision(id.into(), RepoType::Model, revision.into());
    let cache = cache();
    if let Some(config) = cache.repo(repo.clone()).get("config.json") {
        let dir = parent(&config);
        if has_weights(&dir) {
            return Ok(dir);
        }
    }
    if offline() {
        return fail(format!(
            "no such folder, and not in the cache at {} (HF_HUB_OFFLINE is set)",
            cache.path().display()
        ));
    }
    match fetch(repo, cache) {
        Ok(dir) => Ok(dir),
        Err(e) => fail(explain(&e, id, revision)),
    }
}

fn fetch(repo: Repo, cache: Cache) -> std::result::Result<PathBuf, ApiError> {
    let mut builder = ApiBuilder::from_cache(cache);
    if let Ok(endpoint) = std::env::var("HF_ENDPOINT") {
        builder = builder.with_endpoint(endpoint);
    }
    for key in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
        if let Ok(token) = std::env::var(key) {
            builder = builder.with_token(Some(token));
            break;
        }
    }
    let api: Api = builder.build()?;
    let repo: ApiRepo = api.repo(repo);
    let config = repo.get("config.json")?;
    let info = repo.info()?;
    let listed = |name: &str| info.siblings.iter().any(|s| s.rfilename == name);
    for sibling in &info.siblings {
        let file = sibling.rfilename.as_str();
        // Mistral's repositories hold the weights twice, "consolidated" in another format.
        let weights = !file.contains('/')
            && !file.starts_with("consolidated")
            && (file.ends_with(".safetensors") || file.ends_with(".safetensors.index.json"));
        if weights {
            repo.get(file)?;
        }
    }
    for file in OPTIONAL {
        if listed(file) {
            repo.get(file)?;
        }
    }
    Ok(parent(&config))
}

fn explain(e: &ApiError, id: &str, revision: &str) -> String {
    let text = e.to_string();
    let cause = if text.contains("404") {
        format!(
            "the hub has no `{id}` at revision `{revision}`, or it is private and no token is set (HF_TOKEN)"
        )
    } else if text.contains("401") || text.contains("403") {
        "access denied: accept the model's terms on its page and set HF_TOKEN".to_string()
    } else {
        format!("the Hugging Face hub cannot be reached ({text})")
    };
    format!(
        "no such folder, and {cause}. Offline, copy the model's folder here and give its path, or put it in the \
         cache with `hf download {id}` on a machine that is online"
    )
}

fn cache() -> Cache {
    match std::env::var_os("HF_HUB_CACHE") {
        Some(dir) => Cache::new(dir.into()),
        None => Cache::from_env(),
    }
}

/// Whether the hub must not be asked (`HF_HUB_OFFLINE`).
pub fn offline() -> bool {
    std::env::var("HF_HUB_OFFLINE")
        .is_ok_and(|v| matches!(v.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"))
}

/// Where downloaded models lie.
pub fn cache_dir() -> PathBuf {
    cache().path().clone()
}

fn has_weights(dir: &Path) -> bool {
    use ragduet_torch::weights::{INDEX_FILE, MODEL_FILE};
    dir.join(MODEL_FILE).exists() || dir.join(INDEX_FILE).exists()
}

fn parent(file: &Path) -> PathBuf {
    file.parent().map(Path::to_path_buf).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_taken_as_it_is_and_nonsense_is_refused_without_network() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(resolve(&dir.path().display().to_string()).unwrap(), dir.path());
        for name in ["./no/such/dir", "/no/such", "a/b/c", "we ird"] {
            let e = resolve(name).unwrap_err().to_string();
            assert!(e.contains("no such folder"), "{e}");
        }
    }
}
