//! Learning-rate schedules: warm-up, then linear, cosine or constant; equal to transformers'
//! `get_{linear,cosine,constant}_schedule_with_warmup` and `get_cosine_with_min_lr_schedule_with_warmup`.

use crate::checked;
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::borrow::Cow;

/// Learning-rate schedule after warm-up: `"linear"`, `"cosine"`, `"constant"`, or a table with settings
/// (`[optim.schedule.cosine]`).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum ScheduleConfig {
    /// Linear decay to 0.
    #[default]
    Linear,
    /// Cosine decay.
    Cosine(CosineConfig),
    /// Constant learning rate.
    Constant,
}

/// Cosine decay.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CosineConfig {
    /// Final learning rate as a share of the peak.
    #[serde(deserialize_with = "checked::share")]
    #[schemars(range(min = 0, max = 1))]
    pub min_ratio: f64,
    /// Number of cosine periods; 0.5 ends at the minimum.
    #[serde(deserialize_with = "checked::positive")]
    pub cycles: f64,
}

impl Default for CosineConfig {
    fn default() -> Self {
        Self { min_ratio: 0.0, cycles: 0.5 }
    }
}

/// Schedule as a table with settings.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Table {
    /// Linear decay to 0.
    Linear(NoSettings),
    /// Cosine decay.
    Cosine(CosineConfig),
    /// Constant learning rate.
    Constant(NoSettings),
}

/// No settings.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NoSettings {}

/// Schedule by name.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Name {
    Linear,
    Cosine,
    Constant,
}

impl Serialize for ScheduleConfig {
    /// Settings that are the defaults are written as the bare name.
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Linear => Name::Linear.serialize(s),
            Self::Constant => Name::Constant.serialize(s),
            Self::Cosine(c) if c == CosineConfig::default() => Name::Cosine.serialize(s),
            Self::Cosine(c) => Table::Cosine(c).serialize(s),
        }
    }
}

impl<'de> Deserialize<'de> for ScheduleConfig {
    // Not `#[serde(untagged)]`, whose errors name neither the key nor what is wrong with it.
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = ScheduleConfig;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("`linear`, `cosine`, `constant`, or a table of one of them")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<ScheduleConfig, E> {
                Ok(match Name::deserialize(de::value::StrDeserializer::new(name))? {
                    Name::Linear => ScheduleConfig::Linear,
                    Name::Cosine => ScheduleConfig::Cosine(CosineConfig::default()),
                    Name::Constant => ScheduleConfig::Constant,
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ScheduleConfig, A::Error> {
                Ok(match Table::deserialize(MapAccessDeserializer::new(map))? {
                    Table::Linear(NoSettings {}) => ScheduleConfig::Linear,
                    Table::Cosine(c) => ScheduleConfig::Cosine(c),
                    Table::Constant(NoSettings {}) => ScheduleConfig::Constant,
                })
            }
        }
        d.deserialize_any(Either)
    }
}

impl JsonSchema for ScheduleConfig {
    fn schema_name() -> Cow<'static, str> {
        "ScheduleConfig".into()
    }

    fn json_schema(g: &mut schemars::SchemaGenerator) -> schemars::Schema {
        // `oneOf` marks a choice: config files that extend one another replace it rather than merge it.
        schemars::json_schema!({
            "description": "What follows the warm-up.",
            "oneOf": [g.subschema_for::<Name>(), g.subschema_for::<Table>()],
        })
    }
}

/// Learning-rate warm-up: linear from 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Warmup {
    /// Warm-up as a share of all optimizer steps.
    #[serde(deserialize_with = "checked::share")]
    Ratio(#[schemars(range(min = 0, max = 1))] f64),
    /// Warm-up in optimizer steps.
    Steps(u64),
}

impl Default for Warmup {
    fn default() -> Self {
        Self::Ratio(0.1)
    }
}

/// A schedule over a known number of steps.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    kind: ScheduleConfig,
    warmup: u64,
    total: u64,
}

impl Schedule {
    /// For `total` optimiser steps.
    pub fn new(kind: ScheduleConfig, warmup: Warmup, total: u64) -> Self {
        let warmup = match warmup {
            Warmup::Steps(n) => n,
            // transformers rounds up.
            Warmup::Ratio(r) => (r.clamp(0.0, 1.0) * total as f64).ceil() as u64,
        };
        Self { kind, warmup, total }
    }

