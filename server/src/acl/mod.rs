//! Users and what they may do.
//!
//! A database has its users in an [`Acl`]; each session holds the one it is, an `Arc<User>` that never
//! changes. A change puts another in its place and is taken notice of at the next turn, by the same
//! generation that tells of settings. `catalog` is what rules know of commands, `rule`, `selector`
//! and `user` read and describe rules, `check` decides, `log` keeps refusals, `file` and
//! `certificate` are where users come from besides ACL SETUSER.
//!
//! Whoever runs a command for a client asks [`check`] and tells [`report`] of a refusal: dispatch, EXEC
//! for what was queued, scripts for what they call. For a user that may do everything `check` is
//! one test.

mod catalog;
mod certificate;
mod check;
pub mod file;
mod log;
mod rule;
mod selector;
mod user;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

pub use catalog::Catalog;
pub use certificate::{
    admits as admits_certificate, log_in as log_in_by_certificate, log_in_by as log_in_by_verified,
};
pub use check::{Denied, Reason, check, check_sort, may_hear, may_read_every_key, may_use_key};
pub use file::Users;
pub use log::{Log, Origin, Record, Refusal};
pub use rule::{RuleError, has_spaces};
pub use selector::{Rules, Selector};
pub use user::{DEFAULT, SetUserError, User};

use crate::registry::{Entry, Registry};
use crate::session::{Session, Worker};

/// The users of a database.
///
/// Invariants: there is always a user `default`, and a user keeps its id as long as it exists, so
/// that who has the name of a deleted one is told from it.
pub struct Acl {
    pub catalog: Catalog,
    pub log: Mutex<Log>,
    users: RwLock<Users>,
    /// Whether connections are `default` without having said so.
    is_open: AtomicBool,
    last_id: AtomicU64,
}

impl Acl {
    /// `default` may do everything, and everybody is it.
    pub fn new(registry: &Registry) -> Self {
        let acl = Self {
            catalog: Catalog::new(registry),
            log: Mutex::default(),
            users: RwLock::default(),
            is_open: AtomicBool::new(true),
            last_id: AtomicU64::new(0),
        };
        let user = User::open(acl.rules(false), DEFAULT, acl.new_id());
        acl.users.write().insert(DEFAULT.into(), Arc::new(user));
        acl
    }

    pub fn rules(&self, all_channels: bool) -> Rules<'_> {
        Rules { catalog: &self.catalog, all_channels }
    }

    fn new_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn find(&self, name: &[u8]) -> Option<Arc<User>> {
        self.users.read().get(name).cloned()
    }

    pub fn default_user(&self) -> Arc<User> {
        self.find(DEFAULT).expect("it cannot be deleted")
    }

    /// Whether connections are `default` without having said so.
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// All users, by name.
    pub fn list(&self) -> Vec<Arc<User>> {
        self.users.read().values().cloned().collect()
    }

    /// The user of this name, if the password is one of its.
    pub fn authenticate(&self, name: &[u8], password: &[u8]) -> Option<Arc<User>> {
        self.find(name).filter(|user| user.accepts(password))
    }

    /// ACL SETUSER: all of the words, or none. Returns the user before and after.
    pub fn set(
        &self,
        name: &[u8],
        words: &[&[u8]],
        all_channels: bool,
    ) -> Result<(Option<Arc<User>>, Arc<User>), SetUserError> {
        let rules = self.rules(all_channels);
        let mut users = self.users.write();
        let before = users.get(name).cloned();
        let mut user = match &before {
            Some(user) => User::clone(user),
            None => User::new(rules, name, self.new_id()),
        };
        user.apply_all(rules, words)?;
        let user = Arc::new(user);
        users.insert(name.into(), Arc::clone(&user));
        self.settle(&users);
        Ok((before, user))
    }

    /// `requirepass`, and its absence.
    pub fn set_default_password(&self, password: Option<&[u8]>) {
        let mut users = self.users.write();
        if let Some(user) = users.get_mut(DEFAULT) {
            Arc::make_mut(user).set_only_password(password);
        }
        self.settle(&users);
    }

    /// ACL DELUSER; `default` stays.
    pub fn delete(&self, name: &[u8]) -> bool {
        name != DEFAULT && self.users.write().remove(name).is_some()
    }

    /// Makes several users anew, each from nothing by its words, and deletes those that come without: all of them,
    /// or none. Else which of them is wrong, and why.
    pub fn replace(
        &self,
        changes: &[Replacement],
        all_channels: bool,
    ) -> Result<(), (Vec<u8>, String)> {
        let mut users = self.users.write();
        let next = self.replaced(&users, changes, all_channels)?;
        *users = next;
        self.settle(&users);
        Ok(())
    }

    /// Whether [`Acl::replace`] would do that.
    pub fn check_replace(
        &self,
        changes: &[Replacement],
        all_channels: bool,
    ) -> Result<(), (Vec<u8>, String)> {
        self.replaced(&self.users.read(), changes, all_channels).map(drop)
    }

    fn replaced(
        &self,
        users: &Users,
        changes: &[Replacement],
        all_channels: bool,
    ) -> Result<Users, (Vec<u8>, String)> {
        let rules = self.rules(all_channels);
        let mut next = users.clone();
        for (name, words) in changes {
            let Some(words) = words else {
                next.remove(name.as_slice());
                continue;
            };
            // Who is one of them already goes on as the new one.
            let id = users.get(name.as_slice()).map_or_else(|| self.new_id(), |user| user.id);
            let mut user = User::new(rules, name, id);
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            user.apply_all(rules, &words).map_err(|error| {
                let reason = match error {
                    SetUserError::Unmatched(_) => "Unmatched parenthesis in selector".to_owned(),
                    SetUserError::Rule { error, .. } => error.to_string(),
                };
                (name.clone(), reason)
            })?;
            next.insert(name.as_slice().into(), Arc::new(user));
        }
        Ok(next)
    }

    /// Takes the users of a file in place of all others, or none of them. Returns those of before.
    pub fn load(&self, path: &std::path::Path, all_channels: bool) -> Result<Users, Vec<u8>> {
        let mut loaded = file::load(path, self.rules(all_channels), || self.new_id())?;
        let mut users = self.users.write();
        for (name, user) in &mut loaded {
            // Who is already one of them goes on as the new one.
            if let Some(before) = users.get(name) {
                Arc::make_mut(user).id = before.id;
            }
        }
        let before = std::mem::replace(&mut *users, loaded);
        self.settle(&users);
        Ok(before)
    }

    fn settle(&self, users: &Users) {
        let is_open = users.get(DEFAULT).is_some_and(|user| user.is_open());
        self.is_open.store(is_open, Ordering::Release);
    }
}

