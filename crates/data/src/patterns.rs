//! Paths that stand for several files: patterns, and lists as patterns.
//!
//! | in a path | stands for |
//! |---|---|
//! | `*`, `?`, `[a-z]`, `[!a-z]` | characters of one name, none of them `/` |
//! | `**` as a whole name | any number of folders |
//! | `{a,b}` | either; so a list of paths is one pattern |
//! | `\` | the next character as it is |
//!
//! A path that is there is never a pattern. Hidden names match only where the pattern's name begins with a dot.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::source::listing;
use crate::{Error, Result};

/// The most entries that a pattern may stand for.
const MOST: usize = 1 << 20;

/// A path in a config, or a list of them.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMore {
    /// A file or folder, or a pattern such as `data/*.jsonl`.
    One(PathBuf),
    /// Several of them, read one after another.
    More(Vec<PathBuf>),
}

/// Deserializes a path, or a list of paths as one pattern.
///
/// # Errors
/// Neither of them; an empty list.
pub fn path_or_list<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<PathBuf, D::Error> {
    match OneOrMore::deserialize(from) {
        Ok(OneOrMore::One(path)) => Ok(path),
        Ok(OneOrMore::More(list)) if list.is_empty() => {
            Err(serde::de::Error::custom("the list of paths is empty"))
        }
        Ok(OneOrMore::More(list)) => Ok(pattern_of(&list)),
        Err(_) => Err(serde::de::Error::custom("wanted a path, or a list of paths")),
    }
}

/// [`path_or_list`] for a key that may be absent.
///
/// # Errors
/// As [`path_or_list`].
pub fn path_or_list_if<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<PathBuf>, D::Error> {
    path_or_list(from).map(Some)
}

/// The pattern that stands for several paths; one path is itself.
pub fn pattern_of(paths: &[PathBuf]) -> PathBuf {
    if let [one] = paths {
        return one.clone();
    }
    let absolute = paths.iter().any(|p| p.is_absolute());
    let member = |path: &PathBuf| {
        let path =
            if absolute { std::path::absolute(path).unwrap_or_else(|_| path.clone()) } else { path.clone() };
        let text = path.to_string_lossy().into_owned();
        match path.symlink_metadata().is_ok() {
            // A path that is there is meant as it is, whatever its characters.
            true => escaped(&text, &['\\', '{', '}', ',', '*', '?', '[']),
            // Commas between braces of its own part their alternatives.
            false if text.contains('{') => text,
            false => escaped(&text, &[',']),
        }
    };
    let members: Vec<String> = paths.iter().map(member).collect();
    // The root stands in front, so that the pattern is an absolute path too.
    let (root, inner) = match absolute {
        true => ("/", members.iter().map(|m| m.trim_start_matches('/')).collect::<Vec<_>>().join(",")),
        false => ("", members.join(",")),
    };
    format!("{root}{{{inner}}}").into()
}

