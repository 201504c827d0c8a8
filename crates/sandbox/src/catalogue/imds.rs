//! The metadata service's failures (facts 4.4): which of them pass by themselves is Microsoft's word, the bodies are ours.

use super::{Class, Effect, Row};
use crate::Stage;

const fn http(
    name: &'static str,
    class: Class,
    status: u16,
    retry_after: Option<u32>,
    body: &'static str,
    meaning: &'static str,
) -> Row {
    Row::at(Stage::Imds, name, class, Effect::Http { status, retry_after, location: None, body }, meaning)
        .facts("4.4")
        .own_words()
}

pub(super) const ROWS: &[Row] = &[
    http(
        "imds-400",
        Class::ConfigurationAtToken,
        400,
        None,
        "{\"error\":\"invalid_request\",\"error_description\":\"Identity not found\"}",
        "the machine has no such identity",
    ),
    http("imds-404", Class::Transient, 404, None, "", "the service is being updated"),
    http("imds-410", Class::Transient, 410, None, "", "the service is away for up to 70 s"),
    http("imds-429", Class::Throttled, 429, None, "", "throttled, without Retry-After"),
    http("imds-429-retry-after", Class::Throttled, 429, Some(5), "", "throttled, with Retry-After").unproven(),
    http(
        "imds-500",
        Class::Transient,
        500,
        None,
        "{\"error\":\"unknown_error\",\"error_description\":\"Failed to retrieve token from the Active directory.\"}",
        "the service fails",
    ),
    http("imds-503", Class::Transient, 503, None, "", "the service is overloaded"),
    http(
        "imds-garbage",
        Class::Unusable,
        200,
        None,
        "<html><body>Welcome</body></html>",
        "a page in place of JSON, as where there is no such service",
    )
    .facts("none"),
    Row::at(Stage::Imds, "imds-hang", Class::Transient, Effect::Stall, "the service never answers").facts("none"),
    Row::at(Stage::Imds, "imds-drop", Class::Transient, Effect::Close, "the connection is cut without an answer")
        .facts("none"),
];
