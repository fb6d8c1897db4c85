//! Chat templates: conversations to the text that a model was trained on.
//!
//! A template is Jinja. It is rendered as `apply_chat_template` of `transformers` does it: blocks trimmed, undefined
//! names empty, values printed as Python prints them, and the names `messages`, `tools`, `documents`,
//! `add_generation_prompt`, `bos_token` and so on, `raise_exception`, `strftime_now` and `tojson`.
//!
//! Two things differ. `strftime_now` is in UTC and can be fixed ([`ChatTemplate::at`]), since a training run should
//! not depend on the day it runs. And `{% generation %}` blocks are always tracked: [`Rendered::answers`].

use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, Value};
use minijinja::{Environment, Error as JinjaError, ErrorKind, State};
use serde_json::Value as Json;

use crate::load::ADDITIONAL;
use crate::{Error, Result, Tokenizer};

mod python;
mod unshown;

// Bounds of a rendering. A conversation of 1,000 turns takes some 100,000 steps.
const MOST_STEPS: u64 = 20_000_000;
const MOST_DEPTH: usize = 100;
const MOST_BYTES: usize = 64 << 20;

// Mark where a `generation` block begins and ends in the output. Non-characters: no text holds them.
const OPEN: char = '\u{10fffe}';
const CLOSE: char = '\u{10ffff}';

// Roles are plain words: a base model knows them, and no token has to be added.
const FALLBACK: &str = "{{ front }}{% for t in tools or [] %}{% if loop.first %}{{ 'Tools:\n' }}{% endif %}\
    {{ t | tojson }}{{ '\n' }}{% if loop.last %}{{ '\n' }}{% endif %}{% endfor %}\
    {% for m in messages %}{{ m.role | capitalize }}:\n\
    {% if m.role == 'assistant' %}{% generation %}{{ m.content or '' }}{% for c in m.tool_calls or [] %}\
    {% if m.content or not loop.first %}{{ '\n' }}{% endif %}{{ (c.function or c) | tojson }}{% endfor %}\
    {{ eos_token }}{% endgeneration %}\
    {% else %}{{ m.content }}{% endif %}{{ '\n\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ 'Assistant:\n' }}{% endif %}";

/// A message as templates see it: `{"role": role, "content": content}`.
pub fn message(role: &str, content: &str) -> Json {
    serde_json::json!({ "role": role, "content": content })
}

/// The chat template of a tokenizer, or several under names.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    names: Vec<String>,
    tracked: bool,
    tokens: Vec<(&'static str, String)>,
    variables: Vec<(String, Json)>,
}

/// A rendered conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// Bytes of `text` that came from `{% generation %}` blocks, ascending.
    pub answers: Vec<Range<usize>>,
}

