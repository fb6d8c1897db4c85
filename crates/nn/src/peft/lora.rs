//! LoRA, rsLoRA and DoRA at linear layers, LoRA at lookup tables.
//!
//! PiSSA leaves the base unchanged: the update is s (B A - B0 A0), computed as [B - B0, B0] [A; A - A0], which is
//! exactly zero at the start, also in bf16. B0 and A0 are computed again from the base's weight; what is saved is
//! peft's conversion, a LoRA of twice the rank.

use super::config::{LoraBias, LoraConfig, LoraInit};
use super::fault::peft;
use super::replaced::copy;
use super::slot::{EmbeddingAdapter, LinearAdapter};
use super::targets::pattern_fits;
use crate::{Linear, Mode, Result};
use ragduet_torch::{Init, Kind, ParamBuilder, Tensor, no_grad};

/// y + s B A dropout(x), or y + s (B A - B0 A0) dropout(x) where it starts as part of the weight; with a magnitude m, (m / |W + s B A|) (W x + s B A x) + b, |.| by row and outside of the graph.
#[derive(Debug)]
pub(super) struct Lora {
    /// [rank, in].
    a: Tensor,
    /// [out, rank].
    b: Tensor,
    /// [out].
    magnitude: Option<Tensor>,
    /// In place of the layer's, [out].
    bias: Option<Tensor>,
    /// B's, [out].
    up_bias: Option<Tensor>,
    /// A and B as they started, which is in the base's weight: PiSSA.
    start: Option<(Tensor, Tensor)>,
    scale: f64,
    dropout: f64,
}

/// U, S and V^T with U diag(S) V^T = matrix, thin.
pub(super) fn svd(matrix: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
    let (u, s, v) = matrix.f_svd(true, true).map_err(ragduet_torch::Error::from)?;
    Ok((u, s, v.tr()))
}

/// A [rank, in] and B [out, rank] with s B A the best approximation of a weight [out, in], its singular values shared
/// between the two evenly.
fn principal(rows: &Tensor, rank: i64, scale: f64) -> Result<(Tensor, Tensor)> {
    let most = rows.size().into_iter().min().unwrap_or(0);
    if rank > most {
        return Err(peft(
            "peft.lora.rank",
            format!("PiSSA of rank {rank} over a weight that has rank {most}"),
        ));
    }
    let (u, s, v) = svd(rows)?;
    let root = (s.narrow(0, 0, rank) / scale).sqrt();
    let a = root.unsqueeze(1) * v.narrow(0, 0, rank);
    Ok((a.contiguous(), (u.narrow(1, 0, rank) * root).contiguous()))
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
            LoraInit::Pissa => Init::Zeros,
        };
        // A saved one holds its start, too: it is a LoRA like others.
        let principal_start = c.init == LoraInit::Pissa && !b.at("lora_A").has("weight");
        let a = b.at("lora_A").get("weight", &[rank, inputs], start)?;
        let up = b.at("lora_B").get("weight", &[outputs, rank], Init::Zeros)?;
        let up_bias = match c.lora_bias {
            true => Some(b.at("lora_B").get("bias", &[outputs], Init::Zeros)?),
            false => None,
        };
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
        let start = if principal_start {
            let _guard = no_grad();
            let (a0, b0) = principal(&layer.rows(), rank, scale)?;
            a.shallow_clone().copy_(&a0);
            up.shallow_clone().copy_(&b0);
            Some((a0, b0))
        } else {
            None
        };
        let own = layer.bias().filter(|_| c.bias != LoraBias::None);
        let bias = own.map(|t| copy(&b.at("base_layer"), "bias", t)).transpose()?;
        Ok(Self { a, b: up, magnitude, bias, up_bias, start, scale, dropout: c.dropout })
    }

    /// s B A, f32, less the start.
    fn delta(&self) -> Tensor {
        let (a, b) = self.factors();
        b.matmul(&a) * self.scale
    }

    /// Two matrices whose product is what is added to the weight, but for s. With a start that is
    /// [B - B0, B0] [A; A - A0]: what the differences of products would lose in bf16 is not there to be lost.
    fn factors(&self) -> (Tensor, Tensor) {
        match &self.start {
            None => (self.a.shallow_clone(), self.b.shallow_clone()),
            Some((a0, b0)) => {
                (Tensor::cat(&[&self.a, &(&self.a - a0)], 0), Tensor::cat(&[&(&self.b - b0), b0], 1))
            }
        }
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
        let (a, b) = self.factors();
        let low = dropped.linear::<&Tensor>(&a.to_kind(kind), None) * self.scale;
        let up = b.to_kind(kind);
        let y = match (&self.bias, layer.bias()) {
            (Some(own), Some(of_base)) => y + (own - of_base).to_kind(kind),
            _ => y,
        };
        let y = match &self.up_bias {
            Some(bias) => y + (bias * self.scale).to_kind(kind),
            None => y,
        };
        let Some(magnitude) = &self.magnitude else {
            return y.addmm(&low, &up.tr());
        };
        let stretch = self.stretch(magnitude, &layer.rows()).to_kind(kind);
        // `y` has the bias that acts.
        let bias = self.bias.as_ref().or(layer.bias()).map(|b| b.to_kind(kind));
        // With dropout, what the whole product sees is dropped out as well, as peft does.
        let base = match (&bias, p > 0.0) {
            (Some(b), false) => &y - b,
            (None, false) => y.shallow_clone(),
            (Some(_), true) => {
                let of_base = layer.bias().map(|b| b.to_kind(kind));
                let whole = Linear::product(&[layer], &dropped);
                of_base.map_or(whole.shallow_clone(), |b| whole - b)
            }
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
        let bias = self.bias.as_ref().or(bias).map(Tensor::shallow_clone);
        let bias = match (&self.up_bias, bias) {
            (Some(more), Some(bias)) => Some(bias + more * self.scale),
            (_, bias) => bias,
        };
        (weight, bias)
    }

    fn needs_bias(&self) -> bool {
        self.up_bias.is_some()
    }

    fn start(&self) -> Option<(&Tensor, &Tensor)> {
        self.start.as_ref().map(|(a, b)| (a, b))
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
        if c.init == LoraInit::Pissa && !b.has("lora_embedding_A") {
            return Err(peft("peft.lora.init", format!("{path} is a lookup table, which has no PiSSA here")));
        }
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
