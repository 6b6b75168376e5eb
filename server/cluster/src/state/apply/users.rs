//! Users, roles, and the rules that databases give them.

use std::time::Duration;

use super::names;
use crate::state::{
    AclUid, CreateUser, Management, Outcome, RedisAcl, Refused, Role, RoleUid, State, Time, User,
    UserPatch, UserStatus, UserUid,
};

const USERS_MAX: usize = 32_000;

/// Roles and rules below this one come with the cluster.
const FIRST_OWN: u32 = 17;

impl State {
    pub(super) fn create_user(&mut self, new: CreateUser, at: Time) -> Result<Outcome, Refused> {
        names::email(&new.email)?;
        if new.password.is_empty() {
            return Err(Refused::bad("missing_field", "password is missing"));
        }
        self.check_new_names(None, Some(&new.email), Some(&new.name))?;
        let role_uids = self.roles_for(new.role_uids, new.role)?;
        if role_uids.is_empty() {
            return Err(Refused::bad("missing_field", "role or role_uids is missing"));
        }
        if self.users.len() >= USERS_MAX {
            return Err(Refused::invalid("too_many_users", "there are 32000 users"));
        }
        let uid = UserUid(self.next.user);
        self.next.user += 1;
        let user = User {
            uid,
            email: new.email,
            name: new.name,
            role_uids,
            passwords: vec![new.password],
            password_issue_date: at,
            email_alerts: new.email_alerts,
            status: UserStatus::Active,
            certificate_subject_line: String::new(),
            last_login: None,
            failed_logins: 0,
            last_failure: None,
            locked_until: None,
        };
        self.users.insert(uid, user);
        self.tell(at, "user_created", [("user_uid", uid.0.into())]);
        Ok(Outcome::User(uid))
    }

    pub(super) fn update_user(
        &mut self,
        uid: UserUid,
        patch: UserPatch,
        at: Time,
    ) -> Result<Outcome, Refused> {
        let before = self.user(uid)?.clone();
        if let Some(email) = &patch.email {
            names::email(email)?;
        }
        self.check_new_names(Some(uid), patch.email.as_deref(), patch.name.as_deref())?;
        let roles = match (patch.role_uids, patch.role) {
            (None, None) => None,
            (uids, role) => Some(self.roles_for(uids.unwrap_or_default(), role)?),
        };
        if roles.as_ref().is_some_and(Vec::is_empty) {
            return Err(Refused::bad("missing_field", "a user needs a role"));
        }
        if patch.passwords.as_ref().is_some_and(Vec::is_empty) {
            let description = "the last password cannot be deleted";
            return Err(Refused::bad("cannot_delete_last_password", description));
        }
        let user = self.users.get_mut(&uid).ok_or_else(unknown_user)?;
        user.email = patch.email.unwrap_or_else(|| before.email.clone());
        user.name = patch.name.unwrap_or_else(|| before.name.clone());
        user.email_alerts = patch.email_alerts.unwrap_or(before.email_alerts);
        if let Some(line) = patch.certificate_subject_line {
            user.certificate_subject_line = line;
        }
        if let Some(roles) = roles {
            user.role_uids = roles;
        }
        if let Some(passwords) = patch.passwords
            && passwords != before.passwords
        {
            user.passwords = passwords;
            if !patch.keeps_issue_date {
                user.password_issue_date = at;
            }
        }
        if patch.unlock {
            user.status = UserStatus::Active;
            (user.failed_logins, user.last_failure, user.locked_until) = (0, None, None);
        }
        if *user == before {
            return Ok(Outcome::Unchanged);
        }
        self.check_an_admin_is_left("change_last_admin_role_not_allowed", 400)?;
        self.tell(at, "user_updated", [("user_uid", uid.0.into())]);
        Ok(Outcome::User(uid))
    }

    pub(super) fn delete_user(
        &mut self,
        uid: UserUid,
        by: Option<UserUid>,
        at: Time,
    ) -> Result<Outcome, Refused> {
        self.user(uid)?;
        if by == Some(uid) {
            return Err(Refused::invalid("delete_self_not_allowed", "nobody deletes oneself"));
        }
        self.users.remove(&uid);
        self.check_an_admin_is_left("delete_last_admin_not_allowed", 406)?;
        self.tell(at, "user_deleted", [("user_uid", uid.0.into())]);
        Ok(Outcome::Done)
    }

