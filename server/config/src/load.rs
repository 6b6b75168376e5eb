//! Reading the configuration: a file, what it includes, standard input and the command line.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::directive::{Directive, DirectiveId, Status};
use crate::start::{Line, Start, StartError};
use crate::table::Config;
use crate::value::{Source, system_text};
use crate::{glob, words};

/// Names of earlier versions that mean nothing any more and are passed over.
pub(crate) const OBSOLETE: [&str; 5] = [
    "list-max-ziplist-entries",
    "list-max-ziplist-value",
    "lua-replicate-commands",
    "io-threads-do-reads",
    "events-per-io-thread",
];

/// Lines with these names stand in files only: they are no directives that have a value.
pub(crate) const FILE_ONLY: [&str; 5] =
    ["include", "rename-command", "user", "loadmodule", "sentinel"];

/// Deepest nesting of included files, and most of them in one start: a file may include itself.
const DEPTH_MAX: usize = 16;
const FILES_MAX: usize = 1000;
/// Longest file; a device that never ends must not fill the memory.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Reads what the arguments (without the program's name) ask for.
///
/// A first argument that does not begin with a dash is the file; `-` reads from `stdin` too;
/// the rest is read last, as lines that follow.
pub fn load(arguments: &[OsString], stdin: &mut dyn Read) -> Result<Start, StartError> {
    let working = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    load_in(&working, arguments, stdin)
}

pub(crate) fn load_in(
    working: &Path,
    arguments: &[OsString],
    stdin: &mut dyn Read,
) -> Result<Start, StartError> {
    let working = working.canonicalize().unwrap_or_else(|_| working.to_owned());
    let mut loader = Loader {
        start: Start {
            config: Config { dir: working.clone(), ..Config::default() },
            ..Start::default()
        },
        files: 0,
        depth: 0,
    };
    let mut arguments = arguments;
    let mut text = Vec::new();
    if let Some((first, rest)) = arguments.split_first()
        && !first.as_bytes().starts_with(b"-")
    {
        let path = working.join(first);
        text = loader.read(&path)?;
        loader.start.config_file = Some(path);
        arguments = rest;
    }
    let (arguments, from_stdin) = take_dashes(arguments, loader.start.config_file.is_none());
    if from_stdin {
        end_line(&mut text);
        read_all(stdin, &mut text).map_err(|reason| StartError::unreadable("-", reason))?;
    }
    let options = option_lines(arguments);
    if !options.is_empty() {
        text.push(b'\n');
        text.extend(options);
    }
    loader.lines(&text)?;
    loader.finish()
}

/// The arguments without the dashes that stand for standard input, and whether there was one. Such
/// a dash comes first of all or last.
fn take_dashes(mut arguments: &[OsString], is_start: bool) -> (&[OsString], bool) {
    let count = arguments.len();
    if let [first, rest @ ..] = arguments
        && is_start
        && first == "-"
    {
        arguments = rest;
    }
    if let [rest @ .., last] = arguments
        && last == "-"
    {
        arguments = rest;
    }
    (arguments, arguments.len() < count)
}

fn end_line(text: &mut Vec<u8>) {
    if text.last().is_some_and(|byte| *byte != b'\n') {
        text.push(b'\n');
    }
}

/// The arguments as lines of a configuration file.
///
/// A word that begins with two dashes opens a line, unless it comes directly after the name of
/// an option and is then its value. A word that holds name and value both is a line as it is.
fn option_lines(arguments: &[OsString]) -> Vec<u8> {
    let mut lines = Vec::new();
    let mut has_value = true;
    for (place, word) in arguments.iter().enumerate() {
        let word = word.as_bytes();
        let Some(name) = word.strip_prefix(b"--").filter(|_| has_value) else {
            lines.extend(words::quote(word));
            lines.push(b' ');
            has_value = true;
            continue;
        };
        if !lines.is_empty() {
            lines.push(b'\n');
        }
        lines.extend(name);
        lines.push(b' ');
        has_value = words::split(word).is_none_or(|words| words.len() != 1);
        // `--save` without a value is the one option that may stand alone.
        let next = arguments.get(place + 1).map(|word| word.as_bytes());
        let alone = next.is_none_or(|next| next.starts_with(b"--"));
        if name.eq_ignore_ascii_case(b"save") && alone {
            lines.extend(b"\"\"");
            has_value = true;
        }
    }
    lines
}

