//! What goes in comes out, and nothing else ever does.

use std::io::{self, BufRead, Read, Write};

use proptest::prelude::*;

use super::frame::{HEAD, TAG, TEXT_MAX};
use super::*;

const HEADER: usize = header::SIZE;

fn whole(keys: &Keys, parts: &[&[u8]]) -> Vec<u8> {
    let mut writer = SealedWriter::new(Vec::new(), keys).unwrap();
    for part in parts {
        writer.write_all(part).unwrap();
        writer.flush().unwrap();
    }
    writer.finish().unwrap()
}

/// A growing file of one frame per lot.
fn growing(keys: &Keys, lots: &[&[u8]]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut appender = Appender::create(keys, &mut file).unwrap();
    for lot in lots {
        appender.seal(lot, &mut file).unwrap();
    }
    file
}

fn read(keys: &Keys, mut file: &[u8]) -> io::Result<(Vec<u8>, Option<Ending>)> {
    let mut reader = SealedReader::open(&mut file, keys)?;
    let mut text = Vec::new();
    reader.read_to_end(&mut text)?;
    Ok((text, reader.ending()))
}

fn refusal(keys: &Keys, file: &[u8]) -> SealError {
    let error = read(keys, file).expect_err("it should be refused");
    SealError::of(&error).expect("it is about sealing").clone()
}

/// Where frames begin, and the end.
fn frames(file: &[u8]) -> Vec<usize> {
    let mut places = vec![HEADER];
    let mut place = HEADER;
    while place < file.len() {
        let word = u32::from_le_bytes(file[place..place + 4].try_into().unwrap());
        place += HEAD + (word & 0xFF_FFFF) as usize + TAG;
        places.push(place);
    }
    assert_eq!(place, file.len());
    places
}

/// Puts a file's header and frames together again in another order.
fn arranged(file: &[u8], order: &[usize]) -> Vec<u8> {
    let places = frames(file);
    let mut made = file[..HEADER].to_vec();
    for &frame in order {
        made.extend_from_slice(&file[places[frame]..places[frame + 1]]);
    }
    made
}

#[test]
fn a_whole_file_comes_back() {
    let keys = Keys::random().unwrap();
    for length in [0_usize, 1, 65_535, 65_536, 65_537, 131_072, 300_000] {
        let text: Vec<u8> = (0..length).map(|place| (place / 7) as u8).collect();
        let mut writer = SealedWriter::new(Vec::new(), &keys).unwrap();
        writer.write_all(&text).unwrap();
        let file = writer.finish().unwrap();
        assert_eq!(frames(&file).len() - 1, length.div_ceil(65_536).max(1));
        assert_eq!(read(&keys, &file).unwrap(), (text, Some(Ending::Finished)));
    }
}

#[test]
fn nothing_of_the_text_can_be_seen_and_no_two_files_are_alike() {
    let keys = Keys::random().unwrap();
    let text = b"the quick brown fox jumps over the lazy dog";
    let files = [whole(&keys, &[text]), whole(&keys, &[text])];
    assert!(files.iter().all(|file| !file.windows(4).any(|part| text.starts_with(part))));
    assert!(files[0][HEADER + HEAD..] != files[1][HEADER + HEAD..]);
    assert!(is_sealed(&files[0]) && !is_sealed(b"REDIS0011") && !is_sealed(b""));
}

#[test]
fn every_flipped_bit_of_a_whole_file_is_detected_and_named() {
    let keys = Keys::random().unwrap();
    let file = whole(&keys, &[b"first", b"", b"second", &[7; 40]]);
    let places = frames(&file);
    flip_every_bit(&file, |flipped, place| {
        let error = refusal(&keys, flipped);
        check_name(&error, place, &places);
    });
}

#[test]
fn every_flipped_bit_of_a_growing_file_is_detected_and_named() {
    let keys = Keys::random().unwrap();
    let mut file = growing(&keys, &[b"first", b"second"]);
    let resumed = Appender::resume(&file[..], &keys, None).unwrap();
    let mut appender = resumed.appender;
    appender.seal(b"third", &mut file).unwrap();
    appender.seal(b"fourth", &mut file).unwrap();
    let places = frames(&file);
    assert_eq!(places.len() - 1, 5); // with the run frame
    flip_every_bit(&file, |flipped, place| {
        let error = refusal(&keys, flipped);
        check_name(&error, place, &places);
    });
}

