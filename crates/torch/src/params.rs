//! Parameters by name: a store, the builder that fills it while a model is built, and the report on what a
//! checkpoint gave.
//!
//! Names are the dotted Hugging Face ones. Model structs hold the tensors; the store holds the same storage under
//! its name, for optimisers, checkpoints and rules such as "freeze `embeddings.*`", which apply after the model is
//! built. tch's VarStore renames duplicates, broadcasts wrong shapes and ignores extra tensors; this does none.

use crate::quant::{Bits, Quantised};
use crate::weights::Weights;
use crate::{Device, Error, Kind, Result, Tensor};
use indexmap::IndexMap;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// How a parameter starts when no checkpoint gives it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform in [-bound, bound].
    Uniform(f64),
    /// One value everywhere.
    Value(f64),
}

/// One parameter.
#[derive(Debug)]
pub struct Param {
    /// The leaf tensor, f32. The model's struct holds a clone of the handle. Of a quantised weight the codes.
    pub tensor: Tensor,
    /// Whether a checkpoint gave its value.
    pub loaded: bool,
    /// A weight that is kept as codes alone; it never trains.
    pub quantised: Option<Rc<Quantised>>,
}

impl Param {
    fn numel(&self) -> u64 {
        match &self.quantised {
            Some(q) => q.size().iter().product::<i64>() as u64,
            None => self.tensor.numel() as u64,
        }
    }
}

/// A matrix as a model holds it.
#[derive(Debug)]
pub enum Matrix {
    /// f32, in the checkpoint's order.
    Master(Tensor),
    /// Frozen codes of [out, in], whatever the checkpoint's order.
    Quantised(Rc<Quantised>),
}

/// All parameters of a model, in the order in which it was built.
#[derive(Debug, Default)]
pub struct ParamStore {
    params: IndexMap<String, Param>,
}

impl ParamStore {
    /// A parameter by its full name; None also of a quantised weight, which has no such tensor.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.params.get(name).filter(|p| p.quantised.is_none()).map(|p| &p.tensor)
    }

    /// Whether there is a parameter of this name.
    pub fn has(&self, name: &str) -> bool {
        self.params.contains_key(name)
    }

    /// What was loaded and does not train, for a second model over the same checkpoint.
    pub fn frozen(&self) -> FrozenWeights {
        let frozen = self.params.iter().filter(|(_, p)| p.loaded && !p.tensor.requires_grad());
        let held = |p: &Param| (p.tensor.shallow_clone(), p.quantised.clone());
        FrozenWeights(Rc::new(frozen.map(|(name, p)| (name.clone(), held(p))).collect()))
    }

    /// The weights that are kept as codes.
    pub fn quantised(&self) -> impl Iterator<Item = (&str, &Quantised)> {
        self.params.iter().filter_map(|(n, p)| Some((n.as_str(), &**p.quantised.as_ref()?)))
    }

    /// What is resident, in bytes.
    pub fn bytes(&self) -> u64 {
        let of = |p: &Param| p.quantised.as_ref().map_or(p.tensor.numel() as u64 * 4, |q| q.bytes());
        self.params.values().map(of).sum()
    }

    /// Names and parameters, in building order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Param)> + Clone {
        self.params.iter().map(|(n, p)| (n.as_str(), p))
    }

    /// How many parameters (tensors).
    pub fn len(&self) -> usize {
        self.params.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.params.is_empty()
    }

    /// Number of scalars in all, and in those that train.
    pub fn count(&self) -> (u64, u64) {
        self.params.values().fold((0, 0), |(all, train), p| {
            let n = p.numel();
            (all + n, train + if p.tensor.requires_grad() { n } else { 0 })
        })
    }

    /// Decides by name which parameters train.
    pub fn set_trainable(&self, rule: impl Fn(&str) -> bool) {
        for (name, p) in self.params.iter().filter(|(_, p)| p.quantised.is_none()) {
            let _ = p.tensor.set_requires_grad(rule(name));
        }
    }

    /// The parameters that train, with their names.
    pub fn trainable(&self) -> Vec<(String, Tensor)> {
        self.params
            .iter()
            .filter(|(_, p)| p.tensor.requires_grad())
            .map(|(n, p)| (n.clone(), p.tensor.shallow_clone()))
            .collect()
    }

    /// Everything by name, sharing storage: what a checkpoint writes. Quantised weights are not among them.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        let kept = self.params.iter().filter(|(_, p)| p.quantised.is_none());
        kept.map(|(n, p)| (n.clone(), p.tensor.detach())).collect()
    }

    /// [`ParamStore::named`] of a whole model.
    ///
    /// # Errors
    /// [`Error::Quantised`] where weights are kept as codes.
    pub fn whole(&self) -> Result<Vec<(String, Tensor)>> {
        if let Some((name, q)) = self.quantised().next() {
            let (others, bits) = (self.quantised().count() - 1, q.bits().name());
            return Err(Error::Quantised { name: name.into(), others, bits });
        }
        Ok(self.named())
    }
}

