//! Gemma 3's language model: Gemma Team, 2025 (arXiv 2503.19786). Norms before and after each sub-layer, norms of q and k,
//! layers with a sliding window between global ones, each kind with its own rotary base. As transformers'
//! `Gemma3ForCausalLM`.

use super::attention::{Attention, AttentionShape, QkNorms};
use super::decoder::{Decoder, Shape};
use super::gated_mlp::GatedMlp;
use super::pass::{Block, Scoring};
use super::pre_norm::{After, PreNorm};
use super::site::{Sight, Site};
use super::stream::{Norm, behind};
use crate::config_source::ConfigSource;
use crate::rope::{Rope, RopeShape};
use crate::{Activation, Embedding, Result, RmsNorm};
use ragduet_torch::ParamBuilder;
use serde_json::{Map, Value};
use std::rc::Rc;

/// `config.json`, with transformers' defaults.
#[derive(Debug, serde::Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: i64,
    hidden_size: i64,
    intermediate_size: i64,
    num_hidden_layers: i64,
    num_attention_heads: i64,
    num_key_value_heads: i64,
    head_dim: i64,
    hidden_activation: Activation,
    max_position_embeddings: i64,
    initializer_range: f64,
    rms_norm_eps: f64,
    attention_bias: bool,
    attention_dropout: f64,
    query_pre_attn_scalar: f64,
    sliding_window: Option<i64>,
    layer_types: Option<Vec<String>>,
    /// Every so many layers one is global, where there are no `layer_types`.
    sliding_window_pattern: Option<i64>,
    final_logit_softcapping: Option<f64>,
    attn_logit_softcapping: Option<f64>,
    use_bidirectional_attention: Option<bool>,
    tie_word_embeddings: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 262_208,
            hidden_size: 2304,
            intermediate_size: 9216,
            num_hidden_layers: 26,
            num_attention_heads: 8,
            num_key_value_heads: 4,
            head_dim: 256,
            hidden_activation: Activation::GeluTanh,
            max_position_embeddings: 131_072,
            initializer_range: 0.02,
            rms_norm_eps: 1e-6,
            attention_bias: false,
            attention_dropout: 0.0,
            query_pre_attn_scalar: 256.0,
            sliding_window: Some(4096),
            layer_types: None,
            sliding_window_pattern: None,
            final_logit_softcapping: None,
            attn_logit_softcapping: None,
            use_bidirectional_attention: None,
            tie_word_embeddings: true,
        }
    }
}

/// What a layer sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The sliding window.
    Local,
    /// The whole text.
    Global,
}

impl Kind {
    /// Its name in `layer_types` and `rope_parameters`.
    fn name(self) -> &'static str {
        match self {
            Kind::Local => "sliding_attention",
            Kind::Global => "full_attention",
        }
    }

    /// Its place among the model's ropes.
    fn rope(self) -> usize {
        match self {
            Kind::Local => 0,
            Kind::Global => 1,
        }
    }

    /// The key of its rotary base before transformers 5, and the base where no key names one.
    fn theta(self) -> (&'static str, f64) {
        match self {
            Kind::Local => ("rope_local_base_freq", 10_000.0),
            Kind::Global => ("rope_theta", 1_000_000.0),
        }
    }
}

impl Config {
    fn check(&self, source: &ConfigSource<'_>) -> Result<()> {
        // transformers 5.3 reads this key and caps no attention scores.
        if self.attn_logit_softcapping.is_some() {
            return source.unsupported("attn_logit_softcapping", "null, as in every Gemma 3");
        }
        if self.final_logit_softcapping.is_some() {
            return source.unsupported("final_logit_softcapping", "null, as in every Gemma 3");
        }
        if self.head_dim < 2 || self.head_dim % 2 != 0 {
            return source.unsupported("head_dim", "an even number");
        }
        if self.query_pre_attn_scalar <= 0.0 {
            return source.unsupported("query_pre_attn_scalar", "a number above 0");
        }
        if self.sliding_window_pattern.is_some_and(|n| n < 1) {
            return source.unsupported("sliding_window_pattern", "a number of layers from 1");
        }
        source.heads_divide(self.num_attention_heads, self.num_key_value_heads, "num_key_value_heads")
    }

    /// What each layer sees.
    fn kinds(&self, source: &ConfigSource<'_>) -> Result<Vec<Kind>> {
        let count = self.num_hidden_layers.max(0) as usize;
        let Some(types) = &self.layer_types else {
            let every = self.sliding_window_pattern.unwrap_or(6) as usize;
            let kind = |i: usize| if (i + 1).is_multiple_of(every) { Kind::Global } else { Kind::Local };
            return Ok((0..count).map(kind).collect());
        };
        let known = |name: &String| [Kind::Local, Kind::Global].into_iter().find(|k| k.name() == name);
        let kinds: Vec<Kind> = types.iter().filter_map(known).collect();
        if kinds.len() != count || types.len() != count {
            let wanted = "`sliding_attention` or `full_attention` for each of the num_hidden_layers layers";
            return source.unsupported("layer_types", wanted);
        }
        Ok(kinds)
    }

