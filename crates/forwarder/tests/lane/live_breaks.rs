//! A live message whose connection is lost: what is hidden from its client, and what it is told.

use forwarder::{LiveTold as Told, TroubleKind};
use std::time::Duration;

use crate::live::{MAIL, PACE, begun, going_ahead, live, outcomes, rcpt, short, to};
use crate::road::{Road, lane_to, lane_with, mail};
use crate::upstream::{Session, Tls, Upstream, within};

const GONE: &str = "421 4.3.2 Service not active";
const FORGOTTEN: &str = "530 5.7.57 Client not authenticated to send mail.";

/// How upstream leaves a session.
#[derive(Clone, Copy, Debug)]
enum Leave {
    Silently,
    Saying(&'static str),
}

/// Leaves in answer to what it has read.
async fn leave(mut session: Session<Tls>, how: Leave) {
    if let Leave::Saying(words) = how {
        session.say(words).await;
    }
    session.close().await;
}

/// The first recipient's flight on a new connection.
async fn first_flight(upstream: &Upstream) -> Session<Tls> {
    let mut session = upstream.logged_in().await;
    session.expect(&format!("{MAIL}\nRCPT TO:<a@contoso.com>")).await;
    session
}

async fn takes(session: &mut Session<Tls>) {
    session.say("250 2.1.0 OK\n250 2.1.5 OK").await;
}

/// The rest of a message that goes well.
async fn goes_on(live: forwarder::Live<crate::road::Tokens>, session: &mut Session<Tls>) {
    let (content, ()) = tokio::join!(within(live.data()), session.answer("DATA", "354 go ahead"));
    let (ending, ()) = tokio::join!(within(content.unwrap().end()), async {
        session.message().await;
        session.say("250 2.0.0 OK").await;
    });
    assert_eq!(short(&ending.told), "EndOfData: 250 2.0.0 OK");
}

#[tokio::test]
async fn a_session_lost_at_mail_is_hidden_once() {
    for how in [
        Leave::Silently,
        Leave::Saying(GONE),
        Leave::Saying("250 2.1.0 OK"),
        Leave::Saying("250 2.1.0 OK\n421 4.4.1 bye"),
    ] {
        let upstream = Upstream::start().await;
        let road = lane_to(upstream.address());
        let mut live = live(&road).await;
        let (told, mut session) = rcpt(&mut live, "a@contoso.com", async {
            leave(first_flight(&upstream).await, how).await;
            let mut session = first_flight(&upstream).await;
            takes(&mut session).await;
            session
        })
        .await;
        assert_eq!(told, "Rcpt: 250 2.1.5 OK", "{how:?}");
        goes_on(live, &mut session).await;
        assert_eq!(road.lane.trouble(), None);
    }
}

#[tokio::test]
async fn a_session_lost_twice_is_the_lanes_trouble() {
    for (how, text) in [(Leave::Silently, "upstream closed the connection"), (Leave::Saying(GONE), GONE)] {
        let upstream = Upstream::start().await;
        let road = lane_to(upstream.address());
        let mut live = live(&road).await;
        let (told, ()) = rcpt(&mut live, "a@contoso.com", async {
            leave(first_flight(&upstream).await, how).await;
            leave(first_flight(&upstream).await, how).await;
        })
        .await;
        assert_eq!(told, format!("trouble: {text}"));
        assert_eq!(road.lane.trouble().map(|trouble| trouble.kind), Some(TroubleKind::Unreachable));
        assert_eq!(short(&live.rcpt(to("b@x.y")).await), told, "and upstream is asked no more");
        let ending = live.data().await.err().unwrap();
        assert_eq!(short(&ending.told), told);
        assert_eq!(outcomes(&ending), [format!("a@contoso.com deferred: {text}")]);
        assert_eq!(road.lane.status().in_flight, 0);
    }
}

/// Between them all that were taken are said again, and nobody else.
#[tokio::test]
async fn a_session_lost_at_a_later_recipient_or_at_data_is_said_again_as_it_was() {
    for how in [Leave::Silently, Leave::Saying(GONE)] {
        for at_data in [false, true] {
            let upstream = Upstream::start().await;
            let road = lane_to(upstream.address());
            let (mut live, mut session) = begun(&upstream, &road).await;
            let (told, ()) =
                rcpt(&mut live, "b@x.y", session.answer("RCPT TO:<b@x.y>", "550 5.1.1 User unknown")).await;
            assert_eq!(told, "Rcpt: 550 5.1.1 User unknown");
            if at_data {
                let (content, ()) = tokio::join!(within(live.data()), async {
                    session.expect("DATA").await;
                    leave(session, how).await;
                    let mut session = first_flight(&upstream).await;
                    takes(&mut session).await;
                    session.answer("DATA", "354 go ahead").await;
                });
                assert!(content.is_ok());
                continue;
            }
            let (told, mut session) = rcpt(&mut live, "c@x.y", async {
                session.expect("RCPT TO:<c@x.y>").await;
                leave(session, how).await;
                let mut session = first_flight(&upstream).await;
                session.expect("RCPT TO:<c@x.y>").await;
                session.say("250 2.1.0 OK\n250 2.1.5 OK a\n250 2.1.5 OK c").await;
                session
            })
            .await;
            assert_eq!(told, "Rcpt: 250 2.1.5 OK c");
            goes_on(live, &mut session).await;
        }
    }
}

#[tokio::test]
async fn a_session_lost_at_data_twice_is_the_lanes_trouble() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let (live, mut session) = begun(&upstream, &road).await;
    let (ending, ()) = tokio::join!(within(live.data()), async {
        session.expect("DATA").await;
        leave(session, Leave::Silently).await;
        let mut session = first_flight(&upstream).await;
        takes(&mut session).await;
        session.expect("DATA").await;
        leave(session, Leave::Saying(GONE)).await;
    });
    let ending = ending.err().unwrap();
    assert_eq!(short(&ending.told), format!("trouble: {GONE}"));
    assert_eq!(outcomes(&ending), [format!("a@contoso.com deferred: {GONE}")]);
    assert_eq!(road.lane.trouble().map(|trouble| trouble.kind), Some(TroubleKind::Unreachable));
}

