//! Distillation: a larger generator teaches a smaller one.
//!
//! Assumes: for the teacher's distribution, models of one vocabulary, which is checked token by token; the teacher reads
//! the prompts that are made for the student. For its answers nothing: it reads prompts of its own.
//!
//! The teacher is asked in every step, or, where its likeliest tokens or its answers are kept (`teacher/` in the run
//! folder), once before training, after which it is let go. Everything else is supervised fine-tuning.
//!
//! What a teacher said is kept in files named by a hash of its contents and of what it was asked. The loss computes a
//! chunk's logits once and turns them into gradients in the forward pass: two logit matrices never exist.

mod answers;
mod teacher;
mod top_k;

pub use answers::TeacherScores;

use super::config::{DistilConfig, Objective, TeacherCache, TopKConfig};
use super::parts::{build, build_over};
use super::supervised::{self, EpochBuilder, Records, Supervised, TokenLoss};
use crate::error::{Error, Result};
use crate::loss::distil::{CHUNK, Distilled, Projection, Taught, distil};
use crate::loss::{DistilLoss, SftLoss};
use crate::model::Generator;
use crate::packed::PackedExamples;
use ragduet_torch::{Kind, Tensor, no_grad, rng};
use ragduet_train::{Metrics, RunContext, RunOptions};
use teacher::{Teacher, check_fit};
use top_k::{Ask, Cache};

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
    let mut scores = None;
    let done = ragduet_train::run(config, options, |context| student(config, context, &mut scores))?;
    Ok(Outcome { student: done.into(), teacher: scores })
}

/// What learns, after the teacher has said what is asked of it beforehand. `scores`: of its answers.
fn student(
    config: &DistilConfig,
    context: &RunContext,
    scores: &mut Option<TeacherScores>,
) -> Result<Supervised> {
    let own = config.student();
    let mut records = Records::read(&own, context)?;
    let teacher = Teacher::find(&config.teacher, config.run.precision, context)?;
    if let Objective::Sequence(s) = &config.objective {
        let answered = answers::answer(&mut records.train, &teacher, config, s, context.quiet)?;
        tracing::info!("the teacher: {answered}");
        if answered.empty == answered.answered {
            return Err(Error::Unusable(format!(
                "nothing to train on: the teacher gave no answer to learn ({} records, all answered with nothing)",
                answered.answered
            )));
        }
        *scores = Some(answered);
    }

    // The student is the same whether the teacher had to be asked or its answers were there.
    rng::seed(config.run.seed);
    let (peft, compute, device) = (config.peft.as_ref(), context.compute, context.device);
    let generator = match &config.objective {
        Objective::Logits(_) => {
            build_over(&config.model, peft, compute, device, None, |_| teacher.tokenizer())?
        }
        Objective::Sequence(_) => build(&config.model, peft, compute, device, None, || records.texts())?,
    };
    let longest = config.prompt.max_tokens.unwrap_or(config.batch.tokens.min(generator.usual_tokens()));
    let cached = matches!(config.objective, Objective::Logits(_)) && config.teacher.cache.is_some();
    let epochs = EpochBuilder::new(&generator, &own, records, cached)?;
    let loss: Box<dyn TokenLoss> = match (&config.objective, &config.teacher.cache) {
        (Objective::Sequence(_), _) => Box::new(SftLoss::default()),
        (&Objective::Logits(loss), Some(TeacherCache::TopK(TopKConfig { k }))) => {
            let (batches, _) = epochs.epoch(0)?;
            let ask = Ask { student: &generator, longest, k: *k, temperature: loss.divergence.temperature() };
            let cache = Cache::make(&ask, &teacher, &batches, context.quiet)?;
            Box::new(Logits { loss, source: Source::Cache(cache) })
        }
        (&Objective::Logits(loss), None) => {
            let teacher = teacher.load()?;
            check_fit(&generator, &teacher, longest)?;
            Box::new(Logits { loss, source: Source::Model(Box::new(teacher)) })
        }
    };
    Supervised::new(own, generator, epochs, loss)
}

/// Learning from a teacher's distribution.
struct Logits {
    loss: DistilLoss,
    source: Source,
}

/// Where the distribution comes from.
enum Source {
    /// The teacher, in every step.
    Model(Box<Generator>),
    /// What was kept of it.
    Cache(Cache),
}

impl Logits {
    fn distilled(&self, student: &Generator, batch: &PackedExamples, step_tokens: u64) -> Result<Distilled> {
        let mode = student.mode(true);
        let hidden = batch.states(student, mode);
        let head = student.model.kind.head(mode);
        let own = Projection::new(&hidden, &head, student.compute);
        let targets = Tensor::from_slice(&batch.targets).to_device(student.device);
        let of = |taught: Taught<'_>| distil(own, taught, &targets, self.loss, step_tokens, CHUNK);
        Ok(match &self.source {
            Source::Cache(cache) => of(Taught::TopK(&cache.of(batch, student)?)),
            Source::Model(teacher) => {
                let _guard = no_grad();
                let mode = teacher.mode(false);
                let (hidden, head) = (batch.states(teacher, mode), teacher.model.kind.head(mode));
                of(Taught::Whole(Projection::new(&hidden, &head, teacher.compute)))
            }
        })
    }
}

impl TokenLoss for Logits {
    fn learn(&self, student: &Generator, batch: &PackedExamples, step_tokens: u64) -> Result<Metrics> {
        let all = self.distilled(student, batch, step_tokens)?;
        let share = |sum: &Tensor| sum.detach().to_kind(Kind::Double) / step_tokens.max(1) as f64;
        let (divergence, nll) = (share(&all.divergence), share(&all.nll));
        all.backward()?;
        let loss = &divergence * self.loss.weight + &nll * (1.0 - self.loss.weight);
        Ok(Metrics::of(&loss).with("divergence", &divergence).with("nll", &nll))
    }
}
