//! The intake of a listener with a real queue behind it, without a socket.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use clock::{ManualClock, WallTime};
use mail::{BodyType, ForwardPath, HeaderBlock, MAX_HEADER_LEN};
use smtp_server::{HandshakeError, MessageSink};
use spool::{Claim, SpoolOptions, SqliteSource, SqliteSpool};
use tempfile::TempDir;
use tracing_subscriber::layer::SubscriberExt;
use wire::Dialect;

use super::pace::MessageLimits;
use super::*;
use crate::config::{ReceivedDetail, User};
use crate::container::Gateways;
use crate::users::Users;

const NOW: i64 = 1_795_247_640_000;
const ROOMY: u64 = 1 << 30;

struct World {
    spool: Arc<SqliteSpool>,
    intake: ListenerIntake<SqliteSpool>,
    _directory: TempDir,
}

fn policy(dialect: Dialect) -> ListenerPolicy {
    ListenerPolicy {
        networks: vec!["192.0.2.0/24".parse().unwrap()],
        dialect,
        limits: MessageLimits::default(),
        received: ReceivedDetail::Full,
        proxies: vec!["192.0.2.200".parse().unwrap()],
        gateways: Gateways::default(),
        logins: Logins::Users(users()),
        needs_login: false,
        delivery: DeliveryMode::Queue,
    }
}

thread_local! {
    /// The same in all of a test: a client holds the very name that it logged in with.
    static USERS: Arc<Users> = Arc::new(Users::new(&BTreeMap::from([(
        "erp".to_owned(),
        User::cheap("secret", 1, &["*@contoso.com"]),
    )])));
}

fn users() -> Arc<Users> {
    USERS.with(Arc::clone)
}

fn logged_in(name: &str) -> Arc<str> {
    let credentials = Credentials { name: name.to_owned(), password: Vec::new().into() };
    users().name_of(&credentials).cloned().unwrap_or_else(|| name.into())
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(WallTime::from_unix_millis(NOW)))
}

fn world(dialect: Dialect, max_bytes: u64) -> World {
    let directory = tempfile::tempdir().unwrap();
    let options = SpoolOptions {
        directory: directory.path().join("state"),
        max_messages: 100,
        max_bytes,
        min_free_bytes: 0,
        memory_budget: 1 << 20,
    };
    let spool = Arc::new(SqliteSpool::open(options, clock()).unwrap().0);
    let rooms = Rooms {
        spool: Some(Arc::clone(&spool)),
        direct: None,
        rules: Arc::new(Current::new(rules(directory.path()))),
        unknown: Arc::default(),
        wanted: Arc::default(),
        clock: clock(),
        paces: Paces::default(),
    };
    let opened = Arc::new(OnceLock::new());
    assert!(opened.set(Arc::new(rooms)).is_ok());
    World { spool, intake: ListenerIntake::new(policy(dialect), clock(), opened), _directory: directory }
}

/// The rules of the smallest configuration.
fn rules(directory: &Path) -> Rules {
    let (file, secret) = (directory.join("relay.toml"), directory.join("secret"));
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&secret).unwrap().write_all(b"s3cret").unwrap();
    let text = format!(
        "hostname = \"relay.test\"\n[tenant.contoso]\ntenant_id = \"11111111-2222-3333-4444-555555555555\"\n\
         client_id = \"66666666-7777-8888-9999-000000000000\"\nclient_secret = {{ file = {secret:?} }}\n\
         [mailbox.scanner]\naddress = \"scanner@contoso.com\"\n"
    );
    std::fs::write(&file, text).unwrap();
    let read = crate::config::load(&file, std::iter::empty()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    Rules::new(&read.settings)
}

fn client(user: Option<&str>) -> Client {
    Client {
        session: 1,
        listener: "local".into(),
        peer: "192.0.2.1:1000".parse().unwrap(),
        proxy: None,
        helo: "erp01".into(),
        esmtp: true,
        tls: None,
        user: user.map(logged_in),
    }
}

/// What a client says about a message.
struct Said<'a> {
    user: Option<&'a str>,
    sender: &'a str,
    parameters: MailParameters,
    message: &'a [u8],
}

