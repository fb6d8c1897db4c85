//! From hidden states to the loss of distillation and its gradients, some rows at a time.
//!
//! A chunk's logits, of student and teacher, are made, turned into the loss and into its gradient at the student's
//! logits, multiplied back to hidden states and weight, and let go: nothing of the size of a batch times the vocabulary
//! exists, and no logits are made twice. That works because the loss of a row is a term of a sum whose factor is known
//! beforehand.

use super::DistilLoss;
use crate::error::Result;
use ragduet_nn::LmHead;
use ragduet_torch::{Compute, Kind, Tensor, grad, no_grad};

/// Logits of a model alive at once, in elements: 32 MiB in f32. Some six tensors of that size exist at a time.
pub const CHUNK: i64 = 8 << 20;

/// What makes logits: scale * (hidden weight^T + bias), then cap * tanh(logit / cap) where there is a cap.
#[derive(Debug, Clone, Copy)]
pub struct Projection<'a> {
    /// [n, hidden], f32: the rows before answer tokens.
    pub hidden: &'a Tensor,
    /// [vocab, hidden], f32.
    pub weight: &'a Tensor,
    /// [vocab], f32.
    pub bias: Option<&'a Tensor>,
    /// Multiplies the logits.
    pub scale: f64,
    /// Caps them.
    pub cap: Option<f64>,
    /// In what the product runs.
    pub compute: Compute,
}

impl<'a> Projection<'a> {
    /// Of a model's head.
    pub fn new(hidden: &'a Tensor, head: &'a LmHead, compute: Compute) -> Self {
        Self {
            hidden,
            weight: &head.weight,
            bias: head.bias.as_ref(),
            scale: head.scale,
            cap: head.cap,
            compute,
        }
    }

    /// Rows.
    fn len(&self) -> i64 {
        self.hidden.size()[0]
    }

    fn vocab(&self) -> i64 {
        self.weight.size()[0]
    }

    fn cast(&self, t: &Tensor) -> Tensor {
        match self.compute {
            Compute::F32 => t.detach(),
            Compute::Bf16 => t.detach().to_kind(Kind::BFloat16),
        }
    }

    /// The logits of so many rows, [rows, vocab], in the kind of the hidden states. `weight`: its own, cast.
    fn logits(&self, hidden: &Tensor, weight: &Tensor) -> Tensor {
        let z = hidden.matmul(&weight.tr()).to_kind(self.hidden.kind());
        let mut z = match self.bias {
            Some(b) => z + b.detach(),
            None => z,
        };
        if self.scale != 1.0 {
            let _ = z.g_mul_scalar_(self.scale);
        }
        if let Some(cap) = self.cap {
            let _ = z.g_div_scalar_(cap).tanh_().g_mul_scalar_(cap);
        }
        z
    }
}

/// What a teacher says of the same rows.
#[derive(Debug, Clone, Copy)]
pub enum Taught<'a> {
    /// All of it. Where the vocabularies differ in width (rows that no token has), the common part counts.
    Whole(Projection<'a>),
    /// Its likeliest tokens.
    TopK(&'a TopK),
}

/// A teacher's k likeliest tokens of each row, and all others as one: a distribution over k + 1 outcomes. Any
/// divergence over them is at most that over the vocabulary, and 0 where the student says the same.
#[derive(Debug)]
pub struct TopK {
    /// [n, k], i64.
    pub tokens: Tensor,
    /// Their log-probabilities under the temperature and the log-probability of the rest, [n, k + 1], f32.
    pub log_p: Tensor,
    /// How many tokens of the vocabulary the distribution is over.
    pub width: i64,
}

/// The loss of some rows, and what is needed to send it backward.
#[derive(Debug)]
#[must_use = "the gradients go nowhere without `backward`"]
pub struct Distilled {
    /// The sum of the divergences, without the weight.
    pub divergence: Tensor,
    /// The sum of -log p of the targets, without the weight.
    pub nll: Tensor,
    /// What has a graph or is a parameter, and the gradient of the window's loss there.
    gradients: Vec<(Tensor, Tensor)>,
}

impl Distilled {
    /// Adds the gradients to those of the parameters.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn backward(self) -> Result<()> {
        let (at, gradients): (Vec<Tensor>, Vec<Tensor>) = self.gradients.into_iter().unzip();
        Ok(grad::backward(&at, &gradients)?)
    }
}

