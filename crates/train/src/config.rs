//! Configs: TOML files, `extends`, `--set a.b=c`, schemas.
//!
//! A typo is an error that points at the key: in a file by line and column (also where it is in a file that another
//! one extends), in an override by its text.

use crate::sources::Sources;
use crate::{Error, Result};
use fs_err as fs;
use schemars::JsonSchema;
use serde::Serialize;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// A config that TOML is read as. [`crate::config!`] implements it in the crate that defines the type: what serde derives
/// is generic, and would otherwise be compiled again in every crate and test that reads one.
pub trait Config: JsonSchema + Serialize + Sized {
    /// Reads a TOML document.
    ///
    /// # Errors
    /// toml's, with the place.
    fn from_document(document: toml::de::Deserializer<'_>) -> Result<Self, toml::de::Error>;

    /// Reads TOML text.
    ///
    /// # Errors
    /// As [`Config::from_document`].
    fn from_toml(text: &str) -> Result<Self, toml::de::Error> {
        Self::from_document(toml::de::Deserializer::parse(text)?)
    }
}

/// Implements [`config::Config`](crate::config::Config) for a type that serde can read.
#[macro_export]
macro_rules! config {
    ($kind:ty) => {
        impl $crate::config::Config for $kind {
            fn from_document(
                document: $crate::toml::de::Deserializer<'_>,
            ) -> ::std::result::Result<Self, $crate::toml::de::Error> {
                <Self as ::serde::Deserialize>::deserialize(document)
            }
        }
    };
}

// To look at a file before it is known which config it is.
crate::config!(serde_json::Value);

/// Reads a config file and applies overrides.
///
/// The file may say `extends = "other.toml"` (relative to itself): then its keys go over that file's, table by table.
/// Overrides `a.b=c` come last; the value is TOML, or a string where it is none, and replaces what was there. A choice
/// (an enum such as the loss) is replaced, not merged, where another variant is chosen.
///
/// # Errors
/// [`Error::Config`], which names the file, line and column, or the override.
pub fn load<T: Config>(path: &Path, overrides: &[String]) -> Result<T> {
    let files = chain(path)?;
    let mut sources = Sources::default();
    for (path, text) in &files {
        sources.add_file(path, text);
    }
    for text in overrides {
        sources.add_override(text)?;
    }
    sources.read(schemars::schema_for!(T).as_value())
}

/// A file and those it extends, itself first.
fn chain(path: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut files: Vec<(PathBuf, String)> = Vec::new();
    let mut seen = Vec::new();
    let mut next = Some(path.to_path_buf());
    while let Some(path) = next {
        let fail = |message: String| Error::Config {
            origin: files.last().map_or(&path, |(p, _)| p).display().to_string(),
            message,
        };
        let real = match path.canonicalize() {
            Err(e) if !files.is_empty() => return Err(fail(format!("extends {}: {e}", path.display()))),
            // fs_err's message names the file.
            Err(_) => {
                return Err(fs::read_to_string(&path).err().map_or(fail("cannot be read".into()), Error::Io));
            }
            Ok(real) => real,
        };
        if seen.contains(&real) {
            return Err(fail("`extends` goes in a circle".into()));
        }
        seen.push(real);
        let text = fs::read_to_string(&path)?;
        // A table that does not parse extends nothing; its error comes when it is read with its place.
        let base = toml::from_str::<Table>(&text).ok().and_then(|mut t| t.remove("extends"));
        next = match base {
            None => None,
            Some(Value::String(base)) => Some(path.parent().unwrap_or(Path::new(".")).join(base)),
            Some(_) => {
                let origin = path.display().to_string();
                return Err(Error::Config { origin, message: "`extends` must be the path of a file".into() });
            }
        };
        files.push((path, text));
    }
    Ok(files)
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

/// The reference page of the config of `ragduet train <job>`, in Markdown.
pub fn reference<T: JsonSchema>(job: &str) -> String {
    crate::reference::markdown(job, schemars::schema_for!(T).as_value())
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

    #[derive(Debug, Serialize, Deserialize, PartialEq, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct C {
        seed: u64,
        name: Option<String>,
        inner: Inner,
        #[serde(default)]
        loss: Option<Loss>,
    }

    #[derive(Debug, Serialize, Deserialize, PartialEq, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        lr: f64,
        #[serde(default)]
        schedule: crate::ScheduleConfig,
    }

