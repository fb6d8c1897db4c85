//! Questions and passages to answers.

use crate::options::{folder, loading};
use crate::retriever::owned;
use crate::{Error, LoadOptions, Result};
use ragduet_data::{Found, Passage, RagRecord, Style};
use ragduet_generator::ScratchGenerator;
use ragduet_generator::answers::{AnswerOptions, Answered, answer_all, answer_streaming};
use ragduet_generator::contexts::ContextConfig;
use ragduet_generator::decode::DecodeConfig;
use ragduet_generator::prepare::{PrepareReport, PromptConfig};
use ragduet_joint::pipeline::trained_with;
use ragduet_torch::rng;
use ragduet_train::checkpoint::new_dir;
use std::collections::HashSet;
use std::path::Path;

/// Passages per prompt of a generator that was not trained here.
const CONTEXTS: usize = 5;

/// A language model that answers questions from passages.
///
/// A generator that was trained here is prompted as in training. Decoding is greedy unless
/// [`decoding`](Generator::decoding) says otherwise.
///
/// ```no_run
/// use ragduet::{Generator, Passage};
///
/// let mut generator = Generator::load("runs/reader/best")?;
/// generator.decoding.max_new_tokens = Some(64);
/// let moon = Passage::from_text(None, "The moon causes tides.");
/// let answer = generator.answer("what causes tides?", &[moon])?;
/// println!("{} (from {} passages)", answer.text, answer.sources.len());
/// # Ok::<(), ragduet::Error>(())
/// ```
#[derive(Debug)]
pub struct Generator {
    model: ragduet_generator::Generator,
    /// How prompts are made; of a generator that was trained here as in training.
    pub prompt: PromptConfig,
    /// How answers are decoded: at most 128 tokens, greedy.
    pub decoding: DecodeConfig,
    /// Passages in a prompt where a [`Pipeline`](crate::Pipeline) retrieves them: as in training, else 5.
    pub contexts: usize,
    /// Answers that are generated at a time.
    pub batch_size: usize,
}

/// An answer with what it was made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The question.
    pub question: String,
    /// The answer.
    pub text: String,
    /// The passages in the prompt, as they stood there and in that order: a citation `[1]` in the text is the first.
    pub sources: Vec<Passage>,
    /// How many of them were shortened to fit.
    pub shortened: usize,
    /// Passages for which the prompt had no room.
    pub dropped: usize,
}

impl Generator {
    /// Loads a language model's folder (transformers' layout; `best` of a training run is one), an adapter's, or a model of
    /// the Hugging Face hub (`org/name` or `org/name@revision`), on the device and in the precision that are fastest here.
    ///
    /// # Errors
    /// No such folder or model, an architecture that is not supported.
    pub fn load(id: impl AsRef<Path>) -> Result<Self> {
        Self::load_with(id, &LoadOptions::default())
    }

    /// [`Generator::load`] on a device and in a precision of choice, or with quantized weights.
    ///
    /// # Errors
    /// As there; a device that is not there.
    pub fn load_with(id: impl AsRef<Path>, options: &LoadOptions) -> Result<Self> {
        let id = id.as_ref();
        loading("generator", id, || {
            let (device, compute) = options.resolve()?;
            let bits = options.quantize.bits();
            let model = ragduet_generator::Generator::load_quantised(&folder(id)?, device, compute, bits)?;
            let new = Self::from(model);
            Ok(match trained_with(&folder(id)?)? {
                Some(trained) => Self { prompt: trained.prompt, contexts: trained.contexts, ..new },
                None => new,
            })
        })
    }

    /// A new language model with random weights; its tokenizer is trained on `texts`. For training from nothing, and for
    /// trying things out.
    ///
    /// # Errors
    /// A size that cannot be, texts without words.
    pub fn from_scratch(size: &ScratchGenerator, texts: &[impl AsRef<str>], seed: u64) -> Result<Self> {
        rng::seed(seed);
        let (device, compute) = LoadOptions::default().resolve()?;
        let texts = owned(texts);
        Ok(Self::from(size.build(texts.iter().map(String::as_str), device, compute)?))
    }

