//! The interface's own state, and what its handlers share.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_lc_rs::rand;
use carnelian_cluster::state::{
    Action, ActionId, ActionStatus, AlertSetting, Change, Cron, Management, NodeUid, Outcome,
    State, User, UserStatus,
};
use parking_lot::Mutex;

use crate::alerts::{self, Finding, Scope, View};
use crate::answer::Refusal;
use crate::audit::{Audit, Entry};
use crate::auth::logins::{Lockout, Logins};
use crate::auth::token::{Claims, Signer};
use crate::auth::{Caller, password};
use crate::bootstrap::BootstrapStatus;
use crate::front::Credentials;
use crate::handlers::alerts::settings;
use crate::handlers::cluster::examine;
use crate::live::{Figures, Live, Plane};
use crate::samples::Samples;
use crate::time;

/// For work that a call waits for, such as a rotation.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at the work.
const GLANCE: Duration = Duration::from_millis(20);

/// For a node to say how it is.
const SOON: Duration = Duration::from_secs(2);
const SECOND: Duration = Duration::from_secs(1);
/// Seconds from one look at the alerts to the next.
const ALERTS_EVERY: u64 = 10;

pub struct Admin {
    pub plane: Arc<dyn Plane>,
    pub live: Arc<dyn Live>,
    pub bootstrap: Mutex<BootstrapStatus>,
    pub samples: Samples,
    pub alerts: alerts::Book,
    /// What was wrong with nodes when the job last looked, by their uids.
    pub failed_checks: Mutex<BTreeMap<u32, String>>,
    pub audit: Audit,
    logins: Logins,
    /// The last entry of the audit log could not be written.
    audit_failed: AtomicBool,
    /// Hashing a password takes a lot of memory, so only so many are hashed at a time.
    hashing: tokio::sync::Semaphore,
}

impl Admin {
    /// `folder` is the server's data folder, where the audit log is.
    pub fn new(plane: Arc<dyn Plane>, live: Arc<dyn Live>, folder: &Path) -> io::Result<Arc<Self>> {
        let logins = Logins::new().ok_or_else(|| io::Error::other("no randomness"))?;
        Ok(Arc::new(Self {
            plane,
            live,
            bootstrap: Mutex::default(),
            samples: Samples::default(),
            alerts: alerts::Book::default(),
            failed_checks: Mutex::default(),
            audit: Audit::open(folder)?,
            logins,
            audit_failed: AtomicBool::new(false),
            hashing: tokio::sync::Semaphore::new(2),
        }))
    }

    pub fn state(&self) -> Arc<State> {
        self.plane.state()
    }

    pub fn has_cluster(&self) -> bool {
        self.plane.state().cluster.is_some()
    }

    pub async fn change(&self, change: Change) -> Result<Outcome, Refusal> {
        Ok(self.plane.change(change).await?)
    }

