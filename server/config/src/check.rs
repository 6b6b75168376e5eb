//! Conditions on texts beyond their kind.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

type Checked = Result<(), &'static str>;

pub(crate) fn any(_: &str) -> Checked {
    Ok(())
}

fn is_base_name(text: &str) -> bool {
    !text.contains(['/', '\\'])
}

pub(crate) fn dump_name(text: &str) -> Checked {
    if is_base_name(text) { Ok(()) } else { Err("dbfilename can't be a path, just a filename") }
}

pub(crate) fn append_name(text: &str) -> Checked {
    match text {
        "" => Err("appendfilename can't be empty"),
        _ if is_base_name(text) => Ok(()),
        _ => Err("appendfilename can't be a path, just a filename"),
    }
}

pub(crate) fn append_folder(text: &str) -> Checked {
    match text {
        "" => Err("appenddirname can't be empty"),
        _ if is_base_name(text) => Ok(()),
        _ => Err("appenddirname can't be a path, just a dirname"),
    }
}

pub(crate) fn title_template(text: &str) -> Checked {
    const NAMES: [&str; 7] =
        ["title", "listen-addr", "server-mode", "port", "tls-port", "unixsocket", "config-file"];
    // `title` counts as empty here: the program's own name alone is not enough.
    let stand_in = |name: &str| {
        let known = NAMES.contains(&name);
        known.then(|| if name == "title" { String::new() } else { "x".into() })
    };
    match expand_title(text, stand_in) {
        Some(title) if !title.is_empty() => Ok(()),
        _ => Err("template format is invalid or contains unknown variables"),
    }
}

/// `proc-title-template` filled in, or `None` if a name is unknown or a brace is left open.
/// `{{` stands for a brace.
pub fn expand_title(template: &str, variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let mut title = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        title.push_str(before);
        if let Some(after) = after.strip_prefix('{') {
            title.push('{');
            rest = after;
        } else {
            let (name, after) = after.split_once('}')?;
            title.push_str(&variable(name)?);
            rest = after;
        }
    }
    title.push_str(rest);
    Some(title.trim_matches(' ').to_owned())
}

pub(crate) fn announced_hostname(text: &str) -> Checked {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    if text.len() >= 256 {
        Err("Hostnames must be less than 256 characters")
    } else if text.bytes().all(allowed) {
        Ok(())
    } else {
        Err("Hostnames may only contain alphanumeric characters, hyphens or dots")
    }
}

pub(crate) fn announced_nodename(text: &str) -> Checked {
    if text.contains(|letter| "!#$%&()*+:;<>?@[]^{|}~".contains(letter)) {
        Err("Announced human node name contained invalid character")
    } else {
        Ok(())
    }
}

pub(crate) fn ipv4(text: &str) -> Checked {
    let valid = text.is_empty() || text.parse::<Ipv4Addr>().is_ok();
    if valid { Ok(()) } else { Err("Invalid IPv4 address") }
}

pub(crate) fn ipv6(text: &str) -> Checked {
    let valid = text.is_empty() || text.parse::<Ipv6Addr>().is_ok();
    if valid { Ok(()) } else { Err("Invalid IPv6 address") }
}

/// What a certificate may carry as a name: an address, or a host name with an optional `*.`.
pub(crate) fn certificate_name(text: &str) -> Checked {
    let host = text.strip_prefix("*.").unwrap_or(text);
    let label = |label: &str| {
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len())
            && label.bytes().all(inside)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_name = host.len() < 254 && host.split('.').all(label);
    if text.parse::<IpAddr>().is_ok() || is_name {
        Ok(())
    } else {
        Err("names must be IP addresses or host names")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_must_not_be_paths() {
        assert!(dump_name("a/b").is_err() && dump_name("").is_ok());
        assert_eq!(append_name(""), Err("appendfilename can't be empty"));
        assert_eq!(append_folder("a/b"), Err("appenddirname can't be a path, just a dirname"));
    }

    #[test]
    fn title_templates_are_checked_and_filled_in() {
        for good in ["{title} {listen-addr} {server-mode}", "{{", "--x", "{port}}"] {
            assert!(title_template(good).is_ok(), "{good}");
        }
        for bad in ["", "{title}", "x{", "{zork}"] {
            assert!(title_template(bad).is_err(), "{bad}");
        }
        let port = |name: &str| (name == "port").then(|| "7".to_owned());
        assert_eq!(expand_title(" a{port}{{b} ", port).as_deref(), Some("a7{b}"));
    }

    #[test]
    fn names_and_addresses() {
        assert!(announced_hostname("a_b").is_err() && announced_hostname("a-b.c").is_ok());
        assert!(announced_nodename("a!").is_err() && announced_nodename("a b").is_ok());
        assert!(ipv4("1.2.3.4").is_ok() && ipv4("1").is_err() && ipv6("::1").is_ok());
        for good in ["127.0.0.1", "::1", "*.example.org", "localhost", "a_b.c"] {
            assert!(certificate_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a..b", "-a", "a b", "*.", "a/b", "é"] {
            assert!(certificate_name(bad).is_err(), "{bad}");
        }
    }
}
