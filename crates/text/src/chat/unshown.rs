//! What a conversation has and its template does not show.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::ChatTemplate;
use crate::Result;

/// Keys of a message that are no part of what is said: whether it is learned, and what links a result to its call.
const NOT_SAID: [&str; 6] = ["role", "content", "weight", "train", "tool_call_id", "id"];

/// Roles for which not every template has a place.
const ROLES: [&str; 4] = ["system", "developer", "tool", "function"];

impl ChatTemplate {
    /// What a conversation has and the template does not show, with how often: the text is the same without it. Named as
    /// `tools`, as `reasoning_content` and other keys of messages, as `messages of the role tool`.
    ///
    /// # Errors
    /// A conversation that the template refuses.
    pub fn unshown(&self, messages: &[Json], tools: Option<&[Json]>) -> Result<BTreeMap<String, usize>> {
        let mut out = BTreeMap::new();
        let usual = |m: &Json| {
            !ROLES.iter().any(|role| m["role"] == *role)
                && m.as_object().is_none_or(|m| m.keys().all(|key| NOT_SAID.contains(&key.as_str())))
        };
        if tools.is_none() && messages.iter().all(usual) {
            return Ok(out);
        }
        let whole = self.render(messages, tools, false)?.text;
        // What a template refuses to do without is not ignored.
        let same = |messages: &[Json], tools: Option<&[Json]>| {
            self.render(messages, tools, false).is_ok_and(|other| other.text == whole)
        };
        if tools.is_some() && same(messages, None) {
            out.insert("tools".to_owned(), 1);
        }
        for role in ROLES {
            let others: Vec<Json> = messages.iter().filter(|m| m["role"] != role).cloned().collect();
            if others.len() < messages.len() && !others.is_empty() && same(&others, tools) {
                out.insert(format!("messages of the role {role}"), messages.len() - others.len());
            }
        }
        let keys = messages.iter().filter_map(Json::as_object).flat_map(|m| m.keys().map(String::as_str));
        let keys: std::collections::BTreeSet<&str> = keys.filter(|key| !NOT_SAID.contains(key)).collect();
        for key in keys {
            let places: Vec<usize> = (0..messages.len()).filter(|&i| says(messages[i].get(key))).collect();
            let lacks = |places: &[usize]| {
                let mut messages = messages.to_vec();
                for &i in places {
                    if let Some(message) = messages[i].as_object_mut() {
                        message.shift_remove(key);
                    }
                }
                same(&messages, tools)
            };
            let ignored = match places.len() {
                0 => 0,
                n if lacks(&places) => n,
                1 => 0,
                // Some are shown: which is seen one by one.
                _ => places.iter().filter(|&&i| lacks(&[i])).count(),
            };
            if ignored > 0 {
                out.insert(key.to_owned(), ignored);
            }
        }
        Ok(out)
    }
}

fn says(value: Option<&Json>) -> bool {
    match value {
        None | Some(Json::Null) => false,
        Some(Json::String(text)) => !text.trim().is_empty(),
        Some(Json::Array(list)) => !list.is_empty(),
        Some(Json::Object(map)) => !map.is_empty(),
        Some(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message;
    use serde_json::json;

    fn unshown(template: &str, messages: &[Json], tools: Option<&[Json]>) -> Vec<(String, usize)> {
        ChatTemplate::new(template, vec![]).unwrap().unshown(messages, tools).unwrap().into_iter().collect()
    }

    #[test]
    fn what_makes_no_difference_is_counted() {
        let thought = |thought: &str| json!({"role": "assistant", "content": "a", "reasoning_content": thought, "weight": 0});
        let call = json!({"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]});
        let result = json!({"role": "tool", "tool_call_id": "1", "content": "r", "name": "f"});
        let messages = [
            message("user", "q"),
            thought("x"),
            message("user", "p"),
            call,
            result,
            thought("y"),
            thought(""),
        ];
        let tools = [json!({"name": "f"})];
        let plain = "{% for m in messages if m.role != 'tool' %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
        let name = |name: &str, n: usize| (name.to_owned(), n);
        assert_eq!(
            unshown(plain, &messages, Some(&tools)),
            [
                name("messages of the role tool", 1),
                name("name", 1),
                name("reasoning_content", 2),
                name("tool_calls", 1),
                name("tools", 1)
            ]
        );
        // Reasoning of later turns alone is shown.
        let all = "{{ tools }}{% for m in messages %}{{ m.role }}: {{ m.content }} {{ m.tool_calls }} {{ m.name }}\
                   {% if loop.index0 > 2 %}{{ m.reasoning_content }}{% endif %}\n{% endfor %}";
        assert_eq!(unshown(all, &messages, Some(&tools)), [name("reasoning_content", 1)]);
        assert_eq!(unshown(plain, &messages[..1], None), []);
    }
}
