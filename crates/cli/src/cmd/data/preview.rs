//! `ragduet data preview`: records as a job would understand them, with a model also as it would read them.

use super::kind_of;
use crate::common::numbers::count;
use crate::common::{ReadArgs, report_bad_rows};
use anyhow::{Context, Result};
use ragduet_data::{BadRows, Kind, RagRecord, one_line, read_choices, read_records};
use ragduet_generator::Generator;
use ragduet_generator::contexts::ContextConfig;
use ragduet_generator::prepare::{Preparer, PromptConfig};
use ragduet_joint::pipeline::trained_with;
use ragduet_text::{EncodeOptions, Tokenizer};
use ragduet_torch::{Compute, Device};
use std::path::{Path, PathBuf};

/// Arguments of `data preview`.
#[derive(Debug, clap::Args)]
pub struct Preview {
    /// File or folder.
    path: PathBuf,
    /// What the rows are: examples, corpus, records, preferences, completions, choices or texts; if not given, what their
    /// columns say.
    #[arg(long = "as", value_name = "KIND")]
    kind: Option<Kind>,
    /// Number of rows.
    #[arg(short, default_value_t = 3, value_parser = count)]
    n: usize,
    /// Model whose tokens are counted; of a generator also the prompt, with what is learned marked.
    #[arg(short, long)]
    model: Option<String>,
    /// Prompt settings (TOML, the keys of `[prompt]`); those of the model's folder if not given.
    #[arg(long, value_name = "FILE", requires = "model")]
    prompt: Option<PathBuf>,
    #[command(flatten)]
    read: ReadArgs,
}

/// Characters of a value that are shown.
const MOST: usize = 400;

impl Preview {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        // What is shown here need not be logged.
        let bad = self.read.bad_rows()?;
        let options = self.read.options();
        let kind = kind_of(self.kind, &self.path, &self.read, &bad)?;
        let said = match self.kind {
            Some(_) => "",
            None => " by their columns (--as takes them for something else)",
        };
        let dir = self.model.as_deref().map(ragduet_nn::hub::resolve).transpose()?;
        let mut shown: Vec<(String, Vec<(&'static str, String)>)> = Vec::new();
        for record in kind.read(&self.path, &options, &bad)?.take(self.n) {
            let record = record?;
            shown.push((record.lines(MOST), record.roles()));
        }
        report_bad_rows(&bad)?;
        println!("{}: {kind}{said}; for {}", self.path.display(), kind.used_by());
        let prompts = match &dir {
            Some(dir) if matches!(kind, Kind::Records | Kind::Choices) => Some(self.prompts(dir, kind)?),
            _ => None,
        };
        let tokenizer = dir.as_deref().map(Tokenizer::from_dir).transpose()?;
        for (i, (lines, roles)) in shown.iter().enumerate() {
            println!("\n{}.\n{lines}", i + 1);
            if let Some(prompt) = prompts.as_ref().and_then(|all| all.get(i)) {
                println!("  as the model reads it: {prompt}");
            } else if let Some(tokenizer) = &tokenizer {
                println!("  tokens: {}", tokens(tokenizer, roles)?);
            }
        }
        if shown.is_empty() {
            anyhow::bail!("{}: no row", self.path.display());
        }
        Ok(())
    }

    /// The prompts of the first records, what is learned marked.
    fn prompts(&self, dir: &Path, kind: Kind) -> Result<Vec<String>> {
        // Bad rows were reported when the rows were read first.
        let bad = BadRows::silent().with_columns(self.read.map.columns()?);
        let records: Vec<RagRecord> = match kind {
            Kind::Choices => read_choices(&self.path, &bad)?
                .take(self.n)
                .map(|r| r.map(|choice| choice.record))
                .collect::<Result<_, _>>()?,
            _ => read_records(&self.path, None, &bad)?.take(self.n).collect::<Result<_, _>>()?,
        };
        let generator = Generator::load(dir, Device::Cpu, Compute::F32)
            .with_context(|| format!("cannot load the generator `{}`", dir.display()))?;
        let trained = trained_with(dir)?;
        let prompt: PromptConfig = match &self.prompt {
            Some(path) => ragduet_train::config::load(path, &[])?,
            None => trained.as_ref().map(|t| t.prompt.clone()).unwrap_or_default(),
        };
        let contexts = ContextConfig::retrieved(trained.map_or(5, |t| t.contexts));
        let preparer = Preparer::new(&generator, &prompt, contexts, usize::MAX, 0)?;
        records
            .iter()
            .map(|record| {
                let words = preparer.in_words(record, 2 * MOST)?;
                Ok(words.unwrap_or_else(|| "too long for the model: it is left out".into()))
            })
            .collect()
    }
}

/// The tokens of each role's value.
fn tokens(tokenizer: &Tokenizer, roles: &[(&'static str, String)]) -> Result<String> {
    let counted: Vec<String> = roles
        .iter()
        .map(|(role, value)| {
            let tokens = tokenizer.encode(value, &EncodeOptions::default())?.ids.len();
            Ok(format!("{} {tokens}", one_line(role, 20)))
        })
        .collect::<Result<_>>()?;
    Ok(counted.join(", "))
}
