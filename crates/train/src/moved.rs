//! Settings that have other names than in earlier versions: what the error about an old one says.

/// (old key, new key, what else changes). Keys of configs that have the new key and not the old one.
const MOVED: [(&str, &str, &str); 28] = [
    ("seed", "run.seed", ""),
    ("device", "run.device", ""),
    ("precision", "run.precision", ""),
    ("train.log_every", "run.log_every", ""),
    ("train.epochs", "run.epochs", ""),
    ("train.max_steps", "run.max_steps", ""),
    ("train.steps", "run.max_steps", ""),
    ("train.accumulate", "batch.accumulate", ""),
    ("train.negatives_per_query", "batch.negatives_per_query", ""),
    ("train.positives", "batch.positives", ""),
    ("train.questions", "batch.size", ""),
    ("batch.questions", "batch.size", ""),
    ("batch.records", "batch.size", ""),
    ("batch.chunks", "batch.size", ""),
    ("batch.part_tokens", "grad_cache.chunk_tokens", ""),
    ("retriever.chunk_tokens", "retriever.grad_cache.chunk_tokens", ""),
    ("batch.eval_tokens", "eval.batch_tokens", ""),
    ("eval.batch", "eval.batch_size", ""),
    ("eval.questions", "eval.limit", ""),
    ("objective.sequence.batch", "objective.sequence.batch_size", ""),
    ("eval_every_steps", "eval.every_steps", ""),
    ("scale", "temperature", " (a temperature is 1 / scale)"),
    ("scale.value", "temperature.value", " (a temperature is 1 / scale)"),
    ("scale.learnable", "temperature.learnable", ""),
    ("scale.max", "temperature.min", " (a temperature is 1 / scale)"),
    ("contrastive.scale", "contrastive.temperature", " (a temperature is 1 / scale)"),
    ("turns", "alternation", ""),
    ("generator.learns", "generator.objective", ""),
];

/// British spellings that keys had, and the American ones that they have.
const SPELLED: [(&str, &str); 4] =
    [("normalis", "normaliz"), ("quantis", "quantiz"), ("generalis", "generaliz"), ("optimis", "optimiz")];

/// A key in American spelling.
fn american(key: &str) -> String {
    SPELLED.iter().fold(key.to_string(), |key, (from, to)| key.replace(from, to))
}

/// Where a key has moved to, for a config that `has` keys: the sentence. `has` knows the config's keys.
pub(crate) fn moved(old: &str, has: impl Fn(&str) -> bool) -> Option<String> {
    if has(old) {
        return None;
    }
    let found = MOVED.iter().find(|(from, to, _)| *from == old && has(to));
    let whole = (old == "train").then(|| {
        "`[train]` is gone: its keys are in [run] (epochs, max_steps, log_every) and [batch] (accumulate, \
         negatives_per_query, positives)"
            .to_string()
    });
    let spelled = american(old);
    match found {
        None if spelled != old && has(&spelled) => Some(format!("`{old}` is now `{spelled}`")),
        Some((_, to, note)) => Some(format!("`{old}` is now `{to}`{note}")),
        None if old == "recipe" => {
            Some("`recipe` is gone: records with answer choices are for `ragduet train tfew`".into())
        }
        None => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_names_lead_to_the_new_ones_of_the_same_config() {
        let has = |keys: &'static [&'static str]| move |k: &str| keys.contains(&k);
        let retriever = has(&["run.seed", "batch.size", "temperature", "temperature.value"]);
        assert_eq!(moved("seed", retriever).unwrap(), "`seed` is now `run.seed`");
        assert!(moved("scale.value", retriever).unwrap().contains("1 / scale"));
        assert_eq!(moved("batch.size", retriever), None);
        let joint = has(&["retriever.objective.emdr2.normalize", "teacher.quantize"]);
        let sentence = "`retriever.objective.emdr2.normalise` is now `retriever.objective.emdr2.normalize`";
        assert_eq!(moved("retriever.objective.emdr2.normalise", joint).unwrap(), sentence);
        assert_eq!(moved("teacher.quantise", joint).unwrap(), "`teacher.quantise` is now `teacher.quantize`");
        assert_eq!(MOVED.iter().find(|(old, new, _)| old == new), None);
        assert_eq!(moved("generator.learns", retriever), None, "not of this config");
        assert!(moved("train", retriever).unwrap().contains("[run]"));
    }
}