    /// The factor of the base learning rate in the step after `done` finished ones.
    pub fn factor(&self, done: u64) -> f64 {
        if done < self.warmup {
            return done as f64 / self.warmup.max(1) as f64;
        }
        let left = (self.total - self.warmup.min(self.total)).max(1) as f64;
        let progress = ((done - self.warmup) as f64 / left).min(1.0);
        match self.kind {
            ScheduleConfig::Constant => 1.0,
            ScheduleConfig::Linear => self.total.saturating_sub(done) as f64 / left,
            ScheduleConfig::Cosine(CosineConfig { min_ratio, cycles }) => {
                let wave = 0.5 * (1.0 + (std::f64::consts::TAU * cycles * progress).cos());
                (wave * (1.0 - min_ratio) + min_ratio).max(0.0)
            }
        }
    }
}

/// The factor of the base learning rate in the step after `step` of `total_steps` are done.
pub fn lr_factor(kind: ScheduleConfig, warmup: Warmup, step: u64, total_steps: u64) -> f64 {
    Schedule::new(kind, warmup, total_steps).factor(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `tests/golden/schedules.json`, made by transformers (`make_schedules.py` beside it).
    #[test]
    fn as_transformers() {
        #[derive(Deserialize)]
        struct Case {
            schedule: ScheduleConfig,
            warmup: u64,
            total: u64,
            factors: Vec<f64>,
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/schedules.json");
        let cases: Vec<Case> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert!(cases.len() >= 12);
        for c in cases {
            assert_eq!(c.factors.len() as u64, c.total + 1);
            for (step, want) in c.factors.iter().enumerate() {
                let got = lr_factor(c.schedule, Warmup::Steps(c.warmup), step as u64, c.total);
                let (s, w) = (c.schedule, c.warmup);
                assert!((got - want).abs() < 1e-12, "{s:?} warm-up {w} step {step}: {got} {want}");
            }
        }
    }

    #[test]
    fn no_warmup_and_one_step() {
        let s = Schedule::new(ScheduleConfig::Linear, Warmup::Ratio(0.0), 1);
        assert_eq!(s.factor(0), 1.0);
        assert_eq!(Schedule::new(ScheduleConfig::Linear, Warmup::Ratio(0.1), 54).warmup, 6);
        // Nothing to divide by: an empty run, a warm-up that is longer than it.
        assert_eq!(lr_factor(ScheduleConfig::Linear, Warmup::Steps(0), 0, 0), 0.0);
        assert_eq!(lr_factor(ScheduleConfig::Linear, Warmup::Steps(20), 10, 10), 0.5);
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Optim {
        schedule: ScheduleConfig,
        warmup: Warmup,
    }

    fn parse(schedule: &str, warmup: &str) -> Result<Optim, String> {
        toml::from_str(&format!("schedule = {schedule}\nwarmup = {warmup}\n"))
            .map_err(|e: toml::de::Error| e.to_string())
    }

    #[test]
    fn both_forms_are_read_and_written_back() {
        let warmup = "{ steps = 2 }";
        let soft = ScheduleConfig::Cosine(CosineConfig { min_ratio: 0.1, cycles: 0.5 });
        for (text, want, written) in [
            ("\"linear\"", ScheduleConfig::Linear, "schedule = \"linear\""),
            ("{ constant = {} }", ScheduleConfig::Constant, "schedule = \"constant\""),
            ("\"cosine\"", ScheduleConfig::Cosine(CosineConfig::default()), "schedule = \"cosine\""),
            ("{ cosine = { min_ratio = 0.1 } }", soft, "[schedule.cosine]\nmin_ratio = 0.1"),
        ] {
            let got = parse(text, warmup).unwrap();
            assert_eq!(got.schedule, want);
            let back = toml::to_string(&got).unwrap();
            assert!(back.contains(written), "{back}");
            assert_eq!(toml::from_str::<Optim>(&back).unwrap(), got);
        }
    }

    #[test]
    fn mistakes_are_pointed_at() {
        for (schedule, warmup, words) in [
            ("\"cosin\"", "{ steps = 1 }", "unknown variant `cosin`"),
            ("{ cosine = { min_ration = 0.1 } }", "{ steps = 1 }", "unknown field `min_ration`"),
            ("{ linear = { min_ratio = 0.1 } }", "{ steps = 1 }", "unknown field `min_ratio`"),
            ("{ cosine = { min_ratio = 1.5 } }", "{ steps = 1 }", "from 0 to 1"),
            ("{ cosine = { cycles = 0.0 } }", "{ steps = 1 }", "above 0"),
            ("3", "{ steps = 1 }", "a table of one of them"),
            ("\"linear\"", "{ ratio = 10 }", "from 0 to 1"),
            ("\"linear\"", "{ steps = -1 }", "-1"),
        ] {
            let e = parse(schedule, warmup).unwrap_err();
            assert!(e.contains(words) && e.contains("line "), "{schedule} {warmup}: {e}");
        }
    }
}