/// A user that is made anew from these words, or deleted.
pub type Replacement = (Vec<u8>, Option<Vec<Vec<u8>>>);

/// Channels that a user may not use any more.
pub struct Revoked {
    user: Arc<User>,
}

impl Revoked {
    /// What `after` may not hear although `before` could; none if it may hear all that was allowed.
    pub fn between(before: &User, after: &Arc<User>) -> Option<Self> {
        let hears_all = |user: &User| user.selectors().iter().any(Selector::hears_all);
        if hears_all(after) {
            return None;
        }
        let mut channels = before.selectors().iter().flat_map(|selector| selector.channels());
        let all_kept = channels.all(|channel| {
            after.selectors().iter().any(|selector| selector.channels().contains(channel))
        });
        (hears_all(before) || !all_kept).then(|| Self { user: Arc::clone(after) })
    }

    /// Whether a client that is subscribed to this channel, or pattern, has to go.
    pub fn concerns(&self, channel: &[u8], is_pattern: bool) -> bool {
        !may_hear(&self.user, channel, is_pattern)
    }
}

/// Counts a refusal and puts it in the log.
#[cold]
pub fn report(
    worker: &Worker,
    session: &Session,
    entry: &Entry,
    words: &[&[u8]],
    denied: Denied,
    origin: Origin,
) {
    let registry: &Registry = &worker.server.registry;
    session.shared.last_command.store(session.last_command, Ordering::Relaxed);
    let object = denied.object(entry, words);
    report_names(worker, session, registry, denied.reason, origin, object, &session.user.name);
}

/// The same with the names it is about.
#[cold]
pub fn report_names(
    worker: &Worker,
    session: &Session,
    registry: &Registry,
    reason: Reason,
    origin: Origin,
    object: &[u8],
    user: &[u8],
) {
    let database = &session.database;
    let counters = worker.counters(database);
    let counter = match reason {
        Reason::Command => &counters.denied_commands,
        Reason::Database => &counters.denied_databases,
        Reason::Key => &counters.denied_keys,
        Reason::Channel => &counters.denied_channels,
        Reason::Auth => &counters.denied_passwords,
        Reason::Certificate => &counters.denied_certificates,
    };
    counter.add(1);
    let now_ms = worker.clock.now_ms();
    session.shared.db.store(u32::from(session.db), Ordering::Relaxed);
    let client = crate::commands::client_line(&session.shared, registry, now_ms);
    let refusal =
        Refusal { reason, origin, object: object.into(), user: user.into(), client, now_ms };
    database.acl.log.lock().push(refusal, session.settings.acl_log_len);
}

#[cfg(test)]
mod tests;
