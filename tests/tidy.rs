//! What compiler and lints do not check: module docs, where `unsafe` may be, who may depend on whom.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

/// Which crates of ours each crate may depend on; a crate that is not here may depend on any.
///
/// What is absent is the point: `tls` knows no key, `replication` no command, `keyspace` no protocol.
const DEPENDENCIES: &[(&str, &[&str])] = &[
    ("resp", &[]),
    ("structs", &[]),
    ("config", &[]),
    ("tls", &[]),
    ("keyspace", &["structs"]),
    ("commands", &["resp", "keyspace", "structs"]),
    ("persistence", &["structs", "keyspace", "resp"]),
    ("replication", &["resp", "tls"]),
    ("scripting", &["persistence", "resp"]),
    ("cluster", &["tls"]),
    ("admin", &["tls", "cluster"]),
    ("ctl", &["tls"]),
];

/// Crates that stand on top of all others.
const TOP: &[&str] = &["server", "tests", "benches", "fuzz"];

/// Where `unsafe` may be: one crate, whose modules opt in one by one, the allocator, and Lua's stack.
const UNSAFE: &[&str] =
    &["server/structs/src/", "server/src/allocator.rs", "server/scripting/src/raw"];

#[test]
fn every_file_says_what_it_is_for() {
    let undocumented: Vec<_> =
        sources().into_iter().filter(|source| !source.text.starts_with("//!")).collect();
    report(undocumented.iter().map(|source| format!("{}: begins without `//!`", source.path)));
}

#[test]
fn unsafe_code_is_where_it_belongs() {
    let mut found = Vec::new();
    for source in sources() {
        if UNSAFE.iter().any(|place| source.path.starts_with(place)) {
            continue;
        }
        for (number, line) in code(&source.text).lines().enumerate() {
            if words(line).any(|word| word == "unsafe") {
                found.push(format!("{}:{}: unsafe", source.path, number + 1));
            }
        }
    }
    report(found);
}

#[test]
fn libraries_forbid_unsafe_code_at_their_root() {
    let mut found = Vec::new();
    for manifest in manifests() {
        let root = format!("{}src/lib.rs", manifest.folder);
        let Ok(text) = fs::read_to_string(top().join(&root)) else { continue };
        // Those that need some deny it, so that each module has to opt in.
        let needs_some = ["structs", "server", "scripting"].contains(&manifest.name.as_str());
        let word = if needs_some { "deny" } else { "forbid" };
        if !text.contains(&format!("#![{word}(unsafe_code)]")) {
            found.push(format!("{root}: does not {word} unsafe code"));
        }
    }
    report(found);
}

#[test]
fn dependencies_point_the_right_way() {
    let mut found = Vec::new();
    for manifest in manifests() {
        let name = manifest.name.as_str();
        if TOP.contains(&name) {
            continue;
        }
        let Some((_, allowed)) = DEPENDENCIES.iter().find(|(known, _)| *known == name) else {
            found.push(format!("{name}: say in tests/tidy.rs what it may depend on"));
            continue;
        };
        let wrong = manifest.dependencies.iter().filter(|other| !allowed.contains(&other.as_str()));
        found.extend(wrong.map(|other| format!("{name} depends on {other}")));
    }
    report(found);
}

#[test]
fn the_table_of_dependencies_has_no_circle() {
    for (place, (name, allowed)) in DEPENDENCIES.iter().enumerate() {
        let earlier: Vec<_> = DEPENDENCIES[..place].iter().map(|(name, _)| *name).collect();
        assert!(allowed.iter().all(|other| earlier.contains(other)), "{name} comes too early");
    }
}

#[test]
fn no_test_is_ignored_without_a_reason() {
    let mut found = Vec::new();
    for source in sources() {
        for (number, line) in code(&source.text).lines().enumerate() {
            let line: String = line.split_whitespace().collect();
            if line.contains(concat!("#[", "ignore]")) || line.contains(",ignore)]") {
                found.push(format!("{}:{}: ignored without a reason", source.path, number + 1));
            }
        }
    }
    report(found);
}

#[test]
fn what_a_newcomer_looks_for_is_there() {
    let names = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE", "redis.conf.example"];
    let missing = names.into_iter().filter(|name| !top().join(name).is_file());
    report(missing.map(|name| format!("{name}: missing")));
}

