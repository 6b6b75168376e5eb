//! The words of a command: keywords and values in any order, switches, databases, nodes.

use std::collections::VecDeque;

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use crate::http::Client;

/// What is left of a command.
#[derive(Debug)]
pub struct Words(VecDeque<String>);

impl Words {
    pub fn new(words: Vec<String>) -> Self {
        Self(words.into())
    }

    /// The words of a line; quotes keep blanks together.
    pub fn of_line(line: &str) -> anyhow::Result<Vec<String>> {
        let mut words = Vec::new();
        let mut word: Option<String> = None;
        let mut quote = None;
        for character in line.chars() {
            match quote {
                Some(end) if character == end => quote = None,
                None if character == '"' || character == '\'' => {
                    quote = Some(character);
                    word.get_or_insert_default();
                }
                None if character.is_whitespace() => words.extend(word.take()),
                _ => word.get_or_insert_default().push(character),
            }
        }
        if quote.is_some() {
            bail!("a quote is not closed");
        }
        words.extend(word);
        Ok(words)
    }

    pub fn next(&mut self) -> Option<String> {
        self.0.pop_front()
    }

    /// The next word, which has to be there.
    pub fn expect(&mut self, what: &str) -> anyhow::Result<String> {
        self.next().with_context(|| format!("{what} is missing"))
    }

    pub fn peek(&self) -> Option<&str> {
        self.0.front().map(String::as_str)
    }

    /// Takes a keyword if it comes next.
    pub fn take(&mut self, keyword: &str) -> bool {
        let is_next = self.peek().is_some_and(|word| word.eq_ignore_ascii_case(keyword));
        if is_next {
            self.0.pop_front();
        }
        is_next
    }

    /// Nothing may be left.
    pub fn end(&self) -> anyhow::Result<()> {
        match self.peek() {
            None => Ok(()),
            Some(word) => bail!("{word:?} is not understood here"),
        }
    }

    /// The values after a keyword, up to the next of `keywords`: for those that take several.
    pub fn values(&mut self, keywords: &[&str]) -> Vec<String> {
        let mut values = Vec::new();
        while let Some(word) = self.peek()
            && !keywords.contains(&word)
        {
            values.extend(self.next());
        }
        values
    }
}

/// `enable`, `enabled`, `disable`, `disabled`.
pub fn switch(word: &str) -> anyhow::Result<bool> {
    match word.to_ascii_lowercase().as_str() {
        "enable" | "enabled" | "true" | "yes" | "on" => Ok(true),
        "disable" | "disabled" | "false" | "no" | "off" => Ok(false),
        _ => bail!("{word:?} is neither enabled nor disabled"),
    }
}

/// `enabled` or `disabled`: how switches are printed.
pub fn switched(on: bool) -> &'static str {
    if on { "enabled" } else { "disabled" }
}

/// A value for a setting, of the type that the setting has now.
pub fn typed(name: &str, word: &str, current: &Value) -> anyhow::Result<Value> {
    Ok(match current {
        Value::Bool(_) => json!(switch(word).with_context(|| name.to_owned())?),
        Value::Number(_) => {
            let number: i64 =
                word.parse().with_context(|| format!("{name}: {word:?} is not a number"))?;
            json!(number)
        }
        Value::Array(_) => {
            let items = word.split(',').filter(|item| !item.is_empty());
            items.collect::<Vec<_>>().into()
        }
        _ => json!(word),
    })
}

/// Reads `key value` pairs into the members of an object whose current values are known. `alias` names the
/// member that a key stands for where they differ.
pub fn settings(
    words: &mut Words,
    current: &Value,
    alias: impl Fn(&str) -> Option<&'static str>,
) -> anyhow::Result<Map<String, Value>> {
    let mut changes = Map::new();
    while let Some(key) = words.next() {
        let name = alias(&key).unwrap_or(&key);
        let Some(known) = current.get(name) else { bail!("there is no setting {key:?}") };
        let word = words.expect(&format!("the value of {key}"))?;
        changes.insert(name.to_owned(), typed(&key, &word, known)?);
    }
    if changes.is_empty() {
        bail!("a setting and its value are missing");
    }
    Ok(changes)
}

/// The uid of a database: `db:7`, `7`, or a name. Digits are a uid first, and a name if there is no such uid.
pub fn database(client: &Client, word: &str) -> anyhow::Result<u64> {
    let all = client.get("/v1/bdbs?fields=uid,name")?;
    let all: Vec<(u64, &str)> = all
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|it| Some((it["uid"].as_u64()?, it["name"].as_str()?)))
        .collect();
    find(&all, word).with_context(|| format!("there is no database {word:?}"))
}

fn find(all: &[(u64, &str)], word: &str) -> Option<u64> {
    if let Some(uid) = word.strip_prefix("db:") {
        let uid = uid.parse().ok()?;
        return all.iter().any(|(known, _)| *known == uid).then_some(uid);
    }
    let by_uid = word.parse().ok().filter(|uid| all.iter().any(|(known, _)| known == uid));
    by_uid.or_else(|| all.iter().find(|(_, name)| *name == word).map(|(uid, _)| *uid))
}

/// The uid of a node: `node:2` or `2`.
pub fn node(word: &str) -> anyhow::Result<u64> {
    let digits = word.strip_prefix("node:").unwrap_or(word);
    digits.parse().with_context(|| format!("{word:?} is no node"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_found_by_uid_and_by_name() {
        let all = [(1, "cache"), (7, "9"), (9, "queue")];
        for (word, uid) in
            [("db:1", Some(1)), ("1", Some(1)), ("cache", Some(1)), ("9", Some(9)), ("db:8", None)]
        {
            assert_eq!(find(&all, word), uid, "{word}");
        }
        assert_eq!(find(&[(7, "9")], "9"), Some(7), "a name of digits, if there is no such uid");
        assert_eq!(find(&all, "db:x"), None);
    }

    #[test]
    fn switches_have_two_spellings() {
        for word in ["enable", "enabled", "ENABLED"] {
            assert!(switch(word).unwrap());
        }
        for word in ["disable", "disabled"] {
            assert!(!switch(word).unwrap());
        }
        assert!(switch("maybe").is_err());
    }

    #[test]
    fn values_have_the_type_of_what_they_replace() {
        let current = json!({"a": true, "n": 1, "s": "x", "l": []});
        let parse = |line: &str| {
            let words = line.split_whitespace().map(str::to_owned).collect();
            let alias = |key: &str| (key == "other").then_some("a");
            settings(&mut Words::new(words), &current, alias).map(Value::Object)
        };
        let changes = parse("n 5 a disable s true l 1,2").unwrap();
        assert_eq!(changes, json!({"n": 5, "a": false, "s": "true", "l": ["1", "2"]}));
        assert_eq!(parse("other enable").unwrap(), json!({"a": true}));
        for wrong in ["", "n", "n x", "nothing 1", "a 5"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lines_are_cut_into_words() {
        assert_eq!(Words::of_line("tune  db 'my db' x").unwrap(), ["tune", "db", "my db", "x"]);
        assert!(Words::of_line("a 'b").is_err());
    }
}
