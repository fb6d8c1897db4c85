//! `ragduet merge`: an adapter worked into its base.

use anyhow::{Context, Result};
use ragduet_classifier::Classifier;
use ragduet_generator::Generator;
use ragduet_joint::pipeline::trained_with;
use ragduet_retriever::st_dir::{self, Overrides};
use ragduet_torch::weights::check_finite;
use ragduet_torch::{Compute, Device};
use ragduet_train::checkpoint::new_dir;
use std::path::PathBuf;

/// Arguments of `merge`.
///
/// Reads an adapter folder (`best/` of a run with [peft]) and its base model, and writes a model folder with the
/// adapter merged into the weights. Works for LoRA, DoRA and (IA)^3; prompt and prefix tuning cannot be merged.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Adapter folder.
    adapter: PathBuf,
    /// Output folder.
    #[arg(short, long)]
    out: PathBuf,
}

impl Args {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        self.merged().with_context(|| format!("{}", self.adapter.display()))?;
        println!("{}: adapter and base in one", self.out.display());
        Ok(())
    }

    fn merged(&self) -> Result<()> {
        let no_adapter = || anyhow::anyhow!("holds no adapter");
        new_dir(&self.out, |out| -> Result<()> {
            if self.adapter.join("modules.json").is_file() {
                let mut model =
                    st_dir::load(&self.adapter, Device::Cpu, Compute::F32, &Overrides::default())?;
                if model.towers().all(|t| t.adapter.is_none()) {
                    return Err(no_adapter());
                }
                for tower in model.towers_mut() {
                    tower.merge()?;
                }
                st_dir::save(&model, out)?;
            } else if Classifier::is_adapter(&self.adapter) {
                let mut model = Classifier::load(&self.adapter, Device::Cpu, Compute::F32)?;
                model.merge()?;
                model.save(out)?;
            } else {
                let mut model = Generator::load(&self.adapter, Device::Cpu, Compute::F32)?;
                if model.adapter.is_none() {
                    return Err(no_adapter());
                }
                model.merge()?;
                model.save(out)?;
                if let Some(settings) = trained_with(&self.adapter)? {
                    settings.save(out)?;
                }
            }
            Ok(check_finite(out)?)
        })
    }
}