fn flip_every_bit(file: &[u8], mut check: impl FnMut(&[u8], usize)) {
    let mut flipped = file.to_vec();
    for place in 0..file.len() {
        for bit in 0..8 {
            flipped[place] ^= 1 << bit;
            check(&flipped, place);
            flipped[place] ^= 1 << bit;
        }
    }
}

/// An error about a flip at `place` says in which part of the file that is.
fn check_name(error: &SealError, place: usize, places: &[usize]) {
    match error {
        SealError::Damaged { frame, offset, .. } => {
            let hit = places.iter().rposition(|start| *start <= place).expect("in a frame");
            assert_eq!((*frame, *offset), (hit as u64, places[hit] as u64), "byte {place}");
            let text = error.to_string();
            assert!(text.starts_with(&format!("frame {hit}, at byte {offset}, ")), "{text}");
        }
        SealError::NotSealed => assert!(place < 8),
        SealError::Version(_) => assert_eq!(place, 8),
        SealError::UnknownKey(_) => assert!((12..20).contains(&place)),
        SealError::Header(_) => assert!((9..HEADER).contains(&place)),
        other => panic!("byte {place}: {other}"),
    }
}

#[test]
fn every_truncation_of_a_whole_file_is_detected() {
    let keys = Keys::random().unwrap();
    let file = whole(&keys, &[b"first", b"second", b"third"]);
    let places = frames(&file);
    for length in 0..file.len() {
        match refusal(&keys, &file[..length]) {
            SealError::ShortHeader(bytes) => assert!(bytes == length && length < HEADER),
            SealError::Truncated { frame, offset } => {
                assert_eq!(offset, length as u64);
                let begun = places.iter().rposition(|start| *start <= length).unwrap();
                assert_eq!(frame, begun as u64);
            }
            other => panic!("{length}: {other}"),
        }
    }
}

#[test]
fn every_truncation_of_a_growing_file_leaves_its_whole_frames() {
    let keys = Keys::random().unwrap();
    let lots: [&[u8]; 3] = [b"first ", b"second ", b"third "];
    let file = growing(&keys, &lots);
    let places = frames(&file);
    for length in HEADER..=file.len() {
        let frames = places.iter().rposition(|start| *start <= length).unwrap();
        let bytes = length - places[frames];
        let ending = match bytes as u64 {
            0 => Ending::Open,
            bytes => Ending::Torn { bytes },
        };
        let (text, found) = read(&keys, &file[..length]).unwrap();
        assert_eq!((text, found), (lots[..frames].concat(), Some(ending)), "{length}");

        // It goes on from there, whatever has been cut off.
        let resumed = Appender::resume(&file[..length], &keys, None).unwrap();
        let mut appender = resumed.appender;
        assert_eq!((resumed.keep, &resumed.append[..]), (places[frames] as u64, &[][..]));
        let mut continued = file[..places[frames]].to_vec();
        appender.seal(b"more", &mut continued).unwrap();
        appender.finish(&mut continued).unwrap();
        let (text, ending) = read(&keys, &continued).unwrap();
        assert_eq!(text, [&lots[..frames].concat()[..], b"more"].concat());
        assert_eq!(ending, Some(Ending::Finished));
    }
    for length in 0..HEADER {
        assert_eq!(refusal(&keys, &file[..length]), SealError::ShortHeader(length));
        let resumed = Appender::resume(&file[..length], &keys, None).unwrap();
        assert_eq!((resumed.keep, resumed.append.len()), (0, HEADER));
        let mut appender = resumed.appender;
        let mut begun = resumed.append;
        appender.seal(b"more", &mut begun).unwrap();
        assert_eq!(read(&keys, &begun).unwrap().0, b"more");
    }
}

