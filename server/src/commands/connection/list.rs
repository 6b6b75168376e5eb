//! The lines of CLIENT LIST.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::clients::{ClientShared, bits};
use crate::registry::Registry;

/// The letters of a client's flags, `N` if there are none.
pub(super) fn letters(client: &ClientShared) -> String {
    let mut letters = String::new();
    let is_queuing = 0 <= client.queued.load(Ordering::Relaxed);
    let is_blocked = client.waiter.lock().is_some() || client.has(bits::POSTPONED);
    for (is_set, letter) in [
        (client.has(bits::PRIMARY), 'M'),
        (client.has(bits::REPLICA), 'S'),
        (client.has(bits::MONITOR), 'O'),
        (client.is_subscriber(), 'P'),
        (is_queuing, 'x'),
        (is_blocked, 'b'),
        (client.has(bits::TRACKING), 't'),
        (client.has(bits::BROKEN_REDIRECT), 'R'),
        (client.has(bits::BCAST), 'B'),
        (client.has(bits::DIRTY), 'd'),
        (client.has(bits::CLOSE_AFTER_REPLY), 'c'),
        (client.has(bits::CLOSING), 'A'),
        (client.has(bits::UNIX_SOCKET), 'U'),
        (client.has(bits::NO_EVICT), 'e'),
        (client.has(bits::NO_TOUCH), 'T'),
    ] {
        if is_set {
            letters.push(letter);
        }
    }
    if letters.is_empty() {
        letters.push('N');
    }
    letters
}

/// One client's line, without the newline.
pub(crate) fn line(client: &ClientShared, registry: &Registry, now_ms: u64) -> Vec<u8> {
    let load = |figure: &AtomicUsize| figure.load(Ordering::Relaxed);
    let seconds = |since_ms: u64| now_ms.saturating_sub(since_ms) / 1000;
    let names = client.names.lock().clone();
    let command = client.last_command.load(Ordering::Relaxed) as usize;
    let command = registry.entries().get(command).map_or("NULL", |entry| &entry.full_name);
    let output = load(&client.output_bytes);
    let query = load(&client.query_bytes);
    let mut out = Vec::with_capacity(400);
    let user: &[u8] = if names.user.is_empty() { b"default" } else { &names.user };
    let mut put = |text: std::fmt::Arguments<'_>, bytes: &[u8]| {
        // Writing to a vector does not fail.
        let _ = out.write_fmt(text);
        out.extend_from_slice(bytes);
    };
    put(
        format_args!(
            "id={} addr={} laddr={} fd={} name=",
            client.id, client.address, client.local_address, client.file_descriptor
        ),
        &names.name,
    );
    put(
        format_args!(
            " age={} idle={} flags={} db={} sub={} psub={} ssub={} multi={} watch={} \
             qbuf={query} qbuf-free={} argv-mem={} multi-mem={} rbs={} rbp={} obl=0 oll={} \
             omem={output} tot-mem={} events={} cmd={command} user=",
            seconds(client.created_ms),
            seconds(client.last_interaction_ms.load(Ordering::Relaxed)),
            letters(client),
            client.db.load(Ordering::Relaxed),
            load(&client.channels),
            load(&client.patterns),
            load(&client.sharded_channels),
            client.queued.load(Ordering::Relaxed),
            load(&client.watched),
            load(&client.query_room),
            load(&client.argument_bytes),
            load(&client.queued_bytes),
            // Replies are made in the reactor's buffer: no client has one of its own, and there are no bytes in
            // it (`obl`). What a socket has yet to take is in pieces.
            0,
            load(&client.reply_bytes_peak),
            load(&client.output_pieces),
            client.memory(),
            if output == 0 { "r" } else { "rw" },
        ),
        user,
    );
    put(
        format_args!(
            " redir={} resp={} lib-name=",
            client.redirect(),
            client.protocol.load(Ordering::Relaxed)
        ),
        &names.library_name,
    );
    put(format_args!(" lib-ver="), &names.library_version);
    put(
        format_args!(
            " io-thread={} tot-net-in={} tot-net-out={} tot-cmds={} capa={}",
            client.reactor,
            client.net_input_bytes.load(Ordering::Relaxed),
            client.net_output_bytes.load(Ordering::Relaxed),
            client.commands.load(Ordering::Relaxed),
            // Valkey's field: behind those of Redis, whose order is looked for.
            if client.has(bits::CAPA_REDIRECT) { "r" } else { "" },
        ),
        b"",
    );
    out
}
