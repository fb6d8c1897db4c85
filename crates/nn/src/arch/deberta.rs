//! DeBERTa v2 and v3: He et al., 2021 (arXiv 2006.03654; v3: 2111.09543). Scores of contents, of contents against relative
//! positions, and of relative positions against contents. As transformers' `DebertaV2Model`.
//!
//! The position scores depend on queries and keys, so no kernel for packed rows takes them: texts of about the same length
//! are padded into groups, as for T5's bias.

use super::relative::Layout;
use crate::config_source::ConfigSource;
use crate::encoder::{Encoder, depth_by_prefix};
use crate::layers::lower;
use crate::{Activation, Embedding, LayerNorm, Linear, Mode, PackedTokens, Result};
use ragduet_torch::ops::Segments;
use ragduet_torch::{Device, Init, Kind, ParamBuilder, Tensor, no_grad};
use serde_json::Value;

/// `config.json`, with transformers' defaults.
#[derive(Debug, serde::Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: i64,
    hidden_size: i64,
    embedding_size: Option<i64>,
    num_hidden_layers: i64,
    num_attention_heads: i64,
    attention_head_size: Option<i64>,
    intermediate_size: i64,
    hidden_act: Activation,
    hidden_dropout_prob: f64,
    attention_probs_dropout_prob: f64,
    max_position_embeddings: i64,
    type_vocab_size: i64,
    initializer_range: f64,
    layer_norm_eps: f64,
    relative_attention: bool,
    max_relative_positions: i64,
    position_buckets: i64,
    position_biased_input: bool,
    share_att_key: bool,
    /// A list, or its members with `|` between.
    pos_att_type: Option<Value>,
    norm_rel_ebd: String,
    conv_kernel_size: i64,
    conv_groups: i64,
    conv_act: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 128_100,
            hidden_size: 1536,
            embedding_size: None,
            num_hidden_layers: 24,
            num_attention_heads: 24,
            attention_head_size: None,
            intermediate_size: 6144,
            hidden_act: Activation::Gelu,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            max_position_embeddings: 512,
            type_vocab_size: 0,
            initializer_range: 0.02,
            layer_norm_eps: 1e-7,
            relative_attention: false,
            max_relative_positions: -1,
            position_buckets: -1,
            position_biased_input: true,
            share_att_key: false,
            pos_att_type: None,
            norm_rel_ebd: "none".into(),
            conv_kernel_size: 0,
            conv_groups: 1,
            conv_act: None,
        }
    }
}

/// Which scores there are beside those of contents.
#[derive(Debug, Clone, Copy, Default)]
struct PositionScores {
    /// Contents of queries against positions of keys.
    c2p: bool,
    /// Positions of queries against contents of keys.
    p2c: bool,
}

impl Config {
    fn check(&self, source: &ConfigSource<'_>) -> Result<()> {
        if self.position_buckets > 0
            && (self.position_buckets < 4 || self.furthest() <= self.position_buckets / 2)
        {
            return source
                .unsupported("position_buckets", "from 4, and less than twice max_relative_positions");
        }
        if self.conv_kernel_size > 0 && (self.conv_kernel_size % 2 == 0 || self.conv_groups < 1) {
            return source.unsupported("conv_kernel_size", "an odd number");
        }
        if self.conv_act.as_deref().is_some_and(|a| a != "tanh" && a != "gelu") {
            return source.unsupported("conv_act", "tanh or gelu");
        }
        let known = ["none", "layer_norm"];
        if self.norm_rel_ebd.to_lowercase().split('|').any(|part| !known.contains(&part.trim())) {
            return source.unsupported("norm_rel_ebd", "none or layer_norm");
        }
        source.heads_divide(self.hidden_size, self.num_attention_heads, "num_attention_heads")
    }