#[test]
fn zeros_where_nothing_was_written_are_a_torn_end() {
    let keys = Keys::random().unwrap();
    let file = growing(&keys, &[b"first", b"second", &[0; 30]]);
    let places = frames(&file);
    for length in places[2]..=file.len() - TAG {
        for zeros in [TAG, 1000, 600_000] {
            let mut torn = file[..length].to_vec();
            torn.resize(length.max(file.len() - TAG) + zeros, 0);
            let (text, ending) = read(&keys, &torn).unwrap();
            assert_eq!(text, b"firstsecond");
            let bytes = (torn.len() - places[2]) as u64;
            assert_eq!(ending, Some(Ending::Torn { bytes }));
            *torn.last_mut().unwrap() = 1;
            assert!(matches!(refusal(&keys, &torn), SealError::Damaged { frame: 2, .. }));
        }
    }
    // So they are within its tag, if there are as many as a tag has bytes.
    for written in 1..TAG {
        let mut torn = file[..file.len() - TAG + written].to_vec();
        let zeros = TAG + 5;
        torn.resize(torn.len() + zeros, 0);
        assert_eq!(read(&keys, &torn).unwrap().0, b"firstsecond", "{written}");
        torn.truncate(file.len());
        let last = file[file.len() - TAG + written - 1];
        assert!(last == 0 || matches!(refusal(&keys, &torn), SealError::Damaged { .. }));
    }
    // There is nothing else to be zeros in a whole file.
    let file = [&whole(&keys, &[b"text"])[..], &[0; 100]].concat();
    assert!(matches!(refusal(&keys, &file), SealError::Trailing(_)));
}

#[test]
fn frames_that_move_repeat_or_go_missing_are_detected() {
    let keys = Keys::random().unwrap();
    let lots: [&[u8]; 4] = [b"aaaa", b"bbbb", b"cccc", b"dddd"];
    for file in [growing(&keys, &lots), whole(&keys, &lots)] {
        let wrong: [(&[usize], u64); 5] = [
            (&[1, 0, 2, 3], 0),
            (&[0, 2, 1, 3], 1),
            (&[0, 1, 1, 2, 3], 2),
            (&[0, 2, 3], 1),
            (&[1, 2, 3], 0),
        ];
        for (order, first_wrong) in wrong {
            match refusal(&keys, &arranged(&file, order)) {
                SealError::Damaged { frame, .. } => assert_eq!(frame, first_wrong, "{order:?}"),
                other => panic!("{order:?}: {other}"),
            }
        }
    }
}

#[test]
fn nothing_may_follow_the_last_frame() {
    let keys = Keys::random().unwrap();
    let file = whole(&keys, &[b"text"]);
    for more in [&b"x"[..], &file[HEADER..], &[0; 100]] {
        let error = refusal(&keys, &[&file[..], more].concat());
        assert_eq!(error, SealError::Trailing(file.len() as u64));
    }
    // Nor can a finished file be continued.
    let mut finished = Vec::new();
    Appender::create(&keys, &mut finished).unwrap().finish(&mut finished).unwrap();
    for file in [file, finished] {
        let error = Appender::resume(&file[..], &keys, None).err().expect("it is finished");
        assert_eq!(SealError::of(&error), Some(&SealError::NotGrowing));
    }
}

#[test]
fn frames_of_other_files_do_not_fit() {
    let keys = Keys::random().unwrap();
    let lots: [&[u8]; 2] = [b"aaaa", b"bbbb"];
    let (one, other) = (growing(&keys, &lots), growing(&keys, &lots));
    let places = frames(&one);
    for frame in 0..2 {
        let mut mixed = one.clone();
        mixed[places[frame]..places[frame + 1]]
            .copy_from_slice(&other[places[frame]..places[frame + 1]]);
        assert!(matches!(refusal(&keys, &mixed),
            SealError::Damaged { frame: found, damage: Damage::Content, .. } if found == frame as u64));
    }
    // A header lends its data key to no other frames.
    let mixed = [&one[..HEADER], &other[HEADER..]].concat();
    assert!(matches!(refusal(&keys, &mixed), SealError::Damaged { frame: 0, .. }));
}

