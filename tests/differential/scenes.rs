//! What takes several commands that belong together, and often several connections: transactions,
//! clients that wait, subscribers, scripts.

use super::command::Command;
use super::compare::Rule;
use super::generate::{Generator, KEYS};
use super::scripts;

/// A play of several commands. Behind it no connection waits, listens, watches or queues.
pub struct Scene {
    pub group: &'static str,
    /// The command without which it makes no sense.
    pub needs: &'static str,
    pub play: fn(&mut Generator, &mut Vec<Command>),
}

pub const SCENES: &[Scene] = &[
    Scene { group: "transaction", needs: "MULTI", play: transaction },
    Scene { group: "transaction", needs: "WATCH", play: watching },
    Scene { group: "blocking", needs: "BLPOP", play: blocking },
    Scene { group: "blocking", needs: "BLPOP", play: blocking_in_vain },
    Scene { group: "pubsub", needs: "SUBSCRIBE", play: subscriptions },
    Scene { group: "pubsub", needs: "SUBSCRIBE", play: keyspace_events },
    Scene { group: "acl", needs: "ACL", play: permissions },
    Scene { group: "scripting", needs: "EVAL", play: scripts::several },
];

fn transaction(generator: &mut Generator, commands: &mut Vec<Command>) {
    generator.keys = 1 + generator.random.u32(..KEYS);
    if generator.random.bool() {
        for _ in 0..generator.random.usize(1..3) {
            commands.push(generator.made_of("WATCH <{k}>", Rule::Exact));
        }
        match generator.random.u32(..6) {
            0 => commands.push(generator.command()),
            1 | 2 => commands.push(generator.command().on(1)),
            3 => commands.push(Command::plain("UNWATCH")),
            _ => {}
        }
    }
    let begin = ["MULTI", "MULTI", "MULTI", "MULTI", "MULTI", "MULTI", "MULTI extra"];
    commands.push(Command::plain(begin[generator.random.usize(..begin.len())]));
    for _ in 0..generator.random.usize(..10) {
        let command = match generator.random.u32(..60) {
            0 => Command::plain("MULTI"),
            1 => generator.made_of("WATCH {k}", Rule::Exact),
            2 => Command::plain("GET"),
            3 => Command::plain("NOSUCH a b"),
            4 | 5 => generator.command().on(1),
            6 => Command::plain("UNWATCH"),
            // Outside of a transaction it would wait a moment.
            7..12 => awaited(generator.made_of(IN_VAIN, Rule::Exact)),
            12 => Command::plain("DISCARD x"),
            _ => generator.command(),
        };
        // What stands for a payload is asked for where it is sent, not where it runs.
        if !command.has_stand_ins() {
            commands.push(command);
        }
    }
    let end = ["EXEC", "EXEC", "EXEC", "EXEC", "EXEC", "DISCARD", "EXEC extra"];
    commands.push(Command::plain(end[generator.random.usize(..end.len())]));
    commands.push(Command::plain("DISCARD"));
    commands.push(Command::plain("UNWATCH"));
    generator.keys = KEYS;
}

/// Whether a command is seen to change something by one who watches all keys.
fn watching(generator: &mut Generator, commands: &mut Vec<Command>) {
    let kinds = ["s", "b", "h", "l", "t", "z", "x", "q", "g", "p", "e"];
    let keys = kinds.iter().flat_map(|kind| (0..KEYS).map(move |at| format!("{kind}{at}")));
    let watch = format!("WATCH {}", keys.collect::<Vec<_>>().join(" "));
    for _ in 0..generator.random.usize(2..6) {
        commands.push(Command::plain(&watch));
        commands.push(generator.command().on(1));
        commands.push(Command::plain("MULTI"));
        commands.push(Command::plain("EXEC"));
    }
}

/// What waits until somebody else does something.
const WAITING: &str = "(BLPOP <{l}> {long}|BRPOP <{l}> {long}|BLPOP {l} {long}|BRPOP {l} {l} {long}|\
    BLMOVE {l} {l} (LEFT|RIGHT) (LEFT|RIGHT) {long}|BRPOPLPUSH {l} {l} {long}|\
    BLMPOP {long} {#l} (LEFT|RIGHT) [COUNT {c}]|BLMPOP {long} 2 {l} {l} LEFT COUNT 3|\
    BZPOPMIN <{z}> {long}|BZPOPMAX <{z}> {long}|BZMPOP {long} {#z} (MIN|MAX) [COUNT {c}]|\
    XREAD [COUNT {c}] BLOCK 0 STREAMS {x} ($|0|50|+)|XREAD BLOCK 100000 STREAMS {x} {x} $ $|\
    XREADGROUP GROUP g1 {who} [COUNT {c}] BLOCK 0 STREAMS {x} {gt}|\
    XREADGROUP GROUP g1 {who} BLOCK 0 NOACK STREAMS {x} {x} {gt} {gt})";

