//! Rules: what is refused, what is described, and that what is described is the same again.

use super::*;
use crate::registry::Registry;

struct World {
    registry: Registry,
    acl: Acl,
}

impl World {
    fn new() -> Self {
        let registry = Registry::new(&[]);
        Self { acl: Acl::new(&registry), registry }
    }

    fn set(&self, rules: &str) -> Result<Arc<User>, SetUserError> {
        let words: Vec<&[u8]> = rules.split(' ').map(str::as_bytes).collect();
        self.acl.set(b"u", &words, false).map(|(_, after)| after)
    }

    /// What the rules make of a new user.
    fn described(&self, rules: &str) -> String {
        self.acl.delete(b"u");
        let user = self.set(rules).unwrap_or_else(|error| panic!("{rules}: {error:?}"));
        String::from_utf8(user.describe()).unwrap()
    }

    fn refused(&self, rules: &str) -> RuleError {
        self.acl.delete(b"u");
        match self.set(rules) {
            Err(SetUserError::Rule { error, .. }) => error,
            other => panic!("{rules}: {other:?}"),
        }
    }

    /// What ACL DRYRUN would say, in database 0.
    fn dry_run(&self, user: &User, request: &str) -> String {
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        let entry = self.registry.find(words[0]).expect("the command is known");
        let sub = words.get(1).and_then(|word| self.registry.find_sub(entry, word));
        let entry = sub.unwrap_or(entry);
        match check(user, entry, &words, 0) {
            Ok(()) => "OK".to_owned(),
            Err(denied) => String::from_utf8(denied.explain(user, entry, &words)).unwrap(),
        }
    }
}

#[test]
fn users_are_described_as_redis_does() {
    let world = World::new();
    for (rules, description) in [
        ("", "off sanitize-payload resetchannels -@all"),
        ("on nopass", "on nopass sanitize-payload resetchannels -@all"),
        ("on certonly ~* &*", "on certonly sanitize-payload ~* &* -@all"),
        ("ON +@all SKIP-sanitize-payload", "on skip-sanitize-payload resetchannels +@all"),
        (
            ">a >a >b nopass >",
            "off sanitize-payload \
             #e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 resetchannels -@all",
        ),
        ("%RW~a %R~b %rw~c %W~b", "off sanitize-payload ~a ~b ~c resetchannels -@all"),
        ("%R~a %W~b %r", "off sanitize-payload %R~a %W~b %R~ resetchannels -@all"),
        ("%R~a %RW~* %W~* ~b", "off sanitize-payload %R~a %RW~* ~b resetchannels -@all"),
        ("%R~* %W~*", "off sanitize-payload %RW~* resetchannels -@all"),
        ("%R~* ~*", "off sanitize-payload ~* resetchannels -@all"),
        (
            "(%RW~* ~a +get)",
            "off sanitize-payload resetchannels -@all (%RW~* ~a resetchannels -@all +get)",
        ),
        ("~a ~b ~a &x &y &x", "off sanitize-payload ~a ~b resetchannels &x &y -@all"),
        ("+get +GET -get +set", "off sanitize-payload resetchannels -@all -get +set"),
        ("+config|get +config", "off sanitize-payload resetchannels -@all +config"),
        ("+config +config|get", "off sanitize-payload resetchannels -@all +config +config|get"),
        ("+@read -get +@READ", "off sanitize-payload resetchannels -@all -get +@read"),
        ("+get|A +get|b", "off sanitize-payload resetchannels -@all +get|a +get|b"),
        ("+get|a allcommands -get", "off sanitize-payload resetchannels +@all -get"),
        (
            "(+get ~a) ( +set )",
            "off sanitize-payload resetchannels -@all (~a resetchannels -@all +get) \
             (resetchannels -@all +set)",
        ),
        ("(+get) clearselectors +set", "off sanitize-payload resetchannels -@all +set"),
        ("db=3,1 DB=2,2,+0", "off sanitize-payload resetchannels db=0,2 -@all"),
        ("db=3 alldbs", "off sanitize-payload resetchannels -@all"),
        ("resetdbs", "off sanitize-payload resetchannels resetdbs -@all"),
        ("on nopass certonly ~* +@all db=1 reset", "off sanitize-payload resetchannels -@all"),
    ] {
        assert_eq!(world.described(rules), description, "{rules}");
        let words: Vec<_> = description.split(' ').map(str::as_bytes).collect();
        let (_, again) =
            world.acl.set(b"v", &[&[b"reset".as_slice()], &*words].concat(), false).unwrap();
        assert_eq!(String::from_utf8(again.describe()).unwrap(), description);
    }
}

