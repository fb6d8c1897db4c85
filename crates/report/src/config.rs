//! Configs side by side.

use serde::Serialize;
use std::collections::BTreeSet;

/// A key that runs differ in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Dotted.
    pub key: String,
    /// Of each run, where it has it.
    pub values: Vec<Option<String>>,
}

/// Dotted keys and values of a config, as TOML writes them.
pub(crate) fn flatten(table: &toml::Table) -> Vec<(String, String)> {
    let mut out = Vec::new();
    add("", &toml::Value::Table(table.clone()), &mut out);
    out
}

fn add(key: &str, value: &toml::Value, out: &mut Vec<(String, String)>) {
    match value {
        toml::Value::Table(t) if !t.is_empty() || key.is_empty() => {
            for (k, v) in t {
                let at = if key.is_empty() { k.clone() } else { format!("{key}.{k}") };
                add(&at, v, out);
            }
        }
        other => out.push((key.to_string(), other.to_string())),
    }
}

/// The keys in which not all configs agree, those that only some have among them. The order is the first config's, then
/// that of the others.
pub fn differences(configs: &[&[(String, String)]]) -> Vec<Difference> {
    let mut seen = BTreeSet::new();
    let keys = configs.iter().flat_map(|c| c.iter().map(|(k, _)| k)).filter(|k| seen.insert(*k));
    keys.map(|key| {
        let of = |c: &&[(String, String)]| c.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
        Difference { key: key.clone(), values: configs.iter().map(of).collect() }
    })
    .filter(|d| d.values.windows(2).any(|w| w[0] != w[1]))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_and_what_only_one_has() {
        let flat = |text: &str| flatten(&text.parse().unwrap());
        let a = flat("seed = 1\n[optim]\nlr = 1e-3\nbetas = [0.9, 0.98]\n[peft.lora]\nrank = 8\n[empty]");
        assert_eq!(a[1], ("optim.lr".into(), "0.001".into()));
        assert_eq!(a[4], ("empty".into(), "{}".into()));
        let b = flat("seed = 2\n[optim]\nlr = 1e-3\nbetas = [0.9, 0.98]\nwarmup = \"a<b\"\n[empty]");
        let all = differences(&[&a, &b]);
        let keys: Vec<&str> = all.iter().map(|d| d.key.as_str()).collect();
        assert_eq!(keys, ["seed", "peft.lora.rank", "optim.warmup"]);
        assert_eq!(all[1].values, [Some("8".to_string()), None]);
        assert!(differences(&[&a]).is_empty() && differences(&[&a, &a, &a]).is_empty());
    }
}
