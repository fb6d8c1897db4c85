//! Examples laid one after another: a forward pass of training.

use crate::model::Generator;
use ragduet_nn::Mode;
use ragduet_text::{TrainExample, pack_in_order};
use ragduet_torch::{Kind, Tensor};

/// The examples of a forward pass.
#[derive(Debug)]
pub struct PackedExamples {
    /// Themselves.
    pub examples: Vec<TrainExample>,
    /// Rows (of all tokens laid one after another) whose next token is learned.
    pub rows: Vec<i64>,
    /// Those tokens.
    pub targets: Vec<i64>,
    /// The records that the examples were made of, by name, where they have one.
    pub ids: Vec<String>,
}

impl PackedExamples {
    /// Of examples in their order.
    pub fn of(examples: impl IntoIterator<Item = TrainExample>) -> Self {
        let mut out = Self { examples: Vec::new(), rows: Vec::new(), targets: Vec::new(), ids: Vec::new() };
        let mut start = 0;
        for e in examples {
            for i in e.predicted().filter(|&i| e.loss[i]) {
                out.rows.push((start + i - 1) as i64);
                out.targets.push(i64::from(e.ids[i]));
            }
            start += e.ids.len();
            out.examples.push(e);
        }
        out
    }

    /// Passes of at most `tokens` tokens, in about the order given.
    pub fn pack(examples: Vec<TrainExample>, tokens: usize) -> Vec<Self> {
        Self::pack_named(examples.into_iter().map(|e| (String::new(), e)).collect(), tokens)
    }

    /// [`PackedExamples::pack`] of examples with the names of their records.
    pub fn pack_named(examples: Vec<(String, TrainExample)>, tokens: usize) -> Vec<Self> {
        let lengths: Vec<usize> = examples.iter().map(|(_, e)| e.ids.len()).collect();
        let mut examples: Vec<Option<(String, TrainExample)>> = examples.into_iter().map(Some).collect();
        let one = |row: &Vec<usize>| {
            let (ids, own): (Vec<_>, Vec<_>) = row.iter().filter_map(|&i| examples[i].take()).unzip();
            Self { ids, ..Self::of(own) }
        };
        pack_in_order(&lengths, tokens).rows.iter().map(one).collect()
    }

    /// Tokens in all.
    pub fn tokens(&self) -> usize {
        self.examples.iter().map(|e| e.ids.len()).sum()
    }

    /// The hidden states that the learned tokens are predicted from, [targets, hidden], f32: only these rows meet the
    /// vocabulary.
    pub fn states(&self, generator: &Generator, mode: Mode) -> Tensor {
        let rows = Tensor::from_slice(&self.rows).to_device(generator.device);
        generator.hidden_states(&self.examples, mode).index_select(0, &rows)
    }

    /// -log p of the learned tokens, [targets], f32.
    pub fn nll(&self, generator: &Generator, mode: Mode) -> Tensor {
        let hidden = self.states(generator, mode);
        let head = generator.model.kind.head(mode);
        let targets = Tensor::from_slice(&self.targets).to_device(generator.device);
        head.nll(&hidden, &targets, generator.compute)
    }
}

/// Per sequence the completion's log-probability, its number of tokens, and the summed -log p of whole sequences, of
/// the first so many.
#[derive(Debug)]
pub struct Likelihoods {
    /// log p of the learned tokens, [sequences].
    pub completions: Tensor,
    /// How many they are, [sequences].
    pub tokens: Tensor,
    /// Summed -log p of all tokens of the first so many sequences, a scalar.
    pub whole: Tensor,
}

/// Of sequences in one pass; of the first `whole` all tokens meet the vocabulary.
pub fn likelihoods(
    generator: &Generator,
    sequences: &[&TrainExample],
    whole: usize,
    mode: Mode,
) -> Likelihoods {
    let (mut rows, mut targets, mut owner, mut on) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut start = 0;
    for (s, e) in sequences.iter().enumerate() {
        for i in e.predicted() {
            if e.loss[i] || s < whole {
                rows.push((start + i - 1) as i64);
                targets.push(i64::from(e.ids[i]));
                owner.push(s as i64);
                on.push(f32::from(u8::from(e.loss[i])));
            }
        }
        start += e.ids.len();
    }
    let device = generator.device;
    let to = |v: &[i64]| Tensor::from_slice(v).to_device(device);
    let hidden = generator.hidden_states(sequences.iter().copied(), mode);
    let head = generator.model.kind.head(mode);
    let hidden = hidden.index_select(0, &to(&rows));
    let nll = head.nll(&hidden, &to(&targets), generator.compute);
    let (owner, on) = (to(&owner), Tensor::from_slice(&on).to_device(device));
    let zeros = || Tensor::zeros([sequences.len() as i64], (Kind::Float, device));
    Likelihoods {
        completions: zeros().index_add(0, &owner, &(&nll * &on)).neg(),
        tokens: zeros().index_add(0, &owner, &on),
        whole: zeros().index_add(0, &owner, &nll).narrow(0, 0, whole as i64).sum(Kind::Float),
    }
}
