//! Named tensors in safetensors files: memory-mapped reading (one file, or shards with an index), atomic writing.

use crate::{Device, Error, Kind, Result, Tensor};
use fs_err as fs;
use memmap2::Mmap;
use safetensors::Dtype;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    map: Mmap,
}

/// Makes a tensor that lies in a file of another kind, when it is asked for.
pub type Maker = Box<dyn Fn() -> Result<Tensor> + Send + Sync>;

/// Where a tensor comes from.
enum Source {
    /// Bytes of a shard.
    Stored { shard: usize, dtype: Dtype, start: usize, end: usize },
    /// Another kind of file.
    Made(Maker),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored { shard, dtype, start, end } => {
                write!(f, "{dtype:?} at {start}..{end} of shard {shard}")
            }
            Self::Made(_) => f.write_str("made when asked for"),
        }
    }
}

#[derive(Debug)]
struct Entry {
    source: Source,
    shape: Vec<i64>,
    /// Rows that are asked for beyond those of the file.
    more: i64,
}

/// The tensors of a checkpoint, read when asked for.
#[derive(Debug)]
pub struct Weights {
    shards: Vec<Shard>,
    entries: BTreeMap<String, Entry>,
    metadata: HashMap<String, String>,
}

/// Whether a path that a model's folder names leads to something in it.
pub fn is_inside(path: &str) -> bool {
    use std::path::Component::{CurDir, Normal};
    Path::new(path).components().all(|c| matches!(c, Normal(_) | CurDir))
}

/// The usual file name.
pub const MODEL_FILE: &str = "model.safetensors";
/// The index of a sharded checkpoint.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

impl Weights {
    /// `model.safetensors` of a directory, or its shards as `model.safetensors.index.json` lists them.
    pub fn open_dir(dir: &Path) -> Result<Self> {
        let single = dir.join(MODEL_FILE);
        if single.is_file() {
            return Self::open_file(&single);
        }
        let index = dir.join(INDEX_FILE);
        if !index.is_file() {
            let pickled = ["pytorch_model.bin", "pytorch_model.bin.index.json"];
            let hint = if pickled.iter().any(|f| dir.join(f).exists()) {
                "; pytorch_model.bin is a pickle, which is not read for safety: save the model again with \
                 `save_pretrained(..., safe_serialization=True)`, or take a revision of it that has safetensors"
            } else {
                ""
            };
            return Err(Error::NoWeights { path: dir.into(), hint: hint.into() });
        }
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let text = fs::read(&index)?;
        let parsed: Index =
            serde_json::from_slice(&text).map_err(|source| Error::Json { path: index.clone(), source })?;
        let mut files: Vec<&String> = parsed.weight_map.values().collect();
        files.sort();
        files.dedup();
        let mut all = Self { shards: Vec::new(), entries: BTreeMap::new(), metadata: HashMap::new() };
        for file in files {
            if !is_inside(file) {
                let reason = format!("it names `{file}`, which is not in the folder");
                return Err(Error::Corrupt { path: index, reason, bytes: text.len() as u64 });
            }
            all.add(&dir.join(file))?;
        }
        for name in parsed.weight_map.keys() {
            if !all.entries.contains_key(name) {
                return Err(Error::Corrupt {
                    path: index,
                    reason: format!("tensor `{name}` is listed but in no shard"),
                    bytes: text.len() as u64,
                });
            }
        }
        Ok(all)
    }

    /// Tensors that another kind of file holds: name, shape, and how each is made (in any floating-point dtype, on the CPU).
    pub fn made(tensors: impl IntoIterator<Item = (String, Vec<i64>, Maker)>) -> Self {
        let entry = |(name, shape, make)| (name, Entry { source: Source::Made(make), shape, more: 0 });
        let entries = tensors.into_iter().map(entry).collect();
        Self { shards: Vec::new(), entries, metadata: HashMap::new() }
    }

