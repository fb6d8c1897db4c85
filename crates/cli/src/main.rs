//! The binary `ragduet`: arguments, progress, exit codes. What it does is in the libraries.

mod cmd;
mod common;

use clap::{Parser, Subcommand};
use std::io::Write;

/// Trains both halves of a retrieval-augmented generation system.
#[derive(Debug, Parser)]
#[command(name = "ragduet", version, about, long_about = None, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// More on standard error: -v shows what is being decided, -vv everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Only errors on standard error, no progress.
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The whole story on the shipped dataset, in minutes, on a CPU.
    Quickstart(cmd::quickstart::Args),
    /// Train a model.
    #[command(subcommand)]
    Train(cmd::train::Args),
    /// Mine hard negatives with a model, into a file of training examples.
    Mine(cmd::mine::Args),
    /// Turn texts into embeddings.
    Encode(cmd::encode::Args),
    /// Build and look at vector indexes.
    Index(cmd::index::Args),
    /// Find passages for questions.
    Search(cmd::search::Args),
    /// Find passages for the questions of a dataset, as records for a generator.
    Retrieve(cmd::retrieve::Args),
    /// Put a ranking in a cross-encoder's order.
    Rerank(Box<cmd::rerank::Args>),
    /// Answer a file of records with a generator.
    Generate(Box<cmd::generate::Args>),
    /// Answer questions from an index, with sources.
    Ask(Box<cmd::ask::Args>),
    /// Say what texts are, with a classifier.
    Classify(cmd::classify::Args),
    /// Measure a model.
    Eval(cmd::eval::Args),
    /// Work an adapter into its base.
    Merge(cmd::merge::Args),
    /// Make one adapter of several.
    Combine(cmd::combine::Args),
    /// Convert and describe data.
    Data(cmd::data::Args),
    /// Describe a model, an adapter, an index or a run.
    Info(cmd::info::Args),
    /// Make one HTML page of runs.
    Report(cmd::report::Args),
    /// What this machine offers, what is missing, and how to mend it.
    Doctor(cmd::doctor::Args),
}

fn main() {
    let cli = Cli::parse();
    common::start(cli.verbose, cli.quiet);
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
        Command::Data(a) => a.run(),
        Command::Info(a) => a.run(),
        Command::Report(a) => a.run(),
        Command::Doctor(a) => a.run(),
    });
    let code = common::finish(result);
    // A run that was stopped may leave a refresh of the index behind, which still computes.
    let _ = std::io::stdout().flush();
    ragduet_torch::device::exit_now(code)
}
