//! One way to search, whatever finds the passages: a bi-encoder over single vectors, late interaction, words, or several
//! of them fused.

use crate::biencoder::BiEncoder;
use crate::encode::{EncodeProgress, EncodeSettings};
use crate::evaluate::EvalSet;
use crate::model_index::ModelIndex;
use crate::{Error, Result};
use ragduet_index::fusion::{Learned, learn_weights};
use ragduet_index::{
    FusionConfig, IdMap, IndexConfig, LexicalConfig, LexicalIndex, MultiVectorConfig, SearchParams, fuse,
};
use ragduet_metrics::{Measure, Run, evaluate};
use std::rc::Rc;

/// Passages found, by name, best first.
pub type Hits = Vec<(String, f32)>;

/// What finds passages.
pub enum Backend {
    /// A model and the index of what it made of the passages.
    Model(Box<BiEncoder>, ModelIndex),
    /// Words (BM25).
    Lexical(Box<LexicalIndex>),
}

impl Backend {
    /// Rows of its index, removed ones included.
    pub fn rows(&self) -> usize {
        match self {
            Self::Model(_, index) => index.len(),
            Self::Lexical(index) => index.len(),
        }
    }
}

/// One system: what finds, and the names of its rows.
pub struct System {
    backend: Backend,
    ids: IdMap,
}

impl System {
    /// # Errors
    /// A model and an index that do not belong together; ids for other rows.
    pub fn new(backend: Backend, ids: IdMap) -> Result<Self> {
        if let Backend::Model(model, index) = &backend {
            index.check(model)?;
        }
        let rows = backend.rows();
        if ids.len() == rows {
            return Ok(Self { backend, ids });
        }
        Err(Error::Unusable(format!("the index has {rows} rows but {} ids", ids.len())))
    }

    /// An index of the passages of a set in memory: as `single` says where there is one vector a text, as `many` for token
    /// vectors.
    ///
    /// # Errors
    /// The encoder's, the index's.
    pub fn of_model(
        model: BiEncoder,
        set: &EvalSet,
        single: &IndexConfig,
        many: &MultiVectorConfig,
        encode: &EncodeSettings,
        progress: EncodeProgress<'_>,
    ) -> Result<Self> {
        let ids = IdMap::from_ids(set.passages.iter().map(|(id, _)| id))?;
        let passages = set.passages.iter().map(|(_, t)| Ok(t.clone()));
        let index = ModelIndex::build(&model, passages, single, many, encode, progress)?;
        Self::new(Backend::Model(Box::new(model), index), ids)
    }

    /// A lexical index of the passages of a set.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn of_words(config: &LexicalConfig, set: &EvalSet) -> Result<Self> {
        let ids = IdMap::from_ids(set.passages.iter().map(|(id, _)| id))?;
        let mut index = LexicalIndex::new(config)?;
        let texts: Vec<&str> = set.passages.iter().map(|(_, t)| t.as_str()).collect();
        index.add(&texts)?;
        Self::new(Backend::Lexical(Box::new(index)), ids)
    }

    /// What finds.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Bytes that the index keeps for a passage.
    pub fn bytes_per_passage(&self) -> f64 {
        match &self.backend {
            Backend::Model(_, index) => index.bytes_per_passage(),
            Backend::Lexical(index) => index.bytes() as f64 / index.live().max(1) as f64,
        }
    }

    /// The best `k` passages of each question. `ef`: how widely HNSW looks.
    ///
    /// # Errors
    /// The encoder's, the index's.
    pub fn search(
        &self,
        questions: &[String],
        k: usize,
        ef: Option<usize>,
        encode: &EncodeSettings,
    ) -> Result<Vec<Hits>> {
        let params = SearchParams { ef, ..SearchParams::top(k) };
        let found = match &self.backend {
            Backend::Model(model, index) => index.search(model, questions, &params, encode)?,
            Backend::Lexical(index) => index.search(questions, &params)?,
        };
        let name = |id: u32| {
            self.ids.id(id).map(str::to_string).ok_or_else(|| {
                Error::Unusable(format!("the index has row {id} but only {} ids", self.ids.len()))
            })
        };
        let named = |hits: Vec<ragduet_index::Hit>| hits.iter().map(|h| Ok((name(h.id)?, h.score))).collect();
        found.into_iter().map(named).collect()
    }
}