    /// One safetensors file.
    pub fn open_file(path: &Path) -> Result<Self> {
        let mut all = Self { shards: Vec::new(), entries: BTreeMap::new(), metadata: HashMap::new() };
        all.add(path)?;
        Ok(all)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let file = fs::File::open(path)?;
        // SAFETY: the file is mapped read-only; like every mmap reader this assumes that nobody truncates it while
        // it is open. Model files are written to a temporary name and renamed, so a replaced file keeps its inode.
        let map = unsafe { Mmap::map(file.file()) }?;
        let corrupt = |reason: String| Error::Corrupt { path: path.into(), reason, bytes: map.len() as u64 };
        let (header, meta) =
            safetensors::SafeTensors::read_metadata(&map).map_err(|e| corrupt(e.to_string()))?;
        let data = header + 8;
        for (name, info) in meta.tensors() {
            let (start, end) = info.data_offsets;
            if data + end > map.len() {
                return Err(corrupt(format!("tensor `{name}` ends behind the end of the file")));
            }
            let shape = info.shape.iter().map(|&d| d as i64).collect();
            let (shard, dtype) = (self.shards.len(), info.dtype);
            let source = Source::Stored { shard, dtype, start: data + start, end: data + end };
            self.entries.insert(name, Entry { source, shape, more: 0 });
        }
        self.metadata.extend(meta.metadata().clone().unwrap_or_default());
        self.shards.push(Shard { path: path.into(), map });
        Ok(())
    }

    /// Renames tensors (a prefix stripped, a legacy name mapped). `None` keeps the name.
    #[must_use]
    pub fn renamed(mut self, rule: impl Fn(&str) -> Option<String>) -> Self {
        self.entries = self.entries.into_iter().map(|(n, e)| (rule(&n).unwrap_or(n), e)).collect();
        self
    }

    /// Only the tensors whose names pass.
    #[must_use]
    pub fn only(mut self, keep: impl Fn(&str) -> bool) -> Self {
        self.entries.retain(|name, _| keep(name));
        self
    }

    /// Cuts a tensor to its first `rows`, where it has more.
    #[must_use]
    pub fn with_first_rows(mut self, name: &str, rows: i64) -> Self {
        if let Some(e) = self.entries.get_mut(name)
            && let Some(&all) = e.shape.first().filter(|&&all| (0..all).contains(&rows))
        {
            if let Source::Stored { start, end, .. } = &mut e.source {
                *end = *start + (*end - *start) / all as usize * rows as usize;
            }
            e.shape[0] = rows;
        }
        self
    }

