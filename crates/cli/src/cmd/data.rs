//! `ragduet data convert|folder|stats|preview|formats`.

mod preview;

use crate::common::{self, ReadArgs, Usage};
use anyhow::Result;
use ragduet_data::{
    BadRows, DatasetStats, Format, Kind, SAMPLES, choice_stats, convert, convert_records, corpus_stats,
    dataset_from_documents, dataset_stats, judged_stats, pattern_of, preference_stats, read_corpus,
    record_stats, text_stats, write_corpus,
};
use std::path::{Path, PathBuf};

/// Arguments of `data`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Convert a dataset from one format to another: retrieval examples to any format, all other kinds of rows to JSON Lines
    /// or Parquet.
    Convert {
        /// Input: a file, a folder, a pattern, or several of them.
        #[arg(required = true)]
        from: Vec<PathBuf>,
        /// Output file or folder.
        #[arg(long)]
        to: PathBuf,
        /// Output format, if the name does not tell it.
        #[arg(long)]
        to_format: Option<Format>,
        /// What the rows are, if their columns do not tell it: examples, corpus, records, preferences, completions, choices
        /// or texts.
        #[arg(long = "as", value_name = "KIND")]
        kind: Option<Kind>,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Make a data set in BEIR's layout from a folder of .txt and .md files and a file of questions. A passage is a
    /// paragraph. A line of the questions: question, words of the paragraph that answers it, answer (optional, for the
    /// generator), separated by tabs; or CSV, TSV or JSON Lines with the columns question, passage and answer.
    Folder {
        /// Folder of documents.
        docs: PathBuf,
        /// Questions: a table, or JSON Lines.
        #[arg(long)]
        questions: PathBuf,
        /// Output folder.
        #[arg(short, long)]
        out: PathBuf,
        #[command(flatten)]
        map: common::MapArgs,
        /// Share of the questions for the dev split.
        #[arg(long, default_value_t = 0.25, value_parser = share)]
        dev: f64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print statistics of a dataset of any kind: counts, lengths, duplicates, labels; of retrieval data also the overlap
    /// between splits.
    Stats {
        /// A file, a folder, a pattern, or several of them.
        #[arg(required = true)]
        path: Vec<PathBuf>,
        /// What the rows are, if their columns do not tell it: examples, corpus, records, preferences, completions, choices
        /// or texts.
        #[arg(long = "as", value_name = "KIND")]
        kind: Option<Kind>,
        #[command(flatten)]
        read: ReadArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show rows as a job would understand them, and with a model the prompts, what is learned and tokens.
    Preview(preview::Preview),
    /// List the data formats, and one row of each shape that is read.
    Formats,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if (0.0..1.0).contains(&share) { Ok(share) } else { Err("from 0 to below 1".into()) }
}

impl Args {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        match self.what {
            What::Convert { from, to, to_format, kind, read } => {
                let (from, options, bad) = (pattern_of(&from), read.options(), read.bad_rows()?);
                match kind_of(kind, &from, &read, &bad)? {
                    Kind::Corpus => {
                        if let Some(format) = to_format {
                            let why = format!(
                                "--to-format {format}: a corpus is written as JSON Lines or Parquet, by the name of \
                                 the output; leave it out"
                            );
                            return Err(Usage(why).into());
                        }
                        let passages = write_corpus(&to, read_corpus(&from, &options, &bad)?)?;
                        common::report_bad_rows(&bad)?;
                        println!("{}: {passages} passages", to.display());
                    }
                    kind @ (Kind::Records
                    | Kind::Preferences
                    | Kind::Completions
                    | Kind::Choices
                    | Kind::Texts) => {
                        if let Some(format) = to_format {
                            let why = format!(
                                "--to-format {format}: {kind} are written as JSON Lines or Parquet, by the name of the \
                                 output; leave it out, or say --as examples"
                            );
                            return Err(Usage(why).into());
                        }
                        let rows = convert_records(&from, kind, &to, &bad)?;
                        common::report_bad_rows(&bad)?;
                        println!("{}: {rows} {kind}", to.display());
                    }
                    Kind::Examples => {
                        let format = to_format.map_or_else(|| Format::for_output(&to), Ok)?;
                        let counts = convert(&from, &options, &to, format, &bad)?;
                        common::report_bad_rows(&bad)?;
                        println!("{}: {counts}", to.display());
                    }
                }
            }
            What::Folder { docs, questions, out, map, dev, json } => {
                let bad = map.bad_rows(None)?;
                let report = dataset_from_documents(&docs, &questions, &out, dev, &bad)?;
                match json {
                    true => common::print_json(&report)?,
                    false => println!("{}: {report}", out.display()),
                }
            }
            What::Stats { path, kind, read, json } => {
                let (path, options, bad) = (pattern_of(&path), read.options(), read.bad_rows()?);
                match kind_of(kind, &path, &read, &bad)? {
                    Kind::Corpus => {
                        let corpus = Some(corpus_stats(read_corpus(&path, &options, &bad)?)?);
                        let stats = DatasetStats { corpus, read: bad.report(), ..DatasetStats::default() };
                        show(&stats, &bad, json)?;
                    }
                    Kind::Records => show(&record_stats(&path, &bad)?, &bad, json)?,
                    Kind::Preferences => show(&preference_stats(&path, &bad)?, &bad, json)?,
                    Kind::Completions => show(&judged_stats(&path, &bad)?, &bad, json)?,
                    Kind::Choices => show(&choice_stats(&path, &bad)?, &bad, json)?,
                    Kind::Texts => show(&text_stats(&path, &bad)?, &bad, json)?,
                    Kind::Examples => {
                        show(&dataset_stats(&path, &options, &bad)?, &bad, json)?;
                    }
                }
            }
            What::Preview(preview) => preview.run()?,
            What::Formats => formats(),
        }
        Ok(())
    }
}

/// What is to be read: what was said, or what the format and the columns show. Options that would be ignored are refused.
fn kind_of(said: Option<Kind>, path: &Path, read: &ReadArgs, bad: &BadRows) -> Result<Kind> {
    let labels = read.min_score.is_some() || read.nli;
    let kind = match said {
        Some(kind) => kind,
        None => match Kind::detect(path, &read.options(), bad)? {
            // With what their labels mean, pairs are examples.
            Kind::Texts if labels => Kind::Examples,
            kind => kind,
        },
    };
    if kind == Kind::Examples {
        return Ok(kind);
    }
    let corpus = kind == Kind::Corpus;
    let ignored = [
        ("--format", read.format.is_some() && !corpus, "the file's name tells how they are read"),
        ("--split", read.split.is_some() && !corpus, "name the file or folder of the split"),
        ("--corpus", read.corpus.is_some(), "it goes with examples"),
        ("--queries", read.queries.is_some(), "it goes with examples"),
        ("--min-score", read.min_score.is_some(), "it goes with examples"),
        ("--nli", read.nli, "it goes with examples"),
    ];
    match ignored.into_iter().find(|(_, given, _)| *given) {
        None => Ok(kind),
        Some((flag, _, why)) => Err(Usage(format!(
            "{}: {flag} is of no use for {kind}: {why}; leave it out, or say --as examples",
            path.display()
        ))
        .into()),
    }
}

/// Prints statistics.
fn show<T: std::fmt::Display + serde::Serialize>(stats: &T, bad: &BadRows, json: bool) -> Result<()> {
    common::report_bad_rows(bad)?;
    match json {
        true => common::print_json(stats)?,
        false => println!("{stats}"),
    }
    Ok(())
}

/// The formats, and a row of each shape.
fn formats() {
    println!("Formats of files and folders:");
    Format::ALL.iter().for_each(|f| println!("  {:<16}{}", f.name(), f.about()));
    println!(
        "\nShapes of rows, the same in JSON Lines, a JSON array, CSV and TSV with a header, Parquet and Arrow. Other names \
         of columns are mapped: --map query=my_column, or [data.columns] in a config."
    );
    for kind in Kind::ALL {
        println!("\n{kind}: for {}", kind.used_by());
        for sample in SAMPLES.iter().filter(|sample| sample.kind == kind) {
            println!("  {}\n      {}", sample.title().replace('`', ""), sample.row);
        }
    }
}
