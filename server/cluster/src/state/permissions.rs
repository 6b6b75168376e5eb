//! Who of the cluster's users may use a database: those whose roles it gives rules to.

use super::{Database, PubsubDefault, State};

/// A user of a database: its name, and what makes it, in the words of ACL SETUSER.
pub type DatabaseUser = (String, Vec<String>);

impl State {
    /// The users that a database has by its `roles_permissions`, in the order of their uids. A user is known
    /// there by its name; one whose name cannot be sent with AUTH has no way in.
    pub fn users_of(&self, database: &Database) -> Vec<DatabaseUser> {
        let permissions = &database.settings.roles_permissions;
        if permissions.is_empty() {
            return Vec::new();
        }
        let mut users = Vec::new();
        for user in self.users.values().filter(|user| can_be_sent(&user.name)) {
            let mut given = Vec::new();
            for permission in permissions {
                let has_role = user.role_uids.iter().any(|uid| uid.0 == permission.role_uid);
                let acl = self.redis_acls.get(&permission.redis_acl_uid.into());
                // The same rules by two roles are no more than by one.
                if has_role
                    && let Some(acl) = acl
                    && !given.contains(&acl.acl.as_str())
                {
                    given.push(acl.acl.as_str());
                }
            }
            let mut words: Vec<String> = user.database_passwords().map(str::to_owned).collect();
            if given.is_empty() || words.is_empty() {
                continue;
            }
            words.insert(0, "on".to_owned());
            words.extend(self.words_of(&given));
            users.push((user.name.clone(), words));
        }
        users
    }

    /// Each set of rules allows what it allows by itself: the first is the user's own, each other one a selector.
    fn words_of(&self, given: &[&str]) -> Vec<String> {
        let mut own = Vec::new();
        let mut selectors = Vec::new();
        for (place, text) in given.iter().enumerate() {
            let Rules { mut words, inner } = Rules::of(text);
            let names_channels =
                |word: &String| word.starts_with('&') || word.ends_with("channels");
            if !words.iter().any(names_channels) {
                let default = match self.policy.acl_pubsub_default {
                    PubsubDefault::Resetchannels => "resetchannels",
                    PubsubDefault::Allchannels => "allchannels",
                };
                words.insert(0, default.to_owned());
            }
            if place == 0 {
                own = words;
            } else {
                selectors.push(format!("({})", words.join(" ")));
            }
            selectors.extend(inner);
        }
        own.extend(selectors);
        own
    }
}

/// As the name is a word of ACL SETUSER.
fn can_be_sent(name: &str) -> bool {
    !name.is_empty() && name != "default" && !name.contains([' ', '\0'])
}

/// Rules, apart from the selectors among them.
struct Rules {
    words: Vec<String>,
    inner: Vec<String>,
}

impl Rules {
    fn of(text: &str) -> Self {
        let mut rules = Self { words: Vec::new(), inner: Vec::new() };
        let mut selector: Option<String> = None;
        for word in text.split_whitespace() {
            let open = match selector.take() {
                Some(open) => format!("{open} {word}"),
                None if word.starts_with('(') => word.to_owned(),
                None => {
                    rules.words.push(word.to_owned());
                    continue;
                }
            };
            if open.ends_with(')') {
                rules.inner.push(open);
            } else {
                selector = Some(open);
            }
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use crate::state::*;

    fn user(uid: u32, name: &str, roles: &[u32], password: &str) -> User {
        User {
            uid: UserUid(uid),
            email: format!("{uid}@example.com"),
            name: name.to_owned(),
            role_uids: roles.iter().copied().map(RoleUid).collect(),
            passwords: vec![password.to_owned()],
            password_issue_date: Time(0),
            email_alerts: false,
            status: UserStatus::Active,
            certificate_subject_line: String::new(),
            last_login: None,
            failed_logins: 0,
            last_failure: None,
            locked_until: None,
        }
    }

    fn database(permissions: &[(u32, u32)]) -> Database {
        let permission = |(role_uid, redis_acl_uid): &(u32, u32)| RolePermission {
            role_uid: *role_uid,
            redis_acl_uid: *redis_acl_uid,
        };
        Database {
            uid: DatabaseUid(1),
            status: DatabaseStatus::Active,
            created: Time(0),
            last_changed: Time(0),
            settings: DatabaseSettings {
                roles_permissions: permissions.iter().map(permission).collect(),
                ..DatabaseSettings::default()
            },
            port: 12_000,
            placement: Placement {
                epoch: 1,
                primary: NodeUid(1),
                replicas: Vec::new(),
                holder: None,
            },
            shards: vec![ShardUid(1)],
            passwords: Vec::new(),
            alert_settings: BTreeMap::new(),
            disconnects: 0,
            topology_epoch: 1,
            stopped: false,
            revision: 1,
            action: None,
            replica_moved: None,
            transfers: Transfers::default(),
        }
    }

    fn state(users: Vec<User>) -> State {
        let acls = RedisAcl::built_in();
        let own =
            RedisAcl { uid: AclUid(17), name: "own".into(), acl: "&n (+get ~a) +set ~b".into() };
        State {
            users: users.into_iter().map(|user| (user.uid, user)).collect(),
            redis_acls: acls.into_iter().chain([own]).map(|acl| (acl.uid, acl)).collect(),
            ..State::default()
        }
    }

    #[test]
    fn a_user_has_the_rules_of_the_roles_it_has() {
        let users = vec![
            user(1, "both", &[1, 2], "hash #11"),
            user(2, "second", &[2], "hash #22"),
            user(3, "neither", &[3], "hash #33"),
            // Nobody could log in as these.
            user(4, "old", &[1], "hash"),
            user(5, "two words", &[1], "hash #55"),
            user(6, "default", &[1], "hash #66"),
            user(7, "", &[1], "hash #77"),
        ];
        let mut state = state(users);
        assert!(state.users_of(&database(&[])).is_empty());
        let shown = |state: &State, permissions: &[(u32, u32)]| {
            let users = state.users_of(&database(permissions)).into_iter();
            users.map(|(name, words)| format!("{name}: {}", words.join(" "))).collect::<Vec<_>>()
        };
        assert_eq!(shown(&state, &[(1, 2)]), ["both: on #11 resetchannels +@read ~*"]);
        assert_eq!(
            shown(&state, &[(2, 17), (1, 1)]),
            [
                "both: on #11 &n +set ~b (+get ~a) (resetchannels +@all ~*)",
                "second: on #22 &n +set ~b (+get ~a)",
            ]
        );
        assert_eq!(shown(&state, &[(1, 1), (2, 1)])[0], "both: on #11 resetchannels +@all ~*");
        assert!(shown(&state, &[(9, 1), (1, 9)]).is_empty());
        state.policy.acl_pubsub_default = PubsubDefault::Allchannels;
        assert_eq!(
            shown(&state, &[(1, 1), (2, 17)])[0],
            "both: on #11 allchannels +@all ~* (&n +set ~b) (+get ~a)"
        );
    }
}