    /// Answers a question from passages, best first. All of them are in the prompt, as long as they fit: those at the end
    /// are shortened and dropped first, which the answer says.
    ///
    /// # Errors
    /// Two passages with the same id; a question that is too long alone; settings of prompt or decoding that cannot work.
    pub fn answer(&self, question: &str, passages: &[Passage]) -> Result<Answer> {
        let record = record(question, passages)?;
        let (answers, report) =
            answer_all(&self.model, &[record], &self.options(passages.len()), &mut |_| ())?;
        let answered = answers.into_iter().next();
        let missing = || Error::Argument(format!("no answer to `{question}`"));
        Ok(answer(answered.ok_or_else(missing)?, &report))
    }

    /// [`Generator::answer`]; `on_text` gets the answer piece by piece as it is generated.
    ///
    /// # Errors
    /// As there.
    pub fn answer_streaming(
        &self,
        question: &str,
        passages: &[Passage],
        mut on_text: impl FnMut(&str),
    ) -> Result<Answer> {
        let record = record(question, passages)?;
        let options = self.options(passages.len());
        let (answered, report) = answer_streaming(&self.model, &record, &options, &mut on_text)?;
        Ok(answer(answered, &report))
    }

    /// Continues a text as it is, without template or passages.
    ///
    /// # Errors
    /// A text that leaves no room for more; settings of decoding that cannot work.
    pub fn generate(&self, text: &str) -> Result<String> {
        let record =
            RagRecord { id: text.into(), question: text.into(), style: Style::Plain, ..RagRecord::default() };
        let (answers, _) = answer_all(&self.model, &[record], &self.options(0), &mut |_| ())?;
        Ok(answers.into_iter().map(|a| a.answer).collect())
    }

    fn options(&self, passages: usize) -> AnswerOptions<'_> {
        AnswerOptions {
            prompt: &self.prompt,
            contexts: ContextConfig::retrieved(passages),
            decode: &self.decoding,
            batch: self.batch_size,
            seed: self.decoding.seed,
        }
    }

    /// Writes the model as a transformers folder, an adapter as peft's.
    ///
    /// # Errors
    /// A folder that cannot be written; quantized weights.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        new_dir(dir.as_ref(), |dir| Ok(self.model.save(dir)?))
    }

    /// The model itself, for what `ragduet-generator` can do beyond this.
    pub fn model(&self) -> &ragduet_generator::Generator {
        &self.model
    }
}

/// A model that `ragduet-generator` loaded or trained.
impl From<ragduet_generator::Generator> for Generator {
    fn from(model: ragduet_generator::Generator) -> Self {
        let decoding = DecodeConfig { do_sample: Some(false), ..DecodeConfig::default() };
        Self { model, prompt: PromptConfig::default(), decoding, contexts: CONTEXTS, batch_size: 16 }
    }
}

/// A question with its passages. Its name is the question, so that what is sampled does not depend on what else is asked.
fn record(question: &str, passages: &[Passage]) -> Result<RagRecord> {
    let mut seen = HashSet::new();
    if let Some(twice) = passages.iter().find(|p| !seen.insert(&p.id)) {
        return Err(Error::Argument(format!("two passages have the id `{}`: ids tell them apart", twice.id)));
    }
    let contexts = passages.iter().map(|p| Found { passage: p.clone(), score: None }).collect();
    Ok(RagRecord { id: question.into(), question: question.into(), contexts, ..RagRecord::default() })
}

fn answer(answered: Answered, report: &PrepareReport) -> Answer {
    let passage = |c: ragduet_text::Context| Passage { id: c.id, title: c.title, text: c.text };
    Answer {
        question: answered.question,
        text: answered.answer,
        sources: answered.contexts.into_iter().map(passage).collect(),
        shortened: report.shortened,
        dropped: report.dropped,
    }
}