struct Loader {
    start: Start,
    files: usize,
    /// How many `include` lines we are inside of.
    depth: usize,
}

impl Loader {
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, StartError> {
        self.files += 1;
        if self.files > FILES_MAX {
            return Err(StartError::unreadable(path, "Too many files are included"));
        }
        let mut text = Vec::new();
        let mut file =
            std::fs::File::open(path).map_err(|e| StartError::unreadable(path, system_text(&e)))?;
        read_all(&mut file, &mut text).map_err(|reason| StartError::unreadable(path, reason))?;
        Ok(text)
    }

    fn lines(&mut self, text: &[u8]) -> Result<(), StartError> {
        for (place, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = trim(line);
            if line.is_empty() || line[0] == b'#' {
                continue;
            }
            let mut line = Line {
                number: place + 1,
                text: String::from_utf8_lossy(line).into_owned(),
                words: words::split(line).ok_or_else(|| {
                    let text = String::from_utf8_lossy(line).into_owned();
                    let line = Line { number: place + 1, text, words: Vec::new() };
                    line.error("Unbalanced quotes in configuration line")
                })?,
            };
            // Blanks of other kinds than those trimmed leave a line without words.
            let Some(name) = line.words.first_mut() else { continue };
            name.make_ascii_lowercase();
            self.line(line)?;
        }
        Ok(())
    }

    fn line(&mut self, line: Line) -> Result<(), StartError> {
        let name = line.words[0].as_slice();
        let count = line.words.len();
        if let Some(directive) = Directive::find(name) {
            return self.directive(directive, &line);
        }
        let is = |known: &str| known.as_bytes() == name;
        if OBSOLETE.iter().any(|known| is(known)) && count == 2 {
            return Ok(());
        }
        if is("include") && count == 2 {
            return self.include(&line);
        } else if is("rename-command") && count == 3 {
            self.start.renames.push(line);
        } else if is("user") && count >= 2 {
            self.user(line)?;
        } else if is("loadmodule") && count >= 2 {
            self.start.modules.push(line);
        } else if is("sentinel") {
            return Err(line.error("sentinel directive while not in sentinel mode"));
        } else if name.contains(&b'.') && count >= 2 {
            self.start.module_settings.push(line);
        } else {
            return Err(line.error("Bad directive or wrong number of arguments"));
        }
        Ok(())
    }

    fn directive(&mut self, directive: &Directive, line: &Line) -> Result<(), StartError> {
        let mut values = &line.words[1..];
        let split;
        if !directive.kind.is_list() && values.len() != 1 {
            return Err(line.error("wrong number of arguments"));
        }
        // The values of a list may come as one word with blanks.
        if let [value] = values
            && directive.kind.is_list()
            && !value.is_empty()
        {
            split = words::split(value)
                .ok_or_else(|| line.error("Unbalanced quotes in configuration line"))?;
            values = &split;
        }
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let first = self.start.given.insert(directive.id);
        let source = if first { Source::FirstLine } else { Source::LaterLine };
        let config = &mut self.start.config;
        config.assign(directive, &values, source).map_err(|reason| line.error(reason))?;
        if self.depth > 0 {
            config.included.insert(directive.id);
        }
        Ok(())
    }

    fn include(&mut self, line: &Line) -> Result<(), StartError> {
        if self.depth == DEPTH_MAX {
            return Err(line.error("Files include one another too deeply"));
        }
        let name = line.words[1].as_slice();
        let path = self.start.config.dir.join(OsStr::from_bytes(name));
        let mut text = Vec::new();
        if glob::is_pattern(name) {
            for path in glob::files(&path) {
                text.extend(self.read(&path)?);
                end_line(&mut text);
            }
        } else {
            text = self.read(&path)?;
        }
        self.depth += 1;
        self.lines(&text)?;
        self.depth -= 1;
        Ok(())
    }

