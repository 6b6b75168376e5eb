//! The side of a replica: whom it follows, and how far it has come.

use std::fmt::Write as _;

use carnelian_resp::Writer;

use crate::database::Database;
use crate::server::Server;

/// The server that a database follows.
pub struct Following {
    pub host: String,
    pub port: u16,
}

impl Following {
    /// Its lines in INFO.
    pub fn write_info(&self, _: &Server, _: &Database, out: &mut String) {
        // Writing to a string does not fail.
        let _ = write!(out, "master_host:{}\r\nmaster_port:{}\r\n", self.host, self.port);
    }

    /// The reply to ROLE.
    pub fn write_role(&self, database: &Database, reply: &mut Writer<'_>) {
        reply.array(5);
        reply.bulk(b"slave");
        reply.bulk(self.host.as_bytes());
        reply.integer(self.port.into());
        reply.bulk(b"connect");
        reply.integer(database.log.end() as i64);
    }
}
