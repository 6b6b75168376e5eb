//! Whether this process is the primary of a database of its cluster, and until when that is sure.
//!
//! Two things hang on it. What a write has done is told to its client only while the lease is not over, by a
//! clock that is read after the write: so a process that was stopped, for however long, acknowledges
//! nothing once another may have been made primary. And no other node may take the data from a process that
//! the cluster has not confirmed as the primary: one that was started without data would empty its replicas.
//! A database that no control plane looks after has neither, and pays one load for each flush of replies to writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use carnelian_cluster::Deadline;
use parking_lot::Mutex;

pub struct Tenure {
    /// After it no reply to a write may leave.
    pub deadline: Arc<Deadline>,
    /// The nodes that may have the data; none: whoever has a certificate of the cluster.
    followers: Mutex<Option<Vec<u32>>>,
    /// There are data that were complete at some moment: the database was not merely made, or started, empty.
    has_data: AtomicBool,
    /// Of the placement that was last put into effect here; 0: the cluster has no say in it.
    epoch: AtomicU64,
}

impl Default for Tenure {
    fn default() -> Self {
        Self {
            deadline: Arc::new(Deadline::none()),
            followers: Mutex::new(None),
            has_data: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
        }
    }
}

impl Tenure {
    /// Until the cluster says what it is here, it is nothing.
    pub fn close(&self) {
        self.deadline.close();
        self.set_followers(Some(Vec::new()));
    }

    pub fn set_followers(&self, followers: Option<Vec<u32>>) {
        *self.followers.lock() = followers;
    }

    /// Whether a node may have the data.
    pub fn admits(&self, node: u32) -> bool {
        self.followers.lock().as_ref().is_none_or(|followers| followers.contains(&node))
    }

    /// Whether no more nodes than these may come for the data.
    pub fn expects_at_most(&self, count: usize) -> bool {
        self.followers.lock().as_ref().is_some_and(|followers| followers.len() <= count)
    }

    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    pub fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::SeqCst);
    }

    pub fn has_data(&self) -> bool {
        self.has_data.load(Ordering::SeqCst)
    }

    pub fn note_data(&self) {
        self.has_data.store(true, Ordering::SeqCst);
    }
}
