//! `ragduet train`: one command for all training methods, from one table ([`jobs::JOBS`]).

mod jobs;
mod retrieval;

use anyhow::Result;
use clap::{ArgMatches, Args as _, Command, FromArgMatches};
use jobs::JOBS;
pub use jobs::print_table;
use ragduet_train::{RecipeConfig, RunDir, RunOptions, config};
use retrieval::Retrieval;
use std::path::{Path, PathBuf};

/// A training method's config and what the command line says of it.
pub trait TrainJob: RecipeConfig {
    /// The subcommand.
    const NAME: &'static str;
    /// One line of `--help`.
    const ABOUT: &'static str;
    /// An example that can be copied.
    const EXAMPLE: &'static str;

    /// Checks what types cannot.
    ///
    /// # Errors
    /// The setting and what to do.
    fn check(&self) -> Result<()>;

    /// Trains.
    ///
    /// # Errors
    /// The recipe's.
    fn train(&self, options: &RunOptions) -> Result<Summary>;

    /// Gives records passages before training (`--index`); only generators take them.
    ///
    /// # Errors
    /// Those of searching.
    fn retrieve(&mut self, _: &Retrieval, _out: &Path, _quiet: bool) -> Result<()> {
        Ok(())
    }
}

/// What a run came to, for the terminal and as JSON.
pub struct Summary {
    /// Optimiser steps done.
    pub step: u64,
    /// Whether the run came to its end.
    pub finished: bool,
    /// The best model's folder.
    pub model: Option<PathBuf>,
    /// Rows of the data that were moved aside.
    pub bad_rows: u64,
    /// All that `--json` prints beside these.
    pub json: serde_json::Map<String, serde_json::Value>,
    /// Lines for the terminal.
    pub lines: Vec<String>,
}

/// A row of the table of training methods.
pub struct Job {
    name: &'static str,
    about: &'static str,
    example: &'static str,
    schema: fn() -> String,
    reference: fn(&str) -> String,
    #[cfg(test)]
    check: fn(&Path) -> Result<()>,
    run: fn(&Common, &Retrieval, bool) -> Result<()>,
}

const fn job<T: TrainJob>() -> Job {
    Job {
        name: T::NAME,
        about: T::ABOUT,
        example: T::EXAMPLE,
        schema: config::schema::<T>,
        reference: config::reference::<T>,
        #[cfg(test)]
        check: |file| config::load::<T>(file, &[])?.check(),
        run: run::<T>,
    }
}

/// The job of a name.
///
/// # Errors
/// The names that there are.
pub fn find(name: &str) -> Result<&'static Job> {
    let names = || JOBS.iter().map(|j| j.name).collect::<Vec<_>>().join(", ");
    let found = JOBS.iter().find(|j| j.name == name);
    found.ok_or_else(|| crate::common::Usage(format!("`{name}` is no training method: {}", names())).into())
}

/// Arguments of `train`: which method, and its own.
#[derive(Debug)]
pub struct Args(Chosen);

#[derive(Debug)]
enum Chosen {
    Train { name: String, common: Box<Common>, retrieval: Box<Retrieval> },
    Schema { of: String, markdown: bool },
}

/// What all methods take.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// Config file (TOML). With --resume the run's own config is used.
    #[arg(short, long, required_unless_present = "resume")]
    config: Option<PathBuf>,
    /// Override a config key: --set optim.lr=3e-5
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    map: crate::common::MapArgs,
    /// Run folder; runs/<config name> if not given.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Resume the run in the run folder.
    #[arg(long)]
    resume: bool,
    /// With --resume: a key of the config that may differ from the run's, such as run.epochs or batch.
    #[arg(long, value_name = "KEY", requires = "resume")]
    allow: Vec<String>,
    /// Check the config, with everything that --set overrides, and stop.
    #[arg(long, conflicts_with = "resume")]
    check: bool,
    /// Print the outcome as JSON.
    #[arg(long)]
    json: bool,
}

const SCHEMA: &str = "schema";
const OF: &str = "of";
const MARKDOWN: &str = "markdown";
/// The one method that takes `--index`.
const GENERATOR: &str = "generator";

