//! What stands in a line: a request with its version, and the reply or the refusal. Pure, both ends use it.
//!
//! `{"version":1,"request":"status"}` or `{"version":1,"request":"...","parameters":{...}}` is answered by
//! `{"version":1,"reply":{...}}` or `{"version":1,"error":{"code":"...","message":"..."}}`.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The version that this release speaks. It changes when an old client would misread a reply; a field more is no change.
pub(crate) const VERSION: u64 = 1;
/// Octets of a request without its line end: names and a list of ids.
pub(crate) const MAX_REQUEST: usize = 64 * 1024;
/// Octets of a reply without its line end: a status of some thousand lanes.
pub(crate) const MAX_REPLY: usize = 4 * 1024 * 1024;

/// Characters of a stranger's word that are sent back.
const WORD: usize = 50;
/// Characters of a parser's complaint that are sent back; it repeats what it complains of.
const COMPLAINT: usize = 200;

/// What is asked.
#[derive(Clone, PartialEq)]
pub(crate) struct Request {
    /// Which request, as `status`.
    pub(crate) name: String,
    parameters: Map<String, Value>,
}

/// Why a request is not answered. Also the error on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    /// For programs.
    pub(crate) code: RefusalCode,
    /// For people: what is wrong and what to do.
    pub(crate) message: String,
    /// With `unknown_version`: those that are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) known_versions: Vec<u64>,
}

/// The kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RefusalCode {
    /// The line is no JSON object.
    NotJson,
    /// A field is missing, unknown or of the wrong kind.
    BadRequest,
    /// The version is not known.
    UnknownVersion,
    /// The request is not known.
    UnknownRequest,
    /// The request is longer than allowed; the connection ends.
    TooLong,
    /// The request did not come in in time; the connection ends.
    Timeout,
    /// The asking user may not; the connection ends.
    Forbidden,
    /// It can be asked, but not done now.
    Unavailable,
    /// A fault of the relay.
    Internal,
    /// A newer daemon's.
    #[serde(other)]
    Other,
}

impl Refusal {
    /// A refusal of any kind but an unknown version.
    pub(crate) fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), known_versions: Vec::new() }
    }

    /// There is no request of that name.
    pub(crate) fn unknown_request(name: &str, known: &[&str]) -> Self {
        let text = format!("there is no request {:?}; there is {}", cut(name, WORD), known.join(", "));
        Self::new(RefusalCode::UnknownRequest, text)
    }

    fn unknown_version(found: &Value) -> Self {
        let found = match found {
            Value::Number(number) => number.to_string(),
            _ => "that is no number".to_owned(),
        };
        let message = format!(
            "version {found} is not known; this is xoauth2-relay {}, which knows version {VERSION}: use the command of the same release as the daemon",
            env!("CARGO_PKG_VERSION")
        );
        Self { code: RefusalCode::UnknownVersion, message, known_versions: vec![VERSION] }
    }
}

// Parameters may hold what must not be shown.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Request {
    /// A request without parameters.
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), parameters: Map::new() }
    }

    /// The same with parameters.
    pub(crate) fn with(name: &str, parameters: Map<String, Value>) -> Self {
        Self { name: name.to_owned(), parameters }
    }

    /// The parameters as the request wants them. What it does not know is refused, if its type says `deny_unknown_fields`.
    pub(crate) fn parameters<P: DeserializeOwned>(&self) -> Result<P, Refusal> {
        serde_json::from_value(Value::Object(self.parameters.clone())).map_err(|error| {
            let complaint = error.to_string();
            bad(format!("parameters of {}: {}", cut(&self.name, WORD), cut(&complaint, COMPLAINT)))
        })
    }

    /// Reads a line. The version comes first: with another one every other field may mean something else.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, Refusal> {
        let not_json = |text: String| Refusal::new(RefusalCode::NotJson, text);
        let value: Value = serde_json::from_slice(line).map_err(|error| {
            not_json(format!("a request is one JSON object on one line; this is not JSON: {error}"))
        })?;
        let Value::Object(mut fields) = value else {
            return Err(not_json("a request is one JSON object on one line; this is JSON, but no object".to_owned()));
        };
        match fields.remove("version") {
            Some(version) if version.as_u64() == Some(VERSION) => {}
            Some(other) => return Err(Refusal::unknown_version(&other)),
            None => return Err(bad(format!("\"version\" is missing; write \"version\":{VERSION}"))),
        }
        let name = match fields.remove("request") {
            Some(Value::String(name)) => name,
            Some(_) => return Err(bad("\"request\" is not a text such as \"status\"")),
            None => return Err(bad("\"request\" is missing; write for example \"request\":\"status\"")),
        };
        let parameters = match fields.remove("parameters") {
            Some(Value::Object(parameters)) => parameters,
            Some(_) => return Err(bad("\"parameters\" is not an object")),
            None => Map::new(),
        };
        match fields.keys().next() {
            Some(unknown) => {
                let unknown = cut(unknown, WORD);
                Err(bad(format!("{unknown:?} is not a field of a request; there are version, request and parameters")))
            }
            None => Ok(Self { name, parameters }),
        }
    }

    /// The line for the wire, with its end.
    pub(crate) fn line(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Line<'a> {
            version: u64,
            request: &'a str,
            #[serde(skip_serializing_if = "Map::is_empty")]
            parameters: &'a Map<String, Value>,
        }
        line(&Line { version: VERSION, request: &self.name, parameters: &self.parameters })
    }
}

