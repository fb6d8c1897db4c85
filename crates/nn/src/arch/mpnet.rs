//! MPNet: Song et al., 2020 (arXiv 2004.09297); BERT's block with a relative position bias shared by all layers.
//! Names and buckets as transformers' `MPNetModel`.

use super::bert::Config;
use super::post_norm::{Names, PostNorm, Shape};
use super::relative::{self, RelativeBias};
use crate::Result;
use crate::config_source::ConfigSource;
use ragduet_torch::ParamBuilder;

const NAMES: Names = Names {
    layers: &["encoder", "layer"],
    layer_prefix: "encoder.layer.",
    query: "attention.attn.q",
    key: "attention.attn.k",
    value: "attention.attn.v",
    attention_out: "attention.attn.o",
    attention_norm: "attention.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    output_norm: "output.LayerNorm",
    bottlenecks: ["attention", "output"],
};

/// transformers fixes the padding id, and with it the first position, whatever the config says.
const FIRST_POSITION: i64 = 2;

#[derive(Debug, serde::Deserialize)]
struct Buckets {
    #[serde(default = "default_buckets")]
    relative_attention_num_buckets: i64,
}

fn default_buckets() -> i64 {
    32
}

pub(super) fn build(source: &ConfigSource<'_>, b: &ParamBuilder) -> Result<PostNorm> {
    let config: Config = source.parse()?;
    config.check(source)?;
    let buckets: Buckets = source.parse()?;
    if buckets.relative_attention_num_buckets != default_buckets() {
        // transformers' own forward pass uses 32 whatever the config says.
        return source.unsupported("relative_attention_num_buckets", "32");
    }
    let shape = Shape { types: 0, ..config.shape(FIRST_POSITION) };
    let at = b.at("encoder.relative_attention_bias");
    let sizes = relative::Buckets { count: 32, reach: 128 };
    let bias = RelativeBias::build(&at, &sizes, true, shape.heads, shape.init_std)?;
    Ok(PostNorm::build(shape, &NAMES, b)?.with_relative(bias))
}
