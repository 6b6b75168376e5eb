//! What replicas ask of their primary, and what tells of both.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use carnelian_commands::{Categories, CommandError, Effect, Flags, args};
use carnelian_replication::Id;

use crate::clients::bits;
use crate::commands::{Context, command};
use crate::database::Database;
use crate::log;
use crate::registry::ServerCommand;
use crate::replication::failover::Failover;
use crate::replication::feed::{Attached, Introduction, Parts, Replica, Start};
use crate::replication::gate;
use crate::session::ClientClass;

/// Longer names of hosts are refused.
const HOST_BYTES: usize = 255;

const SYNC: Flags =
    Flags::ADMIN.union(Flags::NO_ASYNC_LOADING).union(Flags::NO_MULTI).union(Flags::NOSCRIPT);

pub const TABLE: &[ServerCommand] = &[
    command(
        "failover",
        "Changes places with a replica.",
        "6.2.0",
        -1,
        Flags::ADMIN.union(Flags::NOSCRIPT).union(Flags::STALE),
        failover,
    ),
    command("psync", "Asks for the data, or for what has changed since.", "2.8.0", -3, SYNC, psync),
    command(
        "replconf",
        "Tells of a replica.",
        "3.0.0",
        -1,
        Flags::ADMIN
            .union(Flags::ALLOW_BUSY)
            .union(Flags::LOADING)
            .union(Flags::NOSCRIPT)
            .union(Flags::STALE),
        replconf,
    ),
    ServerCommand {
        categories: Categories::ADMIN.union(Categories::DANGEROUS),
        ..command(
            "role",
            "Tells the server's part in replication.",
            "2.8.12",
            1,
            Flags::FAST.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
            role,
        )
    },
    command("sync", "Asks for the data.", "1.0.0", 1, SYNC, sync),
];

/// `ROLE`: a primary, its offset, its replicas; or a replica and its primary.
fn role(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let database = Arc::clone(&context.session.database);
    if let Some(following) = database.replication.following.load_full() {
        following.write_role(&database, &mut context.reply);
        return Ok(Effect::None);
    }
    let replicas = database.replication.primary.listed();
    let online: Vec<_> = replicas.iter().filter(|replica| replica.is_online()).collect();
    let reply = &mut context.reply;
    reply.array(3);
    reply.bulk(b"master");
    reply.integer(database.log.end() as i64);
    reply.array(online.len());
    for replica in online {
        reply.array(3);
        reply.bulk(replica.host().as_bytes());
        reply.bulk(replica.introduction.port.to_string().as_bytes());
        reply.bulk(replica.acknowledged().to_string().as_bytes());
    }
    Ok(Effect::None)
}

/// `REPLCONF option value [option value ...]`
fn replconf(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let words = &context.args[1..];
    if !words.len().is_multiple_of(2) {
        return Err(CommandError::Syntax);
    }
    let pairs: Vec<_> = words.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    for (place, &(option, value)) in pairs.iter().enumerate() {
        if args::is(option, "ACK") {
            let more = pairs.get(place + 1).filter(|(option, _)| args::is(option, "FACK"));
            acknowledge(context, value, more.map(|(_, value)| *value));
            return Ok(Effect::None);
        }
        if args::is(option, "GETACK") {
            // For the one that this database follows to say, and answered behind the batch.
            if let Some(link) = &mut context.session.primary {
                link.wants_ack = true;
            }
            return Ok(Effect::None);
        }
        introduce(context, option, value)?;
    }
    context.reply.ok();
    Ok(Effect::None)
}

