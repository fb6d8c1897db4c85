//! Bi-encoder to directory.

use super::late;
use super::read::LIMITS;
use super::read::{Overrides, load};
use crate::biencoder::BiEncoder;
use crate::head::{Dense, HeadModule, VectorNorm};
use crate::representation::{DenseSettings, Pooling, Representation, Side, Similarity, SparseConfig};
use crate::tower::Tower;
use crate::{Error, Result};
use fs_err as fs;
use ragduet_nn::peft::TaskType;
use ragduet_nn::{Mode, save_encoder};
use ragduet_torch::no_grad;
use ragduet_torch::weights::{save_model, write_atomic};
use serde_json::{Value, json};
use std::path::Path;

/// Versions that the layout corresponds to; sentence-transformers only warns where its own are older.
const VERSIONS: [(&str, &str); 3] =
    [("sentence_transformers", "5.3.0"), ("transformers", "5.3.0"), ("pytorch", "2.11.0")];

/// Writes the model as a sentence-transformers directory. Two towers become its `Router`, with the routes `query`
/// and `document`.
pub fn save(model: &BiEncoder, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    let s = &model.settings;
    match &model.passage_tower {
        None => {
            let parts = parts(model, &model.query_tower);
            let paths: Vec<String> = parts
                .iter()
                .enumerate()
                .map(|(i, part)| if i == 0 { String::new() } else { format!("{i}_{}", part.name()) })
                .collect();
            write_tower(model, &model.query_tower, Side::Query, |i| dir.join(&paths[i]), &parts)?;
            let modules: Vec<Value> = parts
                .iter()
                .zip(&paths)
                .enumerate()
                .map(|(i, (part, p))| json!({"idx": i, "name": i.to_string(), "path": p, "type": part.type_name()}))
                .collect();
            write_json(&dir.join("modules.json"), &Value::Array(modules))?;
        }
        Some(passage) => {
            let (mut types, mut structure) = (serde_json::Map::new(), serde_json::Map::new());
            for (route, side, tower) in
                [("query", Side::Query, &model.query_tower), ("document", Side::Passage, passage)]
            {
                let parts = parts(model, tower);
                let ids: Vec<String> = parts
                    .iter()
                    .enumerate()
                    .map(|(i, part)| format!("{route}_{i}_{}", part.name()))
                    .collect();
                write_tower(model, tower, side, |i| dir.join(&ids[i]), &parts)?;
                types.extend(ids.iter().zip(&parts).map(|(id, part)| (id.clone(), part.type_name().into())));
                structure.insert(route.into(), json!(ids));
            }
            let router = json!({"types": types, "structure": structure,
                "parameters": {"default_route": "document", "allow_empty_key": true}});
            write_json(&dir.join("router_config.json"), &router)?;
            let modules =
                json!([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Router"}]);
            write_json(&dir.join("modules.json"), &modules)?;
        }
    }
    let dense = matches!(s.representation, Representation::Dense(_) | Representation::Sparse(_));
    if dense && model.is_shared() && s.max_query_tokens != s.max_passage_tokens {
        let limits =
            json!({"max_query_tokens": s.max_query_tokens, "max_passage_tokens": s.max_passage_tokens});
        write_json(&dir.join(LIMITS), &limits)?;
    }
    let versions: serde_json::Map<String, Value> =
        VERSIONS.iter().map(|(k, v)| (k.to_string(), (*v).into())).collect();
    let (model_type, similarity, more) = match &s.representation {
        Representation::Dense(dense) => {
            let more = dense.truncate.map_or_else(|| json!({}), |n| json!({"truncate_dim": n}));
            ("SentenceTransformer", similarity_name(dense.similarity), more)
        }
        Representation::LateInteraction(l) => {
            ("ColBERT", "MaxSim", late::keys(&l.config, (s.max_query_tokens, s.max_passage_tokens)))
        }
        Representation::Sparse(_) => ("SparseEncoder", similarity_name(Similarity::Dot), json!({})),
    };
    let mut config = json!({
        "__version__": versions,
        "model_type": model_type,
        "prompts": s.prompts,
        "default_prompt_name": null,
        "similarity_fn_name": similarity,
    });
    if let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) {
        config.extend(more);
    }
    write_json(&dir.join("config_sentence_transformers.json"), &config)?;
    Ok(())
}

fn similarity_name(similarity: Similarity) -> &'static str {
    match similarity {
        Similarity::Cosine => "cosine",
        Similarity::Dot => "dot",
    }
}

/// A module of a folder, with what its files say.
enum Part<'a> {
    Transformer,
    MlmTransformer,
    Pooling(&'a DenseSettings),
    Dense(&'a Dense),
    LayerNorm(&'a VectorNorm),
    Normalize,
    SpladePooling(SparseConfig),
}

impl Part<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Transformer => "Transformer",
            Self::MlmTransformer => "MLMTransformer",
            Self::Pooling(_) => "Pooling",
            Self::Dense(_) => "Dense",
            Self::LayerNorm(_) => "LayerNorm",
            Self::Normalize => "Normalize",
            Self::SpladePooling(_) => "SpladePooling",
        }
    }

    fn type_name(&self) -> String {
        let package = match self {
            Self::MlmTransformer | Self::SpladePooling(_) => "sentence_transformers.sparse_encoder.models",
            Self::Transformer | Self::Pooling(_) | Self::Dense(_) | Self::LayerNorm(_) | Self::Normalize => {
                "sentence_transformers.models"
            }
        };
        format!("{package}.{}", self.name())
    }
}

