//! The words of a report about one message. Whoever reads them keeps accounts, not mail servers: the first sentence says
//! what happened to which mail, the next who must do what, and only then comes what an administrator needs.

use crate::message_id::MessageId;
use crate::path::ReversePath;

use super::reason::reason;
use super::subject::Subject;
use super::text::{MAX_TEXT, Prose};
use super::{Fate, Kind, Letter, Notice};
use crate::encoded_word::encoded_if_needed;
use crate::readable::{cut, one_line};

/// More recipients than this are counted in the first sentence and named below.
const MAX_NAMED: usize = 3;
const LIST: &str = "    ";
const REPLY: &str = "        ";

/// The subject of the report, in ASCII.
pub(super) fn title(notice: &Notice<'_>) -> String {
    let what = match notice.kind {
        Kind::Failed => "Undelivered",
        Kind::Delayed => "Delayed",
        Kind::Relayed => "Passed on",
    };
    match subject(notice) {
        Some(subject) => format!("{what}: {}", subject.field()),
        None => match notice.fates {
            [fate] => encoded_if_needed(&format!("{what}: mail to {}", fate.recipient)),
            fates => format!("{what}: mail to {} recipients", fates.len()),
        },
    }
}

/// The message's own identifier, if it is one.
pub(super) fn original_id(notice: &Notice<'_>) -> Option<MessageId> {
    let value = notice.original.value("Message-ID")?;
    MessageId::parse(std::str::from_utf8(value).ok()?)
}

/// The text for people.
pub(super) fn prose(notice: &Notice<'_>, whole: bool) -> Prose {
    let mut prose = Prose::default();
    let explained: Vec<_> = notice.fates.iter().map(|fate| Explained::new(notice, fate)).collect();
    let why = shared(&explained, |explained| &explained.why);
    let remedy = shared(&explained, |explained| &explained.remedy);
    prose.paragraph(&opening(notice, why.map(String::as_str)));
    if let Some(text) = consequence(notice) {
        prose.paragraph(&text);
    }
    if let Some(Some(remedy)) = remedy {
        prose.paragraph(&format!("What to do: {remedy}"));
    }
    answers(&mut prose, &explained, why.is_none(), remedy.is_none());
    details(&mut prose, notice);
    prose.paragraph(match (whole, is_to_sender(notice)) {
        (true, true) => "Your whole message is attached.",
        (true, false) => "The whole message is attached.",
        (false, true) => "The header of your message is attached.",
        (false, false) => "The header of the message is attached.",
    });
    signature(&mut prose, &notice.letter);
    prose
}

/// The last lines of every report.
pub(super) fn signature(prose: &mut Prose, letter: &Letter<'_>) {
    let hostname = letter.hostname;
    let text = format!("This report was made by xoauth2-relay on {hostname}; nobody reads replies to it.");
    prose.indented("", &text);
}

/// A fate with its reason and remedy in words.
struct Explained<'a> {
    fate: &'a Fate<'a>,
    why: String,
    remedy: Option<String>,
}

impl<'a> Explained<'a> {
    fn new(notice: &Notice<'_>, fate: &'a Fate<'a>) -> Self {
        let said = |text: Option<&str>| text.map(|text| cut(&one_line(text), MAX_TEXT)).filter(|text| !text.is_empty());
        let usual = reason(notice.kind, fate.reply);
        let (why, remedy) = (said(fate.reason), said(fate.remedy));
        // Ours is for our own reason, and for whoever can send the message again.
        let usual_remedy = usual.remedy.filter(|_| why.is_none() && is_to_sender(notice)).map(str::to_owned);
        let why = why.unwrap_or_else(|| usual.why.to_owned());
        Self {
            fate,
            why: why.trim_end_matches('.').to_owned(),
            remedy: remedy.or(usual_remedy).map(|text| sentence(&text)),
        }
    }
}

/// `text` with an end and a capital.
fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first: String = characters.next().into_iter().flat_map(char::to_uppercase).collect();
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{end}", characters.as_str())
}

/// What all have in common, if they do.
fn shared<'a, T: PartialEq>(all: &'a [Explained<'_>], part: impl Fn(&'a Explained<'_>) -> &'a T) -> Option<&'a T> {
    let first = part(all.first()?);
    all.iter().all(|explained| part(explained) == first).then_some(first)
}

/// `Your message "Invoice" to bob@x.example was not delivered: the mailbox is full.`
fn opening(notice: &Notice<'_>, why: Option<&str>) -> String {
    let whose = if is_to_sender(notice) { "Your message" } else { "The message" };
    let subject = subject(notice);
    let title = subject.as_ref().and_then(Subject::readable).map(|text| format!(" \"{text}\"")).unwrap_or_default();
    let sender = match &notice.envelope.reverse_path {
        _ if is_to_sender(notice) => String::new(),
        ReversePath::Mailbox(sender) => format!(" from {sender}"),
        ReversePath::Null => " without a sender".to_owned(),
    };
    let what = match notice.kind {
        Kind::Failed => "was not delivered".to_owned(),
        Kind::Delayed => "has not been delivered yet".to_owned(),
        Kind::Relayed => format!("was passed on to {}", remote(notice.fates)),
    };
    let why = match why {
        _ if notice.kind == Kind::Relayed => ".".to_owned(),
        Some(why) => format!(": {why}."),
        None => ". The reason for each of them is given below.".to_owned(),
    };
    format!("{whose}{title}{sender} to {} {what}{why}", recipients(notice.fates))
}

