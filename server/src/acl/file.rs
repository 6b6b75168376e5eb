//! Users in files: those of `aclfile`, and the `user` lines of the configuration.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use carnelian_config::{Config, Line};

use super::Acl;
use super::rule::{RuleError, has_spaces};
use super::selector::Rules;
use super::user::{DEFAULT, SetUserError, User};
use crate::listener::reason;
use crate::registry::Registry;
use crate::{log, settings};

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
) -> std::result::Result<Users, Vec<u8>> {
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
) -> std::result::Result<Users, Vec<u8>> {
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

/// The users a server starts with.
pub fn at_start(config: &Config, lines: &[Line], registry: &Registry) -> Result<Acl> {
    let acl = Acl::new(registry);
    acl.set_default_password(settings::password(config));
    let all_channels = config.acl_pubsub_default == "allchannels";
    let file = settings::given(&config.aclfile);
    if file.is_some() && !lines.is_empty() {
        anyhow::bail!(
            "Configuring Redis with users defined in redis.conf and at the same setting an ACL \
             file path is invalid. This setup is very likely to lead to configuration errors and \
             security holes, please define either an ACL file or declare users directly in your \
             redis.conf, but not both."
        );
    }
    for line in lines {
        let [_, name, words @ ..] = line.words.as_slice() else { continue };
        let shown = String::from_utf8_lossy(name);
        if has_spaces(name) {
            anyhow::bail!("Spaces not allowed in ACL usernames");
        }
        let mut all: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        if **name == *DEFAULT {
            all.insert(0, b"reset");
        }
        match acl.set(name, &all, all_channels) {
            Ok((_, user)) if !user.enabled => log::notice!(
                "The user '{shown}' is disabled (there is no 'on' modifier in the user \
                 description). Make sure this is not a configuration error."
            ),
            Ok(_) => {}
            Err(SetUserError::Unmatched(word)) => {
                let word = String::from_utf8_lossy(&word);
                return Err(line
                    .error(format!(
                        "Error in user declaration '{shown}': Unmatched parenthesis in acl \
                         selector starting at '{word}'."
                    ))
                    .into());
            }
            Err(SetUserError::Rule { error, .. }) => {
                let reason = format!("Error in user declaration '{shown}': {error}");
                return Err(line.error(reason).into());
            }
        }
    }
    if let Some(path) = file {
        acl.load(path, all_channels).map_err(|problem| {
            let problem = String::from_utf8_lossy(&problem).into_owned();
            anyhow!("Aborting Redis startup because of ACL errors: {problem}")
        })?;
    }
    Ok(acl)
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
