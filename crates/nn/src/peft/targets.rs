//! Which modules an adapter goes into.

use crate::arch::lm_heads;
use crate::{Error, Result};
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Target modules by name, as in peft: a list of names (a full dotted path or its end), or a string: `all-linear`
/// (every linear layer but the output head) or a regular expression for the full path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Targets {
    /// `all-linear`, or a regular expression.
    Pattern(String),
    /// Module names: full dotted paths or their ends.
    Names(Vec<String>),
}

impl Default for Targets {
    fn default() -> Self {
        Targets::Pattern("all-linear".into())
    }
}

/// Output projections beside those of language models.
const HEADS: [&str; 3] = ["classifier", "score", "dense.linear"];

/// Whether the linear layer of this path is one of the layers' own and not a head: what can be quantised, and what
/// `all-linear` means.
pub(crate) fn is_inner(path: &str) -> bool {
    !HEADS.into_iter().chain(lm_heads()).any(|h| ends(path, h))
}

impl Targets {
    /// From `adapter_config.json`.
    pub(super) fn parse(value: &serde_json::Value) -> Option<Self> {
        Self::deserialize(value).ok()
    }

    /// The paths among `all` that are meant, in their order.
    ///
    /// # Errors
    /// A pattern that is no regular expression, and a name or pattern that no path fits: what it should have adapted
    /// would be left as it is, silently.
    pub(super) fn choose<'a>(&self, key: &str, all: &[&'a str]) -> Result<Vec<&'a str>> {
        let bad = |why: String| Error::Peft { key: key.into(), why };
        let some = || all.iter().take(4).copied().collect::<Vec<_>>().join(", ");
        let chosen: Vec<&str> = match self {
            Targets::Pattern(p) if p == "all-linear" => all.iter().copied().filter(|n| is_inner(n)).collect(),
            Targets::Pattern(p) => {
                let whole = Regex::new(&format!("^(?:{p})$")).map_err(|e| bad(e.to_string()))?;
                all.iter().copied().filter(|n| whole.is_match(n)).collect()
            }
            Targets::Names(names) => {
                if let Some(none) = names.iter().find(|t| !all.iter().any(|n| ends(n, t))) {
                    return Err(bad(format!(
                        "`{none}` is the end of no module's name; names are such as {}",
                        some()
                    )));
                }
                all.iter().copied().filter(|n| names.iter().any(|t| ends(n, t))).collect()
            }
        };
        if chosen.is_empty() {
            return Err(bad(format!("no module fits; names are such as {}", some())));
        }
        Ok(chosen)
    }
}

