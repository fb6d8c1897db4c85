//! Settings of decoding: what a user may set, what a model's generation_config.json says, what results.

use crate::error::{Error, Result, bad};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Decoding. Settings that are absent come from the model's generation_config.json (unless `model_defaults` is false),
/// else from the defaults given here, which are transformers'.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DecodeConfig {
    /// Whether generation_config.json provides defaults. Its end-of-sequence tokens always count.
    pub model_defaults: bool,
    /// Maximum number of generated tokens; default 128. `max_length` of generation_config.json is ignored, because it
    /// counts the prompt.
    pub max_new_tokens: Option<usize>,
    /// Minimum number of generated tokens; default 0.
    pub min_new_tokens: Option<usize>,
    /// Sampling instead of greedy decoding or beam search; default false.
    pub do_sample: Option<bool>,
    /// Sampling temperature; default 1. 0: no sampling.
    pub temperature: Option<f64>,
    /// Top-k sampling; default 50 as in transformers, 0: off.
    pub top_k: Option<usize>,
    /// Top-p (nucleus) sampling, in (0, 1]; default 1.
    pub top_p: Option<f64>,
    /// Min-p sampling: minimum probability relative to the most likely token, in [0, 1]; default 0.
    pub min_p: Option<f64>,
    /// Repetition penalty: divides positive and multiplies negative logits of tokens in prompt and answer; default 1.
    pub repetition_penalty: Option<f64>,
    /// Presence penalty: subtracted from the logits of generated tokens; default 0.
    pub presence_penalty: Option<f64>,
    /// Frequency penalty: subtracted from the logits of generated tokens per occurrence; default 0.
    pub frequency_penalty: Option<f64>,
    /// Size n of n-grams that may not repeat, prompt included; default 0: off.
    pub no_repeat_ngram_size: Option<usize>,
    /// Number of beams; default 1: no beam search.
    pub num_beams: Option<usize>,
    /// Length penalty of beam search: exponent of the length that divides the sum of log-probabilities; default 1.
    pub length_penalty: Option<f64>,
    /// Stopping criterion of beam search; default `heuristic`.
    pub early_stopping: Option<EarlyStopping>,
    /// Number of sequences per prompt; default 1. More need beams or sampling.
    pub num_return_sequences: Option<usize>,
    /// End-of-sequence token ids; absent: the model's.
    pub eos_token_id: Option<Vec<u32>>,
    /// Stop strings: generation ends when the text contains one.
    pub stop_strings: Vec<String>,
    /// Whether token log-probabilities are returned.
    pub log_probs: bool,
    /// Random seed of sampling.
    pub seed: u64,
}

impl Default for DecodeConfig {
    fn default() -> Self {
        Self {
            model_defaults: true,
            max_new_tokens: None,
            min_new_tokens: None,
            do_sample: None,
            temperature: None,
            top_k: None,
            top_p: None,
            min_p: None,
            repetition_penalty: None,
            presence_penalty: None,
            frequency_penalty: None,
            no_repeat_ngram_size: None,
            num_beams: None,
            length_penalty: None,
            early_stopping: None,
            num_return_sequences: None,
            eos_token_id: None,
            stop_strings: Vec::new(),
            log_probs: false,
            seed: 0,
        }
    }
}

/// Stopping criterion of beam search, once as many sequences as beams have finished.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EarlyStopping {
    /// When the best running beam, at its present length, scores no better than the worst finished sequence
    /// (transformers' `False`).
    #[default]
    Heuristic,
    /// Immediately (transformers' `True`).
    Full,
    /// When no running beam can improve at any length (transformers' `"never"`).
    Never,
}

/// Decoding settings, resolved and checked. See [`DecodeConfig`] for what they mean.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Decoding {
    /// At most so many tokens.
    pub max_new_tokens: usize,
    /// No end before.
    pub min_new_tokens: usize,
    /// Sampling, or the likeliest.
    pub do_sample: bool,
    /// Above 0.
    pub temperature: f64,
    /// 0: all.
    pub top_k: usize,
    /// In (0, 1].
    pub top_p: f64,
    /// In [0, 1].
    pub min_p: f64,
    /// 1: off.
    pub repetition_penalty: f64,
    /// 0: off.
    pub presence_penalty: f64,
    /// 0: off.
    pub frequency_penalty: f64,
    /// 0: off.
    pub no_repeat_ngram_size: usize,
    /// At least 1.
    pub num_beams: usize,
    /// Exponent of the length.
    pub length_penalty: f64,
    /// When beams end.
    pub early_stopping: EarlyStopping,
    /// At least 1.
    pub num_return_sequences: usize,
    /// May be empty.
    pub eos_token_id: Vec<u32>,
    /// None is empty.
    pub stop_strings: Vec<String>,
    /// Whether to return log-probabilities.
    pub log_probs: bool,
    /// Random seed of sampling.
    pub seed: u64,
    /// Keys of generation_config.json that would change what transformers generates and are not implemented here; for
    /// a warning.
    pub ignored: Vec<String>,
}