impl clap::Subcommand for Args {
    fn augment_subcommands(command: Command) -> Command {
        let command = command.subcommand_required(true).arg_required_else_help(true);
        let with = JOBS.iter().fold(command, |command, job| {
            let mut one = Common::augment_args(Command::new(job.name));
            if job.name == GENERATOR {
                one = Retrieval::augment_args(one);
            }
            // Behind the arguments, which bring what their own types are described by.
            let example = crate::examples::help_of(&[job.example]);
            command.subcommand(one.about(job.about).long_about(None).after_help(example))
        });
        let names: Vec<&str> = JOBS.iter().map(|j| j.name).collect();
        let of = clap::Arg::new(OF).default_value("retriever").value_parser(names).help("Training method");
        let about = "Print the JSON schema of a config, for editors";
        with.subcommand(
            Command::new(SCHEMA)
                .about(about)
                .arg(of)
                .arg(
                    clap::Arg::new(MARKDOWN)
                        .long(MARKDOWN)
                        .action(clap::ArgAction::SetTrue)
                        .help("Print the reference page of the config instead, in Markdown"),
                )
                .after_help(crate::examples::help_of(&[
                    "ragduet train schema generator > generator.schema.json",
                ])),
        )
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        name == SCHEMA || JOBS.iter().any(|j| j.name == name)
    }
}

impl FromArgMatches for Args {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let Some((name, own)) = matches.subcommand() else {
            return Err(clap::Error::new(clap::error::ErrorKind::MissingSubcommand));
        };
        if name == SCHEMA {
            let of = own.get_one::<String>(OF).cloned().unwrap_or_default();
            return Ok(Self(Chosen::Schema { of, markdown: own.get_flag(MARKDOWN) }));
        }
        let retrieval = match name == GENERATOR {
            true => Retrieval::from_arg_matches(own)?,
            false => Retrieval::default(),
        };
        let common = Box::new(Common::from_arg_matches(own)?);
        Ok(Self(Chosen::Train { name: name.into(), common, retrieval: Box::new(retrieval) }))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args {
    /// Runs the command.
    pub fn run(self, quiet: bool) -> Result<()> {
        match self.0 {
            Chosen::Train { name, common, retrieval } => (find(&name)?.run)(&common, &retrieval, quiet),
            Chosen::Schema { of, markdown } => {
                let job = find(&of)?;
                print!("{}", if markdown { (job.reference)(&of) } else { (job.schema)() });
                Ok(())
            }
        }
    }
}

/// Runs a method as the command line says.
fn run<T: TrainJob>(c: &Common, r: &Retrieval, quiet: bool) -> Result<()> {
    let (out, file) = places(c)?;
    let mut config: T = config::load(&file, &[c.set.clone(), c.map.settings()?].concat())?;
    if c.check {
        config.check()?;
        println!("{} is a config of `ragduet train {}`", file.display(), T::NAME);
        return Ok(());
    }
    config.retrieve(r, &out, quiet)?;
    let options = RunOptions { out, resume: c.resume, quiet, stop_after: None, allow: c.allow.clone() };
    let o = config.train(&options).map_err(|e| with_key(e, &config))?;
    if c.json {
        let mut said = serde_json::Map::from_iter([
            ("step".to_string(), o.step.into()),
            ("finished".into(), o.finished.into()),
            ("model".into(), serde_json::to_value(&o.model)?),
            ("bad_rows".into(), o.bad_rows.into()),
        ]);
        said.extend(o.json);
        crate::common::print_json(&serde_json::Value::from(said))?;
    }
    if !o.finished {
        return Err(crate::common::Stopped(format!("stopped at step {}; go on with --resume", o.step)).into());
    }
    if c.json {
        return Ok(());
    }
    if o.bad_rows > 0 {
        println!("{} bad rows were left out; they are in bad_rows.jsonl of the run folder", o.bad_rows);
    }
    o.lines.iter().for_each(|line| println!("{line}"));
    if let Some(model) = &o.model {
        println!("{} step{}; model: {}", o.step, if o.step == 1 { "" } else { "s" }, model.display());
    }
    Ok(())
}

/// An error about a file or folder, with the key of the config that names it.
fn with_key<T: serde::Serialize>(error: anyhow::Error, config: &T) -> anyhow::Error {
    let said = format!("{error:#}");
    let whole = |place: usize, path: &str| {
        let edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && !"._-".contains(c));
        edge(said[..place].chars().next_back()) && edge(said[place + path.len()..].chars().next())
    };
    let named = strings("", &serde_json::to_value(config).unwrap_or_default());
    // The longest: a folder's path is also the beginning of those in it.
    let found = named
        .into_iter()
        .filter(|(key, path)| (key.starts_with("data.") || key.ends_with(".base")) && path.len() > 1)
        .filter(|(key, path)| {
            !said.contains(key.as_str()) && said.match_indices(path.as_str()).any(|(i, p)| whole(i, p))
        })
        .max_by_key(|(_, path)| path.len());
    match found {
        Some((key, _)) => error.context(key),
        None => error,
    }
}