/// So many of its characters: a stranger's octets are not sent back at length.
fn cut(text: &str, characters: usize) -> &str {
    text.char_indices().nth(characters).map_or(text, |(end, _)| &text[..end])
}

fn bad(text: impl Into<String>) -> Refusal {
    Refusal::new(RefusalCode::BadRequest, text)
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("texts, numbers and JSON values always become JSON");
    line.push(b'\n');
    line
}

/// The line that answers, with its end. A reply that is too long becomes a refusal.
pub(crate) fn answer(answer: &Result<Value, Refusal>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Line<'a> {
        version: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        reply: Option<&'a Value>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a Refusal>,
    }
    let line = line(&Line { version: VERSION, reply: answer.as_ref().ok(), error: answer.as_ref().err() });
    if line.len() <= MAX_REPLY + 1 {
        return line;
    }
    let text = format!("the reply has {} octets, more than the {MAX_REPLY} allowed; ask for less", line.len());
    self::answer(&Err(Refusal::new(RefusalCode::Internal, text)))
}

/// What a client cannot read in an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// The daemon speaks another version.
    Version,
    /// This is no answer.
    Broken(String),
}

/// Reads the line that answers.
pub(crate) fn read_answer(line: &[u8]) -> Result<Result<Value, Refusal>, Unreadable> {
    #[derive(Deserialize)]
    struct Answer {
        version: u64,
        reply: Option<Value>,
        error: Option<Refusal>,
    }
    let broken = |error: serde_json::Error| Unreadable::Broken(error.to_string());
    let value: Value = serde_json::from_slice(line).map_err(broken)?;
    if value.get("version").and_then(Value::as_u64).is_some_and(|version| version != VERSION) {
        return Err(Unreadable::Version);
    }
    match serde_json::from_value(value).map_err(broken)? {
        Answer { version: VERSION, error: Some(refusal), .. } if refusal.code == RefusalCode::UnknownVersion => {
            Err(Unreadable::Version)
        }
        Answer { error: Some(refusal), .. } => Ok(Err(refusal)),
        Answer { reply: Some(reply), .. } => Ok(Ok(reply)),
        Answer { .. } => Err(Unreadable::Broken("neither a reply nor an error".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn request_table() {
        for (line, expected) in [
            (r#"{"version":1,"request":"status"}"#, Ok("status")),
            (r#" {"request":"status", "parameters":{}, "version":1} "#, Ok("status")),
            (r#"{"version":1,"request":"queue.list","parameters":{"limit":5}}"#, Ok("queue.list")),
            ("", Err(RefusalCode::NotJson)),
            ("status", Err(RefusalCode::NotJson)),
            ("{", Err(RefusalCode::NotJson)),
            ("GET / HTTP/1.1", Err(RefusalCode::NotJson)),
            ("[1]", Err(RefusalCode::NotJson)),
            ("null", Err(RefusalCode::NotJson)),
            (r#"{"version":1,"request":"status"} {}"#, Err(RefusalCode::NotJson)),
            (r#"{"request":"status"}"#, Err(RefusalCode::BadRequest)),
            (r#"{"version":1}"#, Err(RefusalCode::BadRequest)),
            (r#"{"version":1,"request":7}"#, Err(RefusalCode::BadRequest)),
            (r#"{"version":1,"request":"status","parameters":[]}"#, Err(RefusalCode::BadRequest)),
            (r#"{"version":1,"request":"status","more":1}"#, Err(RefusalCode::BadRequest)),
            (r#"{"version":2,"request":"status"}"#, Err(RefusalCode::UnknownVersion)),
            (r#"{"version":2,"verb":"status"}"#, Err(RefusalCode::UnknownVersion)),
            (r#"{"version":"1","request":"status"}"#, Err(RefusalCode::UnknownVersion)),
            (r#"{"version":1.5,"request":"status"}"#, Err(RefusalCode::UnknownVersion)),
        ] {
            let parsed = Request::parse(line.as_bytes());
            let parsed = parsed.as_ref().map(|request| request.name.as_str()).map_err(|refusal| refusal.code);
            assert_eq!(parsed, expected, "{line}");
        }
        assert_eq!(Request::parse(b"\xff\xfe").unwrap_err().code, RefusalCode::NotJson);
        assert_eq!(Request::parse(&b"[".repeat(MAX_REQUEST)).unwrap_err().code, RefusalCode::NotJson);
    }

    #[test]
    fn an_unknown_version_hears_which_are_known() {
        let refusal = Request::parse(br#"{"version":7,"request":"status"}"#).unwrap_err();
        assert_eq!(refusal.known_versions, [1]);
        assert!(refusal.message.starts_with("version 7 is not known; this is xoauth2-relay"), "{refusal}");
        let line = answer(&Err(refusal));
        let line = String::from_utf8(line).unwrap();
        assert!(
            line.starts_with("{\"version\":1,\"error\":{\"code\":\"unknown_version\",\"message\":\"version 7"),
            "{line}"
        );
        assert!(line.ends_with("\",\"known_versions\":[1]}}\n"), "{line}");
    }

    #[test]
    fn parameters_are_checked_by_whoever_wants_them() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}
        assert!(Request::new("status").parameters::<Nothing>().is_ok());
        let request = Request::parse(br#"{"version":1,"request":"status","parameters":{"x":1}}"#).unwrap();
        let refusal = request.parameters::<Nothing>().unwrap_err();
        assert_eq!(refusal.code, RefusalCode::BadRequest);
        assert!(refusal.message.starts_with("parameters of status: unknown field `x`"), "{refusal}");
    }

    #[test]
    fn a_strangers_octets_are_not_sent_back_at_length() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Line {
            #[serde(rename = "line")]
            _line: u8,
        }
        let long = "\u{e4}".repeat(30_000);
        let parameters = |name: &str, value: &str| Map::from_iter([(name.to_owned(), Value::from(value))]);
        for refusal in [
            Request::with("order", parameters(&long, "")).parameters::<Line>().unwrap_err(),
            Request::with("order", parameters("line", &long)).parameters::<Line>().unwrap_err(),
            Request::with(&long, parameters("x", "")).parameters::<Line>().unwrap_err(),
            Refusal::unknown_request(&long, &["order"]),
            Request::parse(format!("{{\"version\":1,\"request\":\"order\",\"{long}\":1}}").as_bytes()).unwrap_err(),
        ] {
            assert!(refusal.message.chars().count() < 300, "{refusal}");
        }
    }

    #[test]
    fn both_ends_understand_each_other() {
        let request = Request::new("status");
        let line = request.line();
        assert_eq!(line, b"{\"version\":1,\"request\":\"status\"}\n");
        assert_eq!(Request::parse(&line), Ok(request));
        let refusal = Refusal::unknown_request("statsu", &["status"]);
        assert_eq!(refusal.message, "there is no request \"statsu\"; there is status");
        for told in [Ok(json!({ "a": 1 })), Err(refusal)] {
            assert_eq!(read_answer(&answer(&told)), Ok(told));
        }
    }

    #[test]
    fn answers_of_others_are_told_apart() {
        assert_eq!(read_answer(br#"{"version":2,"result":{}}"#), Err(Unreadable::Version));
        assert_eq!(
            read_answer(&answer(&Request::parse(br#"{"version":0}"#).map(|_| json!(0)))),
            Err(Unreadable::Version)
        );
        for broken in ["", "220 mail.example.com ESMTP", "{}", r#"{"version":1}"#, "[]"] {
            assert!(matches!(read_answer(broken.as_bytes()), Err(Unreadable::Broken(_))), "{broken}");
        }
        let newer = read_answer(br#"{"version":1,"error":{"code":"rate_limited","message":"later"}}"#).unwrap();
        assert_eq!(newer.unwrap_err().code, RefusalCode::Other);
    }

    #[test]
    fn a_reply_that_is_too_long_becomes_a_refusal() {
        let line = answer(&Ok(Value::String("x".repeat(MAX_REPLY))));
        assert!(line.len() < 500);
        assert_eq!(read_answer(&line).unwrap().unwrap_err().code, RefusalCode::Internal);
    }
}
