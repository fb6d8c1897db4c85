//! What a run's folder holds.

use crate::config::flatten;
use crate::samples::{self, Sample};
use crate::series::{MOST, Series, thin};
use crate::{Error, Result};
use fs_err as fs;
use serde::Serialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A run.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// What it is called in the page: no two are alike.
    pub name: String,
    /// Its folder, or the file of answers.
    pub path: PathBuf,
    /// Curves by kind (`train`, `dev`, ...), in the order of their first lines.
    pub sections: Vec<Section>,
    /// `config.toml`, dotted.
    pub config: Vec<(String, String)>,
    /// Numbers of `best.json`, dotted.
    pub best: Vec<(String, f64)>,
    /// `environment.json`.
    pub environment: Vec<(String, String)>,
    /// `table.json`.
    pub table: Option<Value>,
    /// Questions of `samples.jsonl` and of saved evaluations, by file.
    pub samples: Vec<(String, usize, Vec<Sample>)>,
}

/// The curves of a kind of lines.
#[derive(Debug, Clone, Serialize)]
pub struct Section {
    /// The kind.
    pub kind: String,
    /// By metric.
    pub metrics: Vec<Curve>,
}

/// A metric.
#[derive(Debug, Clone, Serialize)]
pub struct Curve {
    /// Its name.
    pub name: String,
    /// How many values there are; `points` may be fewer.
    pub count: usize,
    /// Highest value and its step, over all values.
    pub highest: Option<(f64, f64)>,
    /// Lowest value and its step.
    pub lowest: Option<(f64, f64)>,
    /// What is drawn.
    pub points: Series,
}

/// Reads runs: folders with `metrics.jsonl`, and those in them (a quickstart's `generator`); files of saved answers.
///
/// # Errors
/// A path that is neither, and files that do not read.
pub fn read_runs(paths: &[PathBuf]) -> Result<Vec<Run>> {
    let mut out = Vec::new();
    // How many parts of its path a run is called by, at least.
    let mut parts = Vec::new();
    for path in paths {
        let unusable = |why: &str| Error::Unusable { path: path.clone(), why: why.into() };
        if path.is_file() {
            let read = samples::read(path)?;
            let (list, count) = read.ok_or_else(|| unusable("no line with a question and its answer"))?;
            let mut run = empty(path);
            run.samples.push((name_of(path), count, list));
            out.push(run);
            parts.push(1);
            continue;
        }
        let inner = inner_runs(path)?;
        if !is_run(path) && inner.is_empty() {
            return Err(unusable("no run: there is no metrics.jsonl, nor in a folder in it"));
        }
        if is_run(path) {
            out.push(read_run(path)?);
            parts.push(1);
        }
        for dir in inner {
            out.push(read_run(&dir)?);
            parts.push(2);
        }
    }
    name(&mut out, &parts);
    Ok(out)
}

fn is_run(dir: &Path) -> bool {
    dir.join("metrics.jsonl").is_file()
}

fn inner_runs(dir: &Path) -> Result<Vec<PathBuf>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(dir)?.collect::<std::io::Result<Vec<_>>>()?;
    let mut inner: Vec<PathBuf> = entries.into_iter().map(|e| e.path()).filter(|p| is_run(p)).collect();
    inner.sort();
    Ok(inner)
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned())
}

/// The shortest ends of their paths that tell runs apart.
fn name(runs: &mut [Run], least: &[usize]) {
    let absolute = |p: &Path| std::path::absolute(p).unwrap_or_else(|_| p.into());
    let parts: Vec<Vec<String>> = runs
        .iter()
        .map(|r| {
            absolute(&r.path).components().map(|c| c.as_os_str().to_string_lossy().into_owned()).collect()
        })
        .collect();
    let end = |p: &[String], n: usize| p[p.len().saturating_sub(n)..].join("/");
    for (i, run) in runs.iter_mut().enumerate() {
        let alone = |n: &usize| {
            let own = end(&parts[i], *n);
            parts.iter().enumerate().all(|(j, p)| i == j || end(p, *n) != own)
        };
        let most = parts[i].len();
        match (least[i]..=most).find(alone) {
            Some(n) => run.name = end(&parts[i], n),
            // The same folder twice.
            None => run.name = format!("{} ({})", end(&parts[i], 1), i + 1),
        }
    }
}

