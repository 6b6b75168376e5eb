//! Users in files: those of `aclfile`, and the `user` lines of the configuration.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::rule::{RuleError, has_spaces};
use super::selector::Rules;
use super::user::{DEFAULT, SetUserError, User};
use crate::listener::reason;

/// Users by name.
pub type Users = BTreeMap<Box<[u8]>, Arc<User>>;

/// Longest file; a device that never ends must not fill the memory.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Reads a file of users: all of them, or what is wrong with it, in one line. `new_id` gives users
/// their ids.
pub fn load(
    path: &Path,
    rules: Rules<'_>,
    new_id: impl FnMut() -> u64,
) -> Result<Users, Vec<u8>> {
    use std::io::Read;

    let mut text = Vec::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text));
    let problem = match read {
        Err(error) => reason(&error),
        Ok(count) if FILE_BYTES_MAX < count as u64 => "File too large".to_owned(),
        Ok(_) => return parse(&path.to_string_lossy(), &text, rules, new_id),
    };
    let text = format!("Error loading ACLs, opening file '{}': {problem}", path.display());
    Err(text.into_bytes())
}

/// Reads the text of such a file, `name` being what it is called in messages.
pub fn parse(
    name: &str,
    text: &[u8],
    rules: Rules<'_>,
    mut new_id: impl FnMut() -> u64,
) -> Result<Users, Vec<u8>> {
    let mut users = Users::new();
    let mut problems: Vec<u8> = Vec::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let place = format!("{name}:{}", index + 1);
        let mut complain = |parts: &[&[u8]]| problems.extend(parts.concat());
        let line = trim(line);
        if line.is_empty() {
            continue;
        }
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let [b"user", name, words @ ..] = words.as_slice() else {
            let text = " should start with user keyword followed by the username. ";
            complain(&[place.as_bytes(), text.as_bytes()]);
            continue;
        };
        if has_spaces(name) {
            let place = format!("'{place}: username '");
            complain(&[place.as_bytes(), name, b"' contains invalid characters. "]);
            continue;
        }
        if users.contains_key(*name) {
            let place = format!("' found on line {}. ", index + 1);
            complain(&[b"WARNING: Duplicate user '", name, place.as_bytes()]);
            continue;
        }
        let mut user = User::new(rules, name, new_id());
        let words: Vec<&[u8]> = words.iter().map(|word| trim(word)).collect();
        match user.apply_all(rules, &words) {
            Ok(()) => {}
            Err(SetUserError::Unmatched(_)) => {
                let text = ": Unmatched parenthesis in selector definition.";
                complain(&[place.as_bytes(), text.as_bytes()]);
            }
            // A name is no secret, and what was meant can be seen from it.
            Err(SetUserError::Rule { word, error: error @ RuleError::Unknown }) => {
                let before = format!("{place}: Error in applying operation '");
                let after = format!("': {error}. ");
                complain(&[before.as_bytes(), &word, after.as_bytes()]);
            }
            Err(SetUserError::Rule { error, .. }) => {
                complain(&[format!("{place}: {error}. ").as_bytes()]);
            }
        }
        users.insert((*name).into(), Arc::new(user));
    }
    if !problems.is_empty() {
        problems.extend_from_slice(
            b"WARNING: ACL errors detected, no change to the previously active ACL rules was \
              performed",
        );
        return Err(problems);
    }
    if !users.contains_key(DEFAULT) {
        let user = User::open(rules, DEFAULT, new_id());
        users.insert(DEFAULT.into(), Arc::new(user));
    }
    Ok(users)
}

fn trim(mut word: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..]
    | [rest @ .., b' ' | b'\t' | b'\r' | b'\n'] = word
    {
        word = rest;
    }
    word
}

/// The text of a file with these users.
pub fn text<'u>(users: impl Iterator<Item = &'u Arc<User>>) -> Vec<u8> {
    let mut text = Vec::new();
    for user in users {
        text.extend(user.line());
        text.push(b'\n');
    }
    text
}
