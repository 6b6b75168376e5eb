//! `tls-protocols`, `tls-ciphers` and `tls-ciphersuites`: OpenSSL's words, which is what operators
//! have in their files, turned into what the engine offers.
//!
//! The engine has neither CBC nor static RSA nor anything older than TLS 1.2. A list that names
//! such things among others works with the others, as it would with an OpenSSL built without them;
//! a list with nothing left is refused when it is set, not at some client's handshake.

use rustls::crypto::aws_lc_rs::cipher_suite as suite;
use rustls::{CipherSuite, SupportedCipherSuite, SupportedProtocolVersion, version};

use crate::error::ConfigError;

/// Everything a configuration can offer for TLS 1.2: OpenSSL's name, the engine's suite, and the
/// groups of OpenSSL it belongs to (beyond those all of these belong to). In order of preference.
const TLS12: [Suite12; 6] = [
    Suite12 {
        name: "ECDHE-ECDSA-AES256-GCM-SHA384",
        suite: suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        groups: &["ECDSA", "aECDSA", "AES", "AES256", "AESGCM", "SHA384", "SUITEB192"],
    },
    Suite12 {
        name: "ECDHE-RSA-AES256-GCM-SHA384",
        suite: suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        groups: &["RSA", "aRSA", "AES", "AES256", "AESGCM", "SHA384"],
    },
    Suite12 {
        name: "ECDHE-ECDSA-AES128-GCM-SHA256",
        suite: suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        groups: &["ECDSA", "aECDSA", "AES", "AES128", "AESGCM", "SHA256"],
    },
    Suite12 {
        name: "ECDHE-RSA-AES128-GCM-SHA256",
        suite: suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        groups: &["RSA", "aRSA", "AES", "AES128", "AESGCM", "SHA256"],
    },
    Suite12 {
        name: "ECDHE-ECDSA-CHACHA20-POLY1305",
        suite: suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        groups: &["ECDSA", "aECDSA", "CHACHA20", "SHA256"],
    },
    Suite12 {
        name: "ECDHE-RSA-CHACHA20-POLY1305",
        suite: suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        groups: &["RSA", "aRSA", "CHACHA20", "SHA256"],
    },
];

/// Groups that hold all of the above.
const ALL_OF_THEM: &[&str] = &[
    "ALL",
    "DEFAULT",
    "COMPLEMENTOFALL",
    "HIGH",
    "FIPS",
    "TLSv1.2",
    "AEAD",
    "ECDHE",
    "EECDH",
    "kECDHE",
    "kEECDH",
    "ECDH",
    "PFS",
];

const TLS13: [SupportedCipherSuite; 3] = [
    suite::TLS13_AES_256_GCM_SHA384,
    suite::TLS13_AES_128_GCM_SHA256,
    suite::TLS13_CHACHA20_POLY1305_SHA256,
];

struct Suite12 {
    name: &'static str,
    suite: SupportedCipherSuite,
    groups: &'static [&'static str],
}

impl Suite12 {
    fn is_in(&self, word: &str) -> bool {
        self.name == word
            || iana_name(self.suite.suite()) == word
            || ALL_OF_THEM.contains(&word)
            || self.groups.contains(&word)
    }
}

/// A list understood, with the words that meant nothing here.
#[derive(Debug)]
pub(crate) struct Parsed<T> {
    pub(crate) chosen: Vec<T>,
    pub(crate) ignored: Vec<String>,
}

/// `tls-protocols`; empty means both.
pub(crate) fn protocols(
    text: &str,
) -> Result<Parsed<&'static SupportedProtocolVersion>, ConfigError> {
    let (mut tls12, mut tls13, mut ignored) = (false, false, Vec::new());
    for word in text.split_whitespace() {
        match word.to_ascii_lowercase().as_str() {
            "tlsv1.2" => tls12 = true,
            "tlsv1.3" => tls13 = true,
            "tlsv1" | "tlsv1.1" => ignored.push(word.to_owned()),
            _ => {
                return Err(ConfigError::Protocols(format!(
                    "'{word}' is not a protocol: use a combination of 'TLSv1.2' and 'TLSv1.3'"
                )));
            }
        }
    }
    if !tls12 && !tls13 {
        if !ignored.is_empty() {
            return Err(ConfigError::Protocols(format!(
                "{} is no longer secure and not supported: add 'TLSv1.2' or 'TLSv1.3'",
                ignored.join(" and ")
            )));
        }
        (tls12, tls13) = (true, true);
    }
    let chosen = [(tls13, &version::TLS13), (tls12, &version::TLS12)];
    let chosen = chosen.into_iter().filter_map(|(wanted, version)| wanted.then_some(version));
    Ok(Parsed { chosen: chosen.collect(), ignored })
}