/// The share of some rows in the loss of a window with `window_tokens` answer tokens, at most `chunk` logits of a model
/// at a time ([`CHUNK`]).
///
/// `targets`: [n] i64, the tokens behind the rows.
///
/// # Panics
/// On shapes that do not fit and targets outside the vocabulary: bugs of the caller.
pub fn distil(
    student: Projection<'_>,
    teacher: Taught<'_>,
    targets: &Tensor,
    loss: DistilLoss,
    window_tokens: u64,
    chunk: i64,
) -> Distilled {
    let _guard = no_grad();
    let (kind, device) = (student.hidden.kind(), student.hidden.device());
    let factor = 1.0 / window_tokens.max(1) as f64;
    let weight = student.cast(student.weight);
    let mut of_teacher = None;
    let zero = || Tensor::zeros([], (Kind::Double, device));
    let (mut divergence, mut nll) = (zero(), zero());
    let zeros = |t: &Tensor| t.requires_grad().then(|| t.detach().zeros_like());
    let at_hidden = zeros(student.hidden);
    let mut at_weight = zeros(student.weight);
    let mut at_bias = student.bias.and_then(zeros);
    for (first, n) in chunks(student.len(), student.vocab(), chunk) {
        let hidden = student.cast(&student.hidden.narrow(0, first, n));
        let z = student.logits(&hidden, &weight);
        let targets = targets.narrow(0, first, n).unsqueeze(1);
        let log_q = z.log_softmax(-1, kind);
        let _ = nll.g_sub_(&log_q.gather(1, &targets, false).sum(Kind::Double));
        let (value, mut d) = match teacher {
            Taught::Whole(t) => {
                let weight = of_teacher.get_or_insert_with(|| t.cast(t.weight));
                whole(&z, &log_q, t.logits(&t.cast(&t.hidden.narrow(0, first, n)), weight), loss)
            }
            Taught::TopK(top) => likeliest(&z, top, first, loss),
        };
        let _ = divergence.g_add_(&(value.sum(Kind::Double) * loss.divergence.factor()));
        // d is at the logits over T, so one T of the factor goes.
        let per_logit = loss.divergence.factor() / loss.divergence.temperature();
        let _ = d.g_mul_scalar_(loss.weight * per_logit * factor * student.scale);
        let likelihood = (1.0 - loss.weight) * factor * student.scale;
        if likelihood > 0.0 {
            let _ = d.g_add_(&(log_q.exp() * likelihood));
            let _ =
                d.scatter_add_(1, &targets, &targets.ones_like().to_kind(kind).g_mul_scalar_(-likelihood));
        }
        if let Some(cap) = student.cap {
            // From the capped logits to those before.
            let _ = d.g_mul_(&(1.0 - (z / cap).square()));
        }
        if let Some(b) = &mut at_bias {
            let _ = b.g_add_(&d.sum_dim_intlist(0, false, kind));
        }
        let d = student.cast(&d);
        if let Some(h) = &at_hidden {
            h.narrow(0, first, n).copy_(&d.matmul(&weight));
        }
        if let Some(w) = &mut at_weight {
            let _ = match student.compute {
                Compute::F32 => w.addmm_(&d.tr(), &hidden),
                Compute::Bf16 => w.g_add_(&d.tr().matmul(&hidden).to_kind(kind)),
            };
        }
    }
    let at = [Some(student.hidden), Some(student.weight), student.bias];
    let gradients = at.into_iter().zip([at_hidden, at_weight, at_bias]);
    let gradients = gradients.filter_map(|(t, g)| Some((t?.shallow_clone(), g?))).collect();
    Distilled { divergence, nll, gradients }
}

