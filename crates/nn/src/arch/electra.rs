//! ELECTRA: Clark et al., 2020 (arXiv 2003.10555). BERT whose embeddings may be narrower than its layers. As transformers'
//! `ElectraModel`.

use super::bert;
use super::post_norm::PostNorm;
use crate::Result;
use crate::config_source::ConfigSource;
use ragduet_torch::ParamBuilder;
use serde_json::{Value, json};

pub(super) fn build(source: &ConfigSource<'_>, b: &ParamBuilder) -> Result<PostNorm> {
    // Where a config leaves sizes out, they are those of the small model.
    let mut json = json!({
        "embedding_size": 128, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024,
    });
    if let (Some(all), Some(own)) = (json.as_object_mut(), source.json.as_object()) {
        all.extend(own.iter().map(|(k, v)| (k.clone(), v.clone())));
    }
    let full = ConfigSource { path: source.path, json: &json };
    let config: bert::Config = full.parse()?;
    config.check(source)?;
    let mut shape = config.shape(0);
    shape.embedding = json.get("embedding_size").and_then(Value::as_i64).unwrap_or(shape.hidden);
    PostNorm::build(shape, &bert::NAMES, b)
}