/// What waits a moment and gives up, and what is refused. In a transaction nothing waits.
const IN_VAIN: &str = "(BLPOP <{l}> {short}|BRPOP {l} {short}|BLPOP {l} {bad}|\
    BLMOVE {l} {l} (LEFT|RIGHT) (LEFT|RIGHT|x) {short}|BRPOPLPUSH {l} {l} {short}|\
    BLMPOP {short} {#l} (LEFT|RIGHT) [COUNT {c}]|BLMPOP {bad} 1 {l} LEFT|\
    BZPOPMIN <{z}> {short}|BZPOPMAX {z} {short}|BZMPOP {short} {#z} (MIN|MAX) [COUNT {c}]|\
    BZPOPMIN {k} {short}|BZMPOP {bad} 1 {z} MIN|\
    XREAD BLOCK 10 STREAMS {x} ($|0|50)|XREAD BLOCK (x|-1) STREAMS {x} $|\
    XREADGROUP GROUP g1 {who} BLOCK 10 STREAMS {x} ({gt}|0))";

/// What may serve those who wait.
const SERVING: &str = "(RPUSH {l} <{v}>|LPUSH {l} <{v}>|RPUSH {l} {v} {v} {v}|LMOVE {l} {l} LEFT RIGHT|\
    RPUSHX {l} {v}|LINSERT {l} BEFORE {v} {v}|ZADD {z} <{score} {m}>|ZADD {z} {score} {m}|ZINCRBY {z} 1 {m}|\
    ZADD {z} XX 1 {m}|XADD {x} {id} f {v}|XADD {x} {id} f {v}|XADD {x} {id} f {v}|RENAME {l} {l}|RENAME {k} {l}|\
    COPY {l} {l} [REPLACE]|COPY {z} {z} REPLACE|SORT {t} ALPHA STORE {l}|DEL <{k}>|SET {k} {v}|SWAPDB 0 1|\
    SADD {t} <{m}>|ZUNIONSTORE {z} 2 {z} {t}|ZRANGESTORE {z} {z} 0 -1|LPOP {l}|FLUSHDB|XGROUP DESTROY {x} g1|\
    XGROUP CREATE {x} g1 $ MKSTREAM|RPOPLPUSH {l} {l}|BLMOVE {l} {l} LEFT LEFT 0.01|BLPOP {l} 0.01|\
    BZPOPMIN {z} 0.01|MOVE {k} 1|XTRIM {x} MAXLEN 0|\
    CLIENT UNBLOCK (@id1|@id2|@id3) [TIMEOUT|ERROR|x])";

fn blocking(generator: &mut Generator, commands: &mut Vec<Command>) {
    generator.keys = 1 + generator.random.u32(..2);
    commands.push(Command::plain("SELECT 0"));
    if 0 < generator.random.u32(..5) {
        commands.push(Command::plain("DEL l0 l1 z0 z1 x0 x1"));
    }
    for key in ["x0", "x1"] {
        if generator.random.bool() {
            commands.push(Command::plain(&format!("XGROUP CREATE {key} g1 $ MKSTREAM")));
        }
    }
    for _ in 0..generator.random.usize(3..14) {
        match generator.random.u32(..10) {
            0..5 => {
                let command = generator.made_of(WAITING, Rule::Exact);
                commands.push(command.on(generator.random.usize(1..4)));
            }
            5 => {
                let several = 1 + generator.random.usize(..3);
                commands.push(Command::plain("MULTI"));
                for _ in 0..several {
                    let command = generator.made_of(SERVING, Rule::Exact);
                    if !command.has_stand_ins() {
                        commands.push(awaited(command));
                    }
                }
                commands.push(Command::plain("EXEC"));
            }
            6 => commands.push(generator.command()),
            _ => {
                let command = generator.made_of(SERVING, Rule::Exact);
                commands.push(awaited(command));
            }
        }
    }
    for connection in 1..4 {
        let how = ["", " TIMEOUT", " ERROR"][generator.random.usize(..3)];
        commands.push(Command::plain(&format!("CLIENT UNBLOCK @id{connection}{how}")));
    }
    generator.keys = KEYS;
}

fn blocking_in_vain(generator: &mut Generator, commands: &mut Vec<Command>) {
    generator.keys = 2;
    for _ in 0..2 {
        let command = generator.made_of(IN_VAIN, Rule::Exact);
        commands.push(awaited(command.on(generator.random.usize(1..4))));
    }
    generator.keys = KEYS;
}

fn awaited(mut command: Command) -> Command {
    command.waits_until_answered = true;
    command
}

