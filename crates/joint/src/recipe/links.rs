//! What a checkpoint of a joint run holds: both sides, the place in the data and in the turns, the index as it is, and
//! a refresh that has begun.

use super::sides::{GeneratorPart, RetrieverPart, SideState, parameters};
use super::turns::{Turn, Who};
use crate::diagnose::Collapse;
use crate::{Error, Result};
use ragduet_torch::Device;
use ragduet_train::{EarlyStopping, state};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where a run is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Steps done.
    pub step: u64,
    /// The current epoch, and batches of it that are done.
    pub epoch: u64,
    pub batch: usize,
    pub turn: Turn,
    pub retriever: SideState,
    pub generator: SideState,
    /// The best evaluation so far.
    pub best: EarlyStopping,
    /// The step whose weights the index was made with, and the last step that moved passages.
    pub index: u64,
    pub moved: u64,
    /// The step after which a refresh in the background began.
    pub pending: Option<u64>,
    /// Shares of stale passages of the last steps.
    pub stale: Vec<f64>,
    pub collapse: Collapse,
    /// Whether it was said that the generator ignores its contexts.
    pub ignoring: bool,
    /// The last scores on dev, and the step they were taken after.
    pub last: Option<(u64, super::DevScores)>,
}

impl Position {
    pub fn new(turn: Turn) -> Self {
        Self {
            step: 0,
            epoch: 0,
            batch: 0,
            turn,
            retriever: SideState::default(),
            generator: SideState::default(),
            best: EarlyStopping::default(),
            index: 0,
            moved: 0,
            pending: None,
            stale: Vec::new(),
            collapse: Collapse::default(),
            ignoring: false,
            last: None,
        }
    }

    pub fn side(&mut self, who: Who) -> &mut SideState {
        match who {
            Who::Retriever => &mut self.retriever,
            Who::Generator => &mut self.generator,
        }
    }
}

/// Folders of a run, and of its checkpoints.
pub(super) const INDEX: &str = "index";
pub(super) const SNAPSHOT: &str = "refresh";

/// The folder of a side's kept best state.
pub(super) fn best_of(run: &Path, who: Who) -> PathBuf {
    run.join("sides").join(format!("{who}.safetensors"))
}

/// Fills a checkpoint folder. The index and the weights of a refresh that has begun are linked, not copied.
pub(super) fn save(
    dir: &Path,
    run: &Path,
    retriever: &RetrieverPart,
    generator: &GeneratorPart,
    device: Device,
    at: &Position,
) -> Result<()> {
    for (who, learning) in [(Who::Retriever, &retriever.learning), (Who::Generator, &generator.learning)] {
        let Some(l) = learning else { continue };
        let to = dir.join(who.to_string());
        fs_err::create_dir_all(&to)?;
        state::save(&to, &parameters(who, retriever, generator), &l.optimizer, device, at)?;
    }
    for (name, there) in [(INDEX, true), (SNAPSHOT, at.pending.is_some())] {
        if there {
            link(&run.join(name), &dir.join(name))?;
        }
    }
    for who in [Who::Retriever, Who::Generator] {
        let kept = best_of(run, who);
        if kept.is_file() {
            link_file(&kept, &dir.join("sides").join(kept.file_name().unwrap_or_default()))?;
        }
    }
    Ok(())
}

/// Restores both sides, the generators last, and puts index, refresh and kept states back into the run folder.
pub(super) fn restore(
    dir: &Path,
    run: &Path,
    retriever: &mut RetrieverPart,
    generator: &mut GeneratorPart,
    device: Device,
) -> Result<Position> {
    let mut at = None;
    for who in [Who::Retriever, Who::Generator] {
        let all = parameters(who, retriever, generator);
        let learning = match who {
            Who::Retriever => &mut retriever.learning,
            Who::Generator => &mut generator.learning,
        };
        let Some(l) = learning else { continue };
        at = Some(state::restore(&dir.join(who.to_string()), &all, &mut l.optimizer, device)?);
    }
    let at: Position = at.ok_or_else(|| Error::Unusable("a checkpoint without a side that learns".into()))?;
    for name in [INDEX, SNAPSHOT, "sides"] {
        let (from, to) = (dir.join(name), run.join(name));
        if to.exists() {
            fs_err::remove_dir_all(&to)?;
        }
        if from.exists() {
            link(&from, &to)?;
        }
    }
    Ok(at)
}

/// A folder whose files are those of another: nothing in either is ever written to again, only replaced.
fn link(from: &Path, to: &Path) -> Result<()> {
    fs_err::create_dir_all(to)?;
    for entry in fs_err::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            link(&path, &target)?;
        } else {
            link_file(&path, &target)?;
        }
    }
    Ok(())
}

fn link_file(from: &Path, to: &Path) -> Result<()> {
    if let Some(dir) = to.parent() {
        fs_err::create_dir_all(dir)?;
    }
    if fs_err::hard_link(from, to).is_err() {
        // Another filesystem, or one without links.
        fs_err::copy(from, to)?;
    }
    Ok(())
}