#[test]
fn runs_from_other_histories_of_a_file_do_not_fit() {
    let keys = Keys::random().unwrap();
    let start = growing(&keys, &[b"start"]);
    let go_on = |file: &[u8], lots: &[&[u8]]| {
        let mut file = file.to_vec();
        let mut appender = Appender::resume(&file[..], &keys, None).unwrap().appender;
        lots.iter().for_each(|lot| appender.seal(lot, &mut file).unwrap());
        file
    };
    let one = go_on(&start, &[b"one 1", b"one 2"]);
    let other = go_on(&start, &[b"two 1", b"two 2"]);
    let (one_later, other_later) = (go_on(&one, &[b"later"]), go_on(&other, &[b"later"]));
    assert_eq!(read(&keys, &one_later).unwrap().0, b"startone 1one 2later");
    assert_eq!(read(&keys, &other_later).unwrap().0, b"starttwo 1two 2later");

    // The same numbers and lengths, and yet another frame in the middle, or another run at the end.
    let places = frames(&one);
    let mut mixed = one.clone();
    mixed[places[3]..places[4]].copy_from_slice(&other[places[3]..places[4]]);
    assert!(matches!(refusal(&keys, &mixed), SealError::Damaged { frame: 3, .. }));
    let mixed = [&one[..], &other_later[other.len()..]].concat();
    assert!(matches!(refusal(&keys, &mixed), SealError::Damaged { frame: 4, .. }));
}

#[test]
fn a_file_is_cut_where_its_content_is_to_end() {
    let keys = Keys::random().unwrap();
    let file = growing(&keys, &[b"0123", b"4567", b"89"]);
    for text in 0..=10 {
        let mut resumed = Appender::resume(&file[..], &keys, Some(text)).unwrap();
        let kept = frames(&file)[[0, 4, 8, 10].iter().rposition(|end| *end <= text).unwrap()];
        assert_eq!(resumed.keep, kept as u64);
        let mut cut = file[..kept].to_vec();
        cut.append(&mut resumed.append);
        let (found, ending) = read(&keys, &cut).unwrap();
        assert_eq!(
            (found.as_slice(), ending),
            (&b"0123456789"[..text as usize], Some(Ending::Open))
        );
        resumed.appender.seal(b"more", &mut cut).unwrap();
        let found = read(&keys, &cut).unwrap().0;
        assert_eq!(found, [&b"0123456789"[..text as usize], b"more"].concat());
    }
    let error = Appender::resume(&file[..], &keys, Some(11)).err().expect("it is shorter");
    assert!(matches!(SealError::of(&error), Some(SealError::Truncated { frame: 3, .. })));
}

#[test]
fn a_failed_write_is_taken_back() {
    let keys = Keys::random().unwrap();
    let mut file = Vec::new();
    let mut appender = Appender::create(&keys, &mut file).unwrap();
    appender.seal(b"one ", &mut file).unwrap();
    let (mark, length) = (appender.mark(), file.len());
    appender.seal(b"lost ", &mut file).unwrap();
    let lost = file.split_off(length);
    appender.rewind(mark);
    appender.seal(b"kept ", &mut file).unwrap();
    appender.seal(b"two", &mut file).unwrap();
    assert_eq!(read(&keys, &file).unwrap().0, b"one kept two");
    // The number of the lost frame is used again, its key is not.
    assert!(!file.windows(8).any(|part| lost[HEAD..].windows(8).any(|other| part == other)));
}

#[test]
fn another_key_opens_nothing_and_older_keys_open_their_files() {
    let (old, new) = (Keys::random().unwrap(), Keys::random().unwrap());
    let file = whole(&old, &[b"text"]);
    assert_eq!(refusal(&new, &file), SealError::UnknownKey(old.current_id()));
    assert!(refusal(&new, &file).to_string().contains(&old.current_id().to_string()));

    let hex = |keys: &Keys| keys.current().1.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let both = format!("key {}\nkey {}", hex(&new), hex(&old));
    let both = Keys::parse(both.as_bytes()).unwrap();
    assert_eq!(read(&both, &file).unwrap().0, b"text");
    let file = whole(&both, &[b"text"]);
    assert_eq!(read(&new, &file).unwrap().0, b"text");
    assert!(read(&old, &file).is_err());
}

