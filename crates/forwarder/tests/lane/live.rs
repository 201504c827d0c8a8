//! A message carried live: what upstream hears and when, what its client is told, and what is left of it when the client goes.

use forwarder::{Ending, Live, LiveContent, LiveTold as Told, Spent, Tenant, TroubleKind};
use mail::{
    BodyType, Envelope, EnvelopeId, ForwardPath, Notify, OriginalRecipient, Recipient, Ret, ReversePath, Scope,
};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::road::{Road, Tokens, lane_to, lane_with, mail};
use crate::upstream::{EHLO, Session, Tls, Upstream, within};

pub(crate) const MAIL: &str = "MAIL FROM:<scanner@contoso.com> BODY=8BITMIME";
pub(crate) const PACE: &str = "421 4.4.2 Message submission rate for this client has exceeded the configured limit";

pub(crate) fn to(address: &str) -> Recipient {
    ForwardPath::parse(address.as_bytes()).unwrap().into()
}

fn envelope() -> Envelope {
    Envelope::from(ReversePath::parse(b"scanner@contoso.com").unwrap())
}

/// A live message in a turn that is to be had.
pub(crate) async fn live(road: &Road) -> Live<Tokens> {
    let slot = within(road.lane.live_slot(Duration::ZERO)).await.expect("a turn");
    assert!(Arc::ptr_eq(slot.lane(), &road.lane));
    slot.live(envelope(), None)
}

/// What a client is told, in short.
pub(crate) fn short(told: &Told) -> String {
    match told {
        Told::Upstream(stage, reply) => format!("{stage:?}: {reply}"),
        Told::Trouble(trouble) => format!("trouble: {trouble}"),
        Told::Lost(how) => format!("lost: {how}"),
        Told::Uncertain(how) => format!("uncertain: {how}"),
        other => format!("{other:?}"),
    }
}

/// The outcomes in short.
pub(crate) fn outcomes(ending: &Ending) -> Vec<String> {
    let one = |(recipient, outcome): &(Recipient, mail::Outcome)| {
        format!("{recipient} {}: {}", outcome.name(), outcome.diagnostic())
    };
    ending.outcomes.iter().map(one).collect()
}

/// Asks for a recipient while upstream does its part.
pub(crate) async fn rcpt<R>(live: &mut Live<Tokens>, address: &str, upstream: impl Future<Output = R>) -> (String, R) {
    let (told, upstream) = tokio::join!(within(live.rcpt(to(address))), upstream);
    (short(&told), upstream)
}

/// Asks for a recipient that upstream, logged in already, answers so.
async fn asks(live: &mut Live<Tokens>, address: &str, session: &mut Session<Tls>, reply: &str) -> String {
    let command = format!("RCPT TO:<{address}>");
    rcpt(live, address, session.answer(&command, reply)).await.0
}

/// A message whose first recipient upstream has taken.
pub(crate) async fn begun(upstream: &Upstream, road: &Road) -> (Live<Tokens>, Session<Tls>) {
    let mut live = live(road).await;
    let (told, session) = rcpt(&mut live, "a@contoso.com", async {
        let mut session = upstream.logged_in().await;
        session.answer(&format!("{MAIL}\nRCPT TO:<a@contoso.com>"), "250 2.1.0 OK\n250 2.1.5 OK").await;
        session
    })
    .await;
    assert_eq!(told, "Rcpt: 250 2.1.5 OK");
    (live, session)
}

/// A message that upstream has told to go ahead.
pub(crate) async fn going_ahead(upstream: &Upstream, road: &Road) -> (LiveContent<Tokens>, Session<Tls>) {
    let (live, mut session) = begun(upstream, road).await;
    let (content, ()) = tokio::join!(within(live.data()), session.answer("DATA", "354 go ahead"));
    (content.expect("354"), session)
}