/// The texts in a config, by their dotted keys.
fn strings(path: &str, value: &serde_json::Value) -> Vec<(String, String)> {
    match value {
        serde_json::Value::String(text) => vec![(path.into(), text.clone())],
        serde_json::Value::Object(table) => {
            let of = |(key, inner): (&String, &serde_json::Value)| match path {
                "" => strings(key, inner),
                _ => strings(&format!("{path}.{key}"), inner),
            };
            table.iter().flat_map(of).collect()
        }
        _ => Vec::new(),
    }
}

/// The run folder, and the config file: the run's own where none is given.
fn places(c: &Common) -> Result<(PathBuf, PathBuf)> {
    let out = match (&c.out, &c.config) {
        (Some(out), _) => out.clone(),
        (None, Some(config)) => PathBuf::from("runs").join(config.file_stem().unwrap_or_default()),
        (None, None) => return Err(crate::common::Usage("--resume needs --out or --config".into()).into()),
    };
    let file = match &c.config {
        Some(path) => path.clone(),
        None => RunDir::config_of(&out)?,
    };
    Ok((out, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_says_what_it_is() {
        let command = <Args as clap::Subcommand>::augment_subcommands(Command::new("train"));
        for job in JOBS {
            let one = command.find_subcommand(job.name).unwrap();
            assert_eq!(one.get_about().map(ToString::to_string).as_deref(), Some(job.about));
            assert!(one.get_long_about().is_none(), "{}", job.name);
        }
    }

    #[test]
    fn shipped_configs_are_what_a_command_takes() {
        let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
        let mut taken: Vec<&str> = Vec::new();
        for area in fs_err::read_dir(configs).unwrap().map(|e| e.unwrap().path()) {
            for file in fs_err::read_dir(area).unwrap().map(|e| e.unwrap().path()) {
                if file.extension().is_none_or(|e| e != "toml") {
                    continue;
                }
                let tried = JOBS.iter().map(|job| (job.name, (job.check)(&file)));
                let (good, bad): (Vec<_>, Vec<_>) = tried.partition(|(_, read)| read.is_ok());
                assert!(!good.is_empty(), "{}: {bad:#?}", file.display());
                taken.extend(good.iter().map(|(name, _)| *name));
            }
        }
        let without: Vec<&str> = JOBS.iter().map(|j| j.name).filter(|n| !taken.contains(n)).collect();
        assert!(taken.len() > 20 && without.is_empty(), "methods without a config: {without:?}");
    }

    #[test]
    fn every_method_has_help_with_an_example_of_its_own() {
        let command = <Args as clap::Subcommand>::augment_subcommands(Command::new("train"));
        command.clone().debug_assert();
        for job in JOBS {
            assert!(job.example.contains(&format!("ragduet train {} ", job.name)), "{}", job.example);
            assert!(command.find_subcommand(job.name).is_some() && find(job.name).is_ok());
        }
        assert!(find("grpo").err().unwrap().to_string().contains("cross-encoder"));
    }
}
