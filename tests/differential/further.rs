//! Templates of the groups beyond the plain data types. `templates.rs` explains how they are written.
//!
//! What HELP answers is left out: its words are our own. So are removed passwords, which Redis repeats in
//! its refusal.

use super::compare::Rule::{Deep, Exact, Pairs, Payload, Shape, Unordered};
use super::templates::{Template, t};

pub const TEMPLATES: &[Template] = &[
    t("dump", 4, Payload, "DUMP {k}"),
    t("dump", 2, Payload, "DUMP {l}"),
    t("dump", 2, Payload, "DUMP {z}"),
    t("dump", 2, Payload, "DUMP {t}"),
    t("dump", 2, Exact, "RESTORE {k} 0 @dump:{k} [REPLACE]"),
    // A time that overflows is one that Redis keeps at a look and removes by itself: none of those. Nor
    // one of milliseconds, which is over on one server and not on the other.
    t(
        "dump",
        1,
        Exact,
        "RESTORE {k} (600000|9000000|-1|x) @dump:{k} [REPLACE] [IDLETIME {c}|FREQ {c}]",
    ),
    t("dump", 1, Exact, "RESTORE {k} {pat} @dump:{k} REPLACE ABSTTL"),
    t("dump", 2, Exact, "RESTORE {k} 0 @dumb:{k} [REPLACE]"),
    t("dump", 1, Exact, "RESTORE {k} 0 {v} [REPLACE]"),
    //
    t("server", 4, Exact, "COMMAND GETKEYS {any}"),
    t("server", 4, Deep, "COMMAND GETKEYSANDFLAGS {any}"),
    t("server", 1, Exact, "COMMAND GETKEYS (EVAL|EVAL_RO) return {#t} {v}"),
    t("server", 1, Exact, "COMMAND GETKEYS (SORT|ZUNIONSTORE|XREADGROUP) <{k}>"),
    t("server", 1, Exact, "OBJECT REFCOUNT none"),
    t("server", 1, Exact, "OBJECT FREQ {k}"),
    t("server", 1, Exact, "CLIENT GETNAME"),
    t("server", 1, Exact, "CLIENT SETNAME ({m}|{v}|a|'')"),
    t("server", 1, Exact, "CLIENT SETINFO (LIB-NAME|LIB-VER|LIB) ({m}|{v})"),
    // Redis 8.0 ends with a fault where such a client serves one that waits, so none turns it on.
    t("server", 1, Exact, "CLIENT NO-TOUCH (OFF|x)"),
    t("server", 1, Exact, "CLIENT NO-EVICT (on|off|x)"),
    t("server", 1, Exact, "CLIENT GETREDIR"),
    t("server", 1, Exact, "CLIENT TRACKINGINFO"),
    t("server", 1, Exact, "CLIENT CACHING (YES|NO|x)"),
    t("server", 1, Exact, "CLIENT UNBLOCK {i} [TIMEOUT|ERROR|x]"),
    t("server", 1, Exact, "CLIENT KILL (ID|TYPE|ADDR|MAXAGE) (x|-1|nosuch)"),
    t("server", 1, Exact, "CLIENT NOSUCH"),
    t("server", 1, Exact, "CONFIG SET nosuch {v}"),
    t(
        "server",
        1,
        Pairs,
        "CONFIG GET (nosuch|hash-max-listpack-entries|zset-max-*|set-max-intset-entries)",
    ),
    t("server", 1, Exact, "RESET x"),
    t("server", 1, Exact, "HELLO (4|1|x|9223372036854775808) (x|AUTH)"),
    t("server", 1, Shape, "TIME"),
    t("server", 1, Exact, "WAIT 0 0"),
    t("server", 1, Exact, "WAIT (x|-1|0) (-1|x)"),
    t("server", 1, Exact, "SLOWLOG (NOSUCH|LEN x y|RESET x)"),
    t("server", 1, Exact, "LATENCY (NOSUCH|HISTORY nosuch|LATEST x|RESET nosuch)"),
    t("server", 1, Exact, "MEMORY (NOSUCH|USAGE none|USAGE {k} SAMPLES x|USAGE none x)"),
    t("server", 1, Exact, "PUBLISH {chan} {v}"),
    t("server", 1, Exact, "PUBSUB (NUMPAT|CHANNELS|NUMSUB {chan}|SHARDCHANNELS|NOSUCH)"),
    t("server", 1, Exact, "NOSUCHCOMMAND <{v}>"),
    t("server", 1, Exact, "DEBUG NOSUCH"),
    t("server", 1, Exact, "EXEC"),
    t("server", 1, Exact, "DISCARD"),
    t("server", 1, Exact, "UNWATCH"),
    //
    t("acl", 6, Exact, "ACL SETUSER {user} <{acl}>"),
    t("acl", 2, Exact, "ACL SETUSER {user} on nopass <{acl}>"),
    t("acl", 4, Exact, "ACL GETUSER {user}"),
    t("acl", 8, Exact, "ACL DRYRUN {user} {any}"),
    t("acl", 2, Exact, "ACL DELUSER <{user}>"),
    t("acl", 1, Unordered, "ACL LIST"),
    t("acl", 1, Unordered, "ACL USERS"),
    t("acl", 1, Exact, "ACL WHOAMI"),
    t("acl", 1, Unordered, "ACL CAT [hash|set|list|geo|nosuch|hyperloglog|pubsub]"),
    t("acl", 1, Shape, "ACL GENPASS [64|1|0|-5|x|4097]"),
    t("acl", 1, Shape, "ACL LOG [RESET|0|x]"),
    t("acl", 1, Exact, "ACL (NOSUCH|SETUSER|GETUSER)"),
];
