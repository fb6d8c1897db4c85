//! Which parameters train, how fast, and with how much decay: rules over names.

use crate::{Error, Result, ScheduleConfig, Warmup, checked};
use ragduet_torch::optim::{AdafactorOptions, AdamWOptions, GroupRule, OptimizerOptions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Optimizer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    /// AdamW.
    #[default]
    AdamW,
    /// Adafactor: factored second moments (little memory), updates relative to the parameter's scale.
    Adafactor,
}

/// Settings of Adafactor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdafactorConfig {
    /// Relative step size: the learning rate is multiplied by the root mean square of the parameter.
    pub scale_parameter: bool,
    /// Update clipping: updates with a larger root mean square are scaled down to it.
    #[serde(deserialize_with = "checked::positive")]
    pub clip_threshold: f64,
    /// Exponent d of the second moment's decay, 1 - t^-d at step t.
    #[serde(deserialize_with = "checked::positive")]
    pub decay_exponent: f64,
    /// First-moment decay; absent: no first moment.
    #[serde(deserialize_with = "checked::optional_decay")]
    pub beta1: Option<f64>,
}

impl Default for AdafactorConfig {
    fn default() -> Self {
        Self { scale_parameter: true, clip_threshold: 1.0, decay_exponent: 0.8, beta1: None }
    }
}

/// Optimizer and learning-rate schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// Optimizer: `adamw` or `adafactor`.
    pub name: OptimizerName,
    /// Settings of Adafactor.
    pub adafactor: AdafactorConfig,
    /// Peak learning rate.
    #[serde(deserialize_with = "checked::positive")]
    pub lr: f64,
    /// Decoupled weight decay. Biases and norms are exempt.
    #[serde(deserialize_with = "checked::not_negative")]
    pub weight_decay: f64,
    /// AdamW: decay of the first moment.
    #[serde(deserialize_with = "checked::decay")]
    pub beta1: f64,
    /// AdamW: decay of the second moment.
    #[serde(deserialize_with = "checked::decay")]
    pub beta2: f64,
    /// AdamW: epsilon, added to the root of the second moment.
    #[serde(deserialize_with = "checked::positive")]
    pub eps: f64,
    /// Layer-wise learning-rate decay: factor from each layer to the one below; 1: the same rate for all layers.
    #[serde(deserialize_with = "checked::factor")]
    pub layer_decay: f64,
    /// Learning rate of new parameters after the encoder (projection, head, temperature); absent: `lr`.
    #[serde(deserialize_with = "checked::optional_not_negative")]
    pub head_lr: Option<f64>,
    /// Learning-rate schedule after warm-up.
    pub schedule: ScheduleConfig,
    /// Learning-rate warm-up.
    pub warmup: Warmup,
    /// Gradient clipping: maximum global norm; 0: no clipping.
    #[serde(deserialize_with = "checked::not_negative")]
    pub max_grad_norm: f64,
    /// Frozen parameters, by name; `*` matches anything.
    pub freeze: Vec<String>,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            name: OptimizerName::default(),
            adafactor: AdafactorConfig::default(),
            lr: 2e-5,
            weight_decay: 0.01,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            layer_decay: 1.0,
            head_lr: None,
            schedule: ScheduleConfig::default(),
            warmup: Warmup::default(),
            max_grad_norm: 1.0,
            freeze: Vec::new(),
        }
    }
}

impl OptimizerConfig {
    /// The optimiser's settings.
    ///
    /// # Errors
    /// [`Error::Config`] where Adafactor is set but not chosen.
    pub fn options(&self) -> Result<OptimizerOptions> {
        let a = &self.adafactor;
        if self.name == OptimizerName::AdamW && *a != AdafactorConfig::default() {
            let message = "it is set, but optim.name is adamw".into();
            return Err(Error::Config { origin: "optim.adafactor".into(), message });
        }
        Ok(match self.name {
            OptimizerName::AdamW => OptimizerOptions::AdamW(self.adamw()),
            OptimizerName::Adafactor => OptimizerOptions::Adafactor(AdafactorOptions {
                clip_threshold: a.clip_threshold,
                decay_rate: -a.decay_exponent,
                beta1: a.beta1,
                scale_parameter: a.scale_parameter,
                ..AdafactorOptions::default()
            }),
        })
    }

    /// The moments' settings of AdamW.
    pub fn adamw(&self) -> AdamWOptions {
        AdamWOptions { beta1: self.beta1, beta2: self.beta2, eps: self.eps }
    }

    /// The rule of a parameter. `depth`: 0 for embeddings, 1..=`layers` for layers, `None` for a head.
    pub fn rule(&self, name: &str, depth: Option<usize>, layers: usize) -> GroupRule {
        let lr_scale = match depth {
            None => self.head_lr.map_or(1.0, |lr| if self.lr > 0.0 { lr / self.lr } else { 1.0 }),
            // The top layer learns at the full rate.
            Some(d) => self.layer_decay.powi(layers.saturating_sub(d) as i32),
        };
        GroupRule { lr_scale, weight_decay: if decays(name) { self.weight_decay } else { 0.0 } }
    }
}

