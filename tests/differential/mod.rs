//! Two servers, one stream of random commands, and every difference between their answers.
//!
//! `templates.rs` and `further.rs` say what commands look like, `scenes.rs` and `scripts.rs` what takes
//! several of them, or a script; `generate.rs` makes them from a seed. `pair.rs` sends them to both servers
//! (`peer.rs`), `compare.rs` knows which differences count, `snapshot.rs` compares all data, `shrink.rs`
//! finds the few commands that are to blame.

mod command;
mod compare;
mod further;
mod generate;
mod pair;
mod payload;
mod peer;
mod run;
mod scenes;
mod scripts;
mod sha1;
mod shrink;
mod snapshot;
mod templates;

pub use pair::Pair;
pub use run::{Settings, Summary, run};
pub use templates::GROUPS;
