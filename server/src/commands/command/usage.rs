//! How commands are used: `usage.txt`, read when COMMAND DOCS asks for it and never before.

use std::collections::HashMap;
use std::str::FromStr;

use thiserror::Error;

const TEXT: &str = include_str!("usage.txt");

/// What `usage.txt` says of one command.
#[derive(Debug, Default, PartialEq)]
pub struct Usage {
    pub arguments: Vec<Argument>,
    /// Not for clients.
    pub is_internal: bool,
    pub deprecated: Option<Deprecated>,
    /// Versions, and what came with each.
    pub history: Vec<(&'static str, &'static str)>,
}

#[derive(Debug, PartialEq)]
pub struct Deprecated {
    pub since: &'static str,
    pub replaced_by: &'static str,
}

#[derive(Debug, PartialEq)]
pub struct Argument {
    pub name: String,
    pub kind: Kind,
    /// The word that goes before it or, of a [`Kind::Word`], that it is.
    pub token: Option<&'static str>,
    /// What to show for it, where that is not its name.
    pub display: Option<&'static str>,
    /// Which of the command's key specifications finds it.
    pub key_spec: Option<usize>,
    pub is_optional: bool,
    pub may_repeat: bool,
    pub repeats_token: bool,
    pub since: Option<&'static str>,
    pub deprecated_since: Option<&'static str>,
}

#[derive(Debug, PartialEq)]
pub enum Kind {
    String,
    Integer,
    Double,
    Key,
    Pattern,
    UnixTime,
    Word,
    OneOf(Vec<Argument>),
    Block(Vec<Argument>),
}

impl Kind {
    /// As clients know it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Double => "double",
            Self::Key => "key",
            Self::Pattern => "pattern",
            Self::UnixTime => "unix-time",
            Self::Word => "pure-token",
            Self::OneOf(_) => "oneof",
            Self::Block(_) => "block",
        }
    }
}

/// Where in the text of which command something is not understood.
#[derive(Debug, Error, PartialEq)]
#[error("{command}: expected {expected} at {rest:?}")]
pub struct UsageError {
    command: &'static str,
    expected: &'static str,
    rest: &'static str,
}

/// The text of each command by its name, `container|sub` for a subcommand.
#[derive(Debug)]
pub struct Usages(HashMap<&'static str, &'static str>);

impl Usages {
    pub fn read() -> Self {
        let mut texts = HashMap::new();
        let mut rest = TEXT;
        while !rest.is_empty() {
            let (text, next) = rest.split_at(length_of_first(rest));
            rest = next;
            if !text.starts_with(['#', '\n']) {
                let name = text.split_whitespace().next().unwrap_or_default();
                texts.insert(name, text);
            }
        }
        Self(texts)
    }

    /// How a command is used. `None` if the text does not say.
    pub fn find(&self, name: &str) -> Option<Result<Usage, UsageError>> {
        self.0.get(name).map(|text| read_one(text))
    }
}

/// How far the first line goes with those that belong to it.
fn length_of_first(text: &str) -> usize {
    let ends = text.match_indices('\n').map(|(at, _)| at + 1);
    let is_end = |&end: &usize| !text[end..].starts_with(' ');
    ends.into_iter().find(is_end).unwrap_or(text.len())
}

fn read_one(text: &'static str) -> Result<Usage, UsageError> {
    let (name, rest) = text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()));
    let is_note = |line: &str| line.trim_start().starts_with(['!', '-', '+']);
    let notes_at: usize =
        rest.split_inclusive('\n').take_while(|line| !is_note(line)).map(str::len).sum();
    let (arguments, notes) = rest.split_at(notes_at);
    let mut reader = Reader { command: name, rest: arguments, keys: 0 };
    let mut usage = Usage { arguments: reader.all("")?, ..Usage::default() };
    for note in notes.lines().map(str::trim_start) {
        let fail = || UsageError { command: name, expected: "a sign and a version", rest: note };
        let (sign, note) = note.split_once(' ').ok_or_else(fail)?;
        if sign == "!" {
            usage.is_internal = true;
            continue;
        }
        let (version, text) = note.split_once(' ').ok_or_else(fail)?;
        match sign {
            "-" => usage.deprecated = Some(Deprecated { since: version, replaced_by: text }),
            "+" => usage.history.push((version, text)),
            _ => return Err(fail()),
        }
    }
    Ok(usage)
}

/// What is left to read of a command's arguments.
struct Reader {
    command: &'static str,
    rest: &'static str,
    /// The key specifications that arguments have been found for.
    keys: usize,
}

