//! What is no reply at all: connections that are cut, answers that never come or come late, and the 421 with which a
//! front end goes away at any stage (facts 8).

use std::time::Duration;

use super::{Class, Effect, Row};
use crate::Stage;

/// Late enough to be seen and short enough to be waited for.
const SLOW: Duration = Duration::from_secs(10);
const NOT_ACTIVE: Effect = Effect::Reply("421 4.3.2 Service not active");

const fn cut(stage: Stage, name: &'static str, meaning: &'static str) -> Row {
    Row::at(stage, name, Class::Transient, Effect::Close, meaning)
}

const fn stall(stage: Stage, name: &'static str, meaning: &'static str) -> Row {
    Row::at(stage, name, Class::Transient, Effect::Stall, meaning)
}

const fn slow(stage: Stage, name: &'static str, meaning: &'static str) -> Row {
    Row::at(stage, name, Class::Harmless, Effect::Delay(SLOW), meaning)
}

const fn closing(stage: Stage, name: &'static str, meaning: &'static str) -> Row {
    Row::at(stage, name, Class::Transient, NOT_ACTIVE, meaning)
}

pub(super) const ROWS: &[Row] = &[
    cut(Stage::Connect, "drop-at-connect", "the connection is cut in place of the banner"),
    cut(Stage::Ehlo, "drop-at-ehlo", "the connection is cut at EHLO"),
    cut(Stage::StartTls, "drop-at-starttls", "the connection is cut at STARTTLS"),
    cut(Stage::Auth, "drop-at-auth", "the connection is cut at AUTH"),
    cut(Stage::Mail, "drop-at-mail", "the connection is cut at MAIL"),
    cut(Stage::Rcpt, "drop-at-rcpt", "the connection is cut at RCPT"),
    cut(Stage::Data, "drop-at-data", "the connection is cut at DATA, before the 354"),
    cut(
        Stage::Content,
        "drop-in-data",
        "the connection is cut in the middle of the content (of some MB; of less the dot may be sent)",
    ),
    Row::at(
        Stage::EndOfData,
        "drop-after-dot",
        Class::Ambiguous,
        Effect::Close,
        "the connection is cut behind the final dot, and the message was not taken",
    ),
    Row::at(
        Stage::EndOfData,
        "drop-after-dot-taken",
        Class::Ambiguous,
        Effect::KeepThenClose,
        "the connection is cut behind the final dot, and the message was taken",
    ),
    stall(Stage::Connect, "stall-at-connect", "nothing comes in place of the banner, and the connection stays open"),
    stall(Stage::Ehlo, "stall-at-ehlo", "nothing comes at EHLO, and the connection stays open"),
    stall(Stage::StartTls, "stall-at-starttls", "nothing comes at STARTTLS, and the connection stays open"),
    stall(Stage::Auth, "stall-at-auth", "nothing comes at AUTH, and the connection stays open"),
    stall(Stage::Mail, "stall-at-mail", "nothing comes at MAIL, and the connection stays open"),
    stall(Stage::Rcpt, "stall-at-rcpt", "nothing comes at RCPT, and the connection stays open"),
    stall(Stage::Data, "stall-at-data", "nothing comes at DATA, before the 354, and the connection stays open"),
    stall(
        Stage::Content,
        "stall-in-data",
        "in the middle of the content (of some MB; of less the dot may be sent) nothing more is read",
    ),
    Row::at(
        Stage::EndOfData,
        "stall-after-dot",
        Class::Ambiguous,
        Effect::Stall,
        "nothing comes behind the final dot, and the message was not taken",
    ),
    slow(Stage::Connect, "slow-greeting", "the right answer comes 10 s late in place of the banner"),
    slow(Stage::Ehlo, "slow-ehlo", "the right answer comes 10 s late at EHLO"),
    slow(Stage::StartTls, "slow-starttls", "the right answer comes 10 s late at STARTTLS"),
    slow(Stage::Auth, "slow-auth", "the right answer comes 10 s late at AUTH"),
    slow(Stage::Mail, "slow-mail", "the right answer comes 10 s late at MAIL"),
    slow(Stage::Rcpt, "slow-rcpt", "the right answer comes 10 s late at RCPT"),
    slow(Stage::Data, "slow-data", "the right answer comes 10 s late at DATA, before the 354"),
    slow(Stage::EndOfData, "slow-final-reply", "the message is taken, and its 250 comes 10 s late"),
    closing(Stage::Ehlo, "closing-at-ehlo", "the front end goes away at EHLO"),
    closing(Stage::StartTls, "closing-at-starttls", "the front end goes away at STARTTLS"),
    closing(Stage::Auth, "closing-at-auth", "the front end goes away at AUTH"),
    closing(Stage::Mail, "closing-at-mail", "the front end goes away at MAIL"),
    closing(Stage::Rcpt, "closing-at-rcpt", "the front end goes away at RCPT"),
    closing(Stage::Data, "closing-at-data", "the front end goes away at DATA, before the 354"),
    closing(Stage::Content, "closing-in-data", "the front end goes away in the middle of the content"),
    closing(Stage::EndOfData, "closing-after-dot", "the front end goes away behind the final dot, and says so"),
];
