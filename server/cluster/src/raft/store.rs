//! The store of a node's control plane: log, vote and snapshot in one `redb` file.
//!
//! A vote, and the entries of one append, are on the disk before they are acknowledged: one transaction, one
//! flush. How far the log is known to be committed is written without a flush of its own: it goes along with
//! the next, and what is lost of it is found again.
//!
//! Entries and snapshots are sealed with the cluster's key: databases' passwords are in them, and whatever else
//! operators have to tell. What only Raft reads (votes, indexes) is not.

use std::borrow::Cow;
use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use carnelian_tls::internode::SealKey;
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogState, OptionalSend, RaftLogReader, StorageIOError};
use redb::backends::FileBackend;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Entry, LogId, StorageError, Types, Vote};
use crate::keys::{Keys, KeysError};
use crate::signal::Signal;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// The control plane is small; the default would be a gigabyte.
const CACHE_BYTES: usize = 4 << 20;

pub struct Store {
    db: Database,
    /// Without keys nothing is sealed.
    keys: Option<Arc<Keys>>,
    /// Flushes take milliseconds: they are left to threads that may wait. A simulation has none.
    threads: bool,
    /// Raft has ended, or is about to, as the store has failed it. Whoever waits for Raft's answer is told by this,
    /// each in turn: what Raft itself says to many at once it says in an order by chance.
    pub ended: Arc<Signal<bool>>,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Database(#[from] redb::Error),
    #[error("a record that cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    #[error("a record that does not open: {0}")]
    Sealed(#[from] KeysError),
    #[error("the thread that writes ended")]
    Ended,
}

macro_rules! from_redb {
    ($($error:ident),*) => { $(
        impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> Self {
                Self::Database(error.into())
            }
        }
    )* };
}

from_redb!(
    DatabaseError,
    TransactionError,
    TableError,
    StorageError,
    CommitError,
    SetDurabilityError
);

impl Store {
    /// Opens the file, or makes it; nobody but its owner can read it, and no second process open it.
    pub fn open(path: &Path, keys: Option<Arc<Keys>>) -> Result<Arc<Self>, StoreError> {
        use std::os::unix::fs::OpenOptionsExt;

        let mut options = std::fs::OpenOptions::new();
        let file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let backend = FileBackend::new(file)?;
        let db = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend)?;
        Self::over(db, true, keys)
    }

    #[cfg(test)]
    pub fn on(backend: impl redb::StorageBackend) -> Result<Arc<Self>, StoreError> {
        let db = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend)?;
        Self::over(db, false, None)
    }

    fn over(db: Database, threads: bool, keys: Option<Arc<Keys>>) -> Result<Arc<Self>, StoreError> {
        let write = db.begin_write()?;
        write.open_table(LOG)?;
        write.open_table(META)?;
        write.commit()?;
        let ended = Arc::new(Signal::new(false));
        Ok(Arc::new(Self { db, keys, threads, ended }))
    }

    /// What Raft ends by, when it hears of it.
    pub(super) fn fault(&self, error: &StoreError) -> AnyError {
        self.ended.set(true);
        AnyError::error(error.to_string())
    }

    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StoreError> {
        let table = self.db.begin_read()?.open_table(META)?;
        let found = table.get(name)?;
        Ok(found.map(|bytes| serde_json::from_slice(bytes.value())).transpose()?)
    }

    /// What [`Self::write_sealed`] wrote.
    pub fn read_sealed(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let table = self.db.begin_read()?.open_table(META)?;
        let Some(found) = table.get(name)? else { return Ok(None) };
        Ok(Some(self.seal()?.unseal(found.value())?.to_vec()))
    }

    /// A record and, beside it, one that is sealed: both or none.
    pub fn write_sealed(
        &self,
        (name, plain): (&str, Vec<u8>),
        (sealed_name, secret): (&str, &[u8]),
    ) -> Result<(), StoreError> {
        let sealed = self.seal()?.seal(secret)?.into_owned();
        self.write_all(&[(name, plain), (sealed_name, sealed)], Durability::Immediate)
    }

    fn seal(&self) -> Result<Seal, StoreError> {
        Ok(Seal(self.keys.as_ref().map(|keys| keys.record_key()).transpose()?))
    }

    pub fn write(&self, name: &str, value: &impl Serialize) -> Result<(), StoreError> {
        self.write_all(&[(name, serde_json::to_vec(value)?)], Durability::Immediate)
    }

    /// All of them or none.
    fn write_all(
        &self,
        values: &[(&str, Vec<u8>)],
        durability: Durability,
    ) -> Result<(), StoreError> {
        let mut write = self.db.begin_write()?;
        write.set_durability(durability)?;
        {
            let mut table = write.open_table(META)?;
            for (name, value) in values {
                table.insert(*name, value.as_slice())?;
            }
        }
        Ok(write.commit()?)
    }

    /// Forgets everything: this node is in no cluster any more.
    pub fn clear(&self) -> Result<(), StoreError> {
        let write = self.db.begin_write()?;
        write.open_table(LOG)?.retain(|_, _| false)?;
        write.open_table(META)?.retain(|_, _| false)?;
        Ok(write.commit()?)
    }

    fn append(&self, entries: &[(u64, Vec<u8>)]) -> Result<(), StoreError> {
        let seal = self.seal()?;
        let write = self.db.begin_write()?;
        {
            let mut table = write.open_table(LOG)?;
            for (index, bytes) in entries {
                table.insert(*index, &*seal.seal(bytes)?)?;
            }
        }
        Ok(write.commit()?)
    }

    /// Drops the entries from an index on.
    fn truncate(&self, from: u64) -> Result<(), StoreError> {
        let write = self.db.begin_write()?;
        write.open_table(LOG)?.retain_in(from.., |_, _| false)?;
        Ok(write.commit()?)
    }

    /// Drops the entries up to and including this one, which is remembered.
    fn purge(&self, upto: LogId) -> Result<(), StoreError> {
        let write = self.db.begin_write()?;
        write.open_table(META)?.insert("purged", serde_json::to_vec(&upto)?.as_slice())?;
        write.open_table(LOG)?.retain_in(..=upto.index, |_, _| false)?;
        Ok(write.commit()?)
    }

    fn entries(&self, range: (Bound<u64>, Bound<u64>)) -> Result<Vec<Entry>, StoreError> {
        let seal = self.seal()?;
        let table = self.db.begin_read()?.open_table(LOG)?;
        let mut entries = Vec::new();
        for found in table.range::<u64>(range)? {
            entries.push(serde_json::from_slice(&seal.unseal(found?.1.value())?)?);
        }
        Ok(entries)
    }

    fn last(&self) -> Result<Option<LogId>, StoreError> {
        let table = self.db.begin_read()?.open_table(LOG)?;
        let Some((_, bytes)) = table.last()? else { return Ok(None) };
        let entry = self.seal()?.unseal(bytes.value())?;
        Ok(Some(serde_json::from_slice::<Entry>(&entry)?.log_id))
    }
}

