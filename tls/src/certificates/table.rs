//! The table of a node's certificates.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rcgen::{DistinguishedName, DnType};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::status::Status;
use super::{Certificate, CertificateError, CertificateName, Kind, ManagedBy, Served, file};
use crate::ca::ClientAuthority;
use crate::error::ConfigError;
use crate::issue::{self, KeyKind, Profile, Purpose, SubjectAltNames};
use crate::pem;
use crate::store::{self, Access};

/// The folder within the data folder.
const FOLDER: &str = "certificates";
/// All of the table with its keys, mode 0600.
const FILE: &str = "certificates";

/// How long the ones made here live.
const LIFE: Duration = Duration::from_secs(365 * 86_400);

pub(super) type Entries = BTreeMap<CertificateName, Arc<Certificate>>;

/// Whom the certificates made here are for.
#[derive(Clone, Debug)]
pub struct Names {
    cluster: String,
    alternatives: SubjectAltNames,
}

impl Names {
    /// A cluster's name, and the addresses of its nodes.
    pub fn new(cluster: &str, nodes: &[IpAddr]) -> Result<Self, ConfigError> {
        let alternatives = SubjectAltNames::for_cluster(cluster, nodes)?;
        Ok(Self { cluster: cluster.to_owned(), alternatives })
    }

    /// The same, and these names or addresses.
    pub fn and<T: AsRef<str>>(
        mut self,
        more: impl IntoIterator<Item = T>,
    ) -> Result<Self, ConfigError> {
        for name in more {
            self.alternatives.add(name.as_ref())?;
        }
        Ok(self)
    }

    pub(crate) fn alternatives(&self) -> &SubjectAltNames {
        &self.alternatives
    }
}

/// Who signs what is made by the cluster.
pub(crate) struct Signer<'a> {
    pub(crate) certificate: &'a CertificateDer<'static>,
    /// In seconds since 1970.
    pub(crate) ends: i64,
}

/// What a customer wants to use from now on.
#[derive(Clone)]
pub struct Provided {
    pub name: String,
    /// PEM, the leaf first.
    pub certificate: String,
    /// PEM; without it, the key beside the certificate, or else the one in use.
    pub key: Option<Zeroizing<String>>,
}

/// A certificate on its way to another node.
#[derive(Clone)]
pub struct Shared {
    pub name: CertificateName,
    pub managed_by: ManagedBy,
    pub certificate: String,
    pub key: Option<Zeroizing<String>>,
}

/// See the module's description. `entries` is swapped as a whole, after the file has been.
pub struct CertificateTable {
    folder: PathBuf,
    entries: Arc<ArcSwap<Entries>>,
    /// Held while the table is changed.
    changing: Mutex<()>,
    version: watch::Sender<u64>,
}

impl CertificateTable {
    /// The table in a data folder; the first time, an empty one.
    pub fn open(data_folder: &Path) -> Result<Self, ConfigError> {
        let folder = data_folder.join(FOLDER);
        store::make_folder(&folder)?;
        let path = folder.join(FILE);
        let entries = match store::read_if_present(&path)?.map(Zeroizing::new) {
            None => Entries::new(),
            Some(contents) => {
                let bad = |reason: String| ConfigError::BadCertificate { path, reason };
                match std::str::from_utf8(&contents) {
                    Ok(text) => file::read(text).map_err(bad)?,
                    Err(_) => return Err(bad("not text".into())),
                }
            }
        };
        let table = Self {
            folder,
            entries: Arc::new(ArcSwap::from_pointee(entries)),
            changing: Mutex::new(()),
            version: watch::Sender::new(0),
        };
        table.write_public_parts(&Entries::new(), &table.entries.load())?;
        Ok(table)
    }

    /// Makes what has to be there and is not, or does not serve any longer: it lacks a name, is
    /// about to end, or another authority has made it. Says which. What a customer has provided
    /// stays, whatever there is to say about it.
    pub fn ensure(
        &self,
        authority: &ClientAuthority,
        names: &Names,
        now: SystemTime,
    ) -> Result<Vec<CertificateName>, CertificateError> {
        self.change(|entries| {
            let signer =
                Signer { certificate: authority.certificate(), ends: authority.info().not_after };
            let made = lacking(entries, &signer, names, now);
            for name in &made {
                entries.insert(*name, Arc::new(make(*name, authority, names, now)?));
            }
            Ok(made)
        })
    }

    /// What [`ensure`](Self::ensure) would make.
    pub(crate) fn lacking(
        &self,
        signer: &Signer<'_>,
        names: &Names,
        now: SystemTime,
    ) -> Vec<CertificateName> {
        lacking(&self.entries.load(), signer, names, now)
    }

