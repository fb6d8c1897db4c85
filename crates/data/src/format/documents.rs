//! A folder of documents as a corpus: each `.txt` and `.md` file is a passage, in subfolders too.
//!
//! The id is the path below the folder, the title the first heading of a Markdown file, else the name of the file. A
//! heading on the first line is the title only: title and text are encoded together.

use std::path::{Path, PathBuf};

use super::spec::{Reading, Spec};
use crate::bad_rows::{BadRow, Problem};
use crate::patterns::expand;
use crate::source::{Fallible, inner_extension};
use crate::stream::Passages;
use crate::{BadRows, Error, Passage, Result};

pub(crate) const DOCUMENTS: Spec = Spec {
    name: "documents",
    files: &["md", "markdown"],
    folder: Some(holds_documents),
    corpus: Some(corpus),
    ..Spec::NONE
};

const EXTENSIONS: [&str; 3] = ["txt", "md", "markdown"];
/// The most bytes of a document.
const MOST_BYTES: u64 = 1 << 28;

/// Whether a folder has documents, and no file of rows.
fn holds_documents(dir: &Path) -> bool {
    let Ok((documents, others)) = walk(dir) else { return false };
    let rows = |path: &PathBuf| {
        let rows = ["jsonl", "ndjson", "json", "parquet", "arrow", "feather", "tsv", "csv"];
        path.parent() == Some(dir) && rows.contains(&inner_extension(path).as_str())
    };
    !documents.is_empty() && !others.iter().any(rows)
}

fn corpus(from: &Reading<'_>) -> Result<Passages> {
    let mut files = Vec::new();
    for path in expand(from.path)? {
        if !path.is_dir() {
            let root = path.parent().unwrap_or(Path::new("")).to_owned();
            files.push((root, path));
            continue;
        }
        let (documents, others) = walk(&path)?;
        from.bad.note(|report| report.other_files += others.len() as u64);
        if documents.is_empty() {
            let remedy = "the folder has no .txt or .md file".into();
            return Err(Error::Missing { path, remedy });
        }
        files.extend(documents.into_iter().map(|file| (path.clone(), file)));
    }
    let (bad, mut files) = (from.bad.clone(), files.into_iter());
    let mut seen = std::collections::HashSet::new();
    Ok(Box::new(Fallible::new(move || {
        loop {
            let Some((root, path)) = files.next() else { return Ok(None) };
            if let Some(passage) = document(&root, &path, &bad)? {
                // Two folders of a pattern may hold files of one name.
                match seen.insert(passage.id.clone()) {
                    true => {
                        bad.good();
                        return Ok(Some(passage));
                    }
                    false => {
                        let detail =
                            format!("the id {:?} was used before: name the folder above both", passage.id);
                        reject(&path, Problem::DuplicateId, detail, &bad)?;
                    }
                }
            }
        }
    })))
}

fn reject(path: &Path, problem: Problem, detail: String, bad: &BadRows) -> Result<()> {
    bad.bad(BadRow { path: path.to_owned(), line: 1, problem, detail, row: String::new() })
}

/// A file as a passage; `None` where it was set aside.
fn document(root: &Path, path: &Path, bad: &BadRows) -> Result<Option<Passage>> {
    let size = fs_err::metadata(path)?.len();
    if size > MOST_BYTES {
        let reason = format!("a document of {} MiB: split it into files", size >> 20);
        return Err(Error::Unsupported { path: path.to_owned(), reason });
    }
    let text = match String::from_utf8(fs_err::read(path)?) {
        Ok(text) => text,
        Err(e) => {
            let detail = format!("byte {} of the file", e.utf8_error().valid_up_to() + 1);
            return reject(path, Problem::InvalidUtf8, detail, bad).map(|()| None);
        }
    };
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() {
        return reject(path, Problem::EmptyText, "the document is empty".into(), bad).map(|()| None);
    }
    let id = path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/");
    let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let markdown = inner_extension(path) != "txt";
    let found = markdown.then(|| first_heading(text)).flatten();
    let (title, rest) = match found {
        // What is nothing but its heading keeps it.
        Some((title, rest)) => (Some(title), rest.filter(|rest| !rest.is_empty())),
        None => (name, None),
    };
    let text = rest.unwrap_or_else(|| text.to_owned());
    Ok(Some(Passage { id, title: title.filter(|t| !t.trim().is_empty()), text }))
}