#[tokio::test]
async fn upstream_that_changes_its_mind_on_another_connection_is_told_as_a_loss() {
    for (replies, said) in [
        ("550 5.7.60 Not as this sender\n503 5.5.1 x\n503 5.5.1 x", "550 5.7.60 Not as this sender"),
        ("250 2.1.0 OK\n550 5.1.1 User unknown\n250 2.1.5 OK", "550 5.1.1 User unknown"),
        ("250 2.1.0 OK\n451 4.3.0 not now\n250 2.1.5 OK", "451 4.3.0 not now"),
    ] {
        let upstream = Upstream::start().await;
        let road = lane_to(upstream.address());
        let (mut live, mut session) = begun(&upstream, &road).await;
        let (told, _session) = rcpt(&mut live, "b@x.y", async {
            session.expect("RCPT TO:<b@x.y>").await;
            leave(session, Leave::Silently).await;
            let mut session = first_flight(&upstream).await;
            session.answer("RCPT TO:<b@x.y>", replies).await;
            session
        })
        .await;
        let why = "the connection was lost, and on another upstream refused what it had taken";
        assert_eq!(told, format!("lost: {why}: {said}"));
        assert_eq!(short(&live.rcpt(to("c@x.y")).await), told);
        let ending = live.abandon();
        assert_eq!(ending.outcomes.len(), 2);
        assert_eq!(road.lane.trouble(), None);
    }
}

#[tokio::test]
async fn a_421_of_pace_is_upstreams_word_at_each_stage() {
    for stage in ["Mail", "Rcpt", "Data"] {
        let upstream = Upstream::start().await;
        let road = lane_to(upstream.address());
        let told = if stage == "Mail" {
            let mut live = live(&road).await;
            let (told, ()) = rcpt(&mut live, "a@contoso.com", async {
                leave(first_flight(&upstream).await, Leave::Saying(PACE)).await;
            })
            .await;
            assert_eq!(short(&live.rcpt(to("b@x.y")).await), told);
            told
        } else if stage == "Rcpt" {
            let (mut live, mut session) = begun(&upstream, &road).await;
            let (told, ()) = rcpt(&mut live, "b@x.y", async {
                session.expect("RCPT TO:<b@x.y>").await;
                leave(session, Leave::Saying(PACE)).await;
            })
            .await;
            assert_eq!(short(&live.data().await.err().unwrap().told), told);
            told
        } else {
            let (live, mut session) = begun(&upstream, &road).await;
            let (ending, ()) = tokio::join!(within(live.data()), async {
                session.expect("DATA").await;
                leave(session, Leave::Saying(PACE)).await;
            });
            let ending = ending.err().unwrap();
            assert_eq!(outcomes(&ending), [format!("a@contoso.com paced: {PACE}")]);
            short(&ending.told)
        };
        assert_eq!(told, format!("{stage}: {PACE}"));
        assert_eq!(road.lane.trouble().map(|trouble| trouble.kind), Some(TroubleKind::Throttled), "{stage}");
        assert_eq!(road.lane.status().connections, 0);
    }
}

