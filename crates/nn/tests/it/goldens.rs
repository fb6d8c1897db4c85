//! The golden folders of language models, found by the `model_type` that their config.json names.

use ragduet_nn::arch::{ArchSpec, LANGUAGE_MODELS, MULTIMODAL};
use std::path::Path;

/// Names of the folders in `golden/lm` and the architectures that their models are of, in the order of names.
pub fn language_models() -> Vec<(String, &'static ArchSpec)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lm");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let Ok(text) = std::fs::read(path.join("config.json")) else { continue };
        let config: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let kind = config["model_type"].as_str().unwrap();
        let of = MULTIMODAL.iter().find(|m| m.model_type == kind).map_or(kind, |m| m.text);
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        all.push((name, ArchSpec::of(of).unwrap_or_else(|| panic!("{kind} is in no table"))));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// A folder of each architecture, the first by name.
pub fn one_of_each(wanted: impl Fn(&ArchSpec) -> bool) -> Vec<String> {
    let all = language_models();
    let first = |spec: &ArchSpec| {
        let found = all.iter().find(|(_, s)| s.model_type == spec.model_type);
        found.unwrap_or_else(|| panic!("no golden of {}", spec.model_type)).0.clone()
    };
    LANGUAGE_MODELS.iter().filter(|s| wanted(s)).map(first).collect()
}
