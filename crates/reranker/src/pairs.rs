//! How a folder of sentence-transformers says that pairs are read: its modules, prompt, and chat template.
//!
//! Version 6 renders a pair by the tokenizer's chat template, as messages of the roles `query` and `document`, where the
//! folder's `modality_config` has `message`; before, and in folders of transformers, a pair is two texts.

use crate::{Error, Result};
use ragduet_retriever::Pair;
use ragduet_text::{ChatTemplate, EncodeOptions, Encoding, Tokenizer, message};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What a folder's modules come to.
#[derive(Debug, Default)]
pub(crate) struct Modules {
    /// The folder of the transformer.
    pub transformer: PathBuf,
    /// The tokens whose logits are the score, of a language model: `logit(yes) - logit(no)`, or `logit(yes)`.
    pub score: Option<(u32, Option<u32>)>,
    /// The activation, where the folder names one.
    pub activation: Option<Value>,
    /// What is put in front of the question, or said by the system.
    pub prompt: String,
    /// How pairs are rendered.
    pub chat: Option<Chat>,
}

/// How pairs become messages.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chat {
    /// Whether contents are lists of typed parts.
    structured: bool,
    add_generation_prompt: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TransformerConfig {
    transformer_task: Option<String>,
    modality_config: serde_json::Map<String, Value>,
    processing_kwargs: serde_json::Map<String, Value>,
}

fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs_err::read(path)?;
    serde_json::from_slice(&text).map_err(|e| Error::Unusable(format!("{}: {e}", path.display())))
}

impl Modules {
    /// Of a folder, which may have no list of modules: one of transformers.
    ///
    /// # Errors
    /// Modules and settings that are not known here, by name.
    pub fn read(dir: &Path) -> Result<Self> {
        let listed = dir.join("modules.json");
        if !listed.is_file() {
            return Ok(Self { transformer: dir.into(), ..Self::default() });
        }
        let bad = |path: &Path, what: String| Err(Error::Unusable(format!("{}: {what}", path.display())));
        #[derive(Deserialize)]
        struct Module {
            path: String,
            #[serde(rename = "type")]
            kind: String,
        }
        let modules: Vec<Module> = json(&listed)?;
        if let Some(module) = modules.iter().find(|m| !ragduet_torch::weights::is_inside(&m.path)) {
            return bad(&listed, format!("path `{}` leads out of the folder", module.path));
        }
        let kinds: Vec<&str> =
            modules.iter().map(|m| m.kind.rsplit('.').next().unwrap_or_default()).collect();
        if !matches!(kinds.as_slice(), ["Transformer"] | ["Transformer", "LogitScore"]) {
            return bad(
                &listed,
                format!("the modules {} are not supported; Transformer [LogitScore] are", kinds.join(", ")),
            );
        }
        let transformer = dir.join(&modules[0].path);
        let path = transformer.join("sentence_bert_config.json");
        let config: TransformerConfig =
            if path.is_file() { json(&path)? } else { TransformerConfig::default() };
        let score = match modules.get(1) {
            None => None,
            Some(module) => Some(logit_score(&dir.join(&module.path).join("config.json"))?),
        };
        let task = config.transformer_task.as_deref().unwrap_or("sequence-classification");
        let wanted = if score.is_some() { "text-generation" } else { "sequence-classification" };
        if task != wanted {
            return bad(&path, format!("transformer_task `{task}` is not supported; {wanted} is"));
        }
        let mut add_generation_prompt = false;
        for (kind, settings) in &config.processing_kwargs {
            for (key, value) in settings.as_object().into_iter().flatten() {
                match (kind.as_str(), key.as_str(), value.as_bool()) {
                    ("chat_template", "add_generation_prompt", Some(on)) => add_generation_prompt = on,
                    _ => {
                        return bad(
                            &path,
                            format!("processing_kwargs.{kind}.{key}: {value} is not supported"),
                        );
                    }
                }
            }
        }
        let chat = match config.modality_config.get("message") {
            None => None,
            Some(how) => match how.get("format").and_then(Value::as_str) {
                Some("flat") => Some(Chat { structured: false, add_generation_prompt }),
                Some("structured") => Some(Chat { structured: true, add_generation_prompt }),
                other => {
                    let what = format!(
                        "modality_config.message.format {other:?} is not supported; flat and structured are"
                    );
                    return bad(&path, what);
                }
            },
        };
        let path = dir.join("config_sentence_transformers.json");
        let whole: Value = if path.is_file() { json(&path)? } else { Value::Null };
        let prompt = match whole.get("default_prompt_name").and_then(Value::as_str) {
            None => String::new(),
            Some(name) => match whole.pointer(&format!("/prompts/{name}")).and_then(Value::as_str) {
                Some(prompt) => prompt.into(),
                None => return bad(&path, format!("default_prompt_name `{name}` is none of its prompts")),
            },
        };
        if whole.get("keep_in_fp32_modules").is_some_and(|v| v.as_array().is_none_or(|a| !a.is_empty())) {
            tracing::info!("{}: keep_in_fp32_modules is not read: heads compute in fp32", path.display());
        }
        let activation = whole.get("activation_fn").filter(|v| !v.is_null()).cloned();
        Ok(Self { transformer, score, activation, prompt, chat })
    }
}

