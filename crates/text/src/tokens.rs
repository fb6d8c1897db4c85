//! Adding tokens to a tokenizer.

use serde_json::{Map, Value, json};
use tokenizers::AddedToken;

use crate::layout::Layouts;
use crate::tokenizer::pretty;
use crate::{Error, Result, Tokenizer};

impl Tokenizer {
    /// Adds special tokens, such as the marks of a chat template: never split, and left out when decoding skips
    /// special tokens. Returns how many were new; the model's embeddings need [`Tokenizer::vocab_size`] rows then.
    pub fn add_special_tokens<S: AsRef<str>>(&mut self, tokens: &[S]) -> Result<usize> {
        let before = self.vocab_size();
        let added = tokens.iter().map(|t| AddedToken::from(t.as_ref(), true).normalized(false));
        self.inner.add_special_tokens(added.collect::<Vec<_>>()).map_err(invalid)?;
        for token in tokens {
            self.special.all.extend(self.inner.token_to_id(token.as_ref()));
        }
        self.special.all.sort_unstable();
        self.special.all.dedup();
        self.list_special(tokens)?;
        self.tokens_changed()?;
        Ok(self.vocab_size() - before)
    }

    /// Adds words as tokens of their own. Returns how many were new.
    pub fn add_tokens<S: AsRef<str>>(&mut self, tokens: &[S]) -> Result<usize> {
        let before = self.vocab_size();
        let added = tokens.iter().map(|t| AddedToken::from(t.as_ref(), false));
        self.inner.add_tokens(added.collect::<Vec<_>>()).map_err(invalid)?;
        self.tokens_changed()?;
        Ok(self.vocab_size() - before)
    }

    /// Names special tokens in the files where `transformers` looks for them.
    fn list_special<S: AsRef<str>>(&mut self, tokens: &[S]) -> Result<()> {
        for (name, bytes) in &mut self.files {
            if !matches!(name.as_str(), "tokenizer_config.json" | "special_tokens_map.json") {
                continue;
            }
            let mut map: Map<String, Value> = serde_json::from_slice(bytes)
                .map_err(|source| Error::Json { path: name.as_str().into(), source })?;
            // transformers 5 has renamed the key; a file keeps the one it has.
            let key = match map.get("extra_special_tokens") {
                Some(Value::Array(_)) => "extra_special_tokens",
                _ => "additional_special_tokens",
            };
            let named: Vec<Value> = map.values().cloned().collect();
            let list = map.entry(key).or_insert_with(|| json!([]));
            if let Value::Array(list) = list {
                for token in tokens {
                    let token = json!(token.as_ref());
                    if !list.contains(&token) && !named.contains(&token) {
                        list.push(token);
                    }
                }
            }
            *bytes = pretty(&Value::Object(map));
        }
        Ok(())
    }

    fn tokens_changed(&mut self) -> Result<()> {
        self.layouts = Layouts::probe(&self.inner)?;
        let mut text = self.inner.to_string(true).map_err(invalid)?;
        text.push('\n');
        // Written by older tools beside the tokenizer; it would contradict it now.
        self.files.retain(|(name, _)| name != "added_tokens.json" && name != "tokenizer.json");
        self.files.insert(0, ("tokenizer.json".into(), text.into_bytes()));
        Ok(())
    }
}

fn invalid(error: tokenizers::Error) -> Error {
    Error::Invalid { path: "tokenizer.json".into(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use crate::{ByteBpeOptions, EncodeOptions, Tokenizer, train_byte_bpe};

    #[test]
    fn added_tokens_survive_saving() {
        let options = ByteBpeOptions { vocab_size: 270, min_frequency: 1, ..Default::default() };
        let mut tokenizer = train_byte_bpe(["some text"], &options).unwrap();
        let size = tokenizer.vocab_size();
        assert_eq!(tokenizer.add_special_tokens(&["<|im_start|>", "<|im_end|>", "<|pad|>"]).unwrap(), 2);
        assert_eq!(tokenizer.add_tokens(&["COVID-19"]).unwrap(), 1);
        assert_eq!(tokenizer.vocab_size(), size + 3);
        tokenizer.set_chat_template("{{ messages[0].content }}{{ eos_token }}").unwrap();
        let dir = tempfile::tempdir().unwrap();
        tokenizer.save(dir.path()).unwrap();
        let loaded = Tokenizer::from_dir(dir.path()).unwrap();
        let ids = loaded.encode("<|im_start|>COVID-19", &EncodeOptions::default()).unwrap().ids;
        assert_eq!(ids, [size as u32, size as u32 + 2]);
        assert_eq!(loaded.decode(&ids, true).unwrap(), "COVID-19");
        assert_eq!(loaded.special_ids(), tokenizer.special_ids());
        let template = loaded.chat_template().unwrap().unwrap();
        let text = template.render(&[crate::message("user", "x")], None, false).unwrap().text;
        assert_eq!(text, "x<|endoftext|>");
    }

    /// As transformers 5 saves a tokenizer whose `chat_template` is a dictionary.
    #[test]
    fn templates_lie_beside_the_default_one() {
        let options = ByteBpeOptions { vocab_size: 270, min_frequency: 1, ..Default::default() };
        let mut tokenizer = train_byte_bpe(["some text"], &options).unwrap();
        tokenizer.set_chat_template("plain {{ messages[0].content }}").unwrap();
        let dir = tempfile::tempdir().unwrap();
        tokenizer.save(dir.path()).unwrap();
        let folder = dir.path().join("additional_chat_templates");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("tool_use.jinja"), "tools {{ messages[0].content }}").unwrap();
        std::fs::write(folder.join("notes.txt"), "{{ not a template").unwrap();
        let again = tempfile::tempdir().unwrap();
        Tokenizer::from_dir(dir.path()).unwrap().save(again.path()).unwrap();
        let template = Tokenizer::from_dir(again.path()).unwrap().chat_template().unwrap().unwrap();
        let render = |tools| template.render(&[crate::message("user", "x")], tools, false).unwrap().text;
        assert_eq!(render(None), "plain x");
        assert_eq!(render(Some(&[serde_json::json!({"name": "f"})][..])), "tools x");
        tokenizer = Tokenizer::from_dir(again.path()).unwrap();
        tokenizer.set_chat_template("other").unwrap();
        let template = tokenizer.chat_template().unwrap().unwrap();
        let tools = [serde_json::json!({"name": "f"})];
        assert_eq!(template.render(&[], Some(&tools), false).unwrap().text, "other");
    }
}
