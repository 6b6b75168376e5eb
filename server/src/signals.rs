//! Signals, on a thread of their own: what ends the process is passed to the main thread, and SIGHUP, which
//! has it read its certificates again. The rest is taken and forgotten.

use std::io;
use std::sync::mpsc::Sender;

use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::log;
use crate::server::Request;

/// Takes signals from now on.
pub fn watch(requests: Sender<Request>) -> io::Result<()> {
    // SIGUSR1 ends children, of which there are none.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGUSR1])?;
    let listen = move || {
        let mut interrupted = false;
        for signal in signals.forever() {
            let name = match signal {
                SIGTERM => "SIGTERM",
                SIGINT if interrupted => {
                    log::warning!("You insist... exiting now.");
                    std::process::exit(1);
                }
                SIGINT => {
                    interrupted = true;
                    "SIGINT"
                }
                SIGHUP => {
                    if requests.send(Request::Reload).is_err() {
                        return;
                    }
                    continue;
                }
                _ => continue,
            };
            log::warning!("Received {name} scheduling shutdown...");
            if requests.send(Request::Signal(name)).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(listen).map(|_| ())
}
