//! Whether a user may do what a request asks for.

use std::cell::OnceCell;

use carnelian_commands::{Categories, CommandError, Flags, KeyFlags, args};
use smallvec::SmallVec;

use super::user::User;
use crate::keys;
use crate::registry::Entry;

/// What a request is refused for, in ascending weight: of several selectors' refusals the
/// heaviest is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    Command,
    Database,
    Key,
    Channel,
    /// A wrong password.
    Auth,
    /// A certificate that names no user.
    Certificate,
}

/// A request that a user may not make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    pub reason: Reason,
    /// The word of the request that it is refused for.
    pub word: usize,
}

/// Whether `user` may run a command with these words, `db` being in use.
///
/// Does not ask whether the client has said who it is, nor whether the number of words is right:
/// that has been seen to.
#[inline]
pub fn check(user: &User, entry: &Entry, words: &[&[u8]], db: u16) -> Result<(), Denied> {
    if user.is_unrestricted() { Ok(()) } else { check_selectors(user, entry, words, db) }
}

fn check_selectors(user: &User, entry: &Entry, words: &[&[u8]], db: u16) -> Result<(), Denied> {
    let request = Request::new(entry, words, db);
    let mut worst = Denied { reason: Reason::Command, word: 0 };
    for selector in user.selectors() {
        match selector.check(&request) {
            Ok(()) => return Ok(()),
            Err(denied) if (worst.reason, worst.word) < (denied.reason, denied.word) => {
                worst = denied;
            }
            Err(_) => {}
        }
    }
    Err(worst)
}

/// Whether `user` may have SORT follow the patterns of this request: only one who may read every key.
///
/// Asked where the command runs, and no matter of ACL LOG: ACL DRYRUN knows nothing of it either.
pub fn check_sort(
    user: &User,
    entry: &Entry,
    words: &[&[u8]],
    db: u16,
) -> Result<(), CommandError> {
    if user.is_unrestricted() || !matches!(entry.full_name.as_str(), "sort" | "sort_ro") {
        return Ok(());
    }
    let mut options = words.get(2..).unwrap_or_default();
    while let [word, rest @ ..] = options {
        let is = |known: &str| args::is(word, known);
        let pattern = rest.first().copied();
        let asks = match pattern {
            Some(pattern) if is("BY") => pattern.contains(&b'*').then_some("BY"),
            Some(_) if is("GET") => Some("GET"),
            _ => None,
        };
        if let Some(option) = asks
            && !may_read_every_key(user, entry, words, db)
        {
            return Err(CommandError::text(format!(
                "ERR {option} option of SORT denied due to insufficient ACL permissions."
            )));
        }
        let values = match () {
            () if is("LIMIT") => 2,
            () if is("BY") || is("GET") || is("STORE") => 1,
            () => 0,
        };
        options = rest.get(values..).unwrap_or_default();
    }
    Ok(())
}

/// Whether `user` may run the command and, besides, read any key: what SORT asks before it
/// follows patterns (BY and GET).
pub fn may_read_every_key(user: &User, entry: &Entry, words: &[&[u8]], db: u16) -> bool {
    let request = Request::new(entry, words, db);
    user.is_unrestricted()
        || user.selectors().iter().any(|selector| {
            selector.check(&request).is_ok() && selector.may_use_every_key(KeyFlags::ACCESS)
        })
}

/// Whether `user` may do to a key what `flags` say, with one command or another.
pub fn may_use_key(user: &User, key: &[u8], flags: KeyFlags) -> bool {
    user.selectors().iter().any(|selector| selector.may_use_key(key, flags))
}

/// Whether `user` may use a channel.
pub fn may_hear(user: &User, channel: &[u8], is_pattern: bool) -> bool {
    user.selectors().iter().any(|selector| selector.may_hear(channel, is_pattern))
}

impl Denied {
    /// The reply, and what a script is told after `ACL failure in script: `.
    pub fn error(&self, user: &User, entry: &Entry) -> CommandError {
        CommandError::Quoting([b"NOPERM ", &*self.text(user, entry)].concat().into())
    }

    /// The reply without its code. It does not say which key: whoever may not use one need not
    /// learn what others are asked for in his name.
    pub fn text(&self, user: &User, entry: &Entry) -> Vec<u8> {
        match self.reason {
            Reason::Key => b"No permissions to access a key".to_vec(),
            Reason::Channel => b"No permissions to access a channel".to_vec(),
            Reason::Database => b"No permissions to access database".to_vec(),
            _ => self.explain(user, entry, &[]),
        }
    }

