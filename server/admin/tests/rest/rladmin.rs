//! `rladmin` against this interface: the lines of the documentation, from end to end.

use std::path::PathBuf;
use std::process::Output;
use std::sync::OnceLock;

use serde_json::json;

use crate::harness::{PASSWORD, Rig, USER};

/// The program, built from the sources that are there.
fn program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let test = std::env::current_exe().expect("the path of the running test");
        let target = test.parent().and_then(|deps| deps.parent()).expect("a folder of builds");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = std::process::Command::new(cargo)
            .args(["build", "--quiet", "-p", "carnelian-ctl", "--bin", "rladmin"])
            .status()
            .expect("cargo can be run");
        assert!(status.success(), "building rladmin failed");
        target.join("rladmin")
    };
    PROGRAM.get_or_init(build).clone()
}

async fn run(rig: &Rig, line: &str) -> Output {
    let program = tokio::task::spawn_blocking(program).await.unwrap();
    tokio::process::Command::new(program)
        .env("CARNELIAN_SOCKET", rig.folder.path().join("admin.sock"))
        .args(line.split_whitespace())
        .output()
        .await
        .unwrap()
}

async fn prints(rig: &Rig, line: &str) -> String {
    let output = run(rig, line).await;
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_made_and_tuned_as_the_documentation_says() {
    let rig = Rig::fresh().await;
    let line = format!("cluster create name c.local username {USER} password {PASSWORD}");
    assert_eq!(prints(&rig, &line).await, "Creating a new cluster... ok\n");
    let output = run(&rig, &line).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");

    rig.database("one").await;
    rig.database("two").await;
    let tuned = "Tuning database: o\nFinished successfully\n";
    assert_eq!(prints(&rig, "tune db 1 data_internode_encryption enable").await, tuned);
    assert_eq!(prints(&rig, "tune db db:2 data_internode_encryption enabled").await, tuned);
    assert_eq!(prints(&rig, "tune db db:2 data_internode_encryption disabled").await, tuned);
    let line = "tune cluster data_internode_encryption enable";
    assert_eq!(prints(&rig, line).await, "Finished successfully\n");
    let shown = prints(&rig, "info db db:1").await;
    assert!(shown.contains("    data_internode_encryption: enabled\n"), "{shown}");
    let shown = prints(&rig, "info db two").await;
    assert!(shown.contains("    data_internode_encryption: disabled\n"), "{shown}");
    let shown = prints(&rig, "info cluster").await;
    assert!(shown.contains("    data_internode_encryption: enabled\n"), "{shown}");
    assert!(shown.contains("    internal_cert_validity_days: 45\n"), "{shown}");
    rig.database("three").await;
    let made = rig.get("/v1/bdbs/3").await.body;
    assert_eq!(made["data_internode_encryption"], json!(true));

    assert_eq!(prints(&rig, "cluster certificate rotate").await, "Done\n");
    let output = run(&rig, "cluster certificate rotate proxy").await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("ERROR: ") && said.contains("unsupported_rotation"), "{said}");
    let shown = prints(&rig, "audit verify").await;
    assert!(shown.starts_with("OK. "), "{shown}");
    let output = run(&rig, "node 1 remove").await;
    assert_eq!(output.status.code(), Some(1), "the only node stays: {output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_shown_in_tables() {
    let rig = Rig::created().await;
    rig.database("one").await;
    let shown = prints(&rig, "status extra internode_encryption").await;
    let titles = ["CLUSTER:", "CLUSTER NODES:", "DATABASES:", "ENDPOINTS:", "SHARDS:"];
    let places: Vec<_> = titles.iter().map(|title| shown.find(&format!("{title}\n"))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{shown}");
    assert!(shown.contains("OK. Cluster master: 1 (127.0.0.1)"), "{shown}");
    assert!(shown.contains("*node:1 master"), "{shown}");
    assert!(shown.contains("CERT_DAYS_LEFT") && shown.contains("DATA_INTERNODE"), "{shown}");
    let shown = prints(&rig, "status shards issues_only").await;
    assert_eq!(shown.lines().count(), 2, "{shown}");
    for line in [
        "info node",
        "info proxy all",
        "cluster running_actions",
        "verify balance",
        "verify rack_aware",
        "cluster certificate status",
        "audit show 3",
        "help",
    ] {
        assert!(!prints(&rig, line).await.is_empty(), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_speaks_tls_from_elsewhere_and_checks_whom_it_speaks_to() {
    let rig = Rig::created().await;
    let file = rig.folder.path().join("ca.pem");
    std::fs::write(&file, &rig.ca).unwrap();
    let program = tokio::task::spawn_blocking(program).await.unwrap();
    let run = |arguments: Vec<String>| {
        let mut command = tokio::process::Command::new(&program);
        command.env("CARNELIAN_URL", format!("https://localhost:{}", rig.address.port()));
        command.env("CARNELIAN_USER", USER).env("CARNELIAN_PASSWORD", PASSWORD).args(arguments);
        async move { command.output().await.unwrap() }
    };
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let trusting = format!("--cacert {} cluster master", file.display());
    let output = run(words(&trusting)).await;
    assert_eq!(output.stdout, b"Node 1 is the cluster master node\n", "{output:?}");
    assert!(run(words("-k cluster master")).await.status.success());
    // The system's authorities do not know ours.
    assert_eq!(run(words("cluster master")).await.status.code(), Some(1));
    let output = run(words("-k --password wrong cluster master")).await;
    assert!(String::from_utf8(output.stderr).unwrap().contains("unauthorized"));
}
