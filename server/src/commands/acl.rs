//! ACL: users, what they may do, and what they were refused.

use std::path::PathBuf;

use carnelian_commands::{Categories, CommandError, Effect, Flags, args};
use carnelian_resp::Writer;

use crate::acl::{self, DEFAULT, Origin, Reason, Revoked, RuleError, Selector, SetUserError};
use crate::commands::{Context, help};
use crate::listener::reason;
use crate::log;
use crate::registry::{ServerCommand, ServerRun};
use crate::settings;

const USUAL: Flags = Flags::LOADING.union(Flags::NOSCRIPT).union(Flags::STALE);
const ADMIN: Flags = USUAL.union(Flags::ADMIN);
/// Set on every node of a cluster by clients that know of them.
const ALL_NODES: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];

const GENPASS_BITS: i64 = 256;
const GENPASS_BITS_MAX: i64 = 4096;

/// Records that LOG returns unless told how many.
const LOG_COUNT: usize = 10;

pub const TABLE: &[ServerCommand] = &[ServerCommand {
    subcommands: &[
        command("cat", "Lists the categories, or the commands of one.", "6.0.0", -2, USUAL, cat),
        ServerCommand {
            tips: ALL_NODES,
            ..command("deluser", "Removes users.", "6.0.0", -3, ADMIN, deluser)
        },
        command(
            "dryrun",
            "Tells whether a user may run a command, without running it.",
            "7.0.0",
            -4,
            ADMIN,
            dryrun,
        ),
        ServerCommand {
            complexity: "O(1)",
            ..command("genpass", "Makes a password.", "6.0.0", -2, USUAL, genpass)
        },
        command("getuser", "Describes a user.", "6.0.0", 3, ADMIN, getuser),
        ServerCommand {
            complexity: "O(1)",
            ..command(
                "help",
                "Lists the subcommands.",
                "6.0.0",
                2,
                Flags::LOADING.union(Flags::STALE),
                help,
            )
        },
        command("list", "Describes all users by their rules.", "6.0.0", 2, ADMIN, list),
        command("load", "Reads the users from their file again.", "6.0.0", 2, ADMIN, load),
        command("log", "Returns the latest refusals, or forgets them.", "6.0.0", -2, ADMIN, log),
        ServerCommand {
            tips: ALL_NODES,
            ..command("save", "Writes the users to their file.", "6.0.0", 2, ADMIN, save)
        },
        ServerCommand {
            tips: ALL_NODES,
            ..command("setuser", "Makes a user, or changes one.", "6.0.0", -3, ADMIN, setuser)
        },
        command("users", "Names all users.", "6.0.0", 2, ADMIN, users),
        ServerCommand {
            complexity: "O(1)",
            ..command("whoami", "Names the connection's user.", "6.0.0", 2, USUAL, whoami)
        },
    ],
    ..command("acl", "Commands about users.", "6.0.0", -2, Flags::empty(), help)
}];

const fn command(
    name: &'static str,
    summary: &'static str,
    since: &'static str,
    arity: i32,
    flags: Flags,
    run: ServerRun,
) -> ServerCommand {
    let complexity = "O(N) in what is listed or changed";
    ServerCommand { complexity, ..super::command(name, summary, since, arity, flags, run) }
}

/// `ACL WHOAMI`
fn whoami(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    context.reply.bulk(&context.session.user.name);
    Ok(Effect::None)
}

/// `ACL USERS`
fn users(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let users = context.session.database.acl.list();
    context.reply.array(users.len());
    for user in users {
        context.reply.bulk(&user.name);
    }
    Ok(Effect::None)
}

/// `ACL LIST`
fn list(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let users = context.session.database.acl.list();
    context.reply.array(users.len());
    for user in users {
        context.reply.bulk(&user.line());
    }
    Ok(Effect::None)
}

/// `ACL GETUSER username`
fn getuser(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let Some(user) = context.session.database.acl.find(context.args[2]) else {
        context.reply.null();
        return Ok(Effect::None);
    };
    let (own, attached) = user.selectors().split_first().expect("a user has permissions");
    let reply = &mut context.reply;
    reply.map(3 + fields(own));
    reply.bulk(b"flags");
    let flags: Vec<&str> = user.flags().collect();
    reply.set(flags.len());
    for flag in flags {
        reply.bulk(flag.as_bytes());
    }
    reply.bulk(b"passwords");
    reply.array(user.passwords().len());
    for hash in user.passwords() {
        reply.bulk(hash.as_bytes());
    }
    write_selector(reply, own);
    reply.bulk(b"selectors");
    reply.array(attached.len());
    for selector in attached {
        reply.map(fields(selector));
        write_selector(reply, selector);
    }
    Ok(Effect::None)
}