    /// Uses what the cluster's authority has signed for this node: chains and keys, as PEM. What a
    /// customer has provided meanwhile stays.
    pub(crate) fn install(
        &self,
        signed: &[(CertificateName, String, Zeroizing<String>)],
    ) -> Result<(), CertificateError> {
        self.change(|entries| {
            for (name, chain, key) in signed {
                let entry = Certificate::kept(*name, ManagedBy::ClientCa, chain, Some(key))?;
                let is_customers = |it: &Arc<Certificate>| it.managed_by() == ManagedBy::Customer;
                if !entries.get(name).is_some_and(is_customers) {
                    entries.insert(*name, Arc::new(entry));
                }
            }
            Ok(())
        })
    }

    /// Puts a customer's certificates in use, all of them or, if there is anything to say against
    /// one, none.
    pub fn replace(&self, provided: &[Provided], now: SystemTime) -> Result<(), CertificateError> {
        self.change(|entries| {
            let checked = check(provided, entries, now)?;
            // Those are kept elsewhere.
            if let Some(one) = checked.iter().find(|it| it.name().is_internal()) {
                return Err(CertificateError::Internal(one.name()));
            }
            entries.extend(checked.into_iter().map(|entry| (entry.name(), Arc::new(entry))));
            Ok(())
        })
    }

    /// What [`replace`](Self::replace) would say, and nothing else.
    pub fn check(
        &self,
        provided: &[Provided],
        now: SystemTime,
    ) -> Result<Vec<Shared>, CertificateError> {
        let checked = check(provided, &self.entries.load(), now)?;
        Ok(checked.iter().map(share).collect())
    }

    /// Has exactly these of the certificates that a cluster's nodes have in common: what is in use
    /// elsewhere, and so has been judged. All of them or none. What has been made for this node stays
    /// where there is nothing else.
    pub fn adopt(&self, shared: &[Shared]) -> Result<(), CertificateError> {
        let mut adopted = Entries::new();
        for one in shared {
            if one.name.kind() == Kind::Internal {
                return Err(CertificateError::Internal(one.name));
            }
            let key = one.key.as_deref().map(String::as_str);
            let entry = Certificate::kept(one.name, one.managed_by, &one.certificate, key)?;
            if one.name.has_key() && entry.key_pem().is_none() {
                let reason = "its private key is missing".into();
                return Err(CertificateError::Invalid { name: one.name, reason });
            }
            if adopted.insert(one.name, Arc::new(entry)).is_some() {
                return Err(CertificateError::Twice(one.name));
            }
        }
        self.change(|entries| {
            // What is there already stays what it is, so that nobody is told of a change.
            for (name, new) in &mut adopted {
                if let Some(old) = entries.get(name).filter(|old| old.is_same(new)) {
                    *new = Arc::clone(old);
                }
            }
            entries.retain(|_, entry| entry.managed_by() == ManagedBy::ClientCa);
            entries.extend(adopted);
            Ok(())
        })
    }

    /// Everything that the nodes of a cluster have in common, keys included.
    pub fn share(&self) -> Vec<Shared> {
        self.entries.load().values().map(|entry| share(entry)).collect()
    }

    /// No longer uses an optional certificate.
    pub fn remove(&self, name: &str) -> Result<(), CertificateError> {
        let name: CertificateName = name.parse()?;
        if name.kind() != Kind::Optional {
            return Err(CertificateError::Required(name));
        }
        self.change(|entries| match entries.remove(&name) {
            Some(_) => Ok(()),
            None => Err(CertificateError::NotSet(name)),
        })
    }

    /// What is in use under a name. The leaves between nodes are not here.
    pub fn get(&self, name: CertificateName) -> Option<Arc<Certificate>> {
        self.entries.load().get(&name).cloned()
    }

    /// For a listener that shows the certificate of this name.
    pub fn served(&self, name: CertificateName) -> Arc<Served> {
        Served::new(name, Arc::clone(&self.entries))
    }

    /// What to tell of all that is in use.
    pub fn statuses(&self, now: SystemTime) -> Vec<Status> {
        let now_s = issue::seconds(now);
        self.entries.load().values().map(|entry| Status::of(entry, now_s)).collect()
    }

    /// A number that grows with each change: for those who derive something from the table.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Where the public part of a certificate is.
    pub fn file(&self, name: CertificateName) -> PathBuf {
        self.folder.join(name.file())
    }