/// Takes what a replica says of itself before it asks for data.
fn introduce(context: &mut Context<'_>, option: &[u8], value: &[u8]) -> Result<(), CommandError> {
    let session = &mut *context.session;
    let introduction = session.introduction.get_or_insert_default();
    if args::is(option, "LISTENING-PORT") {
        // Redis takes any number; no port is above this.
        introduction.port = u16::try_from(args::integer(value)?).unwrap_or(0);
    } else if args::is(option, "IP-ADDRESS") {
        if HOST_BYTES < value.len() {
            return Err(CommandError::text(format!(
                "ERR REPLCONF ip-address provided by replica instance is too long: {} bytes",
                value.len()
            )));
        }
        // It is shown in lines of text.
        let text = String::from_utf8_lossy(value).replace(|c: char| c.is_control(), "?");
        introduction.address = (!text.is_empty()).then(|| text.into());
    } else if args::is(option, "CAPA") {
        introduction.finds_end |= args::is(value, "EOF");
        introduction.knows_names |= args::is(value, "PSYNC2");
        let config = session.database.config();
        let offers = &mut introduction.offers;
        let takes = config.repl_diskless_sync;
        offers.rdb_channel |=
            takes && config.repl_rdb_channel && args::is(value, "RDB-CHANNEL-REPL");
        offers.dual_channel |=
            takes && config.dual_channel_replication_enabled && args::is(value, "DUAL-CHANNEL");
    } else if args::is(option, "RDB-ONLY") {
        introduction.snapshot_only = yes_or_no(value)?;
    } else if args::is(option, "RDB-CHANNEL") {
        introduction.is_channel = yes_or_no(value)?;
    } else if args::is(option, "MAIN-CH-CLIENT-ID") {
        let id = args::integer(value)?;
        let primary = &session.database.replication.primary;
        introduction.stream = u64::try_from(id).ok().filter(|id| primary.awaits_channel(*id));
        if introduction.stream.is_none() {
            return Err(CommandError::text(format!("ERR Unrecognized RDB client id: {id}")));
        }
    } else if args::is(option, "SET-RDB-CLIENT-ID") {
        let id = args::integer(value)?;
        let primary = &session.database.replication.primary;
        introduction.snapshot = u64::try_from(id).ok().filter(|id| primary.holds_for(*id));
        if introduction.snapshot.is_none() {
            return Err(CommandError::text(format!("ERR Unrecognized RDB client id {id}")));
        }
    } else if args::is(option, "RDB-FILTER-ONLY") {
        introduction.parts = filter(value)?;
    } else if !args::is(option, "VERSION") {
        let option = &option[..option.len().min(128)];
        return Err(CommandError::quoting("ERR Unrecognized REPLCONF option: ", option, ""));
    }
    Ok(())
}

fn yes_or_no(value: &[u8]) -> Result<bool, CommandError> {
    match args::integer(value)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(CommandError::text("ERR value is out of range, value must between 0 and 1")),
    }
}

/// What is left of a snapshot by a filter: nothing but what it names.
fn filter(value: &[u8]) -> Result<Parts, CommandError> {
    let mut parts = Parts { data: false, functions: false };
    for word in value.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
        if !args::is(word, "FUNCTIONS") {
            let word = &word[..word.len().min(128)];
            return Err(CommandError::quoting(
                "ERR Unsupported rdb-filter-only option: ",
                word,
                "",
            ));
        }
        parts.functions = true;
    }
    Ok(parts)
}

/// A replica says how far it has come. Nothing is replied, whatever it says.
fn acknowledge(context: &mut Context<'_>, offset: &[u8], on_disk: Option<&[u8]>) {
    let Some(attached) = &context.session.attached else { return };
    let number = |word| args::integer(word).ok().and_then(|number| u64::try_from(number).ok());
    let Some(offset) = number(offset) else { return };
    let replica = Arc::clone(&attached.replica);
    let database = &context.session.database;
    let now_ms = context.worker.clock.now_ms();
    // From the future: nothing is believed that cannot be.
    let end = database.log.end();
    let on_disk = on_disk.and_then(number).map(|on_disk| on_disk.min(end));
    replica.acknowledge(offset.min(end), on_disk, now_ms);
    if let Some(peer) = &context.session.peer {
        peer.note(offset.min(end));
    }
    let replication = &database.replication;
    if !replication.primary.waits.is_empty() {
        replication.primary.waits.settle(database);
    }
    if replication.gate() & gate::LACKING != 0 {
        replication.primary.judge(database);
    }
}