    fn scores(&self, source: &ConfigSource<'_>) -> Result<PositionScores> {
        let names: Vec<String> = match &self.pos_att_type {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(s)) => s.to_lowercase().split('|').map(|x| x.trim().to_string()).collect(),
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(String::from).collect(),
            Some(_) => vec!["?".into()],
        };
        if names.iter().any(|n| n != "c2p" && n != "p2c" && !n.is_empty()) {
            return source.unsupported("pos_att_type", "c2p, p2c or both");
        }
        let has = |name: &str| names.iter().any(|n| n == name);
        Ok(PositionScores { c2p: has("c2p"), p2c: has("p2c") })
    }

    /// The greatest distance that is told apart.
    fn furthest(&self) -> i64 {
        if self.max_relative_positions < 1 {
            self.max_position_embeddings
        } else {
            self.max_relative_positions
        }
    }

    /// Half the number of relative positions.
    fn span(&self) -> i64 {
        if self.position_buckets > 0 { self.position_buckets } else { self.furthest() }
    }

    fn head_dim(&self) -> i64 {
        self.attention_head_size.unwrap_or(self.hidden_size / self.num_attention_heads)
    }
}

#[derive(Debug)]
struct Block {
    query: Linear,
    key: Linear,
    value: Linear,
    /// Of relative positions; none: `key` and `query`.
    position_key: Option<Linear>,
    position_query: Option<Linear>,
    out: Linear,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    output_norm: LayerNorm,
}

impl Block {
    fn build(c: &Config, scores: PositionScores, b: &ParamBuilder) -> Result<Self> {
        let (h, inner, std) = (c.hidden_size, c.num_attention_heads * c.head_dim(), c.initializer_range);
        let linear = |name: &str, inputs, outputs| Linear::build(&b.at(name), inputs, outputs, true, std);
        let norm = |name: &str| LayerNorm::build(&b.at(name), h, c.layer_norm_eps, true);
        let own = c.relative_attention && !c.share_att_key;
        let position = |on: bool, name: &str| -> Result<Option<Linear>> {
            if own && on { Ok(Some(linear(name, h, inner)?)) } else { Ok(None) }
        };
        Ok(Self {
            query: linear("attention.self.query_proj", h, inner)?,
            key: linear("attention.self.key_proj", h, inner)?,
            value: linear("attention.self.value_proj", h, inner)?,
            position_key: position(scores.c2p, "attention.self.pos_key_proj")?,
            position_query: position(scores.p2c, "attention.self.pos_query_proj")?,
            out: linear("attention.output.dense", inner, h)?,
            attention_norm: norm("attention.output.LayerNorm")?,
            up: linear("intermediate.dense", h, c.intermediate_size)?,
            down: linear("output.dense", c.intermediate_size, h)?,
            output_norm: norm("output.LayerNorm")?,
        })
    }
}

/// A convolution over each text, behind the first layer (v2 alone).
#[derive(Debug)]
struct Convolution {
    weight: Tensor,
    bias: Tensor,
    norm: LayerNorm,
    groups: i64,
    gelu: bool,
}

impl Convolution {
    fn build(c: &Config, b: &ParamBuilder) -> Result<Option<Self>> {
        if c.conv_kernel_size <= 0 {
            return Ok(None);
        }
        let (h, at) = (c.hidden_size, b.at("conv"));
        let size = [h, h / c.conv_groups, c.conv_kernel_size];
        let bound = Init::Uniform(((size[1] * size[2]) as f64).powf(-0.5));
        Ok(Some(Self {
            weight: at.get("weight", &size, bound)?,
            bias: at.get("bias", &[h], bound)?,
            norm: LayerNorm::build(&b.at("LayerNorm"), h, c.layer_norm_eps, true)?,
            groups: c.conv_groups,
            gelu: c.conv_act.as_deref() == Some("gelu"),
        }))
    }

    /// LayerNorm(residual + act(dropout(conv(x)))), f32 rows.
    fn forward(&self, x: &Tensor, residual: &Tensor, segs: &Segments, dropout: f64, m: Mode) -> Tensor {
        let pad = self.weight.size()[2] / 2;
        let each = segs.offsets().windows(2).filter(|w| w[1] > w[0]).map(|w| {
            let rows = x.narrow(0, w[0], w[1] - w[0]).tr().unsqueeze(0);
            rows.conv1d(&self.weight, Some(&self.bias), 1, pad, 1, self.groups).squeeze_dim(0).tr()
        });
        let out = Tensor::cat(&each.collect::<Vec<_>>(), 0).dropout(dropout, m.train);
        let out = if self.gelu { out.gelu("none") } else { out.tanh() };
        self.norm.forward(&(residual + out), m)
    }
}