#[test]
fn new_users_may_use_all_channels_if_so_configured() {
    let world = World::new();
    let (_, user) = world.acl.set(b"x", &[b"reset", b"(+get)"], true).unwrap();
    assert_eq!(user.describe(), b"off sanitize-payload &* -@all (&* -@all +get)");
}

#[test]
fn rules_are_refused_for_what_is_wrong_with_them() {
    let world = World::new();
    for (rules, error) in [
        ("foo", RuleError::Syntax),
        ("+nosuch", RuleError::Unknown),
        ("+", RuleError::Unknown),
        ("-", RuleError::Unknown),
        ("+@nosuch", RuleError::Unknown),
        ("+@", RuleError::Unknown),
        ("-get|foo", RuleError::Unknown),
        ("+config|nosuch", RuleError::Unknown),
        ("+config|get|x", RuleError::FirstOfSub),
        ("+config|", RuleError::Syntax),
        ("+get|", RuleError::Syntax),
        ("~* ~a", RuleError::AllKeys),
        ("~* %X~a", RuleError::AllKeys),
        ("&* &a", RuleError::AllChannels),
        ("%~a", RuleError::Syntax),
        ("%RR~a", RuleError::Syntax),
        ("%X~a", RuleError::Syntax),
        ("#abc", RuleError::BadHash),
        ("!abc", RuleError::BadHash),
        ("<abc", RuleError::NoSuchPassword),
        ("(+nosuch)", RuleError::Unknown),
        ("(~a\u{29})", RuleError::Syntax),
        ("((+get))", RuleError::Syntax),
        ("(on)", RuleError::Syntax),
        ("db=", RuleError::Syntax),
        ("db=1,", RuleError::Syntax),
        ("db=x", RuleError::Syntax),
        ("db=-1", RuleError::DatabaseOutOfRange),
        ("db=2147483648", RuleError::DatabaseOutOfRange),
    ] {
        assert_eq!(world.refused(rules), error, "{rules}");
        assert!(world.acl.find(b"u").is_none(), "{rules}: a refusal should change nothing");
    }
    let unmatched = SetUserError::Unmatched(b"(+get".to_vec());
    assert_eq!(world.set("(+get +set").unwrap_err(), unmatched);
    for word in ["~a b", "&a\tb", "+get|a\0b"] {
        let error = RuleError::Syntax;
        let expected = SetUserError::Rule { word: word.into(), error };
        assert_eq!(world.acl.set(b"u", &[word.as_bytes()], false).unwrap_err(), expected);
    }
}

#[test]
fn passwords_are_right_only_when_they_are() {
    let world = World::new();
    let user = world.set("on >secret >other").unwrap();
    for (password, is_right) in
        [("secret", true), ("other", true), ("", false), ("secre", false), ("Secret", false)]
    {
        assert_eq!(user.accepts(password.as_bytes()), is_right, "{password}");
    }
    assert!(!world.set("<secret").unwrap().accepts(b"secret"));
    assert!(world.set("nopass").unwrap().accepts(b"anything"));
    assert!(!world.set("certonly").unwrap().accepts(b"anything"));
    assert!(!world.set("nocertonly off").unwrap().accepts(b"anything"));
}

