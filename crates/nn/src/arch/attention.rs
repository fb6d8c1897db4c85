//! Causal self-attention with separate projections, grouped key heads (Ainslie et al., 2023, arXiv 2305.13245), rotary
//! positions and norms within heads, as the layers of a decoder set them.

use super::pass::Pass;
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
    /// Of new weights.
    pub init_std: f64,
    /// Norms of q and k within each head, and their epsilon.
    pub head_norms: Option<(BuildNorm, f64)>,
    /// Multiplies scores.
    pub scale: f64,
    /// Which of the model's ropes turns q and k; none: they are not turned.
    pub rope: Option<usize>,
    /// How many tokens before its own one sees; none: all.
    pub window: Option<i64>,
}

/// [`RmsNorm::build`] or another start of it.
pub(super) type BuildNorm = fn(&ParamBuilder, i64, f64) -> Result<RmsNorm>;

#[derive(Debug)]
pub(super) struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    head_norms: Option<(RmsNorm, RmsNorm)>,
    shape: AttentionShape,
}

impl Attention {
    /// Under the builder's path: `q_proj`, `k_proj`, `v_proj`, `o_proj`, `q_norm`, `k_norm`.
    pub fn build(b: &ParamBuilder, s: AttentionShape) -> Result<Self> {
        let linear =
            |name: &str, inputs, outputs, bias| Linear::build(&b.at(name), inputs, outputs, bias, s.init_std);
        let (inner, kv) = (s.heads * s.head_dim, s.kv_heads * s.head_dim);
        Ok(Self {
            q: linear("q_proj", s.hidden, inner, s.bias)?,
            k: linear("k_proj", s.hidden, kv, s.bias)?,
            v: linear("v_proj", s.hidden, kv, s.bias)?,
            out: linear("o_proj", inner, s.hidden, s.out_bias)?,
            head_norms: match s.head_norms {
                Some((build, eps)) => {
                    Some((build(&b.at("q_norm"), s.head_dim, eps)?, build(&b.at("k_norm"), s.head_dim, eps)?))
                }
                None => None,
            },
            shape: s,
        })
    }

    /// In layer `index`: [tokens, hidden] -> the same, compute dtype.
    pub fn forward(&self, index: usize, x: &Tensor, pass: &Pass<'_>) -> Tensor {
        let s = &self.shape;
        let joined = Linear::forward_joined(&[&self.q, &self.k, &self.v], x, pass.mode);
        let (q, k, v) = self.heads(joined.view([-1, s.heads + 2 * s.kv_heads, s.head_dim]), pass);
        let mixed = pass.attend(index, &q, &k, &v, s.scale, s.window);
        self.out.forward(&mixed, pass.mode)
    }

    /// [tokens, heads + 2 kv_heads, head_dim] -> q, k, v.
    fn heads(&self, qkv: Tensor, pass: &Pass<'_>) -> (Tensor, Tensor, Tensor) {
        let (heads, kv_heads) = (self.shape.heads, self.shape.kv_heads);
        let angles = pass.angles(self.shape.rope);
        if let (Some((cos, sin)), None) = (angles, &self.head_norms) {
            return kernels::rope_split(qkv, cos, sin, heads, kv_heads);
        }
        let v = qkv.narrow(1, heads + kv_heads, kv_heads);
        let turned = |x: &Tensor| match angles {
            Some((cos, sin)) => kernels::rope(x, cos, sin),
            None => x.shallow_clone(),
        };
        let (q, k) = (qkv.narrow(1, 0, heads), qkv.narrow(1, heads, kv_heads));
        match &self.head_norms {
            Some((of_q, of_k)) => (turned(&of_q.forward(&q)), turned(&of_k.forward(&k)), v),
            None => (q, k, v),
        }
    }
}