impl Default for Said<'_> {
    fn default() -> Self {
        Self { user: None, sender: "erp@contoso.com", parameters: MailParameters::default(), message: b"" }
    }
}

impl World {
    async fn mail(&self, said: &Said<'_>) -> Result<MailTransaction<SqliteSpool>, Reply> {
        let path = ReversePath::parse(said.sender.as_bytes()).unwrap();
        self.intake.mail(&client(said.user), path, said.parameters.clone()).await
    }

    /// The final reply.
    async fn submit(&self, said: Said<'_>) -> Result<Reply, Reply> {
        let mut transaction = self.mail(&said).await?;
        transaction.rcpt(ForwardPath::parse(b"to@contoso.com").unwrap().into()).await;
        let mut sink = transaction.data().await?;
        for chunk in said.message.chunks(1000) {
            sink.write(chunk).await?;
        }
        Ok(sink.end().await)
    }

    async fn stored(&self) -> Claim<SqliteSource> {
        let lanes = self.spool.lanes().await.unwrap();
        self.spool.claim(&lanes[0], WallTime::from_unix_millis(NOW)).await.unwrap().unwrap()
    }
}

fn refusal(result: Result<impl Sized, Reply>) -> String {
    match result {
        Ok(_) => panic!("not refused"),
        Err(reply) => reply.to_string(),
    }
}

const LENIENT: Dialect = Dialect::Lenient;
const STRICT: Dialect = Dialect::Strict;
const EIGHT_BIT: MailParameters =
    MailParameters { size: None, body: BodyType::EightBitMime, smtputf8: true, ret: None, envelope_id: None };

