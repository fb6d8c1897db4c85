//! Configs: TOML files, `extends`, `--set a.b=c`, schemas.
//!
//! A typo is an error that points at the key: in a file by line and column, in an override by its text.

use crate::{Error, Result};
use fs_err as fs;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Reads a config file and applies overrides. The file may say `extends = "other.toml"` (relative to itself): then
/// its keys go over that file's, table by table.
pub fn load<T: DeserializeOwned>(path: &Path, overrides: &[String]) -> Result<T> {
    let text = fs::read_to_string(path)?;
    let origin = path.display().to_string();
    let plain = !text.lines().any(|l| l.trim_start().starts_with("extends"));
    if plain {
        // The file as it is: serde's errors carry the line.
        toml::from_str::<T>(&text)
            .map_err(|e| Error::Config { origin: origin.clone(), message: e.to_string() })?;
    }
    let mut table = merged(path, &mut Vec::new())?;
    for o in overrides {
        set(&mut table, o)?;
        // One at a time, so that an error names the override that caused it.
        T::deserialize(Value::Table(table.clone()))
            .map_err(|e| Error::Config { origin: format!("--set {o}"), message: e.to_string() })?;
    }
    T::deserialize(Value::Table(table)).map_err(|e| Error::Config { origin, message: e.to_string() })
}

fn merged(path: &Path, seen: &mut Vec<PathBuf>) -> Result<Table> {
    let real = path.canonicalize()?;
    let origin = path.display().to_string();
    if seen.contains(&real) {
        return Err(Error::Config { origin, message: "`extends` goes in a circle".into() });
    }
    seen.push(real);
    let mut table: Table = toml::from_str(&fs::read_to_string(path)?)
        .map_err(|e| Error::Config { origin: origin.clone(), message: e.to_string() })?;
    match table.remove("extends") {
        None => Ok(table),
        Some(Value::String(base)) => {
            let mut under = merged(&path.parent().unwrap_or(Path::new(".")).join(base), seen)?;
            overlay(&mut under, table);
            Ok(under)
        }
        Some(_) => Err(Error::Config { origin, message: "`extends` must be the path of a file".into() }),
    }
}

fn overlay(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(a)), Value::Table(b)) => overlay(a, b),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// Applies `a.b.c=value`; the value is TOML, or a bare string where it is none.
fn set(table: &mut Table, text: &str) -> Result<()> {
    let fail = |message: &str| Error::Config { origin: format!("--set {text}"), message: message.into() };
    let (path, value) = text.split_once('=').ok_or_else(|| fail("expected key=value"))?;
    let value = value.trim();
    let parsed = toml::from_str::<Table>(&format!("v = {value}"))
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| Value::String(value.into()));
    let keys: Vec<&str> = path.trim().split('.').collect();
    let (last, parents) = keys.split_last().ok_or_else(|| fail("expected key=value"))?;
    let mut at = table;
    for key in parents {
        let next = at.entry(key.to_string()).or_insert_with(|| Value::Table(Table::new()));
        at = next.as_table_mut().ok_or_else(|| fail(&format!("`{key}` is not a table")))?;
    }
    at.insert(last.to_string(), parsed);
    Ok(())
}

/// The config as TOML, every default written out.
pub fn to_toml<T: Serialize>(config: &T) -> Result<String> {
    toml::to_string_pretty(config)
        .map_err(|e| Error::Config { origin: "the resolved config".into(), message: e.to_string() })
}

/// The JSON schema of a config type, for editors.
pub fn schema<T: JsonSchema>() -> String {
    let schema = schemars::schema_for!(T);
    serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n"
}

/// Dotted keys at which two resolved configs differ.
pub fn differences(a: &str, b: &str) -> Vec<String> {
    fn walk(path: &str, a: Option<&Value>, b: Option<&Value>, out: &mut Vec<String>) {
        match (a, b) {
            (Some(Value::Table(x)), Some(Value::Table(y))) => {
                let mut keys: Vec<&String> = x.keys().chain(y.keys()).collect();
                keys.sort();
                keys.dedup();
                for k in keys {
                    let at = if path.is_empty() { k.clone() } else { format!("{path}.{k}") };
                    walk(&at, x.get(k), y.get(k), out);
                }
            }
            (a, b) if a == b => {}
            _ => out.push(path.to_string()),
        }
    }
    let parse = |s: &str| toml::from_str::<Table>(s).map(Value::Table).ok();
    let mut out = Vec::new();
    walk("", parse(a).as_ref(), parse(b).as_ref(), &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct C {
        seed: u64,
        name: Option<String>,
        inner: Inner,
    }

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        lr: f64,
    }

    fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn overrides_and_extends() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "base.toml", "seed = 1\n[inner]\nlr = 0.5\n");
        let top = write(dir.path(), "top.toml", "extends = \"base.toml\"\nname = \"x\"\n");
        let c: C = load(&top, &["inner.lr=2e-5".into(), "name=a b".into()]).unwrap();
        assert_eq!(c, C { seed: 1, name: Some("a b".into()), inner: Inner { lr: 2e-5 } });
        let circle = write(dir.path(), "c.toml", "extends = \"c.toml\"");
        assert!(load::<C>(&circle, &[]).unwrap_err().to_string().contains("circle"));
    }

    #[test]
    fn typos_are_pointed_at() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), "c.toml", "seed = 1\n[inner]\nlr = 0.5\nlrr = 3\n");
        let e = load::<C>(&path, &[]).unwrap_err().to_string();
        assert!(e.contains("c.toml") && e.contains("line 4") && e.contains("lrr"), "{e}");
        let path = write(dir.path(), "d.toml", "seed = 1\n[inner]\nlr = 0.5\n");
        let e = load::<C>(&path, &["inner.rl=1".into()]).unwrap_err().to_string();
        assert!(e.contains("--set inner.rl=1") && e.contains("unknown field `rl`"), "{e}");
        assert!(load::<C>(&path, &["seed.x=1".into()]).unwrap_err().to_string().contains("not a table"));
        assert!(load::<C>(&path, &["seed".into()]).is_err());
    }

    #[test]
    fn differences_are_named() {
        assert_eq!(differences("a=1\n[b]\nc=2\nd=3", "a=1\n[b]\nc=4\n[e]\nf=1"), ["b.c", "b.d", "e"]);
    }
}
