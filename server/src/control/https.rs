//! Asking a member of a cluster over HTTPS, as an admin: what a node that joins has to do before it has
//! certificates. One request a connection; all of it waits, so it is for threads that may.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use carnelian_admin::Secret;
use carnelian_tls::https::{self, Answer, Believe, Patience};
use rustls::ClientConfig;
use serde_json::Value;
use zeroize::Zeroizing;

const DEFAULT_PORT: u16 = 9443;

/// Whoever signs may have a lot to do.
const PATIENCE: Patience =
    Patience { connecting: Duration::from_secs(5), answering: Duration::from_secs(30) };

/// No answer to what is asked here is longer.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// A member, and who asks.
#[derive(Clone)]
pub struct Remote {
    host: String,
    port: u16,
    user: String,
    password: Secret,
    configuration: Arc<ClientConfig>,
}

/// Why there is no answer to go on with.
#[derive(Debug)]
pub enum Failure {
    /// Nobody is there, or not somebody to talk to.
    Unreachable(String),
    /// The credentials are not those of an admin.
    Denied(String),
    /// It does not want that.
    Refused(String),
}

impl Remote {
    /// `place` is `host` or `host:port`. Without authorities, in PEM, whatever certificate it shows is taken.
    pub fn new(
        place: &str,
        user: &str,
        password: &Secret,
        authorities: Option<&str>,
    ) -> Result<Self, Failure> {
        let wrong = || Failure::Refused(format!("{place:?} is no host or host:port"));
        let (host, port) = parse(place).ok_or_else(wrong)?;
        let whom = authorities.map_or(Believe::Anybody, |pem| Believe::Authorities(pem.as_bytes()));
        let configuration = https::client_config(whom)
            .map_err(|reason| Failure::Refused(format!("trusted_ca: {reason}")))?;
        Ok(Self {
            host: host.to_owned(),
            port,
            user: user.to_owned(),
            password: password.clone(),
            configuration,
        })
    }

    pub async fn post(&self, path: String, body: Value) -> Result<Value, Failure> {
        self.ask("POST", path, Some(body)).await
    }

    pub async fn delete(&self, path: String) -> Result<Value, Failure> {
        self.ask("DELETE", path, None).await
    }

    async fn ask(
        &self,
        method: &'static str,
        path: String,
        body: Option<Value>,
    ) -> Result<Value, Failure> {
        let remote = self.clone();
        let asking = tokio::task::spawn_blocking(move || remote.send(method, &path, body));
        asking.await.map_err(|error| Failure::Unreachable(error.to_string()))?
    }

    fn send(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value, Failure> {
        let Answer { status, body } = self
            .exchange(method, path, body)
            .map_err(|reason| Failure::Unreachable(format!("{self}: {reason}")))?;
        let document = serde_json::from_slice::<Value>(&body).unwrap_or_default();
        let said = ["description", "message", "error_code"];
        let said = said.iter().find_map(|name| document.get(name)?.as_str());
        let said = || format!("{self}: {}", said.map_or(format!("status {status}"), str::to_owned));
        match status {
            200..300 => Ok(document),
            401 | 403 => Err(Failure::Denied(said())),
            503 => Err(Failure::Unreachable(said())),
            _ => Err(Failure::Refused(said())),
        }
    }

    fn exchange(&self, method: &str, path: &str, body: Option<Value>) -> std::io::Result<Answer> {
        let pair = Zeroizing::new(format!("{}:{}", self.user, self.password.0));
        let credentials = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = Zeroizing::new(format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic {}\r\n\
             Content-Type: application/json\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.host,
            credentials.as_str(),
            body.len()
        ));
        let stream = https::connect(&self.host, self.port, PATIENCE)?;
        let stream = https::over_tls(Arc::clone(&self.configuration), &self.host, stream)?;
        https::exchange(stream, request.as_bytes(), ANSWER_BYTES_MAX)
    }
}

impl std::fmt::Display for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// An address of IPv6 may stand without brackets if no port follows.
fn parse(place: &str) -> Option<(&str, u16)> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match place.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (place, None),
        },
    };
    let port = port.map_or(Some(DEFAULT_PORT), |port| port.parse().ok())?;
    (!host.is_empty() && port != 0).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_host_and_perhaps_a_port() {
        assert_eq!(parse("a.b"), Some(("a.b", 9443)));
        assert_eq!(parse("10.0.0.1:7"), Some(("10.0.0.1", 7)));
        assert_eq!(parse("[::1]:7"), Some(("::1", 7)));
        assert_eq!(parse("[::1]"), Some(("::1", 9443)));
        assert_eq!(parse("::1"), Some(("::1", 9443)));
        for wrong in ["", ":7", "a:", "a:0", "a:x", "[::1", "[::1]7", "a:65536"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