    #[derive(Debug, Serialize, Deserialize, PartialEq, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Loss {
        Triplet(Triplet),
        InfoNce(InfoNce),
    }

    #[derive(Debug, Default, Serialize, Deserialize, PartialEq, JsonSchema)]
    #[serde(deny_unknown_fields, default)]
    struct Triplet {
        margin: f64,
        squared: bool,
    }

    #[derive(Debug, Serialize, Deserialize, PartialEq, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct InfoNce {}

    crate::config!(C);

    const BASE: &str = "seed = 1\n[inner]\nlr = 0.5\n";

    struct Files(tempfile::TempDir);

    impl Files {
        fn new(files: &[(&str, &str)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for (name, text) in files {
                std::fs::write(dir.path().join(name), text).unwrap();
            }
            Self(dir)
        }

        fn load(&self, name: &str, set: &[&str]) -> Result<C> {
            let set: Vec<String> = set.iter().map(|s| s.to_string()).collect();
            load(&self.0.path().join(name), &set)
        }

        #[track_caller]
        fn fails(&self, name: &str, set: &[&str], words: &[&str]) {
            let e = self.load(name, set).unwrap_err().to_string();
            for w in words {
                assert!(e.contains(w), "`{w}` is missing in: {e}");
            }
        }
    }

    #[derive(Debug, Default, Serialize, Deserialize, PartialEq, JsonSchema)]
    #[serde(deny_unknown_fields, default)]
    struct Run {
        seed: u64,
        epochs: f64,
    }

    #[derive(Debug, Default, Serialize, Deserialize, PartialEq, JsonSchema)]
    #[serde(deny_unknown_fields, default)]
    struct Renamed {
        run: Run,
    }
    crate::config!(Renamed);

    #[test]
    fn an_old_key_is_an_error_that_names_the_new_one_and_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, "[run]\nseed = 1\n\n[train]\nepochs = 2.0\n").unwrap();
        let e = load::<Renamed>(&path, &[]).unwrap_err().to_string();
        assert!(e.contains("c.toml:5:1") && e.contains("`train.epochs` is now `run.epochs`"), "{e}");
        std::fs::write(&path, "[run]\nseed = 1\n").unwrap();
        let e = load::<Renamed>(&path, &["seed=3".into()]).unwrap_err().to_string();
        assert!(e.contains("--set seed=3") && e.contains("`seed` is now `run.seed`"), "{e}");
        assert_eq!(load::<Renamed>(&path, &["run.epochs=1.5".into()]).unwrap().run.epochs, 1.5);
    }

    #[test]
    fn overrides_and_extends() {
        let top = "extends = \"base.toml\"\nname = \"x\"\n";
        let f = Files::new(&[("base.toml", BASE), ("top.toml", top)]);
        let c = f.load("top.toml", &["inner.lr=2e-5", "name=a b"]).unwrap();
        let inner = Inner { lr: 2e-5, schedule: crate::ScheduleConfig::Linear };
        assert_eq!(c, C { seed: 1, name: Some("a b".into()), inner, loss: None });
        let name = |text: &str| f.load("top.toml", &[text]).unwrap().name.unwrap();
        assert_eq!(name("name=say \"hi\" \\ [x"), "say \"hi\" \\ [x");
        assert_eq!(name("name=a\nseed = 7"), "a\nseed = 7");
        assert_eq!(name("name = \"3\""), "3");
        assert_eq!(name("name="), "");
        // Dotted keys and headers, and a later override over an earlier.
        assert_eq!(f.load("top.toml", &["seed=2", "seed=3"]).unwrap().seed, 3);
        let path = f.0.path().join("top.toml");
        let c: C = load(&path, &[]).unwrap();
        let resolved = to_toml(&c).unwrap();
        assert_eq!(toml::from_str::<C>(&resolved).unwrap(), c);
        assert!(resolved.contains("schedule = \"linear\""), "{resolved}");
    }

    #[test]
    fn another_variant_replaces_the_one_that_was_chosen() {
        let base = format!("{BASE}[inner.schedule.cosine]\ncycles = 2.0\n[loss.triplet]\nmargin = 0.3\n");
        let top = "extends = \"base.toml\"\n[loss.info_nce]\n";
        let f = Files::new(&[("base.toml", &base), ("top.toml", top)]);
        assert_eq!(f.load("top.toml", &[]).unwrap().loss, Some(Loss::InfoNce(InfoNce {})));
        // The same variant is merged.
        let triplet = |margin, squared| Some(Loss::Triplet(Triplet { margin, squared }));
        let loss = |name: &str, set: &str| f.load(name, &[set]).unwrap().loss;
        assert_eq!(loss("base.toml", "loss.triplet.squared=true"), triplet(0.3, true));
        assert_eq!(loss("top.toml", "loss.triplet.squared=true"), triplet(0.0, true));
        // What an override sets is set as a whole.
        assert_eq!(loss("base.toml", "loss={triplet={squared=true}}"), triplet(0.0, true));
        let schedule = |set: &str| f.load("base.toml", &[set]).unwrap().inner.schedule;
        assert_eq!(schedule("inner.schedule=linear"), crate::ScheduleConfig::Linear);
        assert_eq!(schedule("inner.schedule.constant={}"), crate::ScheduleConfig::Constant);
        let cosine = crate::CosineConfig { min_ratio: 0.5, cycles: 2.0 };
        assert_eq!(schedule("inner.schedule.cosine.min_ratio=0.5"), crate::ScheduleConfig::Cosine(cosine));
    }

    #[test]
    fn typos_are_pointed_at_in_every_file() {
        let typo = format!("{BASE}lrr = 3\n");
        let f = Files::new(&[
            ("typo.toml", &typo),
            ("over.toml", "# A comment: ü\nextends = \"typo.toml\"\n\nseed = 2\n"),
            ("over2.toml", "extends = \"good.toml\"\n  \"größe\" = 2\n"),
            ("good.toml", BASE),
            ("syntax.toml", "seed = 1\nname = \"unfinished\n"),
            ("over3.toml", "extends = \"syntax.toml\"\n"),
            ("lacks.toml", "seed = 1\n[inner]\n"),
            ("lacks2.toml", "seed = 1\n"),
            ("range.toml", "seed = 1\n[inner]\nlr = 0.5\nschedule = { cosine = { min_ratio = 2 } }\n"),
        ]);
        let near = "4 | lrr = 3\n  | ^^^\nunknown field `lrr`, expected `lr` or `schedule`";
        f.fails("typo.toml", &[], &["typo.toml:4:1: ", near]);
        // The file that has it is named, not the one that extends it.
        f.fails("over.toml", &[], &["typo.toml:4:1: ", near]);
        f.fails("over2.toml", &[], &["over2.toml:2:3", "größe"]);
        f.fails("syntax.toml", &[], &["syntax.toml:2:"]);
        f.fails("over3.toml", &[], &["syntax.toml:2:"]);
        f.fails("lacks.toml", &[], &["lacks.toml:2:1: ", "[inner]", "missing field `lr`"]);
        f.fails("lacks2.toml", &[], &["lacks2.toml: missing field `inner`"]);
        f.fails("range.toml", &[], &["range.toml:4:", "2 is not a number from 0 to 1"]);
        f.fails("none.toml", &[], &["none.toml"]);
    }

    #[test]
    fn overrides_are_named() {
        let f = Files::new(&[("c.toml", BASE)]);
        for (set, words) in [
            ("inner.rl=1", "unknown field `rl`"),
            ("seed.x=1", "a table stands where a whole number of 0 or more is expected"),
            ("seed=one", "the text \"one\" stands where a whole number of 0 or more is expected"),
            ("loss.triplet.margn=1", "unknown field `margn`"),
            ("loss.tripplet.margin=1", "unknown variant `tripplet`"),
            ("seed", "expected key=value"),
            ("=1", "expected key=value"),
            ("a..b=1", "expected key=value"),
        ] {
            f.fails("c.toml", &["name=fine", set], &[&format!("--set {set}: "), words]);
        }
    }

    #[test]
    fn extends_that_leads_nowhere() {
        let f = Files::new(&[
            ("a.toml", "extends = \"b.toml\""),
            ("b.toml", "extends = \"a.toml\""),
            ("c.toml", "extends = \"none.toml\""),
            ("d.toml", "extends = 3"),
        ]);
        f.fails("a.toml", &[], &["b.toml: `extends` goes in a circle"]);
        f.fails("c.toml", &[], &["c.toml: extends", "none.toml"]);
        f.fails("d.toml", &[], &["d.toml: `extends` must be"]);
    }

    #[test]
    fn schema_names_every_key() {
        let schema: serde_json::Value = serde_json::from_str(&schema::<C>()).unwrap();
        let keys: Vec<_> = schema["properties"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["seed", "name", "inner", "loss"]);
        assert_eq!(schema["additionalProperties"], false);
    }

    #[test]
    fn differences_are_named() {
        assert_eq!(differences("a=1\n[b]\nc=2\nd=3", "a=1\n[b]\nc=4\n[e]\nf=1"), ["b.c", "b.d", "e"]);
    }
}
