//! The side of a primary: the replicas that are attached, what they have, and what is kept for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::feed::Replica;

/// What a database knows of those who follow it.
#[derive(Default)]
pub struct Primary {
    /// By the id of their client.
    pub replicas: Mutex<BTreeMap<u64, Arc<Replica>>>,
}

impl Primary {
    /// Closes the connections of all replicas: they are to come again. For a history that changes.
    pub fn disconnect_all(&self) {
        let replicas: Vec<_> = self.replicas.lock().values().cloned().collect();
        for replica in replicas {
            replica.client.kill();
        }
    }
}
