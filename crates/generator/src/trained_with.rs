//! How a generator was prompted when it was trained: it answers best when it is asked the same way.

use crate::contexts::ContextConfig;
use crate::error::{Error, Result};
use crate::prepare::PromptConfig;
use crate::recipe::config::{DistilConfig, SftConfig, SftEvalConfig, TfewConfig};
use ragduet_torch::weights::write_atomic;
use ragduet_train::{RunDir, config};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The file of a generator's folder that holds them.
const FILE: &str = "ragduet_prompt.json";

/// The prompt settings of the run that trained a generator. They lie in its folder, whichever way that goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainedWith {
    /// How prompts were made.
    pub prompt: PromptConfig,
    /// Passages in a prompt.
    pub contexts: usize,
    /// T-Few: the power of a choice's length by which its log-likelihood is divided.
    #[serde(default)]
    pub length_norm: Option<f64>,
}

impl TrainedWith {
    /// By the file in the model's folder; else, for runs of earlier versions, by the config in its parent folder, where
    /// the model is `best` of a run. `None` for any other model, and for runs without passages in their prompts
    /// (preference optimization). A run's config that is none of a generator's is warned of.
    ///
    /// # Errors
    /// A file in the folder that cannot be read.
    pub fn find(generator: &Path) -> Result<Option<Self>> {
        if let Some(own) = Self::read(generator)? {
            return Ok(Some(own));
        }
        // `.` has a parent, too.
        let Some(run) = std::path::absolute(generator.canonicalize().unwrap_or_else(|_| generator.into()))?
            .parent()
            .map(Path::to_path_buf)
        else {
            return Ok(None);
        };
        let Ok(path) = RunDir::config_of(&run) else { return Ok(None) };
        if let Ok(c) = config::load::<TfewConfig>(&path, &[]) {
            return Ok(Some(Self::of_choices(&c)));
        }
        if let Ok(c) = config::load::<DistilConfig>(&path, &[]) {
            return Ok(Some(Self::of(&c.prompt, &c.contexts, &c.eval)));
        }
        match config::load::<SftConfig>(&path, &[]) {
            Ok(c) => Ok(Some(Self::of(&c.prompt, &c.contexts, &c.eval))),
            Err(why) => {
                tracing::warn!(
                    "{}: no prompt settings of a generator ({why}); the default prompt is used: give --prompt and --contexts \
                     if it was trained with another",
                    path.display()
                );
                Ok(None)
            }
        }
    }

    /// Those that lie in a model's folder.
    ///
    /// # Errors
    /// A file that is there and cannot be read.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let read = serde_json::from_slice(&fs_err::read(&path)?);
        read.map(Some).map_err(|e| Error::Unusable(format!("{}: {e}", path.display())))
    }

    /// Writes them into a model's folder.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let lasting = Self { prompt: self.prompt.lasting()?, ..self.clone() };
        let mut text =
            serde_json::to_vec_pretty(&lasting).map_err(|e| Error::Unusable(format!("{FILE}: {e}")))?;
        text.push(b'\n');
        Ok(write_atomic(&dir.join(FILE), &text)?)
    }

    /// Of supervised training.
    pub(crate) fn of(prompt: &PromptConfig, trained: &ContextConfig, eval: &SftEvalConfig) -> Self {
        let contexts = eval.contexts.unwrap_or(trained.count);
        Self { prompt: prompt.clone(), contexts, length_norm: None }
    }

    /// Of T-Few.
    pub(crate) fn of_choices(c: &TfewConfig) -> Self {
        Self { prompt: c.prompt.clone(), contexts: c.shown().count, length_norm: Some(c.loss.length_norm) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_go_where_the_folder_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (run, best) = (dir.path().join("run"), dir.path().join("run/best"));
        fs_err::create_dir_all(&best).unwrap();
        assert_eq!(TrainedWith::find(&best).unwrap(), None);
        fs_err::write(run.join("config.toml"), "junk = = 1").unwrap();
        assert_eq!(TrainedWith::find(&best).unwrap(), None);
        let prompt = PromptConfig { max_tokens: Some(77), fold_system: true, ..PromptConfig::default() };
        let all = TrainedWith { prompt, contexts: 1, length_norm: None };
        all.save(&best).unwrap();
        assert_eq!(TrainedWith::find(&best).unwrap(), Some(all.clone()));
        let moved = dir.path().join("moved");
        fs_err::rename(&best, &moved).unwrap();
        assert_eq!(TrainedWith::find(&moved).unwrap(), Some(all));
        fs_err::write(moved.join(FILE), "{}").unwrap();
        assert!(TrainedWith::find(&moved).unwrap_err().to_string().contains(FILE));
    }
}