/// A tensor of another shape: its name, the model's shape, the checkpoint's shape.
pub type Misfit = (String, Vec<i64>, Vec<i64>);

/// What a checkpoint gave a model, and what it did not.
#[derive(Debug, Default, Clone, serde::Serialize)]
pub struct LoadReport {
    /// How many parameters were loaded.
    pub loaded: usize,
    /// Parameters the checkpoint lacks, each with similar names that it has.
    pub missing: Vec<(String, Vec<String>)>,
    /// Missing parameters that the caller allowed to be new.
    pub fresh: Vec<String>,
    /// Tensors of the checkpoint that the model has no place for.
    pub unexpected: Vec<String>,
    /// Tensors left aside on purpose (a pre-training head, a pooler, buffers).
    pub ignored: Vec<String>,
    /// Name, the model's shape, the checkpoint's shape.
    pub wrong_shape: Vec<Misfit>,
}

impl std::fmt::Display for LoadReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the weights do not fit the model ({} tensors did)", self.loaded)?;
        const SHOWN: usize = 8;
        for (name, near) in self.missing.iter().take(SHOWN) {
            write!(f, "\n  missing: {name}")?;
            if !near.is_empty() {
                write!(f, " (the file has {})", near.join(", "))?;
            }
        }
        for (name, want, got) in self.wrong_shape.iter().take(SHOWN) {
            write!(f, "\n  wrong shape: {name} is {got:?} in the file, {want:?} in the model")?;
        }
        for name in self.unexpected.iter().take(SHOWN) {
            write!(f, "\n  unexpected: {name}")?;
        }
        let all = self.missing.len() + self.wrong_shape.len() + self.unexpected.len();
        let shown = [self.missing.len(), self.wrong_shape.len(), self.unexpected.len()]
            .map(|n| n.min(SHOWN))
            .iter()
            .sum::<usize>();
        if all > shown {
            write!(f, "\n  and {} more", all - shown)?;
        }
        Ok(())
    }
}

/// How weights are quantised, and of which modules, by path.
type Rule = (Bits, fn(&str) -> bool);

/// A parameter that another model holds.
type Held = (Tensor, Option<Rc<Quantised>>);

/// The parameters of a model that do not train, by name, to be held by a second model as well. A clone is the same ones.
#[derive(Debug, Clone)]
pub struct FrozenWeights(Rc<IndexMap<String, Held>>);

impl FrozenWeights {
    /// Whether a tensor is one of them.
    pub fn holds(&self, tensor: &Tensor) -> bool {
        self.0.values().any(|(t, _)| t.data_ptr() == tensor.data_ptr())
    }
}