/// Biases, the weights of norms (`LayerNorm.weight`, `mlp_norm.weight`, GPT-2's `ln_1.weight`) and logarithms of
/// scales are not decayed: pulling them to 0 shifts what the layers compute rather than simplifying it.
fn decays(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let in_norm = lower
        .rsplit('.')
        .nth(1)
        .is_some_and(|part| part.contains("norm") || part == "ln" || part.starts_with("ln_"));
    !(lower.ends_with("bias") || in_norm || lower.ends_with("log_scale"))
}

/// Whether any pattern names this parameter.
pub fn is_frozen(name: &str, patterns: &[String]) -> bool {
    patterns.iter().any(|p| matches_pattern(p, name))
}

/// Checks that each pattern of `optim.freeze` names a parameter: one that names none is a typo, and what it should
/// have frozen would train.
pub fn check_patterns<'a>(patterns: &[String], names: impl Iterator<Item = &'a str> + Clone) -> Result<()> {
    for p in patterns {
        if !names.clone().any(|n| matches_pattern(p, n)) {
            let some: Vec<&str> = names.clone().take(3).collect();
            return Err(Error::Config {
                origin: "optim.freeze".into(),
                message: format!("`{p}` names no parameter; names are such as {}", some.join(", ")),
            });
        }
    }
    Ok(())
}

/// `*` matches any run of characters; without one the pattern also matches as a dotted prefix.
pub fn matches_pattern(pattern: &str, name: &str) -> bool {
    if !pattern.contains('*') {
        return name == pattern || name.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('.'));
    }
    let mut parts = pattern.split('*');
    let Some(rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut rest = rest;
    let parts: Vec<&str> = parts.collect();
    let (last, middle) = parts.split_last().map_or(("", &[][..]), |(l, m)| (*l, m));
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let yes = [
            ("embeddings", "embeddings.word_embeddings.weight"),
            ("embeddings.*", "embeddings.LayerNorm.bias"),
            ("encoder.layer.0.*", "encoder.layer.0.output.dense.weight"),
            ("*.bias", "a.b.bias"),
            ("*layer.*.output*", "encoder.layer.3.output.dense.weight"),
        ];
        let no = [
            ("embeddings", "embeddings2.x"),
            ("encoder.layer.1.*", "encoder.layer.11.x"),
            ("*.bias", "a.weight"),
        ];
        assert!(yes.iter().all(|(p, n)| matches_pattern(p, n)));
        assert!(!no.iter().any(|(p, n)| matches_pattern(p, n)));
        let names = ["embeddings.word.weight", "encoder.layer.0.x"];
        let check = |p: &str| check_patterns(&[p.to_string()], names.iter().copied());
        check("encoder.layer.*").unwrap();
        let e = check("embedings.*").unwrap_err().to_string();
        assert!(e.contains("optim.freeze") && e.contains("`embedings.*`"), "{e}");
    }

    #[test]
    fn values_out_of_range_are_pointed_at() {
        for (text, words) in [
            ("lr = 0.0", "above 0"),
            ("lr = nan", "above 0"),
            ("weight_decay = -0.1", "at least 0"),
            ("beta2 = 1.0", "below 1"),
            ("layer_decay = 1.2", "at most 1"),
            ("head_lr = -1", "at least 0"),
            ("max_grad_norm = inf", "at least 0"),
        ] {
            let e = toml::from_str::<OptimizerConfig>(text).unwrap_err().to_string();
            assert!(e.contains(words) && e.contains("line 1"), "{text}: {e}");
        }
        let c: OptimizerConfig = toml::from_str("name = \"adafactor\"\nadafactor.beta1 = 0.9").unwrap();
        assert!(matches!(c.options(), Ok(OptimizerOptions::Adafactor(o)) if o.beta1 == Some(0.9)));
        let c = OptimizerConfig { name: OptimizerName::AdamW, ..c };
        assert!(c.options().unwrap_err().to_string().contains("optim.adafactor"));
        assert!(toml::from_str::<OptimizerConfig>("adafactor.beta1 = 1.0").is_err());
        let c: OptimizerConfig = toml::from_str("head_lr = 1e-3\nlayer_decay = 0.9").unwrap();
        assert_eq!((c.head_lr, c.layer_decay, c.lr), (Some(1e-3), 0.9, 2e-5));
    }

    #[test]
    fn rules() {
        let c = OptimizerConfig { layer_decay: 0.5, head_lr: Some(2e-4), ..OptimizerConfig::default() };
        let rule = |n, d| c.rule(n, d, 3);
        assert_eq!(rule("encoder.layer.2.output.dense.weight", Some(3)).lr_scale, 1.0);
        assert_eq!(rule("embeddings.word_embeddings.weight", Some(0)).lr_scale, 0.125);
        assert!((rule("dense.linear.weight", None).lr_scale - 10.0).abs() < 1e-9);
        for (name, wd) in [
            ("encoder.layer.0.output.LayerNorm.weight", 0.0),
            ("layers.0.mlp_norm.weight", 0.0),
            ("h.0.ln_1.weight", 0.0),
            ("ln_f.weight", 0.0),
            ("h.0.mlp.c_fc.weight", 0.01),
            ("x.bias", 0.0),
            ("layers.0.mlp.Wi.weight", 0.01),
        ] {
            assert_eq!(rule(name, Some(1)).weight_decay, wd, "{name}");
        }
    }
}