/// Keys of generation_config.json with an effect on the tokens that is not implemented, and the value without one.
const NOT_IMPLEMENTED: &[(&str, f64)] = &[
    ("typical_p", 1.0),
    ("epsilon_cutoff", 0.0),
    ("eta_cutoff", 0.0),
    ("top_h", f64::NAN),
    ("encoder_repetition_penalty", 1.0),
    ("encoder_no_repeat_ngram_size", 0.0),
    ("diversity_penalty", 0.0),
    ("num_beam_groups", 1.0),
    ("penalty_alpha", 0.0),
    ("guidance_scale", 1.0),
    ("min_length", 0.0),
    ("bad_words_ids", f64::NAN),
    ("sequence_bias", f64::NAN),
    ("suppress_tokens", f64::NAN),
    ("begin_suppress_tokens", f64::NAN),
    ("forced_bos_token_id", f64::NAN),
    ("forced_eos_token_id", f64::NAN),
    ("exponential_decay_length_penalty", f64::NAN),
    ("stop_strings", f64::NAN),
];

impl DecodeConfig {
    /// Fills in generation_config.json's settings (where `model_defaults`) and transformers' defaults, and checks.
    /// `eos_token_id` is the model's config.json's, used if generation_config.json has none.
    ///
    /// # Errors
    /// [`Error::Config`] for a setting out of range, a combination that does nothing, or a key of
    /// generation_config.json of the wrong type.
    pub fn resolve(&self, generation_config: Option<&Value>, eos_token_id: &[u32]) -> Result<Decoding> {
        let model = Model(generation_config.filter(|_| self.model_defaults));
        let eos_of_model = match ids(generation_config.and_then(|g| g.get("eos_token_id")))? {
            Some(ids) => ids,
            None => eos_token_id.to_vec(),
        };
        let temperature = match self.temperature {
            Some(t) => t,
            None => model.number("temperature")?.unwrap_or(1.0),
        };
        let early = match self.early_stopping {
            Some(e) => e,
            None => model.early_stopping()?.unwrap_or_default(),
        };
        let count = |own: Option<usize>, key: &str, default: usize| match own {
            Some(n) => Ok(n),
            None => Ok::<_, Error>(model.count(key)?.unwrap_or(default)),
        };
        let number = |own: Option<f64>, key: &str, default: f64| match own {
            Some(n) => Ok(n),
            None => Ok::<_, Error>(model.number(key)?.unwrap_or(default)),
        };
        let sample = match self.do_sample {
            Some(s) => s,
            None => model.flag("do_sample")?.unwrap_or(false),
        };
        let resolved = Decoding {
            max_new_tokens: count(self.max_new_tokens, "max_new_tokens", 128)?,
            min_new_tokens: count(self.min_new_tokens, "min_new_tokens", 0)?,
            do_sample: sample && temperature != 0.0,
            temperature: if temperature == 0.0 { 1.0 } else { temperature },
            top_k: count(self.top_k, "top_k", 50)?,
            top_p: number(self.top_p, "top_p", 1.0)?,
            min_p: number(self.min_p, "min_p", 0.0)?,
            repetition_penalty: number(self.repetition_penalty, "repetition_penalty", 1.0)?,
            presence_penalty: self.presence_penalty.unwrap_or(0.0),
            frequency_penalty: self.frequency_penalty.unwrap_or(0.0),
            no_repeat_ngram_size: count(self.no_repeat_ngram_size, "no_repeat_ngram_size", 0)?,
            num_beams: count(self.num_beams, "num_beams", 1)?,
            length_penalty: number(self.length_penalty, "length_penalty", 1.0)?,
            early_stopping: early,
            num_return_sequences: count(self.num_return_sequences, "num_return_sequences", 1)?,
            eos_token_id: self.eos_token_id.clone().unwrap_or(eos_of_model),
            stop_strings: self.stop_strings.clone(),
            log_probs: self.log_probs,
            seed: self.seed,
            ignored: model.ignored(),
        };
        resolved.check()?;
        Ok(resolved)
    }
}

impl Decoding {
    fn check(&self) -> Result<()> {
        let positive = |key: &str, v: f64| {
            if v > 0.0 && v.is_finite() { Ok(()) } else { Err(bad(key, "must be above 0")) }
        };
        positive("temperature", self.temperature)?;
        positive("repetition_penalty", self.repetition_penalty)?;
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(bad("top_p", "must be in (0, 1]"));
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return Err(bad("min_p", "must be in [0, 1]"));
        }
        let finite = [
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
            ("length_penalty", self.length_penalty),
        ];
        if let Some((key, _)) = finite.iter().find(|(_, v)| !v.is_finite()) {
            return Err(bad(key, "must be a finite number"));
        }
        if self.min_new_tokens > self.max_new_tokens {
            return Err(bad("min_new_tokens", "is above max_new_tokens"));
        }
        if self.num_beams == 0 || self.num_return_sequences == 0 {
            return Err(bad("num_beams", "num_beams and num_return_sequences must be at least 1"));
        }
        if self.num_beams > 1 && self.do_sample {
            return Err(bad(
                "num_beams",
                "beam search does not sample; set do_sample = false or num_beams = 1",
            ));
        }
        let most = if self.num_beams > 1 { self.num_beams } else { 1 };
        if !self.do_sample && self.num_return_sequences > most {
            return Err(bad(
                "num_return_sequences",
                "more sequences need as many beams, or do_sample = true",
            ));
        }
        if self.stop_strings.iter().any(String::is_empty) {
            return Err(bad("stop_strings", "an empty stop string would stop everything"));
        }
        Ok(())
    }
}

