//! What happened, for `GET /v1/logs`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Time;

/// How many events are kept.
pub const EVENTS_MAX: usize = 1000;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub id: u64,
    pub time: Time,
    #[serde(rename = "type")]
    pub kind: String,
    pub severity: Severity,
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    Debug,
    Info,
    Warning,
    Error,
    Critical,
}