#[test]
fn requests_are_allowed_by_one_selector_as_a_whole() {
    let world = World::new();
    let user = world.set("%R~r* %W~w* +@all -select +select|1 (~x &c)").unwrap();
    for (request, verdict) in [
        ("get r1", "OK"),
        ("get w1", "User u has no permissions to access the 'w1' key"),
        ("set w1 x", "OK"),
        ("set r1 x", "User u has no permissions to access the 'r1' key"),
        ("set w1 x get", "User u has no permissions to access the 'w1' key"),
        ("copy r1 w1", "OK"),
        ("copy w1 r1", "User u has no permissions to access the 'w1' key"),
        ("bitfield r1 get u8 0", "OK"),
        ("bitfield r1 set u8 0 1", "User u has no permissions to access the 'r1' key"),
        ("mset w1 1 b 2", "User u has no permissions to access the 'b' key"),
        ("type x", "User u has no permissions to access the 'x' key"),
        ("append w1 x", "OK"),
        ("select 1", "OK"),
        ("select 0", "User u has no permissions to run the 'select' command"),
        ("config get x", "OK"),
        ("auth x", "OK"),
    ] {
        assert_eq!(world.dry_run(&user, request), verdict, "{request}");
    }
    let user = world.set("reset +get ~a db=1 (~b +get db=0) (+set ~a db=0)").unwrap();
    for (request, verdict) in [
        ("get a", "User u has no permissions to access the 'a' key"),
        ("get b", "OK"),
        ("set a 1", "OK"),
        ("set c 1", "User u has no permissions to access the 'c' key"),
        ("del a", "User u has no permissions to run the 'del' command"),
    ] {
        assert_eq!(world.dry_run(&user, request), verdict, "{request}");
    }
}

#[test]
fn databases_are_those_of_valkey() {
    let world = World::new();
    let user = world.set("~* &* +@all db=1").unwrap();
    let database = |object: &str| format!("User u has no permissions to access database {object}");
    for (request, object) in [
        ("get x", "get"),
        ("dbsize", "dbsize"),
        ("flushdb", "flushdb"),
        ("flushall", "flushall"),
        ("select 0", "0"),
        ("swapdb 1 0", "0"),
        ("move a 0", "0"),
        ("move a 1", "move"),
        ("copy a b replace db 0", "0"),
        ("copy a b db 1", "copy"),
    ] {
        assert_eq!(world.dry_run(&user, request), database(object), "{request}");
    }
    for request in ["select 1", "swapdb 1 1", "ping", "info", "config get x", "select x"] {
        assert_eq!(world.dry_run(&user, request), "OK", "{request}");
    }
    let user = world.set("db=0,1").unwrap();
    assert_eq!(world.dry_run(&user, "flushall"), database("flushall"));
    assert_eq!(world.dry_run(&user, "flushdb"), "OK");
    assert_eq!(world.dry_run(&user, "copy a b db 2"), database("2"));
}

#[test]
fn only_a_user_that_may_do_everything_goes_unchecked() {
    let world = World::new();
    assert!(world.acl.default_user().is_unrestricted());
    for (rules, is_free) in [
        ("+@all ~* &*", true),
        ("+@all ~* &* -get", false),
        ("+@all ~* &* db=0", false),
        ("+@all ~*", false),
        ("(+@all ~* &*)", true),
        ("+@all (~* &*)", false),
    ] {
        world.acl.delete(b"u");
        assert_eq!(world.set(rules).unwrap().is_unrestricted(), is_free, "{rules}");
    }
}

#[test]
fn a_file_is_read_as_a_whole_or_not_at_all() {
    let world = World::new();
    let rules = world.acl.rules(false);
    let parse = |text: &str| {
        let users = file::parse("f", text.as_bytes(), rules, || 7);
        users.map(|users| String::from_utf8(file::text(users.values())).unwrap())
    };
    assert_eq!(
        parse("user alice on +get ~a (+set ~b)\r\n\n  user bob >x\t\n").unwrap(),
        "user alice on sanitize-payload ~a resetchannels -@all +get (~b resetchannels -@all +set)\n\
         user bob off sanitize-payload \
         #2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881 resetchannels -@all\n\
         user default on nopass sanitize-payload ~* &* +@all\n"
    );
    let end = "WARNING: ACL errors detected, no change to the previously active ACL rules was \
               performed";
    for (text, problem) in [
        ("alice on", "f:1 should start with user keyword followed by the username. "),
        ("\nuser", "f:2 should start with user keyword followed by the username. "),
        ("user a\nuser a", "WARNING: Duplicate user 'a' found on line 2. "),
        (
            "user a +foo",
            "f:1: Error in applying operation '+foo': Unknown command or category name in ACL. ",
        ),
        (
            "user a #x",
            "f:1: The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters. ",
        ),
        ("user a (+get", "f:1: Unmatched parenthesis in selector definition."),
    ] {
        let found = String::from_utf8(parse(text).unwrap_err()).unwrap();
        assert_eq!(found, format!("{problem}{end}"));
    }
}

