//! What follows pooled states (or those of tokens), in order: projections, norms, unit length.

use crate::Result;
use crate::loss::normalize;
use ragduet_torch::{Device, Init, ParamBuilder, ParamStore, Tensor};

/// Activations of a projection, those of `torch.nn` with its defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenseActivation {
    /// None.
    Identity,
    /// tanh.
    Tanh,
    /// x Phi(x).
    Gelu,
    /// max(0, x).
    Relu,
    /// x sigmoid(x).
    Silu,
    /// 1 / (1 + exp(-x)).
    Sigmoid,
    /// x where it is above 0, else x / 100.
    LeakyRelu,
    /// x where it is above 0, else exp(x) - 1.
    Elu,
    /// x tanh(ln(1 + exp(x))).
    Mish,
    /// ln(1 + exp(x)).
    Softplus,
}

impl DenseActivation {
    /// By the class that a folder names.
    const ALL: [(&'static str, Self); 10] = [
        ("torch.nn.modules.linear.Identity", Self::Identity),
        ("torch.nn.modules.activation.Tanh", Self::Tanh),
        ("torch.nn.modules.activation.GELU", Self::Gelu),
        ("torch.nn.modules.activation.ReLU", Self::Relu),
        ("torch.nn.modules.activation.SiLU", Self::Silu),
        ("torch.nn.modules.activation.Sigmoid", Self::Sigmoid),
        ("torch.nn.modules.activation.LeakyReLU", Self::LeakyRelu),
        ("torch.nn.modules.activation.ELU", Self::Elu),
        ("torch.nn.modules.activation.Mish", Self::Mish),
        ("torch.nn.modules.activation.Softplus", Self::Softplus),
    ];

    /// That of a class of `torch.nn`, wherever in it the name is found.
    pub(crate) fn of(class: &str) -> Option<Self> {
        let name = |path: &str| path.rsplit('.').next().unwrap_or_default().to_string();
        let ours = Self::ALL.iter().find(|(path, _)| name(path) == name(class));
        ours.filter(|_| class.starts_with("torch.nn.")).map(|(_, a)| *a)
    }

    /// The names of all, for messages.
    pub(crate) fn names() -> String {
        let names: Vec<&str> = Self::ALL.iter().filter_map(|(path, _)| path.rsplit('.').next()).collect();
        names.join(", ")
    }

    /// The class.
    pub(crate) fn class(self) -> &'static str {
        Self::ALL.iter().find(|(_, a)| *a == self).map_or("", |(path, _)| *path)
    }

    fn apply(self, x: &Tensor) -> Tensor {
        match self {
            Self::Identity => x.shallow_clone(),
            Self::Tanh => x.tanh(),
            Self::Gelu => x.gelu("none"),
            Self::Relu => x.relu(),
            Self::Silu => x.silu(),
            Self::Sigmoid => x.sigmoid(),
            Self::LeakyRelu => x.leaky_relu(),
            Self::Elu => x.elu(),
            Self::Mish => x.mish(),
            Self::Softplus => x.softplus(),
        }
    }
}

/// A projection: y = act(x W^T + b), with a residual y + x or y + x R^T.
#[derive(Debug)]
pub struct Dense {
    pub(crate) weight: Tensor,
    pub(crate) bias: Option<Tensor>,
    pub(crate) residual: Residual,
    pub(crate) activation: DenseActivation,
    params: ParamStore,
}

/// What is added to a projection.
#[derive(Debug)]
pub(crate) enum Residual {
    None,
    /// Its input.
    Input,
    /// Its input by a matrix [outputs, inputs].
    Projected(Tensor),
}

/// What a projection is, but for its weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DenseShape {
    pub inputs: i64,
    pub outputs: i64,
    pub bias: bool,
    pub activation: DenseActivation,
    pub residual: bool,
}

impl DenseShape {
    /// Without bias, activation or residual.
    pub fn plain(inputs: i64, outputs: i64) -> Self {
        Self { inputs, outputs, bias: false, activation: DenseActivation::Identity, residual: false }
    }
}

impl Dense {
    /// From a builder: `linear.weight` [outputs, inputs], `linear.bias` [outputs], `residual.weight` [outputs, inputs].
    pub(crate) fn build(b: ParamBuilder, shape: DenseShape) -> Result<Self> {
        let DenseShape { inputs, outputs, bias, activation, residual } = shape;
        let at = b.at("linear");
        let bound = Init::Uniform(1.0 / (inputs as f64).sqrt());
        let weight = at.get("weight", &[outputs, inputs], bound)?;
        let bias = if bias { Some(at.get("bias", &[outputs], bound)?) } else { None };
        let residual = match (residual, inputs == outputs) {
            (false, _) => Residual::None,
            (true, true) => Residual::Input,
            (true, false) => {
                Residual::Projected(b.at("residual").get("weight", &[outputs, inputs], bound)?)
            }
        };
        let (params, _) = b.finish(|_| false, |_| false)?;
        Ok(Self { weight, bias, residual, activation, params })
    }

