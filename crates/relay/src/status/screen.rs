//! The snapshot as a person reads it: what is wrong and what to do first, then the tables. Pure: snapshot and time in,
//! text out.
//!
//! Texts of upstream and of Entra ID are shown without control characters, so that they cannot play with the terminal.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use clock::WallTime;
use token_manager::Nearness;

use super::snapshot::{
    Lane, Listener, LoggedEvent, Queue, QueueCounts, Snapshot, State, Time, Token, TokenState, Trouble, UnknownMailbox,
};

/// Columns; longer sentences go on in the next line.
const WIDTH: usize = 100;
/// Rows of a table before the rest is only counted.
const ROWS: usize = 10;
/// Log lines shown, and characters of each.
const EVENTS: usize = 5;
const EVENT_LENGTH: usize = 200;

/// The screen at `now`.
pub(crate) fn screen(snapshot: &Snapshot, now: WallTime) -> String {
    let mut screen = heading(snapshot, now);
    screen += "\n";
    screen += &troubles(snapshot, now);
    screen += &listeners(&snapshot.listeners);
    screen += &lanes(&snapshot.lanes, snapshot.no_queue.is_none());
    screen += &tokens(&snapshot.tokens, now);
    match (&snapshot.queue, &snapshot.no_queue) {
        (Some(queue), _) => screen += &self::queue(queue, now),
        (None, Some(why)) => screen.extend(["\nQUEUE  none: ", &plain(why), "\n"]),
        (None, None) => {}
    }
    screen += &events(&snapshot.last_errors, now);
    screen
}

/// The one line of `--check`: the verdict, then what is in trouble all the same.
pub(crate) fn verdict(snapshot: &Snapshot) -> String {
    let verdict = match snapshot.ailment() {
        Some(ailment) => format!("not healthy: {ailment}"),
        None => "healthy".to_owned(),
    };
    let tokens = snapshot.tokens.iter().filter(|token| token.state == TokenState::Failing).map(|token| {
        let advice = token.last_failure.as_ref().map(|failure| failure.advice.as_str()).unwrap_or_default();
        format!("{} gets no token: {advice}", whose_token(token).to_lowercase())
    });
    let now = snapshot.taken_at.0;
    let ends = once_for_each_end(&snapshot.tokens).filter_map(|token| credential_end(token, now));
    let ends = ends.chain(snapshot.tokens.iter().filter_map(|token| sign_in_end(token, now)));
    let lanes = once_for_each_tenant(snapshot.lanes.iter()).filter_map(|lane| {
        let trouble = lane.trouble.as_ref().filter(|_| !waits_for_token(lane, &snapshot.tokens))?;
        Some(format!("{} cannot send: {}", whose(lane, trouble).to_lowercase(), trouble.text))
    });
    let senders = snapshot.lanes.iter().flat_map(|lane| &lane.refused_senders);
    let senders = senders.map(|refused| format!("mail from {} is not taken: {}", refused.sender, refused.text));
    let mut troubles: Vec<String> =
        tokens.chain(ends).chain(lanes).chain(senders).map(|trouble| shortened(&trouble, EVENT_LENGTH)).collect();
    if let Some(more @ 1..) = troubles.len().checked_sub(EVENTS) {
        troubles.truncate(EVENTS);
        troubles.push(format!("and {more} more"));
    }
    if troubles.is_empty() { plain(&verdict) } else { format!("{}; {}", plain(&verdict), troubles.join("; ")) }
}

fn heading(snapshot: &Snapshot, now: WallTime) -> String {
    let state = match snapshot.state {
        State::OpeningQueue if snapshot.no_queue.is_some() => "starting, clients hear 421 meanwhile; started",
        State::OpeningQueue => "opening the queue, clients hear 421 meanwhile; started",
        State::Serving => "serving since",
        State::Stopping => "stopping; started",
    };
    let Snapshot { version, hostname, pid, started_at, .. } = snapshot;
    let started = time(*started_at, now);
    format!("xoauth2-relay {} on {}, pid {pid}\n{state} {started}\n", plain(version), plain(hostname))
}

