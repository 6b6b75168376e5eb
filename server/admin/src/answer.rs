//! What a handler hands back: an answer, or a refusal with its status and error body.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Response, StatusCode};
use carnelian_cluster::state::Refused;
use serde_json::{Map, Value, json};

/// A handler's outcome.
pub type Reply = Result<Answer, Refusal>;

/// A success. Every one carries a document, as clients decode JSON whatever they asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Json(Value),
    /// A download.
    File {
        name: &'static str,
        content_type: &'static str,
        bytes: Vec<u8>,
    },
}

impl Answer {
    /// `{}`: done, nothing to say.
    pub fn empty() -> Self {
        Self::Json(Value::Object(Map::new()))
    }

    pub fn into_response(self) -> Response<Body> {
        match self {
            Self::Json(value) => json_response(StatusCode::OK, &value),
            Self::File { name, content_type, bytes } => {
                let mut response = Response::new(Body::from(bytes));
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
                let disposition = format!("attachment; filename={name}");
                if let Ok(value) = HeaderValue::from_str(&disposition) {
                    headers.insert(CONTENT_DISPOSITION, value);
                }
                response
            }
        }
    }
}

impl From<Value> for Answer {
    fn from(value: Value) -> Self {
        Self::Json(value)
    }
}

/// A refusal: the status, a token for programs, and a sentence for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub status: StatusCode,
    pub code: Cow<'static, str>,
    pub description: String,
    /// Further members of the body, such as `error_details`.
    pub more: Box<Map<String, Value>>,
    /// The whole body, where it is not the usual one.
    pub body: Option<Box<Value>>,
}

impl Refusal {
    pub fn new(
        status: u16,
        code: impl Into<Cow<'static, str>>,
        description: impl Into<String>,
    ) -> Self {
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code: code.into(),
            description: description.into(),
            more: Box::default(),
            body: None,
        }
    }

    /// 400 `invalid_schema`: a member has the wrong type, is missing, or is not known.
    pub fn schema(description: impl Into<String>) -> Self {
        Self::new(400, "invalid_schema", description)
    }

    /// 404 for an object that is not there.
    pub fn not_found(code: &'static str, description: impl Into<String>) -> Self {
        Self::new(404, code, description)
    }

    /// 406: well-formed, but not a valid configuration.
    pub fn not_acceptable(
        code: impl Into<Cow<'static, str>>,
        description: impl Into<String>,
    ) -> Self {
        Self::new(406, code, description)
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "unauthorized", "Valid credentials are needed")
    }

    pub fn forbidden() -> Self {
        Self::new(403, "insufficient_permissions", "The role of this user does not allow this")
    }

    pub fn into_response(self) -> Response<Body> {
        let status = self.status;
        let body = self.body.map(|body| *body).unwrap_or_else(|| {
            let mut body = Map::new();
            body.insert("error_code".into(), json!(self.code));
            body.insert("description".into(), json!(self.description));
            body.insert("message".into(), json!(self.description));
            body.extend(*self.more);
            Value::Object(body)
        });
        let mut response = json_response(status, &body);
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Basic realm=\"carnelian\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        Self::new(refused.status, refused.code, refused.description)
    }
}

fn json_response(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    // Answers hold what only its asker may see.
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(axum::http::header::CACHE_CONTROL, no_store);
    response
}
