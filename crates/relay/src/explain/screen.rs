//! An explanation as a person reads it: the verdict and what is refused first, then each step, then each part of the message
//! with what it leaves as. Pure. Texts of the message are shown without control characters.

use std::time::Duration;

use super::explanation::{Delivery, Explanation, Mailbox, NearMiss, Recipient, Refused, Route};
use crate::status::size;

/// Columns; longer sentences go on in the next line.
const WIDTH: usize = 80;
/// Where the text of a line begins behind its label.
const INDENT: usize = 17;
/// Recipients named of a list.
const NAMED: usize = 5;

/// The screen.
pub(super) fn screen(said: &Explanation) -> String {
    let mut screen = wrapped("", &verdict(said), 2);
    for refused in &said.refused {
        screen += &refusal(refused);
    }
    screen += "\n";
    for step in &said.steps {
        screen += &line(step.step, &step.text);
    }
    for recipient in &said.recipients {
        if let Some(mapped) = &recipient.address.mapped {
            screen +=
                &line("recipient", &format!("{} becomes {mapped} by [rewrite] recipients", recipient.address.given));
        }
    }
    let parts = said.deliveries.len();
    if parts > 1 {
        screen += &line("split", &format!("it leaves in {parts} parts, a delivery each"));
    }
    for (at, delivery) in said.deliveries.iter().enumerate() {
        screen += &part(said, at, delivery);
    }
    for recipient in said.recipients.iter().filter(|recipient| !recipient.taken) {
        screen += &lost(said, recipient);
    }
    if !said.not_known.is_empty() {
        screen += "\n";
        screen += &line("not known here", &said.not_known.join("; "));
    }
    screen
}

fn verdict(said: &Explanation) -> String {
    let sender = said.sender.as_ref().map_or("<>", |sender| &sender.given);
    let user = said.user.as_ref().map(|user| format!(" as {user}")).unwrap_or_default();
    let who = format!("Mail of {sender} from {}{user} at listener {}", said.client, said.listener);
    match (said.taken, said.deliveries.is_empty()) {
        (true, _) => format!("{who} would be taken."),
        (false, true) => format!("{who} would be refused."),
        (false, false) => {
            let taken = said.recipients.iter().filter(|recipient| recipient.taken).count();
            format!("{who} would be taken for {taken} of {} recipients.", said.recipients.len())
        }
    }
}

fn refusal(refused: &Refused) -> String {
    let Refused { command, recipient, reply, reason, remedy, near_misses } = refused;
    let recipient = recipient.as_ref().map(|recipient| format!(" for {recipient}")).unwrap_or_default();
    let mut text = wrapped("! ", &format!("At {command}{recipient} the client hears: {reply}"), 2);
    if !reply.contains(reason.as_str()) {
        text += &wrapped("  ", &format!("Why: {reason}."), 2);
    }
    text += &wrapped("  ", &format!("Do this: {remedy}."), 2);
    text += &near_misses.iter().map(near).collect::<String>();
    text
}

fn near(near: &NearMiss) -> String {
    let NearMiss { number, name, matcher, text } = near;
    line("  near miss", &format!("route {number} {name:?} but for {matcher}: {text}"))
}