/// `PSYNC replicationid offset [FAILOVER]`
fn psync(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    if context.session.attached.is_some() {
        return Ok(Effect::None);
    }
    let [_, id, offset, more @ ..] = context.args else { return Err(CommandError::Syntax) };
    let database = Arc::clone(&context.session.database);
    if more.first().is_some_and(|word| args::is(word, "FAILOVER")) {
        take_over(context, &database, id)?;
    }
    check_synchronization(context, &database)?;
    let Ok(offset) = args::integer(offset) else {
        log::warning!(
            "Replica {} asks for synchronization but with a wrong offset",
            name_of(context)
        );
        return Err(CommandError::NotAnInteger);
    };
    let primary = &database.replication.primary;
    // No more is offered than the configuration has kept since it was last changed.
    primary.resize_backlog(&database, &context.worker.server.config());
    if go_on(context, &database, id, offset) {
        primary.partial.fetch_add(1, Ordering::Relaxed);
        return Ok(Effect::None);
    }
    if !id.starts_with(b"?") {
        primary.partial_refused.fetch_add(1, Ordering::Relaxed);
    }
    if !invite_channel(context, &database) {
        begin_anew(context, &database, false);
    }
    Ok(Effect::None)
}

/// Has a replica that can do so fetch its snapshot over another connection. False if it cannot.
fn invite_channel(context: &mut Context<'_>, database: &Arc<Database>) -> bool {
    let introduction = context.session.introduction.get_or_insert_default();
    // A connection for a snapshot, or for a part of one, is one already.
    if introduction.is_channel || introduction.snapshot_only {
        return false;
    }
    let offers = introduction.offers;
    if !offers.rdb_channel && !offers.dual_channel {
        return false;
    }
    log::notice!(
        "Replica {} is capable of rdb channel synchronization, and partial sync isn't possible. \
         Full sync will continue with dedicated rdb channel.",
        name_of(context)
    );
    if offers.rdb_channel {
        let greeting = format!("+RDBCHANNELSYNC {}\r\n", context.session.shared.id);
        attach(context, database, false, Start::Beside, Some(greeting));
    } else {
        // It comes again on this connection.
        introduction_of(context).snapshot = None;
        context.reply.simple("DUALCHANNELSYNC");
    }
    true
}

fn introduction_of<'c>(context: &'c mut Context<'_>) -> &'c mut Introduction {
    context.session.introduction.get_or_insert_default()
}

/// `SYNC`: as replicas asked before there was PSYNC, and redis-cli.
fn sync(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    if context.session.attached.is_some() {
        return Ok(Effect::None);
    }
    let database = Arc::clone(&context.session.database);
    check_synchronization(context, &database)?;
    let is_channel = introduction_of(context).is_channel;
    begin_anew(context, &database, !is_channel);
    Ok(Effect::None)
}

/// The primary that this database follows wants it to take its place.
fn take_over(
    context: &mut Context<'_>,
    database: &Arc<Database>,
    id: &[u8],
) -> Result<(), CommandError> {
    log::notice!("Failover request received for replid {}.", String::from_utf8_lossy(id));
    if !database.replication.is_replica() {
        return Err(CommandError::text("ERR PSYNC FAILOVER can't be sent to a master."));
    }
    if !id.eq_ignore_ascii_case(database.replication.history.lock().id().as_bytes()) {
        return Err(CommandError::text("ERR PSYNC FAILOVER replid must match my replid."));
    }
    crate::replication::follow_nobody(database);
    log::notice!(
        "MASTER MODE enabled (failover request from '{}')",
        context.session.shared.address
    );
    Ok(())
}

fn check_synchronization(
    context: &mut Context<'_>,
    database: &Database,
) -> Result<(), CommandError> {
    let replication = &database.replication;
    if replication.primary.failover.lock().is_on() {
        return Err(CommandError::text("NOMASTERLINK Can't SYNC while failing over"));
    }
    if replication.is_replica() && replication.gate() & gate::LINK_DOWN != 0 {
        return Err(CommandError::text(
            "NOMASTERLINK Can't SYNC while not connected with my master",
        ));
    }
    let introduction = context.session.introduction.get_or_insert_default();
    if introduction.parts != Parts::default() && !introduction.finds_end {
        return Err(CommandError::text("ERR Filtered replica requires EOF capability"));
    }
    log::notice!("Replica {} asks for synchronization", name_of(context));
    Ok(())
}

