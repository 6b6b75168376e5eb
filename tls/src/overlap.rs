//! The client CA and the one that follows it. Years before the first ends its successor is listed
//! beside it, so that clients come to know both; leaves go on being signed by the first until
//! shortly before its end, and then by the second. Whoever has the first alone verifies until then,
//! and whoever has both verifies always.
//!
//! Which of the two signs follows from the dates and is kept nowhere. On the disk, `client-ca.pem`
//! is the list, oldest first, which is what clients are given; the successor and its key have files
//! of their own until they take the place of the first.
//!
//! That is so where a server has an authority of its own. The nodes of a cluster have one in common,
//! which the cluster keeps: see [`clients`](crate::clients). They have the list, and no key.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;

use crate::ca::{AuthorityPem, CA_CERTIFICATE, CA_KEY, ClientAuthority};
use crate::clients::ClientTrust;
use crate::describe::CertificateInfo;
use crate::error::ConfigError;
use crate::issue::{self, seconds};
use crate::pem;
use crate::private_key;
use crate::store::{self, Access};

const NEXT_CERTIFICATE: &str = "client-ca-next.pem";
const NEXT_KEY: &str = "client-ca-next.key";

const DAY: Duration = Duration::from_secs(86_400);

/// How long client CAs live and when they change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClientCaPolicy {
    pub validity: Duration,
    /// At this age one gets a successor.
    pub successor_after: Duration,
    /// This long before its end its successor begins to sign.
    pub switch_before_expiry: Duration,
}

impl Default for ClientCaPolicy {
    /// 10 years, 5 years, 30 days.
    fn default() -> Self {
        Self {
            validity: issue::AUTHORITY_LIFE,
            successor_after: 1_826 * DAY,
            switch_before_expiry: 30 * DAY,
        }
    }
}

/// What happens to the list by the clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClientCaStep {
    AddSuccessor,
    /// The first has ended.
    DropOld,
}

impl ClientCaPolicy {
    /// What is to be done with a list of authorities, the first thing first. One that has ended
    /// without a successor is not followed by anything: nobody would know it.
    pub fn step(&self, listed: &[CertificateInfo], now_s: i64) -> Option<ClientCaStep> {
        match listed {
            [only] => {
                let is_old = only.not_before.saturating_add(whole(self.successor_after)) <= now_s;
                let is_due = is_old || self.switch_s(only) <= now_s;
                (is_due && now_s <= only.not_after).then_some(ClientCaStep::AddSuccessor)
            }
            [first, ..] => (first.not_after < now_s).then_some(ClientCaStep::DropOld),
            [] => None,
        }
    }

    /// The place in the list of the one that signs.
    pub fn signer(&self, listed: &[CertificateInfo], now_s: i64) -> usize {
        match listed {
            [first, _, ..] if self.switch_s(first) <= now_s => 1,
            _ => 0,
        }
    }

    fn switch_s(&self, first: &CertificateInfo) -> i64 {
        first.not_after.saturating_sub(whole(self.switch_before_expiry))
    }
}