#[tokio::test]
async fn a_session_that_forgets_its_login_is_left_once() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let mut one = live(&road).await;
    let forget = async || {
        let mut session = first_flight(&upstream).await;
        session.say(&format!("{FORGOTTEN}\n503 5.5.2 Need mail")).await;
        session
    };
    let (told, session) = rcpt(&mut one, "a@contoso.com", async {
        forget().await.answer("QUIT", "221 2.0.0 bye").await;
        let mut session = first_flight(&upstream).await;
        takes(&mut session).await;
        session
    })
    .await;
    assert_eq!(told, "Rcpt: 250 2.1.5 OK");
    drop((one, session));
    let mut another = live(&road).await;
    let (told, ()) = rcpt(&mut another, "a@contoso.com", async {
        forget().await.answer("QUIT", "221 2.0.0 bye").await;
        forget().await.rest().await;
    })
    .await;
    assert_eq!(told, format!("Mail: {FORGOTTEN}"));
    assert_eq!(road.lane.trouble().map(|trouble| trouble.kind), Some(TroubleKind::Refused));
}

/// Used twice and left idle, both; they were given up at the moment when they are used again.
#[tokio::test]
async fn idle_connections_that_have_gone_are_no_loss_to_hide() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let (first, second) = (road.send(mail()), road.send(mail()));
    let (mut one, mut two) = (upstream.logged_in().await, upstream.logged_in().await);
    one.take().await;
    two.take().await;
    first.outcomes().await;
    second.outcomes().await;
    let mut live = live(&road).await;
    let stale = async |mut session: Session<Tls>| {
        session.expect(&format!("{MAIL}\nRCPT TO:<a@contoso.com>")).await;
        leave(session, Leave::Saying("421 4.4.1 Connection timed out")).await;
    };
    let (told, mut session) = rcpt(&mut live, "a@contoso.com", async {
        tokio::join!(stale(one), stale(two));
        // This one is hidden as well, for nothing was until now.
        leave(first_flight(&upstream).await, Leave::Silently).await;
        let mut session = first_flight(&upstream).await;
        takes(&mut session).await;
        session
    })
    .await;
    assert_eq!(told, "Rcpt: 250 2.1.5 OK");
    goes_on(live, &mut session).await;
}

#[tokio::test]
async fn upstream_that_lets_nobody_in_is_the_lanes_trouble() {
    for (stage, kind, text) in [
        ("banner", TroubleKind::Unreachable, "closed the connection or does not speak SMTP"),
        ("AUTH", TroubleKind::Unreachable, "during AUTH: upstream closed the connection"),
        ("421 at AUTH", TroubleKind::Unreachable, "does not let scanner@contoso.com in now: 421 4.3.2"),
        ("535", TroubleKind::Refused, "refused the login scanner@contoso.com: 535 5.7.139"),
    ] {
        let upstream = Upstream::start().await;
        let road = lane_with(upstream.address(), |plan| plan.tokens.irreplaceable = true);
        let mut live = live(&road).await;
        let (told, ()) = rcpt(&mut live, "a@contoso.com", async {
            if stage == "banner" {
                drop(upstream.connected().await);
                return;
            }
            let mut session = upstream.greeted().await;
            assert!(session.line().await.starts_with("AUTH XOAUTH2 "));
            match stage {
                "AUTH" => leave(session, Leave::Silently).await,
                "535" => leave(session, Leave::Saying("535 5.7.139 Authentication unsuccessful")).await,
                _ => leave(session, Leave::Saying(GONE)).await,
            }
        })
        .await;
        assert!(told.starts_with("trouble: ") && told.contains(text), "{stage}: {told}");
        assert_eq!(road.lane.trouble().map(|trouble| trouble.kind), Some(kind));
        drop(live);
        assert_eq!(road.lane.status().sent_in_last_minute, 0, "upstream saw nothing of it");
    }
}

