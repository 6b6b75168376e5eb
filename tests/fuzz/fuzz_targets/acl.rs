//! No rules cause a panic; what describes a user is accepted as rules, and makes the same user.

#![no_main]

use std::sync::LazyLock;

use carnelian_server::acl::{Acl, User, file};
use carnelian_server::registry::Registry;
use libfuzzer_sys::fuzz_target;

static ACL: LazyLock<Acl> = LazyLock::new(|| Acl::new(&Registry::new(&[])));

fuzz_target!(|data: &[u8]| {
    let [flags, text @ ..] = data else { return };
    let rules = ACL.rules(flags & 1 != 0);
    let words: Vec<&[u8]> = match flags & 2 {
        0 => text.split(|byte| *byte == b' ').collect(),
        // Words as clients send them may have anything in them.
        _ => text.split(|byte| *byte == b'\n').collect(),
    };
    let mut user = User::new(rules, b"u", 1);
    if user.apply_all(rules, &words).is_ok() {
        let description = user.describe();
        let words: Vec<&[u8]> = description.split(|byte| *byte == b' ').collect();
        let mut again = User::new(rules, b"u", 1);
        again.apply_all(rules, &words).expect("what describes a user is accepted");
        assert_eq!(again.describe(), description);
        assert_eq!(again.is_unrestricted(), user.is_unrestricted());
    }
    if let Ok(users) = file::parse("f", text, rules, || 1) {
        let written = file::text(users.values());
        let again = file::parse("f", &written, rules, || 1).expect("what is saved can be loaded");
        assert_eq!(file::text(again.values()), written);
    }
});
