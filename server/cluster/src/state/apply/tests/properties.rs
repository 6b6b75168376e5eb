//! Changes of every kind, in any order.

use carnelian_tls::internode::{Plane, Report};
use proptest::prelude::*;

use super::*;

/// Changes of every kind, mostly about things that are there.
fn any_change() -> impl Strategy<Value = Change> {
    let node = || (0..6_u32).prop_map(NodeUid);
    let database = || (0..4_u32).prop_map(DatabaseUid);
    let id = || (0..40_u32).prop_map(|number| ActionId(format!("a{number}")));
    let name = || prop::sample::select(vec!["a", "b", "c", "", "no good"]);
    let subset = || {
        let names = vec!["first", "a", "b"];
        prop::sample::subsequence(names, 0..=3)
            .prop_map(|names| names.into_iter().map(str::to_owned).collect())
    };
    let wire = || {
        (
            name(),
            any::<bool>(),
            any::<bool>(),
            any::<bool>(),
            prop::option::of(prop::sample::select(vec![0_u16, 1, 3342, 12_000, 65_535])),
            prop::option::of(any::<u32>()),
        )
            .prop_map(|(name, replication, encryption, graceful, port, uid)| {
                let patch = DatabasePatch {
                    name: Some(name.to_owned()),
                    memory_size: Some(0),
                    replication: Some(replication),
                    data_internode_encryption: Some(encryption),
                    port,
                    ..DatabasePatch::default()
                };
                Box::new(WirePatch { patch, uid: uid.map(DatabaseUid), password: None, graceful })
            })
    };
    let statuses = vec![NodeStatus::Active, NodeStatus::Down, NodeStatus::Provisioning];
    prop_oneof![
        3 => (0..9_u8, prop::option::of(node())).prop_map(|(addr, replace)| {
            let settings = node_settings(&format!("10.0.0.{addr}"));
            Change::AddNode(Box::new(AddNode { settings, facts: NodeFacts::default(), replace }))
        }),
        6 => (node(), prop::sample::select(statuses)).prop_map(|(node, status)| {
            Change::ReportNode { node, status, facts: None }
        }),
        2 => (node(), id()).prop_map(|(node, action)| Change::RemoveNode { node, action }),
        2 => (node(), any::<bool>(), id())
            .prop_map(|(node, on, action)| Change::SetMaintenance { node, on, action }),
        4 => (wire(), prop::option::of(node()), id()).prop_map(|(spec, on, action)| {
            Change::CreateDatabase { spec, on, admin_password: String::new(), action }
        }),
        4 => (database(), wire(), id())
            .prop_map(|(database, patch, action)| Change::UpdateDatabase { database, patch, action }),
        2 => (database(), id())
            .prop_map(|(database, action)| Change::DeleteDatabase { database, action }),
        4 => (database(), node(), 0..6_u64, prop::option::of(id()))
            .prop_map(|(database, node, epoch, action)| Change::Promote {
                database,
                node,
                epoch,
                action,
                holder: None,
            }),
        4 => (database(), prop::collection::vec(node(), 0..3), 0..6_u64)
            .prop_map(|(database, replicas, epoch)| Change::SetReplicas {
                database,
                replicas,
                epoch,
                action: None,
            }),
        9 => (id(), node(), prop::option::weighted(0.2, Just("no".to_owned())))
            .prop_map(|(action, node, error)| Change::ConfirmAction { action, node, error }),
        3 => (id(), prop::option::of(Just("no".to_owned())))
            .prop_map(|(action, error)| Change::FinishAction { action, error }),
        1 => (id(), any::<f64>()).prop_map(|(action, progress)| {
            Change::AdvanceAction { action, progress, step: String::new() }
        }),
        1 => id().prop_map(|action| Change::RotateCertificates { name: None, action }),
        1 => (database(), any::<bool>())
            .prop_map(|(database, stopped)| Change::SetTraffic { database, stopped }),
        3 => (database(), kind(), id()).prop_map(|(database, kind, id)| Change::StartTransfer {
            database,
            kind,
            locations: vec![Location::MountPoint { path: "/there".to_owned() }],
            id,
        }),
        3 => (database(), kind(), id(), report_of_transfer()).prop_map(
            |(database, kind, id, report)| Change::ReportTransfer { database, kind, id, report }
        ),
        1 => (database(), kind())
            .prop_map(|(database, kind)| Change::ResetTransfer { database, kind }),
        1 => (database(), node(), prop::collection::vec(node(), 0..2), 0..6_u64, id()).prop_map(
            |(database, primary, replicas, epoch, action)| Change::Rebalance {
                database,
                primary,
                replicas,
                epoch,
                action,
            }
        ),
        1 => (id(), name()).prop_map(|(action, name)| Change::ReplaceAuthority {
            authority: Box::new(authority(name)),
            action,
        }),
        1 => Just(Change::KeepAuthority),
        6 => (node(), subset(), subset(), name()).prop_map(|(node, trusts, can_sign, shows)| {
            let leaves = Plane::ALL.map(|plane| (plane, shows.to_owned())).into();
            Change::ReportTrust { node, report: Report { trusts, can_sign, leaves, old_links: 0 } }
        }),
        1 => Just(Change::Tidy),
    ]
}

