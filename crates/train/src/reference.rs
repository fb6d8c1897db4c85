//! The reference page of a config, in Markdown, from its JSON schema: a table of keys for each table of the TOML file.

use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// The page of the config of `ragduet train <job>`.
pub fn markdown(job: &str, schema: &Json) -> String {
    let mut page = Page { root: schema, out: String::new(), seen: BTreeSet::new() };
    let _ = writeln!(page.out, "# Config of `ragduet train {job}`\n");
    let _ = writeln!(page.out, "{}\n", description(schema));
    let _ = writeln!(
        page.out,
        "Made by `ragduet train schema {job} --markdown` from the types that read the file; a test keeps the two equal. \
         Keys without a default are required. Any key can be overridden on the command line: `--set optim.lr=3e-5`.\n"
    );
    page.table("", schema);
    page.out.trim_end().to_string() + "\n"
}

struct Page<'s> {
    root: &'s Json,
    out: String,
    /// Types that have a section already: a type that holds itself is described once.
    seen: BTreeSet<String>,
}

/// A table or a choice that gets a section of its own.
struct Section<'s> {
    path: String,
    says: String,
    at: &'s Json,
}

impl<'s> Page<'s> {
    /// The schema behind references and what may be absent, and the name of the type.
    fn resolve(&self, mut at: &'s Json) -> (&'s Json, Option<String>) {
        let mut name = None;
        for _ in 0..16 {
            let some = at.get("anyOf").and_then(Json::as_array);
            at = if let Some(path) = at.get("$ref").and_then(Json::as_str) {
                name = path.rsplit('/').next().map(str::to_string);
                match self.root.pointer(path.trim_start_matches('#')) {
                    Some(there) => there,
                    None => return (at, name),
                }
            } else if let Some(some) = some.and_then(|s| s.iter().find(|k| !is_null(k))) {
                some
            } else {
                return (at, name);
            };
        }
        (at, name)
    }

    /// The rows of a table's own keys, then the sections of the tables within.
    fn table(&mut self, path: &str, at: &'s Json) {
        let Some(keys) = at.get("properties").and_then(Json::as_object) else { return };
        let required: Vec<&str> = at
            .get("required")
            .and_then(Json::as_array)
            .into_iter()
            .flatten()
            .filter_map(Json::as_str)
            .collect();
        let (mut rows, mut sections) = (String::new(), Vec::new());
        for (key, own) in keys {
            let (there, name) = self.resolve(own);
            let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let says = if description(own).is_empty() { description(there) } else { description(own) };
            let is_table = there.get("properties").is_some();
            if is_table || variants(there).next().is_some() {
                let again = name.as_ref().is_some_and(|n| !self.seen.insert(n.clone()));
                if !again {
                    sections.push(Section { path: full, says, at: there });
                    continue;
                }
            }
            let default = match own.get("default") {
                Some(Json::Null) => "absent".to_string(),
                Some(value) => format!("`{}`", shown(value)),
                None if required.contains(&key.as_str()) => "required".into(),
                None => "absent".into(),
            };
            let _ = writeln!(
                rows,
                "| `{key}` | {} | {default} | {} |",
                kind(self, there, name.as_deref()),
                cell(&(says + &meanings(there)))
            );
        }
        if !rows.is_empty() {
            let _ = writeln!(self.out, "| key | value | default | meaning |\n|---|---|---|---|\n{rows}");
        }
        for s in sections {
            self.section(&s);
        }
    }

    fn section(&mut self, s: &Section<'s>) {
        let depth = "#".repeat((2 + s.path.matches('.').count()).min(5));
        let _ = writeln!(self.out, "{depth} `[{}]`\n\n{}\n", s.path, s.says);
        let names: Vec<(&str, String)> = constants(s.at).collect();
        if !names.is_empty() {
            let _ = writeln!(self.out, "| value | meaning |\n|---|---|");
            names.iter().for_each(|(n, says)| _ = writeln!(self.out, "| `\"{n}\"` | {} |", cell(says)));
            self.out.push('\n');
        }
        let all: Vec<(&'s String, &'s Json, String)> = variants(s.at).collect();
        if !all.is_empty() {
            let _ = writeln!(self.out, "One of:\n");
        }
        for (name, own, says) in all {
            let (there, of) = self.resolve(own);
            let again = of.as_ref().is_some_and(|n| !self.seen.insert(n.clone()));
            let path = format!("{}.{name}", s.path);
            match there.get("properties").is_some() && !again {
                true => self.section(&Section { path, says, at: there }),
                false => {
                    let kind = kind(self, there, of.as_deref());
                    let _ = writeln!(self.out, "- `{path}` ({kind}): {says}\n");
                }
            }
        }
        self.table(&s.path, s.at);
    }
}