/// The next message of the queue goes over this session, which is reset before.
pub(crate) async fn is_used_again(road: &Road, session: &mut Session<Tls>, with_reset: bool) {
    let next = road.send(mail());
    if with_reset {
        session.answer("RSET", "250 2.0.0 Resetting").await;
    }
    let line = session.line().await;
    assert!(line.starts_with("MAIL FROM"), "{line}");
    session.expect("RCPT TO:<anna@contoso.com>\nDATA").await;
    session.say("250 2.1.0 OK\n250 2.1.5 OK\n354 go ahead").await;
    session.message().await;
    session.say("250 2.0.0 OK").await;
    assert_eq!(next.outcomes().await, ["accepted: 250 2.0.0 OK"]);
}

#[tokio::test]
async fn upstream_hears_each_command_when_the_client_says_it_and_sees_these_octets() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let (mut live, mut session) = begun(&upstream, &road).await;
    assert_eq!(asks(&mut live, "b@x.y", &mut session, "250 2.1.5 OK b").await, "Rcpt: 250 2.1.5 OK b");
    let (content, ()) = tokio::join!(live.data(), session.answer("DATA", "354 go ahead"));
    let mut content = content.unwrap();
    for piece in ["Subject: x\r", "\n\r\n", ".first\r\nlong ", "line\r\n.", "\r\n..\r\n", "gr\u{fc}n\r\n"] {
        content.write(piece.as_bytes()).await.unwrap();
    }
    let (ending, message) = tokio::join!(within(content.end()), async {
        let message = session.message().await;
        session.say("250 2.0.0 OK <id@x> [Hostname=X]").await;
        message
    });
    assert_eq!(message, "Subject: x\r\n\r\n..first\r\nlong line\r\n..\r\n...\r\ngr\u{fc}n\r\n");
    assert_eq!(short(&ending.told), "EndOfData: 250 2.0.0 OK <id@x> [Hostname=X]");
    assert_eq!(
        outcomes(&ending),
        ["a@contoso.com", "b@x.y"].map(|who| format!("{who} accepted: 250 2.0.0 OK <id@x> [Hostname=X]"))
    );
    assert_eq!(ending.spent, Spent { recipients: 2, external: 1 });
    let status = road.lane.status();
    assert_eq!((status.in_flight, status.sent_in_last_minute, status.recipients_in_last_day), (0, 1, 2));
    is_used_again(&road, &mut session, false).await;
}

#[tokio::test]
async fn a_small_message_leaves_with_its_final_dot_only() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let (mut content, session) = going_ahead(&upstream, &road).await;
    content.write(&b"x".repeat(20_000)).await.unwrap();
    drop(content.abandon());
    assert_eq!(session.rest().await, b"", "nothing had gone up");
}

#[tokio::test]
async fn mail_and_rcpt_carry_what_the_client_wishes_and_upstream_offers() {
    for (offer, size, wanted) in [
        (
            EHLO.replace("SMTPUTF8", "SMTPUTF8\r\n250 DSN").replace("250 SMTPUTF8", "250-SMTPUTF8"),
            Some(1234),
            "MAIL FROM:<scanner@contoso.com> SIZE=1234 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ314159
             RCPT TO:<anna@contoso.com> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;anna@contoso.com",
        ),
        (EHLO.to_owned(), None, "MAIL FROM:<scanner@contoso.com> BODY=8BITMIME SMTPUTF8\nRCPT TO:<anna@contoso.com>"),
        (
            "250-upstream.test\r\n250-PIPELINING\r\n250-SMTPUTF8\r\n250 AUTH XOAUTH2".to_owned(),
            Some(1234),
            "MAIL FROM:<scanner@contoso.com> SMTPUTF8\nRCPT TO:<anna@contoso.com>",
        ),
    ] {
        let upstream = Upstream::start().await;
        let road = lane_to(upstream.address());
        let mut envelope = envelope();
        envelope.body_type = BodyType::SevenBit;
        envelope.smtputf8 = true;
        envelope.ret = Ret::parse("HDRS").ok();
        envelope.envelope_id = EnvelopeId::parse("QQ314159").ok();
        let mut anna = to("anna@contoso.com");
        anna.notify = Notify::parse("SUCCESS,FAILURE").ok();
        anna.original = OriginalRecipient::parse("rfc822;anna@contoso.com").ok();
        let mut live = road.lane.live_slot(Duration::ZERO).await.unwrap().live(envelope, size);
        let (told, ()) = tokio::join!(within(live.rcpt(anna)), async {
            let mut session = upstream.greeted_with(&offer).await;
            session.log_in().await;
            session.answer(wanted, "250 2.1.0 OK\n250 2.1.5 OK").await;
        });
        assert_eq!(short(&told), "Rcpt: 250 2.1.5 OK");
    }
}

