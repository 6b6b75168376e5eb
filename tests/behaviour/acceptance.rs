//! The checks by which the admin plane is accepted, and the tests that make them.

use std::fs::read_to_string;
use std::path::Path;

const REST: &str = "server/admin/tests/rest";
const HERE: &str = "tests/behaviour";

/// Folder, file, tests.
type Place = (&'static str, &'static str, &'static [&'static str]);

/// A check, and where it is made.
const CHECKS: &[(&str, &[Place])] = &[
    (
        "A fresh node tells of itself alone; it becomes a cluster once, which asks for credentials",
        &[(
            REST,
            "bootstrap.rs",
            &["a_fresh_node_answers_only_about_itself_and_becomes_a_cluster"],
        )],
    ),
    (
        "The printed call with its lower-case verb and typographic quotes; who is disconnected by it",
        &[
            (REST, "transport.rs", &["printed_calls_work_as_printed"]),
            (
                HERE,
                "control_plane.rs",
                &["the_documented_call_disconnects_the_clients_of_that_database_and_nobody_else"],
            ),
        ],
    ),
    (
        "The printed lines of rladmin, and what info and new databases say then",
        &[
            (REST, "rladmin.rs", &["a_cluster_is_made_and_tuned_as_the_documentation_says"]),
            (REST, "databases.rs", &["the_policy_is_for_new_databases_only"]),
            ("server/ctl/tests", "commands.rs", &["printed_commands_work_as_printed"]),
        ],
    ),
    (
        "What can be read on the wire between two nodes, with encryption off and on",
        &[(
            HERE,
            "capture.rs",
            &["values_are_readable_between_nodes_only_while_encryption_is_off"],
        )],
    ),
    (
        "No link without a certificate of the cluster; TLS 1.2 and 1.3, and four suites",
        &[
            (
                HERE,
                "internode_refusals.rs",
                &["nothing_but_tls_of_the_cluster_gets_through_the_tls_port"],
            ),
            (
                "tls/src/internode/tests",
                "handshakes.rs",
                &["hostile_greetings_are_refused_and_told_why"],
            ),
        ],
    ),
    (
        "Rotation by either verb: all leaves of all nodes, no full synchronisation, clients stay; \
         nothing of the authority is shown",
        &[
            (
                HERE,
                "cluster_refusals.rs",
                &[
                    "each_node_has_leaves_of_its_own_from_one_authority_and_all_are_replaced_under_load",
                ],
            ),
            (HERE, "control_plane.rs", &["certificates_between_nodes_are_rotated_by_either_verb"]),
            (
                REST,
                "certificates.rs",
                &[
                    "rotation_takes_both_verbs_and_names_only_what_is_internal",
                    "the_authority_and_internal_keys_are_never_shown",
                ],
            ),
        ],
    ),
    (
        "By the clock: day 29 and day 30, lives of 45 and 90 days, and the alert",
        &[
            (
                "server/cluster/src/state",
                "jobs.rs",
                &[
                    "a_leaf_is_renewed_on_its_thirtieth_day_by_a_run_of_the_job",
                    "certificates_are_renewed_with_the_first_run_from_the_thirtieth_day_on",
                ],
            ),
            (
                "tls/src/internode",
                "rotation.rs",
                &["the_alert_is_on_when_a_certificate_ends_and_nobody_is_about_to_replace_it"],
            ),
            (REST, "certificates.rs", &["the_rotation_job_can_be_set"]),
        ],
    ),
    (
        "Each node has two leaves of its own from the same authority",
        &[(
            HERE,
            "cluster_refusals.rs",
            &["each_node_has_leaves_of_its_own_from_one_authority_and_all_are_replaced_under_load"],
        )],
    ),
    (
        "Certificates that are replaced: refusals, and who is shown the good one",
        &[
            (REST, "certificates.rs", &["certificates_are_replaced_all_or_none"]),
            (
                HERE,
                "database_fields.rs",
                &["what_is_provided_for_clients_and_operators_is_what_they_are_shown_next"],
            ),
            (
                HERE,
                "internode_provided.rs",
                &["what_is_provided_for_links_between_nodes_is_what_they_show"],
            ),
        ],
    ),
    (
        "Every 2xx is JSON, and every 4xx has a code, a description and a message",
        &[(REST, "harness.rs", &["is_as_promised"])],
    ),
    (
        "Statistics and alerts have their shapes",
        &[(
            REST,
            "views.rs",
            &["figures_have_their_shapes_and_are_measured", "alerts_have_their_shapes_and_are_set"],
        )],
    ),
];

#[test]
fn every_check_has_its_test() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    for (check, places) in CHECKS {
        for (folder, file, tests) in *places {
            let text = read_to_string(root.join(folder).join(file)).expect(file);
            for test in *tests {
                assert!(text.contains(&format!("fn {test}(")), "{check}: {file}: {test}");
            }
        }
    }
}
