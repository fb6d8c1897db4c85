//! Which tokens end a text.

use crate::{Error, GenerationConfig, Result};
use ragduet_gguf::{Metadata, Vocabulary};
use serde_json::{Map, Value, json};

/// The special tokens of a file as a `generation_config.json`; one that llama.cpp takes for the end of a text or a turn ends
/// it here.
pub(super) fn read(metadata: &Metadata) -> Result<GenerationConfig> {
    let words = Vocabulary::read(metadata)?;
    for note in &words.notes {
        tracing::warn!("{}: {note}", metadata.path().display());
    }
    let mut file = Map::new();
    for (key, id) in [("bos_token_id", words.bos), ("pad_token_id", words.pad)] {
        if let Some(id) = id {
            file.insert(key.into(), id.into());
        }
    }
    match words.ends.as_slice() {
        [] => {}
        [one] => drop(file.insert("eos_token_id".into(), json!(one))),
        several => drop(file.insert("eos_token_id".into(), json!(several))),
    }
    let file = Value::Object(file);
    let source = |source| Error::Json { path: metadata.path().into(), source };
    let parsed: GenerationConfig = serde_json::from_value(file.clone()).map_err(source)?;
    Ok(GenerationConfig { file: Some(file), ..parsed })
}
