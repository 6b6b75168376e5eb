//! Nodes: joining, being replaced, leaving, maintenance.

use super::*;

#[test]
fn nodes_join_with_an_address_of_their_own_up_to_nine() {
    let mut state = cluster(2);
    refused(&state, add_node("10.0.0.2"), 409, "node_address_in_use");
    let replace = |node| {
        let (settings, facts) = (node_settings("10.0.0.77"), NodeFacts::default());
        Change::AddNode(Box::new(AddNode { settings, facts, replace: Some(NodeUid(node)) }))
    };
    refused(&state, replace(9), 404, "node_not_exist");
    refused(&state, replace(2), 406, "node_not_offline");
    for node in 3..=9 {
        state.apply(add_node(&format!("10.0.0.{node}")), AT).unwrap();
    }
    refused(&state, add_node("10.0.0.10"), 406, "too_many_nodes");
    state.apply(report(2, NodeStatus::Down), AT).unwrap();
    assert_eq!(state.apply(replace(2), AT), Ok(Outcome::Node(NodeUid(10))));
    assert!(state.removed_nodes.contains(&NodeUid(2)) && !state.is_member(NodeUid(2)));
    let mut racks = cluster(1);
    let rack = NodePatch { rack_id: Some("a".into()), ..NodePatch::default() };
    let set_rack = Change::UpdateNode { node: NodeUid(1), patch: Box::new(rack) };
    let aware = PolicyPatch { rack_aware: Some(true), ..PolicyPatch::default() };
    refused(&racks, Change::SetPolicy(Box::new(aware.clone())), 400, "rack_id_required");
    racks.apply(set_rack, AT).unwrap();
    racks.apply(Change::SetPolicy(Box::new(aware)), AT).unwrap();
    refused(&racks, add_node("10.0.0.2"), 406, "rack_id_required");
    let other = NodePatch { rack_id: Some("b".into()), ..NodePatch::default() };
    let change = Change::UpdateNode { node: NodeUid(1), patch: Box::new(other) };
    refused(&racks, change, 406, "node_already_has_rack_id");
}

#[test]
fn a_dead_node_is_replaced_unless_it_has_the_only_copy_of_something() {
    let mut state = with_database(3, json!({"replication": true}));
    let placement = state.databases[&DatabaseUid(1)].placement.clone();
    for node in [placement.primary, placement.replicas[0]] {
        state.apply(report(node.0, NodeStatus::Down), AT).unwrap();
    }
    let replace = |node| {
        let (settings, facts) = (node_settings("10.0.0.77"), NodeFacts::default());
        Change::AddNode(Box::new(AddNode { settings, facts, replace: Some(node) }))
    };
    refused(&state, replace(placement.primary), 406, "node_already_populated");
    state.apply(replace(placement.replicas[0]), AT).unwrap();
    let now = &state.databases[&DatabaseUid(1)].placement;
    assert_eq!((now.replicas[0], now.epoch), (NodeUid(4), placement.epoch + 1));
}

#[test]
fn nodes_are_changed_within_bounds() {
    let mut state = cluster(2);
    let change = |node, patch| Change::UpdateNode { node: NodeUid(node), patch: Box::new(patch) };
    let addr = NodePatch { addr: Some("10.9.9.9".into()), ..NodePatch::default() };
    refused(&state, change(9, addr.clone()), 404, "node_not_exist");
    refused(&state, change(2, addr.clone()), 406, "node_not_offline");
    let none = NodePatch { max_listeners: Some(0), ..NodePatch::default() };
    refused(&state, change(2, none), 400, "invalid_param");
    state.apply(report(2, NodeStatus::Down), AT).unwrap();
    state.apply(change(2, addr), AT).unwrap();
    assert_eq!(state.nodes[&NodeUid(2)].internode_address(), "10.9.9.9:3342");
    refused(&state, report(9, NodeStatus::Down), 404, "node_not_exist");
}