#[derive(Debug)]
pub(super) struct Deberta {
    words: Embedding,
    places: Option<Embedding>,
    types: Option<Embedding>,
    project: Option<Linear>,
    norm: LayerNorm,
    blocks: Vec<Block>,
    /// [2 span, hidden].
    relative: Option<Embedding>,
    relative_norm: Option<LayerNorm>,
    convolution: Option<Convolution>,
    scores: PositionScores,
    config: Config,
}

impl Deberta {
    pub(super) fn build(source: &ConfigSource<'_>, b: &ParamBuilder) -> Result<Self> {
        let c: Config = source.parse()?;
        c.check(source)?;
        let scores = c.scores(source)?;
        let (h, std) = (c.hidden_size, c.initializer_range);
        let width = c.embedding_size.unwrap_or(h);
        let (e, n) = (b.at("embeddings"), b.at("encoder"));
        let table = |name: &str, rows: i64, on: bool| -> Result<Option<Embedding>> {
            if on { Ok(Some(Embedding::build(&e.at(name), rows, width, std)?)) } else { Ok(None) }
        };
        let named = c.norm_rel_ebd.to_lowercase().contains("layer_norm");
        Ok(Self {
            words: Embedding::build(&e.at("word_embeddings"), c.vocab_size, width, std)?,
            places: table("position_embeddings", c.max_position_embeddings, c.position_biased_input)?,
            types: table("token_type_embeddings", c.type_vocab_size, c.type_vocab_size > 0)?,
            project: if width == h {
                None
            } else {
                Some(Linear::build(&e.at("embed_proj"), width, h, false, std)?)
            },
            norm: LayerNorm::build(&e.at("LayerNorm"), h, c.layer_norm_eps, true)?,
            blocks: (0..c.num_hidden_layers)
                .map(|i| Block::build(&c, scores, &n.at("layer").at(i)))
                .collect::<Result<_>>()?,
            relative: if c.relative_attention {
                Some(Embedding::build(&n.at("rel_embeddings"), 2 * c.span(), h, std)?)
            } else {
                None
            },
            relative_norm: if named {
                Some(LayerNorm::build(&n.at("LayerNorm"), h, c.layer_norm_eps, true)?)
            } else {
                None
            },
            convolution: Convolution::build(&c, &n.at("conv"))?,
            scores,
            config: c,
        })
    }

    /// Which relative position each key of a text of `n` tokens is of each query, [n, n].
    fn index(&self, n: i64, device: Device) -> Tensor {
        let _guard = no_grad();
        let c = &self.config;
        let place = Tensor::arange(n, (Kind::Int64, device));
        let between = place.unsqueeze(1) - place.unsqueeze(0);
        let bucket = if c.position_buckets > 0 && c.furthest() > 0 {
            // In f32, as transformers has it: borders are where the logarithm is an integer, but for rounding.
            let mid = c.position_buckets / 2;
            let far = between.abs().to_kind(Kind::Float) / mid as f64;
            let steps = Tensor::from_slice(&[((c.furthest() - 1) as f64 / mid as f64) as f32]).log();
            let grown = (far.log() / steps.to_device(device) * (mid - 1) as f64).ceil() + mid as f64;
            let signed = (grown * between.sign()).to_kind(Kind::Int64);
            between.where_self(&between.abs().le(mid), &signed)
        } else {
            between
        };
        (bucket + c.span()).clamp(0, 2 * c.span() - 1)
    }

    /// softmax(scores) v of a group of texts: `q` [texts, heads, queries, d], `k` and `v` [texts, heads, keys, d].
    fn attend(
        &self,
        [q, k, v]: [&Tensor; 3],
        padding: Option<&Tensor>,
        [position_keys, position_queries]: [Option<&Tensor>; 2],
        index: &Tensor,
        dropout: f64,
    ) -> Tensor {
        let size = q.size();
        let (n, d) = (size[2], size[3]);
        let factor = 1 + i64::from(self.scores.c2p) + i64::from(self.scores.p2c);
        let scale = ((d * factor) as f64).sqrt();
        let index = index.narrow(0, 0, n).narrow(1, 0, n);
        let at = |index: &Tensor| index.expand([size[0], size[1], n, n], false);
        let mut scores = q.matmul(&(k.transpose(-1, -2) / scale));
        if let Some(keys) = position_keys {
            let c2p = q.matmul(&keys.transpose(-1, -2)).gather(-1, &at(&index), false);
            scores += c2p / scale;
        }
        if let Some(queries) = position_queries {
            let p2c = k.matmul(&queries.transpose(-1, -2)).gather(-1, &at(&index.tr()), false);
            scores += p2c.transpose(-1, -2) / scale;
        }
        if let Some(padding) = padding {
            scores += padding;
        }
        let p = scores.softmax(-1, Kind::Float);
        let p = if dropout > 0.0 { p.dropout(dropout, true) } else { p };
        p.to_kind(v.kind()).matmul(v)
    }
}

