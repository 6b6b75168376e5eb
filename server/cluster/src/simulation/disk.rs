//! A disk: what was flushed stays, what was not may be there, in part, or not at all.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::StorageBackend;

use super::trace;

const SECTOR: usize = 512;

#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<Contents>>);

#[derive(Default)]
struct Contents {
    durable: Vec<u8>,
    /// As whoever writes sees it.
    seen: Vec<u8>,
    pending: Vec<Pending>,
    /// Counts crashes: who opened it before one has nothing more to say.
    life: u64,
    full: bool,
}

enum Pending {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Pending {
    fn apply(&self, bytes: &mut Vec<u8>, length: usize) {
        match self {
            Self::Length(length) => bytes.resize(*length as usize, 0),
            Self::Write(offset, data) => {
                let (start, data) = (*offset as usize, &data[..length.min(data.len())]);
                if bytes.len() < start + data.len() {
                    bytes.resize(start + data.len(), 0);
                }
                bytes[start..start + data.len()].copy_from_slice(data);
            }
        }
    }
}

impl Disk {
    pub fn open(&self) -> Handle {
        Handle { disk: self.clone(), life: self.0.lock().life }
    }

    /// The machine loses its power.
    pub fn crash(&self, chance: &mut fastrand::Rng) {
        let mut contents = self.0.lock();
        let contents = &mut *contents;
        contents.life += 1;
        for pending in contents.pending.drain(..) {
            match chance.u8(..4) {
                0 | 1 => pending.apply(&mut contents.durable, usize::MAX),
                2 => {
                    let sectors = chance.usize(..8);
                    pending.apply(&mut contents.durable, sectors * SECTOR);
                }
                _ => {}
            }
        }
        contents.seen.clone_from(&contents.durable);
    }

    pub fn set_full(&self, full: bool) {
        self.0.lock().full = full;
    }
}

/// The disk as one life of a node has it.
pub struct Handle {
    disk: Disk,
    life: u64,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handle")
    }
}

impl Handle {
    fn with<T>(&self, work: impl FnOnce(&mut Contents) -> io::Result<T>) -> io::Result<T> {
        let mut contents = self.disk.0.lock();
        match contents.life == self.life {
            true => work(&mut contents),
            false => Err(io::Error::other("the power is off")),
        }
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        self.with(|contents| Ok(contents.seen.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|contents| {
            let start = offset as usize;
            let end = start + out.len();
            let bytes = contents.seen.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(bytes);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|contents| {
            if contents.full && contents.seen.len() < len as usize {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let pending = Pending::Length(len);
            pending.apply(&mut contents.seen, usize::MAX);
            contents.pending.push(pending);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|contents| {
            for pending in contents.pending.drain(..) {
                pending.apply(&mut contents.durable, usize::MAX);
            }
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|contents| {
            if contents.full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let (length, sum) = (data.len(), trace::hash(data));
            trace::note(format_args!("write {length} bytes at {offset}: {sum:x}"));
            let pending = Pending::Write(offset, data.to_vec());
            pending.apply(&mut contents.seen, usize::MAX);
            contents.pending.push(pending);
            Ok(())
        })
    }
}