#[tokio::test]
async fn without_pipelining_each_command_waits_for_the_reply_before_it() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let mut live = live(&road).await;
    let (told, ()) = rcpt(&mut live, "a@x.y", async {
        let mut session = upstream.greeted_with("250-upstream.test\r\n250 AUTH XOAUTH2").await;
        session.log_in().await;
        session.answer("MAIL FROM:<scanner@contoso.com>", "250 2.1.0 OK").await;
        session.answer("RCPT TO:<a@x.y>", "550 5.1.1 User unknown").await;
    })
    .await;
    assert_eq!(told, "Rcpt: 550 5.1.1 User unknown");
}

#[tokio::test]
async fn a_message_that_needs_smtputf8_is_told_where_it_is_not_offered_and_costs_no_connection() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let mut live =
        road.lane.live_slot(Duration::ZERO).await.unwrap().live(Envelope { smtputf8: true, ..envelope() }, None);
    let (told, mut session) = rcpt(&mut live, "a@x.y", async {
        let mut session = upstream.greeted_with(&EHLO.replace("SMTPUTF8", "HELP")).await;
        session.log_in().await;
        session
    })
    .await;
    assert_eq!(told, "NoSmtpUtf8");
    assert_eq!(short(&live.rcpt(to("b@x.y")).await), "NoSmtpUtf8");
    assert_eq!(short(&live.data().await.err().unwrap().told), "NoSmtpUtf8");
    is_used_again(&road, &mut session, false).await;
}

#[tokio::test]
async fn a_refused_mail_is_the_answer_to_all_and_upstream_is_asked_once() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let mut live = live(&road).await;
    let refused = "550 5.7.60 SMTP; Client does not have permissions to send as this sender";
    let (told, mut session) = rcpt(&mut live, "a@x.y", async {
        let mut session = upstream.logged_in().await;
        session.answer(&format!("{MAIL}\nRCPT TO:<a@x.y>"), &format!("{refused}\n503 5.5.1 MAIL first")).await;
        session
    })
    .await;
    assert_eq!(told, format!("Mail: {refused}"));
    assert_eq!(short(&live.rcpt(to("b@x.y")).await), format!("Mail: {refused}"));
    let ending = live.data().await.err().unwrap();
    assert_eq!(short(&ending.told), format!("Mail: {refused}"));
    assert_eq!(outcomes(&ending), ["a@x.y", "b@x.y"].map(|who| format!("{who} held: {refused}")));
    assert_eq!(ending.spent, Spent::default());
    is_used_again(&road, &mut session, true).await;
}

#[tokio::test]
async fn each_recipient_has_its_own_answer_and_its_own_end() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let (mut live, mut session) = begun(&upstream, &road).await;
    for (who, reply) in
        [("b@x.y", "550 5.1.1 User unknown"), ("c@x.y", "250 2.1.5 OK"), ("d@x.y", "452 4.5.3 Too many")]
    {
        assert_eq!(asks(&mut live, who, &mut session, reply).await, format!("Rcpt: {reply}"));
    }
    let (content, ()) = tokio::join!(live.data(), session.answer("DATA", "354 go ahead"));
    let (ending, ()) = tokio::join!(within(content.unwrap().end()), async {
        assert_eq!(session.message().await, "");
        session.say("554 5.2.252 SendAsDenied; a not allowed to send as b").await;
    });
    assert_eq!(short(&ending.told), "EndOfData: 554 5.2.252 SendAsDenied; a not allowed to send as b");
    let held = "held: 554 5.2.252 SendAsDenied; a not allowed to send as b";
    assert_eq!(
        outcomes(&ending),
        [
            format!("a@contoso.com {held}"),
            "b@x.y refused: 550 5.1.1 User unknown".into(),
            format!("c@x.y {held}"),
            "d@x.y deferred: 452 4.5.3 Too many".into()
        ]
    );
    assert_eq!(road.lane.trouble(), None);
    is_used_again(&road, &mut session, true).await;
}

