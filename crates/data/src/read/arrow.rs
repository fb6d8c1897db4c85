//! Arrow IPC: streams and files (Feather 2), and the folders that `save_to_disk` of Hugging Face datasets writes.
//!
//! A data set is a folder with `state.json`, which names its `.arrow` files (streams); a dictionary of splits is a folder
//! with `dataset_dict.json`, which names the splits, a data set each in a folder of its own.

use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{ArrowError, SchemaRef};
use serde_json::Value;

use crate::source::shards;
use crate::{Error, Result};

/// Record batches of a file.
pub(crate) type Batches = Box<dyn Iterator<Item = std::result::Result<RecordBatch, ArrowError>> + Send>;

/// Extensions of Arrow files.
pub(crate) const EXTENSIONS: [&str; 3] = ["arrow", "feather", "ipc"];

const STATE: &str = "state.json";
const SPLITS: &str = "dataset_dict.json";

/// Opens a stream or a file; only the columns that are `known` are kept, and all where none is. Gives the names of all
/// columns too.
pub(crate) fn open(path: &Path, known: &dyn Fn(&str) -> bool) -> Result<(Batches, Vec<String>)> {
    let corrupt = |reason: String| Error::Corrupt { path: path.to_owned(), reason };
    let failed = |e: ArrowError| corrupt(format!("cannot be read as Arrow ({e})"));
    let mut file = fs_err::File::open(path)?.into_parts().0;
    let mut magic = [0u8; 6];
    let read = file.read(&mut magic)?;
    file.seek(SeekFrom::Start(0))?;
    if read == 0 {
        return Err(corrupt("the file is empty".into()));
    }
    match &magic {
        b"ARROW1" => {
            let schema = FileReader::try_new(&mut file, None).map_err(failed)?.schema();
            file.seek(SeekFrom::Start(0))?;
            let reader = FileReader::try_new(BufReader::new(file), wanted(&schema, known)).map_err(failed)?;
            Ok((Box::new(reader), names(&schema)))
        }
        // Feather 1 is a format of its own, which nothing has written for years.
        [b'F', b'E', b'A', b'1', ..] => {
            let reason =
                "Feather version 1 is not read; write it again as version 2 (pandas: to_feather)".into();
            Err(Error::Unsupported { path: path.to_owned(), reason })
        }
        _ => {
            let schema = StreamReader::try_new(&mut file, None).map_err(failed)?.schema();
            // The reader takes a file that was cut off between two batches for a whole one.
            let mut end = [0u8; 8];
            file.seek(SeekFrom::End(-8))?;
            file.read_exact(&mut end)?;
            if end != [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0] {
                return Err(corrupt("the stream ends without its end mark: the file is cut off".into()));
            }
            file.seek(SeekFrom::Start(0))?;
            let reader =
                StreamReader::try_new(BufReader::new(file), wanted(&schema, known)).map_err(failed)?;
            Ok((Box::new(reader), names(&schema)))
        }
    }
}

fn names(schema: &SchemaRef) -> Vec<String> {
    schema.fields().iter().map(|field| field.name().clone()).collect()
}

fn wanted(schema: &SchemaRef, known: &dyn Fn(&str) -> bool) -> Option<Vec<usize>> {
    let fields = schema.fields();
    let wanted: Vec<usize> = (0..fields.len()).filter(|&i| known(fields[i].name())).collect();
    // With no known column, all are read, so that an error can name them.
    (!wanted.is_empty() && wanted.len() < fields.len()).then_some(wanted)
}

/// Whether a folder is one that `save_to_disk` wrote.
pub(crate) fn is_saved(dir: &Path) -> bool {
    dir.join(SPLITS).is_file()
        || dir.join(STATE).is_file() && json(&dir.join(STATE)).is_ok_and(|s| files_in(&s).is_some())
}

/// The files of a folder that `save_to_disk` wrote; of a dictionary of splits those of `split`.
pub(crate) fn saved(dir: &Path, split: Option<&str>) -> Result<Vec<PathBuf>> {
    let dir = split_of(dir, split)?;
    let path = dir.join(STATE);
    let state = json(&path)?;
    let Some(names) = files_in(&state) else {
        let reason = "does not name the data files (`_data_files`)".into();
        return Err(Error::Corrupt { path, reason });
    };
    names
        .into_iter()
        .map(|name| {
            let file = dir.join(name);
            // The names are of files beside this one.
            match Path::new(name).components().count() == 1 && file.is_file() {
                true => Ok(file),
                false => Err(Error::Missing {
                    path: file,
                    remedy: format!("{} names it; save the data set again", path.display()),
                }),
            }
        })
        .collect()
}

/// The files of a path: of a saved dictionary those of the split, or of `train` where none is asked for; else the shards.
pub(crate) fn files(path: &Path, split: Option<&str>) -> Result<Vec<PathBuf>> {
    if path.is_dir() && is_saved(path) {
        // As in a collection, examples are those of `train` where nothing is said.
        let train = path.join("train").is_dir().then_some("train");
        return saved(path, split.or(train));
    }
    shards(path, &EXTENSIONS)
}

/// The folder of a split: of a dictionary of splits the one that is asked for, else the only one.
fn split_of(dir: &Path, split: Option<&str>) -> Result<PathBuf> {
    let path = dir.join(SPLITS);
    if !path.is_file() {
        return Ok(dir.to_owned());
    }
    let index = json(&path)?;
    let splits: Vec<&str> =
        index["splits"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    // What is called dev here is called validation there.
    let names: &[&str] = match split {
        Some("dev") => &["dev", "validation", "valid", "val"],
        Some("validation") => &["validation", "dev"],
        Some(other) => &[other],
        None if splits.len() == 1 => &splits[..1],
        None => &[],
    };
    match names.iter().find(|name| splits.contains(name)) {
        Some(name) => Ok(dir.join(name)),
        None => Err(Error::Unsupported {
            path: dir.to_owned(),
            reason: format!(
                "the data set has the splits {}; name one as a folder, such as {}",
                splits.join(", "),
                dir.join(splits.first().unwrap_or(&"train")).display()
            ),
        }),
    }
}

fn files_in(state: &Value) -> Option<Vec<&str>> {
    state["_data_files"].as_array()?.iter().map(|file| file["filename"].as_str()).collect()
}

fn json(path: &Path) -> Result<Value> {
    serde_json::from_slice(&fs_err::read(path)?)
        .map_err(|e| Error::Corrupt { path: path.to_owned(), reason: format!("is no JSON ({e})") })
}
