//! All reactors stopped between two turns, so that what is saved before the end of the process holds all
//! that any client has been told of.
//!
//! A reactor in a script stops when the script has ended. Until all have stopped nobody waits for long: a
//! halt that is not complete in time lets go of those it has.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::mailbox::Message;
use crate::server::Server;

/// How long reactors may keep the first that stopped waiting.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long clients are served before it is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// What becomes of reactors that have stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    GoOn,
    End,
}

/// Where reactors wait.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stopped: usize,
    verdict: Option<Verdict>,
}

impl Gate {
    /// Stops the calling reactor until it is known what becomes of it.
    pub fn pass(&self) -> Verdict {
        let mut state = self.state.lock();
        state.stopped += 1;
        self.changed.notify_all();
        loop {
            if let Some(verdict) = state.verdict {
                return verdict;
            }
            self.changed.wait(&mut state);
        }
    }

    fn open(&self, verdict: Verdict) {
        self.state.lock().verdict = Some(verdict);
        self.changed.notify_all();
    }

    /// Whether so many have stopped, in time.
    fn wait_for(&self, reactors: usize) -> bool {
        let end = Instant::now() + PATIENCE;
        let mut state = self.state.lock();
        while state.stopped < reactors {
            if self.changed.wait_until(&mut state, end).timed_out() {
                return reactors <= state.stopped;
            }
        }
        true
    }
}

/// Reactors that stand still for as long as this lives.
pub struct Halt {
    gate: Arc<Gate>,
}

impl Halt {
    /// Returns when all reactors have stopped.
    pub fn begin(server: &Server) -> Self {
        loop {
            let gate = Arc::new(Gate::default());
            let halt = Self { gate: Arc::clone(&gate) };
            for mailbox in &server.mailboxes {
                mailbox.post(Message::Halt(Arc::clone(&gate)));
            }
            if gate.wait_for(server.mailboxes.len()) {
                return halt;
            }
            drop(halt);
            std::thread::sleep(PAUSE);
        }
    }

    /// The reactors end, without having served anybody in between.
    pub fn end(self) {
        self.gate.open(Verdict::End);
    }
}

impl Drop for Halt {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock();
        state.verdict.get_or_insert(Verdict::GoOn);
        self.gate.changed.notify_all();
    }
}
