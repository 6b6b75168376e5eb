//! A replica that is attached: its place in the log, and how it is fed from there.

use std::sync::Arc;

use crate::clients::ClientShared;

/// An attached replica, as all threads see it.
pub struct Replica {
    pub client: Arc<ClientShared>,
}