fn escaped(text: &str, special: &[char]) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if special.contains(&c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Whether a path, or all that a pattern stands for, is there.
pub fn is_there(path: &Path) -> bool {
    path.exists() || is_pattern(path) && expand(path).is_ok()
}

/// What a path stands for: itself, or for a pattern (`*`, `?`, `[..]`, `**`, `{a,b}`) what matches it.
///
/// # Errors
/// A pattern that nothing matches, or something twice.
pub fn files_of(path: &Path) -> Result<Vec<PathBuf>> {
    expand(path)
}

/// Whether a path stands for others: it has special characters, and nothing has its name.
pub(crate) fn is_pattern(path: &Path) -> bool {
    let special = |text: &str| text.contains(['*', '?', '[', '{']);
    path.to_str().is_some_and(special) && path.symlink_metadata().is_err()
}

/// What a path stands for: itself, or what matches it, lists in their order and names sorted.
///
/// # Errors
/// A pattern that nothing matches, or something twice.
pub(crate) fn expand(path: &Path) -> Result<Vec<PathBuf>> {
    if !is_pattern(path) {
        return Ok(vec![path.to_owned()]);
    }
    let refuse = |reason: String| Error::Unsupported { path: path.to_owned(), reason };
    let text = path.to_str().unwrap_or_default();
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    for one in alternatives(text).map_err(refuse)? {
        let plain = PathBuf::from(unescaped(&one));
        let here = match plain.symlink_metadata().is_ok() {
            true => vec![plain.clone()],
            false => matches(&one).map_err(refuse)?,
        };
        if here.is_empty() {
            let dir = plain.parent().filter(|d| d.is_dir()).map(|d| match d.as_os_str().is_empty() {
                true => Path::new("."),
                false => d,
            });
            let remedy = match dir {
                Some(dir) => format!("nothing matches; {} holds {}", dir.display(), listing(dir)),
                None => "nothing matches; check the path".into(),
            };
            return Err(Error::Missing { path: one.into(), remedy });
        }
        for path in here {
            if !seen.insert(path.clone()) {
                return Err(refuse(format!(
                    "{} is named twice; its rows would count double",
                    path.display()
                )));
            }
            found.push(path);
        }
    }
    Ok(found)
}

/// The alternatives of the braces, each without braces that are not escaped.
fn alternatives(text: &str) -> std::result::Result<Vec<String>, String> {
    let Some(open) = place(text, 0, &['{']) else { return Ok(vec![text.to_owned()]) };
    let (mut depth, mut from, mut parts, mut at) = (0usize, open + 1, Vec::new(), open);
    let close = loop {
        let Some(next) = place(text, at, &['{', '}', ',']) else {
            return Err("a brace is open; write it as \\{ if a name has it".into());
        };
        match &text[next..=next] {
            "{" => depth += 1,
            "," if depth == 1 => {
                parts.push(&text[from..next]);
                from = next + 1;
            }
            "}" => {
                depth -= 1;
                if depth == 0 {
                    break next;
                }
            }
            _ => {}
        }
        at = next + 1;
    };
    parts.push(&text[from..close]);
    let mut out = Vec::new();
    for part in parts {
        // Braces inside and behind are taken apart in turn.
        out.extend(alternatives(&format!("{}{part}{}", &text[..open], &text[close + 1..]))?);
        if out.len() > MOST {
            return Err("the braces stand for too many paths".into());
        }
    }
    Ok(out)
}

/// Where the first of some characters stands that is not escaped.
fn place(text: &str, from: usize, of: &[char]) -> Option<usize> {
    let mut escaped = false;
    text[from..].char_indices().find_map(|(at, c)| {
        let plain = !escaped;
        escaped = c == '\\' && plain;
        (plain && of.contains(&c)).then_some(from + at)
    })
}

fn unescaped(text: &str) -> String {
    let mut chars = text.chars();
    let mut out = String::new();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    out
}

/// What matches a pattern without braces, sorted.
fn matches(pattern: &str) -> std::result::Result<Vec<PathBuf>, String> {
    let mut found = vec![PathBuf::from(if pattern.starts_with('/') { "/" } else { "" })];
    for name in pattern.split('/').filter(|name| !name.is_empty()) {
        let mut next = Vec::new();
        for dir in found {
            if name == "**" {
                folders(&dir, &mut next);
            } else if place(name, 0, &['*', '?', '[']).is_none() {
                let path = dir.join(unescaped(name));
                next.extend(path.symlink_metadata().is_ok().then_some(path));
            } else {
                let like: Vec<char> = name.chars().collect();
                next.extend(names(&dir).into_iter().filter_map(|n| {
                    let given: Vec<char> = n.chars().collect();
                    let fits = (!n.starts_with('.') || name.starts_with('.')) && fits(&like, &given);
                    fits.then(|| dir.join(&n))
                }));
            }
            if next.len() > MOST {
                return Err("the pattern stands for too many paths".into());
            }
        }
        found = next;
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// The names in a folder; the empty path is the folder where the program runs.
fn names(dir: &Path) -> Vec<String> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().into_string().ok()).collect()
}

/// A folder and all folders in it, but for hidden ones and links.
fn folders(dir: &Path, out: &mut Vec<PathBuf>) {
    out.push(dir.to_owned());
    for name in names(dir).into_iter().filter(|n| !n.starts_with('.')) {
        let inner = dir.join(name);
        if inner.symlink_metadata().is_ok_and(|m| m.is_dir()) && out.len() <= MOST {
            folders(&inner, out);
        }
    }
}

/// Whether a name fits a pattern of `*`, `?` and `[..]`.
fn fits(like: &[char], name: &[char]) -> bool {
    let (mut l, mut n) = (0, 0);
    // Where the last star is, and up to where it has taken the name.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        let step = match like.get(l) {
            Some('*') => {
                star = Some((l, n));
                l += 1;
                continue;
            }
            Some('?') => Some(1),
            Some('[') => set(&like[l..], name[n]),
            Some('\\') if like.get(l + 1) == Some(&name[n]) => Some(2),
            Some(c) if *c == name[n] && *c != '\\' => Some(1),
            _ => None,
        };
        match (step, &mut star) {
            (Some(taken), _) => (l, n) = (l + taken, n + 1),
            (None, Some((at, end))) => {
                *end += 1;
                (l, n) = (*at + 1, *end);
            }
            (None, None) => return false,
        }
    }
    like[l..].iter().all(|c| *c == '*')
}