/// What the log calls the client as a replica.
fn name_of(context: &Context<'_>) -> String {
    let introduction = context.session.introduction.as_deref().cloned().unwrap_or_default();
    let client = Arc::clone(&context.session.shared);
    Replica::new(client, introduction, false, Start::Waiting).name()
}

/// Lets a replica go on from where it was, if what it needs is still there.
fn go_on(context: &mut Context<'_>, database: &Database, id: &[u8], offset: i64) -> bool {
    let name = name_of(context);
    let history = database.replication.history.lock();
    // It asks for a byte by its number, from 1 on.
    let next = u64::try_from(offset).ok().and_then(|offset| offset.checked_sub(1));
    let asked = Id::parse(id.to_ascii_lowercase().as_slice());
    let fits = asked.zip(next).is_some_and(|(id, next)| history.may_continue(id, next));
    if !fits {
        if id.starts_with(b"?") {
            log::notice!("Full resync requested by replica {name}");
        } else {
            let previous = history.previous();
            log::notice!(
                "Partial resynchronization not accepted: Replication ID mismatch or offset beyond \
                 what is shared (Replica asked for '{}' from {offset} on, my replication IDs are \
                 '{}' and '{}' up to {})",
                String::from_utf8_lossy(&id[..id.len().min(Id::LEN)]),
                history.id(),
                previous.map_or("0".repeat(Id::LEN), |(id, _)| id.to_string()),
                previous.map_or(0, |(_, end)| end + 1)
            );
        }
        return false;
    }
    let client = context.session.shared.id;
    let mailboxes = &context.worker.server.mailboxes;
    let next = next.unwrap_or(0);
    let Ok(lag) = database.log.attach(client, next, mailboxes) else {
        log::notice!(
            "Unable to partial resync with replica {name} for lack of backlog (Replica request \
             was: {offset})."
        );
        if database.log.end() < next {
            log::warning!(
                "Warning: replica {name} tried to PSYNC with an offset that is greater than the \
                 master replication offset."
            );
        }
        return false;
    };
    if let Some(peer) = &context.session.peer {
        peer.note(next);
    }
    let knows_names = context.session.introduction.as_ref().is_some_and(|it| it.knows_names);
    let greeting = match knows_names {
        true => format!("+CONTINUE {}\r\n", history.id()),
        false => "+CONTINUE\r\n".into(),
    };
    drop(history);
    let snapshot = context.session.introduction.as_ref().and_then(|it| it.snapshot);
    let primary = &database.replication.primary;
    let start = match snapshot {
        Some(channel) if primary.take_hold(database, channel, client) => Start::Streaming,
        _ => Start::Online,
    };
    attach(context, database, false, start, Some(greeting));
    log::notice!(
        "Partial resynchronization request from {name} accepted. Sending {lag} bytes of backlog \
         starting from offset {offset}."
    );
    primary.judge(database);
    true
}

/// Has a replica wait for a snapshot.
fn begin_anew(context: &mut Context<'_>, database: &Arc<Database>, is_old: bool) {
    let primary = &database.replication.primary;
    primary.full.fetch_add(1, Ordering::Relaxed);
    attach(context, database, is_old, Start::Waiting, None);
    let server = &context.worker.server;
    if primary.is_syncing.load(Ordering::Acquire) {
        log::notice!("Current BGSAVE has socket target. Waiting for next BGSAVE for SYNC");
        return;
    }
    let config = database.config();
    if config.repl_diskless_sync && config.repl_diskless_sync_delay != 0 {
        log::notice!("Delay next BGSAVE for diskless SYNC");
    }
    primary.synchronize(server, database, &config);
}

/// Makes the client a replica. `greeting`: what it is told now.
fn attach(
    context: &mut Context<'_>,
    database: &Database,
    is_old: bool,
    start: Start,
    greeting: Option<String>,
) {
    let session = &mut *context.session;
    let introduction: Introduction = session.introduction.as_deref().cloned().unwrap_or_default();
    let client = Arc::clone(&session.shared);
    let replica = Arc::new(Replica::new(client, introduction, is_old, start));
    session.shared.set_flag(bits::REPLICA, true);
    session.class = ClientClass::Replica;
    let greeting = greeting.map(|text| Bytes::from(text.into_bytes()));
    session.attach(Attached::new(Arc::clone(&replica), greeting));
    database.replication.primary.attach(&replica);
}

