//! Making a change, or refusing it.

mod actions;
mod authorities;
mod certificates;
mod clients;
mod databases;
mod names;
mod nodes;
mod settings;
#[cfg(test)]
pub(crate) mod tests;
mod transfers;
mod users;

use serde_json::{Map, Value};

pub use names::SYSTEM_RESERVED_PORTS;

use super::{Change, EVENTS_MAX, Event, Outcome, Refused, Severity, State, Time};

impl State {
    /// Makes the change as of `at`. If it is refused the state is what it was.
    pub fn apply(&mut self, change: Change, at: Time) -> Result<Outcome, Refused> {
        // On a copy, so that nothing can be half done: changes are rare, and readers hold on to the
        // state before it anyway.
        let mut next = self.clone();
        let outcome = next.make(change, at)?;
        next.end_unawaited(at)?;
        if outcome != Outcome::Unchanged {
            next.revision += 1;
            *self = next;
        }
        Ok(outcome)
    }

    fn make(&mut self, change: Change, at: Time) -> Result<Outcome, Refused> {
        let change = match change {
            Change::CreateCluster(new) => return self.create_cluster(*new, at),
            _ if self.cluster.is_none() => {
                return Err(Refused::new(503, "not_bootstrapped", "there is no cluster yet"));
            }
            change => change,
        };
        match change {
            Change::CreateCluster(_) => Ok(Outcome::Unchanged),
            Change::SetCluster { patch, alerts } => self.set_cluster(&patch, &alerts, at),
            Change::SetPolicy(patch) => self.set_policy(&patch, at),
            Change::SetJobs(patch) => self.set_jobs(&patch, at),

            Change::AddNode(new) => self.add_node(*new, at),
            Change::UpdateNode { node, patch } => self.update_node(node, &patch),
            Change::ReportNode { node, status, facts } => self.report_node(node, status, facts, at),
            Change::RemoveNode { node, action } => self.remove_node(node, action, at),
            Change::SetMaintenance { node, on, action } => {
                self.set_maintenance(node, on, action, at)
            }

            Change::CreateDatabase { spec, on, admin_password, action } => {
                self.create_database(*spec, on, admin_password, action, at)
            }
            Change::UpdateDatabase { database, patch, action } => {
                self.update_database(database, *patch, action, at)
            }
            Change::DeleteDatabase { database, action } => {
                self.delete_database(database, action, at)
            }
            Change::ChangePasswords { database, change } => {
                self.change_passwords(database, change, at)
            }
            Change::SetDatabaseAlerts { database, alerts } => {
                self.set_database_alerts(database, &alerts)
            }
            Change::SetTraffic { database, stopped } => self.set_traffic(database, stopped),
            Change::StartTransfer { database, kind, locations, id } => {
                self.start_transfer(database, kind, locations, id, at)
            }
            Change::ReportTransfer { database, kind, id, report } => {
                self.report_transfer(database, kind, &id, report, at)
            }
            Change::ResetTransfer { database, kind } => self.reset_transfer(database, kind),
            Change::Promote { database, node, epoch, action, holder } => {
                self.promote(database, (node, holder), epoch, action, at)
            }
            Change::Hold { database, epoch, holder } => self.hold(database, epoch, holder),
            Change::Recover { database, epoch } => self.recover(database, epoch, at),
            Change::MoveReplica { database, from, to, epoch } => {
                self.move_replica(database, (from, to), epoch, at)
            }
            Change::SetReplicas { database, replicas, epoch, action } => {
                self.set_replicas(database, replicas, epoch, action, at)
            }

            Change::Rebalance { database, primary, replicas, epoch, action } => {
                self.rebalance(database, (primary, replicas), epoch, action, at)
            }

            Change::ConfirmAction { action, node, error } => {
                self.confirm_action(&action, node, error, at)
            }
            Change::AdvanceAction { action, progress, step } => {
                self.advance_action(&action, progress, step, at)
            }
            Change::FinishAction { action, error } => self.finish_action(&action, error, at),

            Change::CreateUser(new) => self.create_user(*new, at),
            Change::UpdateUser { user, patch } => self.update_user(user, *patch, at),
            Change::DeleteUser { user, by } => self.delete_user(user, by, at),
            Change::NoteLogin { user, succeeded } => self.note_login(user, succeeded, at),
            Change::CreateRole { name, management } => self.create_role(name, management),
            Change::UpdateRole { role, name, management } => {
                self.update_role(role, name, management)
            }
            Change::DeleteRole { role } => self.delete_role(role),
            Change::CreateAcl { name, acl } => self.create_acl(name, acl),
            Change::UpdateAcl { acl, name, rules } => self.update_acl(acl, name, rules),
            Change::DeleteAcl { acl } => self.delete_acl(acl),

            Change::RotateCertificates { name, action } => {
                self.rotate_certificates(name, action, at)
            }
            Change::ReportCertificates { node, certificates } => {
                self.report_certificates(node, certificates)
            }
            Change::SetCertificates(certificates) => self.set_certificates(certificates, at),
            Change::DropCertificate(name) => self.drop_certificate(name, at),
            Change::ReplaceAuthority { authority, action } => {
                self.replace_authority(*authority, action, at)
            }
            Change::KeepAuthority => self.keep_authority(at),
            Change::ReportTrust { node, report } => self.report_trust(node, report, at),
            Change::AddClientAuthority { authority, after } => {
                self.add_client_authority(*authority, after.as_deref(), at)
            }
            Change::SwitchClientAuthority { from, complete } => {
                self.switch_client_authority(&from, complete, at)
            }
            Change::DropClientAuthority { fingerprint } => {
                self.drop_client_authority(&fingerprint, at)
            }

            Change::Note { kind, severity, fields } => {
                self.note(at, &kind, severity, fields);
                Ok(Outcome::Done)
            }
            Change::Tidy => Ok(self.tidy(at)),
        }
    }

    /// Remembers that something happened.
    fn note(&mut self, at: Time, kind: &str, severity: Severity, fields: Map<String, Value>) {
        let id = self.next.event;
        self.next.event += 1;
        if self.events.len() >= EVENTS_MAX {
            // Many at once, so that this moves the others seldom.
            self.events.drain(..EVENTS_MAX / 10);
        }
        self.events.push(Event { id, time: at, kind: kind.to_owned(), severity, fields });
    }

    fn tell<const N: usize>(&mut self, at: Time, kind: &str, fields: [(&str, Value); N]) {
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        self.note(at, kind, Severity::Info, fields);
    }
}
