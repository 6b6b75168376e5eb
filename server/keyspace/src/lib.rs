//! The keyspace: segments of one lock and sixteen tables each, and the only ways to reach a key.
//!
//! Knows nothing of RESP, time, files or sockets; the time is passed in.

#![forbid(unsafe_code)]

mod access;
mod aggregate;
mod changes;
mod clock;
mod db;
mod error;
mod evict;
mod expire;
mod foreseen;
mod fork;
mod interest;
mod limits;
mod load;
mod scan;
mod segment;
mod snapshot;
mod space;
mod string;

pub use access::{Access, Busy, Hold, SegmentSet, Segments};
pub use aggregate::{Aggregate, Mut, Ref};
pub use carnelian_structs::value::{Kind, Text, Value};
pub use changes::{Changes, Event, EventClass, Told};
pub use clock::{AccessPolicy, LastUse, frequency, idle_seconds};
pub use db::{Aftermath, Db, Expiry, Owned};
pub use error::WrongType;
pub use evict::{EvictionOrder, EvictionPolicy, Evictor};
pub use expire::ExpireReport;
pub use foreseen::Foreseen;
pub use fork::Fork;
pub use interest::Interest;
pub use limits::Limits;
pub use load::{Present, Taken};
pub use segment::{SEGMENTS, Segment, segment_of};
pub use snapshot::{AlreadyOpen, Sink, Walk};
pub use space::{DatabaseStats, Dropped, Keyspace};
pub use string::StringMut;
