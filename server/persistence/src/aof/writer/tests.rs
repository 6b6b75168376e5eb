//! The writer against effects in memory, whole and failing files.

mod power;
mod sealed;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Condvar;

use bytes::Bytes;

use super::*;

/// Effects in memory, and what was told.
#[derive(Default)]
struct Log {
    appended: Mutex<(VecDeque<Bytes>, u64)>,
    doorbell: Arc<Doorbell>,
    released: Mutex<u64>,
    synced: AtomicU64,
    changed: Condvar,
    lines: Mutex<Vec<String>>,
    is_unhealthy: AtomicBool,
    /// What those append who are waited for after a flush, the last first.
    returning: Mutex<Vec<&'static [u8]>>,
    /// How far each flush went.
    flushes: Mutex<Vec<u64>>,
}

impl Log {
    fn append(&self, effect: &[u8]) -> u64 {
        let mut appended = self.appended.lock().unwrap();
        appended.0.push_back(Bytes::copy_from_slice(effect));
        appended.1 += effect.len() as u64;
        let end = appended.1;
        drop(appended);
        self.doorbell.ring();
        end
    }

    fn wait_released(&self, offset: u64) {
        let released = self.released.lock().unwrap();
        drop(self.changed.wait_while(released, |released| *released < offset).unwrap());
    }

    fn end(&self) -> u64 {
        self.appended.lock().unwrap().1
    }
}

struct Taker(Arc<Log>);

impl Source for Taker {
    fn take(&mut self) -> Option<Lot> {
        let mut appended = self.0.appended.lock().unwrap();
        let chunks: Vec<_> = appended.0.drain(..).collect();
        (!chunks.is_empty()).then_some(Lot { chunks, end: appended.1 })
    }

    fn expects_more(&mut self) -> bool {
        // Who is waited for comes at once.
        if let Some(effect) = self.0.returning.lock().unwrap().pop() {
            self.0.append(effect);
        }
        false
    }
}

/// A file whose flushes take longer than the least that is worth a wait.
#[derive(Debug)]
struct Slow(File);

impl super::super::medium::Medium for Slow {
    fn write_vectored(&self, slices: &[std::io::IoSlice<'_>]) -> io::Result<usize> {
        std::io::Write::write_vectored(&mut &self.0, slices)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        thread::sleep(Duration::from_millis(1));
        self.0.sync_data()
    }
}

impl Events for Log {
    fn tell(&self, _: Level, text: &str) {
        self.lines.lock().unwrap().push(text.to_owned());
    }

    fn synced(&self, offset: u64) {
        self.synced.fetch_max(offset, Ordering::SeqCst);
    }

    fn released(&self, offset: u64) {
        self.flushes.lock().unwrap().push(offset);
        *self.released.lock().unwrap() = offset;
        self.changed.notify_all();
    }

    fn troubled(&self, reason: Option<&str>) {
        self.is_unhealthy.store(reason.is_some(), Ordering::SeqCst);
    }
}

fn settings(fsync: Fsync) -> WriterSettings {
    WriterSettings { fsync, timestamps: false, pauses_fsync: false }
}

fn start(log: &Arc<Log>, folder: &Arc<Folder>, incr: Incr, fsync: Fsync) -> Writer {
    Writer::start(
        folder.clone(),
        incr,
        Box::new(Taker(log.clone())),
        0,
        settings(fsync),
        log.doorbell.clone(),
        log.clone(),
    )
    .unwrap()
}

fn open(parent: &Path) -> (Arc<Folder>, Incr) {
    let folder = Folder::open(parent, "d", "a", &|_, _| {}).unwrap();
    folder.create().unwrap();
    let incr = folder.continue_incr(&|_, _| {}).unwrap();
    (Arc::new(folder), incr)
}

fn text(parent: &Path, name: &str) -> String {
    fs::read_to_string(parent.join("d").join(name)).unwrap()
}

#[test]
fn what_is_released_with_always_is_on_disk() {
    let parent = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::default());
    let (folder, incr) = open(parent.path());
    let writer = start(&log, &folder, incr, Fsync::Always);
    let mut expected = String::new();
    for number in 0..50 {
        let effect = format!("effect {number};");
        expected += &effect;
        let end = log.append(effect.as_bytes());
        log.wait_released(end);
        assert!(end <= log.synced.load(Ordering::SeqCst));
        assert_eq!(text(parent.path(), "a.1.incr.aof"), expected);
    }
    assert_eq!(folder.bytes(), expected.len() as u64);
    writer.stop().unwrap();
}

#[test]
fn those_who_were_released_are_waited_for_before_the_next_flush() {
    let parent = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::default());
    let (folder, mut incr) = open(parent.path());
    let file = File::options().append(true).open(parent.path().join("d/a.1.incr.aof")).unwrap();
    incr.file = Arc::new(Slow(file));
    *log.returning.lock().unwrap() = vec![b"third;", b"second;"];
    log.append(b"first;");
    let writer = start(&log, &folder, incr, Fsync::Always);
    log.wait_released(19);
    writer.stop().unwrap();
    assert_eq!(text(parent.path(), "a.1.incr.aof"), "first;second;third;");
    assert_eq!(*log.flushes.lock().unwrap(), [6, 13, 19]);
}

