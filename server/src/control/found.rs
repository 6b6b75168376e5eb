//! Making a cluster of this one node: its identity, its authority, its certificates, its first user and the
//! database that the process has been started with.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result};
use carnelian_admin::{Secret, action_id, hash_password, random_text};
use carnelian_cluster::state::{
    Authority, Change, CreateCluster, CreateUser, DEFAULT_NAME, DatabasePatch, DatabaseUid,
    NodeSettings, NodeUid, Outcome, PolicyPatch, Time, WirePatch,
};
use carnelian_tls::internode::{
    ClusterId, Identity, Lifetime, NodeKey, NodeUid as NodeName, Plane, Request, SealKey,
    SigningAuthority, Trust,
};

use super::{Member, blocking, clients, host, join, shared, spec};
use crate::clock;
use crate::databases::FIRST;
use crate::internode::{self, AskedFor};
use crate::log;

/// Who may do everything in a cluster that has made itself.
const ADMIN: &str = "admin@carnelian.local";
/// The file with that user's password, in the data folder.
pub const PASSWORD_FILE: &str = "admin-password";
const PASSWORD_CHARS_MIN: usize = 8;

/// A cluster as it is asked for.
pub struct Founding {
    pub name: String,
    pub email: String,
    pub password: Secret,
    pub node: NodeSettings,
    pub policy: PolicyPatch,
}

/// At the first start, where nobody has asked for anything else.
pub async fn by_itself(member: &Arc<Member>) -> Result<()> {
    let named = join::credentials();
    let is_named = named.is_some();
    let (email, password) = match named {
        Some((email, password)) => {
            anyhow::ensure!(
                PASSWORD_CHARS_MIN <= password.0.chars().count(),
                "the password of {email} has to be at least {PASSWORD_CHARS_MIN} characters long"
            );
            (email, password)
        }
        None => {
            let password = Secret(random_text(24).map_err(refused)?);
            // Before there is a user with it.
            write_password(&member.folder.join(PASSWORD_FILE), &password)?;
            (ADMIN.to_owned(), password)
        }
    };
    let config = member.server.config();
    let name = match config.cluster_create.as_str() {
        "" => DEFAULT_NAME.to_owned(),
        name => name.to_owned(),
    };
    let founding = Founding {
        name,
        email: email.clone(),
        password,
        node: host::node_settings(member),
        policy: PolicyPatch::default(),
    };
    found(member, founding).await?;
    if is_named {
        log::notice!("User {email} may administer this node");
    } else {
        log::notice!(
            "User {email} may administer this node; the password is in {}",
            member.folder.join(PASSWORD_FILE).display()
        );
    }
    Ok(())
}

/// Makes the cluster, or nothing.
pub async fn found(member: &Arc<Member>, founding: Founding) -> Result<()> {
    let Founding { name, email, password, node, policy } = founding;
    let address = node.addr.parse().ok();
    let work = Arc::clone(member);
    let cluster_name = name.clone();
    let made = blocking(move || make(&work, &cluster_name, address, &password)).await?;
    let request = CreateCluster {
        id: made.cluster.to_string(),
        name: name.clone(),
        node,
        facts: host::facts(member),
        admin: CreateUser {
            name: email.split('@').next().unwrap_or_default().to_owned(),
            email,
            password: made.password_hash,
            ..CreateUser::default()
        },
        authority: made.authority,
        certificates: made.certificates,
        policy,
    };
    let outcome = member.control.change(Change::CreateCluster(Box::new(request))).await?;
    let Outcome::Node(own) = outcome else { anyhow::bail!("the cluster has no node") };
    // At once: whoever knows of the cluster may make databases, and must not get its number.
    add_first_database(member, own).await?;
    if let Err(error) = clients::guide(member, &member.control.state()).await {
        // It is tried again.
        log::warning!("The cluster has no client CA yet: {error:#}");
    }
    open_channel(member).await?;
    log::notice!("This node is number {own} of the cluster {name}");
    Ok(())
}

struct Made {
    cluster: ClusterId,
    authority: Authority,
    certificates: std::collections::BTreeMap<String, carnelian_cluster::state::SharedCertificate>,
    password_hash: String,
}

/// All that takes computing time. What an attempt before this one has left behind is used.
fn make(member: &Member, name: &str, address: Option<IpAddr>, password: &Secret) -> Result<Made> {
    let now = SystemTime::now();
    let store = &member.store;
    let path = store.seal_key_file();
    let key = if path.exists() { SealKey::open(&path)? } else { SealKey::create(&path)? };
    let authority = match store.has_authority() {
        true => store.authority(&key)?,
        false => {
            let cluster = ClusterId::random().context("No random numbers")?;
            let authority = SigningAuthority::create(cluster, now)?;
            store.save_authority(&authority, &key)?;
            authority
        }
    };
    let cluster = authority.public().cluster();
    for plane in Plane::ALL {
        if store.has_credential(plane) {
            continue;
        }
        let node = NodeName::new(1).context("1 is a node's number")?;
        let identity = Identity { cluster, node, plane };
        let leaf = NodeKey::generate()?;
        let request = Request::from_pem(leaf.request(identity)?.as_bytes())?;
        let issued = authority.sign(&request, identity, Lifetime::default(), now)?;
        store.save_credential(&leaf.certified(issued.certificate)?)?;
    }
    if !store.has_trust() {
        store.save_trust(&Trust::new(vec![authority.public().clone()])?)?;
    }
    shared::ensure_for(&member.table, &member.folder, name, address.as_slice())?;
    let certificates = shared::to_state(&member.table, &key)?;
    let sealed = Authority::sealed(&authority, &key, Time(clock::wall_ms()))?;
    let password_hash = hash_password(&password.0).map_err(refused)?;
    member.key.store(Some(Arc::new(key)));
    Ok(Made { cluster, authority: sealed, certificates, password_hash })
}

/// The database that the process has been started with becomes database 1 of the cluster.
async fn add_first_database(member: &Arc<Member>, own: NodeUid) -> Result<()> {
    let database = member.server.database(FIRST)?;
    let patch: DatabasePatch = spec::of_first(&database, &member.server.config());
    let change = Change::CreateDatabase {
        spec: Box::new(WirePatch { uid: Some(DatabaseUid(FIRST)), ..WirePatch::from(patch) }),
        on: Some(own),
        admin_password: random_text(48).map_err(refused)?,
        action: action_id().map_err(refused)?,
    };
    match member.control.change(change).await {
        Ok(_) => {
            let state = member.control.state();
            let made = state.databases.get(&DatabaseUid(FIRST)).context("database 1")?;
            spec::save_base(&member.folder, &made.settings)?;
        }
        // The server serves it all the same.
        Err(error) => log::warning!("Database 1 is not one of the cluster's: {error}"),
    }
    Ok(())
}

/// Opens the ports for other nodes, now that there are certificates for them.
pub async fn open_channel(member: &Arc<Member>) -> Result<()> {
    let server = Arc::clone(&member.server);
    blocking(move || Ok(internode::open(&server, AskedFor::default())?)).await?;
    Ok(())
}

fn write_password(path: &Path, password: &Secret) -> Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("Can't write {}", path.display()))?;
    writeln!(file, "{}", password.0)?;
    file.sync_all()?;
    Ok(())
}

/// The words of the interface's own refusals.
pub fn refused(refusal: impl std::fmt::Debug) -> anyhow::Error {
    anyhow::anyhow!("{refusal:?}")
}