/// Each trouble in a sentence, with its remedy.
fn troubles(snapshot: &Snapshot, now: WallTime) -> String {
    let mut told = Vec::new();
    if let Some(problem) = snapshot.queue.as_ref().and_then(|queue| queue.problem.as_ref()) {
        told.push(format!("The queue takes no mail now: {problem}."));
    }
    let fate = if snapshot.no_queue.is_some() { CLIENTS_WAIT } else { MAIL_WAITS };
    told.extend(snapshot.tokens.iter().filter_map(|token| token_trouble(token, fate, now)));
    told.extend(once_for_each_end(&snapshot.tokens).filter_map(|token| credential_end(token, now)));
    told.extend(once_for_each_end(&snapshot.tokens).filter_map(credential_trouble));
    told.extend(snapshot.tokens.iter().filter_map(|token| sign_in_end(token, now)));
    let lanes = snapshot.lanes.iter().filter(|lane| !waits_for_token(lane, &snapshot.tokens));
    told.extend(once_for_each_tenant(lanes).filter_map(|lane| lane_trouble(lane, fate, now)));
    told.extend(snapshot.lanes.iter().filter_map(|lane| day(lane, fate)));
    told.extend(snapshot.lanes.iter().flat_map(|lane| refused_senders(lane, now)));
    told.extend(snapshot.unknown_mailboxes.iter().map(|mailbox| unknown(mailbox, now)));
    told.extend(snapshot.stranded.iter().map(|lane| {
        format!(
            "Mail is queued for {lane}, a login that no mailbox of the configuration has. It follows the routes; what none of them takes is \
             held until one does or that mailbox is configured again."
        )
    }));
    told.extend(snapshot.queue.as_ref().and_then(|queue| queue.counts.as_ref()).and_then(set_aside));
    if told.is_empty() {
        return match snapshot.state {
            State::Serving => "All is well.\n".to_owned(),
            State::OpeningQueue | State::Stopping => String::new(),
        };
    }
    let more = told.len().saturating_sub(ROWS);
    let shown = told.iter().take(ROWS).map(|sentence| wrapped("! ", sentence)).collect::<String>();
    shown + &and_more(more)
}

/// What trouble means where there is a queue...
const MAIL_WAITS: &str = "its mail waits";
/// ...and where there is none.
const CLIENTS_WAIT: &str = "its clients are told to come back";

/// Whether its trouble is the token's, which is told with the tenant or the sign-in.
fn waits_for_token(lane: &Lane, tokens: &[Token]) -> bool {
    let is_of_lane = |token: &Token| {
        let mailbox = token.mailbox.as_deref();
        token.tenant == lane.tenant
            && mailbox.is_none_or(|mailbox| lane.mailbox.split(", ").any(|name| name == mailbox))
    };
    lane.trouble.as_ref().is_some_and(|trouble| trouble.kind == "no_token")
        && tokens.iter().any(|token| is_of_lane(token) && token.state == TokenState::Failing)
}

/// Whose token it is, to begin a sentence.
fn whose_token(token: &Token) -> String {
    match &token.mailbox {
        Some(mailbox) => format!("Mailbox {mailbox} of tenant {}", token.tenant),
        None => format!("Tenant {}", token.tenant),
    }
}

/// The tokens with one of each credential: those of all mailboxes of a tenant have the same.
fn once_for_each_end(tokens: &[Token]) -> impl Iterator<Item = &Token> {
    let mut tenants: Vec<&str> = Vec::new();
    tokens.iter().filter(move |token| {
        let is_new = !tenants.contains(&token.tenant.as_str());
        tenants.push(&token.tenant);
        is_new
    })
}

/// That the credential ends within a month, or has ended.
fn credential_end(token: &Token, now: WallTime) -> Option<String> {
    let credential = token.credential.as_ref()?;
    let ends_at = credential.ends_at?;
    let what = match Nearness::of(ends_at.0, now)? {
        Nearness::Over => "expired",
        Nearness::Day | Nearness::Week | Nearness::Month => "expires",
    };
    Some(format!(
        "Tenant {}: the {} {what} {}. Do this: make another in the app registration (Certificates & secrets) and put it in its place; \
         it is taken up without a restart.",
        token.tenant,
        credential.description,
        time(ends_at, now),
    ))
}

/// What is wrong with a credential that is to take another's place.
fn credential_trouble(token: &Token) -> Option<String> {
    let trouble = token.credential.as_ref()?.trouble.as_ref()?;
    Some(format!(
        "Tenant {}: the credential as it stands now cannot be used, the one before it goes on: {}.",
        token.tenant,
        trouble.trim_end_matches('.')
    ))
}

