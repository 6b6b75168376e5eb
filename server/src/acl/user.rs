//! A user: how it is known, and what it may do. Users do not change: another takes its place.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::rule::{RuleError, merge_selectors};
use super::selector::{Rules, Selector};

/// The user of connections that have not said who they are.
pub const DEFAULT: &[u8] = b"default";

/// SHA-256 of a password.
type PasswordHash = [u8; 32];

#[derive(Clone, Debug)]
pub struct User {
    pub name: Box<[u8]>,
    /// Tells a user from another of the same name that came after it.
    pub(super) id: u64,
    pub enabled: bool,
    /// `nopass`: any password will do.
    pub any_password: bool,
    /// `certonly`: known by a client certificate, and by no password.
    pub certificate_only: bool,
    skips_sanitizing: bool,
    passwords: Vec<PasswordHash>,
    /// The user's own permissions first, then the selectors attached to it.
    selectors: Vec<Selector>,
    unrestricted: bool,
}

/// Why rules are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetUserError {
    /// A selector that begins with this word does not end.
    Unmatched(Vec<u8>),
    Rule {
        word: Vec<u8>,
        error: RuleError,
    },
}

impl User {
    /// One that may do nothing, and that nobody can be.
    pub fn new(rules: Rules<'_>, name: &[u8], id: u64) -> Self {
        Self {
            name: name.into(),
            id,
            enabled: false,
            any_password: false,
            certificate_only: false,
            skips_sanitizing: false,
            passwords: Vec::new(),
            selectors: vec![Selector::new(rules)],
            unrestricted: false,
        }
    }

    /// One that may do everything, and that everybody is.
    pub fn open(rules: Rules<'_>, name: &[u8], id: u64) -> Self {
        let mut user = Self::new(rules, name, id);
        for rule in ["+@all", "~*", "&*", "on", "nopass"] {
            user.apply(rules, rule.as_bytes()).expect("the rule is known");
        }
        user
    }

    /// Applies the words of ACL SETUSER, of a line of a file. After an error the user is to be
    /// thrown away.
    pub fn apply_all(&mut self, rules: Rules<'_>, words: &[&[u8]]) -> Result<(), SetUserError> {
        let merged =
            merge_selectors(words).map_err(|word| SetUserError::Unmatched(word.to_vec()))?;
        for word in merged {
            self.apply(rules, &word)
                .map_err(|error| SetUserError::Rule { word: word.to_vec(), error })?;
        }
        Ok(())
    }

    /// Applies one rule; a selector counts as one.
    pub fn apply(&mut self, rules: Rules<'_>, word: &[u8]) -> Result<(), RuleError> {
        let applied = self.apply_unsettled(rules, word);
        self.unrestricted = self.selectors.iter().any(Selector::is_unrestricted);
        applied
    }

    fn apply_unsettled(&mut self, rules: Rules<'_>, word: &[u8]) -> Result<(), RuleError> {
        let is = |known: &str| word.eq_ignore_ascii_case(known.as_bytes());
        match word {
            b"" => {}
            _ if is("on") => self.enabled = true,
            _ if is("off") => self.enabled = false,
            _ if is("skip-sanitize-payload") => self.skips_sanitizing = true,
            _ if is("sanitize-payload") => self.skips_sanitizing = false,
            _ if is("certonly") => self.certificate_only = true,
            _ if is("nocertonly") => self.certificate_only = false,
            _ if is("nopass") => {
                self.any_password = true;
                self.passwords.clear();
            }
            _ if is("resetpass") => self.reset_passwords(),
            [b'>', password @ ..] => self.add_password(hash(password)),
            [b'#', hex @ ..] => self.add_password(parse_hash(hex)?),
            [b'<', password @ ..] => self.remove_password(hash(password))?,
            [b'!', hex @ ..] => self.remove_password(parse_hash(hex)?)?,
            [b'(', text @ .., b')'] => self.selectors.push(Selector::parse(rules, text)?),
            _ if is("clearselectors") => self.selectors.truncate(1),
            _ if is("reset") => *self = Self::new(rules, &self.name, self.id),
            _ => self.selectors[0].apply(rules, word)?,
        }
        Ok(())
    }

