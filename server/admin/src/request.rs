//! A request as handlers see it: who asks, the path's parameters, the query, and a body that has been
//! read whole.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::answer::Refusal;
use crate::auth::Caller;

/// What a handler is given.
#[derive(Debug)]
pub struct Request {
    pub caller: Caller,
    pub parameters: Vec<(String, String)>,
    pub query: Query,
    pub body: Bytes,
}

impl Request {
    /// A parameter of the path. Its name is the route's, so it is there.
    pub fn parameter(&self, name: &str) -> &str {
        let found = self.parameters.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    /// A number in the path; what is no number names nothing that exists.
    pub fn uid(&self, missing: &'static str) -> Result<u32, Refusal> {
        let text = self.parameter("uid");
        text.parse().map_err(|_| Refusal::not_found(missing, format!("There is no {text:?}")))
    }

    /// The body as an object. None, `null`, and nothing but blanks are the empty one.
    pub fn object(&self) -> Result<Map<String, Value>, Refusal> {
        match self.json()? {
            None | Some(Value::Null) => Ok(Map::new()),
            Some(Value::Object(members)) => Ok(members),
            Some(_) => Err(Refusal::schema("The body has to be a JSON object")),
        }
    }

    /// The body's document, if there is one.
    pub fn json(&self) -> Result<Option<Value>, Refusal> {
        if self.body.trim_ascii().is_empty() {
            return Ok(None);
        }
        let error = match serde_json::from_slice(&self.body) {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error,
        };
        // Documents that went through a word processor have their quotes bent.
        if let Ok(text) = std::str::from_utf8(&self.body)
            && text.contains(TYPOGRAPHIC)
            && let Ok(value) = serde_json::from_str(&text.replace(TYPOGRAPHIC, "\""))
        {
            return Ok(Some(value));
        }
        Err(Refusal::new(400, "invalid_json", format!("The body is not JSON: {error}")))
    }

    pub fn is_dry_run(&self) -> bool {
        self.query.flag("dry_run")
    }

    /// Whether unknown members are to be refused.
    pub fn is_strict(&self) -> bool {
        self.query.flag("strict")
    }

    /// Leaves of each object only what `fields=` names.
    pub fn select(&self, mut value: Value) -> Value {
        let Some(fields) = self.query.get("fields") else { return value };
        let wanted: Vec<_> = fields.split(',').map(str::trim).collect();
        let keep = |value: &mut Value| {
            if let Value::Object(members) = value {
                members.retain(|name, _| wanted.contains(&name.as_str()));
            }
        };
        match &mut value {
            Value::Array(items) => items.iter_mut().for_each(keep),
            object => keep(object),
        }
        value
    }
}

/// The double quotes of printed text.
const TYPOGRAPHIC: [char; 2] = ['\u{201c}', '\u{201d}'];

/// The part of the address after `?`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Self(pairs.collect())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// All values of a name that may be there more than once.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Present, and neither `false` nor `0`.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value != "false" && value != "0")
    }
}

/// `%XX` and `+`, as forms are encoded. What is not well encoded stays as it is.
pub fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).filter(|pair| pair.iter().all(u8::is_ascii_hexdigit));
        let value = hex
            .and_then(|pair| std::str::from_utf8(pair).ok())
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match (bytes[at], value) {
            (b'%', Some(value)) => {
                decoded.push(value);
                at += 2;
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with_body(body: &str) -> Request {
        Request {
            caller: Caller::local(),
            parameters: Vec::new(),
            query: Query::default(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    #[test]
    fn bodies_without_content_are_empty_objects() {
        for body in ["", "  \n", "null", "{}"] {
            assert_eq!(with_body(body).object(), Ok(Map::new()), "{body:?}");
        }
    }

    #[test]
    fn typographic_quotes_are_read_as_plain_ones() {
        let body = with_body("{ “data_internode_encryption” : true }").object().unwrap();
        assert_eq!(Value::Object(body), json!({"data_internode_encryption": true}));
        // Inside proper quotes they are text.
        let body = with_body(r#"{"name": "a “b”"}"#).object().unwrap();
        assert_eq!(body["name"], json!("a “b”"));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for body in ["[]", "1", "\"x\""] {
            assert_eq!(with_body(body).object().unwrap_err().code, "invalid_schema");
        }
        for body in ["{", "{“a”: }", "\u{0}", "{\"a\":1}}"] {
            assert_eq!(with_body(body).object().unwrap_err().code, "invalid_json");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(with_body(&deep).json().unwrap_err().code, "invalid_json");
    }

    #[test]
    fn queries_are_decoded() {
        let query =
            Query::parse("fields=uid,name&dry_run&a=%24x%3Db+c&bad=%zz%+1%4&extra=1&extra=2");
        assert_eq!(query.get("fields"), Some("uid,name"));
        assert!(query.flag("dry_run"));
        assert!(!Query::parse("dry_run=false").flag("dry_run"));
        assert!(!Query::parse("dry_run=0").flag("dry_run"));
        assert_eq!(query.get("a"), Some("$x=b c"));
        assert_eq!(query.get("bad"), Some("%zz% 1%4"));
        assert_eq!(query.all("extra").collect::<Vec<_>>(), ["1", "2"]);
    }

    #[test]
    fn fields_limit_what_is_returned() {
        let mut request = with_body("");
        request.query = Query::parse("fields=uid");
        assert_eq!(request.select(json!([{"uid": 1, "name": "a"}])), json!([{"uid": 1}]));
        assert_eq!(request.select(json!({"uid": 1, "name": "a"})), json!({"uid": 1}));
    }
}