fn is_null(at: &Json) -> bool {
    at.get("type").is_some_and(|t| t == "null")
}

fn description(at: &Json) -> String {
    at.get("description")
        .and_then(Json::as_str)
        .unwrap_or_default()
        .trim()
        .replace("\n\n", " ")
        .replace('\n', " ")
}

/// The variants of a choice that have settings: key, schema, description.
fn variants(at: &Json) -> impl Iterator<Item = (&String, &Json, String)> {
    let all = at.get("oneOf").and_then(Json::as_array).into_iter().flatten();
    all.filter_map(|v| {
        let (key, own) = v.get("properties")?.as_object()?.iter().next()?;
        Some((key, own, description(v)))
    })
}

/// The variants of a choice that are a word.
fn constants(at: &Json) -> impl Iterator<Item = (&str, String)> {
    let all = at.get("oneOf").and_then(Json::as_array).into_iter().flatten();
    let words = all.clone().filter_map(|v| Some((v.get("const")?.as_str()?, description(v))));
    let listed = all.filter_map(|v| v.get("enum")?.as_array()).flatten();
    words.chain(listed.filter_map(|v| Some((v.as_str()?, String::new()))))
}

/// What each word of a choice means, as sentences behind the meaning of the key.
fn meanings(at: &Json) -> String {
    let said = constants(at).filter(|(_, says)| !says.is_empty());
    said.map(|(word, says)| format!(" `{word}`: {says}")).collect()
}

/// What a value looks like.
fn kind(page: &Page<'_>, at: &Json, name: Option<&str>) -> String {
    let listed = at.get("enum").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
    let words: Vec<String> =
        constants(at).map(|(w, _)| w).chain(listed).map(|w| format!("`\"{w}\"`")).collect();
    if !words.is_empty() {
        return words.join(", ");
    }
    let types: Vec<&str> = match at.get("type") {
        Some(Json::String(one)) => vec![one],
        Some(Json::Array(all)) => all.iter().filter_map(Json::as_str).filter(|t| *t != "null").collect(),
        _ => Vec::new(),
    };
    match types.first() {
        Some(&"integer") => "integer".into(),
        Some(&"number") => "number".into(),
        Some(&"boolean") => "true or false".into(),
        Some(&"string") => "text".into(),
        Some(&"array") => match at.get("items") {
            Some(items) => {
                let (there, name) = page.resolve(items);
                format!("list of {}", kind(page, there, name.as_deref()))
            }
            None => "list".into(),
        },
        _ => name.map_or("table".into(), |n| format!("table ({n})")),
    }
}

/// A default as it is written in TOML.
fn shown(value: &Json) -> String {
    match value {
        Json::Object(map) => {
            let all: Vec<String> = map
                .iter()
                .filter(|(_, v)| !v.is_null())
                .map(|(k, v)| format!("{k} = {}", shown(v)))
                .collect();
            if all.is_empty() { "{}".into() } else { format!("{{ {} }}", all.join(", ")) }
        }
        Json::Array(all) => format!("[{}]", all.iter().map(shown).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    /// A config.
    #[derive(Serialize, Deserialize, JsonSchema)]
    struct C {
        /// Data of the run.
        data: Data,
        /// Loss.
        #[serde(default)]
        loss: Loss,
        /// Steps | all of them.
        #[serde(default)]
        steps: Option<u64>,
    }

    /// Files.
    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Data {
        /// Training file.
        train: String,
        /// Order.
        #[serde(default)]
        order: Order,
    }

    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Order {
        /// As it comes.
        #[default]
        Given,
        /// Shuffled.
        Shuffled,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Loss {
        /// Squared.
        Squared(Squared),
        /// Several together.
        Sum(Vec<Loss>),
    }

    impl Default for Loss {
        fn default() -> Self {
            Self::Squared(Squared { weight: 1.0 })
        }
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Squared {
        /// Its factor.
        weight: f64,
    }

    #[test]
    fn every_key_and_variant_has_a_place() {
        let page = markdown("x", schemars::schema_for!(C).as_value());
        for wanted in [
            "# Config of `ragduet train x`\n\nA config.",
            "| `steps` | integer | absent | Steps \\| all of them. |",
            "## `[data]`\n\nData of the run.",
            "| `train` | text | required | Training file. |",
            "| Order. `given`: As it comes. `shuffled`: Shuffled. |",
            "## `[loss]`",
            "### `[loss.squared]`\n\nSquared.",
            "| `weight` | number | required | Its factor. |",
            "- `loss.sum` (list of table (Loss)): Several together.",
        ] {
            assert!(page.contains(wanted), "{wanted}\n---\n{page}");
        }
    }
}