/// The least depth to which the parts of a fusion are searched: a passage that one ranks low another may rank high.
const FUSION_DEPTH: usize = 100;

/// One system, or several whose rankings are fused.
pub struct Engine {
    systems: Vec<Rc<System>>,
    /// How they are fused, where there are several.
    pub fusion: FusionConfig,
}

impl Engine {
    /// Of at least one system.
    ///
    /// # Errors
    /// None at all; as many weights as systems, where there are some.
    pub fn new(systems: Vec<Rc<System>>, fusion: FusionConfig) -> Result<Self> {
        if systems.is_empty() {
            return Err(Error::Unusable("nothing to search".into()));
        }
        Ok(Self { systems, fusion })
    }

    /// The systems.
    pub fn systems(&self) -> &[Rc<System>] {
        &self.systems
    }

    /// Bytes that all indexes keep for a passage.
    pub fn bytes_per_passage(&self) -> f64 {
        self.systems.iter().map(|s| s.bytes_per_passage()).sum()
    }

    /// The weights that fuse best on judged queries, by a measure.
    ///
    /// # Errors
    /// As [`Engine::search`].
    pub fn learn_weights(
        &mut self,
        set: &EvalSet,
        measure: Measure,
        encode: &EncodeSettings,
    ) -> Result<Learned> {
        let questions: Vec<String> = set.queries.iter().map(|(_, t)| t.clone()).collect();
        let each: Vec<Vec<Hits>> = self
            .systems
            .iter()
            .map(|s| s.search(&questions, FUSION_DEPTH, None, encode))
            .collect::<Result<_>>()?;
        let learned = learn_weights(&self.fusion, self.systems.len(), |config| -> Result<f64> {
            let mut run = Run::new();
            for (q, (id, _)) in set.queries.iter().enumerate() {
                let lists: Vec<&Hits> = each.iter().map(|found| &found[q]).collect();
                run.insert(id.clone(), fuse(config, &lists, FUSION_DEPTH)?)?;
            }
            Ok(evaluate(&set.qrels, &run, &[measure]).mean(measure).unwrap_or(f64::NAN))
        })?;
        self.fusion = learned.config.clone();
        Ok(learned)
    }

    /// The best `k` passages of each question.
    ///
    /// # Errors
    /// Those of [`System::search`], and of the fusion.
    pub fn search(
        &self,
        questions: &[String],
        k: usize,
        ef: Option<usize>,
        encode: &EncodeSettings,
    ) -> Result<Vec<Hits>> {
        if let [only] = self.systems.as_slice() {
            return only.search(questions, k, ef, encode);
        }
        let each: Vec<Vec<Hits>> = self
            .systems
            .iter()
            .map(|s| s.search(questions, k.max(FUSION_DEPTH), ef, encode))
            .collect::<Result<_>>()?;
        (0..questions.len())
            .map(|q| {
                let lists: Vec<&Hits> = each.iter().map(|found| &found[q]).collect();
                Ok(fuse(&self.fusion, &lists, k)?)
            })
            .collect()
    }

    /// The ranking of a set's queries, `depth` deep.
    ///
    /// # Errors
    /// As [`Engine::search`].
    pub fn rank(&self, set: &EvalSet, depth: usize, encode: &EncodeSettings) -> Result<Run> {
        let mut run = Run::new();
        for block in set.queries.chunks(1024) {
            let questions: Vec<String> = block.iter().map(|(_, t)| t.clone()).collect();
            for (hits, (id, _)) in self.search(&questions, depth, None, encode)?.into_iter().zip(block) {
                run.insert(id.clone(), hits)?;
            }
        }
        Ok(run)
    }
}