/// How many fields describe a selector. Redis knows no databases, so they are told of only where
/// a rule was given.
fn fields(selector: &Selector) -> usize {
    3 + usize::from(selector.describe_databases().is_some())
}

fn write_selector(reply: &mut Writer<'_>, selector: &Selector) {
    for (field, value) in [
        ("commands", selector.describe_commands()),
        ("keys", selector.describe_keys()),
        ("channels", selector.describe_channels()),
    ] {
        reply.bulk(field.as_bytes());
        reply.bulk(&value);
    }
    if let Some(databases) = selector.describe_databases() {
        reply.bulk(b"databases");
        reply.bulk(databases.as_bytes());
    }
}

/// `ACL SETUSER username [rule ...]`
fn setuser(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let name = context.args[2];
    if acl::has_spaces(name) {
        let text = "ERR Usernames can't contain spaces or null characters";
        return Err(CommandError::text(text));
    }
    let database = context.database;
    let all_channels = context.session.settings.acl_all_channels;
    let changed = database.acl.set(name, &context.args[3..], all_channels).map_err(refused)?;
    database.announce_users();
    if let (Some(before), after) = changed
        && Revoked::between(&before, &after).is_some()
    {
        recheck_clients(context, |user| user == name);
    }
    context.reply.ok();
    Ok(Effect::None)
}

fn refused(error: SetUserError) -> CommandError {
    match error {
        SetUserError::Unmatched(word) => {
            let before = "ERR Unmatched parenthesis in acl selector starting at '";
            CommandError::quoting(before, &word, "'.")
        }
        SetUserError::Rule { word, error } => {
            // What is hashed as a password is none of anybody's business.
            let word = if error == RuleError::NoSuchPassword { b"<".as_slice() } else { &word };
            let after = format!("': {error}");
            CommandError::quoting("ERR Error in ACL SETUSER modifier '", word, &after)
        }
    }
}

/// `ACL DELUSER username [username ...]`
fn deluser(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let names = &context.args[2..];
    if names.contains(&DEFAULT) {
        return Err(CommandError::text("ERR The 'default' user cannot be removed"));
    }
    let database = context.database;
    let deleted: Vec<&[u8]> =
        names.iter().copied().filter(|name| database.acl.delete(name)).collect();
    if !deleted.is_empty() {
        database.announce_users();
        recheck_clients(context, |user| deleted.contains(&user));
    }
    context.reply.integer(deleted.len() as i64);
    Ok(Effect::None)
}

/// Has the clients of some users looked at: they may have to go. This one notices by itself.
fn recheck_clients(context: &Context<'_>, is_meant: impl Fn(&[u8]) -> bool) {
    let me = context.session.shared.id;
    for client in context.session.database.clients.list() {
        let is_one = match &*client.names.lock().user {
            b"" => is_meant(DEFAULT),
            user => is_meant(user),
        };
        if is_one && client.id != me {
            client.recheck();
        }
    }
}

const NO_FILE: &str = "ERR This Redis instance is not configured to use an ACL file. You may want \
                       to specify users via the ACL SETUSER command and then issue a CONFIG \
                       REWRITE (assuming you have a Redis configuration file set) in order to \
                       store users in the Redis configuration.";

fn file(context: &Context<'_>) -> Result<PathBuf, CommandError> {
    let config = context.database.config();
    let path = settings::given(&config.aclfile);
    path.map(std::path::Path::to_owned).ok_or(CommandError::text(NO_FILE))
}

/// `ACL LOAD`
fn load(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let path = file(context)?;
    let database = context.database;
    let all_channels = context.session.settings.acl_all_channels;
    let before = database
        .acl
        .load(&path, all_channels)
        .map_err(|text| CommandError::quoting("ERR ", &text, ""))?;
    database.announce_users();
    let affected: Vec<&[u8]> = before
        .iter()
        .filter(|(name, user)| match database.acl.find(name) {
            Some(after) => Revoked::between(user, &after).is_some(),
            None => true,
        })
        .map(|(name, _)| &**name)
        .collect();
    if !affected.is_empty() {
        recheck_clients(context, |user| affected.contains(&user));
    }
    context.reply.ok();
    Ok(Effect::None)
}

/// `ACL SAVE`
fn save(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let path = file(context)?;
    let text = acl::file::text(context.session.database.acl.list().iter());
    carnelian_config::replace_file(&path, &text).map_err(|error| {
        log::warning!("Writing ACL file for ACL SAVE: {}", reason(&error));
        CommandError::text(
            "ERR There was an error trying to save the ACLs. Please check the server logs for \
             more information",
        )
    })?;
    context.reply.ok();
    Ok(Effect::None)
}

