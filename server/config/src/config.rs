//! CONFIG GET and CONFIG SET.

use std::collections::BTreeSet;

use crate::directive::{Directive, DirectiveId, When};
use crate::glob::{self, Case};
use crate::kind::Reason;
use crate::table::{Config, TABLE};
use crate::value::{Lines, Source};

/// Whether CONFIG SET may change protected directives; see [`Config::permission`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    Ordinary,
    Protected,
}

/// Why CONFIG SET changed nothing. Displays as the reply, without its error code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    #[error("Unknown option or number of arguments for CONFIG SET - '{0}'")]
    Unknown(String),
    #[error("CONFIG SET failed (possibly related to argument '{name}') - {reason}")]
    Refused { name: String, reason: Reason },
}

impl SetError {
    /// For what the server finds when it puts a change into effect: a port in use, say.
    pub fn refused(id: DirectiveId, reason: impl Into<Reason>) -> Self {
        Self::Refused { name: id.name().to_owned(), reason: reason.into() }
    }
}

impl Config {
    /// What CONFIG GET answers to these patterns: names as they are to be shown, with values.
    ///
    /// A word without pattern characters is a name, and comes back as it was asked for. Patterns
    /// find aliases too, and hidden directives never.
    pub fn get(&self, patterns: &[&[u8]]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut seen: BTreeSet<Vec<u8>> = BTreeSet::new();
        let mut found = Vec::new();
        for &pattern in patterns {
            if !glob::is_pattern(pattern) {
                if let Some(directive) = Directive::find(pattern)
                    && seen.insert(pattern.to_ascii_lowercase())
                {
                    found.push((pattern.to_vec(), self.shown(directive.id)));
                }
                continue;
            }
            for directive in TABLE.iter().filter(|directive| !directive.is_hidden()) {
                for name in directive.names().map(str::as_bytes) {
                    if glob::matches(pattern, name, Case::Ignore) && seen.insert(name.to_vec()) {
                        found.push((name.to_vec(), self.shown(directive.id)));
                    }
                }
            }
        }
        found
    }

    /// One value as CONFIG GET shows it.
    pub fn shown(&self, id: DirectiveId) -> Vec<u8> {
        let directive = id.directive();
        (directive.value)(self).shown(&directive.kind)
    }

    /// What a client may set, given whether it is on this machine.
    pub fn permission(&self, client_is_local: bool) -> Permission {
        if self.enable_protected_configs.permits(client_is_local) {
            Permission::Protected
        } else {
            Permission::Ordinary
        }
    }

    /// CONFIG SET: all pairs or none.
    ///
    /// Returns what has to be put into effect: the directives whose value is a new one, and those
    /// that name files whose content may have changed. Call this on a clone, and keep the clone
    /// only if that succeeds.
    pub fn set(
        &mut self,
        pairs: &[(&[u8], &[u8])],
        permission: Permission,
    ) -> Result<Vec<DirectiveId>, SetError> {
        let chosen = choose(pairs, permission)?;
        let mut next = self.clone();
        for (directive, (name, value)) in chosen.iter().zip(pairs) {
            let words: Vec<&[u8]> = match directive.kind.is_list() {
                true if value.is_empty() => Vec::new(),
                true => value.split(|byte| *byte == b' ').collect(),
                false => vec![value],
            };
            next.assign(directive, &words, Source::Command).map_err(|reason| {
                let name = String::from_utf8_lossy(name).to_ascii_lowercase();
                SetError::Refused { name, reason }
            })?;
        }
        next.settle();
        let is_new = |directive: &&&Directive| {
            directive.is_volatile() || next.lines(directive) != self.lines(directive)
        };
        let changed = chosen.iter().filter(is_new).map(|directive| directive.id).collect();
        *self = next;
        Ok(changed)
    }

    pub(crate) fn assign(
        &mut self,
        directive: &Directive,
        words: &[&[u8]],
        source: Source,
    ) -> Result<(), Reason> {
        (directive.value_mut)(self).assign(&directive.kind, words, source)
    }

    /// Every line that gives this value, for comparing two.
    pub(crate) fn lines(&self, directive: &Directive) -> Vec<Vec<u8>> {
        (directive.value)(self).lines(&directive.kind, Lines::OverAnything)
    }

    /// Values that are taken for hints and brought within reason.
    pub(crate) fn settle(&mut self) {
        self.hz = self.hz.clamp(1, 500);
        self.repl_backlog_size = self.repl_backlog_size.max(16 << 10);
    }
}

