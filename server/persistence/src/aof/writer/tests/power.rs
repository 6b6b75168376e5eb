//! The power fails: what was not flushed is gone, or torn, or zeros. What was said to be safe is there.

use std::io::{IoSlice, Write};

use super::super::super::input::Input;
use super::super::super::medium::Medium;
use super::super::super::reader::{self, Stop, tests::Notes};
use super::*;
use crate::seal::{self, Ending, Keys, SealedReader};

/// A file of which we know what the disk has.
#[derive(Debug)]
struct Disk {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// As a reader sees it while the power is on.
    seen: Vec<u8>,
    /// Which of that the disk does not have yet. What a failed flush drops is not, and never will be.
    dirty: Vec<bool>,
    stored: Vec<u8>,
    rng: Rng,
    /// In so many calls one fails; 0 for none.
    failing: u64,
    failures_left: u32,
}

/// A generator of numbers that needs no dependency.
#[derive(Debug)]
struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }
}

impl Disk {
    fn new(seed: u64, failing: u64, stored: Vec<u8>) -> Arc<Self> {
        let dirty = vec![false; stored.len()];
        let seen = stored.clone();
        let rng = Rng(seed.wrapping_mul(77) + 1);
        let state = State { seen, dirty, stored, rng, failing, failures_left: 2 };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// What is there after the power failed now.
    fn cut_power(&self) -> Vec<u8> {
        let mut state = self.state.lock().unwrap();
        let mut image = state.stored.clone();
        let first_dirty = state.dirty.iter().position(|dirty| *dirty);
        let Some(start) = first_dirty.filter(|start| image.len() <= *start) else { return image };
        let unsafe_bytes = (state.seen.len() - start) as u64;
        let survives = start + state.rng.below(unsafe_bytes + 1) as usize;
        image.extend_from_slice(&state.seen[image.len()..survives]);
        if state.rng.below(3) == 0 {
            // The length came to the disk before the content.
            let zeros = state.rng.below(5000) as usize;
            image.resize(image.len() + zeros, 0);
        }
        image
    }
}

impl State {
    fn fails(&mut self) -> bool {
        let fails =
            self.failing != 0 && 0 < self.failures_left && self.rng.below(self.failing) == 0;
        self.failures_left -= u32::from(fails);
        fails
    }
}

impl Medium for Arc<Disk> {
    fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.state.lock().unwrap();
        let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        if state.fails() {
            let part = state.rng.below(bytes.len() as u64) as usize;
            bytes.truncate(part);
            if part == 0 {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
        }
        state.seen.extend_from_slice(&bytes);
        let length = state.seen.len();
        state.dirty.resize(length, true);
        Ok(bytes.len())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        if state.fails() {
            return Err(io::Error::other("not now"));
        }
        state.seen.truncate(bytes as usize);
        state.dirty.truncate(bytes as usize);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let state = &mut *self.state.lock().unwrap();
        if state.fails() {
            // The system forgets that it has something to write.
            state.dirty.fill(false);
            return Err(io::Error::other("a bad sector"));
        }
        state.stored.resize(state.seen.len(), 0);
        for (place, dirty) in state.dirty.iter_mut().enumerate() {
            if std::mem::take(dirty) {
                state.stored[place] = state.seen[place];
            }
        }
        Ok(())
    }
}

const EFFECT_BYTES: u64 = 18;

fn effect(number: u64) -> String {
    let effect = format!("*1\r\n$8\r\n{number:08}\r\n");
    assert_eq!(effect.len() as u64, EFFECT_BYTES);
    effect
}

/// What a start finds in an image: how many effects, in order.
fn effects_of(image: &[u8], keys: Option<&Keys>) -> u64 {
    let mut content = Vec::new();
    match keys {
        None => content.extend_from_slice(image),
        Some(keys) => {
            let mut reader = SealedReader::open(image, keys).unwrap();
            reader.read_to_end(&mut content).unwrap();
            assert_ne!(reader.ending(), Some(Ending::Finished));
        }
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&content).unwrap();
    let mut notes = Notes::default();
    match reader::read(&mut Input::open(file.path()).unwrap(), &mut notes, |_| {}) {
        Ok(()) | Err(Stop::Short { .. }) => {}
        Err(stop) => panic!("{stop:?}"),
    }
    for (number, effect) in notes.commands.iter().enumerate() {
        assert_eq!(*effect, format!("{number:08}"));
    }
    notes.commands.len() as u64
}

/// Appends effects and cuts the power now and then; the writer knows nothing of that.
fn series(fsync: Fsync, seed: u64, failing: u64, keys: Option<&Keys>) {
    const EFFECTS: u64 = 1500;
    let parent = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::default());
    let (folder, _) = open(parent.path());
    let mut header = Vec::new();
    let seal = keys.map(|keys| seal::Appender::create(keys, &mut header).unwrap());
    let bytes = header.len() as u64;
    let disk = Disk::new(seed, failing, header);
    let incr = Incr { file: Arc::new(disk.clone()), bytes, sequence: 1, seal };
    let writer = start(&log, &folder, incr, fsync);
    let mut rng = Rng(seed);
    thread::scope(|scope| {
        let log = &log;
        scope.spawn(move || {
            for number in 0..EFFECTS {
                let end = log.append(effect(number).as_bytes());
                if fsync == Fsync::Always && number % 16 == 0 {
                    log.wait_released(end);
                }
            }
        });
        let mut safe = 0;
        while safe < EFFECTS {
            // What is known to be safe before the power fails.
            safe = match fsync {
                Fsync::Always => *log.released.lock().unwrap() / EFFECT_BYTES,
                _ => {
                    let _ = writer.flush(true);
                    log.synced.load(Ordering::SeqCst) / EFFECT_BYTES
                }
            };
            let found = effects_of(&disk.cut_power(), keys);
            assert!(safe <= found, "{safe} effects were safe, and {found} are there");
            thread::sleep(Duration::from_micros(rng.below(2000)));
        }
    });
}

#[test]
fn what_was_said_to_be_safe_outlives_the_power() {
    let keys = Keys::random().unwrap();
    for seed in 0..2 {
        for keys in [None, Some(&keys)] {
            series(Fsync::Always, seed, 0, keys);
            series(Fsync::EverySecond, seed, 0, keys);
        }
    }
}

#[test]
fn so_it_does_where_writes_and_flushes_fail_now_and_then() {
    let keys = Keys::random().unwrap();
    // Each failure costs a second.
    thread::scope(|scope| {
        for seed in 0..4 {
            for keys in [None, Some(&keys)] {
                scope.spawn(move || series(Fsync::Always, seed, 20, keys));
            }
        }
    });
}