impl ChatTemplate {
    /// Compiles one template. `tokens` are special tokens by the name that templates use (`bos_token`).
    pub fn new(source: &str, tokens: Vec<(&'static str, String)>) -> Result<Self> {
        Self::named(vec![("default".into(), source.into())], tokens)
    }

    /// Compiles several templates; `default` is the usual one, `tool_use` is taken when there are tools.
    pub fn named(sources: Vec<(String, String)>, tokens: Vec<(&'static str, String)>) -> Result<Self> {
        let mut environment = environment().map_err(template_error)?;
        let (mut names, mut tracked) = (Vec::new(), false);
        for (name, source) in sources {
            let (source, found) = replace_generation(&source);
            tracked |= found;
            environment.add_template_owned(name.clone(), source).map_err(template_error)?;
            names.push(name);
        }
        Ok(Self { environment, names, tracked, tokens, variables: Vec::new() })
    }

    /// Fixes what `strftime_now` takes for now, in seconds since 1970 (UTC).
    #[must_use]
    pub fn at(mut self, seconds: i64) -> Self {
        self.environment
            .add_function("strftime_now", move |format: String| python::strftime(seconds, &format));
        self
    }

    /// Gives the template more variables, such as `enable_thinking`.
    ///
    /// # Errors
    /// A name that is a conversation's own, as `messages`.
    pub fn with_variables(mut self, variables: impl IntoIterator<Item = (String, Json)>) -> Result<Self> {
        self.variables = variables.into_iter().collect();
        let taken = ["messages", "tools", "documents", "add_generation_prompt"];
        match self.variables.iter().find(|(name, _)| taken.contains(&name.as_str())) {
            Some((name, _)) => Err(Error::Template { reason: format!("{name} is no free variable") }),
            None => Ok(self),
        }
    }

    /// Whether the template marks answers with `{% generation %}`.
    pub fn marks_answers(&self) -> bool {
        self.tracked
    }

    /// Renders a conversation. Messages and tools are passed to the template as they are.
    pub fn render(
        &self,
        messages: &[Json],
        tools: Option<&[Json]>,
        add_generation_prompt: bool,
    ) -> Result<Rendered> {
        let has = |name: &str| self.names.iter().any(|n| n == name);
        let name = match tools {
            Some(_) if has("tool_use") => "tool_use",
            _ if has("default") => "default",
            _ => {
                let reason = format!("none is named default; there are {}", self.names.join(", "));
                return Err(Error::Template { reason });
            }
        };
        let list = |values: &[Json]| Value::from(values.iter().map(value).collect::<Vec<_>>());
        let mut context = vec![
            ("messages", list(messages)),
            ("tools", tools.map_or_else(|| Value::from(()), list)),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
        ];
        context.extend(self.tokens.iter().map(|(name, text)| (*name, Value::from(text.as_str()))));
        context.extend(self.variables.iter().map(|(name, json)| (name.as_str(), value(json))));
        let template = self.environment.get_template(name).map_err(template_error)?;
        let mut out = Bounded(Vec::new());
        template.render_captured_to(Value::from_pairs(context), &mut out).map_err(template_error)?;
        Ok(unmark(&String::from_utf8_lossy(&out.0)))
    }
}

impl Tokenizer {
    /// The chat template of the directory: `chat_template.jinja` with those of `additional_chat_templates/`, else `chat_template` of `tokenizer_config.json`
    /// (one text, or a list of named ones), else `chat_template.json`. `None` if there is none.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>> {
        match self.template_sources()? {
            Some(sources) => ChatTemplate::named(sources, self.named_tokens()).map(Some),
            None => Ok(None),
        }
    }

    /// The templates by name, the usual one as `default`.
    pub(crate) fn template_sources(&self) -> Result<Option<Vec<(String, String)>>> {
        let file = |name: &str| self.files.iter().find(|(n, _)| n == name).map(|(_, bytes)| bytes.as_slice());
        if let Some(bytes) = file("chat_template.jinja") {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let more = self.files.iter().filter_map(|(path, bytes)| {
                let name = path.strip_prefix(ADDITIONAL)?.strip_suffix(".jinja")?;
                Some((name.to_owned(), text(bytes)))
            });
            return Ok(Some([("default".to_owned(), text(bytes))].into_iter().chain(more).collect()));
        }
        for name in ["tokenizer_config.json", "chat_template.json"] {
            let Some(bytes) = file(name) else { continue };
            let json: Json =
                serde_json::from_slice(bytes).map_err(|source| Error::Json { path: name.into(), source })?;
            return Ok(Some(match json.get("chat_template") {
                None | Some(Json::Null) => continue,
                Some(Json::String(source)) => vec![("default".to_owned(), source.clone())],
                Some(Json::Array(list)) => list.iter().filter_map(named_source).collect(),
                Some(Json::Object(map)) => {
                    map.iter().filter_map(|(n, s)| Some((n.clone(), s.as_str()?.to_owned()))).collect()
                }
                Some(_) => {
                    let reason = "chat_template must be a text or a list of named texts".into();
                    return Err(Error::Invalid { path: name.into(), reason });
                }
            }));
        }
        Ok(None)
    }

    /// The template for conversations where the model brings none: a line that names the role before each message, and
    /// the end-of-sequence token behind each answer.
    ///
    /// # Errors
    /// None in practice: the template is fixed.
    pub fn fallback_chat_template(&self) -> Result<ChatTemplate> {
        let front: String = self.prompt_ids("")?.into_iter().filter_map(|id| self.id_to_token(id)).collect();
        let mut tokens = self.named_tokens();
        tokens.push(("front", front));
        ChatTemplate::new(FALLBACK, tokens)
    }

    /// Gives the tokenizer a chat template; [`Tokenizer::save`] writes it as `chat_template.jinja`.
    pub fn set_chat_template(&mut self, source: &str) -> Result<()> {
        ChatTemplate::new(source, Vec::new())?;
        let templates = |name: &str| name.starts_with("chat_template.") || name.starts_with(ADDITIONAL);
        self.files.retain(|(name, _)| !templates(name));
        self.files.push(("chat_template.jinja".into(), source.as_bytes().to_vec()));
        Ok(())
    }

    /// Without its chat template, in none of its files.
    ///
    /// # Errors
    /// A tokenizer_config.json that is no JSON.
    pub fn without_chat_template(mut self) -> Result<Self> {
        let template = |name: &str| name.starts_with("chat_template.") || name.starts_with(ADDITIONAL);
        self.files.retain(|(name, _)| !template(name));
        for (name, bytes) in &mut self.files {
            if name != "tokenizer_config.json" {
                continue;
            }
            let parsed = serde_json::from_slice::<serde_json::Map<String, Json>>(bytes);
            let mut config = parsed.map_err(|source| Error::Json { path: name.clone().into(), source })?;
            // What has none is written byte for byte as it was.
            if config.shift_remove("chat_template").is_some() {
                let text = serde_json::to_vec_pretty(&config);
                *bytes = text.map_err(|source| Error::Json { path: name.clone().into(), source })?;
            }
        }
        Ok(self)
    }

    /// Special tokens by the names that templates use.
    fn named_tokens(&self) -> Vec<(&'static str, String)> {
        let ids = &self.special;
        [
            ("bos_token", ids.bos),
            ("eos_token", ids.eos),
            ("unk_token", ids.unk),
            ("sep_token", ids.sep),
            ("pad_token", ids.pad),
            ("cls_token", ids.cls),
            ("mask_token", ids.mask),
        ]
        .into_iter()
        .filter_map(|(name, id)| Some((name, self.id_to_token(id?)?)))
        .collect()
    }
}

fn named_source(entry: &Json) -> Option<(String, String)> {
    Some((entry.get("name")?.as_str()?.to_owned(), entry.get("template")?.as_str()?.to_owned()))
}

/// What a template writes, up to a bound.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MOST_BYTES {
            return Err(std::io::Error::other(format!("it writes more than {MOST_BYTES} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn environment() -> Result<Environment<'static>, JinjaError> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(MOST_STEPS));
    environment.set_recursion_limit(MOST_DEPTH);
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(|out, _, value| {
        out.write_str(&python::display(value)).map_err(|_| JinjaError::from(ErrorKind::WriteFailure))
    });
    environment.add_function("raise_exception", |text: String| -> Result<Value, JinjaError> {
        Err(JinjaError::new(ErrorKind::InvalidOperation, text))
    });
    environment.add_function("strftime_now", |format: String| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        python::strftime(i64::try_from(now).unwrap_or(i64::MAX), &format)
    });
    environment.add_filter("tojson", tojson);
    environment.add_function(
        "generation__",
        |state: &mut State, options: Kwargs| -> Result<String, JinjaError> {
            let caller: Value = options.get("caller")?;
            Ok(format!("{OPEN}{}{CLOSE}", caller.call(state, &[])?))
        },
    );
    Ok(environment)
}

/// `tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)` of `transformers`.
fn tojson(value: &Value, positional: Rest<Value>, options: Kwargs) -> Result<String, JinjaError> {
    let argument = |index: usize, name: &str| -> Result<Option<Value>, JinjaError> {
        let given = match positional.get(index) {
            Some(given) => Some(given.clone()),
            None => options.get::<Option<Value>>(name)?,
        };
        Ok(given.filter(|v| !v.is_none() && !v.is_undefined()))
    };
    let separators = match argument(2, "separators")? {
        Some(pair) => {
            let pair: Vec<String> = pair.try_iter()?.map(|v| v.to_string()).collect();
            match <[String; 2]>::try_from(pair) {
                Ok([between, after_key]) => Some((between, after_key)),
                Err(_) => return Err(JinjaError::new(ErrorKind::InvalidOperation, "separators: two texts")),
            }
        }
        None => None,
    };
    let style = python::JsonStyle {
        ensure_ascii: argument(0, "ensure_ascii")?.is_some_and(|v| v.is_true()),
        indent: argument(1, "indent")?.map(usize::try_from).transpose()?,
        separators,
        sort_keys: argument(3, "sort_keys")?.is_some_and(|v| v.is_true()),
    };
    options.assert_all_used()?;
    python::json(value, &style)
}

fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(b) => Value::from(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => Value::from(n),
            (None, Some(n)) => Value::from(n),
            (None, None) => Value::from(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(list) => Value::from(list.iter().map(value).collect::<Vec<_>>()),
        Json::Object(map) => Value::from_pairs(map.iter().map(|(k, v)| (k.as_str(), value(v)))),
    }
}

/// `{% generation %}` is a tag of `transformers`. A `call` block has the same scope and the same white space, and
/// its function may put marks around what it renders.
fn replace_generation(source: &str) -> (String, bool) {
    replace_tags(source, "call generation__()", "endcall")
}

/// A template for programs that do not know the tag, which renders the same.
pub(crate) fn without_generation_marks(source: &str) -> String {
    replace_tags(source, "if true", "endif").0
}

/// Other tags in the place of `generation` and its end, and whether there were any.
fn replace_tags(source: &str, open: &str, close: &str) -> (String, bool) {
    let (mut out, mut rest, mut found) = (String::with_capacity(source.len()), source, false);
    while let Some(at) = rest.find("{%") {
        let Some(length) = rest[at + 2..].find("%}") else { break };
        let inner = &rest[at + 2..at + 2 + length];
        let word = inner.trim_matches(['-', '+']).trim();
        out.push_str(&rest[..at + 2]);
        let replacement = match word {
            "generation" => Some(open),
            "endgeneration" => Some(close),
            _ => None,
        };
        match replacement {
            Some(replacement) => {
                out.push_str(&inner.replacen(word, &format!(" {replacement} "), 1));
                found = true;
            }
            None => out.push_str(inner),
        }
        rest = &rest[at + 2 + length..];
    }
    out.push_str(rest);
    (out, found)
}

/// Takes the marks out.
fn unmark(marked: &str) -> Rendered {
    let mut rendered = Rendered::default();
    let mut open = None;
    for c in marked.chars() {
        match c {
            OPEN => open = Some(rendered.text.len()),
            CLOSE => rendered.answers.extend(open.take().map(|start| start..rendered.text.len())),
            c => rendered.text.push(c),
        }
    }
    rendered
}

fn template_error(error: JinjaError) -> Error {
    let place = error.line().map(|line| format!("line {line}: ")).unwrap_or_default();
    let detail = error.detail().map_or_else(|| error.to_string(), str::to_owned);
    Error::Template { reason: format!("{place}{detail}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_prints_and_json() {
        let source = "{{ none }} {{ true }} {{ [1, 'a', 1.5] }} {{ undefined_name }}{{ messages[0] | tojson }}\n\
                      {{ messages[0] | tojson(indent=2) }} {{ strftime_now('%Y') }}";
        let template = ChatTemplate::new(source, Vec::new()).unwrap().at(0);
        let text = template.render(&[message("user", "é\"<")], None, false).unwrap().text;
        assert_eq!(
            text,
            "None True [1, 'a', 1.5] {\"role\": \"user\", \"content\": \"é\\\"<\"}\n\
             {\n  \"role\": \"user\",\n  \"content\": \"é\\\"<\"\n} 1970"
        );
    }

    #[test]
    fn variables_reach_the_template_and_cannot_replace_the_conversation() {
        let template =
            ChatTemplate::new("{% if think is defined and think %}t{% else %}f{% endif %}", vec![]);
        let template = template.unwrap();
        let with = |v: bool| template.clone().with_variables([("think".to_owned(), v.into())]).unwrap();
        let text = |t: &ChatTemplate| t.render(&[], None, false).unwrap().text;
        assert_eq!([text(&template), text(&with(true)), text(&with(false))], ["f", "t", "f"]);
        assert!(template.with_variables([("messages".to_owned(), true.into())]).is_err());
    }

    #[test]
    fn generation_blocks_are_tracked() {
        let source = "{% for m in messages %}<{{ m.role }}>\n{%- generation %}{{ m.content }}{% endgeneration -%}\n!{% endfor %}";
        let rendered = ChatTemplate::new(source, Vec::new()).unwrap().render(
            &[message("a", "né"), message("b", "x")],
            None,
            false,
        );
        let rendered = rendered.unwrap();
        assert_eq!(rendered.text, "<a>né!<b>x!");
        let answers: Vec<&str> = rendered.answers.iter().map(|r| &rendered.text[r.clone()]).collect();
        assert_eq!(answers, ["né", "x"]);
    }

    #[test]
    fn templates_without_an_end_are_errors() {
        for source in [
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "{% set x = messages[0].content %}{% for a in range(90000) %}{{ x }}{{ x }}{{ x }}{{ x }}{% endfor %}",
        ] {
            let template = ChatTemplate::new(source, Vec::new()).unwrap();
            let long = "a long text ".repeat(100);
            let error = template.render(&[message("user", &long)], None, false).unwrap_err().to_string();
            assert!(error.starts_with("chat template: "), "{error}");
        }
    }

    #[test]
    fn a_template_may_refuse() {
        let template =
            ChatTemplate::new("\n{{ raise_exception('roles must alternate') }}", Vec::new()).unwrap();
        let error = template.render(&[], None, false).unwrap_err().to_string();
        assert_eq!(error, "chat template: line 2: roles must alternate");
    }
}