fn whole(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// The client CA, and its successor once there is one.
pub struct ClientAuthorities {
    folder: PathBuf,
    policy: ClientCaPolicy,
    /// One or two, the oldest first.
    listed: Vec<ClientAuthority>,
}

impl ClientAuthorities {
    /// What is kept in `folder`; the first time, a new authority (and the folder). What the clock
    /// asks for is done first.
    pub fn open_or_create(
        folder: &Path,
        policy: ClientCaPolicy,
        now: SystemTime,
    ) -> Result<Self, ConfigError> {
        store::make_folder(folder)?;
        finish_dropping(folder)?;
        let is_new = !folder.join(CA_CERTIFICATE).exists() && !folder.join(CA_KEY).exists();
        let mut listed = Vec::new();
        if is_new {
            let life = policy.validity;
            listed.push(ClientAuthority::create_as(folder, CA_CERTIFICATE, CA_KEY, now, life)?);
        } else if folder.join(NEXT_CERTIFICATE).exists() {
            listed.push(ClientAuthority::read(folder, CA_CERTIFICATE, CA_KEY)?);
            listed.push(ClientAuthority::read(folder, NEXT_CERTIFICATE, NEXT_KEY)?);
        } else {
            listed.push(ClientAuthority::open_or_create(folder, now)?);
        }
        let mut all = Self { folder: folder.to_owned(), policy, listed };
        // A list of one may be the operator's, with more in it.
        if all.listed.len() == 2 {
            all.write_list()?;
        }
        all.advance(now)?;
        Ok(all)
    }

    /// Does what the clock asks for, and says what that was. Leaves of an authority that does not
    /// sign any longer are made anew by whoever asks for them next.
    pub fn advance(&mut self, now: SystemTime) -> Result<Vec<ClientCaStep>, ConfigError> {
        let mut done = Vec::new();
        // Long-stopped servers have two steps to make: one is dropped, another added.
        while let Some(step) = self.policy.step(&self.infos(), seconds(now)) {
            match step {
                ClientCaStep::AddSuccessor => self.add_successor(now)?,
                ClientCaStep::DropOld => self.drop_old()?,
            }
            done.push(step);
            if done.len() == 2 {
                break;
            }
        }
        Ok(done)
    }

    /// Lists a successor from now on.
    fn add_successor(&mut self, now: SystemTime) -> Result<(), ConfigError> {
        if self.listed.len() != 1 {
            return Err(ConfigError::SuccessorExists);
        }
        let (folder, life) = (&self.folder, self.policy.validity);
        let made = ClientAuthority::create_as(folder, NEXT_CERTIFICATE, NEXT_KEY, now, life)?;
        self.listed.push(made);
        self.write_list()
    }

    /// The one that signs.
    pub fn signer(&self, now: SystemTime) -> &ClientAuthority {
        &self.listed[self.policy.signer(&self.infos(), seconds(now))]
    }

    /// All that are valid, the oldest first: at least one.
    pub fn listed(&self) -> &[ClientAuthority] {
        &self.listed
    }

    /// The successor's key takes the place of the first one's, then the list loses the first. A crash
    /// in between is found at the next start by a key that is not the first one's.
    fn drop_old(&mut self) -> Result<(), ConfigError> {
        let key = self.listed[1].to_pem().key;
        store::write(&self.folder.join(CA_KEY), key.as_bytes(), Access::Owner)?;
        self.listed.remove(0);
        self.write_list()?;
        remove(&self.folder.join(NEXT_CERTIFICATE))?;
        remove(&self.folder.join(NEXT_KEY))
    }

    fn write_list(&self) -> Result<(), ConfigError> {
        let text: String = self.listed.iter().map(ClientAuthority::certificate_pem).collect();
        let path = self.folder.join(CA_CERTIFICATE);
        // What an operator has written around a single certificate stays.
        let there: Vec<String> = store::certificates(&path)?.iter().map(pem::certificate).collect();
        match there.concat() == text {
            true => Ok(()),
            false => store::write(&path, text.as_bytes(), Access::Everyone),
        }
    }

    fn infos(&self) -> Vec<CertificateInfo> {
        self.listed.iter().map(|authority| authority.info().clone()).collect()
    }
}

/// What a server that is about to make a cluster has to give to it: its own authority, and the one
/// that follows it. One without its key was another cluster's: it gives way to a new one.
pub fn own_authorities(
    folder: &Path,
    policy: ClientCaPolicy,
    now: SystemTime,
) -> Result<Vec<AuthorityPem>, ConfigError> {
    if held(folder)?.is_some() {
        remove(&folder.join(CA_CERTIFICATE))?;
    }
    let own = ClientAuthorities::open_or_create(folder, policy, now)?;
    Ok(own.listed().iter().map(ClientAuthority::to_pem).collect())
}

/// The list of authorities in a folder that has no key to it: the cluster signs.
pub(crate) fn held(folder: &Path) -> Result<Option<Vec<CertificateDer<'static>>>, ConfigError> {
    let path = folder.join(CA_CERTIFICATE);
    match store::read_if_present(&path)?.filter(|_| !folder.join(CA_KEY).exists()) {
        Some(contents) => Ok(Some(store::certificates_in(&contents, &path)?)),
        None => Ok(None),
    }
}

