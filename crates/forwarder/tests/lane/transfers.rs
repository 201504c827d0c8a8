//! MAIL, RCPT, DATA and the message: the octets that upstream sees, and an outcome for each recipient.

use mail::{BodyType, EnvelopeId, ForwardPath, Notify, OriginalRecipient, Ret, ReversePath};

use crate::road::{Mail, Pieces, lane_to, mail, mail_to};
use crate::upstream::{EHLO, Session, Tls, Upstream};

const ACCEPTED: &str = "accepted: 250 2.0.0 OK <id@x>";

#[tokio::test]
async fn upstream_sees_these_octets() {
    let upstream = Upstream::start().await;
    let mut mail = mail_to(&["anna@contoso.com", "postmaster"]);
    mail.envelope.body_type = BodyType::EightBitMime;
    mail.envelope.smtputf8 = true;
    mail.header = b"Subject: scan\r\n".to_vec();
    mail.body = Pieces::of(&[b".first\r\nlong ", b"line\r\n.", b"\r\n..\r\n", "gr\u{fc}n\r\n".as_bytes()]);
    let sending = lane_to(upstream.address()).send(mail);
    let mut session = upstream.logged_in().await;
    session
        .expect(
            "MAIL FROM:<scanner@contoso.com> SIZE=50 BODY=8BITMIME SMTPUTF8
             RCPT TO:<anna@contoso.com>
             RCPT TO:<postmaster>
             DATA",
        )
        .await;
    session.say("250 2.1.0 OK\n250 2.1.5 OK\n250 2.1.5 OK\n354 go ahead").await;
    let stuffed = "Subject: scan\r\n\r\n..first\r\nlong line\r\n..\r\n...\r\ngr\u{fc}n\r\n";
    assert_eq!(session.message().await, stuffed);
    // Three stuffed dots do not count (RFC 1870 section 6).
    assert_eq!(stuffed.len() - 3, 50);
    session.say("250 2.0.0 OK <id@x>").await;
    assert_eq!(sending.outcomes().await, [ACCEPTED, ACCEPTED]);
}

#[tokio::test]
async fn what_upstream_does_not_offer_is_not_used() {
    let upstream = Upstream::start().await;
    let mut mail = mail_to(&["anna@contoso.com"]);
    mail.envelope.body_type = BodyType::EightBitMime;
    let sending = lane_to(upstream.address()).send(mail);
    let mut session = upstream.greeted_with("250-upstream.test\n250 AUTH XOAUTH2").await;
    session.log_in().await;
    // Without PIPELINING each command waits for the reply before it.
    session.answer("MAIL FROM:<scanner@contoso.com>", "250 2.1.0 OK").await;
    session.answer("RCPT TO:<anna@contoso.com>", "250 2.1.5 OK").await;
    session.answer("DATA", "354 go ahead").await;
    session.message().await;
    session.say("250 2.0.0 OK <id@x>").await;
    assert_eq!(sending.outcomes().await, [ACCEPTED]);
}

#[tokio::test]
async fn a_message_that_needs_smtputf8_is_refused_where_it_is_not_offered() {
    let upstream = Upstream::start().await;
    let mut mail = mail();
    mail.envelope.smtputf8 = true;
    let road = lane_to(upstream.address());
    let sending = road.send(mail);
    let mut session = upstream.greeted_with(&EHLO.replace("SMTPUTF8", "DSN")).await;
    session.log_in().await;
    assert_eq!(sending.outcomes().await, ["refused: upstream does not take SMTPUTF8 messages"]);
    let next = road.send(crate::road::mail());
    session.take().await;
    assert_eq!(next.outcomes().await.len(), 1);
}

/// A message whose client asked for reports: all that can be asked of the first recipient, nothing of the second.
fn mail_that_asks_for_reports() -> Mail {
    let mut mail = mail_to(&["anna@contoso.com", "bob@contoso.com"]);
    mail.envelope.ret = Some(Ret::Full);
    mail.envelope.envelope_id = EnvelopeId::parse("QQ+2B+3D4711").ok();
    mail.recipients[0].notify = Notify::parse("SUCCESS,DELAY").ok();
    mail.recipients[0].original = OriginalRecipient::parse("rfc822;Anna+2Bx@contoso.com").ok();
    mail
}

#[tokio::test]
async fn what_a_client_asked_of_reports_is_passed_octet_for_octet_where_upstream_offers_dsn() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let sending = road.send(mail_that_asks_for_reports());
    let mut session = upstream.greeted_with(&EHLO.replace("8BITMIME", "DSN")).await;
    session.log_in().await;
    session
        .expect(
            "MAIL FROM:<scanner@contoso.com> SIZE=25 RET=FULL ENVID=QQ+2B+3D4711
             RCPT TO:<anna@contoso.com> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Anna+2Bx@contoso.com
             RCPT TO:<bob@contoso.com>
             DATA",
        )
        .await;
    session.say("250 2.1.0 OK\n250 2.1.5 OK\n250 2.1.5 OK\n354 go ahead").await;
    session.message().await;
    session.say("250 2.0.0 OK <id@x>").await;
    assert_eq!(sending.outcomes().await, [ACCEPTED, ACCEPTED]);
    let mut never = mail();
    never.recipients[0].notify = Some(Notify::NEVER);
    let _sending = road.send(never);
    session.expect("MAIL FROM:<scanner@contoso.com> SIZE=25\nRCPT TO:<anna@contoso.com> NOTIFY=NEVER\nDATA").await;
}