/// `tls-ciphers`, by the rules of OpenSSL's cipher lists; empty means all.
pub(crate) fn tls12(text: &str) -> Result<Parsed<SupportedCipherSuite>, ConfigError> {
    let all: Vec<usize> = (0..TLS12.len()).collect();
    if text.trim().is_empty() {
        return Ok(Parsed { chosen: suites(&all), ignored: Vec::new() });
    }
    let mut chosen: Vec<usize> = Vec::new();
    let mut banned: Vec<usize> = Vec::new();
    let mut ignored = Vec::new();
    for word in text.split([':', ',', ';', ' ']).filter(|word| !word.is_empty()) {
        if word.eq_ignore_ascii_case("@STRENGTH") {
            chosen.sort_by_key(|place| {
                !TLS12[*place].is_in("AES256") && !TLS12[*place].is_in("CHACHA20")
            });
            continue;
        }
        if word.starts_with('@') {
            continue; // @SECLEVEL and the like: the engine's level is fixed, and above them
        }
        let (action, parts) = match word.split_at_checked(1) {
            Some((action @ ("!" | "-" | "+"), rest)) => (action, rest),
            _ => ("", word),
        };
        let matching: Vec<usize> = all
            .iter()
            .copied()
            .filter(|place| parts.split('+').all(|part| TLS12[*place].is_in(part)))
            .collect();
        match action {
            "!" => {
                chosen.retain(|place| !matching.contains(place));
                banned.extend(matching);
            }
            "-" => chosen.retain(|place| !matching.contains(place)),
            "+" => {
                let (moved, kept) = chosen.iter().partition(|place| matching.contains(place));
                let (moved, mut kept): (Vec<usize>, Vec<usize>) = (moved, kept);
                kept.extend(moved);
                chosen = kept;
            }
            _ => {
                if matching.is_empty() {
                    ignored.push(word.to_owned());
                }
                for place in matching {
                    if !chosen.contains(&place) && !banned.contains(&place) {
                        chosen.push(place);
                    }
                }
            }
        }
    }
    if chosen.is_empty() {
        let names = TLS12.map(|suite| suite.name).join(":");
        return Err(ConfigError::Ciphers(format!(
            "none of '{text}' is supported; supported are {names}"
        )));
    }
    Ok(Parsed { chosen: suites(&chosen), ignored })
}

/// `tls-ciphersuites`; empty means all.
pub(crate) fn tls13(text: &str) -> Result<Parsed<SupportedCipherSuite>, ConfigError> {
    let mut parsed = Parsed { chosen: Vec::new(), ignored: Vec::new() };
    for word in text.split([':', ',', ' ']).filter(|word| !word.is_empty()) {
        match TLS13.iter().find(|suite| name(suite.suite()).eq_ignore_ascii_case(word)) {
            Some(suite) if !parsed.chosen.contains(suite) => parsed.chosen.push(*suite),
            Some(_) => {}
            None => parsed.ignored.push(word.to_owned()),
        }
    }
    if !parsed.chosen.is_empty() {
        return Ok(parsed);
    }
    if !parsed.ignored.is_empty() {
        let names = TLS13.map(|suite| name(suite.suite())).join(":");
        return Err(ConfigError::Ciphersuites(format!(
            "none of '{text}' is supported; supported are {names}"
        )));
    }
    Ok(Parsed { chosen: TLS13.to_vec(), ignored: Vec::new() })
}