    fn change<T>(
        &self,
        change: impl FnOnce(&mut Entries) -> Result<T, CertificateError>,
    ) -> Result<T, CertificateError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.entries.load_full();
        let mut entries = Entries::clone(&before);
        let result = change(&mut entries)?;
        let is_same = before.len() == entries.len()
            && before.values().zip(entries.values()).all(|(old, new)| Arc::ptr_eq(old, new));
        if is_same {
            return Ok(result);
        }
        let text = file::write(&entries);
        store::write(&self.folder.join(FILE), text.as_bytes(), Access::Owner)?;
        let public = self.write_public_parts(&before, &entries);
        // In force from here on, as it will be after the next start: the copies are for people.
        self.entries.store(Arc::new(entries));
        self.version.send_modify(|version| *version += 1);
        public?;
        Ok(result)
    }

    /// Keeps `NAME_cert.pem` beside the table: what operators give to their clients.
    fn write_public_parts(&self, before: &Entries, now: &Entries) -> Result<(), ConfigError> {
        for (name, entry) in now {
            let is_known = before.get(name).is_some_and(|old| Arc::ptr_eq(old, entry));
            let (path, text) = (self.file(*name), entry.certificate_pem());
            let is_there = || fs::read(&path).is_ok_and(|there| there == text.as_bytes());
            if !is_known && !is_there() {
                store::write(&path, text.as_bytes(), Access::Everyone)?;
            }
        }
        for name in before.keys().filter(|name| !now.contains_key(name)) {
            let path = self.file(*name);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(ConfigError::Write { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn check(
    provided: &[Provided],
    entries: &Entries,
    now: SystemTime,
) -> Result<Vec<Certificate>, CertificateError> {
    let mut checked: Vec<Certificate> = Vec::new();
    for one in provided {
        let name: CertificateName = one.name.parse()?;
        if checked.iter().any(|before| before.name() == name) {
            return Err(CertificateError::Twice(name));
        }
        let before = entries.get(&name).map(|entry| &**entry);
        let key = one.key.as_deref().map(String::as_str);
        checked.push(Certificate::provided(name, &one.certificate, key, before, now)?);
    }
    Ok(checked)
}

fn share(entry: &Certificate) -> Shared {
    Shared {
        name: entry.name(),
        managed_by: entry.managed_by(),
        certificate: entry.certificate_pem(),
        key: entry.key_pem().map(|key| Zeroizing::new(key.to_owned())),
    }
}

/// A new one: the leaf, and behind it the authority, as people give the file to their clients to
/// know servers by.
fn make(
    name: CertificateName,
    authority: &ClientAuthority,
    names: &Names,
    now: SystemTime,
) -> Result<Certificate, CertificateError> {
    let profile = profile(name, &names.cluster, &names.alternatives);
    let made = authority.issue(profile, now)?;
    let chain = made.certificate_pem + &pem::certificate(authority.certificate());
    let key = Zeroizing::new(made.key_pem);
    Certificate::kept(name, ManagedBy::ClientCa, &chain, Some(&key))
}

/// What such a certificate says.
pub(crate) fn profile<'a>(
    name: CertificateName,
    cluster: &str,
    names: &'a SubjectAltNames,
) -> Profile<'a> {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "Carnelian Enterprise Cluster");
    subject.push(
        DnType::OrganizationalUnitName,
        match name {
            CertificateName::Syncer => "syncer",
            _ => "redisdb",
        },
    );
    subject.push(DnType::CommonName, cluster);
    let (purpose, kind) = (Purpose::Server, KeyKind::EcdsaP256);
    Profile { purpose, subject, names, kind, life: LIFE }
}

fn lacking(
    entries: &Entries,
    signer: &Signer<'_>,
    names: &Names,
    now: SystemTime,
) -> Vec<CertificateName> {
    let stays = |present: &Arc<Certificate>| serves(present, signer, names, now);
    CertificateName::ALL
        .into_iter()
        .filter(|name| name.kind() == Kind::Required && !entries.get(name).is_some_and(stays))
        .collect()
}

/// Whether a certificate can stay. Others' are theirs to judge.
fn serves(present: &Certificate, signer: &Signer<'_>, names: &Names, now: SystemTime) -> bool {
    if present.managed_by() != ManagedBy::ClientCa {
        return true;
    }
    let info = present.info();
    // One that ends with its authority would gain nothing.
    let lasts_s = issue::seconds(now).saturating_add(issue::LEAF_RENEWAL.as_secs() as i64);
    present.chain().last() == Some(signer.certificate)
        && issue::covers(&info.dns_names, &info.ip_addresses, &names.alternatives)
        && lasts_s.min(signer.ends) <= info.not_after
}

/// When a certificate made here is due to be made anew.
pub(super) fn renewal_s(certificate: &Certificate) -> i64 {
    renewal_of(certificate.info().not_after)
}

/// The same by the end of one, both in seconds since 1970.
pub fn renewal_of(not_after_s: i64) -> i64 {
    not_after_s.saturating_sub(issue::LEAF_RENEWAL.as_secs() as i64)
}