/// `FAILOVER [TO host port [FORCE]] [ABORT] [TIMEOUT milliseconds]`
fn failover(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let server = Arc::clone(&context.worker.server);
    let database = Arc::clone(&context.session.database);
    let primary = &database.replication.primary;
    if let [_, word] = context.args
        && args::is(word, "ABORT")
    {
        if !primary.failover.lock().is_on() {
            return Err(CommandError::text("ERR No failover in progress."));
        }
        primary.abort_failover(&server, &database, "Failover manually aborted");
        context.reply.ok();
        return Ok(Effect::None);
    }
    let wanted = parse_failover(&context.args[1..], context.worker.clock.now_ms())?;
    let refusal = match () {
        () if primary.failover.lock().is_on() => Some("ERR FAILOVER already in progress."),
        () if database.replication.is_replica() => {
            Some("ERR FAILOVER is not valid when server is a replica.")
        }
        () if !primary.is_attended() => Some("ERR FAILOVER requires connected replicas."),
        () if wanted.force && (wanted.until_ms.is_none() || wanted.target.is_none()) => {
            Some("ERR FAILOVER with force option requires both a timeout and target HOST and IP.")
        }
        () => None,
    };
    if let Some(text) = refusal {
        return Err(CommandError::text(text));
    }
    match &wanted.target {
        None => log::notice!("FAILOVER requested to any replica."),
        Some((host, port)) => {
            let Some(replica) = primary.find(host, *port) else {
                return Err(CommandError::text(
                    "ERR FAILOVER target HOST and PORT is not a replica.",
                ));
            };
            if !replica.is_online() {
                return Err(CommandError::text("ERR FAILOVER target replica is not online."));
            }
            log::notice!("FAILOVER requested to {host}:{port}.");
        }
    }
    primary.begin_failover(&database, wanted);
    context.reply.ok();
    Ok(Effect::None)
}

fn parse_failover(words: &[&[u8]], now_ms: u64) -> Result<Failover, CommandError> {
    let mut failover = Failover::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let rest = words.as_slice();
        if args::is(word, "TIMEOUT") && failover.until_ms.is_none() && !rest.is_empty() {
            let timeout = args::integer(rest[0])?;
            let timeout = u64::try_from(timeout).ok().filter(|&timeout| timeout != 0);
            let text = "ERR FAILOVER timeout must be greater than 0";
            let timeout = timeout.ok_or_else(|| CommandError::text(text))?;
            failover.until_ms = Some(now_ms.saturating_add(timeout));
            words.next();
        } else if args::is(word, "TO") && failover.target.is_none() && 2 <= rest.len() {
            let port = u16::try_from(args::integer(rest[1])?).unwrap_or(0);
            failover.target = Some((String::from_utf8_lossy(rest[0]).into_owned(), port));
            words.nth(1);
        } else if args::is(word, "FORCE") && !failover.force {
            failover.force = true;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok(failover)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Failover, CommandError> {
        let words: Vec<&[u8]> = text.split_ascii_whitespace().map(str::as_bytes).collect();
        parse_failover(&words, 1000)
    }

    #[test]
    fn failover_takes_its_options_in_any_order() {
        let failover = parse("timeout 5 FORCE to host 7").unwrap();
        assert_eq!(failover.target, Some(("host".into(), 7)));
        assert!(failover.force && failover.until_ms == Some(1005));
        assert_eq!(parse("").unwrap().target, None);
        for bad in ["to host", "force force", "timeout", "to a 1 to b 2", "abort force"] {
            assert!(matches!(parse(bad), Err(CommandError::Syntax)), "{bad}");
        }
        assert!(parse("timeout 0").unwrap_err().to_string().contains("greater than 0"));
    }

    #[test]
    fn a_filter_names_what_is_left() {
        assert_eq!(filter(b""), Ok(Parts { data: false, functions: false }));
        assert_eq!(filter(b" functions "), Ok(Parts { data: false, functions: true }));
        assert!(filter(b"keys").is_err());
    }
}
