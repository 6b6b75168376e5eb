//! The front door: every request passes here, whatever its path. It is brought into shape, its caller is
//! found out, its body is read within bounds, it is routed, and what it changed or was refused is recorded.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::RawPathParams;
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH};
use axum::http::uri::PathAndQuery;
use axum::http::{Method, Response, StatusCode, Uri};
use axum::routing::{MethodFilter, on};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tower_service::Service;

use crate::admin::Admin;
use crate::answer::{Answer, Refusal, Reply};
use crate::audit::{Entry, without_secrets};
use crate::auth::{Caller, Right};
use crate::handlers;
use crate::request::{Query, Request};
use crate::routes::{self, Route, Run};

/// Larger bodies are refused. The largest that is needed holds some certificates.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// What of a name or a path is written down.
const NOTED_MAX: usize = 200;

/// How long a stranger may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub handshake: Duration,
    /// For the head of a request, from the end of the one before: so also the longest pause between two.
    pub head: Duration,
    /// For the whole of a body.
    pub body: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let (short, long) = (Duration::from_secs(10), Duration::from_secs(30));
        Self { handshake: short, head: long, body: long }
    }
}

/// Who is at the other end of the socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Peer {
    Remote(IpAddr),
    /// Over the socket in the data folder.
    Local,
}

/// A request behind the front door, on its way through the router.
#[derive(Clone)]
struct Arrived {
    caller: Caller,
    body: Bytes,
}

pub struct Front {
    admin: Arc<Admin>,
    router: Router,
    limits: Limits,
}

impl Front {
    pub fn new(admin: Arc<Admin>) -> Self {
        Self::with_limits(admin, Limits::default())
    }

