//! `config.json` from metadata.

use super::family::Family;
use super::rope;
use crate::{Error, Result};
use ragduet_gguf::{GgufFile, Metadata, Vocabulary};
use serde_json::{Map, Value, json};

/// Metadata of one architecture: keys behind its name.
pub(super) struct Settings<'a> {
    pub all: &'a Metadata,
    family: Family,
}

impl<'a> Settings<'a> {
    pub fn new(all: &'a Metadata, family: Family) -> Self {
        Self { all, family }
    }

    pub fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.family.name())
    }

    /// A whole number, alike in all layers.
    pub fn count(&self, key: &str) -> Result<Option<i64>> {
        let key = self.key(key);
        let n = self.all.same_count(&key)?;
        n.map(|n| i64::try_from(n).map_err(|_| self.all.wrong(&key, "is too large").into())).transpose()
    }

    pub fn needed(&self, key: &str) -> Result<i64> {
        Ok(self.all.needed(&self.key(key), self.count(key)?)?)
    }

    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        Ok(self.all.number(&self.key(key))?)
    }

    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        Ok(self.all.text(&self.key(key))?)
    }

    /// The error of a setting that is not computed here.
    pub fn unsupported<T>(&self, key: &str, value: impl ToString, supported: &str) -> Result<T> {
        Err(Error::UnsupportedSetting {
            path: self.all.path().into(),
            key: self.key(key),
            value: value.to_string(),
            supported: supported.into(),
        })
    }
}

/// How many heads queries and keys have.
pub(super) fn heads(metadata: &Metadata, family: Family) -> Result<(i64, i64)> {
    let settings = Settings::new(metadata, family);
    let heads = settings.needed("attention.head_count")?;
    let kv = settings.count("attention.head_count_kv")?.unwrap_or(heads);
    for (key, n) in [("attention.head_count", heads), ("attention.head_count_kv", kv)] {
        if n < 1 {
            return settings.unsupported(key, n, "a number from 1");
        }
    }
    Ok((heads, kv))
}

