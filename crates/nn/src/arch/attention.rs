//! Self-attention with grouped key heads (Ainslie et al., 2023, arXiv 2305.13245), rotary positions, norms of q and k and
//! capped scores, as the layers of a decoder set them.

use super::pass::{Pass, Scoring};
use crate::{Linear, Result, RmsNorm, kernels};
use ragduet_torch::{ParamBuilder, Tensor};

/// Settings of one layer's attention.
#[derive(Debug, Clone, Copy)]
pub(super) struct AttentionShape {
    pub hidden: i64,
    pub heads: i64,
    pub kv_heads: i64,
    pub head_dim: i64,
    /// Whether the projections into heads have biases.
    pub bias: bool,
    /// Whether the projection out of them has.
    pub out_bias: bool,
    /// Whether the projections into heads are one, `qkv_proj`.
    pub fused: bool,
    /// Of new weights.
    pub init_std: f64,
    /// Norms of q and k.
    pub norms: Option<QkNorms>,
    /// How scores are made.
    pub scoring: Scoring,
    /// Which of the model's ropes turns q and k; none: they are not turned.
    pub rope: Option<usize>,
}

/// Norms of q and k.
#[derive(Debug, Clone, Copy)]
pub(super) struct QkNorms {
    /// [`RmsNorm::build`] or another start of it.
    pub build: fn(&ParamBuilder, i64, f64) -> Result<RmsNorm>,
    pub eps: f64,
    /// Whether all heads are one vector; else each is its own.
    pub whole: bool,
}

#[derive(Debug)]
pub(super) struct Attention {
    /// q, k and v; or one for all.
    into: Vec<Linear>,
    out: Linear,
    norms: Option<(RmsNorm, RmsNorm)>,
    shape: AttentionShape,
}

impl Attention {
    /// Under the builder's path: `q_proj`, `k_proj`, `v_proj` or `qkv_proj`, `o_proj`, `q_norm`, `k_norm`.
    pub fn build(b: &ParamBuilder, s: AttentionShape) -> Result<Self> {
        let linear =
            |name: &str, inputs, outputs, bias| Linear::build(&b.at(name), inputs, outputs, bias, s.init_std);
        let (inner, kv) = (s.heads * s.head_dim, s.kv_heads * s.head_dim);
        Ok(Self {
            into: if s.fused {
                vec![linear("qkv_proj", s.hidden, inner + 2 * kv, s.bias)?]
            } else {
                vec![
                    linear("q_proj", s.hidden, inner, s.bias)?,
                    linear("k_proj", s.hidden, kv, s.bias)?,
                    linear("v_proj", s.hidden, kv, s.bias)?,
                ]
            },
            out: linear("o_proj", inner, s.hidden, s.out_bias)?,
            norms: match s.norms {
                Some(QkNorms { build, eps, whole }) => {
                    let (q, k) = if whole { (inner, kv) } else { (s.head_dim, s.head_dim) };
                    Some((build(&b.at("q_norm"), q, eps)?, build(&b.at("k_norm"), k, eps)?))
                }
                None => None,
            },
            shape: s,
        })
    }

    /// In layer `index`: [tokens, hidden] -> the same, compute dtype.
    pub fn forward(&self, index: usize, x: &Tensor, pass: &Pass<'_>) -> Tensor {
        let into: Vec<&Linear> = self.into.iter().collect();
        let (q, k, v) = self.heads(Linear::forward_joined(&into, x, pass.mode), pass);
        let mixed = pass.attend(index, &q, &k, &v, self.shape.scoring);
        self.out.forward(&mixed, pass.mode)
    }

    /// [tokens, (heads + 2 kv_heads) * head_dim] -> q, k, v.
    fn heads(&self, qkv: Tensor, pass: &Pass<'_>) -> (Tensor, Tensor, Tensor) {
        let AttentionShape { heads, kv_heads, head_dim, norms, .. } = self.shape;
        let angles = pass.angles(self.shape.rope);
        let apart = |x: &Tensor| x.view([-1, heads + 2 * kv_heads, head_dim]);
        if let (Some((cos, sin)), None) = (angles, norms) {
            return kernels::rope_split(apart(&qkv), cos, sin, heads, kv_heads);
        }
        let turned = |x: &Tensor| match angles {
            Some((cos, sin)) => kernels::rope(x, cos, sin),
            None => x.shallow_clone(),
        };
        let v = apart(&qkv).narrow(1, heads + kv_heads, kv_heads);
        let (q, k) = match (&self.norms, norms) {
            (Some((of_q, of_k)), Some(QkNorms { whole: true, .. })) => {
                let part = |norm: &RmsNorm, from: i64, n: i64| {
                    norm.forward(&qkv.narrow(1, from * head_dim, n * head_dim)).view([-1, n, head_dim])
                };
                (part(of_q, 0, heads), part(of_k, heads, kv_heads))
            }
            (own, _) => {
                let (q, k) = (apart(&qkv).narrow(1, 0, heads), apart(&qkv).narrow(1, heads, kv_heads));
                match own {
                    Some((of_q, of_k)) => (of_q.forward(&q), of_k.forward(&k)),
                    None => (q, k),
                }
            }
        };
        (turned(&q), turned(&k), v)
    }
}
