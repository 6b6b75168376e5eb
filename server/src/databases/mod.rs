//! Databases that come and go while the process runs, and change.
//!
//! The control plane says what there is to be ([`DatabaseSpec`]), and calls these functions from threads of its own:
//! they wait for reactors, so no reactor may call them. One call at a time is under way (`Server::making`), but for
//! the loading of data, which may take long: meanwhile the database is there and tells its clients to wait.
//!
//! What is made is whole or not there at all; what is changed is changed in all its parts or in none.

mod flush;
mod remove;
mod spec;
#[cfg(test)]
mod tests;

use std::fs::{DirBuilder, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use carnelian_config::{Config, DirectiveId, SetError};
use carnelian_tls::ConfigError;
use sha2::{Digest, Sha256};

pub use self::remove::Files;
pub use self::spec::{
    Access, CertificateFiles, ClientSubjects, ClientTrust, DatabaseSpec, Persistence, TlsMode,
};

use crate::acl::Acl;
use crate::clients::{ClientShared, bits};
use crate::configure;
use crate::database::{Database, Stats};
use crate::encryption::Encryption;
use crate::listener::Change;
use crate::load;
use crate::log;
use crate::process;
use crate::server::{Making, Server};
use crate::settings;

/// The database that the process is started with.
pub const FIRST: u32 = 1;

/// What a database's folder is called, before its uid.
const FOLDER: &str = "db-";
/// What files of the authorities of clients are called, before what tells them apart.
const AUTHORITIES: &str = "client-authorities-";

/// Why a database was not made, changed or dropped.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("there is no database {0}")]
    Unknown(u32),
    #[error("there is a database {0} already")]
    UidTaken(u32),
    #[error("{0} cannot be the uid of a database")]
    BadUid(u32),
    #[error("port {port} cannot be listened on: {reason}")]
    Port { port: u16, reason: String },
    #[error("{0}")]
    Setting(#[source] SetError),
    #[error("user '{name}': {reason}")]
    User { name: String, reason: String },
    #[error("TLS cannot be set up: {0}")]
    Tls(#[source] ConfigError),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("the data of database {uid} cannot be loaded: {reason}")]
    Data { uid: u32, reason: String },
    #[error("database {uid}: {reason}")]
    Refused { uid: u32, reason: String },
    #[error("the server is ending")]
    Ending,
}

/// Where a database is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its data are yet to be loaded: they must not be saved, being not all there is.
    Coming,
    Here,
    /// It takes no clients any more and keeps nothing.
    Gone,
}

/// The stage of a database.
#[derive(Debug)]
pub struct StageCell(AtomicU8);

impl Default for StageCell {
    fn default() -> Self {
        Self(AtomicU8::new(Stage::Here as u8))
    }
}

impl StageCell {
    pub fn get(&self) -> Stage {
        match self.0.load(Ordering::Acquire) {
            0 => Stage::Coming,
            1 => Stage::Here,
            _ => Stage::Gone,
        }
    }

    pub fn set(&self, stage: Stage) {
        self.0.store(stage as u8, Ordering::Release);
    }
}

impl Server {
    /// The database with this uid.
    pub fn database(&self, uid: u32) -> Result<Arc<Database>, DatabaseError> {
        let databases = self.databases.read();
        let found = databases.iter().find(|database| database.uid == uid);
        found.cloned().ok_or(DatabaseError::Unknown(uid))
    }

    /// Where a database keeps its files.
    pub fn folder_of(&self, uid: u32) -> PathBuf {
        match uid {
            FIRST => self.folder.clone(),
            _ => self.folder.join(format!("{FOLDER}{uid}")),
        }
    }

    /// Makes a database, with the data that its folder has, and returns when they are loaded. Its port is open
    /// before that, and clients are told to wait.
    pub fn create_database(
        self: &Arc<Self>,
        spec: DatabaseSpec,
    ) -> Result<Arc<Database>, DatabaseError> {
        self.create_database_with(spec, |_| Ok(()))
    }

    /// The same where something is to be done before anybody can come in; the database is not listed then.
    pub fn create_database_with<E: From<DatabaseError>>(
        self: &Arc<Self>,
        spec: DatabaseSpec,
        prepare: impl FnOnce(&Arc<Database>) -> Result<(), E>,
    ) -> Result<Arc<Database>, E> {
        spec.check()?;
        let uid = spec.uid;
        let making = self.making.lock();
        if *making == Making::Over {
            return Err(DatabaseError::Ending.into());
        }
        if self.database(uid).is_ok() {
            return Err(DatabaseError::UidTaken(uid).into());
        }
        let keeps = spec.persistence != Persistence::Disabled;
        let folder = MadeFolder::at(self.folder_of(uid))?;
        let (database, change) = self.build(spec, &folder.path)?;
        prepare(&database)?;
        self.list(|databases| databases.push(Arc::clone(&database)));
        drop(making);

        // From here on there may be data in it.
        folder.keep();
        let open_doors = || self.pass_on(&database, change);
        if !keeps {
            // What may still lie in its folder is older than what it had when it kept nothing.
            open_doors();
            database.stage.set(Stage::Here);
            return Ok(database);
        }
        match load::when_made(self, &database, open_doors) {
            Ok(load::Start::Ready) => {}
            Ok(load::Start::Ended) => return Err(DatabaseError::Ending.into()),
            Err(error) => {
                let reason = error.to_string();
                self.drop_database(uid, Files::Keep)?;
                return Err(DatabaseError::Data { uid, reason }.into());
            }
        }
        let _making = self.making.lock();
        if database.stage.get() == Stage::Gone {
            return Err(DatabaseError::Unknown(uid).into());
        }
        database.stage.set(Stage::Here);
        log::notice!("Database {uid} is ready to accept connections");
        Ok(database)
    }

    /// The configuration of a database, and how it speaks TLS, without the database. The folder is made where
    /// there is something to be kept in it.
    pub(crate) fn outline(
        &self,
        spec: &DatabaseSpec,
        folder: &Path,
    ) -> Result<(Config, Encryption), DatabaseError> {
        let mut config = spec::template(&self.config(), &self.folder, folder.to_owned());
        if let ClientTrust::Required(_) = spec.client_certificates {
            MadeFolder::at(folder.to_owned())?.keep();
        }
        let authorities = write_authorities(spec, folder)?;
        spec.write_into(&mut config, authorities.as_deref()).map_err(DatabaseError::Setting)?;
        let encryption =
            Encryption::in_folder(&config, &self.folder).map_err(DatabaseError::Tls)?;
        Ok((config, encryption))
    }

    /// All that can be refused, before anybody can see the database.
    fn build(
        self: &Arc<Self>,
        spec: DatabaseSpec,
        folder: &Path,
    ) -> Result<(Arc<Database>, Change), DatabaseError> {
        let (config, encryption) = self.outline(&spec, folder)?;
        let acl = Acl::new(&self.registry);
        set_users(&acl, &spec, None, &config)?;
        // Who comes when there are no descriptors left waits.
        let clients = self.clients_of_others(spec.uid).saturating_add(config.maxclients);
        process::raise_descriptor_limit(clients);
        let config = Arc::new(config);
        let database = Arc::new(Database::new(
            spec.uid,
            Arc::clone(&config),
            acl,
            encryption,
            Stats::new(self.mailboxes.len(), self.registry.entries().len()),
            Arc::clone(&self.client_ids),
        ));
        if self.is_clustered.load(Ordering::SeqCst) {
            database.replication.close();
        }
        database.stage.set(Stage::Coming);
        database.internode.begin(spec.data_internode_encryption);
        let (change, listened) = database.listeners.lock().change(&settings::endpoints(&config));
        listened
            .map_err(|error| DatabaseError::Port { port: spec.port, reason: error.to_string() })?;
        database.spec.store(Some(Arc::new(spec)));
        Ok((database, change))
    }

    /// Makes a database what is asked for, while it serves. Who is connected stays, whatever new clients have to
    /// speak or to show; unless its user is gone. Its uid stays whatever the description says.
    pub fn change_database(self: &Arc<Self>, spec: DatabaseSpec) -> Result<(), DatabaseError> {
        spec.check()?;
        let making = self.making.lock();
        if *making == Making::Over {
            return Err(DatabaseError::Ending);
        }
        let database = self.database(spec.uid)?;
        let before = database.spec.load_full();
        let folder = self.folder_of(spec.uid);
        let authorities = write_authorities(&spec, &folder)?;
        let changed = self.change(&database, &spec, before.as_deref(), authorities.as_deref());
        let kept = match &changed {
            Ok(()) => authorities,
            Err(_) => Some(database.config().tls_ca_cert_file.clone()),
        };
        remove_authorities(&folder, kept.as_deref());
        changed?;
        let is_snapshot =
            |spec: &DatabaseSpec| matches!(spec.persistence, Persistence::Snapshot(_));
        if is_snapshot(&spec) && !before.as_deref().is_some_and(is_snapshot) {
            // Until there is one, the disk has nothing, or something older.
            database.snapshots.schedule();
        }
        if !spec.user_changes(before.as_deref()).is_empty() {
            let clients = database.clients.list();
            // A link is no client, and has a way of its own.
            let is_link =
                |client: &ClientShared| client.has(bits::PRIMARY) || client.has(bits::REPLICA);
            // Its user may be gone, or may not hear what it is subscribed to.
            clients.iter().filter(|client| !is_link(client)).for_each(|client| client.recheck());
        }
        database.spec.store(Some(Arc::new(spec)));
        Ok(())
    }

    fn change(
        self: &Arc<Self>,
        database: &Arc<Database>,
        spec: &DatabaseSpec,
        before: Option<&DatabaseSpec>,
        authorities: Option<&Path>,
    ) -> Result<(), DatabaseError> {
        let alter = |next: &mut Config| -> Result<Vec<DirectiveId>, Refusal> {
            let changed = spec.write_into(next, authorities).map_err(Refusal::Setting)?;
            // Nothing is done yet; what passes here passes below.
            check_users(&database.acl, spec, before, next).map_err(Refusal::Users)?;
            Ok(changed)
        };
        configure::change_all(self, database, alter).map_err(|refusal| match refusal {
            Refusal::Setting(SetError::Refused { name, reason }) if name == "port" => {
                DatabaseError::Port { port: spec.port, reason: reason.to_string() }
            }
            Refusal::Setting(error) => DatabaseError::Setting(error),
            Refusal::Users(error) => error,
        })?;
        set_users(&database.acl, spec, before, &database.config())?;
        database.announce_users();
        Ok(())
    }

    /// Changes the list of databases. Whether each has the process for itself follows.
    fn list(&self, change: impl FnOnce(&mut Vec<Arc<Database>>)) {
        let mut databases = self.databases.write();
        change(&mut databases);
        for database in &*databases {
            database.room.set_shared(1 < databases.len() || !database.is_first());
        }
    }

    /// How many clients databases but this one may have.
    pub(crate) fn clients_of_others(&self, uid: u32) -> u32 {
        let others = self.databases.read();
        let others = others.iter().filter(|database| database.uid != uid);
        others.map(|it| it.config().maxclients).fold(0, u32::saturating_add)
    }
}

/// Why a change was not made.
pub(crate) enum Refusal {
    Setting(SetError),
    Users(DatabaseError),
}

impl From<SetError> for Refusal {
    fn from(error: SetError) -> Self {
        Self::Setting(error)
    }
}

/// Gives a database the users that are asked for, all of them or none.
fn set_users(
    acl: &Acl,
    spec: &DatabaseSpec,
    before: Option<&DatabaseSpec>,
    config: &Config,
) -> Result<(), DatabaseError> {
    let changes = spec.user_changes(before);
    acl.replace(&changes, config.acl_pubsub_default == "allchannels").map_err(user_error)
}

/// Whether [`set_users`] would do that.
fn check_users(
    acl: &Acl,
    spec: &DatabaseSpec,
    before: Option<&DatabaseSpec>,
    config: &Config,
) -> Result<(), DatabaseError> {
    let changes = spec.user_changes(before);
    acl.check_replace(&changes, config.acl_pubsub_default == "allchannels").map_err(user_error)
}

fn user_error((name, reason): (Vec<u8>, String)) -> DatabaseError {
    DatabaseError::User { name: String::from_utf8_lossy(&name).into_owned(), reason }
}

/// A folder that goes again unless it is kept, if it was made for this.
struct MadeFolder {
    path: PathBuf,
    goes: bool,
}

impl MadeFolder {
    fn at(path: PathBuf) -> Result<Self, DatabaseError> {
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Self { path, goes: true }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Ok(Self { path, goes: false })
            }
            Err(source) => Err(DatabaseError::File { path, source }),
        }
    }

    fn keep(mut self) {
        self.goes = false;
    }
}

impl Drop for MadeFolder {
    fn drop(&mut self) {
        if self.goes {
            // What is left of it is empty, or as good as that.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Writes the certificates that clients have to come from to a file of their own. Its name tells what is in it, so that
/// the file that is in use is not touched.
fn write_authorities(spec: &DatabaseSpec, folder: &Path) -> Result<Option<PathBuf>, DatabaseError> {
    let ClientTrust::Required(certificates) = &spec.client_certificates else { return Ok(None) };
    let text = certificates.join("\n");
    let digest = Sha256::digest(text.as_bytes());
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let path = folder.join(format!("{AUTHORITIES}{name}.pem"));
    let write = || {
        let mut file = std::fs::File::create(&path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| DatabaseError::File { path: path.clone(), source })?;
    Ok(Some(path))
}

/// Removes such files, but for the one that is in use.
fn remove_authorities(folder: &Path, kept: Option<&Path>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if name.starts_with(AUTHORITIES.as_bytes()) && kept != Some(&path) {
            // It is of no use, and does no harm.
            let _ = std::fs::remove_file(&path);
        }
    }
}
