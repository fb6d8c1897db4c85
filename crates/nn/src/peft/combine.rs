//! Weighted combinations of LoRA adapters over one base, as peft's `add_weighted_adapter` makes them.

use super::adapter::{Adapter, Base, PREFIX};
use super::config::{LoraBias, LoraConfig, PeftConfig};
use super::fault::peft;
use super::lora::{rank_and_scale, svd};
use super::targets::Targets;
use crate::Result;
use ragduet_torch::{Tensor, no_grad};
use std::collections::BTreeMap;

/// How updates become one, w being their weights and s their scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combination {
    /// A and B are each the sum of the adapters' times sqrt(w s): of the same rank, and with products of unlike factors
    /// in the update.
    Linear,
    /// The exact sum of the updates, of the sum of the ranks.
    Cat,
    /// The best approximation of the sum of the updates of this rank; absent: the highest rank among them.
    Svd(Option<i64>),
}

/// A [rank, in] and B [out, rank].
type Factors = (Tensor, Tensor);

/// An update's factors with what they are multiplied by.
struct Update {
    a: Tensor,
    b: Tensor,
    weight: f64,
}

impl Combination {
    fn of(self, path: &str, updates: &[Update]) -> Result<Factors> {
        let rank = |u: &Update| u.a.size()[0];
        match self {
            Combination::Linear => {
                if updates.iter().any(|u| rank(u) != rank(&updates[0])) {
                    return Err(bad(format!(
                        "ranks differ at {path}, which `linear` cannot add: take cat or svd"
                    )));
                }
                // The sign is on one side, or it would be lost.
                let root = |u: &Update| u.weight.abs().sqrt();
                let a = updates.iter().map(|u| &u.a * (root(u) * u.weight.signum())).reduce(|x, y| x + y);
                let b = updates.iter().map(|u| &u.b * root(u)).reduce(|x, y| x + y);
                a.zip(b).ok_or_else(|| bad(format!("nothing at {path}")))
            }
            Combination::Cat => {
                let a: Vec<Tensor> = updates.iter().map(|u| &u.a * u.weight).collect();
                let b: Vec<&Tensor> = updates.iter().map(|u| &u.b).collect();
                Ok((Tensor::cat(&a, 0), Tensor::cat(&b, 1)))
            }
            Combination::Svd(wanted) => {
                let (a, b) = Combination::Cat.of(path, updates)?;
                let (u, s, v) = svd(&b.matmul(&a))?;
                let highest = updates.iter().map(rank).max().unwrap_or(1);
                let rank = wanted.unwrap_or(highest).min(s.size()[0]);
                let b = u.narrow(1, 0, rank) * s.narrow(0, 0, rank);
                Ok((v.narrow(0, 0, rank).contiguous(), b.contiguous()))
            }
        }
    }
}

fn bad(why: String) -> crate::Error {
    peft("combination of adapters", why)
}

/// Only what adds up: updates of weights and nothing else.
fn lora(adapter: &Adapter) -> Result<&LoraConfig> {
    let why = match &adapter.config {
        PeftConfig::Lora(c) if c.dora => "DoRA is no sum",
        PeftConfig::Lora(c) if c.bias != LoraBias::None => "one of them has biases of its own",
        PeftConfig::Lora(c) if c.lora_bias => "one of them has biases of its updates (lora_bias)",
        PeftConfig::Lora(c) if c.trainable_token_indices.is_some() => {
            "one of them has embeddings of its own (trainable_token_indices)"
        }
        PeftConfig::Lora(c) if !c.modules_to_save.is_empty() => {
            "one of them has whole modules (modules_to_save)"
        }
        PeftConfig::Lora(c) => return Ok(c),
        _ => "only LoRA adapters add up",
    };
    Err(bad(why.into()))
}

impl Adapter {
    /// An adapter over `base` that does what `parts` do together, each times its weight. Modules that only some of them
    /// adapt get what those do. Draws from the global generators.
    ///
    /// # Errors
    /// No parts, parts that are not plain LoRA, ranks that differ with [`Combination::Linear`], a rank below 1.
    pub fn combined(base: Base<'_>, parts: &[(&Adapter, f64)], how: Combination) -> Result<Self> {
        if parts.is_empty() {
            return Err(bad("there are none".into()));
        }
        if matches!(how, Combination::Svd(Some(rank)) if rank < 1) {
            return Err(bad("the rank must be 1 or more".into()));
        }
        if parts.iter().any(|(_, w)| !w.is_finite()) {
            return Err(bad("weights must be numbers".into()));
        }
        let _guard = no_grad();
        let mut all: BTreeMap<String, (Vec<Update>, bool)> = BTreeMap::new();
        for (adapter, weight) in parts {
            let config = lora(adapter)?;
            let tensors: BTreeMap<String, Tensor> = adapter.tensors().into_iter().collect();
            for path in adapter.modules() {
                let scale = rank_and_scale(config, path)?.1;
                let find = |names: [&str; 2]| {
                    let [a, b] = names.map(|n| tensors.get(&format!("{PREFIX}.{path}.{n}")));
                    Some((a?.shallow_clone(), b?.shallow_clone()))
                };
                let table = find(["lora_embedding_A", "lora_embedding_B"]);
                let is_table = table.is_some();
                let found = table.or_else(|| find(["lora_A.weight", "lora_B.weight"]));
                let (a, b) = found.ok_or_else(|| bad(format!("{path} has no update")))?;
                let entry = all.entry(path.into()).or_insert_with(|| (Vec::new(), is_table));
                entry.0.push(Update { a, b, weight: weight * scale });
            }
        }
        let made: BTreeMap<String, (Factors, bool)> = all
            .iter()
            .map(|(path, (updates, table))| Ok((path.clone(), (how.of(path, updates)?, *table))))
            .collect::<Result<_>>()?;

        // A scale of 1 everywhere, as peft has it.
        let rank = |f: &Factors| f.0.size()[0];
        let highest = made.values().map(|(f, _)| rank(f)).max().unwrap_or(1);
        let others = || made.iter().filter(|(_, (f, _))| rank(f) != highest);
        let config = LoraConfig {
            rank: highest,
            alpha: highest as f64,
            targets: Targets::Names(made.keys().cloned().collect()),
            rank_pattern: others().map(|(p, (f, _))| (regex::escape(p), rank(f))).collect(),
            alpha_pattern: others().map(|(p, (f, _))| (regex::escape(p), rank(f) as f64)).collect(),
            ..LoraConfig::default()
        };
        let new = Self::fresh(base, &PeftConfig::Lora(config))?;
        for (path, ((a, b), table)) in &made {
            let names = if *table {
                ["lora_embedding_A", "lora_embedding_B"]
            } else {
                ["lora_A.weight", "lora_B.weight"]
            };
            for (name, value) in names.iter().zip([a, b]) {
                let to = new.params.get(&format!("{PREFIX}.{path}.{name}"));
                to.ok_or_else(|| bad(format!("{path} was not adapted")))?.shallow_clone().copy_(value);
            }
        }
        Ok(new)
    }
}
