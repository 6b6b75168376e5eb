//! A base in the form of commands (`aof-use-rdb-preamble no`), made out of a snapshot.
//!
//! Strings are written as SET, all else as RESTORE, whose payload is what the snapshot has: so a value comes
//! back in the encoding it had. Functions are loaded first, as in a snapshot.

use std::io::{self, Read, Write};

use carnelian_commands::write_command;
use carnelian_persistence::rdb::crc64::crc64;
use carnelian_persistence::rdb::file::{Chunk, FileReader, Found, Observer, Trust};
use carnelian_persistence::rdb::{Reader, Type, VERSION_MAX};

/// Writes as commands what `snapshot` has.
pub fn convert(
    snapshot: impl Read,
    version: u16,
    databases: usize,
    out: &mut impl Write,
) -> io::Result<()> {
    let trust = Trust {
        databases,
        checksum: false,
        newer: false,
        expanded_bytes_max: usize::MAX,
        input_bytes: None,
        passes_modules: false,
    };
    let mut reader = FileReader::new(snapshot, trust);
    let (mut chunk, mut functions) = (Chunk::default(), Functions::default());
    let (mut bytes, mut db) = (Vec::new(), 0);
    loop {
        let found = reader
            .next(&mut chunk, usize::MAX, &mut functions)
            .map_err(|error| io::Error::other(error.to_string()))?;
        for source in functions.0.drain(..) {
            command(&mut bytes, &[b"FUNCTION", b"LOAD", &source]);
        }
        if !found {
            return out.write_all(&bytes);
        }
        for found in &chunk.found {
            if found.db != db {
                db = found.db;
                command(&mut bytes, &[b"SELECT", db.to_string().as_bytes()]);
            }
            write_key(&mut bytes, &chunk, found, version).map_err(io::Error::other)?;
        }
        out.write_all(&bytes)?;
        bytes.clear();
    }
}

fn write_key(
    out: &mut Vec<u8>,
    chunk: &Chunk,
    found: &Found,
    version: u16,
) -> Result<(), carnelian_persistence::rdb::LoadError> {
    let key = Reader::new(&chunk.bytes[found.key.clone()], usize::MAX).string()?;
    let value = &chunk.bytes[found.value.clone()];
    let expiry = found.expiry.map(|at_ms| at_ms.to_string());
    if found.kind == Type::String {
        let value = Reader::new(value, usize::MAX).string()?;
        match &expiry {
            Some(at) => command(out, &[b"SET", &key, &value, b"PXAT", at.as_bytes()]),
            None => command(out, &[b"SET", &key, &value]),
        }
        return Ok(());
    }
    let expires_in_fields = matches!(found.kind, Type::HashExpiries | Type::HashListpackExpiries);
    let version = if expires_in_fields { VERSION_MAX } else { version };
    let mut payload = Vec::with_capacity(value.len() + 11);
    payload.push(found.kind as u8);
    payload.extend_from_slice(value);
    payload.extend_from_slice(&version.to_le_bytes());
    let checksum = crc64(0, &payload);
    payload.extend_from_slice(&checksum.to_le_bytes());
    let ttl = expiry.as_deref().unwrap_or("0").as_bytes();
    command(out, &[b"RESTORE", &key, ttl, &payload, b"REPLACE", b"ABSTTL"]);
    Ok(())
}

fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    write_command(out, words.len(), words.iter().copied());
}

/// Keeps the sources of functions.
#[derive(Default)]
struct Functions(Vec<Vec<u8>>);

impl Observer for Functions {
    fn function(&mut self, source: &[u8]) -> Result<(), String> {
        self.0.push(source.to_vec());
        Ok(())
    }
}