/// `ACL CAT [category]`
fn cat(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let names: Vec<&str> = match context.args {
        [_, _] => Categories::all().names().collect(),
        [_, _, name] => {
            let category = Categories::by_name(name).ok_or_else(|| {
                let name = &name[..name.len().min(128)];
                CommandError::quoting("ERR Unknown category '", name, "'")
            })?;
            context.session.database.acl.catalog.names_of(category).collect()
        }
        _ => return Err(too_many(context)),
    };
    context.reply.array(names.len());
    for name in names {
        context.reply.bulk(name.as_bytes());
    }
    Ok(Effect::None)
}

fn too_many(context: &Context<'_>) -> CommandError {
    let before = "ERR unknown subcommand or wrong number of arguments for '";
    CommandError::quoting(before, context.args[1], "'. Try ACL HELP.")
}

/// `ACL GENPASS [bits]`
fn genpass(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let bits = match context.args {
        [_, _] => GENPASS_BITS,
        [_, _, bits] => args::integer(bits)?,
        _ => return Err(too_many(context)),
    };
    if !(1..=GENPASS_BITS_MAX).contains(&bits) {
        return Err(CommandError::text(format!(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a \
             positive number up to {GENPASS_BITS_MAX}"
        )));
    }
    let digits = (bits as usize).div_ceil(4);
    let mut bytes = vec![0; digits.div_ceil(2)];
    let random = carnelian_tls::provider().secure_random.fill(&mut bytes);
    random.map_err(|_| CommandError::text("ERR The system has no random numbers"))?;
    let mut password = carnelian_tls::hex(&bytes);
    password.truncate(digits);
    context.reply.bulk(password.as_bytes());
    Ok(Effect::None)
}

/// `ACL LOG [count | RESET]`
fn log(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let database = context.database;
    let count = match context.args {
        [_, _] => LOG_COUNT,
        [_, _, word] if args::is(word, "RESET") => {
            database.acl.log.lock().reset();
            context.reply.ok();
            return Ok(Effect::None);
        }
        [_, _, count] => usize::try_from(args::integer(count)?).unwrap_or(0),
        _ => return Err(too_many(context)),
    };
    let log = database.acl.log.lock();
    let now_ms = context.worker.clock.now_ms();
    let reply = &mut context.reply;
    reply.array(log.latest().len().min(count));
    for record in log.latest().take(count) {
        reply.map(10);
        reply.bulk(b"count");
        reply.integer(record.count as i64);
        for (field, value) in [
            ("reason", record.reason.name().as_bytes()),
            ("context", record.origin.name().as_bytes()),
            ("object", &record.object),
            ("username", &record.user),
        ] {
            reply.bulk(field.as_bytes());
            reply.bulk(value);
        }
        reply.bulk(b"age-seconds");
        reply.double(now_ms.saturating_sub(record.updated_ms) as f64 / 1000.0);
        reply.bulk(b"client-info");
        reply.bulk(&record.client);
        for (field, value) in [
            ("entry-id", record.id),
            ("timestamp-created", record.created_ms),
            ("timestamp-last-updated", record.updated_ms),
        ] {
            reply.bulk(field.as_bytes());
            reply.integer(value as i64);
        }
    }
    Ok(Effect::None)
}

/// `ACL DRYRUN username command [argument ...]`
fn dryrun(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let (name, request) = (context.args[2], &context.args[3..]);
    let Some(user) = context.session.database.acl.find(name) else {
        return Err(CommandError::quoting("ERR User '", name, "' not found"));
    };
    let registry = context.registry;
    let mut entry = registry.find(request[0]);
    if let (Some(container), Some(word)) = (entry, request.get(1))
        && !container.subcommands.is_empty()
    {
        entry = registry.find_sub(container, word);
    }
    let entry =
        entry.ok_or_else(|| CommandError::quoting("ERR Command '", request[0], "' not found"))?;
    if !entry.accepts(request.len()) {
        return Err(CommandError::Arity(entry.full_name.clone().into()));
    }
    match acl::check(&user, entry, request, context.session.db) {
        Ok(()) => context.reply.ok(),
        Err(denied) => context.reply.bulk(&denied.explain(&user, entry, request)),
    }
    Ok(Effect::None)
}

/// Counts and logs a wrong password, or a wrong name.
pub(super) fn report_wrong_password(context: &Context<'_>, user: &[u8]) {
    let Context { worker, session, registry, args, .. } = context;
    // `AUTH`, or `HELLO`, as it was typed.
    let object = args[0];
    let origin = if session.transaction.is_some() { Origin::Multi } else { Origin::TopLevel };
    acl::report_names(worker, session, registry, Reason::Auth, origin, object, user);
}