#[tokio::test]
async fn where_nobody_was_taken_upstream_hears_no_data() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let mut live = live(&road).await;
    let (told, mut session) = rcpt(&mut live, "a@x.y", async {
        let mut session = upstream.logged_in().await;
        session.answer(&format!("{MAIL}\nRCPT TO:<a@x.y>"), "250 2.1.0 OK\n550 5.1.1 User unknown").await;
        session
    })
    .await;
    assert_eq!(told, "Rcpt: 550 5.1.1 User unknown");
    assert_eq!(short(&live.data().await.err().unwrap().told), told);
    is_used_again(&road, &mut session, true).await;
}

#[tokio::test]
async fn an_answer_to_data_that_is_no_leave_ends_the_message() {
    for (reply, told, outcome) in [
        ("554 5.6.0 No", "Data: 554 5.6.0 No", "refused: 554 5.6.0 No"),
        ("451 4.3.0 not now", "Data: 451 4.3.0 not now", "deferred: 451 4.3.0 not now"),
        // Whatever it means, nobody has the message.
        (
            "250 2.0.0 OK",
            "lost: upstream answered out of place: 250 2.0.0 OK",
            "deferred: upstream answered out of place: 250 2.0.0 OK",
        ),
    ] {
        let upstream = Upstream::start().await;
        let road = lane_to(upstream.address());
        let (live, mut session) = begun(&upstream, &road).await;
        let (ending, ()) = tokio::join!(within(live.data()), session.answer("DATA", reply));
        let ending = ending.err().unwrap();
        assert_eq!(short(&ending.told), told);
        assert_eq!(outcomes(&ending), [format!("a@contoso.com {outcome}")]);
        assert_eq!(ending.spent, Spent::default());
        if reply.starts_with("250") {
            // Where upstream stands now, nobody knows.
            assert_eq!(session.rest().await, b"");
        } else {
            is_used_again(&road, &mut session, true).await;
        }
    }
}

/// As many as one message, one day and one tenant's day have: upstream is not asked about the next.
#[tokio::test]
async fn who_has_no_place_is_told_before_upstream_is_asked() {
    for (message, day, external, told) in
        [(2, 100, None, "MessageFull"), (100, 2, None, "DayFull"), (100, 100, Some(1), "ExternalFull(0ns)")]
    {
        let upstream = Upstream::start().await;
        let road = lane_with(upstream.address(), |plan| {
            plan.allowance.recipients_per_message = message;
            plan.allowance.recipients_per_day = day;
            plan.tenant = Arc::new(Tenant::new(external));
        });
        let (mut live, mut session) = begun(&upstream, &road).await;
        assert_eq!(asks(&mut live, "b@x.y", &mut session, "250 2.1.5 OK").await, "Rcpt: 250 2.1.5 OK");
        assert_eq!(short(&live.rcpt(to("c@x.y")).await), told);
        assert_eq!(live.abandon().outcomes.len(), 2, "who was not asked about has no outcome");
        assert_eq!(road.lane.status().recipients_in_last_day, 0);
        assert!(road.has_turn().await, "what was set aside is free again");
    }
}

#[tokio::test]
async fn a_refused_token_is_renewed_before_the_client_is_told_anything() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let mut live = live(&road).await;
    let (told, ()) = rcpt(&mut live, "a@x.y", async {
        let mut session = upstream.greeted().await;
        assert!(session.line().await.starts_with("AUTH XOAUTH2 "));
        session.say("535 5.7.3 Authentication unsuccessful").await;
        session.answer("QUIT", "221 2.0.0 bye").await;
        let mut session = upstream.logged_in().await;
        session.answer(&format!("{MAIL}\nRCPT TO:<a@x.y>"), "250 2.1.0 OK\n250 2.1.5 OK").await;
    })
    .await;
    assert_eq!(told, "Rcpt: 250 2.1.5 OK");
}

