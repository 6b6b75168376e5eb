//! What the configuration means for a database's connections, in types.
//!
//! Made anew from the directives whenever one changes, and read by the reactors without a lock.

use std::time::Duration;

use carnelian_tls::TransitEncryption;

use crate::session::ClientClass;

#[derive(Clone, Debug)]
pub struct Settings {
    pub clients_max: usize,
    /// `timeout`; none: idle clients stay.
    pub idle_timeout: Option<Duration>,
    /// None: the system's keepalive stays off.
    pub tcp_keepalive: Option<Duration>,
    /// `proto-max-bulk-len`.
    pub bulk_bytes_max: usize,
    /// `client-query-buffer-limit`.
    pub query_bytes_max: usize,
    pub output_limits: OutputLimits,
    pub protected_mode: bool,
    /// `requirepass`; none: the default user needs no password.
    pub password: Option<Box<[u8]>>,
    pub transit_encryption: TransitEncryption,
    /// None: a handshake may take for ever.
    pub handshake_timeout: Option<Duration>,
    /// Ticks of a reactor in a second.
    pub hz: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            clients_max: 10_000,
            idle_timeout: None,
            tcp_keepalive: Some(Duration::from_secs(300)),
            bulk_bytes_max: 512 << 20,
            query_bytes_max: 1 << 30,
            output_limits: OutputLimits::default(),
            protected_mode: true,
            password: None,
            transit_encryption: TransitEncryption::Preferred,
            handshake_timeout: Some(Duration::from_secs(10)),
            hz: 10,
        }
    }
}

/// `client-output-buffer-limit` of each class.
#[derive(Clone, Copy, Debug)]
pub struct OutputLimits {
    pub normal: OutputLimit,
    pub replica: OutputLimit,
    pub pubsub: OutputLimit,
}

impl OutputLimits {
    pub fn of(&self, class: ClientClass) -> &OutputLimit {
        match class {
            ClientClass::Normal => &self.normal,
            ClientClass::Replica => &self.replica,
            ClientClass::PubSub => &self.pubsub,
        }
    }
}

impl Default for OutputLimits {
    fn default() -> Self {
        let limit = |hard_mib: usize, soft_mib: usize, soft_seconds| OutputLimit {
            hard_bytes: hard_mib << 20,
            soft_bytes: soft_mib << 20,
            soft_seconds,
        };
        Self { normal: limit(0, 0, 0), replica: limit(256, 64, 60), pubsub: limit(32, 8, 60) }
    }
}

/// A size that ends a connection at once, and one that does after a while. 0: none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct OutputLimit {
    pub hard_bytes: usize,
    pub soft_bytes: usize,
    pub soft_seconds: u64,
}

impl OutputLimit {
    pub fn is_over_hard(&self, bytes: usize) -> bool {
        self.hard_bytes != 0 && self.hard_bytes <= bytes
    }

    pub fn is_over_soft(&self, bytes: usize) -> bool {
        self.soft_bytes != 0 && self.soft_bytes <= bytes
    }
}