fn kind() -> impl Strategy<Value = TransferKind> {
    prop::sample::select(TransferKind::ALL.to_vec())
}

fn report_of_transfer() -> impl Strategy<Value = TransferReport> {
    prop_oneof![
        Just(TransferReport::Begun),
        any::<u8>().prop_map(TransferReport::Progress),
        Just(TransferReport::Succeeded),
        Just(TransferReport::Failed("no".to_owned())),
    ]
}

/// What holds whatever was asked for.
fn check(state: &State) {
    for database in state.databases.values() {
        let nodes: Vec<_> = database.placement.nodes().collect();
        let distinct: std::collections::BTreeSet<_> = nodes.iter().collect();
        assert_eq!(distinct.len(), nodes.len(), "a node has one shard of a database");
        assert_eq!(database.shards.len(), nodes.len(), "each has its shard");
        assert!(nodes.iter().all(|node| state.is_member(*node)), "shards are on members");
        let busy = state.running(Object::Database(database.uid)).map(|action| &action.id);
        assert_eq!(database.action.as_ref(), busy, "a database knows its action");
        let transfers = TransferKind::ALL.map(|kind| database.transfers.of(kind));
        let under_way = transfers.iter().filter(|transfer| transfer.is_under_way());
        assert!(under_way.clone().count() <= 1, "one transfer at a time");
        let is_member = |node: NodeUid| state.is_member(node);
        assert!(under_way.flat_map(|it| it.node).all(is_member), "members do the work");
        assert!(transfers.iter().all(|transfer| transfer.progress <= 100));
        if database.status == DatabaseStatus::ImportPending {
            assert!(database.transfers.import.is_under_way(), "it ends with the import");
        }
    }
    for action in state.actions.values() {
        assert!(action.progress.is_finite());
        assert!(action.awaits.iter().all(|node| state.is_member(*node)), "members do the work");
        let same = state.actions.values().filter(|it| it.object == action.object);
        assert!(same.filter(|it| !it.status.is_over()).count() <= 1, "one action per object");
    }
    assert!(state.nodes.len() <= NODES_MAX && !state.nodes.is_empty());
    assert!(state.removed_nodes.iter().all(|node| !state.is_member(*node)));
    assert!(!state.trusted_authorities().is_empty() && state.signing_authority().is_some());
    assert_eq!(state.authorities.len(), if state.replacement.is_some() { 2 } else { 1 });
}

proptest! {
    #[test]
    fn changes_are_made_whole_or_not_at_all_and_alike_everywhere(
        changes in prop::collection::vec(any_change(), 1..60)
    ) {
        let mut state = cluster(2);
        let mut epochs = BTreeMap::new();
        for change in changes {
            let (before, mut twin) = (state.clone(), state.clone());
            let result = state.apply(change.clone(), AT);
            prop_assert_eq!(&twin.apply(change, AT), &result);
            prop_assert!(twin == state, "the same change has the same result");
            match result {
                Err(_) | Ok(Outcome::Unchanged) => prop_assert!(state == before),
                Ok(_) => prop_assert!(state.revision == before.revision + 1),
            }
            check(&state);
            for database in state.databases.values() {
                let epoch = database.placement.epoch;
                let last = epochs.insert(database.uid, (database.created, epoch));
                prop_assert!(last.is_none_or(|(_, last)| last <= epoch || epoch == 1));
            }
        }
        let bytes = serde_json::to_vec(&state).unwrap();
        let read: State = serde_json::from_slice(&bytes).unwrap();
        prop_assert!(read == state, "what is stored is what was there");
    }
}