#[derive(Debug)]
struct Shared {
    device: Device,
    source: Option<Weights>,
    quantize: Cell<Option<Rule>>,
    /// Frozen parameters of another model over the same checkpoint.
    held: RefCell<IndexMap<String, Held>>,
    params: RefCell<IndexMap<String, Param>>,
    wrong_shape: RefCell<Vec<Misfit>>,
    attached: RefCell<Vec<(String, Rc<dyn Any>)>>,
}

/// A path into the parameters of a model being built.
#[derive(Debug, Clone)]
pub struct ParamBuilder {
    shared: Rc<Shared>,
    path: String,
}

impl ParamBuilder {
    /// A builder whose parameters are drawn from their [`Init`] (seed the generators first).
    pub fn fresh(device: Device) -> Self {
        Self::new(None, device)
    }

    /// A builder whose parameters come from a checkpoint.
    pub fn from_weights(source: Weights, device: Device) -> Self {
        Self::new(Some(source), device)
    }

    fn new(source: Option<Weights>, device: Device) -> Self {
        crate::device::set_up(device);
        let shared = Shared {
            device,
            source,
            quantize: Cell::new(None),
            held: RefCell::default(),
            params: RefCell::default(),
            wrong_shape: RefCell::default(),
            attached: RefCell::default(),
        };
        Self { shared: Rc::new(shared), path: String::new() }
    }

    /// From here on the matrices of the modules that `which` picks by path are kept as codes, each as soon as it is read.
    #[must_use]
    pub fn quantising(self, bits: Option<Bits>, which: fn(&str) -> bool) -> Self {
        self.shared.quantize.set(bits.map(|b| (b, which)));
        self
    }

    /// Takes what another model over the same checkpoint holds instead of reading it again; here its names stand behind
    /// `prefix` (a language model's body is the encoder's whole).
    #[must_use]
    pub fn sharing(self, held: &FrozenWeights, prefix: &str) -> Self {
        let named = held.0.iter().map(|(name, (tensor, codes))| {
            (format!("{prefix}{name}"), (tensor.shallow_clone(), codes.clone()))
        });
        self.shared.held.borrow_mut().extend(named);
        self
    }

    /// The matrix `weight` of a linear layer, of this shape in the checkpoint, which holds [in, out] where `transposed`.
    ///
    /// # Errors
    /// As [`ParamBuilder::get`], and a weight that cannot be quantised.
    pub fn matrix(&self, shape: &[i64; 2], transposed: bool, init: Init) -> Result<Matrix> {
        const NAME: &str = "weight";
        let full = join(&self.path, NAME);
        if let Some(q) = self.shared.params.borrow().get(&full).and_then(|p| p.quantised.clone()) {
            return Ok(Matrix::Quantised(q));
        }
        let (bits, known) = match (self.shared.quantize.get(), &self.shared.source) {
            (Some((bits, which)), Some(s)) if which(&self.path) => {
                (bits, s.shape(&full).as_deref() == Some(shape))
            }
            (Some((bits, which)), None) if which(&self.path) => (bits, true),
            _ => return Ok(Matrix::Master(self.get(NAME, shape, init)?)),
        };
        if !known {
            // What is missing or misshapen is reported in the end.
            return Ok(Matrix::Master(self.get(NAME, shape, init)?));
        }
        let size = if transposed { [shape[1], shape[0]] } else { *shape };
        let held = self.shared.held.borrow().get(&full).and_then(|(_, q)| q.clone());
        let held = held.filter(|q| q.bits() == bits && q.size() == size && q.device() == self.shared.device);
        let q = match (held, &self.shared.source) {
            (Some(q), _) => q,
            (None, source) => {
                let value = match source {
                    Some(source) => source.load(&full, Device::Cpu)?,
                    None => draw(shape, init, self.shared.device)?,
                };
                let rows = if transposed { value.tr() } else { value };
                Rc::new(Quantised::new(&rows, bits, self.shared.device)?)
            }
        };
        let loaded = self.shared.source.is_some();
        let param = Param { tensor: q.codes().shallow_clone(), loaded, quantised: Some(q.clone()) };
        self.shared.params.borrow_mut().insert(full, param);
        Ok(Matrix::Quantised(q))
    }

