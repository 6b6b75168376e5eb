//! Users of the admin plane, their roles, and the rules that databases give roles.

use serde::{Deserialize, Serialize};

use super::{AclUid, Refused, RoleUid, Time, UserUid};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct User {
    pub uid: UserUid,
    pub email: String,
    pub name: String,
    pub role_uids: Vec<RoleUid>,
    /// Hashes, made outside, as texts that say how; any of them admits. No interface returns them. Behind a
    /// blank stands what databases take the password by ([`User::database_passwords`]).
    pub passwords: Vec<String>,
    pub password_issue_date: Time,
    pub email_alerts: bool,
    pub status: UserStatus,
    pub certificate_subject_line: String,
    pub last_login: Option<Time>,
    /// Failed logins in a row, when the last was, and when a locked user may try again.
    pub failed_logins: u32,
    pub last_failure: Option<Time>,
    pub locked_until: Option<Time>,
}

impl User {
    /// `#` and a SHA-256 for each password, as ACL SETUSER takes it: AUTH has no time for a slow hash.
    pub fn database_passwords(&self) -> impl Iterator<Item = &str> {
        self.passwords.iter().filter_map(|kept| kept.split_once(' ')).map(|(_, word)| word)
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserStatus {
    Active,
    Locked,
    PasswordExpired,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    pub uid: RoleUid,
    pub name: String,
    pub management: Management,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Management {
    Admin,
    ClusterMember,
    ClusterViewer,
    DbMember,
    DbViewer,
    UserManager,
    None,
}

impl Management {
    /// The more, the wider.
    pub const fn width(self) -> u8 {
        match self {
            Self::Admin => 6,
            Self::ClusterMember => 5,
            Self::DbMember => 4,
            Self::UserManager => 3,
            Self::ClusterViewer => 2,
            Self::DbViewer => 1,
            Self::None => 0,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::ClusterMember => "cluster_member",
            Self::ClusterViewer => "cluster_viewer",
            Self::DbMember => "db_member",
            Self::DbViewer => "db_viewer",
            Self::UserManager => "user_manager",
            Self::None => "none",
        }
    }
}

impl Role {
    /// The roles that every cluster has.
    pub fn built_in() -> [Self; 6] {
        let role = |uid, name: &str, management| Self {
            uid: RoleUid(uid),
            name: name.to_owned(),
            management,
        };
        [
            role(1, "Admin", Management::Admin),
            role(2, "Cluster Member", Management::ClusterMember),
            role(3, "Cluster Viewer", Management::ClusterViewer),
            role(4, "DB Member", Management::DbMember),
            role(5, "DB Viewer", Management::DbViewer),
            role(6, "None", Management::None),
        ]
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisAcl {
    pub uid: AclUid,
    pub name: String,
    pub acl: String,
}

impl RedisAcl {
    /// The rules that every cluster has.
    pub fn built_in() -> [Self; 3] {
        let acl = |uid, name: &str, acl: &str| Self {
            uid: AclUid(uid),
            name: name.to_owned(),
            acl: acl.to_owned(),
        };
        [
            acl(1, "Full Access", "+@all ~*"),
            acl(2, "Read Only", "+@read ~*"),
            acl(3, "Not Dangerous", "+@all -@dangerous ~*"),
        ]
    }

    /// The shape of rules, as ACL SETUSER takes them; the server knows which commands there are. Who has rules
    /// by a role has a password, a name and a switch already, so there is nothing of those.
    pub fn check(rules: &str) -> Result<(), Refused> {
        let wrong = |rule: &str| {
            let why = format!("{rule:?} is no rule for commands, keys or channels");
            Err(Refused::bad("invalid_param", why))
        };
        if rules.len() > RULES_MAX || rules.trim().is_empty() || rules.contains(['\r', '\n', '\0'])
        {
            return Err(Refused::bad("invalid_param", "these are no rules of an ACL"));
        }
        let words =
            ["allkeys", "allchannels", "allcommands", "nocommands", "resetkeys", "resetchannels"];
        let mut depth = 0usize;
        for rule in rules.split_whitespace() {
            let bare = rule.trim_start_matches('(').trim_end_matches(')');
            depth += rule.len() - rule.trim_start_matches('(').len();
            if 1 < depth {
                return wrong(rule);
            }
            let closing = rule.len() - rule.trim_end_matches(')').len();
            let Some(left) = depth.checked_sub(closing) else { return wrong(rule) };
            depth = left;
            let is_rule = match bare.as_bytes() {
                [] => rule != bare,
                [b'~' | b'&', ..] => true,
                [b'+' | b'-', b'@', name @ ..] => is_name(name),
                [b'+' | b'-', name @ ..] => is_name(name),
                [b'%', ..] => bare
                    .split_once('~')
                    .is_some_and(|(kind, _)| ["%R", "%W", "%RW", "%WR"].contains(&kind)),
                _ => words.contains(&bare),
            };
            if !is_rule {
                return wrong(rule);
            }
        }
        if depth == 0 { Ok(()) } else { wrong(rules) }
    }
}

const RULES_MAX: usize = 4096;

fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_|.".contains(byte))
}

#[test]
fn rules_are_judged() {
    for good in [
        "+@all ~*",
        "+@all -@dangerous ~*",
        "+get +config|get ~app:* %R~x &news",
        "(+set ~a:*) (+get ~b:*) allkeys",
    ] {
        assert_eq!(RedisAcl::check(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        "on >secret",
        "nopass",
        "+",
        "+@",
        "x",
        "%X~a",
        "(+get ~a",
        "+get)",
        "((+get))",
        "+a b",
        "+get\r\n+set",
    ] {
        assert_eq!(RedisAcl::check(bad).unwrap_err().code, "invalid_param", "{bad}");
    }
}