    /// How far a token sees in a local layer.
    fn window(&self, source: &ConfigSource<'_>, sight: Sight) -> Result<i64> {
        match self.sliding_window {
            // transformers halves the key (n / 2 + 1) where this one makes attention bidirectional, and leaves the greater
            // distance out unless `is_causal` is false as well.
            Some(n) if n > 0 && self.use_bidirectional_attention == Some(true) => {
                let reach = n / 2;
                let wide = source.json.get("is_causal").and_then(Value::as_bool) == Some(false);
                Ok(if wide { reach + 1 } else { reach })
            }
            Some(n) if n > 0 => Ok(sight.window(n)),
            _ => source.unsupported("sliding_window", "a number of tokens from 1"),
        }
    }

    /// The rope of one kind of layers: its table in `rope_parameters`, or the keys before transformers 5, where
    /// `rope_scaling` is about global layers alone.
    fn rope(&self, source: &ConfigSource<'_>, kind: Kind, b: &ParamBuilder) -> Result<Rope> {
        let object = |key: &str| source.json.get(key).filter(|v| !v.is_null());
        let mut given = Map::new();
        if let Some(all) = object("rope_parameters") {
            match all.get(kind.name()) {
                Some(Value::Object(own)) => given = own.clone(),
                Some(Value::Null) => {}
                None if all.as_object().is_some_and(|all| all.values().all(Value::is_object)) => {}
                _ => {
                    let wanted = "a table for `full_attention` and one for `sliding_attention`";
                    return source.unsupported("rope_parameters", wanted);
                }
            }
        }
        if let (Kind::Global, Some(Value::Object(scaling))) = (kind, object("rope_scaling")) {
            given.extend(scaling.clone());
        }
        let (key, usual) = kind.theta();
        if source.number("partial_rotary_factor").is_some_and(|f| f != 1.0) {
            return source.unsupported("partial_rotary_factor", "1");
        }
        if given.get("partial_rotary_factor").and_then(Value::as_f64).is_some_and(|f| f != 1.0) {
            return source.unsupported("rope_parameters", "a partial_rotary_factor of 1");
        }
        let shape = RopeShape {
            rotated: self.head_dim,
            positions: self.max_position_embeddings,
            theta: source.number(key).unwrap_or(usual),
        };
        Rope::with(source, &given, shape, b.device())
    }
}

fn layer(c: &Config, kind: Kind, window: Option<i64>, b: &ParamBuilder) -> Result<PreNorm> {
    let (h, std) = (c.hidden_size, c.initializer_range);
    let norm = |name: &str| RmsNorm::build_offset(&b.at(name), h, c.rms_norm_eps);
    let attention = AttentionShape {
        hidden: h,
        heads: c.num_attention_heads,
        kv_heads: c.num_key_value_heads,
        head_dim: c.head_dim,
        bias: c.attention_bias,
        out_bias: c.attention_bias,
        init_std: std,
        fused: false,
        norms: Some(QkNorms { build: RmsNorm::build_offset, eps: c.rms_norm_eps, whole: false }),
        scoring: Scoring { window, ..Scoring::plain(c.query_pre_attn_scalar.powf(-0.5)) },
        rope: Some(kind.rope()),
    };
    let size = [h, c.intermediate_size];
    Ok(PreNorm {
        attention_norm: Norm::Rms(norm("input_layernorm")?),
        attention: Attention::build(&b.at("self_attn"), attention)?,
        after_attention: After::Normed(norm("post_attention_layernorm")?),
        mlp_norm: Norm::Rms(norm("pre_feedforward_layernorm")?),
        mlp: GatedMlp::build(&b.at("mlp"), size, false, c.hidden_activation, std)?,
        after_mlp: After::Normed(norm("post_feedforward_layernorm")?),
        bottlenecks: behind(b, h),
    })
}

pub(super) fn build(source: &ConfigSource<'_>, site: &Site<'_>) -> Result<Decoder> {
    let c: Config = source.parse()?;
    c.check(source)?;
    let kinds = c.kinds(source)?;
    let sight = site.sight(source, true)?;
    let local = if kinds.contains(&Kind::Local) { Some(c.window(source, sight)?) } else { None };
    let (h, std) = (c.hidden_size, c.initializer_range);
    let (b, m) = (site.root(), site.body());
    let words = Embedding::build(&m.at("embed_tokens"), c.vocab_size, h, std)?;
    let block = |(i, &kind): (usize, &Kind)| {
        let window = local.filter(|_| kind == Kind::Local);
        Ok(Rc::new(layer(&c, kind, window, &m.at("layers").at(i))?) as Rc<dyn Block>)
    };
    let blocks = kinds.iter().enumerate().map(block).collect::<Result<Vec<_>>>()?;
    let head = site.head(&words, c.tie_word_embeddings, std)?;
    let shape = Shape {
        vocab: c.vocab_size,
        hidden: h,
        kv_heads: c.num_key_value_heads,
        head_dim: c.head_dim,
        positions: c.max_position_embeddings,
        embedding_scale: (h as f64).sqrt(),
        attention_dropout: c.attention_dropout,
        ..Shape::usual(site, sight)
    };
    Ok(Decoder {
        words,
        places: None,
        ropes: vec![c.rope(source, Kind::Local, b)?, c.rope(source, Kind::Global, b)?],
        norm: Norm::Rms(RmsNorm::build_offset(&m.at("norm"), h, c.rms_norm_eps)?),
        head,
        soft: shape.soft(b, blocks.len()),
        blocks,
        shape,
        recompute: false,
    })
}