#[tokio::test]
async fn what_a_client_asked_of_reports_stays_here_where_upstream_does_not_offer_dsn() {
    let upstream = Upstream::start().await;
    let _sending = lane_to(upstream.address()).send(mail_that_asks_for_reports());
    upstream
        .logged_in()
        .await
        .expect(
            "MAIL FROM:<scanner@contoso.com> SIZE=25
             RCPT TO:<anna@contoso.com>
             RCPT TO:<bob@contoso.com>
             DATA",
        )
        .await;
}

#[tokio::test]
async fn a_bounce_goes_out_with_the_null_path() {
    let upstream = Upstream::start().await;
    let mut mail = mail();
    mail.envelope.reverse_path = ReversePath::Null;
    let _sending = lane_to(upstream.address()).send(mail);
    upstream.logged_in().await.expect("MAIL FROM:<> SIZE=25").await;
}

#[tokio::test]
async fn a_quoted_local_part_that_looks_like_parameters_goes_out_as_it_came_in() {
    let upstream = Upstream::start().await;
    let _sending = lane_to(upstream.address()).send(mail_to(&["\"a> SIZE=1\"@c.d"]));
    let mut session = upstream.logged_in().await;
    session.line().await;
    session.expect("RCPT TO:<\"a> SIZE=1\"@c.d>").await;
}

#[tokio::test]
async fn one_recipient_refused_does_not_hurt_the_others() {
    let upstream = Upstream::start().await;
    let sending = lane_to(upstream.address()).send(mail_to(&["a@x.y", "b@x.y", "c@x.y"]));
    let mut session = upstream.logged_in().await;
    session
        .expect("MAIL FROM:<scanner@contoso.com> SIZE=25\nRCPT TO:<a@x.y>\nRCPT TO:<b@x.y>\nRCPT TO:<c@x.y>\nDATA")
        .await;
    session.say("250 2.1.0 OK\n250 2.1.5 OK\n550 5.1.1 User unknown\n250 2.1.5 OK\n354 go ahead").await;
    session.message().await;
    session.say("250 2.0.0 OK <id@x>").await;
    assert_eq!(sending.outcomes().await, [ACCEPTED, "refused: 550 5.1.1 User unknown", ACCEPTED]);
}

#[tokio::test]
async fn a_message_refused_at_its_end_leaves_each_recipient_its_own_reply() {
    let upstream = Upstream::start().await;
    let sending = lane_to(upstream.address()).send(mail_to(&["a@x.y", "b@x.y"]));
    let mut session = upstream.logged_in().await;
    session.some(b"MAIL FROM:<scanner@contoso.com> SIZE=25\r\n".len()).await;
    session.expect("RCPT TO:<a@x.y>\nRCPT TO:<b@x.y>\nDATA").await;
    session.say("250 2.1.0 OK\n550 5.1.1 User unknown\n250 2.1.5 OK\n354 go ahead").await;
    session.message().await;
    session.say("554 5.2.252 SendAsDenied; x not allowed to send as y").await;
    assert_eq!(
        sending.outcomes().await,
        ["refused: 550 5.1.1 User unknown", "held message: 554 5.2.252 SendAsDenied; x not allowed to send as y",]
    );
}

#[tokio::test]
async fn many_recipients_go_in_flights_and_each_gets_its_reply() {
    let upstream = Upstream::start().await;
    let mut mail = mail();
    mail.recipients = (0..250).map(|at| ForwardPath::parse(format!("r{at}@x.y").as_bytes()).unwrap().into()).collect();
    let sending = lane_to(upstream.address()).send(mail);
    let mut session = upstream.logged_in().await;
    session.line().await;
    session.say("250 2.1.0 OK").await;
    for at in 0..250 {
        let reply = if at % 10 == 7 { format!("550 5.1.1 r{at}") } else { "250 2.1.5 OK".into() };
        session.answer(&format!("RCPT TO:<r{at}@x.y>"), &reply).await;
    }
    session.answer("DATA", "354 go ahead").await;
    session.message().await;
    session.say("250 2.0.0 OK <id@x>").await;
    let expected: Vec<_> =
        (0..250).map(|at| if at % 10 == 7 { format!("refused: 550 5.1.1 r{at}") } else { ACCEPTED.into() }).collect();
    assert_eq!(sending.outcomes().await, expected);
}

#[tokio::test]
async fn a_refused_sender_speaks_for_all_recipients() {
    let upstream = Upstream::start().await;
    let sending = lane_to(upstream.address()).send(mail_to(&["a@x.y", "b@x.y"]));
    let mut session = upstream.logged_in().await;
    session.expect("MAIL FROM:<scanner@contoso.com> SIZE=25\nRCPT TO:<a@x.y>\nRCPT TO:<b@x.y>\nDATA").await;
    session.say("550 5.1.7 Invalid address\n503 5.5.1 MAIL first\n503 5.5.1 MAIL first\n503 5.5.1 MAIL first").await;
    assert_eq!(sending.outcomes().await, ["refused: 550 5.1.7 Invalid address"; 2]);
}