/// The words of two such lists, for TLS 1.2 and for 1.3, that mean nothing here; an error if no suite is left.
pub fn unknown_suites(older: &str, newer: &str) -> Result<Vec<String>, ConfigError> {
    Ok([tls12(older)?.ignored, tls13(newer)?.ignored].concat())
}

/// What OpenSSL, and so `redis-cli` and every log, calls a suite.
pub fn name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        _ => TLS12.iter().find(|known| known.suite.suite() == suite).map_or("", |known| known.name),
    }
}

/// Whether a client that offers this can be shown an ECDSA certificate. TLS 1.3 suites go with any
/// key; those of TLS 1.2 name theirs.
pub(crate) fn suits_ecdsa(suite: CipherSuite) -> bool {
    TLS13.iter().any(|known| known.suite() == suite)
        || TLS12.iter().any(|known| known.suite.suite() == suite && known.is_in("ECDSA"))
}

fn iana_name(suite: CipherSuite) -> &'static str {
    suite.as_str().unwrap_or("")
}

fn suites(places: &[usize]) -> Vec<SupportedCipherSuite> {
    places.iter().map(|place| TLS12[*place].suite).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<&'static str> {
        tls12(text).unwrap().chosen.iter().map(|suite| name(suite.suite())).collect()
    }

    #[test]
    fn cipher_lists_mean_what_openssl_means_by_them() {
        assert_eq!(names("").len(), 6);
        for all in ["DEFAULT", "ALL", "HIGH:!aNULL:!MD5", "ALL:!aNULL:!eNULL@STRENGTH", "ECDHE"] {
            assert_eq!(names(all).len(), 6, "{all}");
        }
        assert_eq!(
            names("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"),
            ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"]
        );
        assert_eq!(names("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"), ["ECDHE-RSA-AES128-GCM-SHA256"]);
        assert_eq!(
            names("ECDHE+AESGCM:!ECDSA"),
            ["ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256"]
        );
        assert_eq!(names("DEFAULT:!AES:!aRSA"), ["ECDHE-ECDSA-CHACHA20-POLY1305"]);
        assert_eq!(names("CHACHA20:-aRSA:aRSA+CHACHA20:!ECDSA"), ["ECDHE-RSA-CHACHA20-POLY1305"]);
        assert_eq!(names("!AES:ALL").len(), 2);
        assert_eq!(names("ALL:+AES").first(), Some(&"ECDHE-ECDSA-CHACHA20-POLY1305"));
    }

    #[test]
    fn what_is_not_supported_is_left_out_or_refused_if_all_there_is() {
        let parsed = tls12("AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:DHE+AESGCM").unwrap();
        assert_eq!(parsed.chosen.len(), 1);
        assert_eq!(parsed.ignored, ["AES256-GCM-SHA384", "DHE+AESGCM"]);
        for none in
            ["AES256-GCM-SHA384", "foo", "DEFAULT:!ALL", "ECDHE-RSA-AES256-SHA384", ":", "!", "+"]
        {
            let error = tls12(none).unwrap_err().to_string();
            assert!(error.starts_with("tls-ciphers: none of"), "{error}");
        }

        let parsed = tls13("TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_CCM_SHA256").unwrap();
        assert_eq!((parsed.chosen.len(), parsed.ignored.len()), (1, 1));
        assert_eq!(tls13("").unwrap().chosen.len(), 3);
        assert!(tls13("TLS_AES_128_CCM_SHA256").is_err());
    }

    #[test]
    fn old_protocols_are_refused_only_when_alone() {
        let chosen = |text| protocols(text).unwrap().chosen;
        assert_eq!(chosen(""), [&version::TLS13, &version::TLS12]);
        assert_eq!(chosen("TLSv1.2"), [&version::TLS12]);
        assert_eq!(chosen("tlsv1.1 TLSV1.3"), [&version::TLS13]);
        let error = protocols("TLSv1 TLSv1.1").unwrap_err().to_string();
        assert!(error.contains("no longer secure"), "{error}");
        assert!(protocols("TLSv1.4").unwrap_err().to_string().contains("'TLSv1.4'"));
    }
}