impl Encoder for Deberta {
    fn forward(&self, batch: &PackedTokens, m: Mode) -> Tensor {
        let c = &self.config;
        assert!(batch.seen.is_none(), "rows that are not seen go with no relative positions of DeBERTa");
        let mut x = self.words.forward(&batch.ids, m);
        if let Some(places) = &self.places {
            x += places.forward(&batch.positions, m);
        }
        if let Some(types) = &self.types {
            x += types.forward(&batch.type_ids, m);
        }
        if let Some(project) = &self.project {
            x = project.forward(&x, m).to_kind(Kind::Float);
        }
        let (segs, device) = (&batch.segments, batch.ids.device());
        let hidden = m.dropout(c.hidden_dropout_prob);
        let mut carry = self.norm.forward(&x, m).dropout(hidden, m.train);
        let embedded = carry.shallow_clone();
        let mut low = lower(&carry, m);
        let layout = Layout::new(segs, segs, None, (m.compute.kind(), device));
        let index = self.index(segs.longest(), device);
        let relative = self.relative.as_ref().map(|table| {
            let rows = table.forward(&Tensor::arange(2 * c.span(), (Kind::Int64, device)), m);
            match &self.relative_norm {
                Some(norm) => norm.forward(&rows, m),
                None => rows,
            }
        });
        let by_head = |x: &Tensor| x.view([-1, c.num_attention_heads, c.head_dim()]);
        let attention = m.dropout(c.attention_probs_dropout_prob);
        for (i, block) in self.blocks.iter().enumerate() {
            let relative = relative.as_ref().map(|r| lower(&r.dropout(hidden, m.train), m));
            let positions = |on: bool, own: Option<&Linear>, shared: &Linear| {
                let rows = relative.as_ref().filter(|_| on)?;
                Some(by_head(&own.unwrap_or(shared).forward(rows, m)).transpose(0, 1).unsqueeze(0))
            };
            let keys = positions(self.scores.c2p, block.position_key.as_ref(), &block.key);
            let queries = positions(self.scores.p2c, block.position_query.as_ref(), &block.query);
            let qkv = Linear::forward_joined(&[&block.query, &block.key, &block.value], &low, m).chunk(3, -1);
            let [q, k, v] = [0, 1, 2].map(|n| by_head(&qkv[n]));
            let mixed = layout.attend_by(&q, &k, &v, |qkv, padding| {
                self.attend(qkv, padding, [keys.as_ref(), queries.as_ref()], &index, attention)
            });
            let projected = block.out.forward(&mixed.flatten(1, 2), m);
            (carry, low) = block.attention_norm.add(&projected, &carry, hidden, m);
            let inner = block.up.forward_activated(&low, c.hidden_act, m);
            (carry, low) = block.output_norm.add(&block.down.forward(&inner, m), &carry, hidden, m);
            if let (0, Some(convolution)) = (i, &self.convolution) {
                carry = convolution.forward(&embedded, &carry, segs, hidden, m);
                low = lower(&carry, m);
            }
        }
        carry
    }

    fn set_dropout(&mut self, hidden: Option<f64>, attention: Option<f64>) {
        self.config.hidden_dropout_prob = hidden.unwrap_or(self.config.hidden_dropout_prob);
        self.config.attention_probs_dropout_prob =
            attention.unwrap_or(self.config.attention_probs_dropout_prob);
    }

    fn hidden_size(&self) -> i64 {
        self.config.hidden_size
    }

    fn max_tokens(&self) -> usize {
        self.config.max_position_embeddings as usize
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size as usize
    }

    fn layers(&self) -> usize {
        self.blocks.len()
    }

    fn truncate(&mut self, layers: usize) {
        self.blocks.truncate(layers);
    }

    fn depth_of(&self, parameter: &str) -> Option<usize> {
        depth_by_prefix(parameter, "encoder.layer.")
    }
}