#[tokio::test]
async fn a_session_that_forgets_its_login_is_left_and_the_message_sent_over_another() {
    let upstream = Upstream::start().await;
    let sending = lane_to(upstream.address()).send(mail());
    forget(&mut upstream.logged_in().await).await;
    upstream.logged_in().await.take().await;
    assert_eq!(sending.outcomes().await, ["accepted: 250 2.0.0 OK <id@x> [Hostname=X]"]);
}

#[tokio::test]
async fn a_login_that_is_forgotten_twice_holds_the_mailbox() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let sending = road.send(mail());
    forget(&mut upstream.logged_in().await).await;
    forget(&mut upstream.logged_in().await).await;
    assert_eq!(sending.outcomes().await, ["held mailbox: 530 5.7.57 Client not authenticated to send mail."]);
    assert!(road.lane.trouble().is_some());
}

/// Says that the client is not logged in, and sees it off.
async fn forget(session: &mut Session<Tls>) {
    session.expect("MAIL FROM:<scanner@contoso.com> SIZE=25\nRCPT TO:<anna@contoso.com>\nDATA").await;
    session.say("530 5.7.57 Client not authenticated to send mail.\n503 5.5.2 Need mail\n503 5.5.2 Need mail").await;
    session.answer("QUIT", "221 2.0.0 bye").await;
}

#[tokio::test]
async fn where_all_are_refused_and_354_comes_all_the_same_a_lone_dot_ends_it_and_counts_for_nothing() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let sending = road.send(mail_to(&["a@x.y", "b@x.y"]));
    let mut session = upstream.logged_in().await;
    session.expect("MAIL FROM:<scanner@contoso.com> SIZE=25\nRCPT TO:<a@x.y>\nRCPT TO:<b@x.y>\nDATA").await;
    session.say("250 2.1.0 OK\n550 5.1.1 no a\n550 5.1.1 no b\n354 go ahead").await;
    session.answer(".", "250 2.0.0 OK <empty@x>").await;
    assert_eq!(sending.outcomes().await, ["refused: 550 5.1.1 no a", "refused: 550 5.1.1 no b"]);
    let next = road.send(mail());
    session.expect("RSET").await;
    session.say("250 2.0.0 Resetting").await;
    session.take().await;
    assert_eq!(next.outcomes().await.len(), 1);
}

#[tokio::test]
async fn where_all_are_refused_the_session_is_reset_and_used_again() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let sending = road.send(mail_to(&["a@x.y"]));
    let mut session = upstream.logged_in().await;
    session.expect("MAIL FROM:<scanner@contoso.com> SIZE=25\nRCPT TO:<a@x.y>\nDATA").await;
    session.say("250 2.1.0 OK\n550 5.1.1 no a\n503 5.5.1 No valid recipients").await;
    assert_eq!(sending.outcomes().await, ["refused: 550 5.1.1 no a"]);
    let next = road.send(mail());
    session.answer("RSET", "250 2.0.0 Resetting").await;
    session.take().await;
    assert_eq!(next.outcomes().await.len(), 1);
}

#[tokio::test]
async fn enhanced_codes_come_through_whole() {
    for (said, outcome) in [
        ("554 5.2.270 Too large after conversion", "refused: 554 5.2.270 Too large after conversion"),
        ("550 5.7.705 Tenant over threshold", "held tenant: 550 5.7.705 Tenant over threshold"),
    ] {
        let upstream = Upstream::start().await;
        let sending = lane_to(upstream.address()).send(mail());
        let mut session = upstream.logged_in().await;
        session.expect("MAIL FROM:<scanner@contoso.com> SIZE=25\nRCPT TO:<anna@contoso.com>\nDATA").await;
        session.say("250 2.1.0 OK\n250 2.1.5 OK\n354 go ahead").await;
        session.message().await;
        session.say(said).await;
        assert_eq!(sending.outcomes().await, [outcome]);
    }
}

#[tokio::test]
async fn started_is_called_before_upstream_hears_of_the_message() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let (tell, mut told) = tokio::sync::oneshot::channel();
    let lane = road.lane.clone();
    let sending = tokio::spawn(async move {
        let Mail { envelope, recipients, header, mut body } = mail();
        let message = forwarder::Message { envelope: &envelope, recipients: &recipients, header: &header };
        let slot = lane.slot().await;
        slot.deliver(&message, &mut body, move || tell.send(()).unwrap()).await
    });
    let mut session = upstream.greeted().await;
    assert!(session.line().await.starts_with("AUTH"));
    assert!(told.try_recv().is_err(), "started before the login");
    session.say("235 2.7.0 welcome").await;
    session.expect("MAIL FROM:<scanner@contoso.com> SIZE=25").await;
    assert_eq!(told.try_recv(), Ok(()));
    sending.abort();
}