#[tokio::test]
async fn clients_are_asked_to_come_back_until_the_queue_is_open_and_strangers_to_stay_away() {
    let intake = ListenerIntake::<SqliteSpool>::new(policy(LENIENT), clock(), Arc::default());
    let stranger = Client { peer: "198.51.100.1:1".parse().unwrap(), ..client(None) };
    assert_eq!(intake.connect(&client(None)).unwrap_err().code(), 421);
    assert_eq!(intake.connect(&stranger).unwrap_err().code(), 554);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_transaction_begins_by_the_policy_of_that_moment() {
    let world = world(LENIENT, ROOMY);
    let networks = vec!["198.51.100.0/24".parse().unwrap()];
    let nobody = || Logins::Users(Arc::new(users().renewed(&BTreeMap::new())));
    let as_erp = || Said { user: Some("erp"), ..Said::default() };
    for (change, said, answer) in [
        (policy(LENIENT), Said::default(), None),
        (policy(LENIENT), as_erp(), None),
        (ListenerPolicy { networks, ..policy(LENIENT) }, Said::default(), Some("554 5.7.1")),
        (ListenerPolicy { logins: nobody(), ..policy(LENIENT) }, Said::default(), None),
        (ListenerPolicy { logins: nobody(), ..policy(LENIENT) }, as_erp(), Some("554 5.7.1")),
        (ListenerPolicy { logins: Logins::Anybody, ..policy(LENIENT) }, as_erp(), None),
        (ListenerPolicy { needs_login: true, ..policy(LENIENT) }, Said::default(), Some("530 5.7.0")),
        (ListenerPolicy { needs_login: true, ..policy(LENIENT) }, as_erp(), None),
    ] {
        let begun = world.mail(&said).await.unwrap();
        world.intake.renew(change);
        let answered = world.mail(&said).await.err().map(|reply| reply.to_string());
        assert_eq!(answered.as_deref().map(|reply| &reply[..9]), answer, "{answered:?}");
        // What had begun goes on as it began.
        begun.data().await.unwrap();
        world.intake.renew(policy(LENIENT));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_little_room_and_a_closed_queue_are_said_at_mail() {
    let world = world(LENIENT, 10_000);
    for (size, answer) in [(None, None), (Some(10_000), None), (Some(10_001), Some(452)), (Some(u64::MAX), Some(452))] {
        let parameters = MailParameters { size, ..MailParameters::default() };
        let answered = world.mail(&Said { parameters, ..Said::default() }).await;
        assert_eq!(answered.err().map(|reply| reply.code()), answer, "{size:?}");
    }
    world.spool.close().await;
    assert!(refusal(world.mail(&Said::default()).await).starts_with("421 4.3.2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn octets_beyond_ascii_are_declared_for_who_did_not_know_to() {
    for (message, body_type) in [
        (&b"Subject: x\r\n\r\nplain\r\n"[..], BodyType::SevenBit),
        (b"Subject: x\r\n\r\nGr\xfc\xdfe\r\n", BodyType::EightBitMime),
        (b"Subject: Gr\xc3\xbc\xc3\x9fe\r\n\r\nplain\r\n", BodyType::EightBitMime),
        (b"Gr\xfc\xdfe ohne Kopf\r\n", BodyType::EightBitMime),
    ] {
        let world = world(LENIENT, ROOMY);
        let reply = world.submit(Said { message, ..Said::default() }).await.unwrap();
        assert_eq!(reply.code(), 250);
        assert_eq!(world.stored().await.envelope.body_type, body_type, "{}", String::from_utf8_lossy(message));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_strict_dialect_takes_only_what_is_right() {
    const FROM: &str = "From: a@contoso.com\r\n";
    const DATE: &str = "Date: Sat, 21 Nov 2026 07:54:00 +0000\r\n";
    let world = world(STRICT, ROOMY);
    let plain = MailParameters::default;
    for (parameters, message, answer) in [
        (plain(), format!("{FROM}\r\nplain\r\n"), "250 2.0.0"),
        (plain(), format!("{FROM}\r\ngr\u{fc}n\r\n"), "554 5.6.1 The body"),
        (plain(), format!("{FROM}Subject: gr\u{fc}n\r\n\r\n"), "554 5.6.1 The header"),
        (EIGHT_BIT, format!("{FROM}Subject: gr\u{fc}n\r\n\r\ngr\u{fc}n\r\n"), "250 2.0.0"),
        (plain(), "Subject: x\r\n\r\n".to_owned(), "554 5.6.0 The message header cannot be taken: it has no From"),
        (plain(), "no header\r\n".to_owned(), "554 5.6.0 The message header cannot be taken: it has no From"),
        (plain(), "From: root\r\n\r\n".to_owned(), "554 5.6.0 The message header cannot be taken: its From"),
        (plain(), "From: HP a@b.c\r\n\r\n".to_owned(), "554 5.6.0 The message header cannot be taken: its From"),
        (plain(), format!("{FROM}{FROM}\r\n"), "554 5.6.0 The message header cannot be taken: it has more than one"),
        (plain(), format!("{FROM}Date: today\r\n\r\n"), "554 5.6.0 The message header cannot be taken: its Date"),
        (
            plain(),
            format!("{FROM}{DATE}{DATE}\r\n"),
            "554 5.6.0 The message header cannot be taken: it has more than one",
        ),
    ] {
        let said = Said { parameters, message: message.as_bytes(), ..Said::default() };
        let reply = world.submit(said).await.unwrap_or_else(|reply| reply).to_string();
        assert!(reply.starts_with(answer), "{message:?}: {reply}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_send_only_as_those_they_may_by_envelope_and_from() {
    for (user, sender, from, refused) in [
        (None, "a@fabrikam.com", "a@fabrikam.com", None),
        (Some("erp"), "erp@contoso.com", "ERP <erp@contoso.com>", None),
        (Some("erp"), "a@fabrikam.com", "erp@contoso.com", Some("MAIL FROM")),
        (Some("erp"), "erp@contoso.com", "CEO <a@fabrikam.com>", Some("From field")),
        (Some("erp"), "erp@contoso.com", "erp@contoso.com, a@fabrikam.com", Some("From field")),
        // What is repaired is judged as it leaves.
        (Some("erp"), "erp@contoso.com", "CEO a@fabrikam.com", Some("From field")),
        (Some("erp"), "erp@contoso.com", "CEO", None),
        // With a null reverse-path the From field decides.
        (Some("erp"), "", "erp@contoso.com", None),
        (Some("erp"), "", "a@fabrikam.com", Some("From field")),
        // An address that is left alone is judged all the same.
        (Some("erp"), "erp@contoso.com", "e..rp@contoso.com", None),
    ] {
        let world = world(LENIENT, ROOMY);
        let message = format!("From: {from}\r\n\r\nbody\r\n");
        let answered = world.submit(Said { user, sender, message: message.as_bytes(), ..Said::default() }).await;
        match refused {
            None => assert_eq!(answered.unwrap().code(), 250, "{sender}, {from}"),
            Some(place) => {
                let said = format!("550 5.7.1 User erp may not send as a@fabrikam.com ({place})");
                assert_eq!(refusal(answered), said, "{sender}, {from}");
                assert_eq!(world.spool.counts().await.unwrap().messages, 0);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_do_not_send_as_others_by_dots_that_stand_wrongly() {
    let world = world(LENIENT, ROOMY);
    let message = b"From: c..eo@fabrikam.com\r\n\r\nbody\r\n";
    let reply = refusal(world.submit(Said { user: Some("erp"), message, ..Said::default() }).await);
    assert_eq!(reply, "550 5.7.1 User erp may not send as \"c..eo\"@fabrikam.com (From field)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_is_too_long_is_refused_with_its_limit() {
    let world = world(LENIENT, ROOMY);
    let message = format!("X: {}", "x".repeat(MAX_HEADER_LEN));
    let reply = refusal(world.submit(Said { message: message.as_bytes(), ..Said::default() }).await);
    assert!(reply.starts_with("552 5.3.4") && reply.contains(&MAX_HEADER_LEN.to_string()), "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn text_without_a_header_is_a_body_however_long_and_is_asked_for_no_loop() {
    let log = "Nov 21 07:54:00 erp01 cron[1]: done\r\n".repeat(MAX_HEADER_LEN / 30);
    let hops = format!("a log of mail\r\n{}", "Received: by relay.test; today\r\n".repeat(200));
    let mbox = format!("From here on\r\n{log}");
    for message in [&*log, &hops, &mbox, &"x".repeat(MAX_HEADER_LEN * 2), "no line end", "From x\r\n", "a\r\n\r\nb\r\n"]
    {
        let world = world(LENIENT, ROOMY);
        let reply = world.submit(Said { message: message.as_bytes(), ..Said::default() }).await.unwrap();
        assert_eq!(reply.code(), 250, "{reply}");
        let claim = world.stored().await;
        assert_eq!(spool::BodySource::total(&claim.body), message.len() as u64);
        assert!(HeaderBlock::parse(claim.header.to_vec()).has("From"));
    }
    let world = world(LENIENT, ROOMY);
    let message = format!("{}\r\n", "Received: by relay.test; today\r\n".repeat(11));
    let reply = refusal(world.submit(Said { message: message.as_bytes(), ..Said::default() }).await);
    assert!(reply.starts_with("554 5.4.6"), "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_repaired_is_stored_so_and_its_body_is_whole() {
    let world = world(LENIENT, ROOMY);
    let message = b"From: HP Scanner\r\nDate: 21/11/2026 10:00\r\nMessage-ID: <1@b>\r\n\r\nbody\r\n";
    world.submit(Said { message, ..Said::default() }).await.unwrap();
    let claim = world.stored().await;
    let header = String::from_utf8(claim.header.to_vec()).unwrap();
    let kept = "From: HP Scanner <erp@contoso.com>\r\nX-Original-From: HP Scanner\r\n";
    assert!(header.contains(kept), "{header}");
    assert!(header.contains("\r\nX-Original-Date: 21/11/2026 10:00\r\nMessage-ID: <1@b>\r\n"), "{header}");
    let block = HeaderBlock::parse(header.into_bytes());
    assert!(mail::is_date(block.value("Date").unwrap()));
    assert_eq!(spool::BodySource::total(&claim.body), 6);
}

fn credentials(name: &str, password: &str) -> Credentials {
    Credentials { name: name.to_owned(), password: password.as_bytes().to_vec().into() }
}

#[tokio::test(start_paused = true)]
async fn a_login_is_answered_by_the_users_name_or_after_a_while_by_535_and_in_the_end_by_454() {
    let World { intake, .. } = &world(Dialect::Lenient, ROOMY);
    let login = async |name: &str, password: &str| {
        let begun = tokio::time::Instant::now();
        let answer = intake.authenticate(&client(None), credentials(name, password)).await;
        (answer.map_err(|reply| reply.code()), begun.elapsed().as_secs())
    };
    for (attempt, (name, delay)) in [("erp", 1), ("nobody", 2), ("erp", 4), ("ERP", 5)].iter().enumerate() {
        assert_eq!(login(name, &format!("wrong {attempt}")).await, (Err(535), *delay), "attempt {attempt}");
    }
    let mut codes = Vec::new();
    for attempt in 4..10 {
        codes.push(login("erp", &format!("wrong {attempt}")).await.0.unwrap_err());
    }
    assert_eq!(codes.last(), Some(&454), "{codes:?}");
}

#[tokio::test]
async fn a_right_login_goes_by_the_configured_name() {
    let World { intake, .. } = &world(Dialect::Lenient, ROOMY);
    let answer = intake.authenticate(&client(None), credentials("ERP", "secret")).await;
    assert_eq!(answer.unwrap().as_ref(), "erp");
}

#[tokio::test]
async fn where_anybody_may_log_in_the_name_is_kept_and_may_send_as_all() {
    let policy = ListenerPolicy { logins: Logins::Anybody, ..policy(Dialect::Lenient) };
    assert!(policy.logins.may_send_as("canon", &"a@b.c".parse().unwrap()));
    let intake = ListenerIntake::<SqliteSpool>::new(policy, clock(), Arc::default());
    let answer = intake.authenticate(&client(None), credentials("canon", "whatever")).await;
    assert_eq!(answer.unwrap().as_ref(), "canon");
}

#[test]
fn who_is_a_load_balancer_is_the_listeners_to_say() {
    let intake = ListenerIntake::<SqliteSpool>::new(policy(Dialect::Lenient), clock(), Arc::default());
    assert!(intake.is_proxy("192.0.2.200".parse().unwrap()));
    assert!(intake.is_proxy("::ffff:192.0.2.200".parse().unwrap()));
    assert!(!intake.is_proxy("192.0.2.1".parse().unwrap()));
}

/// What the log has of warnings about `notices` of clients at these addresses.
fn warned(policy: ListenerPolicy, notices: &[(&str, Notice<'_>)]) -> Vec<String> {
    let recent = crate::recent::Recent::new(clock());
    let subscriber = tracing_subscriber::registry().with(recent.clone());
    tracing::subscriber::with_default(subscriber, || {
        let intake = ListenerIntake::<SqliteSpool>::new(policy, clock(), Arc::default());
        for (peer, notice) in notices {
            intake.noticed(&Client { peer: format!("{peer}:1000").parse().unwrap(), ..client(None) }, notice);
        }
    });
    recent.events().into_iter().map(|event| event.text).collect()
}

#[test]
fn a_client_behind_a_containers_gateway_is_warned_of_once() {
    let gateway = Some("172.17.0.1".parse().unwrap());
    let seen = |peers: &[&str]| {
        let policy = ListenerPolicy { gateways: Gateways::of(gateway), ..policy(Dialect::Lenient) };
        let notices: Vec<_> = peers.iter().map(|peer| (*peer, Notice::Connected)).collect();
        warned(policy, &notices)
    };
    assert_eq!(seen(&["192.0.2.1", "172.17.0.2"]), [""; 0]);
    let lines = seen(&["192.0.2.1", "172.17.0.1", "172.17.0.1"]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("listener.local.networks") && lines[0].contains("172.17.0.1"), "{lines:?}");
}

#[test]
fn each_failed_handshake_has_a_remedy_and_is_told_once_a_minute_for_a_client() {
    for failure in [
        HandshakeError::TooOld,
        HandshakeError::NothingInCommon,
        HandshakeError::NoTls,
        HandshakeError::TimedOut,
        HandshakeError::CertificateRefused("UnknownCA".to_owned()),
        HandshakeError::Failed("odd".to_owned()),
    ] {
        let notice = || Notice::HandshakeFailed(&failure);
        let lines = warned(policy(Dialect::Lenient), &[("192.0.2.1", notice()), ("192.0.2.1", notice())]);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("remedy=") && lines[0].contains(&failure.to_string()), "{lines:?}");
        let two = warned(policy(Dialect::Lenient), &[("192.0.2.1", notice()), ("192.0.2.2", notice())]);
        assert_eq!(two.len(), 2, "{two:?}");
    }
}
