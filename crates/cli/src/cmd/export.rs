//! `ragduet export gguf`.

use crate::common;
use anyhow::{Context, Result};
use ragduet_generator::Generator;
use ragduet_gguf::TensorType;
use ragduet_nn::hub;
use ragduet_torch::{Compute, Device};
use std::path::PathBuf;

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Write a generator as a GGUF file, which llama.cpp and Ollama run: weights (adapters merged), tokenizer and chat
    /// template in one. Llama, Mistral, Qwen2, Qwen3 and Gemma 3.
    Gguf {
        /// Generator: a folder (of an adapter too), a GGUF file or a hub id.
        generator: String,
        /// Output file.
        #[arg(short, long)]
        out: PathBuf,
        /// Type of the matrices; vectors are always F32. q8_0 halves the file of f16.
        #[arg(long = "type", value_enum, default_value = "f16")]
        kind: Kind,
        /// Name of the model in the file; the output's name if not given.
        #[arg(long)]
        name: Option<String>,
    },
}

/// Types that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    F32,
    F16,
    Bf16,
    #[value(name = "q8_0")]
    Q8,
}

impl Kind {
    fn tensors(self) -> TensorType {
        match self {
            Self::F32 => TensorType::F32,
            Self::F16 => TensorType::F16,
            Self::Bf16 => TensorType::Bf16,
            Self::Q8 => TensorType::Q8_0,
        }
    }
}

impl Args {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        let What::Gguf { generator, out, kind, name } = self.what;
        let dir = hub::resolve(&generator)?;
        common::outputs::not_the_input(&dir, &out)?;
        if dir.join("modules.json").is_file() {
            anyhow::bail!("{generator}: a retriever; generators are written as GGUF");
        }
        let notes = (|| -> Result<Vec<String>> {
            let mut model = Generator::load(&dir, Device::Cpu, Compute::F32)?;
            model.merge()?;
            let stem = || out.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            Ok(model.save_gguf(&out, kind.tensors(), &name.unwrap_or_else(stem))?)
        })()
        .with_context(|| generator.clone())?;
        notes.iter().for_each(|note| tracing::warn!("{}: {note}", out.display()));
        let bytes = fs_err::metadata(&out).map_or(0, |m| m.len());
        println!("{}: {} MB, matrices in {}", out.display(), bytes / 1_000_000, kind.tensors());
        Ok(())
    }
}