#[tokio::test]
async fn what_holds_the_login_is_learned_before_the_client_goes_on() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let (mut live, mut session) = begun(&upstream, &road).await;
    asks(&mut live, "b@x.y", &mut session, "550 5.7.705 Access denied, tenant has exceeded threshold").await;
    assert_eq!(road.lane.trouble().map(|trouble| trouble.scope), Some(Scope::Tenant));
    drop(live);
    assert_eq!(session.rest().await, b"", "it may be this connection's trouble");
}

/// Others of the message may be accepted, and then the pace is none of the login's.
#[tokio::test]
async fn one_recipient_that_is_put_off_paces_the_lane_only_where_nobody_is_accepted() {
    for (accepts, trouble) in [(true, None), (false, Some(TroubleKind::Throttled))] {
        let upstream = Upstream::start().await;
        let road = lane_to(upstream.address());
        let (mut live, mut session) = begun(&upstream, &road).await;
        asks(&mut live, "b@x.y", &mut session, "452 4.5.3 Too many recipients (AS780090)").await;
        assert_eq!(road.lane.trouble(), None);
        if accepts {
            let (content, ()) = tokio::join!(live.data(), session.answer("DATA", "354 go ahead"));
            let (ending, ()) = tokio::join!(within(content.unwrap().end()), async {
                session.message().await;
                session.say("250 2.0.0 OK").await;
            });
            assert_eq!(short(&ending.told), "EndOfData: 250 2.0.0 OK");
        } else {
            drop(live);
        }
        assert_eq!(road.lane.trouble().map(|trouble| trouble.kind), trouble);
    }
}

#[tokio::test]
async fn a_client_that_goes_between_commands_leaves_a_connection_that_is_reset() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let (live, mut session) = begun(&upstream, &road).await;
    drop(live);
    let status = road.lane.status();
    assert_eq!((status.in_flight, status.sent_in_last_minute, status.recipients_in_last_day), (0, 1, 0));
    is_used_again(&road, &mut session, true).await;
}

#[tokio::test]
async fn a_client_that_says_rset_hears_what_became_of_whom() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let (mut live, mut session) = begun(&upstream, &road).await;
    asks(&mut live, "b@x.y", &mut session, "550 5.1.1 User unknown").await;
    let ending = live.abandon();
    assert_eq!(short(&ending.told), "Rcpt: 550 5.1.1 User unknown");
    assert_eq!(
        outcomes(&ending),
        ["a@contoso.com deferred: the client went on without DATA", "b@x.y refused: 550 5.1.1 User unknown"]
    );
    is_used_again(&road, &mut session, true).await;
}

#[tokio::test]
async fn a_client_that_goes_before_its_first_recipient_costs_nothing() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    drop(live(&road).await);
    let status = road.lane.status();
    assert_eq!((status.in_flight, status.sent_in_last_minute, status.connections), (0, 0, 0));
}

#[tokio::test]
async fn a_client_that_goes_while_a_reply_is_awaited_closes_the_connection() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let (mut live, mut session) = begun(&upstream, &road).await;
    tokio::select! {
        biased;
        told = live.rcpt(to("b@x.y")) => panic!("{told:?}"),
        () = session.expect("RCPT TO:<b@x.y>") => {}
    }
    drop(live);
    assert_eq!(session.rest().await, b"");
    assert_eq!((road.lane.status().in_flight, road.lane.status().connections), (0, 0));
}

#[tokio::test]
async fn a_client_that_goes_in_the_middle_of_its_message_leaves_no_final_dot() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    for abandons in [true, false] {
        let (mut content, session) = going_ahead(&upstream, &road).await;
        let line = [&[b'x'; 98][..], b"\r\n"].concat();
        content.write(&line.repeat(1000)).await.unwrap();
        if abandons {
            let ending = content.abandon();
            let why = "the message was broken off before its end";
            assert_eq!(short(&ending.told), format!("lost: {why}"));
            assert_eq!(outcomes(&ending), [format!("a@contoso.com deferred: {why}")]);
        } else {
            drop(content);
        }
        let sent = session.rest().await;
        assert!(sent.len() > 50_000 && !sent.windows(5).any(|octets| octets == b"\r\n.\r\n"));
        let status = road.lane.status();
        assert_eq!((status.in_flight, status.connections, status.recipients_in_last_day), (0, 0, 0));
    }
}