#[test]
fn appends_of_many_threads_arrive_whole_under_each_policy() {
    for fsync in [Fsync::Always, Fsync::EverySecond, Fsync::No] {
        let parent = tempfile::tempdir().unwrap();
        let log = Arc::new(Log::default());
        let (folder, incr) = open(parent.path());
        let writer = start(&log, &folder, incr, fsync);
        thread::scope(|scope| {
            for thread in 0..4 {
                let log = &log;
                scope.spawn(move || {
                    for number in 0..1000 {
                        log.append(format!("{thread}:{number:05};").as_bytes());
                    }
                });
            }
        });
        writer.flush(false).unwrap();
        let text = text(parent.path(), "a.1.incr.aof");
        assert_eq!(text.len(), 4 * 1000 * 8);
        for thread in 0..4 {
            let own = format!("{thread}:");
            let numbers: Vec<_> =
                text.split(';').filter(|effect| effect.starts_with(&own)).collect();
            assert_eq!(numbers.len(), 1000);
            assert!(numbers.is_sorted());
        }
        let end = log.end();
        assert_eq!(writer.figures().written, end);
        writer.stop().unwrap();
        assert_eq!(log.synced.load(Ordering::SeqCst), end);
    }
}

#[test]
fn files_change_exactly_at_the_offset() {
    let parent = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::default());
    let (folder, incr) = open(parent.path());
    let writer = start(&log, &folder, incr, Fsync::EverySecond);
    log.append(b"before;");
    let rotation = {
        // While the lock is held nobody appends: the cut.
        let mut appended = log.appended.lock().unwrap();
        let rotation = writer.rotate(appended.1);
        appended.0.push_back(Bytes::from_static(b"after;"));
        appended.1 += 6;
        rotation
    };
    assert_eq!(rotation.wait(Duration::from_secs(60)).unwrap().unwrap(), 2);
    writer.flush(false).unwrap();
    assert_eq!(text(parent.path(), "a.1.incr.aof"), "before;");
    assert_eq!(text(parent.path(), "a.2.incr.aof"), "after;");
    let manifest = "file a.1.incr.aof seq 1 type i\nfile a.2.incr.aof seq 2 type i\n";
    assert_eq!(text(parent.path(), "a.manifest"), manifest);
    // With nothing to write, too.
    let rotation = writer.rotate(log.end());
    assert_eq!(rotation.wait(Duration::from_secs(60)).unwrap().unwrap(), 3);
}

#[test]
fn a_change_of_files_that_fails_leaves_the_old_one_in_use() {
    let parent = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::default());
    let (folder, incr) = open(parent.path());
    let writer = start(&log, &folder, incr, Fsync::EverySecond);
    fs::create_dir(parent.path().join("d/a.2.incr.aof")).unwrap();
    let outcome = writer.rotate(0).wait(Duration::from_secs(60)).unwrap();
    let error = outcome.unwrap_err().to_string();
    assert_eq!(error, "Can't open the append-only file a.2.incr.aof: Is a directory");
    log.append(b"on;");
    writer.stop().unwrap();
    assert_eq!(text(parent.path(), "a.1.incr.aof"), "on;");
}

#[test]
fn timestamps_come_between_lots() {
    let parent = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::default());
    let (folder, incr) = open(parent.path());
    let writer = start(&log, &folder, incr, Fsync::No);
    writer.set(WriterSettings { timestamps: true, ..settings(Fsync::No) });
    log.append(b"a;");
    writer.stop().unwrap();
    let text = text(parent.path(), "a.1.incr.aof");
    assert!(text.starts_with("#TS:1") && text.ends_with("\r\na;"), "{text}");
}

#[test]
fn a_full_disk_is_told_and_nothing_is_released() {
    let parent = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::default());
    let (folder, _) = open(parent.path());
    let file = fs::OpenOptions::new().append(true).open("/dev/full").unwrap();
    let writer = start(&log, &folder, Incr::plain(file), Fsync::EverySecond);
    log.append(b"a;");
    assert!(writer.flush(false).is_err());
    assert!(log.is_unhealthy.load(Ordering::SeqCst) && !writer.figures().writes);
    let line = "Error writing to the AOF file: No space left on device";
    assert_eq!(*log.lines.lock().unwrap(), [line]);
    assert!(writer.stop().is_err());
    assert_eq!(*log.released.lock().unwrap(), 0);
}

#[test]
fn what_a_short_write_left_out_follows_when_there_is_room() {
    const LENGTH: usize = 1 << 20;
    let parent = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::default());
    let (folder, _) = open(parent.path());
    // A socket that nobody reads is a disk that is full, and cannot be truncated.
    let (near, mut far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let file = File::from(OwnedFd::from(near));
    let _writer = start(&log, &folder, Incr::plain(file), Fsync::No);
    let effects: Vec<u8> = (0..LENGTH).map(|at| (at / 1000) as u8).collect();
    let end = effects.chunks(100_000).fold(0, |_, effect| log.append(effect));
    while !log.is_unhealthy.load(Ordering::SeqCst) {
        thread::yield_now();
    }
    let mut read = vec![0; LENGTH];
    let reading = thread::spawn(move || {
        far.read_exact(&mut read).unwrap();
        read
    });
    log.wait_released(end);
    assert!(reading.join().unwrap() == effects);
    assert!(!log.is_unhealthy.load(Ordering::SeqCst));
    let lines = log.lines.lock().unwrap();
    assert!(lines[0].starts_with("Short write while writing to the AOF file: (nwritten="));
    assert!(lines.iter().any(|line| line.starts_with("AOF write error looks solved")));
}