    pub(super) fn note_login(
        &mut self,
        uid: UserUid,
        succeeded: bool,
        at: Time,
    ) -> Result<Outcome, Refused> {
        let threshold = self.policy.login_lockout_threshold;
        let duration = Duration::from_secs(self.policy.login_lockout_duration.into());
        let forgotten = Duration::from_secs(self.policy.login_lockout_counter_reset_after.into());
        let user = self.users.get_mut(&uid).ok_or_else(unknown_user)?;
        let served = user.locked_until.is_some_and(|until| until <= at);
        if served {
            (user.locked_until, user.failed_logins) = (None, 0);
        }
        if succeeded {
            // Who is locked out stays out, even with the right password.
            if user.locked_until.is_none() {
                user.status = UserStatus::Active;
                (user.failed_logins, user.last_failure) = (0, None);
                user.last_login = Some(at);
            }
            return Ok(Outcome::User(uid));
        }
        if user.last_failure.is_some_and(|last| at.since(last) >= forgotten) {
            user.failed_logins = 0;
        }
        user.failed_logins = user.failed_logins.saturating_add(1);
        user.last_failure = Some(at);
        if threshold > 0 && user.failed_logins >= threshold && user.locked_until.is_none() {
            user.status = UserStatus::Locked;
            // A duration of 0 locks until somebody unlocks.
            user.locked_until =
                Some(if duration.is_zero() { Time(u64::MAX) } else { at.plus(duration) });
        }
        Ok(Outcome::User(uid))
    }

