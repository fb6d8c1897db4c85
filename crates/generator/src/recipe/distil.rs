//! Distillation: a larger generator teaches a smaller one.
//!
//! Assumes: for the teacher's distribution, models of one vocabulary, which is checked token by token; the teacher reads
//! the prompts that are made for the student. For its answers nothing: it reads prompts of its own.
//!
//! The teacher is asked in every step, or, where its likeliest tokens or its answers are kept (`teacher/` in the run
//! folder), once before training, after which it is let go. Everything else is supervised fine-tuning.

mod answers;
mod teacher;
mod top_k;

pub use answers::TeacherScores;

use super::distil_config::{DistilConfig, Objective, TeacherCache, TopKConfig};
use super::parts::{build, build_over};
use super::supervised::{self, Job, Lessons, Share, TokenLoss, learn, read, texts};
use crate::error::Result;
use crate::loss::distil::{CHUNK, Distilled, Projection, Taught, distil};
use crate::loss::{DistilLoss, SftLoss};
use crate::model::Generator;
use crate::packed::PackedExamples;
use ragduet_torch::{Tensor, device, no_grad, rng};
use ragduet_train::{RunDir, RunOptions, config as settings, interrupt};
use teacher::{Teacher, check_fit};
use top_k::{Ask, Kept};

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// The student's training.
    pub student: supervised::Outcome,
    /// How good the teacher's answers are, where these are learned.
    pub teacher: Option<TeacherScores>,
}

/// Trains as the config says, into `options.out`.
///
/// # Errors
/// A config, models or data that cannot work, a loss that is no number, memory, files.
pub fn train(config: &DistilConfig, options: &RunOptions) -> Result<Outcome> {
    config.validate()?;
    let device = device::parse(&config.device)?;
    let resolved = settings::to_toml(config)?;
    let dir = RunDir::open(&options.out, &resolved, options.resume, device)?;
    interrupt::install();

    // What the teacher says beforehand.
    let own = config.student();
    let (mut records, dev) = read(&config.data, config.eval.questions, &options.out)?;
    let teacher = Teacher::find(&config.teacher, config.precision, device, &options.out)?;
    let scores = match &config.objective {
        Objective::Sequence(s) => {
            let scores = answers::answer(&mut records, &teacher, config, s, options.quiet)?;
            tracing::info!(
                "the teacher answered {} records ({} with nothing): exact match {:.4}  f1 {:.4}",
                scores.answered,
                scores.empty,
                scores.exact_match,
                scores.f1
            );
            Some(scores)
        }
        Objective::Logits(_) => None,
    };

    // The student.
    rng::seed(config.seed);
    let compute = config.precision.resolve(device);
    let peft = config.peft.as_ref();
    let generator = match &config.objective {
        Objective::Logits(_) => build_over(&config.model, peft, compute, device, |_| teacher.tokenizer())?,
        Objective::Sequence(_) => build(&config.model, peft, compute, device, || texts(&records))?,
    };
    let longest = config.prompt.max_tokens.unwrap_or(config.batch.tokens.min(generator.usual_tokens()));
    let (loss, same_examples): (Box<dyn TokenLoss>, bool) = match (&config.objective, &config.teacher.cache) {
        (Objective::Sequence(_), _) => (Box::new(SftLoss::default()), false),
        (&Objective::Logits(loss), Some(TeacherCache::TopK(TopKConfig { k }))) => {
            let (windows, _) = Lessons::new(&generator, &own, &records, true)?.epoch(0)?;
            let ask = Ask { student: &generator, longest, k: *k, temperature: loss.divergence.temperature() };
            let kept = Kept::make(&ask, &teacher, windows.iter().flatten(), options.quiet)?;
            (Box::new(Logits { loss, source: Source::Kept(kept) }), true)
        }
        (&Objective::Logits(loss), None) => {
            let teacher = teacher.load()?;
            check_fit(&generator, &teacher, longest)?;
            (Box::new(Logits { loss, source: Source::Asked(Box::new(teacher)) }), false)
        }
    };
    let student = learn(&Job {
        config: &own,
        options,
        dir: &dir,
        device,
        generator: &generator,
        records: &records,
        dev: &dev,
        loss: loss.as_ref(),
        same_examples,
    })?;
    Ok(Outcome { student, teacher: scores })
}

/// Learning from a teacher's distribution.
struct Logits {
    loss: DistilLoss,
    source: Source,
}

/// Where the distribution comes from.
enum Source {
    /// The teacher, in every step.
    Asked(Box<Generator>),
    /// What was kept of it.
    Kept(Kept),
}

impl Logits {
    fn distilled(
        &self,
        student: &Generator,
        batch: &PackedExamples,
        window_tokens: u64,
    ) -> Result<Distilled> {
        let mode = student.mode(true);
        let hidden = batch.states(student, mode);
        let head = student.model.kind.head(mode);
        let own = Projection::new(&hidden, &head, student.compute);
        let targets = Tensor::from_slice(&batch.targets).to_device(student.device);
        let of = |taught: Taught<'_>| distil(own, taught, &targets, self.loss, window_tokens, CHUNK);
        Ok(match &self.source {
            Source::Kept(kept) => of(Taught::TopK(&kept.of(batch, student)?)),
            Source::Asked(teacher) => {
                let _guard = no_grad();
                let mode = teacher.mode(false);
                let (hidden, head) = (batch.states(teacher, mode), teacher.model.kind.head(mode));
                of(Taught::Whole(Projection::new(&hidden, &head, teacher.compute)))
            }
        })
    }
}

impl TokenLoss for Logits {
    fn learn(&self, student: &Generator, batch: &PackedExamples, window_tokens: u64) -> Result<Share> {
        let all = self.distilled(student, batch, window_tokens)?;
        let value = |t: &Tensor| -> Result<f64> {
            Ok(f64::try_from(t).map_err(ragduet_torch::Error::from)? / window_tokens.max(1) as f64)
        };
        let (divergence, nll) = (value(&all.divergence)?, value(&all.nll)?);
        all.backward()?;
        let loss = self.loss.weight * divergence + (1.0 - self.loss.weight) * nll;
        Ok(Share { loss, terms: vec![("divergence", divergence), ("nll", nll)] })
    }
}