/// That nobody could renew a sign-in for so long that it ends within a month.
fn sign_in_end(token: &Token, now: WallTime) -> Option<String> {
    let ends_at = token.sign_in.as_ref()?.ends_at;
    let what = match Nearness::of(ends_at.0, now)? {
        Nearness::Over => "ended",
        Nearness::Day | Nearness::Week | Nearness::Month => "ends",
    };
    Some(format!(
        "{}: the sign-in could not be renewed for a long time and {what} {}. Do this: see why token requests fail, or run `xoauth2-relay \
         login`.",
        whose_token(token),
        time(ends_at, now),
    ))
}

fn token_trouble(token: &Token, fate: &str, now: WallTime) -> Option<String> {
    let failure = token.last_failure.as_ref().filter(|_| token.state == TokenState::Failing)?;
    let class = std::iter::once(failure.class.clone());
    let codes = failure.codes.iter().map(|code| format!("AADSTS{code}"));
    let kind = class.chain(codes).collect::<Vec<_>>().join(", ");
    let until = token.expires_at.filter(|expires_at| expires_at.0 > now);
    let what = match until {
        Some(until) => format!("gets no new token; its old one is good until {}", time(until, now)),
        None => format!("gets no token, {fate}"),
    };
    Some(format!(
        "{} {what}: {} ({kind}, {}). Do this: {}. Next try {}.",
        whose_token(token),
        failure.text.trim_end_matches('.'),
        relative(failure.at.0, now),
        failure.advice.trim_end_matches('.'),
        relative(token.next_request.0, now),
    ))
}

fn lane_trouble(lane: &Lane, fate: &str, now: WallTime) -> Option<String> {
    let trouble = lane.trouble.as_ref()?;
    let next = match trouble.next_probe {
        None => "One message is being tried now".to_owned(),
        Some(next) if next.0 <= now => "The next message is tried at once".to_owned(),
        Some(next) => format!("Next try {}", relative(next.0, now)),
    };
    Some(format!(
        "{} has not been able to send since {}; {fate}: {}. Do this: {}. {next}.",
        whose(lane, trouble),
        time(trouble.since, now),
        trouble.text.trim_end_matches('.'),
        trouble.advice.trim_end_matches('.'),
    ))
}

/// How far a trouble reaches.
fn whose(lane: &Lane, trouble: &Trouble) -> String {
    match trouble.scope.as_str() {
        "tenant" => format!("Tenant {}", lane.tenant),
        _ => format!("Mailbox {}", lane.mailbox),
    }
}

/// Trouble of a tenant is all its lanes', and told with the first of them.
fn once_for_each_tenant<'a>(lanes: impl Iterator<Item = &'a Lane>) -> impl Iterator<Item = &'a Lane> {
    let mut told = BTreeSet::new();
    lanes.filter(move |lane| match &lane.trouble {
        Some(trouble) if trouble.scope == "tenant" => told.insert((lane.tenant.as_str(), trouble.text.as_str())),
        _ => true,
    })
}

/// A day that is nearly used up.
fn day(lane: &Lane, fate: &str) -> Option<String> {
    let Lane { recipients_last_day: used, recipients_per_day: limit, mailbox, .. } = lane;
    (*limit > 0 && used.saturating_mul(10) >= limit.saturating_mul(9)).then(|| {
        format!(
            "Mailbox {mailbox} has used {used} of its {limit} recipients of 24 hours; beyond them {fate}, and it goes on as \
             the day slides. Do this: send less, or share the mail among several mailboxes by a [[route]]."
        )
    })
}

fn refused_senders(lane: &Lane, now: WallTime) -> impl Iterator<Item = String> {
    lane.refused_senders.iter().map(move |refused| {
        format!(
            "Mail from {} waits since {}, mailbox {} may not send it: {}. Do this: {}. It is tried on, ever more seldom.",
            refused.sender,
            time(refused.since, now),
            lane.mailbox,
            refused.text.trim_end_matches('.'),
            refused.advice.trim_end_matches('.'),
        )
    })
}

fn unknown(mailbox: &UnknownMailbox, now: WallTime) -> String {
    format!(
        "Exchange lets nobody log in to {}, a sender's own mailbox, since {}: its mail goes by the route's fallback or waits. Do this: \
         create the mailbox, or give the application permission on it; it is tried again {}.",
        mailbox.lane,
        time(mailbox.since, now),
        time(mailbox.until, now),
    )
}

