//! `redis.conf.example` tells the truth: it names every directive, and has the built-in values.

use std::collections::BTreeSet;
use std::path::Path;

use crate::directive::{Directive, DirectiveId, Status, When};
use crate::load::{FILE_ONLY, load_in};
use crate::table::Config;
use crate::words;

const EXAMPLE: &str = include_str!("../../../redis.conf.example");

/// Each directive of the file with the comment above it.
fn entries() -> Vec<(String, String)> {
    let mut entries = Vec::new();
    for paragraph in EXAMPLE.split("\n\n") {
        let (comments, lines): (Vec<&str>, Vec<&str>) =
            paragraph.lines().partition(|line| line.starts_with("# "));
        // A directive without a value that could stand there is in the comment's last line.
        let line = lines.iter().find(|line| !line.is_empty()).copied();
        let line = line.or(comments.last().and_then(|line| line.strip_prefix("# ")));
        let name = line.and_then(|line| words::split(line.as_bytes())?.into_iter().next());
        if let Some(name) = name {
            entries.push((String::from_utf8_lossy(&name).into_owned(), comments.join(" ")));
        }
    }
    entries
}

#[test]
fn the_example_names_every_directive_and_says_what_has_no_effect() {
    let entries = entries();
    let named: BTreeSet<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
    for directive in Directive::all() {
        assert_eq!(named.contains(directive.name), !directive.is_hidden(), "{}", directive.name);
    }
    assert!(FILE_ONLY.iter().all(|name| named.contains(name)));
    for (name, comment) in &entries {
        let Some(directive) = Directive::find(name.as_bytes()) else { continue };
        let mark = match (directive.status, directive.when) {
            (Status::Obeyed, When::AnyTime) => "# ",
            (Status::Later, When::AnyTime) => "# [later] ",
            (Status::Obeyed, When::StartOnly) => "# [start] ",
            (Status::Later, When::StartOnly) => "# [later, start] ",
        };
        assert!(comment.starts_with(mark), "{name} should begin with {mark}: {comment}");
        assert_eq!(comment.contains('['), mark.contains('['), "{name}");
        assert!(directive.aliases.iter().all(|alias| comment.contains(alias)), "{name}");
    }
}

#[test]
fn the_example_has_the_built_in_values() {
    let start = load_in(Path::new("/"), &["-".into()], &mut EXAMPLE.as_bytes())
        .expect("the example can be read");
    assert_eq!(start.config, Config { dir: "/".into(), ..Config::default() });
    assert_eq!(start.later, [""; 0]);
    for directive in Directive::all() {
        let given = start.given.contains(&directive.id);
        let expected = !directive.is_hidden() && directive.id != DirectiveId::replicaof;
        assert_eq!(given, expected, "{}", directive.name);
    }
}