#[test]
fn long_lots_are_split_and_small_reads_see_the_same() {
    let keys = Keys::random().unwrap();
    let lot = vec![b'x'; 2 * TEXT_MAX + 5];
    let file = growing(&keys, &[b"a", &lot, b"", b"b"]);
    assert_eq!(frames(&file).len() - 1, 5);
    let mut reader = SealedReader::open(Trickle(&file, 1), &keys).unwrap();
    let mut text = Vec::new();
    while let Ok(part @ 1..) = reader.fill_buf().map(|part| {
        text.extend_from_slice(&part[..part.len().min(1000)]);
        part.len().min(1000)
    }) {
        reader.consume(part);
    }
    assert_eq!(text, [b"a", &lot[..], b"b"].concat());
    assert_eq!((reader.ending(), reader.offset()), (Some(Ending::Open), file.len() as u64));
}

/// Gives a little more with each read.
struct Trickle<'a>(&'a [u8], usize);

impl Read for Trickle<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.0.len().min(into.len()).min(self.1);
        self.1 += 7;
        into[..length].copy_from_slice(&self.0[..length]);
        self.0 = &self.0[length..];
        Ok(length)
    }
}

#[test]
fn a_head_that_promises_too_much_is_refused_before_anything_is_reserved() {
    let keys = Keys::random().unwrap();
    let file = growing(&keys, &[b"text"]);
    for (word, damage) in [
        (TEXT_MAX as u32 + 1, Damage::Length),
        (0xFF_FFFF, Damage::Length),
        (3 << 24, Damage::Kind),
        (2 << 24 | 15, Damage::Length),
        (2 << 24 | 17, Damage::Length),
        (2 << 24 | 16, Damage::Content),
        (1 << 24 | 4, Damage::Content),
    ] {
        let mut forged = file[..HEADER].to_vec();
        forged.extend_from_slice(&word.to_le_bytes());
        forged.extend_from_slice(&frame::checksum(0, word).to_le_bytes());
        forged.extend_from_slice(&[1; 40]);
        let expected = SealError::Damaged { frame: 0, offset: HEADER as u64, damage };
        assert_eq!(refusal(&keys, &forged), expected);
    }
}

#[test]
fn errors_stay() {
    let keys = Keys::random().unwrap();
    let mut file = growing(&keys, &[b"good", b"bad!"]);
    *file.last_mut().unwrap() ^= 1;
    let mut reader = SealedReader::open(&file[..], &keys).unwrap();
    let mut text = [0; 4];
    reader.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"good");
    for _ in 0..3 {
        let error = reader.read(&mut text).unwrap_err();
        assert!(matches!(SealError::of(&error), Some(SealError::Damaged { frame: 1, .. })));
    }
    assert_eq!(reader.ending(), None);
    assert!(reader.into_appender().is_err());
}

#[test]
fn a_writer_whose_output_failed_does_not_go_on() {
    let keys = Keys::random().unwrap();
    let mut place = [0; HEADER + 10];
    let mut writer = SealedWriter::new(&mut place[..], &keys).unwrap();
    writer.write_all(b"some text").unwrap();
    assert!(writer.flush().is_err());
    assert!(writer.flush().is_err() && writer.finish().is_err());
}

#[test]
fn plain_and_sealed_files_are_told_apart() {
    let keys = || Ok(Keys::parse(format!("key {}", "a".repeat(64)).as_bytes()).unwrap());
    let no_keys = || Err(io::Error::other("no keys here"));
    let text = |input: Input<&[u8]>| {
        let mut text = Vec::new();
        { input }.read_to_end(&mut text).map(|_| text)
    };
    for plain in [&b""[..], b"R", b"REDIS", b"REDIS0011 and so on", b"CARNSEAM and so on"] {
        let input = Input::detect(plain, no_keys).unwrap();
        assert!(matches!(input, Input::Plain(_)));
        assert_eq!(text(input).unwrap(), plain);
    }
    let file = whole(&keys().unwrap(), &[b"text"]);
    assert_eq!(text(Input::detect(&file[..], keys).unwrap()).unwrap(), b"text");
    assert_eq!(Input::detect(&file[..], no_keys).err().unwrap().to_string(), "no keys here");
    let short = Input::detect(&file[..5], keys).err().unwrap();
    assert_eq!(SealError::of(&short), Some(&SealError::ShortHeader(5)));
}