    /// Where in the model this is, dotted.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Remembers under this path a part of the model that is found again by type when the model is built: a place
    /// where something can be added later.
    pub fn attach<T: 'static>(&self, part: T) {
        self.shared.attached.borrow_mut().push((self.path.clone(), Rc::new(part)));
    }

    /// The parts of this type, with their paths, in building order.
    pub fn attached<T: Clone + 'static>(&self) -> Vec<(String, T)> {
        let all = self.shared.attached.borrow();
        all.iter().filter_map(|(path, x)| Some((path.clone(), x.downcast_ref::<T>()?.clone()))).collect()
    }

    /// One level down: `b.at("encoder").at(3)`.
    #[must_use]
    pub fn at(&self, segment: impl std::fmt::Display) -> Self {
        Self { shared: self.shared.clone(), path: join(&self.path, &segment.to_string()) }
    }

    /// The device on which parameters are made.
    pub fn device(&self) -> Device {
        self.shared.device
    }

    /// Whether the checkpoint has this name here (for optional parameters such as biases).
    pub fn has(&self, name: &str) -> bool {
        self.shared.source.as_ref().is_some_and(|s| s.shape(&join(&self.path, name)).is_some())
    }

    /// The parameter `name` of this shape. Asking twice gives the same tensor: that is how weights are tied.
    ///
    /// A missing or misshapen one is initialised and remembered; [`ParamBuilder::finish`] reports all at once.
    pub fn get(&self, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
        let full = join(&self.path, name);
        if let Some(p) = self.shared.params.borrow().get(&full) {
            assert_eq!(p.tensor.size(), shape, "parameter `{full}` asked for in two shapes");
            return Ok(p.tensor.shallow_clone());
        }
        let (mut loaded, mut misshapen, mut shared) = (None, false, None);
        if let Some(source) = &self.shared.source {
            match source.shape(&full) {
                Some(found) if found == shape => {
                    let held = self.shared.held.borrow();
                    let held = held.get(&full).filter(|(t, q)| q.is_none() && t.size() == shape);
                    shared = held.map(|(t, _)| t.shallow_clone());
                    loaded = Some(match &shared {
                        Some(t) => t.shallow_clone(),
                        None => source.load(&full, self.shared.device)?,
                    });
                }
                Some(found) => {
                    self.shared.wrong_shape.borrow_mut().push((full.clone(), shape.to_vec(), found));
                    misshapen = true;
                }
                None => self.missing(source, &full, shape)?,
            }
        }
        let param = Param {
            loaded: loaded.is_some(),
            quantised: None,
            tensor: match loaded {
                Some(t) => t,
                // The model is not used: sizes of a config that the weights do not have take no memory.
                None if misshapen => draw(&[1], Init::Zeros, self.shared.device)?.f_expand(shape, false)?,
                None => draw(shape, init, self.shared.device)?,
            }
            .set_requires_grad(shared.is_none()),
        };
        let handle = param.tensor.shallow_clone();
        self.shared.params.borrow_mut().insert(full, param);
        Ok(handle)
    }

    /// Whether a parameter that a checkpoint lacks may be made: a new head is small beside the rest, and a config that asks
    /// for more is wrong.
    fn missing(&self, source: &Weights, name: &str, shape: &[i64]) -> Result<()> {
        const HEAD: f64 = 1e8;
        const NEW: usize = 1000;
        let size = |shape: &[i64]| shape.iter().map(|&n| n as f64).product::<f64>();
        let unfit = |what: String| {
            let report = LoadReport {
                missing: vec![(format!("{name}: {what}"), Vec::new())],
                ..LoadReport::default()
            };
            Err(Error::Weights(Box::new(report)))
        };
        if shape.iter().any(|&n| n < 0) {
            return unfit(format!("a size below 0 in {shape:?}"));
        }
        let held: f64 = source.names().filter_map(|n| source.shape(n)).map(|s| size(&s)).sum();
        if size(shape) > held.max(HEAD) {
            return unfit(format!("{shape:?}, larger than all that the file has"));
        }
        let made = self.shared.params.borrow().values().filter(|p| !p.loaded).count();
        if made > source.names().count() + NEW {
            return unfit(format!("{made} before it, more than the file has tensors"));
        }
        Ok(())
    }

    /// The store and the report. With a checkpoint, a missing parameter is an error unless `fresh` accepts its
    /// name, an unused tensor is one unless `ignored` accepts it, and a wrong shape always is.
    ///
    /// # Errors
    /// [`Error::Weights`] with the whole report.
    pub fn finish(
        self,
        fresh: impl Fn(&str) -> bool,
        ignored: impl Fn(&str) -> bool,
    ) -> Result<(ParamStore, LoadReport)> {
        let params = std::mem::take(&mut *self.shared.params.borrow_mut());
        let mut report = LoadReport {
            loaded: params.values().filter(|p| p.loaded).count(),
            wrong_shape: std::mem::take(&mut *self.shared.wrong_shape.borrow_mut()),
            ..LoadReport::default()
        };
        if let Some(source) = &self.shared.source {
            let unused: Vec<&str> = source.names().filter(|n| !params.contains_key(*n)).collect();
            for (name, p) in &params {
                if p.loaded || report.wrong_shape.iter().any(|(n, ..)| n == name) {
                    continue;
                }
                if fresh(name) {
                    report.fresh.push(name.clone());
                } else {
                    report.missing.push((name.clone(), near(name, &unused)));
                }
            }
            for name in unused {
                let list = if ignored(name) { &mut report.ignored } else { &mut report.unexpected };
                list.push(name.to_string());
            }
        }
        if report.missing.is_empty() && report.unexpected.is_empty() && report.wrong_shape.is_empty() {
            Ok((ParamStore { params }, report))
        } else {
            Err(Error::Weights(Box::new(report)))
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}.{name}") }
}