/// Leaves what signs to the cluster, and lists its authorities. Says whether that is new. In this
/// order, as a key must never be taken for another certificate's.
pub(crate) fn leave_to_cluster(folder: &Path, trust: &ClientTrust) -> Result<bool, ConfigError> {
    for name in [CA_KEY, NEXT_KEY, NEXT_CERTIFICATE] {
        remove(&folder.join(name))?;
    }
    let path = folder.join(CA_CERTIFICATE);
    let listed = trust.certificates();
    if let Some(contents) = store::read_if_present(&path)?
        && store::certificates_in(&contents, &path).is_ok_and(|there| there == listed)
    {
        return Ok(false);
    }
    let text: String = listed.iter().map(pem::certificate).collect();
    store::write(&path, text.as_bytes(), Access::Everyone)?;
    Ok(true)
}

/// After a crash in the midst of dropping the first: its key is gone, or its certificate too.
fn finish_dropping(folder: &Path) -> Result<(), ConfigError> {
    let (next, next_key) = (folder.join(NEXT_CERTIFICATE), folder.join(NEXT_KEY));
    let Some(contents) = store::read_if_present(&next)? else {
        // A key alone: its certificate was never written, or has been removed already.
        return remove(&next_key);
    };
    let next_certificate = store::certificates_in(&contents, &next)?.remove(0);
    let (list, list_key) = (folder.join(CA_CERTIFICATE), folder.join(CA_KEY));
    let has_key_of_next = private_key::load(&list_key, None)
        .and_then(|key| private_key::check_pair(&next_certificate, &next, &key, &list_key))
        .is_ok();
    if !has_key_of_next {
        return Ok(());
    }
    store::write(&list, pem::certificate(&next_certificate).as_bytes(), Access::Everyone)?;
    remove(&next)?;
    remove(&next_key)
}

