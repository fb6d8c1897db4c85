//! How the rankings of several systems become one, for the commands that search.

use super::Usage;
use anyhow::Result;
use ragduet_index::FusionConfig;
use ragduet_index::fusion::{RrfConfig, ScoresConfig};

/// How rankings are fused.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct FusionArgs {
    /// Fusion of the rankings of several indexes: rrf (reciprocal rank fusion; default), min_max or z_score.
    #[arg(long, value_parser = ["rrf", "min_max", "z_score"])]
    fusion: Option<String>,
    /// Weight of each index, in order (0.3,0.7); equal if not given.
    #[arg(long, value_delimiter = ',')]
    fusion_weights: Vec<f64>,
    #[arg(long, value_name = "K", help = "rrf: how little the first ranks stand out [default: 60]")]
    rrf_k: Option<f64>,
}

impl FusionArgs {
    /// The settings.
    pub fn config(&self) -> Result<FusionConfig> {
        let weights = self.fusion_weights.clone();
        if weights.iter().any(|w| !(*w >= 0.0 && w.is_finite())) {
            return Err(Usage("--fusion-weights are 0 or greater".into()).into());
        }
        Ok(match self.fusion.as_deref() {
            Some("min_max") => FusionConfig::MinMax(ScoresConfig { weights }),
            Some("z_score") => FusionConfig::ZScore(ScoresConfig { weights }),
            _ => FusionConfig::Rrf(RrfConfig { k: self.rrf_k.unwrap_or(RrfConfig::default().k), weights }),
        })
    }
}
