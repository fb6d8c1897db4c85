//! The teacher: where it is, what identifies it, whether a student can learn from its distribution.

use crate::error::{Error, Result, bad};
use crate::model::Generator;
use crate::recipe::config::TeacherConfig;
use fs_err as fs;
use ragduet_nn::{hub, peft};
use ragduet_text::Tokenizer;
use ragduet_torch::{Compute, Device, Precision};
use ragduet_train::RunContext;
use std::io::Read;
use std::path::PathBuf;
use xxhash_rust::xxh3::Xxh3;

/// A teacher's folder. Nothing of it is in memory until [`Teacher::load`].
#[derive(Debug)]
pub(super) struct Teacher<'a> {
    config: &'a TeacherConfig,
    dir: PathBuf,
    device: Device,
    compute: Compute,
    /// Where what it says is kept.
    pub store: PathBuf,
}

impl<'a> Teacher<'a> {
    /// Finds it, and makes the folder for what it says. `precision`: the student's.
    ///
    /// # Errors
    /// A folder or hub id that is not there.
    pub fn find(config: &'a TeacherConfig, precision: Precision, context: &RunContext) -> Result<Self> {
        let (dir, device) = (hub::resolve(&config.base)?, context.device);
        let compute = config.precision.unwrap_or(precision).resolve(device);
        let store = config.store.clone().unwrap_or_else(|| context.dir.path().join("teacher"));
        fs::create_dir_all(&store)?;
        Ok(Self { config, dir, device, compute, store })
    }

    /// The model, which does not train.
    pub fn load(&self) -> Result<Generator> {
        let teacher =
            Generator::load_to_answer(&self.dir, self.device, self.compute, self.config.quantize, None)?;
        teacher.trained().set_trainable(|_| false);
        Ok(teacher)
    }

    /// Its tokenizer alone; an adapter's is its base's where it has none of its own.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let folders = self.folders()?;
        let own = folders.iter().find(|f| f.join("tokenizer.json").is_file());
        Ok(Tokenizer::from_dir(own.or(folders.last()).unwrap_or(&self.dir))?)
    }

    fn folders(&self) -> Result<Vec<PathBuf>> {
        let mut all = vec![self.dir.clone()];
        if peft::is_adapter_dir(&self.dir) {
            all.push(hub::resolve(&peft::base_of(&self.dir)?)?);
        }
        Ok(all)
    }

    /// A hash of all that decides what it says: the contents of its files, precision, quantisation. The caller goes on with
    /// what it is asked.
    pub fn fingerprint(&self) -> Result<Xxh3> {
        let mut hash = Xxh3::new();
        hash.update(format!("{} {:?}", self.compute, self.config.quantize).as_bytes());
        let mut buffer = vec![0; 1 << 20];
        for folder in self.folders()? {
            let mut files = Vec::new();
            // A GGUF file is all there is.
            if folder.is_file() {
                files.push(folder.clone());
            }
            for entry in
                if folder.is_dir() { Some(fs::read_dir(&folder)?) } else { None }.into_iter().flatten()
            {
                let path = entry?.path();
                let read = ["json", "safetensors", "jinja", "txt", "model"];
                let kind = path.extension().and_then(|e| e.to_str());
                if path.is_file() && kind.is_some_and(|k| read.contains(&k)) {
                    files.push(path);
                }
            }
            files.sort_unstable();
            for path in files {
                hash.update(path.file_name().unwrap_or_default().as_encoded_bytes());
                let mut file = fs::File::open(&path)?;
                loop {
                    match file.read(&mut buffer)? {
                        0 => break,
                        n => hash.update(&buffer[..n]),
                    }
                }
            }
        }
        Ok(hash)
    }
}

/// Whether a student can learn from a teacher's distribution over its own examples: both read and write the same tokens
/// in the same way, and the teacher has room for them.
///
/// # Errors
/// The first thing that differs.
pub(super) fn check_fit(student: &Generator, teacher: &Generator, longest: usize) -> Result<()> {
    let kind = |g: &Generator| match g.model.seq2seq() {
        Some(_) => "an encoder-decoder",
        None => "decoder-only",
    };
    if kind(student) != kind(teacher) || student.decoder_start() != teacher.decoder_start() {
        let why = match kind(student) == kind(teacher) {
            true => "their answers start with different tokens".into(),
            false => format!("the student is {}, the teacher {}", kind(student), kind(teacher)),
        };
        return Err(bad("teacher.base", format!("{why}: learn from its answers ([objective.sequence])")));
    }
    check_vocabularies(&student.tokenizer, &teacher.tokenizer)?;
    if longest > teacher.max_tokens() {
        let why = format!("the teacher takes {} tokens, an example has {longest}", teacher.max_tokens());
        return Err(bad("prompt.max_tokens", why));
    }
    Ok(())
}

fn check_vocabularies(student: &Tokenizer, teacher: &Tokenizer) -> Result<()> {
    let (own, other) = (student.vocab_size(), teacher.vocab_size());
    let differs = (0..own.max(other) as u32).find(|&i| student.id_to_token(i) != teacher.id_to_token(i));
    let Some(at) = differs else { return Ok(()) };
    let said = |t: &Tokenizer| t.id_to_token(at).map_or("nothing".into(), |t| format!("`{t}`"));
    Err(Error::Unusable(format!(
        "teacher and student have different vocabularies: of {other} and {own} tokens, number {at} is {} to the \
         teacher and {} to the student. Take models of one family, or learn from the teacher's answers \
         ([objective.sequence])",
        said(teacher),
        said(student)
    )))
}