fn logit_score(path: &Path) -> Result<(u32, Option<u32>)> {
    #[derive(Deserialize)]
    struct Config {
        true_token_id: u32,
        #[serde(default)]
        false_token_id: Option<u32>,
        #[serde(default)]
        module_input_name: Option<String>,
    }
    let c: Config = json(path)?;
    if let Some(name) = c.module_input_name.filter(|n| n != "causal_logits") {
        let what = format!("module_input_name `{name}` is not supported; causal_logits is");
        return Err(Error::Unusable(format!("{}: {what}", path.display())));
    }
    Ok((c.true_token_id, c.false_token_id))
}

/// Pairs rendered by a chat template.
#[derive(Debug)]
pub(crate) struct PairTemplate {
    template: ChatTemplate,
    chat: Chat,
    prompt: String,
    /// What the template puts behind all contents; it stays where a text is cut.
    tail: Vec<u32>,
}

impl PairTemplate {
    /// # Errors
    /// A tokenizer without a template; a template that does not show both texts.
    pub fn new(tokenizer: &Tokenizer, chat: Chat, prompt: String) -> Result<Self> {
        let Some(template) = tokenizer.chat_template()? else {
            let what = "modality_config has `message`, and the tokenizer has no chat template";
            return Err(Error::Unusable(what.into()));
        };
        let mut out = Self { template, chat, prompt, tail: Vec::new() };
        let whole = out.render(&("alpha", "bravo"))?;
        for other in [("charlie", "bravo"), ("alpha", "foxtrot")] {
            if out.render(&other)? == whole {
                let what = "the chat template shows no messages of the roles `query` and `document`";
                return Err(Error::Unusable(what.into()));
            }
        }
        // As sentence-transformers finds it: the common end of two pairs of other texts.
        let [a, b] = [("0", "0"), ("1 2 3 4", "1 2 3 4")].map(|pair| out.ids(tokenizer, &pair));
        let (a, b) = (a?, b?);
        let same = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
        if same < a.len().min(b.len()) {
            out.tail = a[a.len() - same..].to_vec();
        }
        Ok(out)
    }

    fn render(&self, (question, passage): &Pair<'_>) -> Result<String> {
        let message = |role: &str, text: &str| match self.chat.structured {
            true => json!({"role": role, "content": [{"type": "text", "text": text}]}),
            false => message(role, text),
        };
        let system = (!self.prompt.is_empty()).then(|| message("system", &self.prompt));
        let messages: Vec<Value> =
            system.into_iter().chain([message("query", question), message("document", passage)]).collect();
        Ok(self.template.render(&messages, None, self.chat.add_generation_prompt)?.text)
    }

    fn ids(&self, tokenizer: &Tokenizer, pair: &Pair<'_>) -> Result<Vec<u32>> {
        let options = EncodeOptions {
            max_len: Some(usize::MAX),
            add_special_tokens: false,
            strip: false,
            ..EncodeOptions::default()
        };
        Ok(tokenizer.encode(&self.render(pair)?, &options)?.ids)
    }

    /// Token ids of pairs, cut to `most`.
    pub fn encode(&self, tokenizer: &Tokenizer, pairs: &[Pair<'_>], most: usize) -> Result<Vec<Encoding>> {
        let one = |pair: &Pair<'_>| -> Result<Encoding> {
            let mut ids = self.ids(tokenizer, pair)?;
            if ids.len() > most {
                ids.truncate(most);
                let keep = self.tail.len().min(most);
                ids.truncate(most - keep);
                ids.extend(&self.tail[self.tail.len() - keep..]);
            }
            Ok(Encoding { type_ids: vec![0; ids.len()], ids })
        };
        pairs.iter().map(one).collect()
    }
}