fn empty(path: &Path) -> Run {
    Run {
        name: name_of(path),
        path: path.into(),
        sections: Vec::new(),
        config: Vec::new(),
        best: Vec::new(),
        environment: Vec::new(),
        table: None,
        samples: Vec::new(),
    }
}

fn read_run(dir: &Path) -> Result<Run> {
    let mut run = empty(dir);
    run.sections = sections(&dir.join("metrics.jsonl"))?;
    let config = dir.join("config.toml");
    if config.is_file() {
        let text = fs::read_to_string(&config)?;
        let table = text.parse::<toml::Table>();
        let table = table.map_err(|e| Error::Unusable { path: config, why: e.to_string() })?;
        run.config = flatten(&table);
    }
    if let Some(best) = json(&dir.join("best.json"))? {
        numbers("", &best, &mut run.best);
    }
    if let Some(Value::Object(map)) = json(&dir.join("environment.json"))? {
        run.environment = map.iter().map(|(k, v)| (k.clone(), say(v))).collect();
    }
    run.table = json(&dir.join("table.json"))?;
    let mut files: Vec<PathBuf> =
        fs::read_dir(dir)?.collect::<std::io::Result<Vec<_>>>()?.into_iter().map(|e| e.path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "jsonl") && !p.ends_with("metrics.jsonl"));
    // What was made for this page first.
    files.sort_by_key(|p| (!p.ends_with("samples.jsonl"), p.clone()));
    for path in files {
        if let Some((list, count)) = samples::read(&path)? {
            run.samples.push((name_of(&path), count, list));
        }
    }
    Ok(run)
}

fn json(path: &Path) -> Result<Option<Value>> {
    if !path.is_file() {
        return Ok(None);
    }
    let parsed = serde_json::from_slice(&fs::read(path)?);
    parsed.map(Some).map_err(|e| Error::Unusable { path: path.into(), why: e.to_string() })
}

/// Numbers under their dotted keys.
fn numbers(key: &str, value: &Value, out: &mut Vec<(String, f64)>) {
    match value {
        Value::Number(n) => out.extend(n.as_f64().filter(|x| x.is_finite()).map(|x| (key.to_string(), x))),
        Value::Object(map) => {
            for (k, v) in map {
                let at = if key.is_empty() { k.clone() } else { format!("{key}.{k}") };
                numbers(&at, v, out);
            }
        }
        _ => {}
    }
}

/// A fact about the environment, in words: of flags those that are on.
fn say(v: &Value) -> String {
    match v {
        Value::Null => String::new(),
        Value::String(s) => s.clone(),
        Value::Array(a) => a.iter().map(say).collect::<Vec<_>>().join(" "),
        Value::Object(map) => {
            let on = |v: &Value| {
                !matches!(v.as_str(), Some("0")) && !matches!(v, Value::Bool(false) | Value::Null)
            };
            let flag = |v: &Value| matches!(v.as_str(), Some("0" | "1")) || v.is_boolean();
            let told = map.iter().filter(|(_, v)| on(v));
            told.map(|(k, v)| if flag(v) { k.clone() } else { format!("{k}={}", say(v)) })
                .collect::<Vec<_>>()
                .join(", ")
        }
        other => other.to_string(),
    }
}

/// Under their names, in the order in which they came.
type Named<T> = Vec<(String, T)>;
/// (step, value).
type Points = Vec<(f64, f64)>;

/// Keys of every line that are no metrics.
const HEAD: [&str; 3] = ["step", "kind", "time"];