    /// Waits until an action is over. One that is forgotten was over.
    pub async fn finished(&self, id: &ActionId) -> Result<Option<Action>, Refusal> {
        let ends = tokio::time::Instant::now() + PATIENCE;
        loop {
            match self.state().actions.get(id) {
                None => return Ok(None),
                Some(action) if action.status != ActionStatus::Active => {
                    return Ok(Some(action.clone()));
                }
                Some(_) => {}
            }
            if ends < tokio::time::Instant::now() {
                let why = format!("Action {id} is not over yet");
                return Err(Refusal::new(503, "action_still_running", why));
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// The figures of a member, if it gives them soon.
    pub async fn figures(&self, node: NodeUid) -> Option<Figures> {
        tokio::time::timeout(SOON, self.live.figures(node)).await.ok().flatten()
    }

    /// The figures of all members that answer.
    pub async fn all_figures(&self, state: &State) -> BTreeMap<u32, Figures> {
        let mut all = BTreeMap::new();
        for node in state.nodes.keys() {
            if let Some(figures) = self.figures(*node).await {
                all.insert(node.0, figures);
            }
        }
        all
    }

    /// Measures once a second and looks at the alerts once in a while, for as long as it is not dropped.
    pub async fn watch(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(SECOND);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut count = 0u64;
        let mut checked_s = unsigned(time::now_s());
        loop {
            ticks.tick().await;
            let state = self.state();
            if state.cluster.is_none() {
                continue;
            }
            let figures = self.all_figures(&state).await;
            self.samples.take(&state, &figures, time::now_s());
            let (job, now_s) = (&state.jobs.node_checks_job_settings, unsigned(time::now_s()));
            let runs = Cron::parse(&job.cron_expression);
            if job.enabled && runs.is_some_and(|runs| runs.is_between(checked_s, now_s)) {
                checked_s = now_s;
                self.check_nodes(&state).await;
            }
            if count.is_multiple_of(ALERTS_EVERY) {
                self.look_at_alerts(&state, &figures).await;
            }
            count += 1;
        }
    }

    async fn check_nodes(&self, state: &State) {
        let mut failed = BTreeMap::new();
        for uid in state.nodes.keys() {
            if let Err(why) = examine(self, state, *uid).await {
                failed.insert(uid.0, why);
            }
        }
        *self.failed_checks.lock() = failed;
    }

    async fn look_at_alerts(&self, state: &State, figures: &BTreeMap<u32, Figures>) {
        let now_s = time::now_s();
        let failed_checks = &self.failed_checks.lock().clone();
        let view =
            View { state, figures, samples: &self.samples, failed_checks, now_s, raw: false };
        let mut findings = Vec::new();
        let mut add = |scope, name: &String, setting: &AlertSetting, mut finding: Finding| {
            finding.on &= setting.enabled();
            findings.push((scope, name.clone(), finding));
        };
        for (name, setting) in settings(state, "cluster_") {
            add(Scope::Cluster, name, setting, view.cluster(name, setting));
        }
        for node in state.nodes.values() {
            for (name, setting) in settings(state, "node_") {
                add(Scope::Node(node.uid.0), name, setting, view.node(name, setting, node));
            }
        }
        for database in state.databases.values() {
            for (name, setting) in &database.alert_settings {
                let finding = view.database(name, setting, database);
                add(Scope::Database(database.uid.0), name, setting, finding);
            }
        }
        let news = self.alerts.note(findings, now_s);
        // Every node notes when alerts change; one of them tells the cluster.
        if self.plane.leader().is_some() && self.plane.leader() == self.node() {
            for change in news {
                let _ = self.change(change).await;
            }
        }
    }

    /// The node that answers.
    pub fn node(&self) -> Option<NodeUid> {
        self.plane.node()
    }

    /// The caller that credentials stand for.
    pub async fn identify(&self, credentials: Credentials) -> Result<Caller, Refusal> {
        match credentials {
            Credentials::Token(token) => self.identify_token(&token),
            Credentials::Password { name, password } => self.log_in(&name, password).await,
        }
    }

    fn identify_token(&self, token: &str) -> Result<Caller, Refusal> {
        let state = self.state();
        let claims = self
            .signer()
            .and_then(|signer| signer.verify(token, time::now_s()))
            .ok_or_else(Refusal::unauthorized)?;
        let user = state
            .users
            .get(&claims.sub.into())
            .filter(|user| user.password_issue_date.to_string() == claims.pwd)
            .ok_or_else(Refusal::unauthorized)?;
        Ok(caller(&state, user))
    }

    async fn log_in(&self, name: &str, password: String) -> Result<Caller, Refusal> {
        let state = self.state();
        let now_s = time::now_s();
        let account = name.to_lowercase();
        let user = state.user_by_email(name).cloned();
        let kept = user.as_ref().map(|user| user.passwords.join("\n")).unwrap_or_default();
        let policy = lockout(&state);
        let closed = self.logins.is_locked(&account, policy, now_s)
            || user.as_ref().is_some_and(|user| is_locked(user, now_s));
        if !closed && self.logins.was_right(&account, &password, &kept, now_s) {
            return user.map(|user| caller(&state, &user)).ok_or_else(Refusal::unauthorized);
        }
        if closed {
            // The password is not even looked at, so that guessing tells nothing.
            tokio::time::sleep(Duration::from_millis(200)).await;
            return Err(Refusal::unauthorized());
        }
        let passwords = user.as_ref().map(|user| user.passwords.clone());
        let (is_right, password) = self.check(passwords, password).await?;
        let Some(user) = user.filter(|_| is_right) else {
            // What every node is to know, so that an attempt on each does not add up.
            let noted = match state.user_by_email(name).map(|user| user.uid) {
                Some(user) => {
                    self.change(Change::NoteLogin { user, succeeded: false }).await.is_ok()
                }
                None => false,
            };
            let wait = self.logins.failed(&account, policy, now_s, !noted);
            tokio::time::sleep(wait).await;
            return Err(Refusal::unauthorized());
        };
        // Others may have guessed meanwhile: as many as can be sent at once are not that many guesses.
        let state = self.state();
        if state.users.get(&user.uid).is_none_or(|user| is_locked(user, now_s)) {
            return Err(Refusal::unauthorized());
        }
        if is_expired(&state, &user, now_s) {
            let why = "The password of this user has expired";
            return Err(Refusal::new(401, "password_expired", why));
        }
        self.logins.forgive(&account);
        self.logins.remember(&account, &password, &kept, now_s);
        let _ = self.change(Change::NoteLogin { user: user.uid, succeeded: true }).await;
        Ok(caller(&state, &user))
    }

    /// Whether one of the kept passwords is this. Takes as long where there are none.
    async fn check(
        &self,
        kept: Option<Vec<String>>,
        password: String,
    ) -> Result<(bool, String), Refusal> {
        self.hashed(move || {
            let kept = kept.unwrap_or_default();
            if kept.is_empty() {
                password::waste_time(&password);
            }
            (kept.iter().any(|kept| password::verify(&password, kept)), password)
        })
        .await
    }

    /// Does work that takes a processor and much memory beside the tasks that serve others.
    pub async fn hashed<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let fault = || Refusal::new(500, "internal_error", "A password could not be hashed");
        let _turn = self.hashing.acquire().await.map_err(|_| fault())?;
        tokio::task::spawn_blocking(work).await.map_err(|_| fault())
    }

    /// Ends a lock of an account on this node.
    pub fn unlock(&self, email: &str) {
        self.logins.forgive(&email.to_lowercase());
    }

    /// As it is now: locks end by themselves, and passwords expire.
    pub fn status(&self, state: &State, user: &User) -> UserStatus {
        let now_s = time::now_s();
        let account = user.email.to_lowercase();
        if is_locked(user, now_s) || self.logins.is_locked(&account, lockout(state), now_s) {
            UserStatus::Locked
        } else if is_expired(state, user, now_s) {
            UserStatus::PasswordExpired
        } else {
            UserStatus::Active
        }
    }

    /// A token for a user.
    pub fn token(&self, user: &User, life_s: i64) -> Result<String, Refusal> {
        let signer = self.signer().ok_or_else(|| {
            Refusal::new(503, "not_ready", "This node has no key to sign tokens with yet")
        })?;
        let now_s = time::now_s();
        Ok(signer.sign(&Claims {
            sub: user.uid.0,
            iat: now_s,
            exp: now_s + life_s,
            pwd: user.password_issue_date.to_string(),
        }))
    }

    fn signer(&self) -> Option<Signer> {
        self.live.token_secret().map(|secret| Signer::new(&secret))
    }

    /// Writes an entry of the audit log.
    pub fn record(&self, entry: &Entry) {
        let failed = self.audit.append(entry, time::now_s()).is_err();
        self.audit_failed.store(failed, Ordering::Relaxed);
    }

    /// What cannot be recorded is not done.
    pub fn audit_is_writable(&self) -> Result<(), Refusal> {
        if !self.audit_failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let entry = Entry {
            method: "NOTE".into(),
            path: "audit log could not be written".into(),
            ..Entry::default()
        };
        self.record(&entry);
        if self.audit_failed.load(Ordering::Relaxed) {
            let why = "The audit log cannot be written, so nothing is changed";
            return Err(Refusal::new(503, "audit_log_unavailable", why));
        }
        Ok(())
    }
}

fn unsigned(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0)
}

/// A UUID of version 4.
pub fn action_id() -> Result<ActionId, Refusal> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes)
        .map_err(|_| Refusal::new(500, "internal_error", "There is no randomness"))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = carnelian_tls::hex(&bytes);
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    Ok(ActionId(parts.join("-")))
}

