//! Whatever is done to a sealed file: a reader gives the beginning of what went in, or an error, and
//! nothing else.

#![no_main]

use std::cell::LazyCell;
use std::io::Read;

use carnelian_persistence::seal::{Appender, Ending, Keys, SealedReader};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static KEYS: LazyCell<Keys> = LazyCell::new(|| Keys::random().expect("there is randomness"));
}

fuzz_target!(|input: &[u8]| {
    KEYS.with(|keys| {
        assert!(SealedReader::open(input, keys).is_err());
        let Some((&length, input)) = input.split_first() else { return };
        let (edits, text) = input.split_at(input.len().min(usize::from(length)));

        let mut file = Vec::new();
        let mut appender = Appender::create(keys, &mut file).expect("it can be sealed");
        let header = file.len();
        for lot in text.split_inclusive(|byte| *byte == b'\n') {
            appender.seal(lot, &mut file).expect("it can be sealed");
        }
        let sealed = file.clone();
        edit(&mut file, edits);

        let (found, ending) = read(keys, &file);
        assert!(text.starts_with(&found));
        if file == sealed {
            assert!(found == text && ending == Some(Ending::Open));
        } else if ending.is_some() {
            // Taken for a shorter file: then that is what it is, up to the frame that is torn.
            let good = file.len() - match ending {
                Some(Ending::Torn { bytes }) => bytes as usize,
                _ => 0,
            };
            assert!(header <= good && sealed.starts_with(&file[..good]));
        }
        resume(keys, &file, &found, ending.is_some());
    });
});

/// Changes a byte, cuts, repeats a part or takes one out, as the bytes say.
fn edit(file: &mut Vec<u8>, edits: &[u8]) {
    for edit in edits.chunks_exact(4) {
        if file.is_empty() {
            return;
        }
        let place = usize::from(edit[1]) << 8 | usize::from(edit[2]);
        let place = place % file.len();
        let end = file.len().min(place + usize::from(edit[3]));
        match edit[0] % 5 {
            0 => file[place] ^= edit[3],
            1 => file.truncate(place),
            2 => drop(file.drain(place..end)),
            3 => {
                let part = file[place..end].to_vec();
                file.splice(place..place, part);
            }
            _ => file.extend_from_slice(&edit[1..]),
        }
    }
}

fn read(keys: &Keys, file: &[u8]) -> (Vec<u8>, Option<Ending>) {
    let mut found = Vec::new();
    let Ok(mut reader) = SealedReader::open(file, keys) else { return (found, None) };
    match reader.read_to_end(&mut found) {
        Ok(_) => (found, reader.ending()),
        Err(_) => (found, None),
    }
}

/// A file that can be read can be continued, and one that cannot be read cannot.
fn resume(keys: &Keys, file: &[u8], found: &[u8], is_readable: bool) {
    let Ok(mut resumed) = Appender::resume(file, keys, None) else {
        assert!(!is_readable);
        return;
    };
    let mut file = file[..resumed.keep as usize].to_vec();
    file.append(&mut resumed.append);
    resumed.appender.seal(b"more", &mut file).expect("it can be sealed");
    let (again, ending) = read(keys, &file);
    assert_eq!(ending, Some(Ending::Open));
    assert_eq!(again, [found, b"more"].concat());
}