    fn check_new_names(
        &self,
        own: Option<UserUid>,
        email: Option<&str>,
        name: Option<&str>,
    ) -> Result<(), Refused> {
        let mut others = self.users.values().filter(|user| Some(user.uid) != own);
        if let Some(email) = email
            && others.clone().any(|user| user.email.eq_ignore_ascii_case(email))
        {
            return Err(Refused::conflict("email_already_exists", "there is a user of this email"));
        }
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(()) };
        names::label_of("a user", name)?;
        if others.any(|user| user.name == name) {
            return Err(Refused::conflict("name_already_exists", "there is a user of this name"));
        }
        Ok(())
    }

    fn roles_for(
        &self,
        mut uids: Vec<RoleUid>,
        role: Option<Management>,
    ) -> Result<Vec<RoleUid>, Refused> {
        if uids.is_empty()
            && let Some(management) = role
        {
            let found = self.roles.values().find(|role| role.management == management);
            let missing = || Refused::bad("role_not_exist", "there is no role of that kind");
            uids.push(found.ok_or_else(missing)?.uid);
        }
        uids.dedup();
        match uids.iter().find(|uid| !self.roles.contains_key(uid)) {
            Some(uid) => Err(Refused::bad("role_not_exist", format!("there is no role {uid}"))),
            None => Ok(uids),
        }
    }

    fn check_an_admin_is_left(&self, code: &'static str, status: u16) -> Result<(), Refused> {
        let is_admin = |user: &User| self.management(user) == Management::Admin;
        match self.users.values().any(is_admin) {
            true => Ok(()),
            false => Err(Refused::new(status, code, "the cluster needs an admin")),
        }
    }

    fn user(&self, uid: UserUid) -> Result<&User, Refused> {
        self.users.get(&uid).ok_or_else(unknown_user)
    }

    pub(super) fn create_role(
        &mut self,
        name: String,
        management: Management,
    ) -> Result<Outcome, Refused> {
        names::label_of("a role", &name)?;
        if self.roles.values().any(|role| role.name == name) {
            return Err(Refused::bad("name_already_exists", "there is a role of this name"));
        }
        let uid = RoleUid(self.next.role);
        self.next.role += 1;
        self.roles.insert(uid, Role { uid, name, management });
        Ok(Outcome::Role(uid))
    }

    pub(super) fn update_role(
        &mut self,
        uid: RoleUid,
        name: Option<String>,
        management: Option<Management>,
    ) -> Result<Outcome, Refused> {
        let before = self.roles.get(&uid).ok_or_else(unknown_role)?.clone();
        if let Some(name) = &name {
            names::label_of("a role", name)?;
            if self.roles.values().any(|role| role.uid != uid && role.name == *name) {
                return Err(Refused::bad("name_already_exists", "there is a role of this name"));
            }
        }
        let role = Role {
            uid,
            name: name.unwrap_or_else(|| before.name.clone()),
            management: management.unwrap_or(before.management),
        };
        if role == before {
            return Ok(Outcome::Unchanged);
        }
        self.roles.insert(uid, role);
        self.check_an_admin_is_left("change_last_admin_role_not_allowed", 400)?;
        Ok(Outcome::Role(uid))
    }

    pub(super) fn delete_role(&mut self, uid: RoleUid) -> Result<Outcome, Refused> {
        self.roles.remove(&uid).ok_or_else(unknown_role)?;
        if uid.0 < FIRST_OWN {
            return Err(Refused::invalid("built_in_role", "the cluster's own roles stay"));
        }
        let by_user = self.users.values().any(|user| user.role_uids.contains(&uid));
        let by_database = self.permissions().any(|(role, _)| role == uid.0);
        if by_user || by_database {
            return Err(Refused::invalid("role_in_use", "a user or a database has this role"));
        }
        Ok(Outcome::Done)
    }

    pub(super) fn create_acl(&mut self, name: String, acl: String) -> Result<Outcome, Refused> {
        names::label_of("a redis_acl", &name)?;
        if self.redis_acls.values().any(|one| one.name == name) {
            return Err(Refused::conflict("name_already_exists", "there is one of this name"));
        }
        RedisAcl::check(&acl)?;
        let uid = AclUid(self.next.acl);
        self.next.acl += 1;
        self.redis_acls.insert(uid, RedisAcl { uid, name, acl });
        Ok(Outcome::Acl(uid))
    }

    pub(super) fn update_acl(
        &mut self,
        uid: AclUid,
        name: Option<String>,
        rules: Option<String>,
    ) -> Result<Outcome, Refused> {
        let before = self.redis_acls.get(&uid).ok_or_else(unknown_acl)?.clone();
        check_own(uid)?;
        if let Some(name) = &name {
            names::label_of("a redis_acl", name)?;
            if self.redis_acls.values().any(|one| one.uid != uid && one.name == *name) {
                return Err(Refused::conflict("name_already_exists", "there is one of this name"));
            }
        }
        if let Some(rules) = &rules {
            RedisAcl::check(rules)?;
        }
        let acl = RedisAcl {
            uid,
            name: name.unwrap_or_else(|| before.name.clone()),
            acl: rules.unwrap_or_else(|| before.acl.clone()),
        };
        if acl == before {
            return Ok(Outcome::Unchanged);
        }
        self.redis_acls.insert(uid, acl);
        // Databases whose users have these rules have to take them over.
        for database in self.databases.values_mut() {
            if database.settings.roles_permissions.iter().any(|it| it.redis_acl_uid == uid.0) {
                database.revision += 1;
            }
        }
        Ok(Outcome::Acl(uid))
    }

    pub(super) fn delete_acl(&mut self, uid: AclUid) -> Result<Outcome, Refused> {
        self.redis_acls.remove(&uid).ok_or_else(unknown_acl)?;
        check_own(uid)?;
        if self.permissions().any(|(_, acl)| acl == uid.0) {
            return Err(Refused::conflict("redis_acl_in_use", "a database has these rules"));
        }
        Ok(Outcome::Done)
    }

    /// Roles and rules that databases name.
    fn permissions(&self) -> impl Iterator<Item = (u32, u32)> {
        let all = self.databases.values().flat_map(|it| &it.settings.roles_permissions);
        all.map(|permission| (permission.role_uid, permission.redis_acl_uid))
    }
}

fn check_own(uid: AclUid) -> Result<(), Refused> {
    match uid.0 < FIRST_OWN {
        true => Err(Refused::conflict("built_in_acl", "the cluster's own rules stay as they are")),
        false => Ok(()),
    }
}

fn unknown_user() -> Refused {
    Refused::unknown("user_not_exist", "there is no such user")
}

fn unknown_role() -> Refused {
    Refused::unknown("role_not_exist", "there is no such role")
}

fn unknown_acl() -> Refused {
    Refused::unknown("redis_acl_not_exist", "there are no such rules")
}
