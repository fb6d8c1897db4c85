//! An adapter over a base: made, held, merged, removed.

use super::bias::OwnBias;
use super::bottleneck::Bottleneck;
use super::config::{LoraBias, LoraConfig, PeftConfig};
use super::fault::peft;
use super::ia3::Ia3;
use super::lora::{Lora, LoraTable};
use super::replaced::Replaced;
use super::soft::{Soft, remove};
use super::targets::{IA3, Targets, is_in_layers, layer_of, within};
use super::tokens::Tokens;
use super::{
    AdapterId, BottleneckConfig, BottleneckKind, Ia3Config, LoraInit, PrefixConfig, PromptConfig, Sites,
    SubLayer,
};
use crate::Result;
use ragduet_torch::weights::Weights;
use ragduet_torch::{Device, ParamBuilder, ParamStore, Tensor, no_grad};
use std::collections::BTreeSet;
use std::rc::Rc;

/// What an adapter goes over.
#[derive(Debug, Clone, Copy)]
pub struct Base<'a> {
    /// The places for it.
    pub sites: &'a Sites,
    /// The base's parameters.
    pub params: &'a ParamStore,
    /// The path of the token embedding.
    pub words: &'a str,
    /// Where new parameters are made.
    pub device: Device,
    /// `config.json`.
    pub config: &'a serde_json::Value,
}

/// An adapter resident in a base's slots. Dropping this takes it out of them.
#[derive(Debug)]
pub struct Adapter {
    /// Names it in a pass.
    pub id: AdapterId,
    /// The method.
    pub config: PeftConfig,
    /// Its parameters, by peft's names.
    pub params: ParamStore,
    sites: Sites,
    words: String,
    model_type: String,
    model_class: String,
}

/// What peft puts before the paths of a model's modules.
pub(super) const PREFIX: &str = "base_model.model";

impl Adapter {
    /// A new adapter. Draws from the global generators.
    ///
    /// # Errors
    /// Settings that fit no module of the base.
    pub fn fresh(base: Base<'_>, config: &PeftConfig) -> Result<Self> {
        Self::build(base, config, ParamBuilder::fresh(base.device))
    }

    /// An adapter of a checkpoint, strictly: every tensor there is used, and every one needed is there.
    ///
    /// # Errors
    /// As [`Adapter::fresh`], and weights that do not fit.
    pub fn from_weights(base: Base<'_>, config: &PeftConfig, weights: Weights) -> Result<Self> {
        Self::build(base, config, ParamBuilder::from_weights(weights, base.device))
    }

    fn build(base: Base<'_>, config: &PeftConfig, b: ParamBuilder) -> Result<Self> {
        config.check()?;
        let (id, sites) = (AdapterId::new(), base.sites);
        let filled = match config {
            PeftConfig::Lora(c) => lora(id, base, &b, c),
            PeftConfig::Ia3(c) => ia3(id, sites, &b, c),
            PeftConfig::Prompt(c) => soft(id, sites, &b, |b, slot| {
                let table = sites.embeddings.iter().find(|(n, _)| n == base.words);
                let (_, table) =
                    table.ok_or_else(|| peft("peft.prompt", format!("{} is no table", base.words)))?;
                debug_assert_eq!(table.weight().size()[1], slot.hidden);
                Soft::prompt(b, table.weight(), slot.embedding_scale, c)
            }),
            PeftConfig::Prefix(c) => soft(id, sites, &b, |b, shape| Soft::prefix(b, shape, c)),
            PeftConfig::Bottleneck(c) => bottleneck(id, sites, &b, c),
        };
        // peft saves the base of an adapted table along, and with `bias = "all"` biases that nothing here reads.
        let unread = |n: &str| n.contains(".original_module.") || n.contains(".model.pooler.");
        let extra = |n: &str| {
            n.ends_with(".base_layer.weight") || (n.ends_with(".bias") && all_biases(config) && unread(n))
        };
        let made = filled.and_then(|()| Ok(b.finish(|_| false, extra)?));
        match made {
            Ok((params, _)) => {
                let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_string();
                Ok(Self {
                    id,
                    config: config.clone(),
                    params,
                    sites: sites.clone(),
                    model_type: text(&base.config["model_type"]),
                    model_class: text(&base.config["architectures"][0]),
                    words: base.words.into(),
                })
            }
            Err(e) => {
                clear(sites, id);
                Err(e)
            }
        }
    }