/// A model's generation_config.json, or nothing.
struct Model<'a>(Option<&'a Value>);

impl Model<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.0?.get(key).filter(|v| !v.is_null())
    }

    fn typed<T>(&self, key: &str, what: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>> {
        match self.get(key) {
            None => Ok(None),
            Some(v) => match read(v) {
                Some(t) => Ok(Some(t)),
                None => Err(bad(key, format!("generation_config.json has {v}, expected {what}"))),
            },
        }
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    fn count(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a whole number", |v| v.as_u64().map(|n| n as usize))
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    fn early_stopping(&self) -> Result<Option<EarlyStopping>> {
        self.typed("early_stopping", "true, false or \"never\"", |v| match v {
            Value::Bool(true) => Some(EarlyStopping::Full),
            Value::Bool(false) => Some(EarlyStopping::Heuristic),
            Value::String(s) if s == "never" => Some(EarlyStopping::Never),
            _ => None,
        })
    }

    fn ignored(&self) -> Vec<String> {
        let has_effect = |(key, neutral): &&(&str, f64)| match self.get(key) {
            None => false,
            Some(Value::Array(a)) => !a.is_empty(),
            Some(v) => v.as_f64().is_none_or(|n| n != *neutral),
        };
        NOT_IMPLEMENTED.iter().filter(has_effect).map(|(key, _)| key.to_string()).collect()
    }
}

/// One id or a list of them.
fn ids(value: Option<&Value>) -> Result<Option<Vec<u32>>> {
    let one = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
    let read = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(a)) => a.iter().map(one).collect(),
        Some(v) => one(v).map(|id| vec![id]),
    };
    read.map(Some)
        .ok_or_else(|| bad("eos_token_id", "generation_config.json: expected an id or a list of ids"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_users_settings_go_before_the_models_and_those_before_the_defaults() {
        let model = json!({
            "do_sample": true, "temperature": 0.6, "top_p": 0.9, "eos_token_id": [2, 7], "early_stopping": "never",
            "max_length": 20, "typical_p": 0.9, "epsilon_cutoff": 0.0, "suppress_tokens": [], "transformers_version": "5",
        });
        let config = DecodeConfig { top_p: Some(0.5), ..DecodeConfig::default() };
        let d = config.resolve(Some(&model), &[1]).unwrap();
        assert!(d.do_sample && d.temperature == 0.6 && d.top_p == 0.5 && d.top_k == 50);
        assert_eq!((d.eos_token_id, d.early_stopping), (vec![2, 7], EarlyStopping::Never));
        assert_eq!((d.max_new_tokens, d.ignored), (128, vec!["typical_p".to_string()]));

        let config = DecodeConfig { model_defaults: false, ..DecodeConfig::default() };
        let d = config.resolve(Some(&model), &[1]).unwrap();
        assert!(!d.do_sample && d.top_p == 1.0);
        assert_eq!(d.eos_token_id, [2, 7]);
        assert_eq!(config.resolve(None, &[1]).unwrap().eos_token_id, [1]);
        assert_eq!(config.resolve(Some(&json!({"eos_token_id": 3})), &[]).unwrap().eos_token_id, [3]);

        let cold = DecodeConfig { temperature: Some(0.0), ..DecodeConfig::default() };
        assert!(!cold.resolve(Some(&model), &[]).unwrap().do_sample);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for text in [
            "temperature = -1.0",
            "top_p = 0.0",
            "min_p = 1.5",
            "repetition_penalty = 0.0",
            "min_new_tokens = 200",
            "num_beams = 0",
            "num_beams = 2\ndo_sample = true",
            "num_return_sequences = 2",
            "num_beams = 2\nnum_return_sequences = 3",
            "stop_strings = [\"\"]",
            "length_penalty = nan",
        ] {
            let config: DecodeConfig = toml::from_str(text).unwrap();
            assert!(config.resolve(None, &[]).is_err(), "{text}");
        }
        assert!(toml::from_str::<DecodeConfig>("topk = 3").is_err());
        let wrong = json!({"temperature": "hot"});
        assert!(DecodeConfig::default().resolve(Some(&wrong), &[]).is_err());
        assert!(DecodeConfig::default().resolve(Some(&json!({"eos_token_id": "</s>"})), &[]).is_err());
    }
}
