//! Users, roles and rules.

use super::*;

#[test]
fn users_have_emails_of_their_own_and_an_admin_is_always_left() {
    let mut state = cluster(1);
    let new = |email: &str, name: &str, role| {
        Change::CreateUser(Box::new(CreateUser {
            email: email.to_owned(),
            name: name.to_owned(),
            password: "hash".to_owned(),
            role,
            ..CreateUser::default()
        }))
    };
    let viewer = Some(Management::DbViewer);
    refused(&state, new("ADMIN@cluster.local", "", viewer), 409, "email_already_exists");
    refused(&state, new("", "", viewer), 400, "missing_field");
    refused(&state, new("a@b", "", None), 400, "missing_field");
    refused(&state, new("a@b", "", Some(Management::UserManager)), 400, "role_not_exist");
    refused(&state, new("a@b", "x\n", viewer), 400, "invalid_name");
    state.apply(new("a@b", "a", viewer), AT).unwrap();
    refused(&state, new("c@d", "a", viewer), 409, "name_already_exists");

    let patch = |user, patch| Change::UpdateUser { user: UserUid(user), patch: Box::new(patch) };
    let role = UserPatch { role: Some(Management::None), ..UserPatch::default() };
    refused(&state, patch(1, role), 400, "change_last_admin_role_not_allowed");
    let none = UserPatch { passwords: Some(Vec::new()), ..UserPatch::default() };
    refused(&state, patch(1, none), 400, "cannot_delete_last_password");
    let roles = UserPatch { role_uids: Some(vec![RoleUid(99)]), ..UserPatch::default() };
    refused(&state, patch(1, roles), 400, "role_not_exist");
    let no_roles = UserPatch { role_uids: Some(Vec::new()), ..UserPatch::default() };
    refused(&state, patch(1, no_roles), 400, "missing_field");
    let taken = UserPatch { email: Some("a@b".into()), ..UserPatch::default() };
    refused(&state, patch(1, taken), 409, "email_already_exists");
    refused(&state, patch(9, UserPatch::default()), 404, "user_not_exist");

    let delete = |user, by| Change::DeleteUser { user: UserUid(user), by };
    refused(&state, delete(1, Some(UserUid(1))), 406, "delete_self_not_allowed");
    refused(&state, delete(1, None), 406, "delete_last_admin_not_allowed");
    refused(&state, delete(9, None), 404, "user_not_exist");
    state.apply(delete(2, None), AT).unwrap();
}

#[test]
fn failed_logins_lock_for_a_while() {
    let mut state = cluster(1);
    let login = |succeeded| Change::NoteLogin { user: UserUid(1), succeeded };
    for _ in 0..5 {
        state.apply(login(false), AT).unwrap();
    }
    assert_eq!(state.users[&UserUid(1)].status, UserStatus::Locked);
    state.apply(login(true), AT).unwrap();
    assert_eq!(state.users[&UserUid(1)].status, UserStatus::Locked);
    let later = Time(AT.0 + 1_800_000);
    state.apply(login(true), later).unwrap();
    assert_eq!(state.users[&UserUid(1)].status, UserStatus::Active);
    let unknown = Change::NoteLogin { user: UserUid(7), succeeded: true };
    refused(&state, unknown, 404, "user_not_exist");
}

#[test]
fn built_in_roles_and_rules_stay_and_used_ones_too() {
    let mut state = cluster(1);
    let role =
        |name: &str| Change::CreateRole { name: name.to_owned(), management: Management::DbMember };
    assert_eq!(state.apply(role("mine"), AT), Ok(Outcome::Role(RoleUid(17))));
    refused(&state, role("mine"), 400, "name_already_exists");
    refused(&state, role(""), 400, "missing_field");
    let rename = |role, name: &str| Change::UpdateRole {
        role: RoleUid(role),
        name: Some(name.to_owned()),
        management: None,
    };
    refused(&state, rename(17, "Admin"), 400, "name_already_exists");
    refused(&state, rename(99, "x"), 404, "role_not_exist");
    let weaken =
        Change::UpdateRole { role: RoleUid(1), name: None, management: Some(Management::None) };
    refused(&state, weaken, 400, "change_last_admin_role_not_allowed");
    let delete = |role| Change::DeleteRole { role: RoleUid(role) };
    refused(&state, delete(2), 406, "built_in_role");
    refused(&state, delete(99), 404, "role_not_exist");

    let acl = |name: &str, acl: &str| Change::CreateAcl { name: name.into(), acl: acl.into() };
    assert_eq!(state.apply(acl("mine", "+get ~a* (+set ~b*)"), AT), Ok(Outcome::Acl(AclUid(17))));
    refused(&state, acl("mine", "+@all"), 409, "name_already_exists");
    refused(&state, acl("", "+@all"), 400, "missing_field");
    for rules in ["", "get", "(+get", "+get)", ">password", "nopass"] {
        refused(&state, acl("other", rules), 400, "invalid_param");
    }
    let rules =
        |acl| Change::UpdateAcl { acl: AclUid(acl), name: None, rules: Some("+get".into()) };
    refused(&state, rules(1), 409, "built_in_acl");
    refused(&state, rules(99), 404, "redis_acl_not_exist");
    let delete_acl = |acl| Change::DeleteAcl { acl: AclUid(acl) };
    refused(&state, delete_acl(1), 409, "built_in_acl");
    refused(&state, delete_acl(99), 404, "redis_acl_not_exist");
    let permission = json!([{"role_uid": 17, "redis_acl_uid": 17}]);
    let spec = json!({"name": "db", "memory_size": 0, "roles_permissions": permission});
    state.apply(create(spec, "c"), AT).unwrap();
    refused(&state, delete(17), 406, "role_in_use");
    refused(&state, delete_acl(17), 409, "redis_acl_in_use");
}
