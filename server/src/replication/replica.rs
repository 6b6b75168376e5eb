//! The side of a replica: whom it follows, and how far it has come.

/// The server that a database follows.
pub struct Following {
    pub host: String,
    pub port: u16,
}