/// Whether `end` is the path or its last parts.
pub(super) fn ends(path: &str, end: &str) -> bool {
    path.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether `name` is the module, or one that it is in: what `modules_to_save` means.
pub(super) fn within(path: &str, name: &str) -> bool {
    format!(".{path}.").contains(&format!(".{name}."))
}

/// The number of a module's layer: the first part of its path that is a number and has parts before and behind it, as peft's
/// `layers_to_transform` counts.
pub(super) fn layer_of(path: &str) -> Option<u32> {
    let parts: Vec<&str> = path.split('.').collect();
    let inner = parts.get(1..parts.len() - 1)?;
    inner.iter().find_map(|p| p.parse().ok())
}

/// Whether a module is in one of `layers`, counted in the lists that `patterns` name, if any, as peft's `layers_pattern`.
pub(super) fn is_in_layers(path: &str, layers: &[u32], patterns: &[String]) -> Result<bool> {
    let mut number = if patterns.is_empty() { layer_of(path) } else { None };
    for pattern in patterns {
        let whole = Regex::new(&format!(r"^(?:|.*?\.)(?:{pattern})\.(\d+)\."))
            .map_err(|e| Error::Peft { key: "layers_pattern".into(), why: e.to_string() })?;
        if let Some(found) = whole.captures(path) {
            number = found.get(1).and_then(|n| n.as_str().parse().ok());
            break;
        }
    }
    Ok(number.is_some_and(|n| layers.contains(&n)))
}

/// A key of `rank_pattern` and the like, as peft reads it: a regular expression for the path or its last parts.
pub(super) fn pattern_fits(pattern: &str, path: &str) -> Result<bool> {
    Regex::new(&format!("^(?:.*\\.)?(?:{pattern})$"))
        .map(|r| r.is_match(path))
        .map_err(|e| Error::Peft { key: "rank_pattern or alpha_pattern".into(), why: e.to_string() })
}

/// The modules of (IA)^3 by family, keys and values (scaled at their outputs) and the feed-forward's last projections
/// (scaled at their inputs), as regular expressions for whole paths. The paper's placement (Liu et al., 2022, section
/// 3.3); a joint q, k, v projection is scaled as a whole.
pub(super) const IA3: [(&str, &str); 6] = [
    // Llama's family, and Phi-3 with one projection for q, k and v.
    (r".*self_attn\.(k_proj|v_proj|qkv_proj)", r".*mlp\.down_proj"),
    // T5.
    (r".*(SelfAttention|EncDecAttention)\.(k|v)", r".*DenseReluDense\.wo"),
    // BERT, ELECTRA, RoBERTa, MPNet and DeBERTa.
    (r".*attention\.(self\.(key|value)(_proj)?|attn\.(k|v))", r".*layer\.\d+\.output\.dense"),
    // DistilBERT.
    (r".*attention\.(k|v)_lin", r".*ffn\.lin2"),
    // GPT-NeoX.
    (r".*attention\.query_key_value", r".*mlp\.dense_4h_to_h"),
    // GPT-2 and ModernBERT.
    (r".*attn\.(c_attn|Wqkv)", r".*mlp\.(c_proj|Wo)"),
];

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&str; 4] = [
        "model.layers.0.self_attn.q_proj",
        "model.layers.0.mlp.up_proj",
        "model.layers.1.self_attn.q_proj",
        "lm_head",
    ];

    #[test]
    fn names_patterns_and_all() {
        let choose = |t: Targets| t.choose("targets", &ALL);
        let names = |n: &[&str]| Targets::Names(n.iter().map(|s| s.to_string()).collect());
        assert_eq!(choose(names(&["q_proj"])).unwrap(), [ALL[0], ALL[2]]);
        assert_eq!(choose(names(&["lm_head", "mlp.up_proj"])).unwrap(), [ALL[1], ALL[3]]);
        assert_eq!(choose(Targets::default()).unwrap(), ALL[..3]);
        assert_eq!(choose(Targets::Pattern(r".*layers\.1\..*".into())).unwrap(), [ALL[2]]);
        let e = choose(names(&["proj"])).unwrap_err().to_string();
        assert!(e.contains("`proj`") && e.contains("q_proj"), "{e}");
        assert!(choose(Targets::Pattern("q_proj".into())).is_err());
        assert_eq!(layer_of(ALL[2]), Some(1));
        assert_eq!(layer_of("lm_head"), None);
        assert_eq!(layer_of("encoder.block.3.layer.1.DenseReluDense.wo"), Some(3));
        let within = |path: &str, pattern: &[&str]| {
            is_in_layers(path, &[1], &pattern.iter().map(|p| p.to_string()).collect::<Vec<_>>()).unwrap()
        };
        assert!(within(ALL[2], &[]) && within(ALL[2], &["layers"]) && within("layers.1.Wqkv", &["layers"]));
        assert!(!within(ALL[0], &[]) && !within(ALL[2], &["block"]));
        assert!(within("encoder.block.3.layer.1.DenseReluDense.wo", &["none", "layer"]));
        assert!(pattern_fits(r"layers\.0\..*q_proj", ALL[0]).unwrap());
        assert!(!pattern_fits("k_proj", ALL[0]).unwrap());
    }
}