    /// What ACL DRYRUN says.
    pub fn explain(&self, user: &User, entry: &Entry, words: &[&[u8]]) -> Vec<u8> {
        let object = words.get(self.word).copied().unwrap_or_default();
        let (before, object, after): (&str, &[u8], &str) = match self.reason {
            Reason::Key => ("access the '", object, "' key"),
            Reason::Channel => ("access the '", object, "' channel"),
            Reason::Database => ("access database ", object, ""),
            _ => ("run the '", entry.full_name.as_bytes(), "' command"),
        };
        let middle = [b" has no permissions to ", before.as_bytes()].concat();
        [b"User ", &*user.name, &middle, object, after.as_bytes()].concat()
    }

    /// The reply in the place of a command of a transaction that was allowed when it was queued.
    pub fn exec_error(&self) -> CommandError {
        let reason = match self.reason {
            Reason::Command => "no permission to execute the command or subcommand",
            Reason::Key => "no permission to touch the specified keys",
            Reason::Channel => "no permission to access one of the channels used as arguments",
            _ => "no permission",
        };
        CommandError::text(format!(
            "NOPERM ACLs rules changed between the moment the transaction was accumulated and the \
             EXEC call. This command is no longer allowed for the following reason: {reason}"
        ))
    }

    /// What ACL LOG names as the object.
    pub fn object<'w>(&self, entry: &'w Entry, words: &[&'w [u8]]) -> &'w [u8] {
        match self.reason {
            Reason::Command => entry.full_name.as_bytes(),
            _ => words.get(self.word).copied().unwrap_or_default(),
        }
    }
}

type Keys = SmallVec<[(usize, KeyFlags); 8]>;

/// A request as selectors look at it. Its keys are found once, when the first selector asks.
pub(super) struct Request<'r> {
    pub entry: &'r Entry,
    pub words: &'r [&'r [u8]],
    pub db: u16,
    keys: OnceCell<Keys>,
}

impl<'r> Request<'r> {
    fn new(entry: &'r Entry, words: &'r [&'r [u8]], db: u16) -> Self {
        Self { entry, words, db, keys: OnceCell::new() }
    }

    /// The keys; none if the request does not say which they are, since its handler refuses it
    /// before it touches one.
    pub fn keys(&self) -> &[(usize, KeyFlags)] {
        self.keys.get_or_init(|| {
            let mut found = Keys::new();
            if keys::for_each(self.entry, self.words, |index, flags| found.push((index, flags)))
                .is_err()
            {
                found.clear();
            }
            found
        })
    }

    /// The first channel, where they end, and whether they are patterns.
    pub fn channels(&self) -> Option<(usize, usize, bool)> {
        if !self.entry.flags.contains(Flags::PUBSUB) {
            return None;
        }
        let end = self.words.len();
        match self.entry.full_name.as_str() {
            "subscribe" | "ssubscribe" => Some((1, end, false)),
            "psubscribe" => Some((1, end, true)),
            "publish" | "spublish" => Some((1, end.min(2), false)),
            _ => None,
        }
    }

    /// The words that name databases.
    pub fn database_words(&self) -> SmallVec<[usize; 2]> {
        let words: &[usize] = match self.entry.full_name.as_str() {
            "select" => &[1],
            "swapdb" => &[1, 2],
            "move" => &[2],
            "copy" => {
                let options = self.words.get(3..).unwrap_or_default();
                let option = options.iter().position(|word| args::is(word, "DB"));
                return option.map(|index| index + 4).into_iter().collect();
            }
            _ => &[],
        };
        words.iter().copied().collect::<SmallVec<[usize; 2]>>()
    }

    pub fn touches_all_databases(&self) -> bool {
        self.entry.full_name == "flushall"
    }

    /// Whether the database in use matters.
    pub fn touches_its_database(&self) -> bool {
        let entry = self.entry;
        let has_keys = entry.keys.iter().any(|spec| !spec.flags.contains(KeyFlags::NOT_KEY));
        let is_about_data = has_keys
            || entry.flags.intersects(Flags::READONLY.union(Flags::WRITE))
            || entry.categories().contains(Categories::KEYSPACE);
        is_about_data && entry.full_name != "swapdb"
    }
}
