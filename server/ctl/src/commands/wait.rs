//! Waiting for work that the cluster does after it has answered.

use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::Value;

use crate::http::Client;

const PATIENCE: Duration = Duration::from_secs(600);
const GLANCE: Duration = Duration::from_millis(100);

/// How work ended, or how far it is.
pub fn progress(action: &Value) -> (&str, f64) {
    let status = action["status"].as_str().unwrap_or("completed");
    (status, action["progress"].as_f64().unwrap_or(0.0))
}

/// Waits for the action that an answer names, and tells `seen` of each look at it. An answer that names none
/// was the end of it.
pub fn finished(
    client: &Client,
    answer: &Value,
    mut seen: impl FnMut(&Value),
) -> anyhow::Result<()> {
    let Some(uid) = answer["action_uid"].as_str() else { return Ok(()) };
    let ends = Instant::now() + PATIENCE;
    loop {
        let sent = client.send("GET", &format!("/v2/actions/{uid}"), None)?;
        // What is forgotten, or was done at once, is over.
        if sent.status == 404 {
            return Ok(());
        }
        let action: Value = serde_json::from_slice(&sent.body)?;
        seen(&action);
        match progress(&action).0 {
            "completed" => return Ok(()),
            "failed" | "cancelled" | "aborted" => {
                bail!("{}", action["additional_info"]["error"].as_str().unwrap_or("it failed"))
            }
            _ => {}
        }
        if ends < Instant::now() {
            bail!("{uid} is not over after ten minutes");
        }
        std::thread::sleep(GLANCE);
    }
}