    /// The tensors of a saved adapter, by peft's names, f32.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        let _guard = no_grad();
        for (_, slot) in &self.sites.soft {
            if let Some(soft) = slot.slot().get(Some(self.id)) {
                let rows = match &*soft {
                    Soft::Prompt(p) => p.detach(),
                    Soft::Prefix(p) => p.whole().detach(),
                };
                return vec![("prompt_embeddings".into(), rows)];
            }
        }
        let mut out = self.params.named();
        for (path, layer) in &self.sites.linears {
            let adapter = layer.slot().get(Some(self.id));
            let Some((a0, b0)) = adapter.as_ref().and_then(|a| a.start()) else { continue };
            for (name, t) in &mut out {
                let of =
                    name.strip_prefix(PREFIX).and_then(|n| n.strip_prefix('.')?.strip_prefix(path.as_str()));
                match of {
                    Some(".lora_A.weight") => *t = Tensor::cat(&[&*t, a0], 0),
                    Some(".lora_B.weight") => *t = Tensor::cat(&[&*t, &b0.neg()], 1),
                    _ => {}
                }
            }
        }
        out
    }

    /// How often a saved adapter has its ranks: twice with a start that is saved along.
    pub(super) fn times(&self) -> i64 {
        let started = |l: &crate::Linear| l.slot().get(Some(self.id)).is_some_and(|a| a.start().is_some());
        if self.sites.linears.iter().any(|(_, l)| started(l)) { 2 } else { 1 }
    }

    /// The module a parameter belongs to, as the base names it.
    pub fn module_of(parameter: &str) -> Option<&str> {
        let path = parameter.strip_prefix(PREFIX)?.strip_prefix('.')?;
        let cut = [".lora_", ".ia3_l", ".base_layer", ".token_adapter", ".weight", ".bias"]
            .iter()
            .filter_map(|end| path.find(end))
            .min();
        Some(&path[..cut.unwrap_or(path.len())])
    }

    /// Works the adapter into the base's parameters, which then compute alone what base and adapter did. The adapter
    /// stays resident and must no longer be named in a pass.
    ///
    /// # Errors
    /// Prompts and prefixes, which are no weights; a module whose weight is tied to another's that is not adapted.
    pub fn merge(&self, params: &ParamStore) -> Result<()> {
        self.merge_into(params, &mut |_| ())
    }

    /// [`Adapter::merge`], keeping what was there before: a copy of every weight that changes.
    ///
    /// # Errors
    /// As [`Adapter::merge`].
    pub fn merge_reversibly(&self, params: &ParamStore) -> Result<Merged> {
        let mut kept = Merged(Vec::new());
        // Dropped on an error, which puts back what had been changed by then.
        self.merge_into(params, &mut |t| kept.0.push((t.shallow_clone(), t.detach().copy())))?;
        Ok(kept)
    }

    fn merge_into(&self, params: &ParamStore, before: &mut dyn FnMut(&Tensor)) -> Result<()> {
        let _guard = no_grad();
        if !matches!(self.config, PeftConfig::Lora(_) | PeftConfig::Ia3(_)) {
            let why =
                format!("a {} adapter is no change of weights and cannot be merged", self.config.method());
            return Err(peft("peft", why));
        }
        let tables = &self.sites.embeddings;
        for (path, layer) in &self.sites.linears {
            let Some(adapter) = layer.slot().get(Some(self.id)) else { continue };
            if adapter.is_of_table_too() {
                continue;
            }
            let Some(master) = layer.master() else {
                return Err(peft(
                    "peft",
                    format!(
                        "the base's weights ({path} and others) are quantised: what is rounded already would be rounded \
                         to nothing better. Merge into the base as it is on disk: load both without quantisation"
                    ),
                ));
            };
            // A tied head has no parameter of its own.
            if !params.has(&format!("{path}.weight")) {
                return Err(peft(
                    "peft",
                    format!("{path} shares its weight with another module: merging would change both"),
                ));
            }
            if adapter.needs_bias() && layer.bias().is_none() {
                return Err(peft(
                    "peft.lora.lora_bias",
                    format!("{path} has no bias to merge the update's into"),
                ));
            }
            let (weight, bias) = adapter.merged(&layer.rows(), layer.bias());
            let weight = if layer.is_transposed() { weight.tr() } else { weight };
            before(master);
            write(master, &weight);
            if let (Some(old), Some(new)) = (layer.bias(), &bias) {
                before(old);
                write(old, new);
            }
        }
        for (_, norm) in &self.sites.norms {
            if let (Some(own), Some(old)) = (norm.slot().get(Some(self.id)), norm.bias()) {
                before(old);
                write(old, &own.0);
            }
        }
        for (path, table) in tables {
            let Some(adapter) = table.slot().get(Some(self.id)) else { continue };
            let tied = self
                .sites
                .linears
                .iter()
                .any(|(_, l)| l.master().is_some_and(|w| w.data_ptr() == table.weight().data_ptr()));
            if tied && !adapter.is_of_head_too() {
                return Err(peft(
                    "peft",
                    format!("{path} shares its weight with the head: merging would change both"),
                ));
            }
            before(table.weight());
            write(table.weight(), &adapter.merged(table.weight()));
        }
        Ok(())
    }

    /// The linear layers and tables that it acts on, but for those of which the bias alone is another.
    pub fn modules(&self) -> Vec<&str> {
        let id = Some(self.id);
        let adapted = |l: &crate::Linear| l.slot().get(id).is_some_and(|a| !a.is_bias_alone());
        let linears = self.sites.linears.iter().filter(|(_, l)| adapted(l)).map(|(n, _)| n.as_str());
        let whole = |t: &crate::Embedding| t.slot().get(id).is_some_and(|a| !a.is_some_rows());
        let tables = self.sites.embeddings.iter().filter(|(_, t)| whole(t));
        linears.chain(tables.map(|(n, _)| n.as_str())).collect()
    }

    /// The path of the token embedding.
    pub fn words(&self) -> &str {
        &self.words
    }

    /// The base's `model_type` and class.
    pub(super) fn of_base(&self) -> (&str, &str) {
        (&self.model_type, &self.model_class)
    }

    pub(super) fn sites(&self) -> &Sites {
        &self.sites
    }
}