impl Reader {
    /// All arguments up to one of the characters `ends`, or to the end of the text. Those of a
    /// [`Kind::OneOf`] stand between bars.
    fn all(&mut self, ends: &str) -> Result<Vec<Argument>, UsageError> {
        let mut arguments = Vec::new();
        loop {
            self.rest = self.rest.trim_start();
            if ends == ">" && !arguments.is_empty() && self.takes("|") {
                self.rest = self.rest.trim_start();
            }
            if self.rest.is_empty() || self.rest.starts_with(|next| ends.contains(next)) {
                return Ok(arguments);
            }
            arguments.push(self.argument()?);
        }
    }

    fn argument(&mut self) -> Result<Argument, UsageError> {
        if self.takes("[") {
            let mut argument = self.argument()?;
            argument.is_optional = true;
            self.needs("]")?;
            return Ok(argument);
        }
        let mut token = None;
        let mut name = self.word()?;
        if self.takes("=") {
            token = Some(name);
            name = self.word()?;
        }
        let display = if self.rest.starts_with('"') { Some(self.word()?) } else { None };
        let mut key_spec = None;
        let kind = if self.takes("<") {
            let choices = self.all(">")?;
            self.needs(">")?;
            Kind::OneOf(choices)
        } else if self.takes("(") {
            let parts = self.all(")")?;
            self.needs(")")?;
            Kind::Block(parts)
        } else if self.takes(":") {
            let is_quoted = self.rest.starts_with('"');
            let word = self.word()?;
            let kind = if is_quoted { Kind::Word } else { kind_of(word) };
            if kind == Kind::Word {
                token = Some(word);
            }
            if self.takes("/") {
                let digits = self.word()?;
                key_spec = Some(usize::from_str(digits).map_err(|_| self.expected("a number"))?);
            } else if kind == Kind::Key {
                key_spec = Some(self.keys);
            }
            if let (Kind::Key, Some(spec)) = (&kind, key_spec) {
                self.keys = spec + 1;
            }
            kind
        } else if is_spoken(name) {
            token = Some(name);
            Kind::Word
        } else {
            Kind::String
        };
        let mut argument = Argument {
            name: name.to_lowercase(),
            kind,
            token,
            display,
            key_spec,
            is_optional: false,
            may_repeat: false,
            repeats_token: false,
            since: None,
            deprecated_since: None,
        };
        argument.repeats_token = self.takes("&");
        argument.may_repeat = self.takes("...");
        while self.takes("@") {
            match self.takes("-") {
                true => argument.deprecated_since = Some(self.version()?),
                false => argument.since = Some(self.version()?),
            }
        }
        Ok(argument)
    }

    fn takes(&mut self, sign: &str) -> bool {
        let rest = self.rest.strip_prefix(sign);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn needs(&mut self, sign: &'static str) -> Result<(), UsageError> {
        if self.takes(sign) { Ok(()) } else { Err(self.expected(sign)) }
    }

    /// A name, or anything in quotes.
    fn word(&mut self) -> Result<&'static str, UsageError> {
        if self.takes("\"") {
            let (word, rest) = self.rest.split_once('"').ok_or_else(|| self.expected("\""))?;
            self.rest = rest;
            return Ok(word);
        }
        match self.take_while(|letter| letter.is_ascii_alphanumeric() || letter == '-') {
            "" => Err(self.expected("a name")),
            word => Ok(word),
        }
    }

    fn version(&mut self) -> Result<&'static str, UsageError> {
        match self.take_while(|letter| letter.is_ascii_digit() || letter == '.') {
            "" => Err(self.expected("a version")),
            version => Ok(version),
        }
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> &'static str {
        let end = self.rest.find(|letter| !belongs(letter)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    const fn expected(&self, expected: &'static str) -> UsageError {
        UsageError { command: self.command, expected, rest: self.rest }
    }
}

/// Whether a word is said as it stands, rather than the name of something.
fn is_spoken(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_uppercase())
}