/// The first heading of a Markdown text, and where it begins the text, what follows it. Lines of code are no headings.
fn first_heading(text: &str) -> Option<(String, Option<String>)> {
    let (mut code, mut at) = (false, 0);
    let mut before: Option<&str> = None;
    for line in text.split_inclusive('\n') {
        let (start, bare) = (at, line.trim_end());
        at += line.len();
        if bare.trim_start().starts_with("```") || bare.trim_start().starts_with("~~~") {
            code = !code;
        }
        if code {
            before = None;
            continue;
        }
        let hashes = bare.len() - bare.trim_start_matches('#').len();
        let rest = text[at..].trim().to_owned();
        if (1..=6).contains(&hashes) && bare[hashes..].starts_with([' ', '\t']) {
            let title = bare[hashes..].trim().trim_end_matches('#').trim();
            if !title.is_empty() {
                return Some((title.to_owned(), (start == 0).then_some(rest)));
            }
        }
        // A heading that is underlined.
        if let Some(above) = before.filter(|above| !above.trim().is_empty()) {
            let underline = |c: char| bare.len() > 1 && bare.chars().all(|each| each == c);
            if underline('=') {
                let first = text.starts_with(above) && start == above.len();
                return Some((above.trim().to_owned(), first.then_some(rest)));
            }
        }
        before = Some(line);
    }
    None
}

/// The documents below a folder, sorted, and what else is there. Hidden names are passed over, and links to folders.
fn walk(dir: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut documents, mut others, mut folders) = (Vec::new(), Vec::new(), vec![dir.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder)? {
            let path = entry?.path();
            let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
            match (hidden, path.is_dir()) {
                (true, _) => {}
                (false, true) if !path.is_symlink() => folders.push(path),
                (false, true) => {}
                (false, false)
                    if EXTENSIONS
                        .contains(&crate::source::extension(&path).to_ascii_lowercase().as_str()) =>
                {
                    documents.push(path);
                }
                (false, false) => others.push(path),
            }
        }
    }
    documents.sort();
    Ok((documents, others))
}

#[cfg(test)]
mod tests {
    use crate::{BadRows, Format, Passage, ReadOptions, read_corpus};

    #[test]
    fn a_document_is_a_passage() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        };
        put("b.txt", "\u{feff}# no heading\ntext\n");
        put("in/deep/a.md", "\n# The  sea #\n\nIt is salty.\n\n## Depth\nDeep.\n");
        put("c.md", "Before.\n```\n# code\n```\n## Later\nx");
        put("d.md", "Tides\n=====\nThe moon.\n");
        put("e.md", "# Alone");
        put("f.md", "plain");
        put("notes.pdf", "%PDF");
        put(".hidden.md", "secret");
        assert_eq!(Format::detect(dir.path()).unwrap(), Format::Documents);
        let bad = BadRows::default();
        let read = read_corpus(dir.path(), &ReadOptions::default(), &bad).unwrap();
        let read: Vec<Passage> = read.map(Result::unwrap).collect();
        let flat: Vec<_> =
            read.iter().map(|p| (p.id.as_str(), p.title.as_deref().unwrap_or(""), p.text.as_str())).collect();
        assert_eq!(
            flat,
            [
                ("b.txt", "b", "# no heading\ntext"),
                ("c.md", "Later", "Before.\n```\n# code\n```\n## Later\nx"),
                ("d.md", "Tides", "The moon."),
                ("e.md", "Alone", "# Alone"),
                ("f.md", "f", "plain"),
                ("in/deep/a.md", "The  sea", "It is salty.\n\n## Depth\nDeep."),
            ]
        );
        assert!(
            bad.report().to_string().contains("6 rows read, 1 files that are no documents"),
            "{}",
            bad.report()
        );
        // One file alone is a corpus too.
        let one = read_corpus(dir.path().join("c.md"), &ReadOptions::default(), &bad).unwrap();
        assert_eq!(one.map(|p| p.unwrap().id).collect::<Vec<_>>(), ["c.md"]);
        put("empty.txt", " \n");
        let e =
            read_corpus(dir.path(), &ReadOptions::default(), &bad).unwrap().find_map(Result::err).unwrap();
        assert!(e.to_string().contains("empty.txt:1: empty text"), "{e}");
        // Beside rows, it is no folder of documents.
        put("x.jsonl", "{\"text\": \"t\"}");
        assert_eq!(Format::detect(dir.path()).unwrap(), Format::Jsonl);
    }
}
