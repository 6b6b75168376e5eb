//! What is known about a directive, and the macro that makes [`Config`] out of the table.

use crate::Config;
use crate::kind::Kind;
use crate::table::TABLE;
use crate::value::AnyValue;

/// When a directive may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// By CONFIG SET too.
    AnyTime,
    /// By the configuration file and the arguments only.
    StartOnly,
}

/// Whether the server acts on a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Obeyed,
    /// Accepted, checked and kept for a feature that is yet to come.
    Later,
}

/// CONFIG SET needs `enable-protected-configs`.
pub(crate) const PROTECTED: u8 = 1;
/// CONFIG GET shows it only by its exact name.
pub(crate) const HIDDEN: u8 = 2;
/// The value is a secret, to be kept out of logs.
pub(crate) const SENSITIVE: u8 = 4;
/// Setting it again to the same value has an effect: what it names may have changed.
pub(crate) const VOLATILE: u8 = 8;

/// One row of the table.
pub struct Directive {
    pub id: DirectiveId,
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    pub kind: Kind,
    /// What is built in, as a line of the configuration file would have it.
    pub default: &'static str,
    pub when: When,
    pub status: Status,
    pub(crate) flags: u8,
    pub(crate) value: fn(&Config) -> &dyn AnyValue,
    pub(crate) value_mut: fn(&mut Config) -> &mut dyn AnyValue,
}

pub use crate::table::DirectiveId;

impl Directive {
    /// The directive of this name or alias, in upper or lower case.
    pub fn find(name: &[u8]) -> Option<&'static Self> {
        let is_name = |known: &str| known.as_bytes().eq_ignore_ascii_case(name);
        TABLE.iter().find(|directive| directive.names().any(is_name))
    }

    /// All directives, in the order of `redis.conf.example`.
    pub fn all() -> &'static [Self] {
        TABLE
    }

    /// Its name and its aliases.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }

    pub fn is_protected(&self) -> bool {
        self.flags & PROTECTED != 0
    }

    pub fn is_hidden(&self) -> bool {
        self.flags & HIDDEN != 0
    }

    pub fn is_sensitive(&self) -> bool {
        self.flags & SENSITIVE != 0
    }

    pub(crate) fn is_volatile(&self) -> bool {
        self.flags & VOLATILE != 0
    }
}

impl DirectiveId {
    pub fn directive(self) -> &'static Directive {
        &TABLE[self as usize]
    }

    pub fn name(self) -> &'static str {
        self.directive().name
    }
}

/// Makes [`Config`], its defaults, [`DirectiveId`] and the table from rows such as
/// `port: u16 = "6379", int(0, 65535), AnyTime, Obeyed;`.
macro_rules! directives {
    ($(
        $field:ident: $type:ty = $default:literal, $kind:expr,
        $when:ident $(+ $flag:ident)*, $status:ident $(, $alias:literal)*;
    )*) => {
        /// The whole configuration: a field for every directive.
        ///
        /// It is a plain value. A change is made on a clone, which takes the place of the original
        /// once everything that depends on it has followed.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config {
            $(pub $field: $type,)*
            /// Directives that an included file has set: a rewritten file must set them after it.
            pub included: std::collections::BTreeSet<DirectiveId>,
        }

        impl Default for Config {
            fn default() -> Self {
                Self {
                    $($field: $crate::directive::built_in($default, &$kind),)*
                    included: std::collections::BTreeSet::new(),
                }
            }
        }

        /// Names a directive. The variants are the names of the fields of [`Config`], which
        /// are those of the directives with `_` for `-`.
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DirectiveId { $($field,)* }

        pub(crate) static TABLE: &[$crate::directive::Directive] = &[$(
            $crate::directive::Directive {
                id: DirectiveId::$field,
                name: {
                    const FIELD: &str = stringify!($field);
                    const NAME: [u8; FIELD.len()] = $crate::directive::dashed(FIELD);
                    match std::str::from_utf8(&NAME) {
                        Ok(name) => name,
                        Err(_) => FIELD,
                    }
                },
                aliases: &[$($alias),*],
                kind: $kind,
                default: $default,
                when: $crate::directive::When::$when,
                status: $crate::directive::Status::$status,
                flags: 0 $(| $flag)*,
                value: |config| &config.$field,
                value_mut: |config| &mut config.$field,
            },
        )*];
    };
}

pub(crate) use directives;

/// The name of a directive, from that of its field.
pub(crate) const fn dashed<const LENGTH: usize>(field: &str) -> [u8; LENGTH] {
    let bytes = field.as_bytes();
    let mut name = [0; LENGTH];
    let mut place = 0;
    while place < LENGTH {
        name[place] = if bytes[place] == b'_' { b'-' } else { bytes[place] };
        place += 1;
    }
    name
}

/// A default of the table as a value.
pub(crate) fn built_in<T: crate::value::Value>(default: &str, kind: &Kind) -> T {
    let words: Vec<&[u8]> = match kind.is_list() {
        true => default.split_ascii_whitespace().map(str::as_bytes).collect(),
        false => vec![default.as_bytes()],
    };
    T::read(kind, &words).expect("the table's defaults are valid; a test reads them all")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_finds_its_directive_and_none_is_there_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for directive in TABLE {
            assert_eq!(directive.id.name(), directive.name);
            for name in directive.names() {
                assert!(seen.insert(name), "{name} is there twice");
                let found = Directive::find(name.to_uppercase().as_bytes()).unwrap();
                assert_eq!(found.name, directive.name);
            }
        }
        assert!(Directive::find(b"no-such-directive").is_none());
        assert!(seen.contains("tls-key-file-pass") && seen.contains("server_cpulist"));
    }
}
