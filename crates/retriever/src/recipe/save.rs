//! `best/`: the folder of the model that did best, as the ecosystem reads it.

use crate::Result;
use crate::biencoder::BiEncoder;
use crate::st_dir;
use crate::tower::Tower;
use std::path::Path;

/// Fills the folder and checks that the files give the model's embeddings again.
pub(super) fn save(model: &BiEncoder, dir: &Path) -> Result<()> {
    let texts =
        ["what is it?", "A longer passage, with a comma, 12 numbers and some unusual words: zyxomma."];
    st_dir::save(model, dir)?;
    st_dir::verify(model, dir, &texts.map(String::from))
}

/// "n of m parameters train", with the model's place and precision.
pub(super) fn parameters_line(model: &BiEncoder) -> String {
    let resting: u64 = model.towers().map(Tower::resting).sum();
    let (all, training) = model.parameters().iter().fold((resting, 0), |(a, t), (_, p)| {
        let n = p.numel() as u64;
        (a + n, t + if p.requires_grad() { n } else { 0 })
    });
    let share = 100.0 * training as f64 / all.max(1) as f64;
    format!("{training} of {all} parameters train ({share:.1} %); {} on {:?}", model.compute, model.device)
}
