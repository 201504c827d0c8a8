//! A real Postfix with Dovecot's XOAUTH2 as upstream: TLS, login and transfer as nobody here wrote them.
//!
//! The tokens come from the simulated Entra. What only Exchange says is tested against the sandbox, in the other files.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::harness::{Client, PATIENCE, RECIPIENT, Relay, SENDER, UNKNOWN, World, field, message, until, with_lf};
use crate::upstream::{OTHER, Upstream, Verdict, split};

#[tokio::test(flavor = "multi_thread")]
async fn postfix_gets_the_message_and_refuses_one_recipient_of_three() {
    let Some(postfix) = Upstream::start().await else { return };
    let world = World::new().await;
    let relay = Relay::start(&postfix.configuration(&world, 3)).await;
    let mut client = Client::connect(relay.address).await.unwrap();
    let text = message("three");
    assert_eq!(client.send(&[RECIPIENT, UNKNOWN, OTHER], &text).await.unwrap().code(), 250);
    for recipient in [RECIPIENT, OTHER] {
        let taken = postfix.wait_for(recipient, 1).await;
        assert_arrived(&taken[0], &[&text[..], b"\r\n"].concat());
    }
    let line = relay.log().wait_for(|line| line.contains("not delivered"));
    assert!(line.contains(UNKNOWN) && line.contains("550 5.1.1"), "{line}");
    assert!(!line.contains(RECIPIENT) && !line.contains(OTHER), "{line}");
    assert!(postfix.log().contains(&format!("sasl_method=XOAUTH2, sasl_username={SENDER}")), "{}", postfix.log());
    assert_eq!(world.sandbox.counters().tokens_issued, 1);
    assert_eq!(postfix.judge.tokens().len(), 1, "one login served all");
    // What was refused is reported, and not sent again.
    relay.log().wait_for(|line| line.contains("\"sent\"") && line.contains(&format!("\"recipients\":\"{SENDER}\"")));
    postfix.settled().await;
    assert_eq!((postfix.count_of(RECIPIENT), postfix.count_of(OTHER)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_gets_100_messages_once_each_on_three_connections() {
    const MESSAGES: usize = 100;
    let Some(postfix) = Upstream::start().await else { return };
    let world = World::new().await;
    let relay = Relay::start(&postfix.configuration(&world, CONNECTIONS)).await;
    let senders = Arc::new(Senders::new(MESSAGES));
    senders.send_all(relay.address).await;
    postfix.wait_for(RECIPIENT, MESSAGES).await;
    // It says QUIT, and Postfix what the sessions were.
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(until(PATIENCE, || sessions(&postfix.log()).iter().sum::<usize>() == MESSAGES).await, "{}", postfix.log());
    let sessions = sessions(&postfix.log());
    eprintln!("messages of each session: {sessions:?}");
    assert!(sessions.len() <= CONNECTIONS, "connections are reused: {sessions:?}");
    let ids = postfix.ids_of(RECIPIENT);
    assert_eq!(ids.keys().cloned().collect::<BTreeSet<_>>(), senders.promised());
    assert!(ids.values().all(|count| *count == 1), "{ids:?}");
    assert_eq!(world.sandbox.counters().tokens_issued, 1, "one token serves all");
}

/// How many messages each session with a login brought, by what Postfix says of those that ended:
/// `disconnect from unknown[127.0.0.1] ehlo=2 starttls=1 auth=1 mail=34 rcpt=34 data=34 quit=1 commands=107`.
fn sessions(log: &str) -> Vec<usize> {
    let ended = log.lines().filter(|line| line.contains("disconnect from") && line.contains(" auth=1 "));
    ended.map(|line| line.split_once(" data=").map_or(0, |(_, rest)| leading_number(rest))).collect()
}

fn leading_number(text: &str) -> usize {
    text.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_gets_a_large_message_octet_for_octet() {
    const SIZE: usize = 20 << 20;
    let Some(postfix) = Upstream::start().await else { return };
    let world = World::new().await;
    let relay = Relay::start(&postfix.configuration(&world, 1)).await;
    let mut text = message("large");
    text.extend_from_slice(b"\r\n");
    add_hard_lines(&mut text, SIZE);
    let mut client = Client::connect(relay.address).await.unwrap();
    for command in [format!("MAIL FROM:<{SENDER}> BODY=8BITMIME SIZE={}", text.len()), format!("RCPT TO:<{RECIPIENT}>")]
    {
        assert_eq!(client.command(&command).await.unwrap().code(), 250);
    }
    assert_eq!(client.command("DATA").await.unwrap().code(), 354);
    client.write(&with_dots_stuffed(&text)).await.unwrap();
    client.write(b".\r\n").await.unwrap();
    let reply = client.reply().await.unwrap();
    assert_eq!(reply.code(), 250, "{reply}");
    let taken = postfix.wait_for(RECIPIENT, 1).await;
    assert_arrived(&taken[0], &text);
}

/// Lines of 8-bit text up to `size`: short and long, empty, of dots, with dots in front, beyond RFC 5321's 998 octets, the same
/// every time.
fn add_hard_lines(text: &mut Vec<u8>, size: usize) {
    let mut chance = fastrand::Rng::with_seed(20);
    while text.len() < size {
        text.extend(std::iter::repeat_n(b'.', [0, 0, 1, 2, 3][chance.usize(..5)]));
        let longest = [1, 80, 998, 5000][chance.usize(..4)];
        let octets = std::iter::repeat_with(|| chance.u8(..)).filter(|octet| !matches!(octet, 0 | b'\r' | b'\n'));
        let line: Vec<u8> = octets.take(longest).collect();
        text.extend_from_slice(&line[..chance.usize(..=longest)]);
        text.extend_from_slice(b"\r\n");
    }
}

/// As a client sends it.
fn with_dots_stuffed(text: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(text.len() + text.len() / 16);
    for line in text.split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
    }
    stuffed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_dovecot_refuses_holds_the_lane_and_costs_no_mail() {
    refused_login_holds_the_lane(Verdict::Inactive).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_user_holds_the_lane_and_costs_no_mail() {
    refused_login_holds_the_lane(Verdict::GoodFor("somebody.else@contoso.com")).await;
}

async fn refused_login_holds_the_lane(verdict: Verdict) {
    // With it Postfix logs the dialog.
    let Some(postfix) = Upstream::start_with("debug_peer_list = 127.0.0.1\n").await else { return };
    postfix.judge.say(verdict);
    let world = World::new().await;
    let relay = Relay::start(&postfix.configuration(&world, 3)).await;
    let mut client = Client::connect(relay.address).await.unwrap();
    for name in ["one", "two"] {
        assert_eq!(client.send(&[RECIPIENT], &message(name)).await.unwrap().code(), 250);
    }
    let line = relay.log().wait_for(|line| line.contains("lane stands still"));
    assert!(line.contains("535 5.7.8"), "{line}");
    // The refusal came in two steps: a reason in JSON, and after an empty line the 535.
    let challenge = postfix.wait_for_log(|line| line.contains("> unknown[127.0.0.1]: 334 ")).await;
    let challenge = STANDARD.decode(challenge.rsplit(' ').next().unwrap()).unwrap();
    let challenge: serde_json::Value = serde_json::from_slice(&challenge).unwrap();
    assert!(challenge.is_object(), "{challenge}");
    eprintln!("the reason in the challenge: {challenge}");
    // A fresh token was asked for once, and tried.
    assert_eq!(world.sandbox.counters().tokens_issued, 2);
    let tokens: BTreeSet<_> = postfix.judge.tokens().into_iter().collect();
    assert_eq!(tokens.len(), 2);
    for token in &tokens {
        assert!(!relay.log().text().contains(&token[..24]), "no token is in the log");
    }
    assert_eq!(relay.log().count(|line| line.contains("\"WARN\"")), 1, "{}", relay.log().text());
    // The next probe by itself comes in a minute; a start makes one at once.
    postfix.judge.say(Verdict::GoodFor(SENDER));
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(postfix.count_of(RECIPIENT), 0);
    let relay = Relay::start(&postfix.configuration(&world, 3)).await;
    relay.log().wait_for(|line| line.contains("queue opened") && line.contains("\"queued\":2"));
    postfix.wait_for(RECIPIENT, 2).await;
    assert_eq!(postfix.ids_of(RECIPIENT), each_once(&["<one@test.local>", "<two@test.local>"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_replaced_on_every_connection_and_no_mail_waits() {
    let Some(postfix) = Upstream::start().await else { return };
    postfix.judge.say(Verdict::FirstRevoked);
    let world = World::new().await;
    let relay = Relay::start(&postfix.configuration(&world, CONNECTIONS)).await;
    let senders = Arc::new(Senders::new(30));
    senders.send_all(relay.address).await;
    postfix.wait_for(RECIPIENT, 30).await;
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("\"WARN\""), "{log}");
    assert_eq!(world.sandbox.counters().tokens_issued, 2, "one fresh one serves all");
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_waits_while_dovecot_is_away_and_goes_out_by_itself() {
    let Some(mut postfix) = Upstream::start().await else { return };
    postfix.stop_dovecot();
    let world = World::new().await;
    let relay = Relay::start(&postfix.configuration(&world, 3)).await;
    let mut client = Client::connect(relay.address).await.unwrap();
    assert_eq!(client.send(&[RECIPIENT], &message("one")).await.unwrap().code(), 250);
    // Postfix hangs up where it cannot ask: that is no refusal, and tried again within seconds.
    let line = relay.log().wait_for(|line| line.contains("lane stands still"));
    assert!(!line.contains("refused the login"), "{line}");
    postfix.start_dovecot().await;
    relay.log().wait_for(|line| line.contains("lane works again"));
    postfix.wait_for(RECIPIENT, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_gets_every_message_that_had_its_250_after_kill_9() {
    const MESSAGES: usize = 200;
    let Some(postfix) = Upstream::start().await else { return };
    let world = World::new().await;
    let configuration = postfix.configuration(&world, CONNECTIONS);
    let relay = Relay::start(&configuration).await;
    let senders = Arc::new(Senders::new(MESSAGES));
    let sending = tokio::spawn({
        let (senders, address) = (Arc::clone(&senders), relay.address);
        async move { senders.send_all(address).await }
    });
    let is_in_the_middle = || postfix.count_of(RECIPIENT) >= MESSAGES / 4;
    assert!(until(PATIENCE, is_in_the_middle).await);
    relay.kill();
    sending.await.unwrap();
    let (promised, before) = (senders.promised().len(), postfix.count_of(RECIPIENT));
    // The clients come back with what is left.
    let relay = Relay::start(&configuration).await;
    let uncertain = uncertain(&relay);
    senders.send_all(relay.address).await;
    let has_all = || {
        let ids = postfix.ids_of(RECIPIENT);
        senders.promised().iter().all(|id| ids.contains_key(id))
    };
    assert!(until(PATIENCE, has_all).await, "{:?} of {:?}", postfix.ids_of(RECIPIENT), senders.promised());
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    postfix.settled().await;
    let ids = postfix.ids_of(RECIPIENT);
    let copies: usize = ids.values().sum();
    eprintln!(
        "killed with {promised} messages promised and {before} delivered; {} promised in all, 0 lost, {} duplicates, \
         {uncertain} deliveries marked uncertain",
        senders.promised().len(),
        copies - ids.len(),
    );
    assert!(before < MESSAGES, "the kill came in the middle");
    // One start sends once more what was under way at the kill. A mark that was not synced by then is not counted.
    assert!(ids.values().all(|count| *count <= 2), "{ids:?}");
}

/// How many deliveries were in flight at a kill.
fn uncertain(relay: &Relay) -> usize {
    let lines = relay.log().text();
    let line = lines.lines().find(|line| line.contains("in flight when the last run was cut"));
    line.map_or(0, |line| field(line, "deliveries").parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_waits_while_postfix_is_away_and_goes_out_by_itself() {
    let Some(mut postfix) = Upstream::start().await else { return };
    let world = World::new().await;
    let relay = Relay::start(&postfix.configuration(&world, 3)).await;
    let mut client = Client::connect(relay.address).await.unwrap();
    assert_eq!(client.send(&[RECIPIENT], &message("before")).await.unwrap().code(), 250);
    postfix.wait_for(RECIPIENT, 1).await;
    postfix.stop_postfix();
    for name in ["one", "two"] {
        assert_eq!(client.send(&[RECIPIENT], &message(name)).await.unwrap().code(), 250);
    }
    let line = relay.log().wait_for(|line| line.contains("lane stands still"));
    assert!(line.contains("cannot connect to localhost"), "{line}");
    postfix.start_postfix().await;
    relay.log().wait_for(|line| line.contains("lane works again"));
    postfix.wait_for(RECIPIENT, 3).await;
    let expected = each_once(&["<before@test.local>", "<one@test.local>", "<two@test.local>"]);
    assert_eq!(postfix.ids_of(RECIPIENT), expected);
    assert_eq!(relay.log().count(|line| line.contains("\"WARN\"")), 1, "{}", relay.log().text());
}

fn each_once(ids: &[&str]) -> BTreeMap<String, usize> {
    ids.iter().map(|id| ((*id).to_owned(), 1)).collect()
}

/// How many connections there are on each side of the relay, where a test needs several.
const CONNECTIONS: usize = 3;

/// Clients that send numbered messages together, and what they were promised.
struct Senders {
    count: usize,
    next: AtomicUsize,
    /// Message-IDs that had their 250.
    promised: Mutex<BTreeSet<String>>,
}

impl Senders {
    fn new(count: usize) -> Self {
        Self { count, next: AtomicUsize::new(0), promised: Mutex::default() }
    }

    /// Sends what is left on [`CONNECTIONS`] connections, until nothing is left or the relay is gone.
    async fn send_all(self: &Arc<Self>, address: SocketAddr) {
        let senders: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let senders = Arc::clone(self);
                tokio::spawn(async move { senders.send(address).await })
            })
            .collect();
        for sender in senders {
            sender.await.unwrap();
        }
    }

    async fn send(&self, address: SocketAddr) {
        let Ok(mut client) = Client::connect(address).await else { return };
        loop {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            if number >= self.count {
                return;
            }
            let name = format!("m{number}");
            // The relay is gone: this message had no promise.
            let Ok(reply) = client.send(&[RECIPIENT], &message(&name)).await else { return };
            assert_eq!(reply.code(), 250, "{reply}");
            self.promised.lock().unwrap().insert(format!("<{name}@test.local>"));
        }
    }

    fn promised(&self) -> BTreeSet<String> {
        self.promised.lock().unwrap().clone()
    }
}

/// What was delivered is what was sent: the header only gained lines above, and in it, and no octet of the body changed.
fn assert_arrived(delivered: &[u8], sent: &[u8]) {
    let sent = with_lf(sent);
    let ((header, body), (sent_header, sent_body)) = (split(delivered), split(&sent));
    // Not assert_eq: a body may have millions of octets.
    if body != sent_body {
        let at = body.iter().zip(sent_body).position(|(one, other)| one != other);
        panic!("{} octets came of {}; the first that differs is at {at:?}", body.len(), sent_body.len());
    }
    assert!(header.contains(&sent_header), "{sent_header}\nis not in\n{header}");
}