    pub fn with_limits(admin: Arc<Admin>, limits: Limits) -> Self {
        let mut router = Router::new();
        for route in handlers::routes() {
            let admin = Arc::clone(&admin);
            let filter = match route.method {
                routes::Method::Get => MethodFilter::GET,
                routes::Method::Post => MethodFilter::POST,
                routes::Method::Put => MethodFilter::PUT,
                routes::Method::Delete => MethodFilter::DELETE,
            };
            let handler = move |parameters: RawPathParams, request: axum::extract::Request| {
                run(Arc::clone(&admin), route, own(&parameters), request)
            };
            router = router.route(route.path, on(filter, handler));
        }
        let asked = Arc::clone(&admin);
        let router = router
            .fallback(|request: axum::extract::Request| async move { nothing_there(&request) })
            .method_not_allowed_fallback(move |request: axum::extract::Request| {
                let response = wrong_method(&asked, &request);
                async move { response }
            });
        Self { admin, router, limits }
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Answers one request.
    pub async fn answer(&self, peer: Peer, request: hyper::Request<Incoming>) -> Response<Body> {
        let (mut head, body) = request.into_parts();
        head.method = upper_case(&head.method);
        head.uri = without_trailing_slash(&head.uri);
        let address = match peer {
            Peer::Remote(address) => Some(address),
            Peer::Local => None,
        };
        let mut entry = Entry {
            address: address.map(|address| address.to_string()),
            method: shortened(head.method.as_str()),
            path: shortened(head.uri.path()),
            ..Entry::default()
        };
        let response = match self.admit(peer, &head, &mut entry, body).await {
            Err(refusal) => refused(refusal),
            Ok((caller, body)) => {
                entry.uid = caller.uid;
                entry.request = without_secrets(&body);
                let changes = is_change(&head.method);
                if changes && let Err(refusal) = self.admin.audit_is_writable() {
                    refused(refusal)
                } else {
                    self.route(head.clone(), Arrived { caller, body }).await
                }
            }
        };
        entry.status = response.status().as_u16();
        entry.error_code = response.extensions().get::<ErrorCode>().map(|code| code.0.clone());
        self.record(&head.method, entry).await;
        response
    }

    async fn route(&self, head: axum::http::request::Parts, arrived: Arrived) -> Response<Body> {
        let mut request = axum::extract::Request::from_parts(head, Body::empty());
        request.extensions_mut().insert(arrived);
        let mut router = self.router.clone();
        match Service::<axum::extract::Request>::call(&mut router, request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// Finds out who asks, and reads what they have to say.
    async fn admit(
        &self,
        peer: Peer,
        head: &axum::http::request::Parts,
        entry: &mut Entry,
        body: Incoming,
    ) -> Result<(Caller, Bytes), Refusal> {
        let credentials = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let caller = match (peer, credentials) {
            (Peer::Local, _) => Caller::local(),
            // Nobody could be known yet.
            _ if !self.admin.has_cluster() => Caller::nobody(),
            (Peer::Remote(_), None) => Caller::nobody(),
            (Peer::Remote(_), Some(text)) => {
                let credentials = Credentials::parse(text).ok_or_else(Refusal::unauthorized)?;
                if let Credentials::Password { name, .. } = &credentials {
                    entry.user = shortened(name);
                }
                self.admin.identify(credentials).await?
            }
        };
        if !caller.email.is_empty() {
            entry.user.clone_from(&caller.email);
        }
        let too_large = || Refusal::new(413, "request_too_large", "The body is larger than 1 MiB");
        let announced = head
            .headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|bytes| BODY_BYTES_MAX as u64 <= bytes) {
            return Err(too_large());
        }
        let read = Limited::new(body, BODY_BYTES_MAX).collect();
        let collected = tokio::time::timeout(self.limits.body, read)
            .await
            .map_err(|_| Refusal::new(408, "request_timeout", "The body did not arrive in time"))?;
        Ok((caller, collected.map_err(|_| too_large())?.to_bytes()))
    }

    /// Writes down changes and refusals.
    async fn record(&self, method: &Method, entry: Entry) {
        let is_unknown = entry.status == StatusCode::UNAUTHORIZED;
        let is_refused_access = entry.status == StatusCode::FORBIDDEN
            // Whoever sends no credentials has not tried anything: browsers do so first.
            || is_unknown && !entry.user.is_empty();
        if !is_refused_access && (is_unknown || !is_change(method)) {
            return;
        }
        let admin = Arc::clone(&self.admin);
        // It waits for the disk.
        let written = tokio::task::spawn_blocking(move || admin.record(&entry)).await;
        debug_assert!(written.is_ok());
    }
}

/// The token of a refusal, for the audit log.
#[derive(Clone)]
struct ErrorCode(String);

fn refused(refusal: Refusal) -> Response<Body> {
    let code = ErrorCode(refusal.code.clone().into_owned());
    let mut response = refusal.into_response();
    response.extensions_mut().insert(code);
    response
}

fn respond(reply: Reply) -> Response<Body> {
    match reply {
        Ok(answer) => answer.into_response(),
        Err(refusal) => refused(refusal),
    }
}

async fn run(
    admin: Arc<Admin>,
    route: Route,
    parameters: Vec<(String, String)>,
    request: axum::extract::Request,
) -> Response<Body> {
    let Some(arrived) = request.extensions().get::<Arrived>() else {
        return refused(Refusal::new(500, "internal_error", "The request came past the door"));
    };
    let Arrived { caller, body } = arrived.clone();
    let has_cluster = admin.has_cluster();
    if !has_cluster && !route.bootstrap {
        let why = "This node does not belong to a cluster yet";
        return refused(Refusal::new(503, "not_bootstrapped", why));
    }
    let is_open = route.bootstrap && !has_cluster;
    if !is_open && !caller.may(route.right) {
        let nobody = caller == Caller::nobody();
        return refused(if nobody { Refusal::unauthorized() } else { Refusal::forbidden() });
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let request = Request { caller, parameters, query, body };
    respond(match route.run {
        Run::Now(handler) => handler(&admin, &request),
        Run::Later(handler) => handler(admin, request).await,
    })
}

fn own(parameters: &RawPathParams) -> Vec<(String, String)> {
    parameters.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Paths are not told to those who have not said who they are.
fn is_stranger(request: &axum::extract::Request) -> bool {
    request.extensions().get::<Arrived>().is_none_or(|arrived| !arrived.caller.may(Right::Signed))
}

fn nothing_there(request: &axum::extract::Request) -> Response<Body> {
    if is_stranger(request) {
        return refused(Refusal::unauthorized());
    }
    refused(Refusal::not_found("not_found", format!("There is no {}", request.uri().path())))
}

fn wrong_method(admin: &Admin, request: &axum::extract::Request) -> Response<Body> {
    if is_stranger(request) {
        return refused(Refusal::unauthorized());
    }
    let forbids = |it: &carnelian_cluster::state::Cluster| it.settings.options_method_forbidden;
    if request.method() == Method::OPTIONS && !admin.state().cluster.as_ref().is_some_and(forbids) {
        return Answer::empty().into_response();
    }
    // The router adds `Allow`.
    refused(Refusal::new(405, "method_not_allowed", "This path does not take this method"))
}

fn shortened(text: &str) -> String {
    text.chars().take(NOTED_MAX).collect()
}

fn is_change(method: &Method) -> bool {
    ![Method::GET, Method::HEAD, Method::OPTIONS].contains(method)
}

/// Methods are case-sensitive in HTTP, but printed commands have them in small letters.
fn upper_case(method: &Method) -> Method {
    let upper = method.as_str().to_ascii_uppercase();
    Method::from_bytes(upper.as_bytes()).unwrap_or_else(|_| method.clone())
}

fn without_trailing_slash(uri: &Uri) -> Uri {
    let path = uri.path();
    let shorter = path.trim_end_matches('/');
    if shorter.len() == path.len() || shorter.is_empty() {
        return uri.clone();
    }
    let mut text = shorter.to_owned();
    if let Some(query) = uri.query() {
        text.push('?');
        text.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    match PathAndQuery::try_from(text) {
        Ok(shorter) => parts.path_and_query = Some(shorter),
        Err(_) => return uri.clone(),
    }
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

/// What an `Authorization` header holds.
#[derive(Clone, Eq, PartialEq)]
pub enum Credentials {
    Password { name: String, password: String },
    Token(String),
}

impl Credentials {
    fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ')?;
        let rest = rest.trim();
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => {
                let pair = STANDARD
                    .decode(rest)
                    .or_else(|_| STANDARD_NO_PAD.decode(rest))
                    .ok()
                    .and_then(|bytes| String::from_utf8(bytes).ok())?;
                let (name, password) = pair.split_once(':')?;
                Some(Self::Password { name: name.to_owned(), password: password.to_owned() })
            }
            "jwt" | "bearer" => Some(Self::Token(rest.to_owned())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_taken_in_any_case() {
        let method = Method::from_bytes(b"put").unwrap();
        assert_eq!(upper_case(&method), Method::PUT);
        assert_eq!(upper_case(&Method::GET), Method::GET);
    }

    #[test]
    fn a_slash_at_the_end_changes_nothing() {
        let shorter = |text: &str| without_trailing_slash(&text.parse().unwrap()).to_string();
        assert_eq!(shorter("/v1/bdbs/"), "/v1/bdbs");
        assert_eq!(shorter("/v1/bdbs/?fields=uid"), "/v1/bdbs?fields=uid");
        assert_eq!(shorter("/v1/bdbs"), "/v1/bdbs");
        assert_eq!(shorter("/"), "/");
        assert_eq!(shorter("https://host:9443/v1/bdbs//"), "https://host:9443/v1/bdbs");
    }

    #[test]
    fn credentials_are_read() {
        let password = |name: &str, password: &str| {
            Some(Credentials::Password { name: name.into(), password: password.into() })
        };
        assert!(Credentials::parse("Basic YUBiOng6eQ==") == password("a@b", "x:y"));
        assert!(Credentials::parse("basic YUBiOng6eQ") == password("a@b", "x:y"));
        assert!(Credentials::parse("JWT abc") == Some(Credentials::Token("abc".into())));
        assert!(Credentials::parse("Bearer abc") == Some(Credentials::Token("abc".into())));
        for header in ["", "Basic", "Basic ###", "Basic YUBi", "Digest x"] {
            assert!(Credentials::parse(header).is_none(), "{header}");
        }
    }
}
