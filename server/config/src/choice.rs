//! Values that are one of a few words, as enums.

use crate::kind::{self, Kind, Reason};
use crate::value::Value;

/// An enum whose variants are written as words. The first word of a variant is the one shown.
macro_rules! choices {
    ($(
        $(#[$doc:meta])*
        $name:ident { $($(#[$variant_doc:meta])* $($word:literal)|+ => $variant:ident,)* }
    )*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// The words that are accepted, in the order in which errors list them.
            pub const WORDS: &[&str] = &[$($($word,)+)*];
            const VALUES: &[(Self, &str)] = &[$($((Self::$variant, $word),)+)*];

            pub fn word(self) -> &'static str {
                let found = Self::VALUES.iter().find(|(value, _)| *value == self);
                found.map_or("", |(_, word)| word)
            }
        }

        impl Value for $name {
            fn read(_: &Kind, words: &[&[u8]]) -> Result<Self, Reason> {
                let found = match words {
                    [word] => Self::VALUES
                        .iter()
                        .find(|(_, name)| name.as_bytes().eq_ignore_ascii_case(word)),
                    _ => None,
                };
                let value = found.map(|(value, _)| *value);
                value.ok_or_else(|| kind::none_of(Self::WORDS.iter().copied()))
            }

            fn shown(&self, _: &Kind) -> Vec<u8> {
                self.word().as_bytes().to_vec()
            }
        }
    )* };
}

choices! {
    /// `loglevel`: the least important lines that are logged.
    LogLevel {
        "debug" => Debug,
        "verbose" => Verbose,
        "notice" => Notice,
        "warning" => Warning,
        "nothing" => Nothing,
    }

    /// `maxmemory-policy`: which keys go when memory is full.
    EvictionPolicy {
        "volatile-lru" => VolatileLru,
        "volatile-lfu" => VolatileLfu,
        "volatile-random" => VolatileRandom,
        "volatile-ttl" => VolatileTtl,
        "allkeys-lru" => AllkeysLru,
        "allkeys-lfu" => AllkeysLfu,
        "allkeys-random" => AllkeysRandom,
        "noeviction" => NoEviction,
    }

    /// `supervised`: who is told that the server is ready.
    Supervised {
        "upstart" => Upstart,
        "systemd" => Systemd,
        /// Whichever of both the environment speaks of.
        "auto" => Auto,
        "no" => No,
    }

    /// Whether something that needs trust is allowed.
    Allow {
        "no" => No,
        "yes" => Yes,
        /// Only to clients on the loopback interface or a Unix socket.
        "local" => Local,
    }

    /// `tls-auth-clients`: whether TLS clients must bring a certificate.
    ClientCertificates {
        "no" => No,
        "yes" => Required,
        /// Checked if there is one.
        "optional" => Optional,
    }

    /// `transit-encryption-mode`: what the shared port speaks.
    TransitEncryption {
        /// TLS and plaintext, by the first byte of a connection.
        "preferred" => Preferred,
        /// TLS only.
        "required" => Required,
        /// Plaintext only.
        "disabled" => Disabled,
    }

    /// `cluster-bootstrap`: what a node does that is in no cluster.
    ClusterBootstrap {
        /// It makes one of itself.
        "auto" => Auto,
        /// It waits to be told.
        "manual" => Manual,
    }

    /// `oom-score-adj`: whether and how the kernel's out-of-memory scores are set.
    OomScoreMode {
        "no" => No,
        "yes" | "relative" => Relative,
        "absolute" => Absolute,
    }

    /// `appendfsync`: when the append-only file is flushed to disk.
    AppendFsync {
        "everysec" => EverySecond,
        "always" => Always,
        "no" => No,
    }
}

impl Allow {
    /// Whether a client may, given whether it is on this machine.
    pub fn permits(self, client_is_local: bool) -> bool {
        self == Self::Yes || self == Self::Local && client_is_local
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_in_any_case_and_shown_by_their_first_name() {
        let kind = Kind::Word(OomScoreMode::WORDS);
        let mode = OomScoreMode::read(&kind, &[b"RELATIVE"]).unwrap();
        assert_eq!((mode, mode.word()), (OomScoreMode::Relative, "yes"));
        assert_eq!(
            OomScoreMode::read(&kind, &[b"maybe"]).unwrap_err(),
            "argument(s) must be one of the following: no, yes, relative, absolute"
        );
        assert!(LogLevel::read(&kind, &[b"debug", b"verbose"]).is_err());
    }

    #[test]
    fn local_permission_depends_on_the_client() {
        assert!(Allow::Local.permits(true) && !Allow::Local.permits(false));
        assert!(Allow::Yes.permits(false) && !Allow::No.permits(true));
    }
}
