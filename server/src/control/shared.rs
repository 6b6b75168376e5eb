//! Certificates that all nodes of the cluster show: from the state into this node's table, and the settings of
//! HTTPS.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result};
use carnelian_cluster::state::{
    CertificateName, ClusterSettings, ManagedBy, SealedKey, SharedCertificate, State, Time,
    TlsVersion,
};
use carnelian_tls::certificates::{CertificateTable, Names, Shared};
use carnelian_tls::internode::SealKey;
use carnelian_tls::{
    AdminSettings, CA_CERTIFICATE, ClientAuthority, ClientCaPolicy, ClientTrust, MinVersion,
    own_authorities,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::{Member, leaves};
use crate::clock;
use crate::database::Database;
use crate::encryption::Asked;
use crate::log;

/// Makes the certificates that have to be there, by the authority of this server alone: what it shows before it is in
/// a cluster.
pub fn ensure_for(
    table: &CertificateTable,
    folder: &Path,
    cluster: &str,
    addresses: &[IpAddr],
) -> Result<()> {
    let now = SystemTime::now();
    let policy = ClientCaPolicy::default();
    let own = own_authorities(folder, policy, now)?;
    let texts: Vec<&str> = own.iter().map(|it| it.certificate.as_str()).collect();
    let infos = ClientTrust::new(&texts, 0)?.infos();
    let signer = &own[policy.signer(&infos, leaves::seconds(now))];
    let authority = ClientAuthority::from_pem(signer, &folder.join(CA_CERTIFICATE))?;
    let made = table.ensure(&authority, &Names::new(cluster, addresses)?, now)?;
    if !made.is_empty() {
        let names: Vec<&str> = made.iter().map(|name| name.as_str()).collect();
        log::verbose!("Made certificates for {cluster}: {}", names.join(", "));
    }
    Ok(())
}

/// What customers have provided, as the state keeps it: keys sealed. The rest each node has signed for itself.
pub fn to_state(
    table: &CertificateTable,
    key: &SealKey,
) -> Result<BTreeMap<String, SharedCertificate>> {
    let mut all = BTreeMap::new();
    let customers = table.share().into_iter().filter(|it| it.managed_by == ManagedBy::Customer);
    for shared in customers {
        let Shared { name, managed_by, certificate, key: private } = shared;
        let sealed = match private {
            Some(private) => Some(SealedKey(key.seal(private.as_bytes())?)),
            None => None,
        };
        let not_after = table.get(name).map_or(0, |entry| entry.info().not_after);
        let shared = SharedCertificate {
            certificate,
            key: sealed,
            managed_by,
            not_after: Time(u64::try_from(not_after).unwrap_or(0) * 1000),
            changed: Time(clock::wall_ms()),
        };
        all.insert(name.as_str().to_owned(), shared);
    }
    Ok(all)
}

/// The other way.
fn from_state(state: &State, key: &SealKey) -> Result<Vec<Shared>> {
    let mut all = Vec::new();
    for (name, shared) in &state.shared_certificates {
        let name: CertificateName = name.parse()?;
        if name.is_internal() || shared.managed_by != ManagedBy::Customer {
            continue;
        }
        all.push(open(name, shared, key)?);
    }
    Ok(all)
}

/// What a customer has provided, with its key.
pub fn opened(
    member: &Member,
    name: CertificateName,
    shared: &SharedCertificate,
) -> Result<Shared> {
    open(name, shared, &*member.key().context("this node has no key of the cluster")?)
}

fn open(name: CertificateName, shared: &SharedCertificate, key: &SealKey) -> Result<Shared> {
    let private = match &shared.key {
        None => None,
        Some(sealed) => {
            let opened = key.unseal(&sealed.0, Path::new(name.as_str()))?;
            let text = String::from_utf8(opened.to_vec()).context("a key that is no text")?;
            Some(Zeroizing::new(text))
        }
    };
    let (managed_by, certificate) = (shared.managed_by, shared.certificate.clone());
    Ok(Shared { name, managed_by, certificate, key: private })
}

/// What the cluster says of HTTPS.
pub fn settings_of(state: &State) -> AdminSettings {
    let Some(cluster) = &state.cluster else { return AdminSettings::default() };
    let ClusterSettings {
        min_control_tls_version,
        control_cipher_suites,
        mtls_certificate_authentication,
        ..
    } = &cluster.settings;
    let trusted = state.shared_certificates.get("mtls_trusted_ca");
    let trusted = trusted.filter(|_| *mtls_certificate_authentication);
    AdminSettings {
        min_version: match min_control_tls_version {
            TlsVersion::V12 => MinVersion::Tls12,
            TlsVersion::V13 => MinVersion::Tls13,
        },
        cipher_suites: control_cipher_suites.clone(),
        client_authorities: trusted
            .map(|shared| CertificateDer::pem_slice_iter(shared.certificate.as_bytes()))
            .map(|all| all.filter_map(Result::ok).collect())
            .unwrap_or_default(),
    }
}

/// Keeps what this node shows what the state says.
pub async fn follow(member: Arc<Member>) {
    let mut states = member.control.subscribe();
    let mut before = None;
    loop {
        let state = Arc::clone(&states.borrow_and_update());
        let now = (
            state.shared_certificates.clone(),
            state.cluster.as_ref().map(|cluster| cluster.settings.clone()),
        );
        if state.cluster.is_some() && before.as_ref() != Some(&now) {
            if let Err(error) = put_into_effect(&member, &state) {
                log::warning!("Certificates of the cluster were not taken over: {error:#}");
            }
            before = Some(now);
        }
        if states.changed().await.is_err() {
            return;
        }
    }
}

fn put_into_effect(member: &Member, state: &State) -> Result<()> {
    let key = member.key().context("this node has no key of the cluster")?;
    member.table.adopt(&from_state(state, &key)?)?;
    member.acceptor.reload(&settings_of(state))?;
    let databases = member.server.databases.read().clone();
    databases.iter().try_for_each(|database| encrypt(member, state, database))?;
    let followed = member.server.endpoints.encrypt(&asked(member, state));
    followed.context("TLS of databases of other nodes")
}

/// What the cluster asks of the encryption of its databases.
pub fn asked(member: &Member, state: &State) -> Asked {
    let proxy = member.table.get(CertificateName::Proxy);
    let default = ClusterSettings::default();
    let settings = state.cluster.as_ref().map_or(&default, |cluster| &cluster.settings);
    let is_default = settings.data_cipher_list == default.data_cipher_list;
    Asked {
        certificate: proxy.filter(|it| it.managed_by() == ManagedBy::Customer),
        only_newest: settings.min_data_tls_version == TlsVersion::V13,
        ciphers: if is_default { String::new() } else { settings.data_cipher_list.clone() },
        ciphersuites: settings.data_cipher_suites_tls_1_3.join(":"),
    }
}

/// Has a database speak TLS with its clients as the cluster says, and show them what has been provided for that;
/// without it, each has certificates of this node's own making.
pub fn encrypt(member: &Member, state: &State, database: &Database) -> Result<()> {
    let followed = database.tls.follow(asked(member, state), &database.config());
    followed.with_context(|| format!("TLS of database {}", database.uid))
}
