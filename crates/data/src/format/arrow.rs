//! Arrow IPC with the columns of JSON Lines: streams, Feather files, folders of `save_to_disk`.

use std::path::PathBuf;

use super::spec::{Reading, Spec};
use crate::Result;
use crate::pairs;
use crate::read::arrow::{EXTENSIONS, is_saved, saved};
use crate::read::corpora;
use crate::source::shards;
use crate::stream::Passages;

pub(crate) const ARROW: Spec = Spec {
    name: "arrow",
    aliases: &["feather"],
    files: &EXTENSIONS,
    folder: Some(is_saved),
    shards: Some("arrow"),
    examples: Some(|from| pairs::examples_in(files(from)?, from)),
    corpus: Some(corpus),
    ..Spec::NONE
};

fn files(from: &Reading<'_>) -> Result<Vec<PathBuf>> {
    if from.path.is_dir() && is_saved(from.path) {
        return saved(from.path, from.split.or(default_split(from)));
    }
    shards(from.path, &EXTENSIONS)
}

/// Examples are those of `train` where nothing is said, as in a collection.
fn default_split(from: &Reading<'_>) -> Option<&'static str> {
    from.path.join("train").is_dir().then_some("train")
}

fn corpus(from: &Reading<'_>) -> Result<Passages> {
    Ok(corpora::objects(files(from)?, from.bad))
}