    /// A new projection without bias or activation.
    pub fn fresh(inputs: i64, outputs: i64, device: Device) -> Result<Self> {
        // A fresh builder reports everything as missing only where there was a checkpoint.
        Self::build(ParamBuilder::fresh(device), DenseShape::plain(inputs, outputs))
    }

    /// Parameters by the names of its file.
    pub(crate) fn named(&self) -> Vec<(String, Tensor)> {
        self.params.named()
    }

    /// Sizes, activation and what else there is.
    pub(crate) fn shape(&self) -> DenseShape {
        DenseShape {
            inputs: self.weight.size()[1],
            outputs: self.outputs(),
            bias: self.bias.is_some(),
            activation: self.activation,
            residual: !matches!(self.residual, Residual::None),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let y = self.activation.apply(&x.linear(&self.weight, self.bias.as_ref()));
        match &self.residual {
            Residual::None => y,
            Residual::Input => y + x,
            Residual::Projected(by) => y + x.linear::<&Tensor>(by, None),
        }
    }

    /// Size of the result.
    pub fn outputs(&self) -> i64 {
        self.weight.size()[0]
    }
}

/// Layer normalization of vectors, as `torch.nn.LayerNorm` with its defaults.
#[derive(Debug)]
pub struct VectorNorm {
    weight: Tensor,
    bias: Tensor,
    params: ParamStore,
}

impl VectorNorm {
    const EPS: f64 = 1e-5;

    /// From a builder: `norm.weight` and `norm.bias` [n].
    pub(crate) fn build(b: ParamBuilder, n: i64) -> Result<Self> {
        let at = b.at("norm");
        let (weight, bias) = (at.get("weight", &[n], Init::Ones)?, at.get("bias", &[n], Init::Zeros)?);
        let (params, _) = b.finish(|_| false, |_| false)?;
        Ok(Self { weight, bias, params })
    }

    /// Parameters by the names of its file.
    pub(crate) fn named(&self) -> Vec<(String, Tensor)> {
        self.params.named()
    }

    /// Size of a vector.
    pub(crate) fn size(&self) -> i64 {
        self.weight.size()[0]
    }
}

/// A module behind the transformer and its pooling.
#[derive(Debug)]
pub enum HeadModule {
    /// A projection.
    Dense(Dense),
    /// Layer normalization.
    LayerNorm(VectorNorm),
    /// Unit length, before other modules. At the end it is a setting of the representation.
    Normalize,
}

impl HeadModule {
    fn params(&self) -> Option<&ParamStore> {
        match self {
            Self::Dense(d) => Some(&d.params),
            Self::LayerNorm(n) => Some(&n.params),
            Self::Normalize => None,
        }
    }
}

/// The modules behind the transformer and its pooling, in order.
#[derive(Debug, Default)]
pub struct Head(pub Vec<HeadModule>);

impl Head {
    /// One projection.
    pub fn projection(dense: Dense) -> Self {
        Self(vec![HeadModule::Dense(dense)])
    }

    /// Whether nothing follows.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn forward(&self, x: Tensor) -> Tensor {
        self.0.iter().fold(x, |x, module| match module {
            HeadModule::Dense(dense) => dense.forward(&x),
            HeadModule::LayerNorm(n) => {
                x.layer_norm([n.size()], Some(&n.weight), Some(&n.bias), VectorNorm::EPS, false)
            }
            HeadModule::Normalize => normalize(&x),
        })
    }

    /// Size of what comes out for what goes in.
    pub(crate) fn outputs(&self, inputs: i64) -> i64 {
        let sizes = self.0.iter().rev().filter_map(|module| match module {
            HeadModule::Dense(dense) => Some(dense.outputs()),
            HeadModule::LayerNorm(_) | HeadModule::Normalize => None,
        });
        sizes.into_iter().next().unwrap_or(inputs)
    }

    /// The first module whose input is not what comes before it, where there is one: (what it takes, what it gets).
    pub(crate) fn misfit(&self, inputs: i64) -> Option<(i64, i64)> {
        let mut size = inputs;
        for module in &self.0 {
            let (takes, gives) = match module {
                HeadModule::Dense(dense) => (dense.weight.size()[1], dense.outputs()),
                HeadModule::LayerNorm(norm) => (norm.size(), norm.size()),
                HeadModule::Normalize => (size, size),
            };
            if takes != size {
                return Some((takes, size));
            }
            size = gives;
        }
        None
    }

    /// Whether anything in it learns.
    pub fn trains(&self) -> bool {
        self.0.iter().filter_map(HeadModule::params).any(|p| p.iter().any(|(_, p)| p.tensor.requires_grad()))
    }

