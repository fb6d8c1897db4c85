//! The committed files are what the generator writes, and they are sound.

use std::path::Path;

use ragduet_dataset_maravel::{SEED, build, check, files};

#[test]
fn committed_files_are_current_and_sound() {
    let data = build(SEED);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    assert_eq!(check::problems(&data), Vec::<String>::new());
    assert_eq!(files::differences(&data, &root), Vec::<String>::new());
    let card = std::fs::read_to_string(root.join("README.md")).expect("the card is readable");
    assert_eq!(check::card_problem(&data, &card), None);
}
