//! Writes the Maravel dataset, or checks that the committed files are what this program writes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ragduet_dataset_maravel::{SEED, build, check, files, tasks};

const USAGE: &str = "\
Usage: ragduet-dataset-maravel [--check | --tasks DIR] [--out DIR]

  --check    compare the files with what would be written, run all checks, write nothing
  --tasks DIR  write tasks with answers to choose from there, and nothing else
  --out DIR  the dataset's directory; by default the one above this crate

Example: cargo run --release -p ragduet-dataset-maravel -- --check";

fn main() -> ExitCode {
    let mut root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut only_check = false;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match (arg.as_str(), &mut args) {
            ("--check", _) => only_check = true,
            ("--tasks", args) => match args.next() {
                Some(dir) => return write_tasks(Path::new(&dir)),
                None => return usage(),
            },
            ("--out", args) => match args.next() {
                Some(dir) => root = PathBuf::from(dir),
                None => return usage(),
            },
            ("--help" | "-h", _) => {
                println!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            _ => return usage(),
        }
    }
    let data = build(SEED);
    let mut problems = check::problems(&data);
    if only_check {
        problems.extend(files::differences(&data, &root));
        let card = std::fs::read_to_string(root.join("README.md")).unwrap_or_default();
        problems.extend(check::card_problem(&data, &card));
    } else if let Err(error) = files::write(&data, &root) {
        problems.push(format!("{}: {error}", root.display()));
    }
    print!("{}", check::report(&data));
    for problem in problems.iter().take(40) {
        eprintln!("problem: {problem}");
    }
    if problems.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("{} problems", problems.len());
    ExitCode::FAILURE
}

fn write_tasks(dir: &Path) -> ExitCode {
    let written = std::fs::create_dir_all(dir).and_then(|()| {
        let files = tasks::render(&build(SEED));
        files.iter().try_for_each(|(name, content)| std::fs::write(dir.join(name), content))
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("problem: {}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