/// The directives named, if they may be set together.
fn choose(
    pairs: &[(&[u8], &[u8])],
    permission: Permission,
) -> Result<Vec<&'static Directive>, SetError> {
    let mut chosen: Vec<&Directive> = Vec::with_capacity(pairs.len());
    for (name, _) in pairs {
        let typed = || String::from_utf8_lossy(name).into_owned();
        let Some(directive) = Directive::find(name) else {
            return Err(SetError::Unknown(typed()));
        };
        let problem = if directive.when == When::StartOnly {
            "can't set immutable config"
        } else if directive.is_protected() && permission == Permission::Ordinary {
            "can't set protected config"
        } else if chosen.iter().any(|other| other.id == directive.id) {
            "duplicate parameter"
        } else {
            chosen.push(directive);
            continue;
        };
        return Err(SetError::Refused { name: typed(), reason: problem.into() });
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(config: &Config, patterns: &[&str]) -> Vec<(String, String)> {
        let patterns: Vec<&[u8]> = patterns.iter().map(|pattern| pattern.as_bytes()).collect();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        config.get(&patterns).into_iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    fn set(config: &mut Config, pairs: &[(&str, &str)]) -> Result<Vec<DirectiveId>, String> {
        let pairs: Vec<_> = pairs.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        config.set(&pairs, Permission::Ordinary).map_err(|error| error.to_string())
    }

    fn names(found: &[(String, String)]) -> Vec<&str> {
        found.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn get_finds_names_patterns_and_aliases() {
        let config = Config::default();
        assert_eq!(get(&config, &["PORT", "port", "p?rt"]), [("PORT".into(), "6379".into())]);
        assert_eq!(names(&get(&config, &["MAXMEM?RY", "maxm*y", "max*y"])).len(), 3);
        let slaves = get(&config, &["*slave*"]);
        assert_eq!(slaves.len(), 13);
        assert!(slaves.contains(&("slave-priority".into(), "100".into())));
        assert!(get(&config, &["no-such", "[x"]).is_empty());
    }

    #[test]
    fn get_shows_hidden_directives_by_exact_name_only() {
        let config = Config::default();
        let hidden = get(&config, &["use-exit*", "Use-exit-on-panic"]);
        assert_eq!(hidden, [("Use-exit-on-panic".into(), "no".into())]);
    }

    #[test]
    fn get_renders_as_redis_does() {
        let config = Config::default();
        for (name, value) in [
            ("maxmemory", "0"),
            ("proto-max-bulk-len", "536870912"),
            ("save", "3600 1 300 100 60 10000"),
            (
                "client-output-buffer-limit",
                "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
            ),
            ("bind", "* -::*"),
            ("latency-tracking-info-percentiles", "50 99 99.9"),
            ("oom-score-adj-values", "0 200 800"),
            ("replicaof", ""),
        ] {
            assert_eq!(get(&config, &[name]), [(name.into(), value.into())]);
        }
    }

    #[test]
    fn set_changes_all_or_nothing() {
        let mut config = Config::default();
        let before = config.clone();
        let pairs = [("maxmemory", "1mb"), ("repl-timeout", "0")];
        assert_eq!(
            set(&mut config, &pairs).unwrap_err(),
            "CONFIG SET failed (possibly related to argument 'repl-timeout') - \
             argument must be between 1 and 2147483647 inclusive"
        );
        assert_eq!(config, before);
        let changed = set(&mut config, &[("MAXMEMORY", "1mb"), ("repl-timeout", "60")]);
        assert_eq!(changed, Ok(vec![DirectiveId::maxmemory]));
        assert_eq!(config.maxmemory, 1 << 20);
    }

    #[test]
    fn set_refuses_in_the_words_of_redis() {
        let mut config = Config::default();
        for (pairs, name) in
            [(vec![("zork", "1")], "zork"), (vec![("maxclients", "9"), ("Zork", "1")], "Zork")]
        {
            assert_eq!(
                set(&mut config, &pairs).unwrap_err(),
                format!("Unknown option or number of arguments for CONFIG SET - '{name}'")
            );
        }
        for (pairs, name, reason) in [
            (vec![("Databases", "1"), ("zork", "1")], "Databases", "can't set immutable config"),
            (vec![("dir", "/")], "dir", "can't set protected config"),
            (vec![("timeout", "1"), ("TIMEOUT", "2")], "TIMEOUT", "duplicate parameter"),
            (vec![("PORT", "x")], "port", "argument couldn't be parsed into an integer"),
            (
                vec![("slave-priority", "-1")],
                "slave-priority",
                "argument must be between 0 and 2147483647 inclusive",
            ),
            (vec![("maxmemory", "1zb")], "maxmemory", "argument must be a memory value"),
            (vec![("appendonly", "on")], "appendonly", "argument must be 'yes' or 'no'"),
            (
                vec![("tls-auth-clients", "x")],
                "tls-auth-clients",
                "argument(s) must be one of the following: no, yes, optional",
            ),
        ] {
            assert_eq!(
                set(&mut config, &pairs).unwrap_err(),
                format!("CONFIG SET failed (possibly related to argument '{name}') - {reason}")
            );
        }
        assert_eq!(config, Config::default());
    }

    #[test]
    fn protected_directives_need_permission() {
        let mut config = Config { dir: "/".into(), ..Config::default() };
        assert_eq!(config.permission(true), Permission::Ordinary);
        config.enable_protected_configs = crate::Allow::Local;
        assert_eq!(config.permission(false), Permission::Ordinary);
        let permission = config.permission(true);
        let changed = config.set(&[(b"dir", b"usr")], permission);
        assert_eq!(changed, Ok(vec![DirectiveId::dir]));
        assert!(config.dir.is_absolute());
        let error = config.set(&[(b"dir", b"no-such")], permission).unwrap_err();
        assert!(error.to_string().ends_with(" - No such file or directory"), "{error}");
    }

    #[test]
    fn files_named_again_are_to_be_read_again() {
        let mut config = Config::default();
        let pairs = [("tls-cert-file", ""), ("hz", "10")];
        assert_eq!(set(&mut config, &pairs), Ok(vec![DirectiveId::tls_cert_file]));
        set(&mut config, &[("hz", "100000")]).unwrap();
        assert_eq!(config.hz, 500);
    }

    #[test]
    fn every_directive_reads_back_what_it_shows() {
        let config = Config { dir: "/".into(), ..Config::default() };
        for directive in TABLE.iter().filter(|directive| directive.id != DirectiveId::replicaof) {
            let shown = config.shown(directive.id);
            let words: Vec<&[u8]> = match directive.kind.is_list() {
                true => shown.split(|byte| *byte == b' ').collect(),
                false => vec![&shown],
            };
            let mut again = config.clone();
            again.assign(directive, &words, Source::Command).unwrap();
            assert_eq!(again, config, "{}", directive.name);
        }
    }
}
