//! One authority between nodes takes the place of another: begun by an operator, carried on by what nodes
//! report, over when the old one is trusted nowhere.

use carnelian_tls::internode::{Phase, Plane, Report, Succession};

use crate::state::{
    ActionId, ActionKind, Authority, Detail, NodeStatus, NodeUid, Object, Outcome, Refused,
    Replacement, State, Time,
};

/// As many as links can be made to trust at once.
const AUTHORITIES_MAX: usize = 2;

impl State {
    pub(super) fn replace_authority(
        &mut self,
        authority: Authority,
        action: ActionId,
        at: Time,
    ) -> Result<Outcome, Refused> {
        // One that was given up is trusted until all nodes have heard of that.
        let [old] = &self.authorities[..] else {
            let description = "the authority is being replaced already";
            return Err(Refused::conflict("action_running", description));
        };
        if old.fingerprint == authority.fingerprint {
            return Err(Refused::conflict("authority_exists", "that is the authority there is"));
        }
        if let Some(node) = self.nodes.values().find(|node| node.status == NodeStatus::Down) {
            let description = format!("node {} is down; nothing was rotated", node.uid);
            return Err(Refused::bad("not_all_nodes_updated", description));
        }
        let succession = Succession::begin(&old.fingerprint, &authority.fingerprint);
        let (kind, object) = (ActionKind::ReplaceAuthority, Object::Authority);
        self.begin(action.clone(), kind, object, Default::default(), Detail::None, at)?;
        self.authorities.push(authority);
        let reports = Default::default();
        self.replacement = Some(Replacement { succession, reports, action: action.clone() });
        self.tell(at, "internode_ca_rotation_started", []);
        Ok(Outcome::Action(action))
    }

    pub(super) fn keep_authority(&mut self, at: Time) -> Result<Outcome, Refused> {
        let Some(replacement) = &mut self.replacement else {
            let description = "the authority is not being replaced";
            return Err(Refused::conflict("no_rotation_running", description));
        };
        if replacement.succession.phase == Phase::Abandoned {
            return Ok(Outcome::Unchanged);
        }
        let Some(abandoned) = replacement.succession.abandon() else {
            let description = "the new authority has signed certificates already";
            return Err(Refused::conflict("rotation_too_far", description));
        };
        replacement.succession = abandoned;
        let action = replacement.action.clone();
        self.finish_action(&action, Some("it was given up".to_owned()), at)?;
        self.go_on_replacing(at)?;
        Ok(Outcome::Done)
    }

    pub(super) fn report_trust(
        &mut self,
        node: NodeUid,
        report: Report,
        at: Time,
    ) -> Result<Outcome, Refused> {
        self.node(node)?;
        let Some(replacement) = &mut self.replacement else { return Ok(Outcome::Unchanged) };
        if AUTHORITIES_MAX < report.trusts.len().max(report.can_sign.len())
            || Plane::ALL.len() < report.leaves.len()
        {
            return Err(Refused::schema(
                "a node reports of two authorities and two planes at most",
            ));
        }
        if replacement.reports.get(&node) == Some(&report) {
            return Ok(Outcome::Unchanged);
        }
        replacement.reports.insert(node, report);
        self.go_on_replacing(at)?;
        Ok(Outcome::Done)
    }

    /// Makes all steps for which every member has done its part. To be called when one has, and when there
    /// is one member less.
    pub(super) fn go_on_replacing(&mut self, at: Time) -> Result<(), Refused> {
        let Self { nodes, replacement: Some(replacement), .. } = &mut *self else { return Ok(()) };
        let Replacement { succession, reports, action } = replacement;
        let members = nodes.keys().copied().collect();
        reports.retain(|node, _| nodes.contains_key(node));
        while let Some(next) = succession.advance(&members, reports) {
            *succession = next;
        }
        let (phase, action) = (succession.phase, action.clone());
        if succession.is_over(&members, reports) {
            let kept = succession.signer().to_owned();
            self.authorities.retain(|authority| authority.fingerprint == kept);
            self.replacement = None;
            if phase == Phase::OldDropped {
                self.tell(at, "internode_ca_rotated", []);
            }
        }
        // It may be over, and forgotten, while nodes have yet to hear that it was given up.
        if !self.actions.contains_key(&action) {
            return Ok(());
        }
        match phase {
            Phase::OldDropped if self.replacement.is_none() => {
                self.finish_action(&action, None, at).map(drop)
            }
            _ => self.advance_action(&action, progress(phase), phase.to_string(), at).map(drop),
        }
    }
}

fn progress(phase: Phase) -> f64 {
    let place = Phase::ALL.iter().position(|one| *one == phase).unwrap_or(0);
    (place * 20) as f64
}
