//! What an index is built of: a corpus that a model encodes, or the folder of an `encode`. Vectors stay in a file.

use crate::common::npy::NpyReader;
use crate::common::{self, ModelArgs, ReadArgs, counter};
use anyhow::{Context, Result};
use ragduet_data::read_corpus;
use ragduet_index::{IdMap, Similarity, SparseVectors, VectorFile, VectorSpool};
use ragduet_retriever::{BiEncoder, IndexSource, Representation, Side, encode_rows, encode_sparse};
use ragduet_train::checkpoint::check;
use serde::Deserialize;
use std::io::BufRead;
use std::path::Path;

/// What an index is built of.
pub(super) struct Embedded {
    pub(super) texts: Texts,
    pub(super) ids: IdMap,
    pub(super) similarity: Similarity,
    pub(super) source: IndexSource,
}

/// Texts as vectors, which stay in a file, or as weights of words, which are held.
pub(super) enum Texts {
    Dense(VectorFile),
    /// With the vectors of each passage.
    LateInteraction(VectorFile, Vec<u32>),
    Sparse(SparseVectors),
}

/// Encodes a corpus; its vectors go to a file in `folder`.
pub(super) fn of_corpus(
    corpus: &Path,
    read: &ReadArgs,
    on: &ModelArgs,
    model: &BiEncoder,
    folder: &Path,
    quiet: bool,
) -> Result<Embedded> {
    let bad = read.bad_rows()?;
    let (texts, names) = common::texts_and_ids(read_corpus(corpus, &read.options(), &bad)?);
    let bar = counter("encoding", None, quiet);
    let progress = &mut |n, _| bar.set_position(n);
    let settings = on.encode_settings();
    let mut ids = IdMap::new();
    let texts = match model.representation() {
        Representation::Sparse(_) => {
            let weights = encode_sparse(model, Side::Passage, texts, &settings, progress)?;
            names.try_iter().try_for_each(|id| ids.push(&id).map(drop))?;
            Texts::Sparse(weights)
        }
        representation => {
            let late = matches!(representation, Representation::LateInteraction(_));
            let mut spool = VectorSpool::create(folder, model.dim() as usize)?;
            let mut lengths = Vec::new();
            encode_rows(model, Side::Passage, texts, &settings, progress, |rows, counts| {
                spool.push(rows)?;
                names.try_iter().take(counts.len()).try_for_each(|id| ids.push(&id).map(drop))?;
                if late {
                    lengths.extend(counts.iter().map(|&n| n as u32));
                }
                Ok(())
            })?;
            let vectors = spool.finish()?;
            if late { Texts::LateInteraction(vectors, lengths) } else { Texts::Dense(vectors) }
        }
    };
    bar.finish_and_clear();
    common::report_bad_rows(&bad)?;
    let source = IndexSource::new(Some(&on.model), Some(corpus));
    Ok(Embedded { texts, ids, similarity: model.similarity().into(), source })
}

/// What `encode` wrote.
pub(super) fn of_folder(dir: &Path) -> Result<Embedded> {
    if dir.join("manifest.json").is_file() {
        check(dir)?;
    }
    if dir.join("vectors.jsonl").is_file() {
        anyhow::bail!(
            "{}: holds a sparse model's weights of words, for Pyserini and Anserini; build an index with --corpus and \
                 --model",
            dir.display()
        );
    }
    let npy = NpyReader::open(&dir.join("embeddings.npy"))?;
    let total = npy.rows;
    let vectors = npy.vectors()?;
    let mut ids = IdMap::new();
    lines_of(&dir.join("ids.jsonl"), |line| {
        ids.push(&serde_json::from_str::<String>(line)?)?;
        Ok(())
    })?;
    let path = dir.join("counts.jsonl");
    let mut lengths = path.is_file().then(Vec::new);
    if let Some(lengths) = &mut lengths {
        lines_of(&path, |line| {
            lengths.push(line.parse::<u32>()?);
            Ok(())
        })?;
    }
    let whole = match &lengths {
        None => ids.len() == total,
        Some(n) => n.len() == ids.len() && n.iter().map(|&n| n as usize).sum::<usize>() == total,
    };
    if !whole {
        anyhow::bail!("{}: {} ids for {total} rows; encode again", dir.display(), ids.len());
    }
    #[derive(Deserialize)]
    struct Meta {
        model: String,
        #[serde(default)]
        weights: Option<String>,
        similarity: Similarity,
    }
    let meta: Meta = serde_json::from_slice(&fs_err::read(dir.join("meta.json"))?)
        .with_context(|| format!("{}", dir.join("meta.json").display()))?;
    let source = IndexSource { model: Some(meta.model), weights: meta.weights, ..IndexSource::default() };
    let texts = match lengths {
        None => Texts::Dense(vectors),
        Some(lengths) => Texts::LateInteraction(vectors, lengths),
    };
    Ok(Embedded { texts, ids, similarity: meta.similarity, source })
}

/// Reads a file line by line; an error names the line.
fn lines_of(path: &Path, mut take: impl FnMut(&str) -> Result<()>) -> Result<()> {
    for (i, line) in std::io::BufReader::new(fs_err::File::open(path)?).lines().enumerate() {
        take(&line?).with_context(|| format!("{}:{}", path.display(), i + 1))?;
    }
    Ok(())
}