fn sections(path: &Path) -> Result<Vec<Section>> {
    let text = fs::read_to_string(path)?;
    let mut all: Named<Named<Points>> = Vec::new();
    let last = text.lines().count();
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let bad = |why: String| Error::Line { path: path.into(), line: i + 1, why };
        let row: Value = match serde_json::from_str(line) {
            Ok(row) => row,
            // A run that is being written, or that was killed.
            Err(_) if i + 1 == last && !text.ends_with('\n') => break,
            Err(e) => return Err(bad(e.to_string())),
        };
        let (Some(step), Some(kind)) = (row["step"].as_f64(), row["kind"].as_str()) else {
            return Err(bad("a line has a `step` and a `kind`".into()));
        };
        let mut values = Vec::new();
        for (key, value) in row.as_object().into_iter().flatten().filter(|(k, _)| !HEAD.contains(&k.as_str()))
        {
            // A structured record stands under `value`.
            numbers(if key == "value" { "" } else { key }, value, &mut values);
        }
        let section = match all.iter().position(|(k, _)| k == kind) {
            Some(at) => at,
            None => {
                all.push((kind.to_string(), Vec::new()));
                all.len() - 1
            }
        };
        for (name, value) in values {
            let metrics = &mut all[section].1;
            match metrics.iter_mut().find(|(n, _)| *n == name) {
                Some((_, points)) => points.push((step, value)),
                None => metrics.push((name, vec![(step, value)])),
            }
        }
    }
    let curve = |(name, points): (String, Points)| {
        let all = Series(points);
        Curve {
            name,
            count: all.0.len(),
            highest: all.extreme(true),
            lowest: all.extreme(false),
            points: Series(thin(&all.0, MOST)),
        }
    };
    Ok(all
        .into_iter()
        .map(|(kind, metrics)| Section { kind, metrics: metrics.into_iter().map(curve).collect() })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str, text: &str) {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join(name), text).unwrap();
    }

    #[test]
    fn lines_become_curves() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        let lines = [
            r#"{"step":1,"kind":"train","time":1.5,"loss":2.0,"lr":0.1}"#,
            r#"{"step":2,"kind":"train","time":1.5,"loss":null,"lr":0.2}"#,
            r#"{"step":2,"kind":"dev","time":1.5,"value":{"ndcg@10":0.5,"deep":{"x":1}}}"#,
            // Cut off while it was written.
            r#"{"step":3,"kind":"tra"#,
        ];
        write(&run, "metrics.jsonl", &lines.join("\n"));
        write(&run, "best.json", r#"{"step":2,"mean":{"ndcg@10":0.5}}"#);
        write(
            &run,
            "environment.json",
            r#"{"cpu":{"avx":"1","amx":"0"},"device":"Cpu","command":["a","b"],"none":null}"#,
        );
        let all = read_runs(std::slice::from_ref(&run)).unwrap();
        let [r] = all.as_slice() else { panic!() };
        assert_eq!(r.name, "run");
        let curves: Vec<(&str, &str, usize)> = r
            .sections
            .iter()
            .flat_map(|s| s.metrics.iter().map(|m| (s.kind.as_str(), m.name.as_str(), m.count)))
            .collect();
        let want = [("train", "loss", 1), ("train", "lr", 2), ("dev", "ndcg@10", 1), ("dev", "deep.x", 1)];
        assert_eq!(curves, want);
        assert_eq!(r.best, [("step".to_string(), 2.0), ("mean.ndcg@10".to_string(), 0.5)]);
        assert_eq!(r.environment[0], ("cpu".into(), "avx".into()));
        assert_eq!(r.environment[2], ("command".into(), "a b".into()));

        write(&run, "metrics.jsonl", "{\"step\":1}\n");
        let e = read_runs(&[run]).unwrap_err().to_string();
        assert!(e.contains("metrics.jsonl:1") && e.contains("kind"), "{e}");
    }

    #[test]
    fn runs_in_runs_and_names_that_tell_them_apart() {
        let dir = tempfile::tempdir().unwrap();
        let line = "{\"step\":1,\"kind\":\"train\",\"loss\":1.0}\n";
        for run in ["a/x", "a/x/generator", "b/x", "c"] {
            write(&dir.path().join(run), "metrics.jsonl", line);
        }
        let names = |paths: &[&str]| -> Vec<String> {
            let paths: Vec<PathBuf> = paths.iter().map(|p| dir.path().join(p)).collect();
            read_runs(&paths).unwrap().into_iter().map(|r| r.name).collect()
        };
        assert_eq!(names(&["a/x", "b/x", "c"]), ["a/x", "x/generator", "b/x", "c"]);
        assert_eq!(names(&["c", "c"]), ["c (1)", "c (2)"]);
        // A folder of runs.
        assert_eq!(names(&["a"]), ["a/x"]);
        let nothing = read_runs(&[dir.path().join("nothing")]).unwrap_err().to_string();
        assert!(nothing.contains("no metrics.jsonl"), "{nothing}");
    }
}
