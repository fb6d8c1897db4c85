//! LoRA, rsLoRA and DoRA at linear layers, LoRA at lookup tables.

use super::config::{LoraConfig, LoraInit};
use super::slot::{EmbeddingAdapter, LinearAdapter};
use super::targets::pattern_fits;
use crate::{Linear, Mode, Result};
use ragduet_torch::{Init, Kind, ParamBuilder, Tensor, no_grad};

/// y + s B A dropout(x); with a magnitude m, (m / |W + s B A|) (W x + s B A x) + b, |.| by row and outside of the graph.
#[derive(Debug)]
pub(super) struct Lora {
    /// [rank, in].
    a: Tensor,
    /// [out, rank].
    b: Tensor,
    /// [out].
    magnitude: Option<Tensor>,
    scale: f64,
    dropout: f64,
}

/// The rank and scale of a module.
pub(super) fn rank_and_scale(c: &LoraConfig, path: &str) -> Result<(i64, f64)> {
    let (mut rank, mut alpha) = (c.rank, c.alpha);
    for (pattern, r) in &c.rank_pattern {
        if pattern_fits(pattern, path)? {
            rank = *r;
        }
    }
    for (pattern, a) in &c.alpha_pattern {
        if pattern_fits(pattern, path)? {
            alpha = *a;
        }
    }
    let by = if c.rank_stabilized { (rank as f64).sqrt() } else { rank as f64 };
    Ok((rank, alpha / by))
}

impl Lora {
    /// `b` is at the module's path.
    pub fn build(b: &ParamBuilder, path: &str, layer: &Linear, c: &LoraConfig) -> Result<Self> {
        let [outputs, inputs] = layer.size();
        let (rank, scale) = rank_and_scale(c, path)?;
        let start = match c.init {
            // kaiming_uniform_ with a = sqrt(5), as torch's and peft's.
            LoraInit::Kaiming => Init::Uniform((inputs as f64).powf(-0.5)),
            LoraInit::Gaussian => Init::Normal(1.0 / rank as f64),
        };
        let a = b.at("lora_A").get("weight", &[rank, inputs], start)?;
        let up = b.at("lora_B").get("weight", &[outputs, rank], Init::Zeros)?;
        let magnitude = if c.dora {
            let given = b.has("lora_magnitude_vector");
            let m = b.get("lora_magnitude_vector", &[outputs], Init::Ones)?;
            if !given {
                let _guard = no_grad();
                m.shallow_clone().copy_(&row_norms(&layer.rows()));
            }
            Some(m)
        } else {
            None
        };
        Ok(Self { a, b: up, magnitude, scale, dropout: c.dropout })
    }

    /// s B A, f32.
    fn delta(&self) -> Tensor {
        self.b.matmul(&self.a) * self.scale
    }

    /// m / |W + s B A|, [out].
    fn stretch(&self, magnitude: &Tensor, rows: &Tensor) -> Tensor {
        let norms = {
            let _guard = no_grad();
            row_norms(&(rows + self.delta()))
        };
        magnitude / norms
    }
}

fn row_norms(rows: &Tensor) -> Tensor {
    rows.norm_scalaropt_dim(2.0, [1], false)
}

impl LinearAdapter for Lora {
    fn input(&self, _: &Tensor) -> Option<Tensor> {
        None
    }

    fn output(&self, layer: &Linear, x: &Tensor, y: Tensor, m: Mode) -> Tensor {
        let p = m.dropout(self.dropout);
        let kind = x.kind();
        let dropped = if p > 0.0 { x.dropout(p, true) } else { x.shallow_clone() };
        let low = dropped.linear::<&Tensor>(&self.a.to_kind(kind), None) * self.scale;
        let up = self.b.to_kind(kind);
        let Some(magnitude) = &self.magnitude else {
            return y.addmm(&low, &up.tr());
        };
        let stretch = self.stretch(magnitude, &layer.rows()).to_kind(kind);
        let bias = layer.bias().map(|b| b.to_kind(kind));
        // With dropout, what the whole product sees is dropped out as well, as peft does.
        let base = match (&bias, p > 0.0) {
            (Some(b), false) => &y - b,
            (None, false) => y.shallow_clone(),
            (Some(b), true) => Linear::product(&[layer], &dropped) - b,
            (None, true) => Linear::product(&[layer], &dropped),
        };
        let change = &base * (&stretch - 1.0) + low.linear::<&Tensor>(&up, None) * &stretch;
        y + change
    }

    fn merged(&self, rows: &Tensor, bias: Option<&Tensor>) -> (Tensor, Option<Tensor>) {
        let sum = rows + self.delta();
        let weight = match &self.magnitude {
            Some(m) => sum * self.stretch(m, rows).unsqueeze(1),
            None => sum,
        };
        (weight, bias.map(Tensor::shallow_clone))
    }
}

/// A row plus s B A[:, id].
#[derive(Debug)]
pub(super) struct LoraTable {
    /// [rank, rows].
    a: Tensor,
    /// [n, rank].
    b: Tensor,
    scale: f64,
}

impl LoraTable {
    /// `b` is at the module's path.
    pub fn build(b: &ParamBuilder, path: &str, table: &Tensor, c: &LoraConfig) -> Result<Self> {
        let [rows, n] = [0, 1].map(|i| table.size()[i]);
        let (rank, scale) = rank_and_scale(c, path)?;
        // peft starts tables the other way round: A zero, B normal.
        let a = b.get("lora_embedding_A", &[rank, rows], Init::Zeros)?;
        let up = b.get("lora_embedding_B", &[n, rank], Init::Normal(1.0))?;
        Ok(Self { a, b: up, scale })
    }
}

impl EmbeddingAdapter for LoraTable {
    fn output(&self, ids: &Tensor, rows: Tensor, _: Mode) -> Tensor {
        let low = Tensor::embedding(&self.a.tr(), ids, -1, false, false);
        rows + low.matmul(&self.b.tr()).to_kind(Kind::Float) * self.scale
    }

    fn merged(&self, table: &Tensor) -> Tensor {
        table + self.b.matmul(&self.a).tr() * self.scale
    }
}