fn part(said: &Explanation, at: usize, delivery: &Delivery) -> String {
    let its = said.recipients.iter().filter(|recipient| {
        recipient.taken && recipient.route.as_ref().is_some_and(|route| route.name == delivery.route)
    });
    let mut text = format!("\nDELIVERY {}\n", at + 1);
    text += &line("  to", &listed(&delivery.recipients));
    if !delivery.redirected_from.is_empty() {
        text += &line(
            "  redirected",
            &format!("redirect_all_to of the route, instead of {}", listed(&delivery.redirected_from)),
        );
    }
    let mut misses: Vec<&NearMiss> = Vec::new();
    let mut told = Vec::new();
    for recipient in its {
        let because = recipient.route.as_ref().map(because).unwrap_or_default();
        if !told.contains(&because) && told.len() < NAMED {
            text += &line("  route", &because);
            told.push(because);
        }
        for miss in &recipient.near_misses {
            if !misses.iter().any(|other| other.number == miss.number) {
                misses.push(miss);
            }
        }
    }
    text += &misses.into_iter().map(near).collect::<String>();
    text += &line("  tenant", &delivery.tenant);
    text += &line("  mailbox", &delivery.because);
    text += &line("  sender", policy(delivery.policy));
    let limit = size(delivery.max_message_size);
    text += &match said.size {
        Some(octets) => line("  size", &format!("{} of at most {limit}", size(octets))),
        None => line("  size", &format!("at most {limit}")),
    };
    text += &line("  max_age", &period(Duration::from_secs(delivery.max_age)));
    for (at, mailbox) in delivery.mailboxes.iter().enumerate() {
        text += &leaves(mailbox, at.checked_sub(1).and_then(|before| delivery.mailboxes.get(before)));
    }
    text
}

/// What a mailbox sends; said once where the one before it sends the same.
fn leaves(mailbox: &Mailbox, before: Option<&Mailbox>) -> String {
    let Mailbox { name, address, login, mail_from, edits, header_diff, .. } = mailbox;
    let lane =
        if login == address { format!("{name}, {address}") } else { format!("{name}, {address}, login {login}") };
    let mut text = line("  lane", &lane);
    let same = |before: &Mailbox| (&before.mail_from, &before.header_diff) == (mail_from, header_diff);
    if before.is_some_and(same) {
        return text + &line("  leaves", "as by the one before");
    }
    text += &line("  MAIL FROM", &format!("<{mail_from}>"));
    if edits.is_empty() && header_diff.is_empty() {
        return text + &line("  header", "not changed");
    }
    for edit in edits {
        text += &line("  change", edit);
    }
    for changed in header_diff {
        text += &wrapped("    ", changed, 8);
    }
    text
}

/// Which route decided about a recipient that is not taken; what was refused of it stands above.
fn lost(said: &Explanation, recipient: &Recipient) -> String {
    let Some(route) = &recipient.route else { return String::new() };
    if said.refused.iter().all(|refused| refused.recipient.is_none()) {
        return String::new();
    }
    let mut text = format!("\nREFUSED {}\n", recipient.address.given);
    text += &line("  route", &because(route));
    text + &recipient.near_misses.iter().map(near).collect::<String>()
}

fn because(route: &Route) -> String {
    let Route { number, name, because } = route;
    let Some(number) = number else { return "none is written".to_owned() };
    if because.is_empty() {
        format!("{number} {name:?}: it has no matchers and takes all")
    } else {
        format!("{number} {name:?}: {}", because.join("; "))
    }
}

fn policy(policy: &str) -> &'static str {
    match policy {
        "keep" => "keep: it leaves as it is",
        "rewrite" => "rewrite: it becomes the mailbox's from",
        "reject" => "reject: the mailbox may send as it, or it would have been refused",
        _ => "auto: kept if the mailbox may send as it, else rewritten",
    }
}

fn listed(all: &[String]) -> String {
    let shown = all.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// In the largest unit that leaves no rest, as the configuration writes it.
fn period(period: Duration) -> String {
    let seconds = period.as_secs();
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let unit = units.into_iter().find(|(_, unit)| seconds.is_multiple_of(*unit));
    unit.map_or_else(String::new, |(name, unit)| format!("{}{name}", seconds / unit))
}

fn line(label: &str, text: &str) -> String {
    wrapped(&format!("{label:<INDENT$}"), text, INDENT)
}

/// `text` behind `mark`, in lines of at most 80 columns where its words allow that; those that go on are indented.
fn wrapped(mark: &str, text: &str, indent: usize) -> String {
    let (mut lines, mut line, mut is_empty) = (String::new(), mark.to_owned(), true);
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    for word in plain.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines += &std::mem::replace(&mut line, " ".repeat(indent));
            lines.push('\n');
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line += word;
        is_empty = false;
    }
    lines + line.trim_end() + "\n"
}