#[track_caller]
fn report(found: impl IntoIterator<Item = String>) {
    let found: Vec<String> = found.into_iter().collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

struct Source {
    /// From the top of the workspace.
    path: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let sources: Vec<_> = files(|name| name.ends_with(".rs")).collect();
    assert!(50 < sources.len(), "there is more to look at than that");
    sources
}

/// What a `Cargo.toml` says of a crate of ours.
struct Manifest {
    /// From the top of the workspace, with a slash at the end.
    folder: String,
    /// Without `carnelian-`.
    name: String,
    dependencies: Vec<String>,
}

fn manifests() -> Vec<Manifest> {
    let manifests: Vec<_> =
        files(|name| name == "Cargo.toml").filter_map(|source| manifest(&source)).collect();
    assert!(5 < manifests.len(), "there is more to look at than that");
    manifests
}

/// Dependencies of every kind: of the build, of tests, and for one platform. None for the workspace's own.
fn manifest(source: &Source) -> Option<Manifest> {
    let mut name = None;
    let mut dependencies = Vec::new();
    let mut section = "";
    for line in source.text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
            // `[dependencies.carnelian-tls]`
            let (kind, of) = section.rsplit_once('.').unwrap_or((section, ""));
            if kind.ends_with("dependencies") {
                dependencies.extend(of.strip_prefix("carnelian-").map(str::to_owned));
            }
        } else if section == "package"
            && let Some(value) = line.strip_prefix("name = ")
        {
            name = value.trim_matches('"').strip_prefix("carnelian-").map(str::to_owned);
        } else if section.ends_with("dependencies")
            && let Some(line) = line.strip_prefix("carnelian-")
        {
            let end = line.find(['.', ' ', '=']).unwrap_or(line.len());
            dependencies.push(line[..end].to_owned());
        }
    }
    let folder = source.path.trim_end_matches("Cargo.toml").to_owned();
    Some(Manifest { folder, name: name?, dependencies })
}

/// Files of this workspace by their name; what is built, or hidden, is left out.
fn files(wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = Source> {
    let (top, mut found) = (top(), Vec::new());
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(top.join(&folder)).expect("the workspace can be read") {
            let entry = entry.expect("the workspace can be read");
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = folder.join(&name);
            let is_folder = entry.file_type().expect("the workspace can be read").is_dir();
            if name.starts_with('.') || is_folder && ["target", "corpus"].contains(&name.as_str()) {
                continue;
            }
            if is_folder {
                folders.push(path);
            } else if wanted(&name) {
                let text = fs::read_to_string(top.join(&path)).expect("sources are text");
                found.push(Source { path: path.to_string_lossy().into_owned(), text });
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found.into_iter()
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// A source without its comments, texts and characters; lines stay where they are.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let inside_word = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => quoted(rest),
            'r' if !inside_word => raw(rest),
            'b' if !inside_word && rest.starts_with("br") => match raw(&rest[1..]) {
                0 => 0,
                length => 1 + length,
            },
            '\'' => character(rest),
            _ => 0,
        };
        if length == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.push(' ');
            code.extend(rest[..length].chars().filter(|c| *c == '\n'));
            rest = &rest[length..];
        }
    }
    code
}

/// The length of a comment that may hold others.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of a text in quotes.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a raw text; 0 if it is none.
fn raw(text: &str) -> usize {
    let hashes = text[1..].bytes().take_while(|byte| *byte == b'#').count();
    let Some(body) = text[1 + hashes..].strip_prefix('"') else { return 0 };
    let end = format!("\"{}", "#".repeat(hashes));
    body.find(&end).map_or(text.len(), |at| 2 + hashes + at + end.len())
}

/// The length of a character in quotes; 0 if the quote begins a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text[3..].find('\'').map_or(0, |at| 3 + at + 1),
        Some((at, c)) if text[at + c.len_utf8()..].starts_with('\'') => at + c.len_utf8() + 1,
        _ => 0,
    }
}

#[test]
fn code_is_told_from_comments_and_texts() {
    let text = r##"a "b \" c" 'd' '\'' b'e' <'f> // g
h /* i /* j */
k */ l r#"m " n"# br"o" 'p'"##;
    let found: Vec<_> = code(text).lines().map(|line| words(line).collect::<String>()).collect();
    assert_eq!(found, ["abf", "h", "l"]);
}

#[test]
fn dependencies_of_every_form_are_found() {
    let text = "[package]\nname = \"carnelian-a\"\n[dependencies]\ncarnelian-b.workspace = true\n\
        carnelian-c = { path = \"../c\" }\n[dev-dependencies]\ncarnelian-d.workspace = true\n\
        [target.'cfg(unix)'.dependencies.carnelian-e]\nworkspace = true\n[lib]\ncarnelian-f = 1";
    let source = Source { path: "server/a/Cargo.toml".into(), text: text.into() };
    let found = manifest(&source).expect("it is a crate");
    assert_eq!((found.folder.as_str(), found.name.as_str()), ("server/a/", "a"));
    assert_eq!(found.dependencies, ["b", "c", "d", "e"]);
}
