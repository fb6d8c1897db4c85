//! The card of a trained model: `README.md` of its folder, with the front matter of the Hugging Face Hub.

use std::fmt::Write;
use std::path::Path;

/// What a training method says of its model. The loop adds the run's steps, figures and config.
#[derive(Debug, Clone, Default)]
pub struct Card {
    /// Hub's `library_name`: what loads the folder.
    pub library: &'static str,
    /// Hub's `pipeline_tag`.
    pub task: &'static str,
    /// More tags.
    pub tags: Vec<&'static str>,
    /// What it is, such as "generator".
    pub what: &'static str,
    /// Folder or hub id of the model that training started from; `None`: random weights.
    pub base: Option<String>,
    /// Training data, as the config names it.
    pub data: String,
    /// More facts of the model, by name.
    pub rows: Vec<(&'static str, String)>,
    /// How the folder loads, where that is not obvious.
    pub loading: Option<&'static str>,
    /// Python that uses it.
    pub code: String,
    /// What the model expects as input.
    pub input: Option<&'static str>,
}

/// What the loop knows.
pub(crate) struct RunFacts<'a> {
    pub name: &'a str,
    pub step: u64,
    pub config: &'a str,
    /// Figures of the dev set before training and with this model.
    pub before: &'a [(String, f64)],
    pub after: &'a [(String, f64)],
}

/// `base_model:` of the front matter where the base is a hub id, else nothing: a folder's name says nothing on the hub.
fn base_line(base: &str) -> String {
    let mut parts = base.split('/');
    let named = |part: Option<&str>| part.is_some_and(|p| !p.is_empty() && !p.starts_with('.') && p != "~");
    let id = named(parts.next()) && named(parts.next()) && parts.next().is_none();
    if id && !Path::new(base).exists() { format!("base_model: {base}\n") } else { String::new() }
}

impl Card {
    /// The card as Markdown.
    pub(crate) fn markdown(&self, f: &RunFacts<'_>) -> String {
        let mut out = format!("---\nlibrary_name: {}\npipeline_tag: {}\ntags:\n", self.library, self.task);
        for tag in self.tags.iter().chain(&["ragduet"]) {
            let _ = writeln!(out, "- {tag}");
        }
        let base = self.base.as_deref();
        out += &base.map(base_line).unwrap_or_default();
        let from = base.map_or_else(|| "random weights".into(), |b| format!("`{b}`"));
        let _ = write!(
            out,
            "---\n\n# {}\n\nA {} trained by Ragduet {} from {from}.\n\n| | |\n|---|---|\n",
            f.name,
            self.what,
            env!("CARGO_PKG_VERSION"),
        );
        for (name, value) in &self.rows {
            let _ = writeln!(out, "| {name} | {value} |");
        }
        let _ = write!(out, "| training data | {} |\n| optimizer steps | {} |\n", self.data, f.step);
        if !f.after.is_empty() {
            out += "\n## Results on the dev set\n\n| measure | before | this model |\n|---|---|---|\n";
            for (name, value) in f.after {
                let before = f.before.iter().find(|(n, _)| n == name);
                let before = before.map_or_else(|| "–".into(), |(_, v)| format!("{v:.4}"));
                let _ = writeln!(out, "| {name} | {before} | {value:.4} |");
            }
        }
        let _ = write!(
            out,
            "\n## Use\n\n{}```python\n{}\n```\n{}\n## Config\n\n```toml\n{}\n```\n",
            self.loading.map(|text| format!("{text}\n\n")).unwrap_or_default(),
            self.code,
            self.input.map(|text| format!("\n{text}\n")).unwrap_or_default(),
            f.config.trim_end()
        );
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_says_where_from_and_what_came_of_it() {
        let card = Card {
            library: "transformers",
            task: "text-generation",
            tags: vec!["rag"],
            what: "generator",
            base: Some("org/model".into()),
            data: "train.jsonl".into(),
            rows: vec![("embedding size", "32".into())],
            loading: Some("Load it so."),
            code: "print()".into(),
            input: Some("Texts with titles."),
        };
        let (before, after) =
            ([("f1".to_string(), 0.25)], [("f1".to_string(), 0.5), ("em".to_string(), 1.0)]);
        let facts = RunFacts { name: "run", step: 7, config: "[run]\n", before: &before, after: &after };
        let text = card.markdown(&facts);
        for part in [
            "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- rag\n- ragduet\nbase_model: org/model\n---\n",
            "A generator trained by Ragduet",
            "from `org/model`",
            "| embedding size | 32 |\n| training data | train.jsonl |\n| optimizer steps | 7 |\n",
            "## Use\n\nLoad it so.\n\n```python\nprint()\n```\n\nTexts with titles.\n\n## Config",
            "| f1 | 0.2500 | 0.5000 |",
            "| em | – | 1.0000 |",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }

    #[test]
    fn a_folder_is_no_hub_id() {
        assert_eq!(base_line("org/model"), "base_model: org/model\n");
        for folder in ["runs/a/best", "./model", "../model", "/models/x", "model", "src/lib.rs", "~/model"] {
            assert_eq!(base_line(folder), "", "{folder}");
        }
    }
}
