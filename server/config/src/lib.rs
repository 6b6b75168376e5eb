//! Configuration: every directive with its type, limits and default; reading `redis.conf` and the
//! command line; CONFIG GET, SET and REWRITE. Nothing here opens a socket or starts a thread.

#![forbid(unsafe_code)]

mod check;
mod choice;
mod config;
mod directive;
#[cfg(test)]
mod example;
mod glob;
mod kind;
mod lists;
mod load;
mod rewrite;
mod start;
mod table;
mod value;
mod words;

pub use check::expand_title;
pub use choice::{
    Allow, AppendFsync, ClientCertificates, ClusterBootstrap, EvictionPolicy, LogLevel,
    OomScoreMode, Supervised, TransitEncryption,
};
pub use config::{Permission, SetError};
pub use directive::{Directive, DirectiveId, Status, When};
pub use kind::{Kind, Reason};
pub use lists::{
    KeyspaceEvents, MemoryLimit, OomScores, OutputLimit, OutputLimits, Primary, SavePoint,
    ShutdownFlags,
};
pub use load::load;
pub use rewrite::{Extent, replace_file, rewrite, rewrite_with_users};
pub use start::{Line, Start, StartError, Task};
pub use table::Config;