#[test]
fn channels_are_revoked_where_a_rule_is_gone() {
    let world = World::new();
    let user = |rules: &str| world.set(&format!("reset {rules}")).unwrap();
    assert!(Revoked::between(&user("&a &b"), &user("&a &b &c")).is_none());
    assert!(Revoked::between(&user("&a"), &user("&*")).is_none());
    assert!(Revoked::between(&user("&a"), &user("(&a)")).is_none());
    assert!(Revoked::between(&user("&*"), &user("&a")).is_some());
    let revoked = Revoked::between(&user("&a* &b"), &user("&a*")).unwrap();
    assert!(!revoked.concerns(b"abc", false) && revoked.concerns(b"b", false));
    assert!(!revoked.concerns(b"a*", true) && revoked.concerns(b"ab*", true));
}

/// Any words made of what rules are made of describe a user that is the same when it is read again.
#[test]
fn what_is_described_is_the_same_again() {
    const PIECES: &[&str] = &[
        "on",
        "off",
        "nopass",
        "certonly",
        "reset",
        "resetpass",
        "allkeys",
        "resetkeys",
        "allchannels",
        "resetchannels",
        "allcommands",
        "nocommands",
        "clearselectors",
        "alldbs",
        "resetdbs",
        "db=",
        "~",
        "~*",
        "%R~",
        "%W~",
        "%RW~",
        "%RW~*",
        "%R~* %W~*",
        "&",
        "&*",
        "+",
        "-",
        "@",
        "@all",
        "@read",
        "@write",
        "@string",
        "@dangerous",
        "get",
        "set",
        "config",
        "config|get",
        "config|set",
        "acl",
        "|",
        "*",
        "a",
        "b*",
        "(",
        ")",
        " ",
        " ",
        "\"",
        "\\",
        "1",
        "2,3",
        ",",
        ">p",
        "<p",
        "#",
        "skip-sanitize-payload",
        "select",
        "é",
        "'",
        "+get",
        "-get",
        "+config|get",
        "-config",
        "+@all",
        "-@all",
    ];
    let world = World::new();
    let mut random = fastrand::Rng::with_seed(9);
    let mut accepted = 0;
    for _ in 0..20_000 {
        let text: String =
            (0..random.usize(1..14)).map(|_| *random.choice(PIECES).unwrap()).collect();
        let words: Vec<&[u8]> = text.split(' ').map(str::as_bytes).collect();
        world.acl.delete(b"u");
        let Ok((_, user)) = world.acl.set(b"u", &words, random.bool()) else { continue };
        accepted += 1;
        let description = user.describe();
        let again: Vec<&[u8]> = description.split(|byte| *byte == b' ').collect();
        let mut copy = User::new(world.acl.rules(true), b"v", 1);
        copy.apply_all(world.acl.rules(false), &again)
            .unwrap_or_else(|error| panic!("{text}: {description:?}: {error:?}"));
        assert_eq!(copy.describe(), description, "{text}");
        assert_eq!(copy.is_unrestricted(), user.is_unrestricted(), "{text}");
        for entry in world.registry.entries() {
            let words: Vec<&[u8]> = vec![b"a"; entry.arity.unsigned_abs() as usize];
            let (mine, its) = (check(&user, entry, &words, 1), check(&copy, entry, &words, 1));
            assert_eq!(mine, its, "{text}: {}", entry.full_name);
        }
    }
    assert!(1_000 < accepted, "{accepted}");
}