/// What seals records, if something does.
struct Seal(Option<SealKey>);

impl Seal {
    fn seal<'a>(&self, plain: &'a [u8]) -> Result<Cow<'a, [u8]>, KeysError> {
        match &self.0 {
            None => Ok(Cow::Borrowed(plain)),
            Some(key) => Ok(Cow::Owned(key.seal(plain)?)),
        }
    }

    fn unseal<'a>(&self, record: &'a [u8]) -> Result<Cow<'a, [u8]>, KeysError> {
        match &self.0 {
            Some(key) if SealKey::has_sealed(record) => {
                let opened = key.unseal(record, Path::new("the control plane's store"))?;
                Ok(Cow::Owned(opened.to_vec()))
            }
            // From before there was a key.
            _ => Ok(Cow::Borrowed(record)),
        }
    }
}

/// The log as Raft sees it.
#[derive(Clone)]
pub struct Log(pub Arc<Store>);

impl Log {
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if !self.0.threads {
            return work(&self.0);
        }
        let store = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || work(&store));
        done.await.map_err(|_| StoreError::Ended)?
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        self.0
            .entries(range)
            .map_err(|error| StorageIOError::read_logs(self.0.fault(&error)).into())
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let state = || -> Result<_, StoreError> {
            let last_purged_log_id: Option<LogId> = self.0.read("purged")?;
            let last_log_id = self.0.last()?.or(last_purged_log_id);
            Ok(LogState { last_purged_log_id, last_log_id })
        };
        state().map_err(|error| StorageIOError::read_logs(self.0.fault(&error)).into())
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let vote = *vote;
        let done = self.run(move |store| store.write("vote", &vote)).await;
        done.map_err(|error| StorageIOError::write_vote(self.0.fault(&error)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        self.0.read("vote").map_err(|error| StorageIOError::read_vote(self.0.fault(&error)).into())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let save = || -> Result<_, StoreError> {
            let bytes = serde_json::to_vec(&committed)?;
            self.0.write_all(&[("committed", bytes)], Durability::None)
        };
        save().map_err(|error| StorageIOError::write_logs(self.0.fault(&error)).into())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        let committed = self.0.read::<Option<LogId>>("committed");
        committed
            .map(Option::flatten)
            .map_err(|error| StorageIOError::read_logs(self.0.fault(&error)).into())
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<Types>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let bytes = |entry: &Entry| serde_json::to_vec(entry).map(|it| (entry.log_id.index, it));
        let entries: Result<Vec<_>, _> = entries.into_iter().map(|entry| bytes(&entry)).collect();
        let done = match entries {
            Ok(entries) => self.run(move |store| store.append(&entries)).await,
            Err(error) => Err(error.into()),
        };
        match done {
            Ok(()) => {
                callback.log_io_completed(Ok(()));
                Ok(())
            }
            Err(error) => {
                callback.log_io_completed(Err(std::io::Error::other(error.to_string())));
                Err(StorageIOError::write_logs(self.0.fault(&error)).into())
            }
        }
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let done = self.run(move |store| store.truncate(log_id.index)).await;
        done.map_err(|error| StorageIOError::write_logs(self.0.fault(&error)).into())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let done = self.run(move |store| store.purge(log_id)).await;
        done.map_err(|error| StorageIOError::write_logs(self.0.fault(&error)).into())
    }
}
