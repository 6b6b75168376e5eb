//! The lines of CLIENT LIST, and the filters that choose among clients.

use std::io::Write;
use std::sync::atomic::Ordering;

use carnelian_commands::{CommandError, args};
use carnelian_resp::number::parse_i64;

use crate::clients::ClientShared;
use crate::registry::Registry;

/// `ClientShared::flags`: CLIENT NO-EVICT.
pub(super) const NO_EVICT: u32 = 1;
/// `ClientShared::flags`: CLIENT NO-TOUCH.
pub(super) const NO_TOUCH: u32 = 1 << 1;

/// What kind of client is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kinds {
    Normal,
    Primary,
    Replica,
    PubSub,
}

impl Kinds {
    pub(super) fn parse(word: &[u8]) -> Result<Self, CommandError> {
        let known = [
            ("normal", Self::Normal),
            ("master", Self::Primary),
            ("replica", Self::Replica),
            ("slave", Self::Replica),
            ("pubsub", Self::PubSub),
        ];
        known
            .into_iter()
            .find(|(name, _)| args::is(word, name))
            .map(|(_, kind)| kind)
            .ok_or_else(|| CommandError::quoting("ERR Unknown client type '", word, "'"))
    }
}

/// Which clients are meant. Every part that is given must hold.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) kinds: Option<Kinds>,
    pub(super) ids: Option<Vec<u64>>,
    pub(super) user: Option<Box<[u8]>>,
    pub(super) address: Option<Box<[u8]>>,
    pub(super) local_address: Option<Box<[u8]>>,
    /// Seconds.
    pub(super) age_min: Option<u64>,
    pub(super) skip_me: bool,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            kinds: None,
            ids: None,
            user: None,
            address: None,
            local_address: None,
            age_min: None,
            skip_me: true,
        }
    }
}

impl Filter {
    /// The options of CLIENT KILL.
    pub(super) fn parse(words: &[&[u8]]) -> Result<Self, CommandError> {
        let mut filter = Self::default();
        let (pairs, rest) = words.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(CommandError::Syntax);
        }
        for [option, value] in pairs {
            if args::is(option, "ID") {
                let id =
                    parse_i64(value).and_then(|id| u64::try_from(id).ok()).filter(|&id| id != 0);
                let id =
                    id.ok_or_else(|| CommandError::text("ERR client-id should be greater than 0"))?;
                filter.ids.get_or_insert_default().push(id);
            } else if args::is(option, "MAXAGE") {
                let age = parse_i64(value).ok_or_else(|| {
                    CommandError::text("ERR maxage is not an integer or out of range")
                })?;
                let age = u64::try_from(age).ok().filter(|&age| age != 0);
                filter.age_min =
                    Some(age.ok_or_else(|| {
                        CommandError::text("ERR maxage should be greater than 0")
                    })?);
            } else if args::is(option, "TYPE") {
                filter.kinds = Some(Kinds::parse(value)?);
            } else if args::is(option, "ADDR") {
                filter.address = Some((*value).into());
            } else if args::is(option, "LADDR") {
                filter.local_address = Some((*value).into());
            } else if args::is(option, "USER") {
                if *value != b"default" {
                    return Err(CommandError::quoting("ERR No such user '", value, "'"));
                }
                filter.user = Some((*value).into());
            } else if args::is(option, "SKIPME") {
                filter.skip_me = match () {
                    () if args::is(value, "YES") => true,
                    () if args::is(value, "NO") => false,
                    () => return Err(CommandError::Syntax),
                };
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(filter)
    }

    pub(super) fn matches(&self, client: &ClientShared, now_ms: u64) -> bool {
        let age = now_ms.saturating_sub(client.created_ms) / 1000;
        let kind = if client.is_subscriber() { Kinds::PubSub } else { Kinds::Normal };
        self.kinds.is_none_or(|kinds| kinds == kind)
            && self.ids.as_ref().is_none_or(|ids| ids.contains(&client.id))
            && self.address.as_ref().is_none_or(|a| **a == *client.address.as_bytes())
            && self.local_address.as_ref().is_none_or(|a| **a == *client.local_address.as_bytes())
            && self.age_min.is_none_or(|min| min <= age)
    }
}

/// One client's line, without the newline.
pub(crate) fn line(client: &ClientShared, registry: &Registry, now_ms: u64) -> Vec<u8> {
    let load = |figure: &std::sync::atomic::AtomicUsize| figure.load(Ordering::Relaxed);
    let seconds = |since_ms: u64| now_ms.saturating_sub(since_ms) / 1000;
    let names = client.names.lock().clone();
    let flags = client.flags.load(Ordering::Relaxed);
    let mut letters = String::new();
    if client.is_subscriber() {
        letters.push('P');
    }
    for (flag, letter) in [(NO_EVICT, 'e'), (NO_TOUCH, 'T')] {
        if flags & flag != 0 {
            letters.push(letter);
        }
    }
    if letters.is_empty() {
        letters.push('N');
    }
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
            " age={} idle={} flags={letters} db={} sub={} psub={} ssub={} multi=-1 watch=0 \
             qbuf={query} qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll={} omem={output} \
             tot-mem={} events=r cmd={command} user=",
            seconds(client.created_ms),
            seconds(client.last_interaction_ms.load(Ordering::Relaxed)),
            client.db.load(Ordering::Relaxed),
            load(&client.channels),
            load(&client.patterns),
            load(&client.sharded_channels),
            usize::from(output != 0),
            size_of::<ClientShared>() + output + query,
        ),
        user,
    );
    put(
        format_args!(" redir=-1 resp={} lib-name=", client.protocol.load(Ordering::Relaxed)),
        &names.library_name,
    );
    put(format_args!(" lib-ver="), &names.library_version);
    put(
        format_args!(
            " io-thread={} tot-net-in={} tot-net-out={} tot-cmds={}",
            client.reactor,
            client.net_input_bytes.load(Ordering::Relaxed),
            client.net_output_bytes.load(Ordering::Relaxed),
            client.commands.load(Ordering::Relaxed),
        ),
        b"",
    );
    out
}
