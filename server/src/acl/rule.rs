//! What the words of a rule can be wrong about, and how they are put together.

/// Why a rule is refused. `Display` is what Redis says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    #[error("Unknown command or category name in ACL")]
    Unknown,
    #[error("Syntax error")]
    Syntax,
    #[error(
        "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not \
         have any effect. Try 'resetkeys' to start with an empty list of patterns"
    )]
    AllKeys,
    #[error(
        "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does \
         not have any effect. Try 'resetchannels' to start with an empty list of channels"
    )]
    AllChannels,
    #[error("The password you are trying to remove from the user does not exist")]
    NoSuchPassword,
    #[error(
        "The password hash must be exactly 64 characters and contain only lowercase hexadecimal \
         characters"
    )]
    BadHash,
    #[error("Allowing first-arg of a subcommand is not supported")]
    FirstOfSub,
    #[error("The provided database ID is out of range")]
    DatabaseOutOfRange,
}

/// Whether a name or a pattern would break the lines in which rules are kept.
pub fn has_spaces(word: &[u8]) -> bool {
    word.iter().any(|byte| matches!(byte, b' ' | b'\t'..=b'\r' | 0))
}

/// Puts selectors together that were given as several words. The error is the word that opens one
/// that is never closed.
pub fn merge_selectors<'w>(
    words: &[&'w [u8]],
) -> Result<Vec<std::borrow::Cow<'w, [u8]>>, &'w [u8]> {
    let mut merged: Vec<std::borrow::Cow<'w, [u8]>> = Vec::with_capacity(words.len());
    let mut open: Option<(&'w [u8], Vec<u8>)> = None;
    for &word in words {
        match &mut open {
            None if word.starts_with(b"(") && !word.ends_with(b")") => {
                open = Some((word, word.to_vec()));
            }
            None => merged.push(word.into()),
            Some((_, text)) => {
                text.push(b' ');
                text.extend_from_slice(word);
                if word.ends_with(b")")
                    && let Some((_, text)) = open.take()
                {
                    merged.push(text.into());
                }
            }
        }
    }
    match open {
        None => Ok(merged),
        Some((first, _)) => Err(first),
    }
}
