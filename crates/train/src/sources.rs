//! Config files and overrides laid over one another, with every key remembering where it stands.
//!
//! Each source is parsed behind as many spaces as there are bytes in those before it. The spans of toml's parser are
//! then places in one long text, they survive the merging, and an error leads back to its source.

use crate::config::Config;
use crate::moved::moved;
use crate::{Error, Result};
use serde_json::Value as Json;
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

#[derive(Debug)]
struct Source {
    origin: String,
    /// How many keys lead to the value of an override; `None` for a file.
    depth: Option<usize>,
    start: usize,
    /// The text behind `start` spaces.
    padded: String,
}

/// The sources of a config: a file, those it extends, then overrides.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    all: Vec<Source>,
}

impl Sources {
    /// Adds a file; those that were added before go over it.
    pub(crate) fn add_file(&mut self, path: &Path, text: &str) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        self.push(path.display().to_string(), text, None);
    }

    /// Adds `a.b=c`; it goes over everything before it.
    pub(crate) fn add_override(&mut self, text: &str) -> Result<()> {
        let fail = || Error::Config {
            origin: format!("--set {text}"),
            message: "expected key=value, as in --set optim.lr=2e-5".into(),
        };
        let (key, value) = text.split_once('=').ok_or_else(fail)?;
        let depth = depth_of(key).ok_or_else(fail)?;
        // Several lines would be several keys.
        let is_toml = !text.contains('\n') && DeTable::parse(text).is_ok();
        let as_toml = if is_toml {
            text.to_string()
        } else {
            format!("{key}={}", toml::Value::String(value.trim().into()))
        };
        self.push(format!("--set {text}"), &as_toml, Some(depth));
        Ok(())
    }

    fn push(&mut self, origin: String, text: &str, depth: Option<usize>) {
        // One apart, so that a span at the very end of a source is not one of the next.
        let start = self.all.last().map_or(0, |s| s.padded.len() + 1);
        let padded = " ".repeat(start) + text;
        self.all.push(Source { origin, depth, start, padded });
    }

    /// Lays the sources over one another and reads the result. `schema` tells tables from choices.
    pub(crate) fn read<T: Config>(&self, schema: &Json) -> Result<T> {
        let node = Node { root: schema, at: Some(schema) };
        let mut merged = DeTable::new();
        let (overrides, files): (Vec<_>, Vec<_>) = self.all.iter().partition(|s| s.depth.is_some());
        for source in files.into_iter().rev() {
            let mut table = self.parse(source)?;
            table.remove("extends");
            overlay(&mut merged, table, node, None);
        }
        for source in overrides {
            overlay(&mut merged, self.parse(source)?, node, source.depth);
        }
        if let Some((span, sentence)) = first_moved(&merged, node, "", &node) {
            return Err(report(self.of(&span), Some(span), sentence));
        }
        // What the whole lacks is told of the first source, the file that was asked for.
        let whole = Spanned::new(0..0, merged);
        T::from_document(toml::de::Deserializer::from(whole))
            .map_err(|e| located(e.span().as_ref().and_then(|r| self.of(r)).or(self.all.first()), &e))
    }

    /// The source that a place is in.
    fn of(&self, place: &Range<usize>) -> Option<&Source> {
        self.all.iter().rev().find(|s| s.start <= place.start)
    }

    fn parse<'a>(&'a self, source: &'a Source) -> Result<DeTable<'a>> {
        DeTable::parse(&source.padded).map(Spanned::into_inner).map_err(|e| located(Some(source), &e))
    }
}

/// The first key that has another name now, with its place and what to say.
fn first_moved(
    table: &DeTable<'_>,
    at: Node<'_>,
    path: &str,
    root: &Node<'_>,
) -> Option<(Range<usize>, String)> {
    let has = |key: &str| {
        let mut node = *root;
        key.split('.').all(|part| {
            let child = node.own(part);
            child.is_some_and(|c| {
                node = c;
                true
            })
        })
    };
    table.iter().find_map(|(key, value)| {
        let full =
            if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
        // Inner keys first: they say more.
        let inner = match value.get_ref() {
            DeValue::Table(inner) => first_moved(inner, at.child(key.get_ref()), &full, root),
            _ => None,
        };
        inner.or_else(|| Some((key.span(), moved(&full, has)?)))
    })
}

/// How many keys a dotted key has; `None` where it is none.
fn depth_of(key: &str) -> Option<usize> {
    let text = format!("{key}=0");
    let mut table = DeTable::parse(&text).ok()?.into_inner();
    let mut depth = 1;
    loop {
        match table.iter().next()?.1.get_ref() {
            DeValue::Table(inner) => table = inner.clone(),
            _ => return Some(depth),
        }
        depth += 1;
    }
}

/// A place in the JSON schema of a config.
#[derive(Clone, Copy)]
struct Node<'s> {
    root: &'s Json,
    at: Option<&'s Json>,
}

