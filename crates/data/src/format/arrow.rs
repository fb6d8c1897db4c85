//! Arrow IPC with the columns of JSON Lines: streams, Feather files, folders of `save_to_disk`.

use super::spec::{Reading, Spec};
use crate::Result;
use crate::read::arrow::{EXTENSIONS, files, is_saved};
use crate::read::named;
use crate::read::rows::Holder;
use crate::stream::Passages;

pub(crate) const ARROW: Spec = Spec {
    name: "arrow",
    aliases: &["feather"],
    files: &EXTENSIONS,
    folder: Some(is_saved),
    shards: Some("arrow"),
    examples: Some(|from| named::examples(from, files(from.path, from.split)?, Holder::Parquet)),
    corpus: Some(corpus),
    ..Spec::NONE
};

fn corpus(from: &Reading<'_>) -> Result<Passages> {
    named::corpus(from, files(from.path, from.split)?, Holder::Parquet)
}
