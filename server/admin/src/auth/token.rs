//! Tokens that stand for a password for some minutes: JSON web tokens signed with HMAC-SHA256.
//!
//! Only this one algorithm is made and taken: a token's header is compared, not obeyed.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// Longest life one can ask for.
pub const LONGEST_S: i64 = 86_400;
/// Life of a token for which nobody named one.
pub const DEFAULT_S: i64 = 300;

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// What a token says.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Claims {
    /// The user's uid.
    pub sub: u32,
    pub iat: i64,
    pub exp: i64,
    /// When the user's password was set. A token of an older password is void.
    pub pwd: String,
}

/// The key with which a cluster signs.
pub struct Signer(hmac::Key);

impl Signer {
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    pub fn sign(&self, claims: &Claims) -> String {
        let claims = serde_json::to_vec(claims).unwrap_or_default();
        let head = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(claims));
        let tag = hmac::sign(&self.0, head.as_bytes());
        format!("{head}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    /// The claims of a token of this cluster that is still good.
    pub fn verify(&self, token: &str, now_s: i64) -> Option<Claims> {
        let (head, tag) = token.rsplit_once('.')?;
        let (header, claims) = head.split_once('.')?;
        if header != URL_SAFE_NO_PAD.encode(HEADER) {
            return None;
        }
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        hmac::verify(&self.0, head.as_bytes(), &tag).ok()?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        (now_s < claims.exp).then_some(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims { sub: 3, iat: 1000, exp: 1300, pwd: "x".into() }
    }

    #[test]
    fn a_token_is_good_until_it_ends() {
        let signer = Signer::new(b"a secret of the cluster");
        let token = signer.sign(&claims());
        assert_eq!(signer.verify(&token, 1299), Some(claims()));
        assert_eq!(signer.verify(&token, 1300), None);
    }

    #[test]
    fn forged_tokens_are_refused() {
        let signer = Signer::new(b"a secret of the cluster");
        let token = signer.sign(&claims());
        assert_eq!(Signer::new(b"another").verify(&token, 1000), None);
        let parts: Vec<_> = token.split('.').collect();
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        let more = URL_SAFE_NO_PAD.encode(r#"{"sub":1,"iat":0,"exp":9999999999,"pwd":"x"}"#);
        for forged in [
            format!("{none}.{}.", parts[1]),
            format!("{none}.{}.{}", parts[1], parts[2]),
            format!("{}.{more}.{}", parts[0], parts[2]),
            format!("{}.{}", parts[0], parts[1]),
            String::new(),
            "a.b.c".into(),
        ] {
            assert_eq!(signer.verify(&forged, 1000), None, "{forged}");
        }
    }
}
