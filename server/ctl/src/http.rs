//! One request, one connection, one answer: as much of HTTP as a command line needs.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use carnelian_tls::https::{self, Answer, Believe, Patience};
use rustls::ClientConfig;
use serde_json::Value;

/// The longest that an answer may take: some wait for work on all nodes.
const PATIENCE: Patience =
    Patience { connecting: Duration::from_secs(10), answering: Duration::from_secs(120) };
/// More than any answer has.
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;

#[derive(Clone, Debug)]
pub enum Target {
    /// The socket in a node's data folder.
    Local(PathBuf),
    Remote {
        host: String,
        port: u16,
        trust: Trust,
    },
}

#[derive(Clone, Debug)]
pub enum Trust {
    /// PEM.
    Authorities(Vec<u8>),
    /// `-k`
    Anybody,
}

pub struct Client {
    target: Target,
    credentials: Option<(String, String)>,
}

impl Client {
    pub fn new(target: Target, credentials: Option<(String, String)>) -> Self {
        Self { target, credentials }
    }

    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.json("GET", path, None)
    }

    pub fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.json("PUT", path, Some(body))
    }

    pub fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.json("POST", path, Some(body))
    }

    /// The document of an answer; a refusal is an error with what it says.
    pub fn json(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let answer = self.send(method, path, body)?;
        let document: Value = serde_json::from_slice(&answer.body)
            .with_context(|| format!("{method} {path}: status {}, and no JSON", answer.status))?;
        if answer.status < 300 {
            return Ok(document);
        }
        let said = ["description", "message"].iter().find_map(|name| document.get(name)?.as_str());
        match (said, document.get("error_code").and_then(Value::as_str)) {
            (Some(said), Some(code)) => bail!("{said} ({code})"),
            (Some(said), None) => bail!("{said}"),
            (None, Some(code)) => bail!("{code}"),
            (None, None) => bail!("{method} {path}: status {}", answer.status),
        }
    }

    pub fn send(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host());
        if let Some((user, password)) = &self.credentials {
            let pair = STANDARD.encode(format!("{user}:{password}"));
            request.push_str(&format!("Authorization: Basic {pair}\r\n"));
        }
        request.push_str("Content-Type: application/json\r\nConnection: close\r\n");
        request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        match &self.target {
            Target::Local(path) => {
                let stream = UnixStream::connect(path)
                    .with_context(|| format!("no node answers at {}", path.display()))?;
                stream.set_read_timeout(Some(PATIENCE.answering))?;
                Ok(https::exchange(stream, request.as_bytes(), ANSWER_BYTES_MAX)?)
            }
            Target::Remote { host, port, trust } => {
                let config = configuration(trust)?;
                let answer = https::connect(host, *port, PATIENCE)
                    .and_then(|stream| https::over_tls(config, host, stream))
                    .and_then(|s| https::exchange(s, request.as_bytes(), ANSWER_BYTES_MAX));
                answer.with_context(|| format!("{host}:{port}"))
            }
        }
    }

    fn host(&self) -> &str {
        match &self.target {
            Target::Local(_) => "localhost",
            Target::Remote { host, .. } => host,
        }
    }
}

fn configuration(trust: &Trust) -> anyhow::Result<Arc<ClientConfig>> {
    let whom = match trust {
        Trust::Authorities(pem) => Believe::Authorities(pem),
        Trust::Anybody => Believe::Anybody,
    };
    https::client_config(whom).map_err(|reason| anyhow!("the file of authorities: {reason}"))
}
