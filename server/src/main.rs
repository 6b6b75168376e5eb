//! The program: see `boot`, and `cluster_tool` for `carnelian-server cluster ...`.

use carnelian_server::{boot, cluster_tool};

fn main() -> std::process::ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match cluster_tool::asked_for(&arguments) {
        Some(words) => cluster_tool::main(words),
        None => boot::main(),
    }
}
