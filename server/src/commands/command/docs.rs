//! COMMAND DOCS: commands as manuals and the hints of `redis-cli` tell of them.

use carnelian_commands::{CommandError, Effect};
use carnelian_resp::Writer;

use super::usage::{Argument, Kind, Usage, Usages};
use crate::commands::Context;
use crate::registry::{Entry, Registry};

/// `COMMAND DOCS [name ...]`
pub fn docs(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let registry = context.registry;
    let names = &context.args[2..];
    let entries: Vec<&Entry> = match names {
        [] => registry.visible().collect(),
        names => names.iter().filter_map(|name| registry.find_full(name)).collect(),
    };
    let usages = Usages::read();
    context.reply.map(entries.len());
    for entry in entries {
        write_command(&mut context.reply, registry, &usages, entry);
    }
    Ok(Effect::None)
}

fn write_command(reply: &mut Writer<'_>, registry: &Registry, usages: &Usages, entry: &Entry) {
    let usage = match usages.find(&entry.full_name) {
        Some(usage) => usage.expect("a test reads the usage of every command"),
        None => Usage::default(),
    };
    let flags: Vec<&str> =
        [(usage.deprecated.is_some(), "deprecated"), (usage.is_internal, "syscmd")]
            .into_iter()
            .filter_map(|(is_so, flag)| is_so.then_some(flag))
            .collect();
    let texts = [
        ("summary", entry.summary()),
        ("since", entry.since()),
        ("group", entry.group().name()),
        ("complexity", entry.complexity()),
    ];
    let fields = texts.len()
        + usize::from(!flags.is_empty())
        + 2 * usize::from(usage.deprecated.is_some())
        + usize::from(!usage.history.is_empty())
        + usize::from(!usage.arguments.is_empty())
        + usize::from(!entry.subcommands.is_empty());
    reply.bulk(entry.full_name.as_bytes());
    reply.map(fields);
    for (field, text) in texts {
        write_text(reply, field, text);
    }
    if !flags.is_empty() {
        write_flags(reply, "doc_flags", &flags);
    }
    if let Some(deprecated) = &usage.deprecated {
        write_text(reply, "deprecated_since", deprecated.since);
        write_text(reply, "replaced_by", deprecated.replaced_by);
    }
    if !usage.history.is_empty() {
        reply.bulk(b"history");
        reply.set(usage.history.len());
        for (version, news) in usage.history {
            reply.array(2);
            reply.bulk(version.as_bytes());
            reply.bulk(news.as_bytes());
        }
    }
    if !usage.arguments.is_empty() {
        write_arguments(reply, &usage.arguments);
    }
    if !entry.subcommands.is_empty() {
        reply.bulk(b"subcommands");
        reply.map(entry.subcommands.len());
        for &(_, id) in &entry.subcommands {
            write_command(reply, registry, usages, registry.entry(id));
        }
    }
}

fn write_arguments(reply: &mut Writer<'_>, arguments: &[Argument]) {
    reply.bulk(b"arguments");
    reply.array(arguments.len());
    for argument in arguments {
        write_argument(reply, argument);
    }
}

fn write_argument(reply: &mut Writer<'_>, argument: &Argument) {
    let inner = match &argument.kind {
        Kind::OneOf(inner) | Kind::Block(inner) => Some(inner),
        _ => None,
    };
    let flags: Vec<&str> = [
        (argument.is_optional, "optional"),
        (argument.may_repeat, "multiple"),
        (argument.repeats_token, "multiple_token"),
    ]
    .into_iter()
    .filter_map(|(is_so, flag)| is_so.then_some(flag))
    .collect();
    let display = argument.display.unwrap_or(&argument.name);
    let texts = [
        ("name", Some(&*argument.name)),
        ("type", Some(argument.kind.name())),
        // What is made of others has no text of its own.
        ("display_text", inner.is_none().then_some(display)),
    ];
    let further = [
        ("token", argument.token),
        ("since", argument.since),
        ("deprecated_since", argument.deprecated_since),
    ];
    let given =
        |texts: &[(&str, Option<&str>)]| texts.iter().filter(|(_, text)| text.is_some()).count();
    let fields = given(&texts)
        + usize::from(argument.key_spec.is_some())
        + given(&further)
        + usize::from(!flags.is_empty())
        + usize::from(inner.is_some());
    reply.map(fields);
    write_given(reply, &texts);
    if let Some(spec) = argument.key_spec {
        reply.bulk(b"key_spec_index");
        reply.integer(spec as i64);
    }
    write_given(reply, &further);
    if !flags.is_empty() {
        write_flags(reply, "flags", &flags);
    }
    if let Some(inner) = inner {
        write_arguments(reply, inner);
    }
}

fn write_given(reply: &mut Writer<'_>, texts: &[(&str, Option<&str>)]) {
    for (field, text) in texts {
        if let Some(text) = text {
            write_text(reply, field, text);
        }
    }
}

fn write_text(reply: &mut Writer<'_>, field: &str, text: &str) {
    reply.bulk(field.as_bytes());
    reply.bulk(text.as_bytes());
}

fn write_flags(reply: &mut Writer<'_>, field: &str, flags: &[&str]) {
    reply.bulk(field.as_bytes());
    reply.set(flags.len());
    for flag in flags {
        reply.simple(flag);
    }
}
