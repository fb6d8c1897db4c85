//! Prompts: the texts put before queries and passages, by name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The prompts of a model, in the form of the `prompts` map of `config_sentence_transformers.json`.
///
/// In that map the query's prompt is `query`, and the passage's is the first there is of `document`, `passage` and
/// `corpus`, as `encode_document` looks them up. Other names are kept as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
#[schemars(with = "BTreeMap<String, String>")]
pub struct Prompts {
    /// Put before queries.
    pub query: String,
    /// Put before passages.
    pub passage: String,
    /// Further prompts by name (`clustering`, `classification`, …).
    pub other: BTreeMap<String, String>,
}

impl Prompts {
    /// Prompts for queries and passages.
    pub fn new(query: impl Into<String>, passage: impl Into<String>) -> Self {
        Self { query: query.into(), passage: passage.into(), other: BTreeMap::new() }
    }

    /// The prompt of a name.
    pub fn get(&self, name: &str) -> Result<&str> {
        match (name, self.other.get(name)) {
            (_, Some(text)) => Ok(text),
            ("query", None) => Ok(&self.query),
            ("document" | "passage" | "corpus", None) => Ok(&self.passage),
            _ => Err(Error::UnknownPrompt {
                name: name.into(),
                known: BTreeMap::from(self.clone()).into_keys().collect(),
            }),
        }
    }

    /// Whether no prompt has any text.
    pub fn is_empty(&self) -> bool {
        self.query.is_empty() && self.passage.is_empty() && self.other.values().all(String::is_empty)
    }
}

impl From<BTreeMap<String, String>> for Prompts {
    fn from(mut map: BTreeMap<String, String>) -> Self {
        let query = map.remove("query").unwrap_or_default();
        // A model that says `passage` is asked for it by that name, so the name stays.
        let passage = map
            .remove("document")
            .or_else(|| map.get("passage").cloned())
            .or_else(|| map.get("corpus").cloned())
            .unwrap_or_default();
        Self { query, passage, other: map }
    }
}

impl From<Prompts> for BTreeMap<String, String> {
    fn from(prompts: Prompts) -> Self {
        let mut map = prompts.other;
        map.insert("query".into(), prompts.query);
        map.insert("document".into(), prompts.passage);
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_passage_prompt() {
        let e5: Prompts = serde_json::from_str(r#"{"query": "query: ", "passage": "passage: "}"#).unwrap();
        assert_eq!((e5.query.as_str(), e5.passage.as_str()), ("query: ", "passage: "));
        let written = serde_json::to_value(&e5).unwrap();
        assert_eq!(
            written,
            serde_json::json!({"query": "query: ", "document": "passage: ", "passage": "passage: "})
        );
        assert_eq!(serde_json::from_value::<Prompts>(written).unwrap(), e5);
    }

    #[test]
    fn lookup_by_name() {
        let mut prompts = Prompts::new("q: ", "d: ");
        prompts.other.insert("clustering".into(), "cluster: ".into());
        assert_eq!(prompts.get("document").unwrap(), "d: ");
        assert_eq!(prompts.get("clustering").unwrap(), "cluster: ");
        let error = prompts.get("quary").unwrap_err().to_string();
        assert_eq!(error, r#"no prompt is named "quary"; the prompts are clustering, document, query"#);
        assert!(Prompts::default().is_empty());
    }
}