fn remove(path: &Path) -> Result<(), ConfigError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(ConfigError::Write { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ClientOptions, Pair, accept, self_made};

    fn open(folder: &Path, now: SystemTime) -> ClientAuthorities {
        ClientAuthorities::open_or_create(folder, ClientCaPolicy::default(), now).unwrap()
    }

    fn serials(all: &ClientAuthorities) -> Vec<String> {
        all.listed().iter().map(|authority| authority.info().serial.clone()).collect()
    }

    #[test]
    fn a_successor_comes_after_five_years_signs_before_ten_and_is_alone_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let start = SystemTime::now();
        let at = |days: u32| open(folder.path(), start + days * DAY);
        let first = serials(&at(0));
        assert_eq!(serials(&at(1_825)), first);
        let both = serials(&at(1_827));
        assert_eq!((both.len(), &both[0]), (2, &first[0]));
        let signs = |days: u32| {
            let all = at(days);
            all.signer(start + days * DAY).info().serial.clone()
        };
        assert_eq!(signs(1_827), first[0]);
        assert_eq!(signs(3_621), first[0]);
        assert_eq!(signs(3_623), both[1]);
        assert_eq!(serials(&at(3_651)), both);
        // The first ends, and the successor is old enough for one of its own.
        let after = serials(&at(3_653));
        assert_eq!((after.len(), &after[0]), (2, &both[1]));
        assert_eq!(signs(3_653), both[1]);
        assert_eq!(serials(&at(3_660)), after);
        let list = store::certificates(&folder.path().join(CA_CERTIFICATE)).unwrap();
        assert_eq!(list.len(), 2);
    }

    #[test]
    fn it_can_be_done_by_hand_at_any_time() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let mut all = open(folder.path(), now);
        let first = serials(&all);
        all.add_successor(now).unwrap();
        assert!(matches!(all.add_successor(now), Err(ConfigError::SuccessorExists)));
        let both = serials(&all);
        assert_eq!(serials(&open(folder.path(), now)), both);
        assert_eq!(all.signer(now).info().serial, first[0]);
        all.drop_old().unwrap();
        assert_eq!(serials(&all), both[1..]);
        assert_eq!(serials(&open(folder.path(), now)), both[1..]);
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(all.advance(now).unwrap().is_empty());
    }

    /// A client that knows these authorities, and whether it takes what the server shows.
    fn takes(acceptor: &crate::Acceptor, known: &[CertificateDer<'static>]) -> bool {
        known.iter().any(|ca| {
            let client = ClientOptions::default().config(ca);
            Pair::new(acceptor, &client).run().is_ok()
        })
    }

    #[test]
    fn clients_with_either_list_verify_until_the_switch_and_with_both_always() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let settings = self_made(folder.path());
        let acceptor = accept(&settings);
        let known = |all: &ClientAuthorities| -> Vec<_> {
            all.listed().iter().map(|authority| authority.certificate().clone()).collect()
        };
        let mut all = open(folder.path(), now);
        let old = known(&all);
        all.add_successor(now).unwrap();
        let both = known(&all);
        acceptor.reload(&settings, now).unwrap();
        assert!(takes(&acceptor, &old) && takes(&acceptor, &both));
        assert!(!takes(&acceptor, &both[1..]), "the first signs still");
        all.drop_old().unwrap();
        acceptor.reload(&settings, now).unwrap();
        assert!(!takes(&acceptor, &old));
        assert!(takes(&acceptor, &both) && takes(&acceptor, &known(&all)));
    }

    #[test]
    fn a_crash_while_the_first_is_dropped_leaves_the_successor() {
        for files_done in 0..4 {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name);
            let now = SystemTime::now();
            let mut all = open(folder.path(), now);
            all.add_successor(now).unwrap();
            let both = serials(&all);
            if 0 < files_done {
                fs::copy(path(NEXT_KEY), path(CA_KEY)).unwrap();
            }
            if 1 < files_done {
                fs::copy(path(NEXT_CERTIFICATE), path(CA_CERTIFICATE)).unwrap();
            }
            if 2 < files_done {
                fs::remove_file(path(NEXT_CERTIFICATE)).unwrap();
            }
            let expected = if files_done == 0 { &both[..] } else { &both[1..] };
            assert_eq!(serials(&open(folder.path(), now)), expected, "{files_done}");
            assert_eq!(path(NEXT_KEY).exists(), files_done == 0);
        }
    }

    #[test]
    fn what_was_given_to_a_cluster_has_no_key_here_and_is_not_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let policy = ClientCaPolicy::default();
        let mut all = open(folder.path(), now);
        all.add_successor(now).unwrap();
        assert!(held(folder.path()).unwrap().is_none());
        let given = own_authorities(folder.path(), policy, now).unwrap();
        assert_eq!(given.len(), 2);
        let texts: Vec<&str> = given.iter().map(|one| one.certificate.as_str()).collect();
        let trust = ClientTrust::new(&texts, 0).unwrap();
        // What clients are given is what they were given before.
        assert!(!leave_to_cluster(folder.path(), &trust).unwrap());
        let first = ClientTrust::new(&texts[..1], 0).unwrap();
        assert!(leave_to_cluster(folder.path(), &first).unwrap());
        assert!(leave_to_cluster(folder.path(), &trust).unwrap());
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "the list alone: {names:?}");
        assert_eq!(held(folder.path()).unwrap().unwrap(), trust.certificates());
        assert!(ClientAuthorities::open_or_create(folder.path(), policy, now).is_err());
        // Of a cluster that this server is in no longer.
        let own = own_authorities(folder.path(), policy, now).unwrap();
        assert!(own.len() == 1 && !texts.contains(&own[0].certificate.as_str()));
        assert!(held(folder.path()).unwrap().is_none());
    }
}
