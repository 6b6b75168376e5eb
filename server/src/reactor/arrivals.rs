//! Connections that are new: taken in, through their handshake, or turned away.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Reactor;
use crate::acl;
use crate::connection::{Accepted, Connection, Transport, Whose};
use crate::log;
use crate::mailbox::Message;
use crate::service::{After, Service};

/// Handshake steps in a turn: each may cost some tenths of a millisecond.
const HANDSHAKES_PER_TURN: usize = 4;

/// How long a connection that is to be turned away may take to show what it speaks.
const REFUSAL_MS: u64 = 1000;

impl Reactor {
    pub(super) fn accept(&mut self) {
        for accepted in self.core.doors.accept(&mut self.service.worker) {
            let reactor = accepted.shared.reactor;
            if reactor == self.service.worker.reactor {
                self.welcome(accepted);
            } else {
                self.service.worker.post(reactor, Message::Accept(Box::new(accepted)));
            }
        }
    }

    /// Takes a connection in.
    pub(super) fn welcome(&mut self, mut accepted: Accepted) {
        let is_refused = accepted.refusal.is_some();
        let shared = Arc::clone(&accepted.shared);
        let (is_visitor, certificate) = match &mut accepted.whose {
            Whose::Visitor(certificate) => (true, certificate.take()),
            _ => (false, None),
        };
        let token = self.core.connections.insert(Box::new(Connection::new(accepted)));
        shared.place.store(token.0 as u64, Ordering::Relaxed);
        let connection = self.core.connections.get_mut(token).expect("it was just put there");
        if let Err(error) = connection.register(self.core.poll.registry(), token) {
            log::warning!("Could not watch a client's connection: {error}");
            self.close(token);
            return;
        }
        if is_visitor {
            let database = &connection.session.database;
            self.service.worker.counters(database).connections_received.add(1);
        }
        if let Some(certificate) = certificate {
            acl::log_in_by_verified(&self.service.worker, &mut connection.session, &certificate);
        }
        if is_refused {
            let deadline_ms = self.service.worker.clock.monotonic_ms() + REFUSAL_MS;
            self.core.refusal_deadlines.push_back((deadline_ms, token));
        }
        if self.core.farewell_ms.is_some() {
            self.close(token);
            return;
        }
        let Some(connection) = self.core.connections.get_mut(token) else { return };
        if connection.flags.unparsed {
            // No event will tell of what came before.
            self.follow(token, After::Again);
        }
    }

    /// Takes some steps of handshakes, oldest first.
    pub(super) fn shake_some(&mut self) {
        for _ in 0..HANDSHAKES_PER_TURN.min(self.core.shaking.len()) {
            let Some(token) = self.core.shaking.pop_front() else { return };
            let Some(connection) = self.core.connections.get_mut(token) else { continue };
            connection.flags.shaking = false;
            let is_first = !connection.input.is_empty();
            let Some(after) = self.serve(token, Service::shake) else { continue };
            let Some(connection) = self.core.connections.get_mut(token) else { continue };
            if is_first && let Transport::Handshake(_) = connection.transport {
                let settings = connection.session.database.settings.load();
                if let Some(timeout) = settings.handshake_timeout {
                    let deadline_ms =
                        self.service.worker.clock.monotonic_ms() + timeout.as_millis() as u64;
                    self.core.handshake_deadlines.push_back((deadline_ms, token));
                }
            }
            self.follow(token, after);
        }
    }

    pub(super) fn expire_handshakes(&mut self, now_ms: u64) {
        while let Some((deadline_ms, token)) = self.core.handshake_deadlines.front().copied() {
            if now_ms < deadline_ms {
                return;
            }
            self.core.handshake_deadlines.pop_front();
            let Some(connection) = self.core.connections.get_mut(token) else { continue };
            if let Transport::Handshake(_) = connection.transport {
                let session = &connection.session;
                log::verbose!(
                    "Error accepting a client connection: handshake timed out (addr={} laddr={})",
                    session.shared.address,
                    session.shared.local_address
                );
                self.service.worker.counters(&session.database).handshakes_failed.add(1);
                self.close(token);
            }
        }
    }

    pub(super) fn expire_refusals(&mut self, now_ms: u64) {
        while let Some((deadline_ms, token)) = self.core.refusal_deadlines.front().copied() {
            if now_ms < deadline_ms {
                return;
            }
            self.core.refusal_deadlines.pop_front();
            let Some(connection) = self.core.connections.get_mut(token) else { continue };
            match (&connection.transport, connection.refusal) {
                (Transport::Sniff, Some(refusal)) => {
                    let after = self.service.turn_away(connection, refusal);
                    self.follow(token, after);
                }
                _ => self.close(token),
            }
        }
    }
}
