//! Passwords of users: how they are kept and which are good enough. Logins are checked against a slow hash
//! (Argon2id); databases, where AUTH has to be quick, against SHA-256 as Redis does.

use argon2::Argon2;
use aws_lc_rs::{constant_time, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::{Digest, Sha256};

use crate::answer::Refusal;

const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;

/// A password longer than this only costs time.
const LONGEST: usize = 1024;

/// `$argon2id$v=19$m=19456,t=2,p=1$salt$hash #sha256`: what is kept of a password. Takes some 20 ms and 19 MiB
/// on purpose. What stands behind the blank is for databases that the user has a role on.
pub fn hash(password: &str) -> Result<String, Refusal> {
    let mut salt = [0; SALT_BYTES];
    rand::fill(&mut salt).map_err(|_| no_randomness())?;
    let hash = derive(password, &salt).ok_or_else(no_randomness)?;
    let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash));
    let digest = carnelian_tls::hex(&Sha256::digest(password.as_bytes()));
    Ok(format!("{PREFIX}{salt}${hash} #{digest}"))
}

/// The parameters are the library's defaults, which are those that OWASP asks for.
const PREFIX: &str = "$argon2id$v=19$m=19456,t=2,p=1$";

/// Whether this is the password of which `kept` was kept.
pub fn verify(password: &str, kept: &str) -> bool {
    let kept = kept.split(' ').next().unwrap_or_default();
    let parts = kept.strip_prefix(PREFIX).and_then(|rest| rest.split_once('$'));
    let Some((salt, hash)) = parts else { return false };
    let (Ok(salt), Ok(hash)) = (STANDARD_NO_PAD.decode(salt), STANDARD_NO_PAD.decode(hash)) else {
        return false;
    };
    derive(password, &salt)
        .is_some_and(|found| constant_time::verify_slices_are_equal(&found, &hash).is_ok())
}

/// Takes as long as [`verify`] does: for users that do not exist, so that time does not tell.
pub fn waste_time(password: &str) {
    let _ = derive(password, &[0; SALT_BYTES]);
}

fn derive(password: &str, salt: &[u8]) -> Option<[u8; HASH_BYTES]> {
    let mut hash = [0; HASH_BYTES];
    let password = password.as_bytes().get(..LONGEST).unwrap_or(password.as_bytes());
    Argon2::default().hash_password_into(password, salt, &mut hash).ok()?;
    Some(hash)
}

fn no_randomness() -> Refusal {
    Refusal::new(500, "internal_error", "The password could not be hashed")
}

/// What the cluster asks of new passwords.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rules {
    /// `password_complexity`
    pub complex: bool,
    /// `password_min_length`
    pub min_length: usize,
}

/// Refuses a password that is too simple.
pub fn judge(password: &str, rules: Rules, email: &str) -> Result<(), Refusal> {
    let weak = |why: &str| Err(Refusal::new(400, "password_not_complex", why));
    if password.is_empty() {
        return weak("The password is empty");
    }
    if LONGEST < password.len() {
        return weak("The password is longer than 1024 bytes");
    }
    if !rules.complex {
        return Ok(());
    }
    if password.chars().count() < rules.min_length {
        return weak("The password is too short");
    }
    let has = |kind: fn(&char) -> bool| password.chars().any(|character| kind(&character));
    let kinds = has(|c| c.is_lowercase())
        && has(|c| c.is_uppercase())
        && has(|c| c.is_ascii_digit())
        && has(|c| !c.is_alphanumeric());
    if !kinds {
        return weak(
            "The password needs a small and a capital letter, a digit, and another character",
        );
    }
    let ends_badly = |first: bool| {
        let character = if first { password.chars().next() } else { password.chars().last() };
        character.is_some_and(|c| c.is_ascii_digit() && !first || c.is_uppercase() && first)
    };
    if ends_badly(true) && ends_badly(false) {
        return weak("The password may not begin with a capital letter and end with a digit");
    }
    let name = email.split('@').next().unwrap_or_default().to_lowercase();
    let backwards: String = name.chars().rev().collect();
    let lower = password.to_lowercase();
    if 2 < name.len() && (lower.contains(&name) || lower.contains(&backwards)) {
        return weak("The password may not contain the user's name");
    }
    let characters: Vec<_> = password.chars().collect();
    if characters.windows(4).any(|run| run.iter().all(|c| c == &run[0])) {
        return weak("The password may not repeat a character more than three times");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_recognised_and_another_is_not() {
        let kept = hash("secret").unwrap();
        assert!(!kept.contains("secret"));
        assert!(verify("secret", &kept));
        assert!(!verify("Secret", &kept));
        assert!(!verify("secret", "secret"));
        assert!(!verify("secret", ""));
        assert_ne!(kept, hash("secret").unwrap(), "salted");
    }

    #[test]
    fn simple_passwords_are_refused_where_that_is_asked_for() {
        let strict = Rules { complex: true, min_length: 8 };
        let code = |password| judge(password, strict, "anna@example.com").err().map(|e| e.code);
        assert_eq!(code("kR7!kpqz-w"), None);
        let weak = [
            "",
            "kR7!",
            "alllowercase1!",
            "Anna7!xyzzy-",
            "kR7!aaaa-w",
            "NOLOWER7!",
            "Passw0rd!x9",
        ];
        for password in weak {
            assert_eq!(code(password).as_deref(), Some("password_not_complex"), "{password}");
        }
        let lax = Rules { complex: false, min_length: 8 };
        assert_eq!(judge("x", lax, ""), Ok(()));
        assert!(judge("", lax, "").is_err());
        assert!(judge(&"x".repeat(2000), lax, "").is_err());
    }
}
