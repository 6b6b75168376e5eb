//! What is due by time: ticks, the ends of waits and pauses, idle clients, and the end of the server.

use std::sync::atomic::Ordering;

use mio::Token;

use super::{Core, Reactor};
use crate::blocking;
use crate::dispatch;
use crate::features;
use crate::log;
use crate::service::After;
use crate::session::ClientClass;

/// How long a shutdown waits for clients to take what they are owed.
const FAREWELL_MS: u64 = 500;

/// How long a connection may take to accept its last bytes.
const CLOSING_MS: u64 = 30_000;

impl Reactor {
    /// Notes until when a client waits that has just begun to.
    pub(super) fn note_wait(&mut self, token: Token) {
        let Some(connection) = self.core.connections.get_mut(token) else { return };
        if connection.wait_deadline_ms.is_some() {
            return;
        }
        let Some(waiter) = &connection.session.waiter else { return };
        let Some(deadline_ms) = waiter.wait.deadline_ms else { return };
        let clock = &self.service.worker.clock;
        let left_ms = deadline_ms.saturating_sub(clock.now_ms());
        let deadline_ms = clock.monotonic_ms().saturating_add(left_ms);
        connection.wait_deadline_ms = Some(deadline_ms);
        self.core.wait_deadlines.insert((deadline_ms, token));
    }

    pub(super) fn expire_waits(&mut self) {
        let now_ms = self.service.worker.clock.monotonic_ms();
        while let Some(&(deadline_ms, token)) = self.core.wait_deadlines.first() {
            if now_ms < deadline_ms {
                return;
            }
            self.core.wait_deadlines.pop_first();
            let Some(connection) = self.core.connections.get_mut(token) else { continue };
            connection.wait_deadline_ms = None;
            let Some(waiter) = connection.session.waiter.clone() else { continue };
            // Else somebody serves it just now.
            if let Some(reply) = blocking::time_out(&self.service.worker, &waiter) {
                self.resume(&waiter, &reply);
            }
        }
    }

    /// Lets those go on whose pause is over.
    pub(super) fn resume_postponed(&mut self) {
        let now_ms = self.service.worker.clock.now_ms();
        let Core { postponed, connections, ready, .. } = &mut *self.core;
        postponed.retain(|&token| {
            let Some(connection) = connections.get_mut(token) else { return false };
            let database = &connection.session.database;
            if database.pause.until_ms() > now_ms {
                return true;
            }
            connection.flags.postponed = false;
            features::set_postponed(&connection.session, false);
            if !std::mem::replace(&mut connection.flags.ready, true) {
                ready.push_back(token);
            }
            false
        });
    }

    /// What is due by time: deadlines, idle clients, and the commands' own work.
    pub(super) fn tick(&mut self) {
        let worker = &mut self.service.worker;
        worker.clock.synchronize();
        let begin_ns = worker.clock.elapsed_ns();
        let now_ms = worker.clock.monotonic_ms();
        if worker.reactor == 0 {
            worker.server.adapt_hz();
        }
        let hz = u64::from(worker.server.hz());
        self.core.next_tick_ms = now_ms + 1000 / hz.max(1);
        dispatch::tick(worker);
        self.core.doors.retry();
        self.expire_handshakes(now_ms);
        self.expire_refusals(now_ms);
        self.look_for_idle(now_ms, hz);
        let worker = &self.service.worker;
        let spent_ns = worker.clock.elapsed_ns().saturating_sub(begin_ns);
        worker.server.turns[worker.reactor].tick_nanoseconds.add(spent_ns);
        // In case a wake-up failed.
        if !self.core.mailbox.is_empty() {
            self.read_mail();
        }
    }

    /// Looks at a part of the clients, so that all have been seen within a second.
    pub(super) fn look_for_idle(&mut self, now_ms: u64, hz: u64) {
        let share = (self.core.connections.len() as u64 / hz.max(1)).max(50) as usize;
        for _ in 0..share.min(self.core.connections.len()) {
            let Some((token, cursor)) = self.core.connections.next(self.core.cursor) else {
                self.core.cursor = 0;
                continue;
            };
            self.core.cursor = cursor;
            let Some(connection) = self.core.connections.get_mut(token) else { continue };
            if connection.closing_since_ms.is_some_and(|since_ms| since_ms + CLOSING_MS < now_ms)
                || (!connection.output.is_empty() || connection.session.attached.is_some())
                    && self.service.is_over_limit(connection)
            {
                self.close(token);
                continue;
            }
            let session = &connection.session;
            let Some(timeout) = session.database.settings.load().idle_timeout else { continue };
            let last_ms = session.shared.last_interaction_ms.load(Ordering::Relaxed);
            let idle_ms = self.service.worker.clock.now_ms().saturating_sub(last_ms);
            if session.class == ClientClass::Normal && timeout.as_millis() < u128::from(idle_ms) {
                log::verbose!("Closing idle client");
                self.close(token);
            }
        }
    }

    pub(super) fn begin_farewell(&mut self) {
        self.core.doors.shut_all();
        let now_ms = self.service.worker.clock.monotonic_ms();
        self.core.farewell_ms = Some(now_ms + FAREWELL_MS);
        for token in self.core.connections.tokens() {
            let Some(connection) = self.core.connections.get_mut(token) else { continue };
            connection.close_when_flushed(now_ms);
            self.follow(token, After::Wait);
        }
        self.core.next_tick_ms = now_ms + 10;
    }

    /// Whether the thread is to end; closes the last connections.
    pub(super) fn is_over(&mut self) -> bool {
        let Some(deadline_ms) = self.core.farewell_ms else { return false };
        let is_over = self.core.connections.len() == 0
            || deadline_ms <= self.service.worker.clock.elapsed_us() / 1000;
        if is_over {
            for token in self.core.connections.tokens() {
                self.close(token);
            }
        }
        is_over
    }
}
