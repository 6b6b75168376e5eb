//! SLOWLOG: the latest commands that took long.

use carnelian_commands::{CommandError, Effect, Flags, args};
use carnelian_resp::Writer;

use crate::commands::{Context, command, help};
use crate::registry::ServerCommand;
use crate::slowlog::SlowLog;

const ADMIN: Flags = Flags::ADMIN.union(Flags::LOADING).union(Flags::STALE);

/// Records that GET returns unless told how many.
const USUAL_COUNT: usize = 10;

pub const TABLE: &[ServerCommand] = &[ServerCommand {
    subcommands: &[
        ServerCommand {
            complexity: "O(N) in the number of records returned",
            tips: &["request_policy:all_nodes", "nondeterministic_output"],
            ..command("get", "Returns the latest records.", "2.2.12", -2, ADMIN, get)
        },
        command(
            "help",
            "Lists the subcommands.",
            "6.2.0",
            2,
            Flags::LOADING.union(Flags::STALE),
            help,
        ),
        ServerCommand {
            tips: &[
                "request_policy:all_nodes",
                "response_policy:agg_sum",
                "nondeterministic_output",
            ],
            ..command("len", "Counts the records.", "2.2.12", 2, ADMIN, len)
        },
        ServerCommand {
            complexity: "O(N) in the number of records",
            tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
            ..command("reset", "Removes all records.", "2.2.12", 2, ADMIN, reset)
        },
    ],
    ..command("slowlog", "Commands about the slow log.", "2.2.12", -2, Flags::empty(), help)
}];

/// `SLOWLOG GET [count]`
fn get(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let count = match context.args {
        [_, _] => USUAL_COUNT,
        [_, _, word] => count(word)?,
        _ => {
            let before = "ERR unknown subcommand or wrong number of arguments for '";
            return Err(CommandError::quoting(before, context.args[1], "'. Try SLOWLOG HELP."));
        }
    };
    let log = context.session.database.slow_log.lock();
    write(&mut context.reply, &log, count);
    Ok(Effect::None)
}

/// How many records are asked for; -1 is all.
pub(super) fn count(word: &[u8]) -> Result<usize, CommandError> {
    match args::integer(word) {
        Ok(-1) => Ok(usize::MAX),
        Ok(count @ 0..) => Ok(count as usize),
        _ => Err(CommandError::text("ERR count should be greater than or equal to -1")),
    }
}

/// The latest records of a log.
pub(super) fn write(reply: &mut Writer<'_>, log: &SlowLog, count: usize) {
    reply.array(log.count().min(count));
    for record in log.latest().take(count) {
        reply.array(6);
        reply.integer(record.id as i64);
        reply.integer(record.time_s as i64);
        reply.integer(record.duration_us as i64);
        reply.array(record.words.len());
        for word in &record.words {
            reply.bulk(word);
        }
        reply.bulk(record.address.as_bytes());
        reply.bulk(&record.client_name);
    }
}

/// `SLOWLOG LEN`
fn len(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    context.reply.integer(context.session.database.slow_log.lock().count() as i64);
    Ok(Effect::None)
}

/// `SLOWLOG RESET`
fn reset(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    context.session.database.slow_log.lock().reset();
    context.reply.ok();
    Ok(Effect::None)
}

#[cfg(test)]
mod tests {
    use carnelian_config::Config;

    use crate::testing::Bench;

    #[test]
    fn commands_of_one_batch_are_logged_each_by_its_own_words() {
        let bench = Bench::start(Config { slowlog_log_slower_than: 0, ..Config::default() });
        let mut stream = bench.connect();
        bench.exchange(
            &mut stream,
            "SET a 1\r\nGET a\r\nMSET b 2 c 3\r\n",
            "+OK\r\n$1\r\n1\r\n+OK\r\n",
        );
        let log = bench.database.slow_log.lock();
        let words: Vec<String> = log
            .latest()
            .map(|record| String::from_utf8(record.words.join(&b' ')).unwrap())
            .collect();
        assert_eq!(words, ["MSET b 2 c 3", "GET a", "SET a 1"]);
        assert!(log.latest().all(|record| record.address.starts_with("127.0.0.1:")));
    }

    #[test]
    fn the_log_is_bounded_and_can_be_turned_off() {
        let bench = Bench::start(Config {
            slowlog_log_slower_than: 0,
            slowlog_max_len: 2,
            ..Config::default()
        });
        let mut stream = bench.connect();
        bench.exchange(&mut stream, &"PING\r\n".repeat(5), &"+PONG\r\n".repeat(5));
        let off = "CONFIG SET slowlog-log-slower-than -1\r\nSLOWLOG RESET\r\n";
        bench.exchange(&mut stream, "SLOWLOG LEN\r\n", ":2\r\n");
        bench.exchange(&mut stream, off, "+OK\r\n+OK\r\n");
        bench.exchange(&mut stream, "GET k\r\nSLOWLOG LEN\r\n", "$-1\r\n:0\r\n");
    }
}
