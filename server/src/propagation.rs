//! Errors of commands that had worked elsewhere: what a primary, a replica or the append-only file sends
//! should never fail here. Where it does, the data differ from then on.

use std::process;

use carnelian_config::Config;
use carnelian_resp::Reply;

use crate::database::Counters;
use crate::log;

/// Whose commands failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    Primary,
    Replica,
    File,
}

impl Sender {
    /// What Redis calls us, and the other side.
    fn roles(self) -> (&'static str, &'static str) {
        match self {
            Self::Primary => ("replica", "master"),
            Self::Replica => ("master", "replica"),
            Self::File => ("AOF-loading-client", "server"),
        }
    }

    /// `propagation-error-behavior`: whether to stop rather than to go on with other data.
    fn is_fatal(self, config: &Config) -> bool {
        match self {
            // Its clients may have made the difference themselves.
            Self::Primary if !config.replica_read_only => false,
            Self::Primary => config.propagation_error_behavior != "ignore",
            Self::File => config.propagation_error_behavior == "panic",
            Self::Replica => false,
        }
    }
}

/// Tells of the errors among the replies to these commands, and ends the process if it is to be.
#[cold]
pub fn report<N: AsRef<[u8]>>(
    sender: Sender,
    config: &Config,
    counters: &Counters,
    commands: impl IntoIterator<Item = N>,
    mut replies: &[u8],
) {
    let (us, them) = sender.roles();
    let mut commands = commands.into_iter();
    while let Ok(Some((reply, length))) = Reply::decode(replies) {
        replies = &replies[length..];
        let command = commands.next();
        let name = command.as_ref().map_or(b"<unknown>".as_slice(), |it| it.as_ref());
        let name = name[..name.len().min(64)].escape_ascii();
        let mut errors = Vec::new();
        collect(&reply, &mut errors);
        for error in &errors {
            counters.unexpected_errors.add(1);
            // It may quote what a client has sent.
            let error = String::from_utf8_lossy(&error[..error.len().min(4096)]);
            let error = error.replace(char::is_control, "?");
            log::warning!(
                "== CRITICAL == This {us} is sending an error to its {them}: '{error}' after \
                 processing the command '{name}'"
            );
        }
        if !errors.is_empty() && sender.is_fatal(config) {
            log::warning!(
                "This {us} panicked sending an error to its {them} after processing the command \
                 '{name}': propagation-error-behavior {}",
                config.propagation_error_behavior
            );
            process::abort();
        }
    }
}

/// The errors in a reply: those in the replies of a transaction too.
fn collect<'r>(reply: &'r Reply, errors: &mut Vec<&'r [u8]>) {
    errors.extend(reply.error());
    for element in reply.elements().into_iter().flatten() {
        collect(element, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stops_for_an_error_is_the_operators_choice() {
        let mut config = Config::default();
        let fatal = |config: &Config| {
            [Sender::Primary, Sender::Replica, Sender::File].map(|it| it.is_fatal(config))
        };
        assert_eq!(fatal(&config), [false, false, false]);
        config.propagation_error_behavior = "panic-on-replicas";
        assert_eq!(fatal(&config), [true, false, false]);
        config.propagation_error_behavior = "panic";
        assert_eq!(fatal(&config), [true, false, true]);
        config.replica_read_only = false;
        assert_eq!(fatal(&config), [false, false, true]);
    }

    #[test]
    fn errors_are_found_in_transactions() {
        let replies = b"*3\r\n+OK\r\n-ERR one\r\n*1\r\n-ERR two\r\n";
        let (reply, _) = Reply::decode(replies).unwrap().unwrap();
        let mut errors = Vec::new();
        collect(&reply, &mut errors);
        assert_eq!(errors, [b"ERR one", b"ERR two"]);
    }
}