    /// Gives a matrix at least so many rows; new ones are the mean of those in the file (a token that is added to a
    /// vocabulary begins as an average one, as in transformers).
    #[must_use]
    pub fn with_at_least_rows(mut self, name: &str, rows: i64) -> Self {
        if let Some(e) = self.entries.get_mut(name) {
            e.more = (rows - e.shape.first().copied().unwrap_or(rows)).max(0);
        }
        self
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// A tensor's shape.
    pub fn shape(&self, name: &str) -> Option<Vec<i64>> {
        self.entries.get(name).map(|e| {
            let mut shape = e.shape.clone();
            if let Some(rows) = shape.first_mut() {
                *rows += e.more;
            }
            shape
        })
    }

    /// The file's own metadata.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// A floating-point tensor as f32 on `device`.
    pub fn load(&self, name: &str, device: Device) -> Result<Tensor> {
        let (t, entry) = self.raw(name)?;
        if let Source::Stored { shard, dtype, .. } = &entry.source
            && !t.is_floating_point()
        {
            return Err(Error::Dtype {
                path: self.shards[*shard].path.clone(),
                name: name.into(),
                dtype: format!("{dtype:?}"),
            });
        }
        let mut t = t.f_to_kind(Kind::Float)?;
        if entry.more > 0 {
            let mut size = t.size();
            size[0] = entry.more;
            let new = t.f_mean_dim([0i64].as_slice(), true, Kind::Float)?.f_expand(size, false)?;
            t = Tensor::f_cat(&[t, new], 0)?;
        }
        Ok(t.f_to_device(device)?)
    }

    /// A tensor in the dtype of the file, on the CPU.
    pub fn load_as_is(&self, name: &str) -> Result<Tensor> {
        Ok(self.raw(name)?.0)
    }

    fn raw(&self, name: &str) -> Result<(Tensor, &Entry)> {
        let Some(entry) = self.entries.get(name) else {
            let path = self.shards.first().map(|s| s.path.clone()).unwrap_or_default();
            return Err(Error::Corrupt { path, reason: format!("no tensor `{name}`"), bytes: 0 });
        };
        let (shard, dtype, bytes) = match &entry.source {
            Source::Stored { shard, dtype, start, end } => (&self.shards[*shard], *dtype, *start..*end),
            Source::Made(make) => {
                let t = make()?;
                let rows = entry.shape.first().copied().filter(|&rows| t.size().first() != Some(&rows));
                return Ok((rows.map_or(t.shallow_clone(), |rows| t.narrow(0, 0, rows)), entry));
            }
        };
        let kind = match dtype {
            Dtype::F32 => Kind::Float,
            Dtype::F64 => Kind::Double,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::I64 => Kind::Int64,
            Dtype::I32 => Kind::Int,
            Dtype::I16 => Kind::Int16,
            Dtype::I8 => Kind::Int8,
            Dtype::U8 => Kind::Uint8,
            Dtype::BOOL => Kind::Bool,
            other => {
                return Err(Error::Dtype {
                    path: shard.path.clone(),
                    name: name.into(),
                    dtype: format!("{other:?}"),
                });
            }
        };
        let bytes = &shard.map[bytes];
        Ok((Tensor::f_from_data_size(bytes, &entry.shape, kind)?, entry))
    }
}

struct Raw {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: usize,
    tensor: Tensor,
}

impl safetensors::View for &Raw {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        let mut out = vec![0u8; self.bytes];
        self.tensor.copy_data_u8(&mut out, self.tensor.numel());
        out.into()
    }
    fn data_len(&self) -> usize {
        self.bytes
    }
}

fn raw(t: &Tensor) -> Result<Raw> {
    let tensor = t.detach().to_device(Device::Cpu).contiguous();
    let (dtype, size) = match tensor.kind() {
        Kind::Float => (Dtype::F32, 4),
        Kind::Double => (Dtype::F64, 8),
        Kind::Half => (Dtype::F16, 2),
        Kind::BFloat16 => (Dtype::BF16, 2),
        Kind::Int64 => (Dtype::I64, 8),
        Kind::Int => (Dtype::I32, 4),
        Kind::Uint8 => (Dtype::U8, 1),
        Kind::Bool => (Dtype::BOOL, 1),
        other => return Err(Error::Torch(format!("tensors of kind {other:?} are not written"))),
    };
    let shape = tensor.size().iter().map(|&d| d as usize).collect();
    Ok(Raw { dtype, shape, bytes: tensor.numel() * size, tensor })
}

/// Writes a safetensors file: to a temporary name, synced, renamed. The file holds `{"format":"pt"}` (older
/// transformers need it) and `metadata`.
pub fn save_tensors(path: &Path, tensors: &[(String, Tensor)], metadata: &[(&str, &str)]) -> Result<()> {
    let views: Vec<(String, Raw)> =
        tensors.iter().map(|(n, t)| Ok((n.clone(), raw(t)?))).collect::<Result<_>>()?;
    let mut meta: HashMap<String, String> = HashMap::from([("format".into(), "pt".into())]);
    meta.extend(metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())));
    let bytes = safetensors::serialize(views.iter().map(|(n, v)| (n.as_str(), v)), Some(meta))
        .map_err(|e| Error::Torch(format!("{}: {e}", path.display())))?;
    write_atomic(path, &bytes)
}