/// What a merge changed, as it was. Dropping this, or [`Merged::undo`], puts it back bit for bit; [`Merged::keep`] does not.
#[derive(Debug)]
#[must_use = "dropping it takes the merge back"]
pub struct Merged(Vec<(Tensor, Tensor)>);

impl Merged {
    /// Takes the merge back.
    pub fn undo(self) {}

    /// Leaves the merge as it is.
    pub fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Merged {
    fn drop(&mut self) {
        let _guard = no_grad();
        // Last first: of a weight that changed twice the first copy counts.
        for (weight, old) in self.0.iter().rev() {
            write(weight, old);
        }
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        clear(&self.sites, self.id);
    }
}

fn write(to: &Tensor, from: &Tensor) {
    to.shallow_clone().copy_(from);
}

fn clear(sites: &Sites, id: AdapterId) {
    sites.linears.iter().for_each(|(_, l)| l.slot().remove(id));
    sites.embeddings.iter().for_each(|(_, t)| t.slot().remove(id));
    sites.norms.iter().for_each(|(_, n)| n.slot().remove(id));
    remove(&sites.soft, id);
    sites.bottlenecks.iter().for_each(|(_, s)| s.slot().remove(id));
}

fn all_biases(config: &PeftConfig) -> bool {
    matches!(config, PeftConfig::Lora(LoraConfig { bias: LoraBias::All, .. }))
}

fn lora(id: AdapterId, base: Base<'_>, b: &ParamBuilder, c: &LoraConfig) -> Result<()> {
    let sites = base.sites;
    let names: Vec<&str> = sites
        .linears
        .iter()
        .map(|(n, _)| n)
        .chain(sites.embeddings.iter().map(|(n, _)| n))
        .map(String::as_str)
        .collect();
    let linears: Vec<&str> = sites.linears.iter().map(|(n, _)| n.as_str()).collect();
    // `all-linear` is about linear layers; tables are adapted where they are named.
    let among = if c.targets == Targets::default() { &linears } else { &names };
    let mut chosen: BTreeSet<&str> = c.targets.choose("peft.lora.targets", among)?.into_iter().collect();
    if !c.exclude.is_empty() {
        for name in Targets::Names(c.exclude.clone()).choose("peft.lora.exclude", &names)? {
            chosen.remove(name);
        }
    }
    if !c.layers.is_empty() {
        // As in peft, a module that is named by its whole path is meant wherever it is.
        let whole = |path: &str| match &c.targets {
            Targets::Names(names) => names.iter().any(|name| name == path),
            Targets::Pattern(_) => false,
        };
        let mut wanted = BTreeSet::new();
        for &path in &chosen {
            if whole(path) || is_in_layers(path, &c.layers, &c.layers_pattern)? {
                wanted.insert(path);
            }
        }
        chosen = wanted;
        if chosen.is_empty() {
            return Err(peft(
                "peft.lora.layers",
                format!("no module that `targets` fits is in {:?}", c.layers),
            ));
        }
    }
    if let Some(none) = c.modules_to_save.iter().find(|t| !names.iter().any(|n| within(n, t))) {
        return Err(peft("peft.lora.modules_to_save", format!("there is no linear layer or table `{none}`")));
    }
    let saved: BTreeSet<&str> =
        names.iter().copied().filter(|n| c.modules_to_save.iter().any(|t| within(n, t))).collect();
    let at = |path: &str| b.at(PREFIX).at(path);
    for (path, layer) in &sites.linears {
        if saved.contains(path.as_str()) {
            layer.slot().put(id, Rc::new(Replaced::build(&at(path), layer)?));
        } else if chosen.contains(path.as_str()) {
            layer.slot().put(id, Rc::new(Lora::build(&at(path), path, layer, c)?));
        } else if let Some(bias) = layer.bias().filter(|_| c.bias == LoraBias::All) {
            layer.slot().put(id, Rc::new(OwnBias::build(&at(path), bias)?));
        }
    }
    for (path, norm) in &sites.norms {
        if let Some(bias) = norm.bias().filter(|_| c.bias == LoraBias::All) {
            norm.slot().put(id, Rc::new(OwnBias::build(&at(path), bias)?));
        }
    }
    let tables: Vec<&str> = sites.embeddings.iter().map(|(n, _)| n.as_str()).collect();
    let tokens = match &c.trainable_token_indices {
        Some(rows) => rows.tables(&tables, base.words)?,
        None => Vec::new(),
    };
    for (path, ids) in &tokens {
        let Some((_, table)) = sites.embeddings.iter().find(|(n, _)| n == path) else {
            return Err(peft("peft.lora.trainable_token_indices", format!("{path} is no lookup table")));
        };
        if saved.contains(path.as_str()) || chosen.contains(path.as_str()) {
            let why = format!("{path} is among the targets or in modules_to_save already");
            return Err(peft("peft.lora.trainable_token_indices", why));
        }
        let heads: Vec<_> = sites
            .linears
            .iter()
            .filter(|(_, l)| l.master().is_some_and(|w| w.data_ptr() == table.weight().data_ptr()))
            .collect();
        let rows = Tokens::build(&at(path), path, table, ids, !heads.is_empty())?;
        table.slot().put(id, rows.clone());
        for (head, layer) in heads {
            if chosen.contains(head.as_str()) {
                let why = format!("{head} shares the weight of {path} and is among the targets");
                return Err(peft("peft.lora.trainable_token_indices", why));
            }
            layer.slot().put(id, rows.clone());
        }
    }
    for (path, table) in &sites.embeddings {
        if saved.contains(path.as_str()) {
            table.slot().put(id, Rc::new(Replaced::table(&at(path), table)?));
        } else if chosen.contains(path.as_str()) {
            if c.dora {
                return Err(peft(
                    "peft.lora.dora",
                    format!("{path} is a lookup table, which has no DoRA here"),
                ));
            }
            if c.lora_bias {
                return Err(peft("peft.lora.lora_bias", format!("{path} is a lookup table, which has none")));
            }
            table.slot().put(id, Rc::new(LoraTable::build(&at(path), path, table.weight(), c)?));
        }
    }
    Ok(())
}

fn ia3(id: AdapterId, sites: &Sites, b: &ParamBuilder, c: &Ia3Config) -> Result<()> {
    let names: Vec<&str> = sites.linears.iter().map(|(n, _)| n.as_str()).collect();
    let (targets, feedforward) = c.resolve(&names)?;
    let outputs: BTreeSet<&str> = targets.choose("peft.ia3.targets", &names)?.into_iter().collect();
    // AdapterHub's scale outputs alone.
    let none = matches!(&feedforward, Targets::Names(names) if names.is_empty());
    let inputs: BTreeSet<&str> = match none {
        true => BTreeSet::new(),
        false => feedforward.choose("peft.ia3.feedforward", &names)?.into_iter().collect(),
    };
    for (path, layer) in &sites.linears {
        let inner = inputs.contains(path.as_str());
        if inner || outputs.contains(path.as_str()) {
            layer.slot().put(id, Rc::new(Ia3::build(&b.at(PREFIX).at(path), layer, inner)?));
        }
    }
    Ok(())
}

impl Ia3Config {
    /// What was given, or the paper's placement in this family.
    pub(super) fn resolve(&self, names: &[&str]) -> Result<(Targets, Targets)> {
        let family = IA3.iter().find(|(kv, ff)| {
            let fits = |p: &str| Targets::Pattern(p.into()).choose("", names).is_ok();
            fits(kv) && fits(ff)
        });
        let pick = |given: &Option<Targets>, default: Option<&str>| {
            given.clone().or_else(|| default.map(|d| Targets::Pattern(d.into()))).ok_or_else(|| {
                peft(
                    "peft.ia3",
                    "this architecture has no default placement: give targets and feedforward".into(),
                )
            })
        };
        Ok((pick(&self.targets, family.map(|f| f.0))?, pick(&self.feedforward, family.map(|f| f.1))?))
    }
}

fn bottleneck(id: AdapterId, sites: &Sites, b: &ParamBuilder, c: &BottleneckConfig) -> Result<()> {
    let both = c.kind == BottleneckKind::Houlsby;
    for (path, slot) in &sites.bottlenecks {
        let layer = layer_of(path);
        let left_out = layer.is_some_and(|n| c.leave_out.contains(&n));
        if !left_out && (both || slot.behind == SubLayer::FeedForward) {
            let reduction =
                layer.and_then(|n| c.reductions.get(&n)).copied().unwrap_or_else(|| c.reduction());
            slot.slot().put(id, Rc::new(Bottleneck::build(&b.at(path), slot.hidden, reduction, c)?));
        }
    }
    if sites.bottlenecks.is_empty() {
        return Err(peft("peft.bottleneck", "this architecture has no place for them".into()));
    }
    Ok(())
}

fn soft(
    id: AdapterId,
    sites: &Sites,
    b: &ParamBuilder,
    make: impl Fn(&ParamBuilder, super::SoftShape) -> Result<Soft>,
) -> Result<()> {
    let [(_, slot)] = sites.soft.as_slice() else {
        return Err(peft("peft", "this architecture has no place for prompts and prefixes".into()));
    };
    slot.slot().put(id, Rc::new(make(b, slot.shape)?));
    Ok(())
}

impl PeftConfig {
    /// Its key in a config.
    pub fn method(&self) -> &'static str {
        match self {
            PeftConfig::Lora(_) => "lora",
            PeftConfig::Ia3(_) => "ia3",
            PeftConfig::Prompt(_) => "prompt",
            PeftConfig::Prefix(_) => "prefix",
            PeftConfig::Bottleneck(_) => "bottleneck",
        }
    }