    fn user(&mut self, line: Line) -> Result<(), StartError> {
        let name = &line.words[1];
        if self.start.users.iter().any(|other| other.words[1] == *name) {
            return Err(line.error(format!(
                "Error in user declaration '{}': Duplicate user found. A user can only be defined \
                 once in config files",
                String::from_utf8_lossy(name)
            )));
        }
        self.start.users.push(line);
        Ok(())
    }

    /// What can only be said once everything is read.
    fn finish(self) -> Result<Start, StartError> {
        let mut start = self.start;
        let config = &mut start.config;
        if config.cluster_enabled && config.replicaof.is_some() {
            return Err(StartError::whole("replicaof directive not allowed in cluster mode"));
        }
        if config.cluster_enabled && config.databases > 1 {
            start.warnings.push(format!(
                "WARNING: Changing databases number from {} to 1 since we are in cluster mode",
                config.databases
            ));
            config.databases = 1;
        }
        config.settle();
        start.later = later(&start);
        Ok(start)
    }
}

/// What was asked for and has no effect yet.
fn later(start: &Start) -> Vec<String> {
    let defaults = Config::default();
    let is_later = |id: &&DirectiveId| {
        let shown = start.config.shown(**id);
        id.directive().status == Status::Later && !shown.is_empty() && shown != defaults.shown(**id)
    };
    let mut names: Vec<String> =
        start.given.iter().filter(is_later).map(|id| id.name().to_owned()).collect();
    let lines = start.modules.iter().chain(&start.module_settings);
    let lines: BTreeSet<String> =
        lines.map(|line| String::from_utf8_lossy(&line.words[0]).into_owned()).collect();
    names.extend(lines);
    names
}

fn read_all(from: &mut dyn Read, text: &mut Vec<u8>) -> Result<(), String> {
    let count = from.take(FILE_BYTES_MAX + 1).read_to_end(text);
    match count {
        Ok(count) if count as u64 > FILE_BYTES_MAX => Err("File too large".into()),
        Ok(_) => Ok(()),
        Err(error) => Err(system_text(&error)),
    }
}

