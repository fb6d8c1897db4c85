//! The binary `ragduet`: arguments, progress, exit codes. What it does is in the libraries.

mod cmd;
mod common;
mod examples;
mod waiting;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::io::Write;

/// Train the retriever and the generator of a RAG system, apart or jointly.
#[derive(Debug, Parser)]
#[command(name = "ragduet", version, about, long_about = None, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Verbosity on standard error: -v for decisions, -vv for everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Errors only on standard error; no progress bars.
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Demo on the shipped dataset with two small models from random weights: train a retriever, a generator and both
    /// jointly, with figures before and after. scripts/quickstart does it with pretrained models.
    Quickstart(cmd::quickstart::Args),
    /// Train a model.
    #[command(subcommand)]
    Train(cmd::train::Args),
    /// Mine hard negatives into a file of training examples.
    Mine(cmd::mine::Args),
    /// Encode texts to embeddings.
    Encode(cmd::encode::Args),
    /// Build and check indexes: exact, HNSW, late interaction, sparse, BM25.
    Index(cmd::index::Args),
    /// Search an index.
    Search(cmd::search::Args),
    /// Retrieve passages for the questions of a dataset and write training records for a generator.
    Retrieve(cmd::retrieve::Args),
    /// Re-rank a TREC run file with a cross-encoder.
    Rerank(Box<cmd::rerank::Args>),
    /// Generate answers for a file of records.
    Generate(Box<cmd::generate::Args>),
    /// Answer questions from an index (retrieval-augmented generation), with sources.
    Ask(Box<cmd::ask::Args>),
    /// Classify texts.
    Classify(cmd::classify::Args),
    /// Evaluate retrievers, re-rankers, generators, RAG pipelines and classifiers.
    Eval(cmd::eval::Args),
    /// Merge an adapter into its base model.
    Merge(cmd::merge::Args),
    /// Combine several LoRA adapters into one.
    Combine(cmd::combine::Args),
    /// Convert a GGUF file (llama.cpp, Ollama) to a Hugging Face folder.
    Convert(cmd::convert::Args),
    /// Write a generator as a GGUF file for llama.cpp and Ollama.
    Export(cmd::export::Args),
    /// Convert datasets, print statistics, list formats.
    Data(cmd::data::Args),
    /// Describe a model, adapter, index or run folder.
    Info(cmd::info::Args),
    /// Write an HTML report of one or several runs.
    Report(cmd::report::Args),
    /// Check this machine: devices, libraries, problems and remedies.
    Doctor(cmd::doctor::Args),
}

impl Command {
    /// Whether libtorch's threads have work.
    fn computes(&self) -> bool {
        !matches!(self, Self::Data(_) | Self::Info(_) | Self::Report(_) | Self::Doctor(_))
    }
}

fn main() {
    let command = examples::with_examples(Cli::command());
    let matches = command.clone().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    let aside = common::setting_aside(&command, &matches);
    common::start(cli.verbose, cli.quiet);
    if cli.command.computes() {
        waiting::asleep();
    }
    ragduet_torch::device::use_caching_allocator();
    let result = common::without_panics(|| match cli.command {
        Command::Quickstart(a) => a.run(cli.quiet),
        Command::Train(a) => a.run(cli.quiet),
        Command::Mine(a) => a.run(cli.quiet),
        Command::Encode(a) => a.run(cli.quiet),
        Command::Index(a) => a.run(cli.quiet),
        Command::Search(a) => a.run(cli.quiet),
        Command::Retrieve(a) => a.run(cli.quiet),
        Command::Rerank(a) => a.run(cli.quiet),
        Command::Generate(a) => a.run(cli.quiet),
        Command::Ask(a) => a.run(cli.quiet),
        Command::Classify(a) => a.run(cli.quiet),
        Command::Eval(a) => a.run(cli.quiet),
        Command::Merge(a) => a.run(),
        Command::Combine(a) => a.run(),
        Command::Convert(a) => a.run(),
        Command::Export(a) => a.run(),
        Command::Data(a) => a.run(),
        Command::Info(a) => a.run(),
        Command::Report(a) => a.run(),
        Command::Doctor(a) => a.run(),
    });
    common::say_cut();
    let code = common::finish(result, aside);
    // A run that was stopped may leave a refresh of the index behind, which still computes.
    let _ = std::io::stdout().flush();
    ragduet_torch::device::exit_now(code)
}