/// The modules of a tower, in their order.
fn parts<'a>(model: &'a BiEncoder, tower: &'a Tower) -> Vec<Part<'a>> {
    let head = tower.head.0.iter().map(|module| match module {
        HeadModule::Dense(dense) => Part::Dense(dense),
        HeadModule::LayerNorm(norm) => Part::LayerNorm(norm),
        HeadModule::Normalize => Part::Normalize,
    });
    match model.representation() {
        Representation::Dense(settings) => [Part::Transformer, Part::Pooling(settings)]
            .into_iter()
            .chain(head)
            .chain(settings.normalize.then_some(Part::Normalize))
            .collect(),
        // PyLate scales token vectors to unit length itself and knows no module for it.
        Representation::LateInteraction(_) => std::iter::once(Part::Transformer).chain(head).collect(),
        Representation::Sparse(config) => vec![Part::MlmTransformer, Part::SpladePooling(*config)],
    }
}

fn write_tower(
    model: &BiEncoder,
    tower: &Tower,
    side: Side,
    place: impl Fn(usize) -> std::path::PathBuf,
    parts: &[Part<'_>],
) -> Result<()> {
    let s = &model.settings;
    for (i, part) in parts.iter().enumerate() {
        let dir = place(i);
        fs::create_dir_all(&dir)?;
        let config = dir.join("config.json");
        match part {
            Part::Transformer | Part::MlmTransformer => {
                match &tower.adapter {
                    Some(a) => a.save(&dir, TaskType::FeatureExtraction, &tower.base)?,
                    None => save_encoder(&tower.model, &dir)?,
                }
                model.tokenizer.save(&dir)?;
                let longest = if model.is_shared() {
                    s.max_query_tokens.max(s.max_passage_tokens)
                } else {
                    model.max_tokens(side)
                };
                let config =
                    json!({"max_seq_length": longest, "do_lower_case": model.tokenizer.lower_case()});
                write_json(&dir.join("sentence_bert_config.json"), &config)?;
            }
            Part::Pooling(settings) => write_json(&config, &pooling_config(settings, tower))?,
            Part::Dense(d) => {
                let s = d.shape();
                let mut says = json!({"in_features": s.inputs, "out_features": s.outputs, "bias": s.bias,
                    "activation_function": s.activation.class()});
                // Versions before 5.7 know no such key.
                if s.residual {
                    says["use_residual"] = true.into();
                }
                write_json(&config, &says)?;
                save_model(&dir, &d.named(), u64::MAX)?;
            }
            Part::LayerNorm(norm) => {
                write_json(&config, &json!({"dimension": norm.size()}))?;
                save_model(&dir, &norm.named(), u64::MAX)?;
            }
            Part::SpladePooling(sparse) => write_json(&config, &splade_config(*sparse, model.dim()))?,
            // A folder without a file: there is nothing to say.
            Part::Normalize => {}
        }
    }
    Ok(())
}

fn splade_config(sparse: SparseConfig, words: i64) -> Value {
    json!({"pooling_strategy": sparse.pooling, "activation_function": sparse.activation, "word_embedding_dimension": words})
}

fn pooling_config(settings: &DenseSettings, tower: &Tower) -> Value {
    let on = |p: Pooling| settings.pooling.contains(&p);
    json!({
        "word_embedding_dimension": tower.model.encoder.hidden_size(),
        "pooling_mode_cls_token": on(Pooling::Cls),
        "pooling_mode_mean_tokens": on(Pooling::Mean),
        "pooling_mode_max_tokens": on(Pooling::Max),
        "pooling_mode_mean_sqrt_len_tokens": on(Pooling::MeanSqrtLen),
        "pooling_mode_weightedmean_tokens": on(Pooling::WeightedMean),
        "pooling_mode_lasttoken": on(Pooling::LastToken),
        "include_prompt": settings.include_prompt,
    })
}

/// Reads the directory again, embeds a few texts with both, and compares.
///
/// # Errors
/// [`Error::Verify`] where an embedding differs: the files do not hold the model that was trained.
pub fn verify(model: &BiEncoder, dir: &Path, texts: &[String]) -> Result<()> {
    let overrides = Overrides {
        max_query_tokens: Some(model.settings.max_query_tokens),
        max_passage_tokens: Some(model.settings.max_passage_tokens),
        // What was trained over codes is compared over codes.
        bits: model.query_tower.model.params.quantised().next().map(|(_, q)| q.bits()),
        ..Overrides::default()
    };
    let again = load(dir, model.device, model.compute, &overrides)?;
    let _guard = no_grad();
    let mode = Mode::eval(model.compute);
    for side in [Side::Query, Side::Passage] {
        for text in texts {
            let embed = |m: &BiEncoder| {
                let tokens = m.tokenize(side, std::slice::from_ref(text))?;
                m.rows(side, &tokens.iter().collect::<Vec<_>>(), mode)
            };
            let difference = f64::try_from((embed(model)? - embed(&again)?).abs().max()).unwrap_or(f64::NAN);
            if difference.is_nan() || difference > 1e-4 {
                let text: String = text.chars().take(60).collect();
                return Err(Error::Verify { path: dir.into(), text, difference });
            }
        }
    }
    Ok(())
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    let mut text =
        serde_json::to_vec_pretty(value).map_err(|source| Error::Json { path: path.into(), source })?;
    text.push(b'\n');
    Ok(write_atomic(path, &text)?)
}