fn set_aside(counts: &QueueCounts) -> Option<String> {
    let QueueCounts { held, quarantined, .. } = counts;
    let kinds = [(held, "held for the operator"), (quarantined, "damaged")];
    let kinds: Vec<_> =
        kinds.into_iter().filter(|(count, _)| **count > 0).map(|(count, kind)| format!("{count} {kind}")).collect();
    (!kinds.is_empty()).then(|| {
        format!(
            "Mail that does not go out by itself: {}; the log says why. What no route takes: xoauth2-relay queue reroute \
             moves it. There is no command yet to look at the rest or remove it; it hurts no other mail.",
            kinds.join(", ")
        )
    })
}

fn listeners(listeners: &[Listener]) -> String {
    let rows = listeners.iter().map(|listener| {
        vec![
            listener.name.clone(),
            if listener.is_closed { "closed".to_owned() } else { listener.address.clone() },
            format!("{} of {}", listener.sessions, listener.max_sessions),
            listener.accepted.to_string(),
            listener.turned_away.to_string(),
        ]
    });
    table(&["LISTENER", "ADDRESS", "SESSIONS", "ACCEPTED", "TURNED AWAY"], rows.collect())
}

/// Those in trouble come first: they are looked for.
fn lanes(lanes: &[Lane], has_queue: bool) -> String {
    let mut lanes: Vec<_> = lanes.iter().collect();
    lanes.sort_by_key(|lane| lane.trouble.is_none());
    let headings = ["LANE", "LOGIN", "STATE", "CONNECTIONS", "LAST MINUTE", "QUEUED"];
    // The last column is the queue's.
    let columns = headings.len() - usize::from(!has_queue);
    let rows = lanes.into_iter().map(|lane| {
        let mut row = vec![
            lane.mailbox.clone(),
            lane.login.clone(),
            lane.trouble.as_ref().map_or(pace(lane), |trouble| trouble.kind.as_str()).to_owned(),
            format!("{} of {}", lane.connections, at_most(lane.allowed_connections, lane.max_connections)),
            format!(
                "{} of {}",
                lane.sent_last_minute,
                at_most(lane.allowed_messages_per_minute, lane.messages_per_minute)
            ),
            match lane.queued {
                Some(queued @ 0..1000) => queued.to_string(),
                Some(queued) => format!("{queued} or more"),
                None => "unknown".to_owned(),
            },
        ];
        row.truncate(columns);
        row
    });
    table(&headings[..columns], rows.collect())
}

/// Whether upstream takes less than is configured.
fn pace(lane: &Lane) -> &'static str {
    let slowed = at_most(lane.allowed_connections, lane.max_connections) < lane.max_connections
        || at_most(lane.allowed_messages_per_minute, lane.messages_per_minute) < lane.messages_per_minute;
    if slowed { "slowed" } else { "works" }
}

/// What is allowed now; an older daemon does not say.
fn at_most(allowed: usize, configured: usize) -> usize {
    if allowed == 0 { configured } else { allowed.min(configured) }
}

fn tokens(tokens: &[Token], now: WallTime) -> String {
    let mut tokens: Vec<_> = tokens.iter().collect();
    tokens.sort_by_key(|token| token.state != TokenState::Failing);
    let rows = tokens.into_iter().map(|token| {
        let state = match token.state {
            TokenState::Fetched => "fetched",
            TokenState::Waiting => "waiting",
            TokenState::Failing => "failing",
        };
        let name = token
            .mailbox
            .as_ref()
            .map_or_else(|| token.tenant.clone(), |mailbox| format!("{}/{mailbox}", token.tenant));
        vec![
            name,
            state.to_owned(),
            token.expires_at.map_or_else(|| "none yet".to_owned(), |at| time(at, now)),
            relative(token.next_request.0, now),
        ]
    });
    table(&["TOKEN", "STATE", "VALID UNTIL", "NEXT REQUEST"], rows.collect())
}

fn queue(queue: &Queue, now: WallTime) -> String {
    let Some(counts) = &queue.counts else { return "\nQUEUE  cannot be read\n".to_owned() };
    let QueueCounts { messages, bytes, queued, held, quarantined, uncertain, .. } = counts;
    let (most_messages, most_bytes) = (queue.max_messages, size(queue.max_bytes));
    let mut text = format!("\nQUEUE  {messages} of {most_messages} messages, {} of {most_bytes}\n", size(*bytes));
    let _ = write!(text, "       {queued} queued");
    if *uncertain > 0 {
        let _ = write!(text, " ({uncertain} of them perhaps sent already)");
    }
    let _ = writeln!(text, ", {held} held, {quarantined} damaged");
    if let Some(oldest) = counts.oldest_accepted_at {
        let _ = writeln!(text, "       oldest accepted {}", time(oldest, now));
    }
    if let Some(due) = counts.earliest_due_at {
        let _ = writeln!(text, "       earliest due {}", time(due, now));
    }
    text
}