/// So many characters by chance, for passwords.
pub fn random_text(length: usize) -> Result<String, Refusal> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = vec![0; length];
    rand::fill(&mut bytes)
        .map_err(|_| Refusal::new(500, "internal_error", "There is no randomness"))?;
    Ok(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 64)])).collect())
}

fn caller(state: &State, user: &User) -> Caller {
    let roles: Vec<Management> = user
        .role_uids
        .iter()
        .filter_map(|uid| state.roles.get(uid))
        .map(|role| role.management)
        .collect();
    Caller { uid: Some(user.uid.0), email: user.email.clone(), roles }
}

fn is_locked(user: &User, now_s: i64) -> bool {
    let until = user.locked_until.and_then(|until| i64::try_from(until.seconds()).ok());
    until.is_some_and(|until| now_s < until)
}

/// `password_expiration_duration`, in days; 0 is never.
fn is_expired(state: &State, user: &User, now_s: i64) -> bool {
    let days = state.cluster.as_ref().map_or(0, |it| it.settings.password_expiration_duration);
    let issued_s = i64::try_from(user.password_issue_date.seconds()).unwrap_or(0);
    0 < days && i64::from(days) * 86_400 <= now_s - issued_s
}

fn lockout(state: &State) -> Lockout {
    Lockout {
        threshold: state.policy.login_lockout_threshold,
        duration_s: state.policy.login_lockout_duration.into(),
        reset_after_s: state.policy.login_lockout_counter_reset_after.into(),
    }
}
