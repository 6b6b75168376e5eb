//! No text is a configuration that causes a panic; what one gives, its rewritten form gives again.

#![no_main]

use carnelian_config::{Config, Directive, Extent, Permission, Start, StartError, load, rewrite};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    // Whatever files there are on this machine are no part of the input.
    if text.to_ascii_lowercase().windows(7).any(|word| word == b"include") {
        return;
    }
    let start = match read(text) {
        Ok(start) => start,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!(error.report("8.0.0").to_string().ends_with('\n'));
            return;
        }
    };
    // Both ways in turn, since the second is slow.
    let extent = if text.len().is_multiple_of(8) { Extent::All } else { Extent::Changed };
    let rewritten = rewrite(text, &start.config, extent);
    let again = read(&rewritten).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(values(&again.config), values(&start.config));
    assert_eq!(again.renames.len(), start.renames.len());
    assert_eq!(again.users.len(), start.users.len());
    assert_eq!(rewrite(&rewritten, &again.config, extent), rewritten);
    set(start.config, text);
});

fn read(text: &[u8]) -> Result<Start, StartError> {
    load(&["-".into()], &mut &text[..])
}

fn values(config: &Config) -> Vec<(Vec<u8>, Vec<u8>)> {
    config.get(&[b"*"])
}

/// CONFIG SET of the same lines: what is refused changes nothing.
fn set(mut config: Config, text: &[u8]) {
    let mut before = values(&config);
    for line in text.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b' ');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else { continue };
        if Directive::find(name).is_none() {
            continue;
        }
        match config.set(&[(name, value)], Permission::Protected) {
            Ok(_) => before = values(&config),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                assert_eq!(values(&config), before);
            }
        }
    }
}