/// As when the daemon stops. Upstream may have the message, and counts it.
#[tokio::test]
async fn whoever_stops_waiting_for_the_final_reply_closes_the_connection_and_counts_the_message() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let (content, mut session) = going_ahead(&upstream, &road).await;
    assert_eq!(content.at_stake(), Spent { recipients: 1, external: 0 });
    tokio::select! {
        biased;
        ending = content.end() => panic!("{ending:?}"),
        message = session.message() => assert_eq!(message, ""),
    }
    assert_eq!(session.rest().await, b"");
    let status = road.lane.status();
    assert_eq!((status.in_flight, status.connections, status.recipients_in_last_day), (0, 0, 1));
}

/// A client may be slow from here on: whoever waits for the probe's end would wait for it.
#[tokio::test]
async fn a_probe_that_upstream_lets_in_holds_nobody_up() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let first = road.send(mail());
    // Nobody answers: the lane is in trouble, and the next one is its probe.
    drop(upstream.connected().await);
    within(async {
        while road.lane.trouble().is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(first);
    assert_eq!(road.lane.trouble().map(|trouble| trouble.kind), Some(TroubleKind::Unreachable));
    road.advance(5);
    let (_content, _session) = going_ahead(&upstream, &road).await;
    assert_eq!(road.lane.trouble(), None);
    assert!(road.has_turn().await);
}

#[tokio::test]
async fn a_slow_message_gives_way_to_the_lane_that_follows() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let (mut content, session) = going_ahead(&upstream, &road).await;
    let mut retired = std::pin::pin!(road.lane.retire());
    assert!(std::future::poll_fn(|context| Poll::Ready(retired.as_mut().poll(context).is_pending())).await);
    content.write(b"Subject: x\r\n\r\n").await.unwrap();
    road.advance(119);
    content.write(b"text\r\n").await.unwrap();
    road.advance(1);
    assert!(matches!(content.write(b"text\r\n").await, Err(Told::Lost(_))));
    assert!(matches!(within(content.end()).await.told, Told::Lost(_)));
    within(retired).await;
    assert!(!session.rest().await.ends_with(b"\r\n.\r\n"));
}

#[tokio::test]
async fn the_client_hears_its_answer_before_a_connection_too_many_is_closed() {
    let upstream = Upstream::start().await;
    let road = lane_with(upstream.address(), |plan| plan.allowance.connections = 2);
    let (other, _other_session) = going_ahead(&upstream, &road).await;
    let (content, mut session) = going_ahead(&upstream, &road).await;
    let paced = "432 4.3.2 Concurrent connections limit exceeded";
    let (ending, ()) = tokio::join!(within(content.end()), async {
        session.message().await;
        session.say(paced).await;
    });
    assert!(matches!(ending.told, Told::Upstream(_, reply) if reply.code() == 432));
    assert_eq!(road.lane.status().in_flight, 2, "it has its place until upstream has ended it");
    session.expect("QUIT").await;
    session.close().await;
    within(async {
        while road.lane.status().in_flight > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(other);
}

/// By construction what is gathered fits 64 KiB; here is shown that all of it arrives, whatever the pieces.
#[tokio::test]
async fn a_hundred_megabytes_go_through_whole() {
    const LINES: usize = 1_000_000;
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let (mut content, mut session) = going_ahead(&upstream, &road).await;
    let line = [b".", &[b'x'; 97][..], b"\r\n"].concat();
    let taking = tokio::spawn(async move {
        // Each line has a dot more on the wire.
        for _ in 0..101 {
            session.some(LINES).await;
        }
        session.expect(".").await;
        session.say("250 2.0.0 OK").await;
    });
    let block = line.repeat(1000);
    for _ in 0..LINES / 1000 {
        content.write(&block).await.unwrap();
    }
    assert_eq!(short(&within(content.end()).await.told), "EndOfData: 250 2.0.0 OK");
    within(taking).await.unwrap();
}