fn events(events: &[LoggedEvent], now: WallTime) -> String {
    if events.is_empty() {
        return String::new();
    }
    let hidden = events.len().saturating_sub(EVENTS);
    let mut text = "\nLAST WARNINGS AND ERRORS\n".to_owned();
    for LoggedEvent { at, level, text: said, .. } in events.iter().skip(hidden) {
        text += &wrapped("", &format!("{} {level} {}", time(*at, now), shortened(said, EVENT_LENGTH)));
    }
    text + &and_more(hidden)
}

/// A table with an empty line before it; nothing when it has no rows.
fn table(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let more = rows.len().saturating_sub(ROWS);
    let headings = headings.iter().map(|heading| (*heading).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(headings)
        .chain(rows.into_iter().take(ROWS))
        .map(|row: Vec<String>| row.iter().map(|cell| plain(cell)).collect())
        .collect();
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect::<Vec<_>>();
        format!("{}\n", cells.join("  ").trim_end())
    });
    format!("\n{}{}", lines.collect::<String>(), and_more(more))
}

fn and_more(more: usize) -> String {
    if more == 0 { String::new() } else { format!("and {more} more (--json shows all)\n") }
}

/// `text` over as many lines as it needs, the first after `mark` and the others below it.
fn wrapped(mark: &str, text: &str) -> String {
    let indent = " ".repeat(mark.len().max(2));
    let (mut lines, mut line, mut empty) = (String::new(), mark.to_owned(), true);
    for word in plain(text).split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines += &std::mem::replace(&mut line, indent.clone());
            lines.push('\n');
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line += word;
        empty = false;
    }
    lines + &line + "\n"
}

/// Without what a terminal would obey.
fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

