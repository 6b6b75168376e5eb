//! What a request may look like, and what it may not.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::harness::{PASSWORD, Rig, USER, is_closed};

/// The commands of the documentation, as they are printed.
#[tokio::test(flavor = "multi_thread")]
async fn printed_calls_work_as_printed() {
    let rig = Rig::created().await;
    let uid = rig.database("one").await;
    assert_eq!(uid, 1);
    let curl = |verb: &'static str, path: &'static str, body: Option<&'static str>| {
        let url = format!("https://127.0.0.1:{}{path}", rig.address.port());
        let mut command = tokio::process::Command::new("curl");
        command.args(["-sS", "-k", "-u", &format!("{USER}:{PASSWORD}"), "-X", verb, &url]);
        if let Some(body) = body {
            command.args(["-d", body]);
        }
        async move {
            let output = command.output().await.unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
        }
    };
    let body = "{ “data_internode_encryption” : true }";
    let answer = curl("put", "/v1/bdbs/1", Some(body)).await;
    assert_eq!(answer["data_internode_encryption"], json!(true));
    rig.is_active(1).await;
    let before = rig.get("/v1/cluster/certificates/status").await.body;
    let answer = curl("put", "/v1/cluster/certificates/rotate", None).await;
    assert!(answer["action_uid"].is_string(), "{answer}");
    let after = rig.get("/v1/cluster/certificates/status").await.body;
    assert_ne!(before[0]["serial"], after[0]["serial"]);
    assert_ne!(before[1]["serial"], after[1]["serial"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_paths_and_bodies_are_taken_as_people_write_them() {
    let rig = Rig::created().await;
    rig.database("one").await;
    for (method, path) in [("get", "/v1/bdbs/1"), ("GET", "/v1/bdbs/1/"), ("Get", "/v1/bdbs/1/?x")]
    {
        let answer = rig.call(method, path, "").await;
        assert_eq!((answer.status, &answer.body["name"]), (200, &json!("one")), "{method} {path}");
    }
    for body in ["", "null", " \n", "{}"] {
        let answer = rig.call("PUT", "/v1/bdbs/1", body).await;
        assert_eq!(answer.status, 200, "{body:?}");
    }
    rig.call("PUT", "/v1/bdbs/1", "{\"name\": ").await.refuses(400, "invalid_json");
    rig.call("PUT", "/v1/bdbs/1", "[1]").await.refuses(400, "invalid_schema");
    let answer = rig.put("/v1/bdbs/1", &json!({"data_internode_encryption": "yes"})).await;
    answer.refuses(400, "invalid_schema");
    let answer = rig.put("/v1/bdbs/1", &json!({"no_such_field": 1})).await;
    assert_eq!(answer.status, 200);
    let answer = rig.put("/v1/bdbs/1?strict=true", &json!({"no_such_field": 1})).await;
    answer.refuses(400, "invalid_schema");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_told_apart_from_what_is_not_allowed() {
    let rig = Rig::created().await;
    rig.get("/v1/nothing").await.refuses(404, "not_found");
    rig.get("/").await.refuses(404, "not_found");
    rig.get("/v1/bdbs/7").await.refuses(404, "db_not_exist");
    rig.get("/v1/bdbs/x").await.refuses(404, "db_not_exist");
    rig.get("/v1/bdbs/99999999999999999999").await.refuses(404, "db_not_exist");
    let answer = rig.call("PATCH", "/v1/bdbs", "").await;
    answer.refuses(405, "method_not_allowed");
    let mut allowed: Vec<_> = answer.headers["allow"].split(',').map(str::trim).collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
    let answer = rig.call("OPTIONS", "/v1/bdbs", "").await;
    assert_eq!(answer.status, 200);
    rig.nobody("GET", "/v1/nothing", "").await.refuses(401, "unauthorized");
    rig.nobody("PATCH", "/v1/bdbs", "").await.refuses(401, "unauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_requests_are_refused() {
    let rig = Rig::created().await;
    let body = format!("{{\"name\": \"{}\"}}", "x".repeat(1 << 20));
    rig.call("PUT", "/v1/policy", &body).await.refuses(413, "request_too_large");
    // Without a length that would give it away.
    let credentials = "Authorization: Basic YWRtaW5AZXhhbXBsZS5jb206a1I3IWtwcXotdw==";
    let mut request = format!(
        "PUT /v1/cluster/policy HTTP/1.1\r\nHost: x\r\n{credentials}\r\nTransfer-Encoding: chunked\r\n\
         Connection: close\r\n\r\n"
    );
    for _ in 0..40 {
        request.push_str(&format!("{:x}\r\n{}\r\n", 32_768, "x".repeat(32_768)));
    }
    request.push_str("0\r\n\r\n");
    rig.raw(&request).await.refuses(413, "request_too_large");
    let request = format!("GET /v1/bdbs HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let mut stream = rig.stream().await;
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_tls_or_no_http_ends_without_harm() {
    let rig = Rig::created().await;
    let mut plain = tokio::net::TcpStream::connect(rig.address).await.unwrap();
    plain.write_all(b"GET /v1/cluster HTTP/1.1\r\n\r\n").await.unwrap();
    // It gets an alert, and no more.
    let mut bytes = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut plain, &mut bytes);
    let _ = tokio::time::timeout(Duration::from_secs(5), read).await.expect("it is closed");
    assert!(!bytes.starts_with(b"HTTP"));
    let mut stream = rig.stream().await;
    stream.write_all(b"\x00\x01\x02 nonsense\r\n\r\n").await.unwrap();
    while !is_closed(&mut stream).await {}
    assert_eq!(rig.get("/v1/cluster").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_share_a_connection() {
    let rig = Rig::created().await;
    let mut stream = rig.stream().await;
    let credentials = "Authorization: Basic YWRtaW5AZXhhbXBsZS5jb206a1I3IWtwcXotdw==";
    let mut seen = Vec::new();
    for round in 0..3 {
        let request = format!("GET /v1/cluster HTTP/1.1\r\nHost: x\r\n{credentials}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let wanted = round + 1;
        let mut buffer = [0; 16_384];
        while seen.windows(9).filter(|it| it == b"HTTP/1.1 ").count() < wanted {
            let read = tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await.unwrap();
            assert_ne!(read, 0);
            seen.extend_from_slice(&buffer[..read]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_is_spoken_where_the_client_can() {
    let rig = Rig::created().await;
    let output = tokio::process::Command::new("curl")
        .args([
            "-sS",
            "-k",
            "--http2",
            "-u",
            &format!("{USER}:{PASSWORD}"),
            "-w",
            "%{http_version}",
        ])
        .args(["-o", "/dev/null", &format!("https://127.0.0.1:{}/v1/cluster", rig.address.port())])
        .output()
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2", "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_can_be_checked() {
    let rig = Rig::created().await;
    let file = rig.folder.path().join("ca.pem");
    std::fs::write(&file, &rig.ca).unwrap();
    let output = tokio::process::Command::new("curl")
        .args(["-sS", "--cacert", file.to_str().unwrap(), "-u", &format!("{USER}:{PASSWORD}")])
        .arg(format!("https://localhost:{}/v1/cluster/policy", rig.address.port()))
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_slow_is_not_waited_for() {
    let short = Duration::from_millis(300);
    let limits = carnelian_admin::Limits { handshake: short, head: short, body: short };
    let rig = Rig::fresh_with(limits).await;
    rig.create().await;
    // Who never begins the handshake.
    let mut silent = tokio::net::TcpStream::connect(rig.address).await.unwrap();
    assert!(is_closed(&mut silent).await);
    // Who never ends the head.
    let mut stream = rig.stream().await;
    stream.write_all(b"GET /v1/cluster HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(5), read).await.expect("it is closed");
    // Who never ends the body.
    let request = "PUT /v1/cluster/policy HTTP/1.1\r\nHost: x\r\nAuthorization: Basic \
        YWRtaW5AZXhhbXBsZS5jb206a1I3IWtwcXotdw==\r\nContent-Length: 10\r\n\r\n{";
    rig.raw(request).await.refuses(408, "request_timeout");
    assert_eq!(rig.get("/v1/cluster").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_down_is_bounded() {
    let rig = Rig::created().await;
    let name = "x".repeat(20_000);
    rig.call_as((&name, "p"), "PUT", &format!("/v1/{name}"), "{}")
        .await
        .refuses(401, "unauthorized");
    assert!(rig.audit_log().len() < 3000);
    assert_eq!(rig.get("/v1/audit/verify").await.body["intact"], json!(true));
    rig.put("/v1/cluster", &json!({"options_method_forbidden": true})).await;
    rig.call("OPTIONS", "/v1/bdbs", "").await.refuses(405, "method_not_allowed");
}