    /// How much faster than the others a parameter learns.
    pub fn lr_scale(&self, parameter: &str) -> f64 {
        match self {
            PeftConfig::Lora(c) if parameter.contains(".lora_B.") => c.b_lr_ratio,
            _ => 1.0,
        }
    }

    /// Checks what types cannot.
    pub fn check(&self) -> Result<()> {
        let bad = |key: &str, why: &str| Err(peft(key, why.into()));
        match self {
            PeftConfig::Lora(c) => {
                if c.rank < 1 || c.rank_pattern.values().any(|r| *r < 1) {
                    return bad("peft.lora.rank", "must be 1 or more");
                }
                if !(0.0..1.0).contains(&c.dropout) {
                    return bad("peft.lora.dropout", "must be at least 0 and below 1");
                }
                if c.lora_bias && (c.dora || c.init == LoraInit::Pissa) {
                    return bad("peft.lora.lora_bias", "does not go with dora or PiSSA");
                }
                if !c.layers_pattern.is_empty() && c.layers.is_empty() {
                    return bad("peft.lora.layers_pattern", "says where layers are counted: give layers");
                }
                if !c.alpha.is_finite() || !c.b_lr_ratio.is_finite() || c.b_lr_ratio <= 0.0 {
                    return bad("peft.lora", "alpha and b_lr_ratio must be numbers, the ratio above 0");
                }
            }
            PeftConfig::Prompt(PromptConfig { tokens, .. })
            | PeftConfig::Prefix(PrefixConfig { tokens, .. }) => {
                if *tokens < 1 {
                    return bad("peft", "tokens must be 1 or more");
                }
            }
            PeftConfig::Bottleneck(c) => {
                let above = |r: &f64| *r > 0.0;
                if !(above(&c.reduction()) && c.reductions.values().all(above) && c.scaling().is_finite()) {
                    return bad("peft.bottleneck", "reduction must be above 0, and scaling a number");
                }
            }
            PeftConfig::Ia3(_) => {}
        }
        Ok(())
    }
}
