//! Bi-encoder to directory.

use super::late;
use super::read::{Overrides, load};
use crate::biencoder::{BiEncoder, DenseActivation, Side, Similarity, Tower};
use crate::sparse::SparseConfig;
use crate::{Error, Pooling, Result};
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
pub fn save(model: &BiEncoder, dir: &Path, card: Option<&str>) -> Result<()> {
    fs::create_dir_all(dir)?;
    let s = &model.settings;
    match &model.passage_tower {
        None => {
            let names = module_names(model, &model.query_tower);
            let paths: Vec<String> = names
                .iter()
                .enumerate()
                .map(|(i, n)| if i == 0 { String::new() } else { format!("{i}_{n}") })
                .collect();
            write_tower(model, &model.query_tower, Side::Query, |i| dir.join(&paths[i]), &names)?;
            let modules: Vec<Value> = names
                .iter()
                .zip(&paths)
                .enumerate()
                .map(|(i, (n, p))| json!({"idx": i, "name": i.to_string(), "path": p, "type": type_name(n)}))
                .collect();
            write_json(&dir.join("modules.json"), &Value::Array(modules))?;
        }
        Some(passage) => {
            let (mut types, mut structure) = (serde_json::Map::new(), serde_json::Map::new());
            for (route, side, tower) in
                [("query", Side::Query, &model.query_tower), ("document", Side::Passage, passage)]
            {
                let names = module_names(model, tower);
                let ids: Vec<String> =
                    names.iter().enumerate().map(|(i, n)| format!("{route}_{i}_{n}")).collect();
                write_tower(model, tower, side, |i| dir.join(&ids[i]), &names)?;
                types.extend(ids.iter().zip(&names).map(|(id, n)| (id.clone(), type_name(n).into())));
                structure.insert(route.into(), json!(ids));
            }
            let router = json!({"types": types, "structure": structure,
                "parameters": {"default_route": "document", "allow_empty_key": true}});
            write_json(&dir.join("router_config.json"), &router)?;
            let modules = json!([{"idx": 0, "name": "0", "path": "", "type": type_name("Router")}]);
            write_json(&dir.join("modules.json"), &modules)?;
        }
    }
    let versions: serde_json::Map<String, Value> =
        VERSIONS.iter().map(|(k, v)| (k.to_string(), (*v).into())).collect();
    let mut config = json!({
        "__version__": versions,
        "model_type": if s.sparse.is_some() { "SparseEncoder" } else { "SentenceTransformer" },
        "prompts": s.prompts,
        "default_prompt_name": null,
        "similarity_fn_name": match s.similarity { Similarity::Cosine => "cosine", Similarity::Dot => "dot" },
    });
    if let (Some(l), Some(map)) = (&s.late, config.as_object_mut()) {
        map.insert("model_type".into(), "ColBERT".into());
        map.insert("similarity_fn_name".into(), "MaxSim".into());
        if let Value::Object(keys) = late::keys(&l.config, (s.max_query_tokens, s.max_passage_tokens)) {
            map.extend(keys);
        }
    }
    write_json(&dir.join("config_sentence_transformers.json"), &config)?;
    if let Some(card) = card {
        write_atomic(&dir.join("README.md"), card.as_bytes())?;
    }
    Ok(())
}

fn module_names(model: &BiEncoder, tower: &Tower) -> Vec<&'static str> {
    if model.sparse().is_some() {
        return vec![MLM, SPLADE];
    }
    let late = model.late().is_some();
    let mut names = vec!["Transformer"];
    if !late {
        names.push("Pooling");
    }
    if tower.dense.is_some() {
        names.push("Dense");
    }
    // PyLate scales token vectors itself and knows no such module.
    if model.settings.normalize && !late {
        names.push("Normalize");
    }
    names
}

const MLM: &str = "MLMTransformer";
const SPLADE: &str = "SpladePooling";

fn type_name(module: &str) -> String {
    match module {
        MLM | SPLADE => format!("sentence_transformers.sparse_encoder.models.{module}"),
        _ => format!("sentence_transformers.models.{module}"),
    }
}

fn write_tower(
    model: &BiEncoder,
    tower: &Tower,
    side: Side,
    place: impl Fn(usize) -> std::path::PathBuf,
    names: &[&str],
) -> Result<()> {
    let s = &model.settings;
    for (i, name) in names.iter().enumerate() {
        let dir = place(i);
        fs::create_dir_all(&dir)?;
        match *name {
            "Transformer" | MLM => {
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
            SPLADE => {
                if let Some(sparse) = s.sparse {
                    write_json(&dir.join("config.json"), &splade_config(sparse, model.dim()))?;
                }
            }
            "Pooling" => write_json(&dir.join("config.json"), &pooling_config(model, tower))?,
            "Dense" => {
                if let Some(d) = &tower.dense {
                    let activation = match d.activation {
                        DenseActivation::Identity => "torch.nn.modules.linear.Identity",
                        DenseActivation::Tanh => "torch.nn.modules.activation.Tanh",
                    };
                    let config = json!({"in_features": d.weight.size()[1], "out_features": d.weight.size()[0],
                        "bias": d.bias.is_some(), "activation_function": activation});
                    write_json(&dir.join("config.json"), &config)?;
                    save_model(&dir, &d.params.named(), u64::MAX)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn splade_config(sparse: SparseConfig, words: i64) -> Value {
    json!({"pooling_strategy": sparse.pooling, "activation_function": sparse.activation, "word_embedding_dimension": words})
}

fn pooling_config(model: &BiEncoder, tower: &Tower) -> Value {
    let p = model.settings.pooling;
    json!({
        "word_embedding_dimension": tower.model.encoder.hidden_size(),
        "pooling_mode_cls_token": p == Pooling::Cls,
        "pooling_mode_mean_tokens": p == Pooling::Mean,
        "pooling_mode_max_tokens": false,
        "pooling_mode_mean_sqrt_len_tokens": false,
        "pooling_mode_weightedmean_tokens": false,
        "pooling_mode_lasttoken": p == Pooling::LastToken,
        "include_prompt": model.settings.include_prompt,
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
        quantize: model.query_tower.model.params.quantised().next().map(|(_, q)| q.bits()).into(),
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