/// What a subscriber may do.
const SUBSCRIBING: &str = "(SUBSCRIBE <{chan}>|PSUBSCRIBE <{cglob}>|SSUBSCRIBE {chan}|UNSUBSCRIBE {chan}|\
    PUNSUBSCRIBE {cglob}|SUNSUBSCRIBE {chan}|SUBSCRIBE {chan}|PSUBSCRIBE {cglob}|GET {s}|PING|PING {v}|SUBSCRIBE)";

/// What others see of it.
const PUBLISHING: &str = "(PUBLISH {chan} {v}|PUBLISH {chan} {v}|PUBLISH {chan} {v}|SPUBLISH {chan} {v}|\
    PUBSUB NUMSUB {chan} {chan}|PUBSUB NUMPAT|PUBSUB SHARDNUMSUB {chan}|PUBLISH {chan})";

fn subscriptions(generator: &mut Generator, commands: &mut Vec<Command>) {
    for _ in 0..generator.random.usize(4..16) {
        match generator.random.u32(..10) {
            0..4 => {
                let command = generator.made_of(SUBSCRIBING, Rule::Exact);
                commands.push(command.on(generator.random.usize(1..4)));
            }
            4 => commands.push(generator.made_of("PUBSUB CHANNELS [{cglob}]", Rule::Unordered)),
            5 => {
                commands.push(generator.made_of("PUBSUB SHARDCHANNELS [{cglob}]", Rule::Unordered))
            }
            6 => {
                commands.push(Command::plain("MULTI"));
                for _ in 0..generator.random.usize(1..4) {
                    commands.push(generator.made_of(PUBLISHING, Rule::Exact));
                }
                commands.push(Command::plain("EXEC"));
            }
            _ => commands.push(generator.made_of(PUBLISHING, Rule::Exact)),
        }
    }
    end_subscriptions(commands);
}

fn keyspace_events(generator: &mut Generator, commands: &mut Vec<Command>) {
    let classes =
        ["KEA", "KEA", "KEA", "KA", "EA", "Eglsz", "K$h", "KE$gn", "KEAm", "E$xet", "", "Q"];
    let class = classes[generator.random.usize(..classes.len())];
    let words = ["CONFIG", "SET", "notify-keyspace-events", class];
    let words = words.iter().map(|word| word.as_bytes().to_vec()).collect();
    commands.push(Command::new(words, Rule::Exact));
    commands.push(Command::plain("CONFIG GET notify-keyspace-events"));
    commands.push(Command::plain("PSUBSCRIBE __key*@*__:*").on(2));
    for _ in 0..generator.random.usize(5..25) {
        commands.push(generator.command());
    }
    commands.push(Command::plain("CONFIG SET notify-keyspace-events none"));
    let words = ["CONFIG", "SET", "notify-keyspace-events", ""];
    let words = words.iter().map(|word| word.as_bytes().to_vec()).collect();
    commands.push(Command::new(words, Rule::Exact));
    end_subscriptions(commands);
}

/// What a user may do, tried out by one.
fn permissions(generator: &mut Generator, commands: &mut Vec<Command>) {
    commands.push(Command::plain("ACL SETUSER u3 reset"));
    let rules =
        ["on nopass", "on nopass +@all", "on nopass ~* +@all", "on nopass &* allkeys +@read"];
    let rules = rules[generator.random.usize(..rules.len())];
    commands.push(generator.made_of(&format!("ACL SETUSER u3 {rules} <{{acl}}>"), Rule::Exact));
    commands.push(Command::plain("AUTH u3 x").on(3));
    // Redis 8.0 leaves out the refusal where other replies still have to be sent: so in no pipeline.
    commands.push(generator.made_of("AUTH (u3|nobody|default) {v} [{v}]", Rule::Exact).on(3));
    for _ in 0..generator.random.usize(2..8) {
        let command = generator.command();
        // A user that removes itself loses its connection.
        if !command.words[0].eq_ignore_ascii_case(b"ACL") {
            commands.push(command.on(3));
        }
    }
    commands.push(Command::plain("AUTH default x").on(3));
    commands.push(Command::plain("ACL LOG RESET"));
}

fn end_subscriptions(commands: &mut Vec<Command>) {
    for connection in 1..4 {
        for command in ["UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"] {
            let words = vec![command.as_bytes().to_vec()];
            commands.push(Command::new(words, Rule::Farewells).on(connection));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scene_has_commands() {
        let mut generator = Generator::new(3, &[], &[]).unwrap();
        for scene in SCENES {
            for _ in 0..200 {
                let mut commands = Vec::new();
                (scene.play)(&mut generator, &mut commands);
                assert!(commands.len() > 1, "{}", scene.group);
            }
        }
    }
}