/// Without the blanks that Redis takes off a line.
pub(crate) fn trim(mut line: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..]
    | [rest @ .., b' ' | b'\t' | b'\r' | b'\n'] = line
    {
        line = rest;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Primary;
    use proptest::prelude::*;

    fn start_in(folder: &Path, arguments: &[&str], stdin: &str) -> Result<Start, String> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let start = load_in(folder, &arguments, &mut stdin.as_bytes());
        start.map_err(|error| error.report("8.0.6").to_string())
    }

    fn start(arguments: &[&str]) -> Result<Start, String> {
        start_in(Path::new("/"), arguments, "")
    }

    fn shown(start: &Start, name: &str) -> String {
        let values = start.config.get(&[name.as_bytes()]);
        String::from_utf8(values[0].1.clone()).unwrap()
    }

    fn block(line: &str, reason: &str) -> String {
        format!(
            "\n*** FATAL CONFIG FILE ERROR (Redis 8.0.6) ***\n\
             Reading the configuration file, at line 2\n>>> '{line}'\n{reason}\n"
        )
    }

    #[test]
    fn nothing_at_all_gives_the_defaults() {
        let start = start(&[]).unwrap();
        assert_eq!(start.config, Config { dir: "/".into(), ..Config::default() });
        assert_eq!(start.config_file, None);
        assert!(start.given.is_empty() && start.later.is_empty());
    }

    #[test]
    fn arguments_are_lines() {
        for (arguments, name, value) in [
            (&["--port", "7000"][..], "port", "7000"),
            (&["--PORT", "7000"], "port", "7000"),
            (&["--maxmemory 700mb"], "maxmemory", "734003200"),
            (&["--proc-title-template \"a b\"", "--port", "1"], "proc-title-template", "a b"),
            (&["--proc-title-template", "--x", "--port", "1"], "proc-title-template", "--x"),
            (&["--save"], "save", ""),
            (&["--save", ""], "save", ""),
            (&["--save", "--port", "1"], "save", ""),
            (&["--save", "100 100"], "save", "100 100"),
            (&["--save", "100", "100", "--save", "7", "8"], "save", "100 100 7 8"),
            (&["--bind", "127.0.0.1", "-::1"], "bind", "127.0.0.1 -::1"),
            (&["--bind", "127.0.0.1 -::1"], "bind", "127.0.0.1 -::1"),
            (&["--requirepass", "a b\n\"\u{e9}"], "requirepass", "a b\n\"\u{e9}"),
            (&["--port", "1", "--port", "2"], "port", "2"),
            (&["--slaveof", "host", "1"], "replicaof", "host 1"),
            (&["--unixsocketperm", "0700"], "unixsocketperm", "700"),
            (&["--shutdown-on-sigterm", "force nosave"], "shutdown-on-sigterm", "nosave force"),
        ] {
            let start = start(arguments).unwrap();
            assert_eq!(shown(&start, name), value, "{arguments:?}");
        }
    }

    #[test]
    fn errors_are_redis_blocks() {
        for (arguments, line, reason) in [
            (&["--port"][..], "port", "wrong number of arguments"),
            (&["--port", "1", "2"], r#"port "1" "2""#, "wrong number of arguments"),
            (&["--port", "abc"], r#"port "abc""#, "argument couldn't be parsed into an integer"),
            (&["--port \"1"], "port \"1", "Unbalanced quotes in configuration line"),
            (&["--zork", "1"], r#"zork "1""#, "Bad directive or wrong number of arguments"),
            (&["--include"], "include", "Bad directive or wrong number of arguments"),
            (
                &["--loglevel", "bad"],
                r#"loglevel "bad""#,
                "argument(s) must be one of the following: debug, verbose, notice, warning, \
                 nothing",
            ),
            (&["--replicaof", "h", "99999"], r#"replicaof "h" "99999""#, "Invalid master port"),
            (&["--dir", "/no/such"], r#"dir "/no/such""#, "No such file or directory"),
            (
                &["--sentinel", "x", "y"],
                r#"sentinel "x" "y""#,
                "sentinel directive while not in sentinel mode",
            ),
            (
                &["--oom-score-adj-values", "1"],
                r#"oom-score-adj-values "1""#,
                "wrong number of arguments",
            ),
        ] {
            assert_eq!(start(arguments).unwrap_err(), block(line, reason), "{arguments:?}");
        }
        assert_eq!(
            start(&["--cluster-enabled", "yes", "--replicaof", "a", "1"]).unwrap_err(),
            "\n*** FATAL CONFIG FILE ERROR (Redis 8.0.6) ***\n\
             replicaof directive not allowed in cluster mode\n"
        );
        let twice = start(&["--user", "alice", "on", "--user", "alice", "off"]).unwrap_err();
        assert!(twice.contains("at line 3\n>>> 'user \"alice\" \"off\"'\nError in user decl"));
        assert_eq!(
            start(&["no-such.conf"]).unwrap_err(),
            "Fatal error, can't open config file '/no-such.conf': No such file or directory\n"
        );
    }

    #[test]
    fn a_file_then_stdin_then_options() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        std::fs::write(
            path.join("c.conf"),
            "# comment\n\n  PORT 1\r\ntimeout 1\nhz 1\nsave 1 1\nsave 2 2\nlogfile ''",
        )
        .unwrap();
        let start = start_in(&path, &["c.conf", "--hz", "3", "-"], "timeout 2\nhz 2").unwrap();
        assert_eq!(start.config_file, Some(path.join("c.conf")));
        let config = &start.config;
        assert_eq!((config.port, config.timeout, config.hz), (1, 2, 3));
        assert_eq!(shown(&start, "save"), "1 1 2 2");
        assert!(start.given.contains(&DirectiveId::logfile));
        let error = start_in(&path, &["c.conf", "loglevel", "x"], "").unwrap_err();
        assert!(error.contains("at line 9\n>>> '\"loglevel\" \"x\"'"), "{error}");
        let start = start_in(&path, &["-", "--hz", "3"], "hz 2\ntimeout 5").unwrap();
        assert_eq!((start.config.hz, start.config.timeout), (3, 5));
    }

    #[test]
    fn files_include_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        let write = |name: &str, text: &str| {
            let file = path.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        write("main", "port 1\ninclude sub/*.conf\ninclude none*\ndir sub\ninclude last\nhz 9");
        write("sub/1.conf", "port 2\ntimeout 2");
        write("sub/2.conf", "timeout 3");
        write("sub/last", "maxclients 7");
        let start = start_in(&path, &["main"], "").unwrap();
        let config = &start.config;
        assert_eq!((config.port, config.timeout, config.hz, config.maxclients), (2, 3, 9, 7));
        assert_eq!(config.dir, path.join("sub"));

        write("loop", "include loop\ninclude loop");
        let error = start_in(&path, &["loop"], "").unwrap_err();
        assert!(error.contains("Files include one another too deeply"), "{error}");
        write("missing", "include nowhere");
        let error = start_in(&path, &["missing"], "").unwrap_err();
        assert!(error.contains("nowhere': No such file or directory"), "{error}");
    }

    #[test]
    fn reports_what_has_no_effect_yet() {
        let start = start(&[
            "--mptcp",
            "yes",
            "--rdbcompression",
            "yes",
            "--save",
            "",
            "--port",
            "1",
            "--user",
            "alice",
            "--loadmodule",
            "/x",
            "1",
        ])
        .unwrap();
        assert_eq!(start.later, ["mptcp", "loadmodule"]);
        assert_eq!(start.modules[0].words[1..], [b"/x".to_vec(), b"1".to_vec()]);
    }

    #[test]
    fn reads_all_that_adds_up_and_passes_over_what_is_obsolete() {
        let lines = [
            "rename-command FLUSHALL ''",
            "rename-command GET get2",
            "lua-replicate-commands no",
            "client-output-buffer-limit normal 1 2 3",
            "client-output-buffer-limit pubsub 4 5 6",
            "replicaof a 1",
            "replicaof no one",
            "primaryauth x",
            "lua-time-limit 7",
        ];
        let start = start_in(Path::new("/"), &["-"], &lines.join("\n")).unwrap();
        assert_eq!(start.renames.len(), 2);
        assert_eq!(start.renames[1].number, 2);
        assert_eq!(start.config.client_output_buffer_limit.normal.hard_bytes, 1);
        assert_eq!(start.config.client_output_buffer_limit.pubsub.soft_seconds, 6);
        assert_eq!(start.config.replicaof, None::<Primary>);
        assert_eq!(start.config.masterauth, b"x");
        assert_eq!(start.config.busy_reply_threshold, 7);
    }

    proptest! {
        #[test]
        fn random_text_never_panics(text: Vec<u8>) {
            let _ = load_in(Path::new("/"), &["-".into()], &mut text.as_slice());
        }

        #[test]
        fn random_values_never_panic(
            place in 0..Directive::all().len(),
            value in r#"[-0-9a-zA-Z "'%\\.]{0,40}"#,
        ) {
            let line = format!("{} {value}", Directive::all()[place].name);
            let _ = load_in(Path::new("/"), &["-".into()], &mut line.as_bytes());
        }

        #[test]
        fn random_arguments_never_panic(arguments: Vec<String>) {
            let mut arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            arguments.insert(0, "--port".into());
            let _ = load_in(Path::new("/"), &arguments, &mut std::io::empty());
        }
    }
}
