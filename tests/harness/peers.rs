//! The real servers and clients we are compared with.

use std::env;
use std::path::PathBuf;

/// The program called `name`, from the folder `CARNELIAN_PEERS` names or from PATH. A newer generation
/// installed beside Debian's is called `NAME-8` there and goes first.
///
/// Where it is missing the test is to be skipped, unless `CARNELIAN_REQUIRE_PEERS=1` says that it must not.
pub fn require_or_skip(name: &str) -> Option<PathBuf> {
    let found = find(name);
    if found.is_none() {
        let required = env::var("CARNELIAN_REQUIRE_PEERS").is_ok_and(|value| value == "1");
        assert!(!required, "{name} is required here and not installed");
        eprintln!("skipped: {name} is not installed");
    }
    found
}

/// The program called `name`, if it is installed.
pub fn find(name: &str) -> Option<PathBuf> {
    let peers = env::var_os("CARNELIAN_PEERS").map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = peers.into_iter().chain(env::split_paths(&path));
    folders
        .flat_map(|folder| [folder.join(format!("{name}-8")), folder.join(name)])
        .find(|program| program.is_file())
}
