//! `ragduet convert`: a GGUF file as a Hugging Face folder.

use anyhow::{Context, Result};
use ragduet_generator::Generator;
use ragduet_gguf::is_gguf;
use ragduet_torch::weights::check_finite;
use ragduet_torch::{Compute, Device};
use ragduet_train::checkpoint::new_dir;
use std::path::PathBuf;

/// Arguments of `convert`.
///
/// Reads a GGUF file (llama.cpp, Ollama) of the Llama, Qwen2, Qwen3 or Gemma 3 family and writes the Hugging Face folder
/// that it stands for: config, weights in f32, tokenizer, chat template. A GGUF file can also be given as it is wherever a
/// generator or a base model is named; peft and transformers need the folder.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// GGUF file.
    file: PathBuf,
    /// Output folder.
    #[arg(short, long)]
    out: PathBuf,
}

impl Args {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        if !is_gguf(&self.file) {
            let hint = "data sets are converted by `ragduet data convert`, models are written as GGUF by `ragduet export gguf`";
            match self.file.exists() {
                true => anyhow::bail!("{}: not a GGUF file; {hint}", self.file.display()),
                false => anyhow::bail!("{}: there is no such file; {hint}", self.file.display()),
            }
        }
        let model = Generator::load(&self.file, Device::Cpu, Compute::F32)
            .with_context(|| self.file.display().to_string())?;
        new_dir(&self.out, |out| -> Result<()> {
            model.save(out)?;
            check_finite(out).with_context(|| self.file.display().to_string())
        })?;
        let parameters: i64 = model.model.params.whole()?.iter().map(|(_, t)| t.numel() as i64).sum();
        println!(
            "{}: {parameters} parameters in f32, {} tokens",
            self.out.display(),
            model.tokenizer.vocab_size()
        );
        Ok(())
    }
}
