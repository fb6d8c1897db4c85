//! RoBERTa (Liu et al., 2019, arXiv 1907.11692) and, with the same computation, XLM-R and CamemBERT: BERT whose
//! positions start behind the padding id.

use super::bert::{Config, NAMES};
use super::post_norm::PostNorm;
use crate::Result;
use crate::config_source::ConfigSource;
use ragduet_torch::ParamBuilder;

pub(super) fn build(source: &ConfigSource<'_>, b: &ParamBuilder) -> Result<PostNorm> {
    let config: Config = source.parse()?;
    config.check(source)?;
    let padding = config.pad_token_id.unwrap_or(1);
    PostNorm::build(config.shape(padding + 1), &NAMES, b)
}