fn draw(shape: &[i64], init: Init, device: Device) -> Result<Tensor> {
    let kind = (Kind::Float, device);
    Ok(match init {
        Init::Zeros => Tensor::f_zeros(shape, kind)?,
        Init::Ones => Tensor::f_ones(shape, kind)?,
        Init::Normal(std) => Tensor::f_randn(shape, kind)? * std,
        Init::Uniform(bound) => (Tensor::f_rand(shape, kind)? * 2.0 - 1.0) * bound,
        Init::Value(v) => Tensor::f_full(shape, v, kind)?,
    })
}

/// The three most similar names, where they are similar at all.
fn near(name: &str, among: &[&str]) -> Vec<String> {
    let mut scored: Vec<(f64, &str)> = among
        .iter()
        .map(|n| (strsim::normalized_levenshtein(name, n), *n))
        .filter(|(s, _)| *s > 0.75)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(3).map(|(_, n)| n.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::save_tensors;

    fn file(dir: &std::path::Path, tensors: &[(&str, &[i64])]) -> Weights {
        let path = dir.join("model.safetensors");
        let list: Vec<(String, Tensor)> = tensors
            .iter()
            .map(|(n, s)| (n.to_string(), Tensor::ones(*s, (Kind::Float, Device::Cpu))))
            .collect();
        save_tensors(&path, &list, &[]).unwrap();
        Weights::open_file(&path).unwrap()
    }

    #[test]
    fn strict_loading_names_everything_that_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let w = file(dir.path(), &[("a.weight", &[3]), ("b.weight", &[3]), ("enc.layer.0.wieght", &[2])]);
        let b = ParamBuilder::from_weights(w, Device::Cpu);
        let _ = b.at("a").get("weight", &[2, 3], Init::Zeros).unwrap();
        let _ = b.at("b").get("weight", &[3], Init::Zeros).unwrap();
        let _ = b.at("enc").at("layer").at(0).get("weight", &[2], Init::Zeros).unwrap();
        let e = b.finish(|_| false, |_| false).unwrap_err().to_string();
        for part in [
            "a.weight is [3] in the file, [2, 3]",
            "missing: enc.layer.0.weight (the file has enc.layer.0.wieght)",
            "unexpected: enc.layer.0.wieght",
        ] {
            assert!(e.contains(part), "{e}");
        }
    }

    #[test]
    fn two_models_over_one_checkpoint_hold_its_frozen_weights_once() {
        let dir = tempfile::tempdir().unwrap();
        let names: [(&str, &[i64]); 3] =
            [("model.a.weight", &[2, 3]), ("model.b.weight", &[4, 3]), ("model.n", &[3])];
        let build = |prefix: &str, bits: Option<Bits>, of: Option<&ParamStore>| {
            let weights = file(dir.path(), &names).renamed(|n| Some(n.strip_prefix("model.")?.to_string()));
            let weights = weights.renamed(|n| Some(format!("{prefix}{n}")));
            let b = ParamBuilder::from_weights(weights, Device::Cpu).quantising(bits, |_| true);
            let b = match of {
                Some(store) => b.sharing(&store.frozen(), "model."),
                None => b,
            };
            let at = if prefix.is_empty() { b.clone() } else { b.at("model") };
            let _ = at.at("a").matrix(&[2, 3], false, Init::Zeros).unwrap();
            let _ = at.at("b").matrix(&[4, 3], false, Init::Zeros).unwrap();
            let _ = at.get("n", &[3], Init::Zeros).unwrap();
            drop(at);
            b.finish(|_| false, |_| false).unwrap().0
        };
        for bits in [None, Some(Bits::Bf16)] {
            let first = build("", bits, None);
            first.set_trainable(|_| false);
            let second = build("model.", bits, Some(&first));
            for name in ["a.weight", "b.weight", "n"] {
                let of = |store: &ParamStore, name: &str| {
                    store.iter().find(|(n, _)| *n == name).unwrap().1.tensor.data_ptr()
                };
                assert_eq!(of(&first, name), of(&second, &format!("model.{name}")), "{name}");
            }
            assert!(second.trainable().is_empty());
            assert!(second.iter().all(|(_, p)| first.frozen().holds(&p.tensor)));
        }
        // What trains is nobody else's, and another form is made anew.
        let first = build("", None, None);
        let second = build("model.", None, Some(&first));
        assert_eq!(second.trainable().len(), 3);
        assert_ne!(first.get("n").unwrap().data_ptr(), second.get("model.n").unwrap().data_ptr());
        first.set_trainable(|_| false);
        assert_eq!(build("model.", Some(Bits::Int8), Some(&first)).quantised().count(), 2);
    }

    #[test]
    fn a_fresh_head_and_ignored_tensors_are_allowed_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let w = file(dir.path(), &[("a", &[3]), ("pooler.x", &[3])]);
        let b = ParamBuilder::from_weights(w, Device::Cpu);
        let _ = b.get("a", &[3], Init::Zeros).unwrap();
        let head = b.at("head").get("w", &[2], Init::Value(0.5)).unwrap();
        let (store, report) = b.finish(|n| n.starts_with("head."), |n| n.starts_with("pooler.")).unwrap();
        assert_eq!((report.loaded, report.fresh.len(), report.ignored.len()), (1, 1, 1));
        store.set_trainable(|n| n == "a");
        assert!(!head.requires_grad());
        assert_eq!(store.count(), (5, 3));
    }

    #[test]
    fn tying_is_asking_twice() {
        let b = ParamBuilder::fresh(Device::Cpu);
        let x = b.get("w", &[2], Init::Normal(1.0)).unwrap();
        let y = b.get("w", &[2], Init::Zeros).unwrap();
        assert_eq!(x.data_ptr(), y.data_ptr());
    }
}
