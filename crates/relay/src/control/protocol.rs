//! What stands in a line: a request with its version, and the reply or the refusal. Pure, both ends use it.
//!
//! Parameters may hold what a sign-in is made of. They are kept as the text that came, which is wiped, and parsed for whoever
//! wants them; no tree of JSON values is made of them, which nobody could wipe.
//!
//! `{"version":1,"request":"status"}` or `{"version":1,"request":"...","parameters":{...}}` is answered by
//! `{"version":1,"reply":{...}}` or `{"version":1,"error":{"code":"...","message":"..."}}`.

use std::fmt;

use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

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
#[derive(PartialEq)]
pub(crate) struct Request {
    /// Which request, as `status`.
    pub(crate) name: String,
    /// All of it as it goes by the wire, without the line end.
    line: Zeroizing<Vec<u8>>,
}

/// What a line has, before anybody looks at its parameters.
struct Shape {
    version: Option<Value>,
    request: Option<Value>,
    /// Whether they are an object.
    parameters: Option<bool>,
    /// A field that no request has.
    unknown: Option<String>,
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
        Self::with(name, Map::new())
    }

    /// The same with parameters that are nobody's secret.
    pub(crate) fn with(name: &str, parameters: Map<String, Value>) -> Self {
        let parameters = Some(parameters).filter(|parameters| !parameters.is_empty());
        Self::written(name, parameters.as_ref()).expect("texts, numbers and JSON values always become JSON")
    }

    /// The same with whatever becomes an object; fails where it has no form in JSON.
    pub(crate) fn of(name: &str, parameters: &impl Serialize) -> serde_json::Result<Self> {
        Self::written(name, Some(parameters))
    }

    fn written(name: &str, parameters: Option<&impl Serialize>) -> serde_json::Result<Self> {
        #[derive(Serialize)]
        struct Line<'a, P> {
            version: u64,
            request: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            parameters: Option<&'a P>,
        }
        // With room for all that may be sent: a buffer that grows leaves a copy behind.
        let mut line = Zeroizing::new(Vec::with_capacity(MAX_REQUEST));
        serde_json::to_writer(&mut *line, &Line { version: VERSION, request: name, parameters })?;
        Ok(Self { name: name.to_owned(), line })
    }

    /// The parameters as the request wants them. What it does not know is refused, if its type says `deny_unknown_fields`.
    pub(crate) fn parameters<P: DeserializeOwned>(&self) -> Result<P, Refusal> {
        #[derive(Deserialize)]
        struct Line<P> {
            parameters: Option<P>,
        }
        let parsed = serde_json::from_slice::<Line<P>>(&self.line);
        let parsed = parsed.and_then(|line| line.parameters.map_or_else(|| serde_json::from_str("{}"), Ok));
        parsed.map_err(|error| {
            let complaint = error.to_string();
            bad(format!("parameters of {}: {}", cut(&self.name, WORD), cut(&complaint, COMPLAINT)))
        })
    }

    /// Reads a line. The version comes first: with another one every other field may mean something else.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, Refusal> {
        let not_json = |text: String| Refusal::new(RefusalCode::NotJson, text);
        let shape = serde_json::from_slice::<Shape>(line).map_err(|error| {
            not_json(if error.is_data() {
                "a request is one JSON object on one line; this is JSON, but no object".to_owned()
            } else {
                format!("a request is one JSON object on one line; this is not JSON: {error}")
            })
        })?;
        match shape.version {
            Some(version) if version.as_u64() == Some(VERSION) => {}
            Some(other) => return Err(Refusal::unknown_version(&other)),
            None => return Err(bad(format!("\"version\" is missing; write \"version\":{VERSION}"))),
        }
        let name = match shape.request {
            Some(Value::String(name)) => name,
            Some(_) => return Err(bad("\"request\" is not a text such as \"status\"")),
            None => return Err(bad("\"request\" is missing; write for example \"request\":\"status\"")),
        };
        if shape.parameters == Some(false) {
            return Err(bad("\"parameters\" is not an object"));
        }
        match shape.unknown {
            Some(unknown) => {
                let unknown = cut(&unknown, WORD);
                Err(bad(format!("{unknown:?} is not a field of a request; there are version, request and parameters")))
            }
            None => Ok(Self { name, line: Zeroizing::new(line.to_vec()) }),
        }
    }

    /// The line for the wire, with its end.
    pub(crate) fn line(&self) -> Zeroizing<Vec<u8>> {
        let mut line = Zeroizing::new(Vec::with_capacity(self.line.len() + 1));
        line.extend_from_slice(&self.line);
        line.push(b'\n');
        line
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Shape, A::Error> {
                let mut shape = Shape { version: None, request: None, parameters: None, unknown: None };
                while let Some(name) = fields.next_key::<String>()? {
                    match name.as_str() {
                        "version" => shape.version = Some(fields.next_value()?),
                        "request" => shape.request = Some(fields.next_value()?),
                        "parameters" if shape.parameters.is_none() => {
                            shape.parameters = Some(fields.next_value::<IsObject>()?.0);
                        }
                        _ => {
                            fields.next_value::<IgnoredAny>()?;
                            shape.unknown = Some(name);
                        }
                    }
                }
                Ok(shape)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Whether a value is an object; nothing of it is kept.
struct IsObject(bool);

impl<'de> Deserialize<'de> for IsObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyValue;
        impl<'de> Visitor<'de> for AnyValue {
            type Value = IsObject;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<IsObject, A::Error> {
                while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(IsObject(true))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<IsObject, A::Error> {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(IsObject(false))
            }

            fn visit_unit<E>(self) -> Result<IsObject, E> {
                Ok(IsObject(false))
            }

            fn visit_bool<E>(self, _: bool) -> Result<IsObject, E> {
                Ok(IsObject(false))
            }

            fn visit_u64<E>(self, _: u64) -> Result<IsObject, E> {
                Ok(IsObject(false))
            }

            fn visit_i64<E>(self, _: i64) -> Result<IsObject, E> {
                Ok(IsObject(false))
            }

            fn visit_f64<E>(self, _: f64) -> Result<IsObject, E> {
                Ok(IsObject(false))
            }

            fn visit_str<E>(self, _: &str) -> Result<IsObject, E> {
                Ok(IsObject(false))
            }
        }
        deserializer.deserialize_any(AnyValue)
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
            (r#"{"version":1,"request":"status","parameters":[{"x":[1]}]}"#, Err(RefusalCode::BadRequest)),
            (r#"{"version":1,"request":"status","parameters":null}"#, Err(RefusalCode::BadRequest)),
            (r#"{"version":1,"request":"status","parameters":"{}"}"#, Err(RefusalCode::BadRequest)),
            (r#"{"version":1,"request":"status","parameters":-1.5}"#, Err(RefusalCode::BadRequest)),
            (r#"{"version":1,"request":"status","parameters":true}"#, Err(RefusalCode::BadRequest)),
            (r#"{"version":1,"request":"status","parameters":{},"parameters":{}}"#, Err(RefusalCode::BadRequest)),
            (r#"{"version":1,"request":"status","parameters":{"x":}}"#, Err(RefusalCode::NotJson)),
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
        assert_eq!(line.as_slice(), b"{\"version\":1,\"request\":\"status\"}\n");
        assert_eq!(Request::parse(&line[..line.len() - 1]), Ok(request));
        let refusal = Refusal::unknown_request("statsu", &["status"]);
        assert_eq!(refusal.message, "there is no request \"statsu\"; there is status");
        for told in [Ok(json!({ "a": 1 })), Err(refusal)] {
            assert_eq!(read_answer(&answer(&told)), Ok(told));
        }
    }

    #[test]
    fn parameters_go_from_end_to_end_as_they_are() {
        #[derive(Debug, Deserialize, PartialEq, Serialize)]
        #[serde(deny_unknown_fields)]
        struct Way {
            token: Zeroizing<String>,
            more: Vec<u8>,
        }
        let way = || Way { token: Zeroizing::new("0.AX\"-\u{e4}\n".to_owned()), more: vec![1, 2] };
        let sent = Request::of("login", &way()).unwrap();
        let line = sent.line();
        let came = Request::parse(&line[..line.len() - 1]).unwrap();
        assert_eq!((came.name.as_str(), came.parameters::<Way>()), ("login", Ok(way())));
        assert_eq!(format!("{came:?}"), "Request { name: \"login\", .. }");
        // What is no object is refused by whoever reads it.
        let line = Request::of("login", &[1]).unwrap().line();
        assert_eq!(Request::parse(&line).unwrap_err().code, RefusalCode::BadRequest);
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
