//! `ragduet combine`: one adapter of several.

use crate::common::numbers::number;
use anyhow::{Context, Result};
use ragduet_generator::Generator;
use ragduet_nn::hub;
use ragduet_nn::peft::{Adapter, Combination, base_of, is_adapter_dir};
use ragduet_torch::weights::{check_finite, write_atomic};
use ragduet_torch::{Compute, Device};
use ragduet_train::checkpoint::new_dir;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Arguments of `combine`.
///
/// Reads LoRA adapters of generators (`best/` of runs with [peft.lora]) over the same base model and writes their
/// weighted sum as one adapter.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Adapter folders with weights, as FOLDER=WEIGHT; default weight 1.
    #[arg(required = true)]
    adapters: Vec<String>,
    /// Method: cat (exact sum; the ranks add up), svd (best approximation of one rank) or linear (sum of the factors).
    #[arg(long, value_enum, default_value = "cat")]
    how: How,
    /// Rank for svd; the highest of the inputs if not given.
    #[arg(long, value_parser = number::<i64>(1, 1 << 16))]
    rank: Option<i64>,
    /// Output folder.
    #[arg(short, long)]
    out: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum How {
    Linear,
    Cat,
    Svd,
}

impl Args {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        if self.rank.is_some() && self.how != How::Svd {
            anyhow::bail!("--rank is of --how svd");
        }
        let parts: Vec<(PathBuf, f64)> = self.adapters.iter().map(|a| part(a)).collect::<Result<_>>()?;
        for (dir, _) in &parts {
            if !is_adapter_dir(dir) {
                anyhow::bail!("{} holds no adapter of a generator", dir.display());
            }
        }
        let (first, others) = parts.split_first().context("no adapters")?;
        let (base, folder) = resolved(&first.0)?;
        for (dir, _) in others {
            let (other, other_folder) = resolved(dir)?;
            if other_folder != folder {
                anyhow::bail!("{} is over {other}, {} over {base}", dir.display(), first.0.display());
            }
        }
        let mut generator = Generator::load(&first.0, Device::Cpu, Compute::F32)
            .with_context(|| first.0.display().to_string())?;
        let place = generator.model.base(Device::Cpu)?;
        let loaded: Vec<Adapter> = others
            .iter()
            .map(|(dir, _)| Adapter::load(place, dir).with_context(|| dir.display().to_string()))
            .collect::<Result<_>>()?;
        let own = generator.adapter.as_ref().context("no adapter")?;
        let list: Vec<(&Adapter, f64)> =
            std::iter::once(own).chain(&loaded).zip(parts.iter().map(|(_, w)| *w)).collect();
        let how = match self.how {
            How::Linear => Combination::Linear,
            How::Cat => Combination::Cat,
            How::Svd => Combination::Svd(self.rank),
        };
        let whole = Adapter::combined(place, &list, how)?;
        let modules = whole.modules().len();
        generator.adapter = Some(whole);
        let listed: Vec<_> =
            parts.iter().map(|(d, w)| json!({"adapter": d.display().to_string(), "weight": w})).collect();
        let note = json!({"how": format!("{:?}", self.how).to_lowercase(), "of": listed});
        new_dir(&self.out, |out| -> Result<()> {
            generator.save(out)?;
            check_finite(out)?;
            Ok(write_atomic(&out.join("combined.json"), &serde_json::to_vec_pretty(&note)?)?)
        })?;
        println!("{}: {} adapters in one, over {modules} modules", self.out.display(), parts.len());
        Ok(())
    }
}

/// FOLDER or FOLDER=WEIGHT.
fn part(text: &str) -> Result<(PathBuf, f64)> {
    if Path::new(text).exists() {
        return Ok((text.into(), 1.0));
    }
    let Some((dir, weight)) = text.rsplit_once('=') else {
        anyhow::bail!("{text}: no such folder; give FOLDER=WEIGHT");
    };
    let weight: f64 = weight.parse().with_context(|| format!("`{weight}` in {text} is no number"))?;
    if !weight.is_finite() {
        anyhow::bail!("`{weight}` in {text} is no finite number");
    }
    Ok((dir.into(), weight))
}

/// The base that an adapter names, and its folder.
fn resolved(adapter: &Path) -> Result<(String, PathBuf)> {
    let base = base_of(adapter)?;
    let folder = hub::resolve(&base)?;
    let folder = folder.canonicalize().unwrap_or(folder);
    Ok((base, folder))
}
