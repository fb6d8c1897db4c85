//! A hash of what a run is trained on, by which a resumed run tells that its data has changed.

use xxhash_rust::xxh3::Xxh3;

/// Collects texts and numbers; the order counts.
#[derive(Default)]
pub struct Fingerprint(Xxh3);

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fingerprint({:x})", self.0.digest())
    }
}

impl Fingerprint {
    /// Adds a text. Two texts are not the one that they make together.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
        self
    }

    /// Adds texts.
    #[must_use]
    pub fn texts<'a>(self, texts: impl IntoIterator<Item = &'a str>) -> Self {
        texts.into_iter().fold(self, Self::text)
    }

    /// Adds numbers.
    #[must_use]
    pub fn numbers(mut self, numbers: impl IntoIterator<Item = u64>) -> Self {
        numbers.into_iter().for_each(|n| self.0.update(&n.to_le_bytes()));
        self
    }

    /// The hash.
    pub fn digest(&self) -> u64 {
        self.0.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_and_order_count() {
        let of = |texts: &[&str]| Fingerprint::default().texts(texts.iter().copied()).digest();
        assert_eq!(of(&["a", "b"]), of(&["a", "b"]));
        let all = [of(&["ab"]), of(&["a", "b"]), of(&["b", "a"]), of(&["", "ab"]), of(&[])];
        for (i, a) in all.iter().enumerate() {
            assert!(!all[i + 1..].contains(a), "{i}");
        }
        let numbers = Fingerprint::default().numbers([1, 2]).digest();
        assert_ne!(numbers, Fingerprint::default().numbers([2, 1]).digest());
    }
}