    /// Parameters: those of the first projection under `dense.`, of the first norm under `layer_norm.`, and with a number
    /// from the second on (`dense_1.`).
    pub(crate) fn parameters(&self) -> Vec<(String, Tensor)> {
        let (mut out, mut counts) = (Vec::new(), [0usize; 2]);
        for module in &self.0 {
            let (kind, name) = match module {
                HeadModule::Dense(_) => (0, "dense"),
                HeadModule::LayerNorm(_) => (1, "layer_norm"),
                HeadModule::Normalize => continue,
            };
            let prefix = match counts[kind] {
                0 => name.to_string(),
                n => format!("{name}_{n}"),
            };
            counts[kind] += 1;
            // Not `named`, which is for files: these have gradients.
            let own = module.params().into_iter().flat_map(ParamStore::iter);
            out.extend(own.map(|(n, p)| (format!("{prefix}.{n}"), p.tensor.shallow_clone())));
        }
        out
    }

    /// One like it with parameters of its own, drawn from the global generators.
    pub(crate) fn fresh_like(&self, device: Device) -> Result<Self> {
        let like = |module: &HeadModule| -> Result<HeadModule> {
            let b = ParamBuilder::fresh(device);
            Ok(match module {
                HeadModule::Dense(d) => HeadModule::Dense(Dense::build(b, d.shape())?),
                HeadModule::LayerNorm(n) => HeadModule::LayerNorm(VectorNorm::build(b, n.size())?),
                HeadModule::Normalize => HeadModule::Normalize,
            })
        };
        Ok(Self(self.0.iter().map(like).collect::<Result<_>>()?))
    }
}

/// Whether a parameter of a model is one of its head's, which learn as what is new does.
pub(crate) fn is_of_head(parameter: &str) -> bool {
    let mut parts = parameter.split('.').skip_while(|p| p.ends_with("_tower"));
    let (Some(module), Some(part)) = (parts.next(), parts.next()) else { return false };
    let kind = module.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_');
    matches!((kind, part), ("dense", "linear" | "residual") | ("layer_norm", "norm"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ragduet_torch::Kind;

    #[test]
    fn modules_act_in_their_order_and_have_names_of_their_own() {
        let device = Device::Cpu;
        let build = |inputs, outputs, activation, residual| {
            let shape = DenseShape { inputs, outputs, bias: true, activation, residual };
            HeadModule::Dense(Dense::build(ParamBuilder::fresh(device), shape).unwrap())
        };
        let norm = VectorNorm::build(ParamBuilder::fresh(device), 4).unwrap();
        let head = Head(vec![
            build(3, 4, DenseActivation::Gelu, true),
            HeadModule::Normalize,
            HeadModule::LayerNorm(norm),
            build(4, 4, DenseActivation::Identity, true),
        ]);
        let names: Vec<String> = head.parameters().into_iter().map(|(n, _)| n).collect();
        let of_second = ["dense_1.linear.weight", "dense_1.linear.bias"];
        for name in ["dense.residual.weight", "layer_norm.norm.bias"].iter().chain(&of_second) {
            assert!(names.contains(&name.to_string()), "{name}: {names:?}");
            assert!(is_of_head(name) && is_of_head(&format!("query_tower.{name}")));
        }
        assert!(
            !is_of_head("encoder.layer.0.output.dense.weight") && !is_of_head("embeddings.LayerNorm.bias")
        );
        assert_eq!(
            (names.len(), head.outputs(3), head.misfit(3), head.misfit(5)),
            (7, 4, None, Some((3, 5)))
        );

        let x = Tensor::from_slice(&[0.5f32, -1.0, 2.0]).view([1, 3]);
        let get = |name: &str| head.parameters().into_iter().find(|(n, _)| n == name).unwrap().1;
        let y = x.matmul(&get("dense.linear.weight").tr()) + get("dense.linear.bias");
        let y = y.gelu("none") + x.matmul(&get("dense.residual.weight").tr());
        let y = &y / y.norm();
        let (mean, sd) = (y.mean(Kind::Float), (&y - y.mean(Kind::Float)).square().mean(Kind::Float));
        let y = (y - mean) / (sd + 1e-5).sqrt();
        let y = y.matmul(&get("dense_1.linear.weight").tr()) + get("dense_1.linear.bias") + &y;
        assert!(head.forward(x).allclose(&y, 1e-5, 1e-6, false));
        assert_eq!(head.fresh_like(device).unwrap().parameters().len(), 7);
    }

    #[test]
    fn classes_of_torch_are_known_and_others_are_not() {
        assert_eq!(DenseActivation::of("torch.nn.GELU"), Some(DenseActivation::Gelu));
        assert_eq!(DenseActivation::of(DenseActivation::Mish.class()), Some(DenseActivation::Mish));
        assert_eq!(DenseActivation::of("torch.nn.modules.activation.PReLU"), None);
        assert_eq!(DenseActivation::of("my.code.Tanh"), None);
    }
}
