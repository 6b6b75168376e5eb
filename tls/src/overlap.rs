//! The client CA and the one that follows it. Years before the first ends its successor is listed
//! beside it, so that clients come to know both; leaves go on being signed by the first until
//! shortly before its end, and then by the second. Whoever has the first alone verifies until then,
//! and whoever has both verifies always.
//!
//! Which of the two signs follows from the dates and is kept nowhere. On the disk, `client-ca.pem`
//! is the list, oldest first, which is what clients are given; the successor and its key have files
//! of their own until they take the place of the first.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

use crate::ca::{CA_CERTIFICATE, CA_KEY, ClientAuthority};
use crate::describe::CertificateInfo;
use crate::error::ConfigError;
use crate::issue::{self, seconds};
use crate::pem;
use crate::private_key;
use crate::store::{self, Access};

const NEXT_CERTIFICATE: &str = "client-ca-next.pem";
const NEXT_KEY: &str = "client-ca-next.key";
const TRIAL: &str = "client-ca-trial.pem";
const TRIAL_KEY: &str = "client-ca-trial.key";

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

/// An authority on its way to another node of the cluster.
#[derive(Clone)]
pub struct SharedAuthority {
    pub certificate: String,
    pub key: Zeroizing<String>,
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
    pub fn add_successor(&mut self, now: SystemTime) -> Result<(), ConfigError> {
        if self.listed.len() != 1 {
            return Err(ConfigError::SuccessorExists);
        }
        let (folder, life) = (&self.folder, self.policy.validity);
        let made = ClientAuthority::create_as(folder, NEXT_CERTIFICATE, NEXT_KEY, now, life)?;
        self.listed.push(made);
        self.write_list()
    }

    /// Does not wait for the end of the first: the successor signs, and is the only one listed.
    pub fn complete(&mut self) -> Result<(), ConfigError> {
        match self.listed.len() {
            2 => self.drop_old(),
            _ => Err(ConfigError::NoSuccessor),
        }
    }

    /// The one that signs.
    pub fn signer(&self, now: SystemTime) -> &ClientAuthority {
        &self.listed[self.policy.signer(&self.infos(), seconds(now))]
    }

    /// All that are valid, the oldest first: at least one.
    pub fn listed(&self) -> &[ClientAuthority] {
        &self.listed
    }

    /// The certificates as the instances API lists them: whatever joins them, even by a character on
    /// the same line, makes a text that every reader of PEM finds all of them in.
    pub fn server_ca_certs(&self) -> Vec<String> {
        let texts = self.listed.iter().map(|authority| authority.certificate_pem());
        texts
            .enumerate()
            .map(|(place, text)| if place == 0 { text.to_owned() } else { format!("\n{text}") })
            .collect()
    }

    /// Everything, keys included, for the other nodes of the cluster: clients know all of them by
    /// the same authorities.
    pub fn share(&self) -> Vec<SharedAuthority> {
        let share = |authority: &ClientAuthority| SharedAuthority {
            certificate: authority.certificate_pem().to_owned(),
            key: authority.key_pem(),
        };
        self.listed.iter().map(share).collect()
    }

    /// Has just these, of which there are one or two, in the place of its own. Each step leaves what
    /// can be opened, so that after a crash the next call goes on.
    pub fn adopt(&mut self, shared: &[SharedAuthority]) -> Result<(), ConfigError> {
        let (first, next) = match shared {
            [first] => (first, None),
            [first, next] => (first, Some(next)),
            _ => {
                let path = self.folder.join(CA_CERTIFICATE);
                let reason = format!("{} authorities are not one or two", shared.len());
                return Err(ConfigError::BadCertificate { path, reason });
            }
        };
        if !self.is_at(0, first) {
            if !self.is_at(1, first) {
                self.set_successor(Some(first))?;
            }
            self.drop_old()?;
        }
        if !next.map_or(self.listed.len() == 1, |next| self.is_at(1, next)) {
            self.set_successor(next)?;
        }
        Ok(())
    }

    fn is_at(&self, place: usize, shared: &SharedAuthority) -> bool {
        let ours = self.listed.get(place).map(ClientAuthority::certificate_pem);
        ours.is_some_and(|ours| ours.trim() == shared.certificate.trim())
    }