pub(super) fn read(file: &GgufFile) -> Result<Value> {
    let metadata = file.metadata();
    let family = super::family(metadata)?;
    let settings = Settings::new(metadata, family);
    if let Some(experts) = settings.count("expert_count")?.filter(|&n| n > 0) {
        return settings.unsupported("expert_count", experts, "models without experts");
    }
    let (heads, kv_heads) = heads(metadata, family)?;
    let hidden = settings.needed("embedding_length")?;
    let head_dim = match settings.count("attention.key_length")? {
        Some(n) => n,
        None => settings.count("rope.dimension_count")?.unwrap_or(hidden / heads),
    };
    for key in ["attention.value_length", "rope.dimension_count"] {
        if let Some(n) = settings.count(key)?.filter(|&n| n != head_dim) {
            return settings.unsupported(key, n, &format!("{head_dim}, as attention.key_length"));
        }
    }
    let has = |name: &str| file.tensor(name).is_some();
    let Some(words) = file.tensor("token_embd.weight").and_then(|t| t.shape.first().copied()) else {
        return Err(ragduet_gguf::Error::NoTensor {
            path: file.path().into(),
            tensor: "token_embd.weight".into(),
        }
        .into());
    };
    sizes_fit(file, &settings, heads, head_dim)?;
    let eps = "attention.layer_norm_rms_epsilon";
    let eps = metadata.needed(&settings.key(eps), settings.number(eps)?)?;
    let arch = crate::arch::ArchSpec::of(family.model_type());
    let mut config = json!({
        "architectures": [arch.map(|a| a.class).unwrap_or_default()],
        "model_type": family.model_type(),
        "vocab_size": words,
        "hidden_size": hidden,
        "intermediate_size": settings.needed("feed_forward_length")?,
        "num_hidden_layers": settings.needed("block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": settings.needed("context_length")?,
        "rms_norm_eps": eps,
        "tie_word_embeddings": !has("output.weight"),
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": true,
        "dtype": "float32",
    });
    let own = match family {
        Family::Llama => json!({
            "hidden_act": "silu",
            "attention_bias": has("blk.0.attn_q.bias"),
            "mlp_bias": has("blk.0.ffn_gate.bias"),
            "rope_parameters": rope::read(file, &settings, head_dim)?,
        }),
        Family::Qwen2 => json!({
            "hidden_act": "silu",
            "use_sliding_window": false,
            "rope_parameters": rope::read(file, &settings, head_dim)?,
        }),
        Family::Qwen3 => json!({
            "hidden_act": "silu",
            "attention_bias": has("blk.0.attn_q.bias"),
            "use_sliding_window": false,
            "rope_parameters": rope::read(file, &settings, head_dim)?,
        }),
        Family::Gemma3 => gemma3(file, &settings, head_dim)?,
    };
    if family != Family::Gemma3
        && let Some(window) = settings.count("attention.sliding_window")?.filter(|&n| n > 0)
    {
        return settings.unsupported(
            "attention.sliding_window",
            window,
            "none: llama.cpp has no window in this family",
        );
    }
    let special = Vocabulary::read(metadata)?;
    if let Some(map) = config.as_object_mut() {
        map.extend(own.as_object().cloned().unwrap_or_default());
        let ids =
            [("bos_token_id", special.bos), ("eos_token_id", special.eos), ("pad_token_id", special.pad)];
        map.extend(ids.into_iter().map(|(key, id)| (key.to_owned(), json!(id))));
    }
    Ok(config)
}

/// Whether the numbers of layers and heads are those of the tensors, before anything is made for each.
fn sizes_fit(file: &GgufFile, settings: &Settings<'_>, heads: i64, head_dim: i64) -> Result<()> {
    let layers = settings.needed("block_count")?;
    let name = "blk.0.attn_q.weight";
    let rows = file.tensor(name).and_then(|t| t.shape.first()).map(|&n| n as i64);
    if layers < 1 || layers as usize > file.tensors().len() || rows.is_none() {
        let tensors = format!("the number of layers of the {} tensors that are here", file.tensors().len());
        return settings.unsupported("block_count", layers, &tensors);
    }
    if heads.checked_mul(head_dim) != rows {
        let supported = format!("{name} has {} rows for {heads} heads", rows.unwrap_or(0));
        return settings.unsupported("attention.key_length", head_dim, &supported);
    }
    Ok(())
}

/// What Gemma 3 has besides.
fn gemma3(file: &GgufFile, settings: &Settings<'_>, head_dim: i64) -> Result<Value> {
    for key in ["final_logit_softcapping", "attn_logit_softcapping"] {
        if let Some(cap) = settings.number(key)?.filter(|&x| x != 0.0) {
            return settings.unsupported(key, cap, "none, as in every Gemma 3");
        }
    }
    let layers = settings.needed("block_count")?;
    let (heads, _) = heads(settings.all, Family::Gemma3)?;
    let hidden = settings.needed("embedding_length")?;
    // llama.cpp knows the 27B by its layers: there the scale is that of hidden size over heads.
    let scalar = if layers == 62 { hidden / heads } else { head_dim };
    let window = settings.count("attention.sliding_window")?.filter(|&n| n > 0);
    let every = pattern(settings)?;
    // Without a window all layers are global.
    let global = |layer: i64| window.is_none() || (layer + 1) % every == 0;
    let kinds: Vec<&str> =
        (0..layers).map(|i| if global(i) { "full_attention" } else { "sliding_attention" }).collect();
    let local = settings.number("rope.freq_base_swa")?.unwrap_or(10_000.0);
    let mut ropes = Map::new();
    ropes.insert("full_attention".into(), rope::read(file, settings, head_dim)?);
    ropes.insert("sliding_attention".into(), json!({"rope_type": "default", "rope_theta": local}));
    Ok(json!({
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": file.tensor("blk.0.attn_q.bias").is_some(),
        "query_pre_attn_scalar": scalar,
        "sliding_window": window.unwrap_or(4096),
        "layer_types": kinds,
        "final_logit_softcapping": null,
        "attn_logit_softcapping": null,
        "rope_parameters": ropes,
    }))
}

/// Every how many layers one is global: 6 where the file does not say.
fn pattern(settings: &Settings<'_>) -> Result<i64> {
    let key = "attention.sliding_window_pattern";
    match settings.all.get(&settings.key(key)) {
        None => Ok(6),
        Some(ragduet_gguf::Value::Array(_)) => {
            let local = settings.all.integers(&settings.key(key))?.unwrap_or_default();
            let every = local.iter().position(|&on| on == 0).map_or(local.len() + 1, |at| at + 1);
            let regular = |(i, &on): (usize, &i64)| (on == 0) == ((i + 1) % every == 0);
            match local.iter().enumerate().all(regular) {
                true => Ok(every as i64),
                false => settings.unsupported(key, "irregular", "every nth layer global"),
            }
        }
        Some(_) => match settings.needed(key)? {
            n if n >= 1 => Ok(n),
            n => settings.unsupported(key, n, "a number of layers from 1"),
        },
    }
}