/// Writes a model's parameters as `model.safetensors`, or as shards of at most `max_shard_bytes` with an index.
pub fn save_model(dir: &Path, params: &[(String, Tensor)], max_shard_bytes: u64) -> Result<()> {
    let bytes = |t: &Tensor| t.numel() as u64 * 4;
    let mut shards: Vec<Vec<(String, Tensor)>> = vec![Vec::new()];
    let mut held = 0;
    for (name, t) in params {
        if held + bytes(t) > max_shard_bytes && held > 0 {
            shards.push(Vec::new());
            held = 0;
        }
        held += bytes(t);
        let last = shards.len() - 1;
        shards[last].push((name.clone(), t.shallow_clone()));
    }
    if shards.len() == 1 {
        return save_tensors(&dir.join(MODEL_FILE), &shards[0], &[]);
    }
    let mut map = serde_json::Map::new();
    for (i, shard) in shards.iter().enumerate() {
        let file = format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len());
        save_tensors(&dir.join(&file), shard, &[])?;
        map.extend(shard.iter().map(|(n, _)| (n.clone(), file.clone().into())));
    }
    let total: u64 = params.iter().map(|(_, t)| bytes(t)).sum();
    let index = serde_json::json!({"metadata": {"total_size": total}, "weight_map": map});
    write_atomic(&dir.join(INDEX_FILE), index.to_string().as_bytes())
}

/// Writes a file: complete or absent ([`ragduet_files::write`]).
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    Ok(ragduet_files::write(path, bytes)?)
}

/// Whether all numbers of a folder's tensors are finite, in every safetensors file of it and its folders.
///
/// # Errors
/// [`Error::Corrupt`] with the file and the tensor that holds a NaN or an infinity.
pub fn check_finite(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            check_finite(&path)?;
        } else if path.extension().is_some_and(|e| e == "safetensors") {
            let weights = Weights::open_file(&path)?;
            for name in weights.names() {
                let (t, _) = weights.raw(name)?;
                if t.is_floating_point() && !bool::try_from(t.f_isfinite()?.f_all()?)? {
                    let file = path.file_name().unwrap_or_default().to_string_lossy();
                    let reason = format!("tensor `{name}` of {file} holds NaN or infinity");
                    return Err(Error::NotFinite { reason });
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<(String, Tensor)> {
        let cpu = (Kind::Float, Device::Cpu);
        vec![
            ("x".into(), Tensor::randn([3, 5], cpu)),
            ("y.z".into(), Tensor::randn([7], cpu).transpose(0, 0)),
        ]
    }

    #[test]
    fn round_trip_one_file_and_shards() {
        for limit in [u64::MAX, 40] {
            let dir = tempfile::tempdir().unwrap();
            let params = sample();
            save_model(dir.path(), &params, limit).unwrap();
            assert_eq!(dir.path().join(INDEX_FILE).exists(), limit == 40);
            let w = Weights::open_dir(dir.path()).unwrap();
            assert_eq!(w.metadata()["format"], "pt");
            for (n, t) in &params {
                assert!(w.load(n, Device::Cpu).unwrap().equal(t));
            }
        }
    }

    #[test]
    fn truncated_missing_and_pickled_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let e = Weights::open_dir(dir.path()).unwrap_err().to_string();
        assert!(e.contains("no model.safetensors"), "{e}");
        std::fs::write(dir.path().join("pytorch_model.bin"), "x").unwrap();
        let e = Weights::open_dir(dir.path()).unwrap_err().to_string();
        assert!(e.contains("pickle"), "{e}");
        save_model(dir.path(), &sample(), u64::MAX).unwrap();
        let path = dir.path().join(MODEL_FILE);
        let whole = std::fs::read(&path).unwrap();
        for cut in [0, 5, 60, whole.len() - 3] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let e = Weights::open_dir(dir.path()).unwrap_err().to_string();
            assert!(e.contains("model.safetensors"), "{cut}: {e}");
        }
    }

    #[test]
    fn half_precision_files_become_f32() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let t = Tensor::from_slice(&[1.5f32, -2.0]);
        save_tensors(
            &path,
            &[("h".into(), t.to_kind(Kind::BFloat16)), ("i".into(), t.to_kind(Kind::Int64))],
            &[],
        )
        .unwrap();
        let w = Weights::open_file(&path).unwrap();
        assert!(w.load("h", Device::Cpu).unwrap().equal(&t));
        assert!(w.load("i", Device::Cpu).unwrap_err().to_string().contains("I64"));
        assert_eq!(w.load_as_is("i").unwrap().kind(), Kind::Int64);
    }
}