fn kind_of(word: &str) -> Kind {
    match word {
        "integer" => Kind::Integer,
        "double" => Kind::Double,
        "key" => Kind::Key,
        "pattern" => Kind::Pattern,
        "unix-time" => Kind::UnixTime,
        _ => Kind::Word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    fn read(text: &'static str) -> Usage {
        read_one(text).expect("it is well-formed")
    }

    #[test]
    fn every_command_has_its_line_and_every_line_its_command() {
        let usages = Usages::read();
        let registry = Registry::new(&[]);
        for entry in registry.entries() {
            let name = &entry.full_name;
            usages.find(name).expect(name).expect(name);
        }
        let known = |name: &&str| registry.entries().iter().any(|entry| entry.full_name == **name);
        let unknown: Vec<_> = usages.0.keys().filter(|name| !known(name)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    /// Commands that take other numbers of words than their arguments say.
    const LOOSE: &[&str] = &["client|kill", "psync", "quit"];

    #[test]
    fn arguments_agree_with_the_number_of_words() {
        let usages = Usages::read();
        let mut wrong = Vec::new();
        for entry in Registry::new(&[]).entries() {
            let name = &entry.full_name;
            let usage = usages.find(name).expect(name).expect(name);
            if !entry.subcommands.is_empty() || usage.is_internal {
                continue;
            }
            let (fewest, may_be_more) = words(&usage.arguments);
            let fewest = fewest + 1 + usize::from(entry.container.is_some());
            let arity = fewest as i32 * if may_be_more { -1 } else { 1 };
            if entry.arity != arity && !LOOSE.contains(&&**name) {
                wrong.push(format!("{name}: {}, not {arity}", entry.arity));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// The fewest words that arguments take, and whether there may be more.
    fn words(arguments: &[Argument]) -> (usize, bool) {
        arguments
            .iter()
            .map(words_of_one)
            .fold((0, false), |(sum, more), one| (sum + one.0, more || one.1))
    }

    fn words_of_one(argument: &Argument) -> (usize, bool) {
        let (fewest, may_be_more) = match &argument.kind {
            Kind::Word => (0, false),
            Kind::Block(parts) => words(parts),
            Kind::OneOf(choices) => {
                let each: Vec<_> = choices.iter().map(words_of_one).collect();
                let fewest = each.iter().map(|one| one.0).min().unwrap_or(0);
                (fewest, each.iter().any(|one| one.1 || one.0 != fewest))
            }
            _ => (1, false),
        };
        let fewest = fewest + usize::from(argument.token.is_some());
        match argument.is_optional {
            true => (0, true),
            false => (fewest, may_be_more || argument.may_repeat),
        }
    }

    #[test]
    fn what_a_line_says_is_read() {
        let usage = read(
            "name key:key [BY=by\"pattern\":pattern/2&...@6.2.0] how<NX|soft:\"~\" |\n    \
             pair(count:integer at:unix-time)...> other:key id@-3.0.0\n  \
             ! internal\n  - 4.0.0 `OTHER` word\n  + 3.2.0 It's `NEW`.\n",
        );
        let names: Vec<_> = usage.arguments.iter().map(|argument| &argument.name[..]).collect();
        assert_eq!(names, ["key", "by", "how", "other", "id"]);
        let [key, by, how, other, id] = &usage.arguments[..] else { unreachable!() };
        assert_eq!((&key.kind, key.key_spec, key.is_optional), (&Kind::Key, Some(0), false));
        assert_eq!((by.token, by.display, by.key_spec), (Some("BY"), Some("pattern"), Some(2)));
        assert!(by.is_optional && by.may_repeat && by.repeats_token);
        assert_eq!((by.since, &by.kind), (Some("6.2.0"), &Kind::Pattern));
        let Kind::OneOf(choices) = &how.kind else { panic!("{how:?}") };
        let [nx, soft, pair] = &choices[..] else { panic!("{choices:?}") };
        assert_eq!((&nx.name[..], nx.token, &nx.kind), ("nx", Some("NX"), &Kind::Word));
        assert_eq!((&soft.name[..], soft.token, &soft.kind), ("soft", Some("~"), &Kind::Word));
        let Kind::Block(parts) = &pair.kind else { panic!("{pair:?}") };
        assert_eq!((parts.len(), &parts[1].kind), (2, &Kind::UnixTime));
        assert!(pair.may_repeat && !pair.repeats_token);
        assert_eq!(
            (other.key_spec, &id.kind, id.deprecated_since),
            (Some(1), &Kind::String, Some("3.0.0"))
        );
        assert!(usage.is_internal);
        let deprecated = Deprecated { since: "4.0.0", replaced_by: "`OTHER` word" };
        assert_eq!(usage.deprecated, Some(deprecated));
        assert_eq!(usage.history, [("3.2.0", "It's `NEW`.")]);
    }

    #[test]
    fn what_is_not_understood_is_told() {
        for text in ["a [b", "a b<c", "a b(c", "a \"b", "a b:key/x", "a =b", "a b@", "a b\n  + 1"] {
            assert!(read_one(text).is_err(), "{text}");
        }
    }
}