/// How many characters of the pattern `[..]` takes, where `c` is in it.
fn set(like: &[char], c: char) -> Option<usize> {
    let close = (2..like.len()).find(|&i| like[i] == ']')?;
    let (not, inner) = match like[1] {
        '!' | '^' => (true, &like[2..close]),
        _ => (false, &like[1..close]),
    };
    let mut at = 0;
    let mut within = false;
    while at < inner.len() {
        if at + 2 < inner.len() && inner[at + 1] == '-' {
            within |= (inner[at]..=inner[at + 2]).contains(&c);
            at += 3;
        } else {
            within |= inner[at] == c;
            at += 1;
        }
    }
    (within != not).then_some(close + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place_of(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            let path = dir.path().join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, "").unwrap();
        }
        dir
    }

    #[test]
    fn patterns_find_what_a_shell_finds() {
        let dir = place_of(&[
            "a.jsonl",
            "b.jsonl",
            "b.json",
            ".h.jsonl",
            "in/c.jsonl",
            "in/deep/d.jsonl",
            "x[1].txt",
        ]);
        let names = |pattern: &str| -> Vec<String> {
            let found = expand(&dir.path().join(pattern)).unwrap();
            found.iter().map(|p| p.strip_prefix(dir.path()).unwrap().display().to_string()).collect()
        };
        for (pattern, want) in [
            ("*.jsonl", &["a.jsonl", "b.jsonl"][..]),
            ("?.json*", &["a.jsonl", "b.json", "b.jsonl"]),
            ("[!a].jsonl", &["b.jsonl"]),
            ("[a-c].jsonl", &["a.jsonl", "b.jsonl"]),
            (".*.jsonl", &[".h.jsonl"]),
            ("*/*.jsonl", &["in/c.jsonl"]),
            ("**/*.jsonl", &["a.jsonl", "b.jsonl", "in/c.jsonl", "in/deep/d.jsonl"]),
            ("{b,a}.jsonl", &["b.jsonl", "a.jsonl"]),
            ("{b.json,in/{c,deep/d}.jsonl}", &["b.json", "in/c.jsonl", "in/deep/d.jsonl"]),
            // What is there is no pattern.
            ("x[1].txt", &["x[1].txt"]),
            ("x\\[?].txt", &["x[1].txt"]),
        ] {
            assert_eq!(names(pattern), want, "{pattern}");
        }
        let error = |pattern: &str| expand(&dir.path().join(pattern)).unwrap_err().to_string();
        assert!(error("*.csv").contains("nothing matches") && error("*.csv").contains("a.jsonl"));
        assert!(error("{a,*}.jsonl").contains("a.jsonl is named twice"), "{}", error("{a,*}.jsonl"));
        assert!(error("{a.jsonl").contains("a brace is open"));
    }

    #[test]
    fn a_list_is_a_pattern() {
        let dir = place_of(&["a.jsonl", "b,{c}.jsonl", "d.jsonl"]);
        let at = |name: &str| dir.path().join(name);
        let list = [at("d.jsonl"), at("b,{c}.jsonl"), at("a*")];
        assert_eq!(expand(&pattern_of(&list)).unwrap(), [at("d.jsonl"), at("b,{c}.jsonl"), at("a.jsonl")]);
        assert_eq!(pattern_of(&list[..1]), list[0]);
        #[derive(serde::Deserialize)]
        struct Config {
            #[serde(deserialize_with = "path_or_list")]
            train: PathBuf,
        }
        let read = |json: &str| serde_json::from_str::<Config>(json).map(|c| c.train);
        assert_eq!(read(r#"{"train": "a"}"#).unwrap(), Path::new("a"));
        assert_eq!(read(r#"{"train": ["a", "b"]}"#).unwrap(), Path::new("{a,b}"));
        assert!(read(r#"{"train": []}"#).unwrap_err().to_string().contains("list of paths is empty"));
        assert!(read(r#"{"train": 3}"#).unwrap_err().to_string().contains("a path, or a list"));
    }
}