    fn set_successor(&mut self, successor: Option<&SharedAuthority>) -> Result<(), ConfigError> {
        // Under other names first, so that what cannot be used replaces nothing.
        if let Some(successor) = successor {
            let (path, key_path) = (self.folder.join(TRIAL), self.folder.join(TRIAL_KEY));
            store::write(&key_path, successor.key.as_bytes(), Access::Owner)?;
            store::write(&path, successor.certificate.as_bytes(), Access::Everyone)?;
            let tried = ClientAuthority::read(&self.folder, TRIAL, TRIAL_KEY);
            remove(&path)?;
            remove(&key_path)?;
            tried?;
        }
        let (path, key_path) = (self.folder.join(NEXT_CERTIFICATE), self.folder.join(NEXT_KEY));
        remove(&path)?;
        remove(&key_path)?;
        self.listed.truncate(1);
        if let Some(successor) = successor {
            store::write(&key_path, successor.key.as_bytes(), Access::Owner)?;
            store::write(&path, successor.certificate.as_bytes(), Access::Everyone)?;
            self.listed.push(ClientAuthority::read(&self.folder, NEXT_CERTIFICATE, NEXT_KEY)?);
        }
        self.write_list()
    }

    /// The successor's key takes the place of the first one's, then the list loses the first. A crash
    /// in between is found at the next start by a key that is not the first one's.
    fn drop_old(&mut self) -> Result<(), ConfigError> {
        let key = self.listed[1].key_pem();
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
    use rustls::pki_types::CertificateDer;

    use super::*;
    use crate::issue::{KeyKind, SubjectAltNames};
    use crate::testing::{ClientOptions, Openssl, Pair, accept, self_made};

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
        assert!(matches!(all.complete(), Err(ConfigError::NoSuccessor)));
        let first = serials(&all);
        all.add_successor(now).unwrap();
        assert!(matches!(all.add_successor(now), Err(ConfigError::SuccessorExists)));
        let both = serials(&all);
        assert_eq!(serials(&open(folder.path(), now)), both);
        assert_eq!(all.signer(now).info().serial, first[0]);
        all.complete().unwrap();
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
        all.complete().unwrap();
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
    fn another_node_takes_over_what_the_cluster_has() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let now = SystemTime::now();
        let (mut ours, mut theirs) = (open(here.path(), now), open(there.path(), now));
        ours.add_successor(now).unwrap();
        theirs.adopt(&ours.share()).unwrap();
        assert_eq!(serials(&theirs), serials(&ours));
        assert_eq!(serials(&open(there.path(), now)), serials(&ours));
        ours.complete().unwrap();
        theirs.adopt(&ours.share()).unwrap();
        let again = open(there.path(), now);
        assert_eq!(serials(&again), serials(&ours));
        let names = SubjectAltNames::of(["localhost"]).unwrap();
        assert!(again.signer(now).issue_server(&names, KeyKind::EcdsaP256, now).is_ok());

        let mut mixed = open(tempfile::tempdir().unwrap().path(), now).share();
        mixed[0].key = ours.share()[0].key.clone();
        assert!(theirs.adopt(&mixed).is_err() && theirs.adopt(&[]).is_err());
        assert_eq!(serials(&open(there.path(), now)), serials(&ours));
    }

    #[test]
    fn a_list_joined_by_a_semicolon_has_all_its_certificates_for_openssl() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let mut all = open(folder.path(), now);
        all.add_successor(now).unwrap();
        let Some(openssl) = Openssl::new() else { return };
        let write = |name: &str, text: &str| fs::write(openssl.folder().join(name), text).unwrap();
        write("bundle.pem", &all.server_ca_certs().join(";"));
        let names = SubjectAltNames::of(["localhost"]).unwrap();
        for authority in all.listed() {
            let leaf = authority.issue_server(&names, KeyKind::EcdsaP256, now).unwrap();
            write("leaf.pem", &leaf.certificate_pem);
            openssl.run("verify -x509_strict -CAfile bundle.pem leaf.pem");
        }
    }
}
