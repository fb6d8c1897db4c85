//! What a retriever is distilled from while it trains: a teacher's scores of pairs, or its vectors.

use super::config::RetrieverConfig;
use crate::Result;
use crate::biencoder::BiEncoder;
use crate::error::bad;
use crate::loss::RetrievalLoss;
use crate::st_dir::{self, Overrides};
use crate::teacher::{ScoreCache, Teacher, TeacherConfig, TeacherVectors};
use ragduet_data::TrainingSet;
use ragduet_nn::hub;
use ragduet_train::RunContext;

/// What the teacher gives.
pub(super) enum Distillation {
    /// Scores of each query's passages.
    Scores(Box<dyn Teacher>, ScoreCache),
    /// Vectors of all texts.
    Vectors(TeacherVectors),
}

impl Distillation {
    /// As `[teacher]` and `loss` say. `given`: a teacher that this crate does not know how to load. `fingerprint`: the
    /// training set's.
    ///
    /// # Errors
    /// A teacher that does not load, or does not fit.
    pub fn new(
        config: &RetrieverConfig,
        given: Option<Box<dyn Teacher>>,
        set: &TrainingSet,
        model: &BiEncoder,
        context: &RunContext,
        fingerprint: u64,
        loss: &dyn RetrievalLoss,
    ) -> Result<Option<Self>> {
        let Some(wanted) = &config.teacher else { return Ok(None) };
        let (device, compute) = (model.device, model.compute);
        if loss.needs_teacher_vectors() {
            let key = format!("{} {fingerprint:016x}\n", wanted.path());
            let vectors = context.dir.artifact(
                &context.world,
                "teacher-vectors",
                &key,
                |dir| TeacherVectors::make(wanted.path(), set, dir, device, compute),
                |dir| TeacherVectors::read(dir, device),
            )?;
            let (theirs, ours) = (vectors.queries.size()[1], model.trained_dim());
            config.loss.check_teacher_dim(ours, theirs)?;
            return Ok(Some(Self::Vectors(vectors)));
        }
        let teacher: Box<dyn Teacher> = match (given, wanted) {
            (Some(teacher), _) => teacher,
            (None, TeacherConfig::Retriever(n)) => {
                Box::new(st_dir::load(&hub::resolve(&n.path)?, device, compute, &Overrides::default())?)
            }
            (None, TeacherConfig::CrossEncoder(_)) => {
                return Err(bad(
                    "teacher.cross_encoder",
                    "a cross-encoder is loaded by the caller (`train_with`)",
                ));
            }
        };
        let cache = ScoreCache::open(&context.dir.path().join("teacher/scores.txt"), wanted.path())?;
        Ok(Some(Self::Scores(teacher, cache)))
    }
}