    fn reset_passwords(&mut self) {
        self.any_password = false;
        self.passwords.clear();
    }

    fn add_password(&mut self, hash: PasswordHash) {
        if !self.passwords.contains(&hash) {
            self.passwords.push(hash);
        }
        self.any_password = false;
    }

    fn remove_password(&mut self, hash: PasswordHash) -> Result<(), RuleError> {
        let index = self.passwords.iter().position(|known| *known == hash);
        self.passwords.remove(index.ok_or(RuleError::NoSuchPassword)?);
        Ok(())
    }

    /// `requirepass`: the only password, or none that is needed.
    pub fn set_only_password(&mut self, password: Option<&[u8]>) {
        self.reset_passwords();
        match password {
            Some(password) => self.add_password(hash(password)),
            None => self.any_password = true,
        }
    }

    /// Whether a client with this password is this user. Takes as long for any wrong one.
    pub fn accepts(&self, password: &[u8]) -> bool {
        if !self.enabled || self.certificate_only {
            return false;
        }
        self.any_password || {
            let given = hash(password);
            let matches = |known: &PasswordHash| {
                let differ = known.iter().zip(&given).fold(0, |bits, (a, b)| bits | (a ^ b));
                std::hint::black_box(differ) == 0
            };
            self.passwords.iter().fold(false, |found, known| found | matches(known))
        }
    }

    /// Whether this is the same user, be it before a change or after it.
    pub fn is_same(&self, other: &Self) -> bool {
        self.id == other.id
    }

    /// Whether connections are this user without having said so.
    pub fn is_open(&self) -> bool {
        self.enabled && self.any_password && !self.certificate_only
    }

    /// Whether nothing is forbidden, so that nothing has to be checked.
    #[inline]
    pub fn is_unrestricted(&self) -> bool {
        self.unrestricted
    }

    pub fn selectors(&self) -> &[Selector] {
        &self.selectors
    }

    /// The words before the passwords.
    pub fn flags(&self) -> impl Iterator<Item = &'static str> {
        let sanitizing =
            if self.skips_sanitizing { "skip-sanitize-payload" } else { "sanitize-payload" };
        [
            Some(if self.enabled { "on" } else { "off" }),
            self.any_password.then_some("nopass"),
            self.certificate_only.then_some("certonly"),
            Some(sanitizing),
        ]
        .into_iter()
        .flatten()
    }

    /// The hashes in hexadecimal, which is all that is known of the passwords.
    pub fn passwords(&self) -> impl ExactSizeIterator<Item = String> {
        self.passwords.iter().map(|hash| {
            hash.iter().fold(String::with_capacity(64), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
        })
    }

    /// Everything but the name, as rules that make the same user.
    pub fn describe(&self) -> Vec<u8> {
        let mut parts: Vec<Vec<u8>> = self.flags().map(|flag| flag.as_bytes().to_vec()).collect();
        parts.extend(self.passwords().map(|hash| format!("#{hash}").into_bytes()));
        for (index, selector) in self.selectors.iter().enumerate() {
            let text = selector.describe();
            parts.push(if index == 0 { text } else { [b"(", &*text, b")"].concat() });
        }
        parts.join(&b' ')
    }

    /// The name and the rules, word by word.
    pub fn words(&self) -> Vec<Vec<u8>> {
        let rules = self.describe();
        let rules = rules.split(|byte| *byte == b' ').map(<[u8]>::to_vec);
        [self.name.to_vec()].into_iter().chain(rules).collect()
    }

    /// `user NAME rule ...`, as files have it.
    pub fn line(&self) -> Vec<u8> {
        [b"user ", &*self.name, b" ", &self.describe()].concat()
    }
}

fn hash(password: &[u8]) -> PasswordHash {
    Sha256::digest(password).into()
}

fn parse_hash(hex: &[u8]) -> Result<PasswordHash, RuleError> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut hash = PasswordHash::default();
    let (pairs, rest) = hex.as_chunks::<2>();
    if pairs.len() != hash.len() || !rest.is_empty() {
        return Err(RuleError::BadHash);
    }
    for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
        let digits = digit(*high).zip(digit(*low)).ok_or(RuleError::BadHash)?;
        *byte = digits.0 << 4 | digits.1;
    }
    Ok(hash)
}