#[test]
fn a_node_leaves_when_nothing_is_left_on_it() {
    let remove = |node, name| Change::RemoveNode { node: NodeUid(node), action: action(name) };
    let finish = |name| Change::FinishAction { action: action(name), error: None };
    refused(&cluster(1), remove(1, "r"), 406, "last_node");
    let mut state = with_database(2, json!({"replication": true}));
    refused(&state, remove(9, "r"), 404, "node_not_exist");
    let replica = state.databases[&DatabaseUid(1)].placement.replicas[0];
    state.apply(remove(replica.0, "r"), AT).unwrap();
    refused(&state, remove(replica.0, "s"), 409, "action_running");
    refused(&state, finish("r"), 409, "node_not_empty");
    let empty = Change::SetReplicas {
        database: DatabaseUid(1),
        replicas: Vec::new(),
        epoch: 1,
        action: None,
    };
    state.apply(empty, AT).unwrap();
    state.apply(finish("r"), AT).unwrap();
    assert!(!state.is_member(replica) && state.removed_nodes.contains(&replica));

    let mut state = with_database(2, json!({}));
    let primary = state.databases[&DatabaseUid(1)].placement.primary;
    let other = NodeUid(3 - primary.0);
    state.apply(report(other.0, NodeStatus::Down), AT).unwrap();
    refused(&state, remove(primary.0, "r"), 406, "insufficient_resources");
    state.apply(report(other.0, NodeStatus::Active), AT).unwrap();
    state.apply(report(primary.0, NodeStatus::Down), AT).unwrap();
    refused(&state, remove(primary.0, "r"), 409, "node_already_populated");
}

#[test]
fn who_is_on_the_way_out_votes_no_more_and_is_nobody_to_stay_behind() {
    let remove = |node| Change::RemoveNode { node: NodeUid(node), action: action("r") };
    let mut state = cluster(3);
    let all = [1, 2, 3].map(NodeUid).into();
    assert_eq!(crate::placement::voters(&state, &all), all);
    state.apply(remove(3), AT).unwrap();
    assert_eq!(crate::placement::voters(&state, &all), [1, 2].map(NodeUid).into());
    assert!(state.is_leaving(NodeUid(3)) && !state.is_leaving(NodeUid(2)));

    let mut state = cluster(2);
    state.apply(remove(1), AT).unwrap();
    let other = Change::RemoveNode { node: NodeUid(2), action: action("s") };
    refused(&state, other, 406, "last_node");
}

#[test]
fn maintenance_keeps_in_mind_what_a_node_was_primary_of() {
    let set =
        |node, on, name| Change::SetMaintenance { node: NodeUid(node), on, action: action(name) };
    refused(&with_database(1, json!({})), set(1, true, "m"), 406, "insufficient_resources");
    refused(&cluster(1), set(9, true, "m"), 404, "node_not_exist");
    let mut state = with_database(2, json!({}));
    let primary = state.databases[&DatabaseUid(1)].placement.primary;
    state.apply(set(primary.0, true, "on"), AT).unwrap();
    assert_eq!(state.nodes[&primary].maintenance_snapshot, [DatabaseUid(1)]);
    refused(&state, set(primary.0, false, "off"), 409, "action_running");
}

#[test]
fn a_node_on_its_way_out_is_still_when_it_comes_back() {
    let mut state = with_database(3, json!({"replication": true}));
    let node = state.databases[&DatabaseUid(1)].placement.replicas[0];
    let remove = Change::RemoveNode { node, action: action("away") };
    state.apply(remove, AT).expect("it may go");
    for (status, seen) in
        [(NodeStatus::Down, NodeStatus::Down), (NodeStatus::Active, NodeStatus::Decommissioning)]
    {
        state.apply(report(node.0, status), AT).expect("it is a node");
        assert_eq!(state.nodes[&node].status, seen);
    }
}