impl<'s> Node<'s> {
    /// Follows references, and what wraps a type that may be absent.
    fn resolved(self) -> Option<&'s Json> {
        let mut at = self.at?;
        // Schemas of recursive types refer to themselves, but not without a key in between.
        for _ in 0..16 {
            let wrapped = ["anyOf", "allOf"].iter().find_map(|k| at.get(k)?.as_array());
            at = if let Some(path) = at.get("$ref").and_then(Json::as_str) {
                self.root.pointer(path.trim_start_matches('#'))?
            } else if let Some(kinds) = wrapped {
                kinds.iter().find(|k| k.get("type").is_none_or(|t| t != "null"))?
            } else {
                return Some(at);
            };
        }
        None
    }

    /// Whether one of several variants is chosen here.
    fn is_choice(self) -> bool {
        self.resolved().is_some_and(|s| s.get("oneOf").is_some())
    }

    /// A key that is really there.
    fn own(self, key: &str) -> Option<Self> {
        let here = self.resolved()?;
        let own =
            here.get("properties").and_then(|p| p.get(key)).map(|at| Self { root: self.root, at: Some(at) });
        let variants = || {
            let all = here.get("oneOf")?.as_array()?.iter();
            all.map(|v| Self { root: self.root, at: Some(v) }).find_map(|v| v.own(key))
        };
        own.or_else(variants)
    }

    fn child(self, key: &str) -> Self {
        let Some(here) = self.resolved() else { return self };
        let own = here.get("properties").and_then(|p| p.get(key));
        let variants = || {
            let all = here.get("oneOf")?.as_array()?.iter();
            all.map(|v| Self { root: self.root, at: Some(v) }).find_map(|v| v.child(key).at)
        };
        Self { root: self.root, at: own.or_else(variants) }
    }
}

/// Lays `over` over `under`. `depth`: so many keys lead to the value of an override, which replaces what is there.
fn overlay<'a>(under: &mut DeTable<'a>, over: DeTable<'a>, node: Node<'_>, depth: Option<usize>) {
    for (key, value) in over {
        let child = node.child(key.get_ref());
        let Some(there) = under.get_mut(key.get_ref().as_ref()) else {
            under.insert(key, value);
            continue;
        };
        let (span, value) = (value.span(), value.into_inner());
        match (there.get_mut(), value) {
            (DeValue::Table(a), DeValue::Table(b)) if depth != Some(1) && !chooses_another(child, a, &b) => {
                overlay(a, b, child, depth.map(|d| d - 1));
            }
            (_, value) => *there = Spanned::new(span, value),
        }
    }
}

/// Whether `b` names another variant of a choice than `a`.
fn chooses_another(node: Node<'_>, a: &DeTable<'_>, b: &DeTable<'_>) -> bool {
    node.is_choice() && b.keys().any(|k| !a.contains_key(k.get_ref().as_ref()))
}

/// A parser's error with its place.
fn located(source: Option<&Source>, e: &toml::de::Error) -> Error {
    report(source, e.span(), plain(e.message()))
}

/// serde's words for values in those of a config's writer.
fn plain(message: &str) -> String {
    let between = |text: &str, open: &str, close: &str| -> Option<String> {
        let (_, rest) = text.split_once(open)?;
        Some(rest.split_once(close)?.0.to_string())
    };
    if message.starts_with("invalid type: unit variant, expected newtype variant") {
        return "this choice has settings: write it as a table, even an empty one, such as `loss = { triplet = {} }` or \
                `--set loss.triplet.margin=0.3`"
            .into();
    }
    if message.starts_with("invalid type: newtype variant, expected unit variant") {
        return "this choice has no settings: write its name alone".into();
    }
    if message.contains("wanted string or table") {
        return "wanted is the name of a choice, or a table of the choice with its settings, such as \
                `batch.size = { examples = 32 }` or `--set batch.size.examples=32`"
            .into();
    }
    if let Some(text) = between(message, "invalid type: string \"", "\", expected a sequence") {
        return format!("a list is expected, and this is a text: write [{text:?}]");
    }
    for (theirs, ours) in [
        ("string \"", "the text \""),
        ("integer `", "the number `"),
        ("floating point `", "the number `"),
        ("boolean `", "`"),
        ("map", "a table"),
        ("sequence", "a list"),
    ] {
        if let Some(rest) = message.strip_prefix("invalid type: ").and_then(|m| m.strip_prefix(theirs)) {
            let said = format!("{ours}{rest}");
            return match said.split_once(", expected ") {
                Some((got, wanted)) => format!("{got} stands where {} is expected", kind(wanted)),
                None => said,
            };
        }
    }
    message.into()
}

/// Rust's name of a type in words.
fn kind(wanted: &str) -> &str {
    match wanted {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number of 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" | "bool" => "true or false",
        "a string" | "string" => "a text",
        "a sequence" => "a list",
        "a map" => "a table",
        other if other.starts_with("struct ") => "a table",
        other => other,
    }
}

/// An error with its place: line, column and the line itself in a file, the text of an override.
fn report(source: Option<&Source>, span: Option<Range<usize>>, message: String) -> Error {
    let Some(source) = source else { return Error::Config { origin: "config".into(), message } };
    match span {
        Some(span) if source.depth.is_none() && !(span.is_empty() && span.start == 0) => {
            let text = &source.padded[source.start..];
            let (line, column, lines) = excerpt(text, span.start.saturating_sub(source.start), span.len());
            Error::Config {
                origin: format!("{}:{line}:{column}", source.origin),
                message: format!("\n{lines}{message}"),
            }
        }
        _ => Error::Config { origin: source.origin.clone(), message },
    }
}

/// Line and column of a byte, from 1, and the line with a mark under `len` bytes.
fn excerpt(text: &str, at: usize, len: usize) -> (usize, usize, String) {
    let floor = |i: usize| (0..=i.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    let at = floor(at);
    let start = text[..at].rfind('\n').map_or(0, |i| i + 1);
    let end = text[at..].find('\n').map_or(text.len(), |i| at + i);
    let line = text[..start].matches('\n').count() + 1;
    let column = text[start..at].chars().count() + 1;
    let marked = text[at..floor((at + len).min(end)).max(at)].chars().count().max(1);
    let gutter = " ".repeat(line.to_string().len());
    let shown = text[start..end].trim_end_matches('\r');
    let lines = format!(
        "{gutter} |\n{line} | {shown}\n{gutter} | {}{}\n",
        " ".repeat(column - 1),
        "^".repeat(marked)
    );
    (line, column, lines)
}
