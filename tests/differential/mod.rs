//! Two servers, one stream of random commands, and every difference between their answers.
//!
//! `templates.rs` says what commands look like, `generate.rs` makes them from a seed, `pair.rs` sends
//! them to both servers, `compare.rs` knows which differences count, `snapshot.rs` compares all data,
//! `shrink.rs` finds the few commands that are to blame.

mod compare;
mod generate;
mod pair;
mod run;
mod shrink;
mod snapshot;
mod templates;

pub use pair::Pair;
pub use run::{Settings, Summary, run};
pub use templates::GROUPS;