#[derive(Clone, Debug)]
enum Step {
    Seal(Vec<u8>),
    /// Cuts the file to a part of its length, as a crash does, and goes on.
    Crash(f64),
    /// Cuts the content to a part of its length, and goes on.
    Cut(f64),
    /// Seals, fails to write it, and takes it back.
    Fail(Vec<u8>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lot = || prop::collection::vec(any::<u8>(), 0..40);
    let step = prop_oneof![
        5 => lot().prop_map(Step::Seal),
        1 => (0.5..=1.0).prop_map(Step::Crash),
        1 => (0.0..=1.0).prop_map(Step::Cut),
        1 => lot().prop_map(Step::Fail),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #[test]
    fn a_growing_file_keeps_what_it_should_over_any_history(steps in steps()) {
        let keys = Keys::random().unwrap();
        let (mut file, mut text) = (Vec::new(), Vec::new());
        let mut appender = Appender::create(&keys, &mut file).unwrap();
        // Lengths of file and content after each frame.
        let mut ends = vec![(file.len(), 0)];
        for step in steps {
            match step {
                Step::Seal(lot) => {
                    appender.seal(&lot, &mut file).unwrap();
                    text.extend_from_slice(&lot);
                    ends.push((file.len(), text.len()));
                }
                Step::Crash(part) => {
                    file.truncate((file.len() as f64 * part) as usize);
                    ends.retain(|(length, _)| *length <= file.len());
                    if ends.is_empty() {
                        ends.push((HEADER, 0));
                    }
                    let resumed = Appender::resume(&file[..], &keys, None).unwrap();
                    appender = resumed.appender;
                    file.truncate(resumed.keep as usize);
                    file.extend_from_slice(&resumed.append);
                    text.truncate(ends.last().unwrap().1);
                }
                Step::Cut(part) => {
                    text.truncate((text.len() as f64 * part) as usize);
                    let resumed = Appender::resume(&file[..], &keys, Some(text.len() as u64)).unwrap();
                    appender = resumed.appender;
                    file.truncate(resumed.keep as usize);
                    file.extend_from_slice(&resumed.append);
                    ends.retain(|(_, length)| *length <= text.len());
                    ends.push((file.len(), text.len()));
                }
                Step::Fail(lot) => {
                    let (mark, length) = (appender.mark(), file.len());
                    appender.seal(&lot, &mut file).unwrap();
                    file.truncate(length);
                    appender.rewind(mark);
                }
            }
        }
        prop_assert_eq!(read(&keys, &file).unwrap().0, text);
    }

    #[test]
    fn a_whole_file_comes_back_whatever_the_writes(
        parts in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..50_000), any::<bool>()), 0..8),
        read_size in 1..100_000_usize,
    ) {
        let keys = Keys::random().unwrap();
        let mut writer = SealedWriter::new(Vec::new(), &keys).unwrap();
        let mut text = Vec::new();
        for (part, flush) in &parts {
            writer.write_all(part).unwrap();
            text.extend_from_slice(part);
            if *flush {
                writer.flush().unwrap();
            }
        }
        let file = writer.finish().unwrap();
        let mut reader = SealedReader::open(Trickle(&file, read_size), &keys).unwrap();
        let mut found = Vec::new();
        let mut chunk = vec![0; read_size];
        loop {
            let length = reader.read(&mut chunk).unwrap();
            if length == 0 {
                break;
            }
            found.extend_from_slice(&chunk[..length]);
        }
        prop_assert!(found == text);
        prop_assert_eq!(reader.ending(), Some(Ending::Finished));
    }

    #[test]
    fn no_bytes_are_taken_for_a_sealed_file(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let keys = Keys::random().unwrap();
        prop_assert!(read(&keys, &bytes).is_err());
        prop_assert!(read(&keys, &[&b"CARNSEAL\x01\x01\0\0"[..], &bytes].concat()).is_err());
    }
}