/// Fills a message until its connection fails; what the client is told.
async fn fill(content: &mut forwarder::LiveContent<crate::road::Tokens>) -> Told {
    let line = [&[b'x'; 98][..], b"\r\n"].concat().repeat(500);
    within(async {
        loop {
            if let Err(told) = content.write(&line).await {
                return told;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_session_lost_in_the_middle_of_the_message_is_told_with_its_last_words() {
    const TOO_LARGE: &str = "552 5.3.4 Message size exceeds fixed maximum message size";
    const CONNECTIONS: &str = "432 4.3.2 Concurrent connections limit exceeded.";
    let lost = "the connection was lost in the middle of the message";
    for (words, told, outcome, trouble) in [
        (None, format!("lost: {lost}"), format!("deferred: {lost}"), None),
        (Some(TOO_LARGE), format!("EndOfData: {TOO_LARGE}"), format!("refused: {TOO_LARGE}"), None),
        (
            Some(CONNECTIONS),
            format!("EndOfData: {CONNECTIONS}"),
            format!("paced: {CONNECTIONS}"),
            Some(TroubleKind::Throttled),
        ),
        (
            Some("250 2.0.0 OK"),
            "lost: upstream answered out of place: 250 2.0.0 OK".into(),
            "deferred: upstream answered out of place: 250 2.0.0 OK".into(),
            None,
        ),
    ] {
        let upstream = Upstream::start().await;
        let road: Road = lane_to(upstream.address());
        let (mut content, mut session) = going_ahead(&upstream, &road).await;
        let (failed, ()) = tokio::join!(fill(&mut content), async {
            session.some(100_000).await;
            if let Some(words) = words {
                session.say(words).await;
            }
            drop(session);
        });
        assert_eq!(short(&failed), told);
        assert_eq!(content.write(b"more").await, Err(failed), "and nothing more is taken");
        assert_eq!(road.lane.trouble().map(|trouble| trouble.kind), trouble, "learned before the client goes on");
        let ending = within(content.end()).await;
        assert_eq!(short(&ending.told), told);
        assert_eq!(outcomes(&ending), [format!("a@contoso.com {outcome}")]);
        assert_eq!(ending.spent, forwarder::Spent::default());
        assert_eq!((road.lane.status().in_flight, road.lane.status().connections), (0, 0));
    }
}

#[tokio::test]
async fn what_comes_behind_the_final_dot() {
    for (reply, told, outcome, counted) in [
        (Some(GONE), format!("EndOfData: {GONE}"), format!("deferred: {GONE}"), 0),
        (Some(PACE), format!("EndOfData: {PACE}"), format!("paced: {PACE}"), 0),
        (
            None,
            "uncertain: no reply after the final dot: upstream closed the connection".into(),
            "uncertain: no reply after the final dot: upstream closed the connection".into(),
            1,
        ),
    ] {
        let upstream = Upstream::start().await;
        let road = lane_to(upstream.address());
        let (content, mut session) = going_ahead(&upstream, &road).await;
        let (ending, ()) = tokio::join!(within(content.end()), async {
            session.message().await;
            leave(session, reply.map_or(Leave::Silently, Leave::Saying)).await;
        });
        assert_eq!(short(&ending.told), told);
        assert_eq!(outcomes(&ending), [format!("a@contoso.com {outcome}")]);
        assert_eq!((ending.spent.recipients, road.lane.status().recipients_in_last_day), (counted, counted));
    }
}

#[tokio::test]
async fn a_reply_behind_the_final_dot_that_is_none_to_a_message_accepts_nothing() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let (content, mut session) = going_ahead(&upstream, &road).await;
    let (ending, ()) = tokio::join!(within(content.end()), async {
        session.message().await;
        session.say("354 what?").await;
    });
    assert_eq!(short(&ending.told), "lost: upstream answered out of place: 354 what?");
    assert_eq!(outcomes(&ending), ["a@contoso.com deferred: upstream answered out of place: 354 what?"]);
    assert_eq!(ending.spent.recipients, 0);
}

#[tokio::test]
async fn silence_behind_the_final_dot_is_uncertain() {
    let upstream = Upstream::start().await;
    let road = lane_with(upstream.address(), |plan| {
        plan.endpoint.timeouts.final_dot = Duration::from_millis(100);
    });
    let (content, mut session) = going_ahead(&upstream, &road).await;
    let (ending, _) = tokio::join!(within(content.end()), session.message());
    assert!(matches!(ending.told, Told::Uncertain(_)), "{ending:?}");
    assert_eq!(session.rest().await, b"");
}