fn recipients(fates: &[Fate<'_>]) -> String {
    let names: Vec<_> = fates.iter().take(MAX_NAMED).map(|fate| fate.recipient.to_string()).collect();
    match names.as_slice() {
        _ if fates.len() > MAX_NAMED => format!("{} recipients", fates.len()),
        [others @ .., last] if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        names => names.concat(),
    }
}

/// The server that took it, if it is one and known.
fn remote(fates: &[Fate<'_>]) -> String {
    let first = fates.first().and_then(|fate| fate.remote_mta);
    let known = first.filter(|_| fates.iter().all(|fate| fate.remote_mta == first));
    known.map_or_else(|| "the mail server".to_owned(), one_line)
}

/// What follows from it for the reader.
fn consequence(notice: &Notice<'_>) -> Option<String> {
    match (notice.kind, &notice.envelope.reverse_path) {
        (Kind::Failed, _) if is_to_sender(notice) => None,
        (Kind::Failed, ReversePath::Null) => Some("It has no sender who could be told.".to_owned()),
        (Kind::Failed, ReversePath::Mailbox(_)) => {
            Some("The sender has not been told. If the message matters, please tell them.".to_owned())
        }
        (Kind::Delayed, _) => {
            let end = notice.fates.iter().filter_map(|fate| fate.will_retry_until).next_back();
            let until = end.map(|end| format!(" until {}", time(end))).unwrap_or_default();
            Some(format!(
                "It is not lost: it is kept and tried again{until}. You need not send it again; if it cannot be delivered \
                 in the end, you will be told."
            ))
        }
        (Kind::Relayed, _) => Some(
            "A confirmation of its delivery was asked for. That server does not confirm deliveries, so this is the only \
             one; you should get a report if the message cannot be delivered. You need not do anything."
                .to_owned(),
        ),
    }
}

/// What was answered for whom. Neighbours of whom the same was said stand together, and what holds for all was said before.
fn answers(prose: &mut Prose, explained: &[Explained<'_>], whys_differ: bool, remedies_differ: bool) {
    let heading = explained.first().map(|explained| heading(explained.fate)).unwrap_or_default();
    let plain = !whys_differ && !remedies_differ && explained.iter().all(|other| self::heading(other.fate) == heading);
    prose.paragraph(if plain {
        &heading
    } else {
        "For each of them, with the answer of the mail server word for word:"
    });
    for alike in explained.chunk_by(is_alike) {
        let Some(first) = alike.first() else { continue };
        for explained in alike {
            prose.indented(LIST, &explained.fate.recipient.to_string());
        }
        let reply = cut(&one_line(&first.fate.reply.to_string()), MAX_TEXT);
        if plain {
            prose.indented(REPLY, &reply);
        } else {
            let why = format!("{}.", first.why);
            let remedy = first.remedy.as_deref().unwrap_or_default();
            let said = if first.fate.reply.code.is_some() { "Answer:     " } else { "Cause:      " };
            for (label, text, shown) in [
                ("Why:        ", why.as_str(), whys_differ),
                ("What to do: ", remedy, remedies_differ && !remedy.is_empty()),
                (said, reply.as_str(), true),
            ] {
                if shown {
                    prose.beside(&format!("{REPLY}{label}"), text);
                }
            }
        }
        prose.gap();
    }
}

fn is_alike(one: &Explained<'_>, other: &Explained<'_>) -> bool {
    one.fate.reply == other.fate.reply
        && one.fate.remote_mta == other.fate.remote_mta
        && one.why == other.why
        && one.remedy == other.remedy
}

fn heading(fate: &Fate<'_>) -> String {
    match (fate.reply.code, fate.remote_mta) {
        (Some(_), Some(remote)) => format!("The answer of {remote}, word for word:"),
        (Some(_), None) => "The answer of the mail server, word for word:".to_owned(),
        (None, _) => "What went wrong on the way to the mail server:".to_owned(),
    }
}

/// What an administrator asks for.
fn details(prose: &mut Prose, notice: &Notice<'_>) {
    let sender = match &notice.envelope.reverse_path {
        ReversePath::Mailbox(sender) => sender.to_string(),
        ReversePath::Null => "none".to_owned(),
    };
    let last_attempt = notice.fates.iter().filter_map(|fate| fate.last_attempt).next_back();
    let message_id = original_id(notice).map(|id| id.to_string()).unwrap_or_default();
    let envelope_id = notice.envelope.envelope_id.as_ref().map(crate::dsn::EnvelopeId::decoded).unwrap_or_default();
    prose.paragraph("For your administrator:");
    for (label, value) in [
        ("Queue id:     ", notice.queue_id),
        ("Sender:       ", &sender),
        ("Accepted:     ", &time(notice.arrival)),
        ("Last attempt: ", &time(last_attempt.unwrap_or_default())),
        ("Message-ID:   ", &message_id),
        ("Envelope id:  ", &envelope_id),
    ] {
        if !one_line(value).is_empty() {
            prose.beside(&format!("{LIST}{label}"), &cut(value, MAX_TEXT));
        }
    }
    prose.gap();
}

/// A time as a person names its zone.
pub(super) fn time(text: &str) -> String {
    text.trim().strip_suffix("+0000").map_or_else(|| text.to_owned(), |time| format!("{time}UTC"))
}

/// Whether the reader is whoever sent the message.
fn is_to_sender(notice: &Notice<'_>) -> bool {
    notice.envelope.reverse_path.mailbox() == Some(notice.letter.to)
}

fn subject(notice: &Notice<'_>) -> Option<Subject> {
    Subject::read(notice.original.value("Subject")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_is_a_sentence() {
        for (text, wanted) in [("ask Anna", "Ask Anna."), ("Ask Anna!", "Ask Anna!"), ("ändern", "Ändern.")] {
            assert_eq!(sentence(text), wanted);
        }
    }
}