/// Rows that are computed together, so that a model has at most `chunk` logits: (first, how many).
fn chunks(rows: i64, vocab: i64, chunk: i64) -> impl Iterator<Item = (i64, i64)> {
    let most = (chunk / vocab.max(1)).max(1);
    (0..rows).step_by(most as usize).map(move |first| (first, most.min(rows - first)))
}

/// Of all tokens that both know: the divergence of each row, and its gradient at the student's logits over T.
fn whole(z: &Tensor, log_q: &Tensor, said: Tensor, loss: DistilLoss) -> (Tensor, Tensor) {
    let (own, other) = (z.size()[1], said.size()[1]);
    let (width, t, kind) = (own.min(other), loss.divergence.temperature(), z.kind());
    let soft = |z: &Tensor| (z.narrow(1, 0, width) / t).log_softmax(-1, kind);
    let log_p = soft(&said.to_kind(kind));
    drop(said);
    let (value, d) = match t == 1.0 && width == own {
        true => loss.divergence.rows(log_q, &log_p),
        false => loss.divergence.rows(&soft(z), &log_p),
    };
    (value, widened(d, own))
}

/// Of the teacher's likeliest tokens and the rest.
fn likeliest(z: &Tensor, top: &TopK, first: i64, loss: DistilLoss) -> (Tensor, Tensor) {
    let (n, own) = (z.size()[0], z.size()[1]);
    let (tokens, log_p) = (&top.tokens.narrow(0, first, n), top.log_p.narrow(0, first, n));
    let k = tokens.size()[1];
    let a = z.narrow(1, 0, top.width) / loss.divergence.temperature();
    let others = a.scatter_value(1, tokens, f64::NEG_INFINITY);
    let rest = others.logsumexp(1, true);
    let log_q = Tensor::cat(&[a.gather(1, tokens, false), rest.shallow_clone()], 1).log_softmax(-1, z.kind());
    let (value, d) = loss.divergence.rows(&log_q, &log_p.to_kind(z.kind()));
    // The rest's gradient goes to its tokens by their shares in it.
    let mut all = (others - rest).exp_().g_mul_(&d.narrow(1, k, 1));
    let _ = all.scatter_(1, tokens, &d.narrow(1, 0, k));
    (value, widened(all, own))
}

/// Zeros for the logits that the teacher has none for.
fn widened(d: Tensor, width: i64) -> Tensor {
    match width - d.size()[1] {
        0 => d,
        more => d.constant_pad_nd([0, more]),
    }
}

/// What [`Taught::TopK`] keeps of a teacher, over the first `width` tokens, `k` < `width` of them.
pub fn top_k(teacher: Projection<'_>, width: i64, k: i64, temperature: f64, chunk: i64) -> TopK {
    let _guard = no_grad();
    let weight = teacher.cast(teacher.weight);
    let (n, device) = (teacher.len(), teacher.hidden.device());
    let tokens = Tensor::zeros([n, k], (Kind::Int64, device));
    let log_p = Tensor::zeros([n, k + 1], (Kind::Float, device));
    for (first, n) in chunks(n, teacher.vocab(), chunk) {
        let z = teacher.logits(&teacher.cast(&teacher.hidden.narrow(0, first, n)), &weight);
        let a = z.narrow(1, 0, width) / temperature;
        let (best, at) = a.topk(k, 1, true, true);
        let rest = a.scatter_value(1, &at, f64::NEG_INFINITY).logsumexp(1, true);
        tokens.narrow(0, first, n).copy_(&at);
        log_p.narrow(0, first, n).copy_(&Tensor::cat(&[best, rest], 1).log_softmax(-1, z.kind()));
    }
    TopK { tokens, log_p, width }
}