fn shortened(text: &str, length: usize) -> String {
    let text = plain(text);
    match text.char_indices().nth(length) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// `2026-11-21 07:54:00 UTC (3 min ago)`
fn time(at: Time, now: WallTime) -> String {
    let text = at.0.rfc3339();
    let absolute = text.get(..19).unwrap_or(&text).replace('T', " ");
    format!("{absolute} UTC ({})", relative(at.0, now))
}

/// `3 min ago`, `in 40 s`, `now`
fn relative(at: WallTime, now: WallTime) -> String {
    let (past, future) = (now.saturating_since(at), at.saturating_since(now));
    if future >= Duration::from_secs(1) {
        format!("in {}", rough(future))
    } else if past >= Duration::from_secs(1) {
        format!("{} ago", rough(past))
    } else {
        "now".to_owned()
    }
}

/// In the unit that a person would choose, rounded down.
fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Octets in the unit that a person would choose.
pub(crate) fn size(octets: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = (octets, 0);
    let mut unit = None;
    for name in units {
        if value.0 < 1024 {
            break;
        }
        value = (value.0 / 1024, value.0 % 1024 * 10 / 1024);
        unit = Some(name);
    }
    match unit {
        None => format!("{octets} octets"),
        Some(unit) if value.1 == 0 => format!("{} {unit}", value.0),
        Some(unit) => format!("{}.{} {unit}", value.0, value.1),
    }
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::{Credential, SignIn, TokenFailure, Trouble};
    use super::*;

    const NOW: WallTime = WallTime::from_unix_millis(1_795_247_640_000);

    fn ago(seconds: u64) -> Time {
        Time(NOW - Duration::from_secs(seconds))
    }

    fn ahead(seconds: u64) -> Time {
        Time(NOW + Duration::from_secs(seconds))
    }

    fn well() -> Snapshot {
        Snapshot {
            version: "0.1.0".into(),
            state: State::Serving,
            pid: 4711,
            hostname: "relay01.example.com".into(),
            started_at: ago(11_000),
            taken_at: ago(0),
            uptime_seconds: 11_000,
            listeners: vec![Listener {
                name: "local".into(),
                address: "127.0.0.1:2525".into(),
                sessions: 2,
                max_sessions: 1000,
                accepted: 1234,
                turned_away: 5,
                is_closed: false,
            }],
            lanes: vec![lane("scanner")],
            tokens: vec![Token {
                tenant: "contoso".into(),
                state: TokenState::Fetched,
                expires_at: Some(ahead(3500)),
                next_request: ahead(2400),
                last_success: Some(ago(100)),
                failures: 0,
                last_failure: None,
                mailbox: None,
                credential: Some(Credential {
                    description: "client secret from file /etc/xoauth2-relay/contoso.secret".into(),
                    ends_at: None,
                    trouble: None,
                }),
                sign_in: None,
            }],
            no_queue: None,
            queue: Some(Queue {
                problem: None,
                max_messages: 1_000_000,
                max_bytes: 20 << 30,
                counts: Some(QueueCounts {
                    messages: 3,
                    bytes: 36_280_000,
                    queued: 3,
                    held: 0,
                    quarantined: 0,
                    uncertain: 1,
                    oldest_accepted_at: Some(ago(190)),
                    earliest_due_at: Some(ahead(10)),
                }),
            }),
            stranded: Vec::new(),
            unknown_mailboxes: Vec::new(),
            last_errors: Vec::new(),
        }
    }

    fn lane(name: &str) -> Lane {
        Lane {
            tenant: "contoso".into(),
            mailbox: name.into(),
            login: format!("{name}@contoso.com"),
            connections: 1,
            max_connections: 3,
            in_flight: 1,
            sent_last_minute: 12,
            messages_per_minute: 30,
            allowed_connections: 3,
            allowed_messages_per_minute: 30,
            recipients_last_day: 400,
            recipients_per_day: 10_000,
            queued: Some(3),
            trouble: None,
            refused_senders: Vec::new(),
        }
    }

    fn failing(mut snapshot: Snapshot) -> Snapshot {
        let token = &mut snapshot.tokens[0];
        token.state = TokenState::Failing;
        token.expires_at = None;
        token.next_request = ahead(45);
        token.failures = 3;
        token.last_failure = Some(TokenFailure {
            at: ago(15),
            class: "credential".into(),
            http_status: Some(401),
            codes: vec![7_000_215],
            trace_id: None,
            correlation_id: None,
            text: "Invalid client secret provided.".into(),
            advice: "the client secret is wrong: paste the secret's Value, not its Secret ID".into(),
        });
        snapshot.lanes[0].trouble = Some(trouble("no_token", "no token"));
        snapshot
    }

    fn trouble(kind: &str, text: &str) -> Trouble {
        Trouble {
            kind: kind.into(),
            scope: "mailbox".into(),
            text: text.into(),
            advice: "check the service principal".into(),
            since: ago(240),
            next_probe: Some(ahead(61)),
        }
    }

    #[test]
    fn what_ends_soon_is_told_with_the_remedy() {
        const DAY: u64 = 24 * 60 * 60;
        let mut snapshot = well();
        let credential = |days: u64| Credential {
            description: "certificate from file app.pem".into(),
            ends_at: Some(ahead(days * DAY)),
            trouble: None,
        };
        snapshot.tokens[0].credential = Some(credential(31));
        assert!(screen(&snapshot, NOW).contains("All is well."));
        snapshot.tokens[0].credential = Some(credential(6));
        let signed_in = SignIn {
            account: Some("anna@contoso.com".into()),
            user: "info@contoso.com".into(),
            signed_in_at: ago(89 * DAY),
            renewed_at: ago(89 * DAY),
            ends_at: ahead(DAY),
            refused_at: None,
        };
        let mailbox = Token { mailbox: Some("info".into()), sign_in: Some(signed_in), ..snapshot.tokens[0].clone() };
        snapshot.tokens.push(mailbox);
        let shown = screen(&snapshot, NOW).replace("\n  ", " ");
        assert_eq!(shown.matches("certificate from file app.pem expires").count(), 1, "{shown}");
        assert!(shown.contains("taken up without a restart"), "{shown}");
        assert!(shown.contains("Mailbox info of tenant contoso: the sign-in could not be renewed"), "{shown}");
        assert!(shown.contains("contoso/info"), "{shown}");
        assert!(verdict(&snapshot).starts_with("healthy; Tenant contoso: the certificate"), "{}", verdict(&snapshot));
    }

    #[test]
    fn a_daemon_that_is_well_fits_one_screen() {
        let expected = "\
xoauth2-relay 0.1.0 on relay01.example.com, pid 4711
serving since 2026-11-21 04:50:40 UTC (3 h ago)

All is well.

LISTENER  ADDRESS         SESSIONS   ACCEPTED  TURNED AWAY
local     127.0.0.1:2525  2 of 1000  1234      5

LANE     LOGIN                STATE  CONNECTIONS  LAST MINUTE  QUEUED
scanner  scanner@contoso.com  works  1 of 3       12 of 30     3

TOKEN    STATE    VALID UNTIL                          NEXT REQUEST
contoso  fetched  2026-11-21 08:52:20 UTC (in 58 min)  in 40 min

QUEUE  3 of 1000000 messages, 34.5 MiB of 20 GiB
       3 queued (1 of them perhaps sent already), 0 held, 0 damaged
       oldest accepted 2026-11-21 07:50:50 UTC (3 min ago)
       earliest due 2026-11-21 07:54:10 UTC (in 10 s)
";
        let screen = screen(&well(), NOW);
        assert_eq!(screen, expected);
        assert!(screen.lines().count() <= 24);
        assert!(screen.lines().all(|line| line.len() <= 80));
    }

    #[test]
    fn a_relay_without_a_queue_says_so_and_counts_nothing_in_it() {
        let mut snapshot = Snapshot {
            queue: None,
            no_queue: Some("every listener is direct, and nothing is stored".into()),
            ..well()
        };
        snapshot.lanes[0].queued = None;
        let expected = "\
xoauth2-relay 0.1.0 on relay01.example.com, pid 4711
serving since 2026-11-21 04:50:40 UTC (3 h ago)

All is well.

LISTENER  ADDRESS         SESSIONS   ACCEPTED  TURNED AWAY
local     127.0.0.1:2525  2 of 1000  1234      5

LANE     LOGIN                STATE  CONNECTIONS  LAST MINUTE
scanner  scanner@contoso.com  works  1 of 3       12 of 30

TOKEN    STATE    VALID UNTIL                          NEXT REQUEST
contoso  fetched  2026-11-21 08:52:20 UTC (in 58 min)  in 40 min

QUEUE  none: every listener is direct, and nothing is stored
";
        let screen = screen(&snapshot, NOW);
        assert_eq!(screen, expected);
        assert!(screen.lines().all(|line| line.len() <= 80));
        assert_eq!(verdict(&snapshot), "healthy");
        let starting = Snapshot { state: State::OpeningQueue, ..snapshot };
        assert!(super::screen(&starting, NOW).contains("starting, clients hear 421"));
        assert_eq!(verdict(&starting), "not healthy: it is still starting");
    }

    #[test]
    fn trouble_comes_first_with_its_remedy_and_each_is_told_once() {
        let mut snapshot = failing(well());
        snapshot.lanes.push(Lane { trouble: Some(trouble("refused", "535 5.7.3 no.")), ..lane("erp") });
        if let Some(QueueCounts { held, .. }) = snapshot.queue.as_mut().and_then(|queue| queue.counts.as_mut()) {
            *held = 2;
        }
        snapshot.last_errors.push(LoggedEvent {
            at: ago(15),
            level: "WARN".into(),
            target: "token_manager".into(),
            text: "token request failed\u{1b}[2J".into(),
        });
        let expected = "\
xoauth2-relay 0.1.0 on relay01.example.com, pid 4711
serving since 2026-11-21 04:50:40 UTC (3 h ago)

! Tenant contoso gets no token, its mail waits: Invalid client secret provided (credential,
  AADSTS7000215, 15 s ago). Do this: the client secret is wrong: paste the secret's Value, not its
  Secret ID. Next try in 45 s.
! Mailbox erp has not been able to send since 2026-11-21 07:50:00 UTC (4 min ago); its mail waits:
  535 5.7.3 no. Do this: check the service principal. Next try in 1 min.
! Mail that does not go out by itself: 2 held for the operator; the log says why. What no route
  takes: xoauth2-relay queue reroute moves it. There is no command yet to look at the rest or remove
  it; it hurts no other mail.

LISTENER  ADDRESS         SESSIONS   ACCEPTED  TURNED AWAY
local     127.0.0.1:2525  2 of 1000  1234      5

LANE     LOGIN                STATE     CONNECTIONS  LAST MINUTE  QUEUED
scanner  scanner@contoso.com  no_token  1 of 3       12 of 30     3
erp      erp@contoso.com      refused   1 of 3       12 of 30     3

TOKEN    STATE    VALID UNTIL  NEXT REQUEST
contoso  failing  none yet     in 45 s

QUEUE  3 of 1000000 messages, 34.5 MiB of 20 GiB
       3 queued (1 of them perhaps sent already), 2 held, 0 damaged
       oldest accepted 2026-11-21 07:50:50 UTC (3 min ago)
       earliest due 2026-11-21 07:54:10 UTC (in 10 s)

LAST WARNINGS AND ERRORS
2026-11-21 07:53:45 UTC (15 s ago) WARN token request failed [2J
";
        assert_eq!(screen(&snapshot, NOW), expected);
    }

    #[test]
    fn a_daemon_that_is_starting_says_so() {
        let snapshot = Snapshot {
            state: State::OpeningQueue,
            started_at: ago(1),
            listeners: Vec::new(),
            lanes: Vec::new(),
            tokens: Vec::new(),
            queue: None,
            ..well()
        };
        let expected = "\
xoauth2-relay 0.1.0 on relay01.example.com, pid 4711
opening the queue, clients hear 421 meanwhile; started 2026-11-21 07:53:59 UTC (1 s ago)

";
        assert_eq!(screen(&snapshot, NOW), expected);
    }

    #[test]
    fn long_lists_are_cut_with_those_in_trouble_first() {
        let mut snapshot = well();
        snapshot.lanes = (0..30).map(|number| lane(&format!("box{number}"))).collect();
        snapshot.lanes[29].trouble = Some(trouble("refused", "535"));
        snapshot.lanes[28].queued = Some(1000);
        snapshot.last_errors = (0..20)
            .map(|number| LoggedEvent {
                at: ago(100 - number),
                level: "WARN".into(),
                target: "spool".into(),
                text: format!("event {number} {}", "x".repeat(500)),
            })
            .collect();
        let screen = screen(&snapshot, NOW);
        assert!(screen.contains("and 20 more (--json shows all)\n\nTOKEN"), "{screen}");
        assert!(screen.contains("box29"), "{screen}");
        assert!(screen.contains("event 19") && !screen.contains("event 14"), "{screen}");
        assert!(screen.ends_with("and 15 more (--json shows all)\n"), "{screen}");
        snapshot.lanes[28].trouble = Some(trouble("refused", "535"));
        assert!(super::screen(&snapshot, NOW).contains("1000 or more"));
    }

    #[test]
    fn the_verdict_is_one_line_and_names_trouble_that_is_no_failure() {
        assert_eq!(verdict(&well()), "healthy");
        assert_eq!(
            verdict(&failing(well())),
            "healthy; tenant contoso gets no token: the client secret is wrong: paste the secret's Value, not its Secret ID"
        );
        let mut snapshot = well();
        snapshot.lanes[0].trouble = Some(trouble("refused", "535\n5.7.3"));
        assert_eq!(verdict(&snapshot), "healthy; mailbox scanner cannot send: 535 5.7.3");
        let full = |queue: Queue| Queue { problem: Some("the queue is full".into()), ..queue };
        snapshot.queue = snapshot.queue.map(full);
        assert_eq!(
            verdict(&snapshot),
            "not healthy: no mail is taken: the queue is full; mailbox scanner cannot send: 535 5.7.3"
        );
        snapshot.state = State::Stopping;
        assert!(verdict(&snapshot).starts_with("not healthy: the daemon is stopping; "));
    }

    #[test]
    fn an_old_token_that_still_serves_is_said_to() {
        let mut snapshot = failing(well());
        snapshot.tokens[0].expires_at = Some(ahead(600));
        let screen = screen(&snapshot, NOW);
        assert!(
            screen.contains("gets no new token; its old one is good until 2026-11-21 08:04:00 UTC (in 10"),
            "{screen}"
        );
    }

    #[test]
    fn a_snapshot_survives_the_socket() {
        let snapshot = failing(well());
        let json = serde_json::to_string(&snapshot).unwrap();
        assert!(json.contains("\"started_at\":\"2026-11-21T04:50:40.000Z\""), "{json}");
        assert_eq!(serde_json::from_str::<Snapshot>(&json).unwrap(), snapshot);
    }

    #[test]
    fn ages_and_sizes() {
        for (seconds, expected) in
            [(0, "now"), (59, "59 s ago"), (60, "1 min ago"), (3600, "1 h ago"), (172_800, "2 d ago")]
        {
            assert_eq!(relative(ago(seconds).0, NOW), expected);
        }
        assert_eq!(relative(ahead(90).0, NOW), "in 1 min");
        for (octets, expected) in [
            (0, "0 octets"),
            (1023, "1023 octets"),
            (1536, "1.5 KiB"),
            (1 << 40, "1 TiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(size(octets), expected);
        }
    }
}
