//! The message itself: what the queue would deliver, octet for octet, in memory that does not grow with it.

use std::sync::Arc;

use sandbox::{Message, Parameter};
use wire::DotStuffer;

use super::{At, DIRECT, converse, copies, passes, world};
use crate::harness::{Client, RECIPIENT, Relay, SENDER, World, message, split};
use crate::tenants::{address_of, listener};

/// Messages as clients write them, in wire form before the final dot.
fn hard_messages() -> Vec<(&'static str, Vec<u8>)> {
    let header =
        format!("From: {SENDER}\r\nMessage-ID: <hard@test.local>\r\nDate: Sat, 21 Nov 2026 07:54:00 +0000\r\n");
    let with = |rest: &[u8]| [header.as_bytes(), rest].concat();
    vec![
        ("dots at line starts", with(b"\r\n..\r\n...two\r\n..one\r\ntext.\r\n..")),
        ("dots in the header", with(b"X-Dots: a\r\n ..b\r\n\r\nbody")),
        ("long lines", with(&[b"\r\n", &b"x".repeat(200_000)[..], b"\r\nend"].concat())),
        ("8-bit", with("Subject: Gr\u{fc}\u{df}e\r\n\r\nK\u{f6}ln\r\n".as_bytes())),
        ("Latin-1", with(b"Subject: Gr\xfc\xdfe\r\n\r\nK\xf6ln\r\n")),
        ("NUL and controls", with(b"\r\na\0b\x07\x1b[2J\x7f")),
        ("bare CR and LF in the body", with(b"\r\none\ntwo\rthree\r\rfour\n\nfive\r\n.\n\r")),
        ("bare CR and LF in the header", with(b"X-One: a\nX-Two: b\rc\r\r\n\r\nbody")),
        ("a dot behind a bare LF", with(b"\r\none\n.two\n..three\r\n..four")),
        ("no header at all", b"the disk is full\r\n\r\nreally".to_vec()),
        ("one word", b"word".to_vec()),
        ("an empty message", Vec::new()),
        ("a blank line", b"\r\n".to_vec()),
        ("header only", with(b"Subject: all there is")),
        ("header and blank line", with(b"")),
        ("folded fields", with(b"Subject: one\r\n two\r\n\tthree\r\nTo: a@b.c,\r\n\td@e.f\r\n\r\nbody")),
        ("no From", b"Subject: bare\r\n\r\nbody".to_vec()),
        ("a From that needs repair", b"From: a@b.c@d.e\r\nSubject: x\r\n\r\nbody".to_vec()),
        ("a Date that nobody understands", b"Date: yesterday\r\nSubject: x\r\n\r\nbody".to_vec()),
        ("Bcc", with(b"Bcc: hidden@example.com\r\n\r\nbody")),
        ("a line end at the end", with(b"\r\nbody\r\n\r\n\r\n")),
    ]
}

/// Two listeners of one relay, one of each mode.
async fn both() -> (World, Relay) {
    let world = world().await.set("tables", listener("queue", ""));
    let relay = world.relay().await;
    (world, relay)
}

/// A message as the client writes it, by a listener.
async fn send(relay: &Relay, listener: &str, content: &[u8]) -> u16 {
    let mut client = Client::connect(address_of(relay, listener)).await.unwrap();
    let heard = converse(&mut client, SENDER, &[RECIPIENT], content).await.unwrap();
    assert_eq!(heard.at, At::End, "{heard:?}");
    heard.reply.code()
}

/// Its header without what differs between any two messages, and its body.
fn essence(message: &Message) -> (Vec<String>, Vec<u8>) {
    let (header, body) = split(message);
    let unfolded = header.replace("\r\n ", " ").replace("\r\n\t", " ");
    let lines = unfolded.lines().map(|line| {
        let made =
            line.starts_with("Received: ") || (line.starts_with("Date: ") && !line.contains("21 Nov 2026 07:54:00"));
        let is_ours = line.starts_with("Message-ID: <") && !line.contains("@test.local>");
        if made || is_ours { line.split(':').next().unwrap_or_default().to_owned() } else { line.to_owned() }
    });
    (lines.collect(), body)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_client_writes_arrives_as_by_the_queue() {
    let (world, relay) = both().await;
    for (name, content) in hard_messages() {
        let before = world.sandbox.counters().messages;
        let codes = [send(&relay, "queue", &content).await, send(&relay, "local", &content).await];
        assert_eq!(codes[0], codes[1], "{name}");
        if codes[0] != 250 {
            continue;
        }
        let taken = world.wait_for(before + 2).await;
        let [queued, direct] = [&taken[taken.len() - 2], &taken[taken.len() - 1]].map(Arc::clone);
        // Which of them came first is chance.
        assert_eq!(essence(&queued), essence(&direct), "{name}");
        assert_eq!(
            (queued.bare_lf, queued.bare_cr, direct.bare_lf, direct.bare_cr),
            (false, false, false, false),
            "{name}"
        );
        assert_eq!((&queued.reverse_path, &queued.header_from), (&direct.reverse_path, &direct.header_from), "{name}");
        assert!(!direct.before_354, "{name}");
    }
    assert_eq!(relay.log().count(|line| line.contains("\"ERROR\"")), 0, "{}", relay.log().text());
}

/// A message's parameters of MAIL and of each RCPT as Exchange had them, but for the size: what a direct listener knows of it is
/// what the client said.
fn parameters(message: &Message) -> Vec<Vec<String>> {
    let shown =
        |parameter: &Parameter| format!("{}={}", parameter.name, parameter.value.as_deref().unwrap_or_default());
    let all = std::iter::once(&message.parameters).chain(message.recipients.iter().map(|one| &one.parameters));
    let all = all.map(|parameters| {
        let mut shown: Vec<_> = parameters.iter().filter(|one| one.name != "SIZE").map(shown).collect();
        shown.sort();
        shown
    });
    all.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_asks_for_beside_its_addresses_goes_up_as_by_the_queue() {
    let (world, relay) = both().await;
    let mail = format!("<{SENDER}> SIZE=500 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=one+2Btwo");
    let recipients = [
        format!("<{RECIPIENT}> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;some+2Bone@example.com"),
        "<gr\u{fc}n@example.com> NOTIFY=NEVER".to_owned(),
        "<plain@example.com>".to_owned(),
    ];
    for listener in ["queue", "local"] {
        let mut client = Client::connect(address_of(&relay, listener)).await.unwrap();
        let reply = client.send_with(&mail, &recipients, &message(listener)).await.unwrap();
        assert_eq!(reply.code(), 250, "{listener}: {reply}");
    }
    let taken = world.wait_for(2).await;
    let by = |name: &str| taken.iter().find(|message| message.message_id == super::id(name)).unwrap();
    assert_eq!(parameters(by("queue")), parameters(by("local")));
    assert!(parameters(by("local"))[0].contains(&"BODY=8BITMIME".to_owned()), "{:?}", by("local").parameters);
    assert_eq!(super::recipients(by("queue")), super::recipients(by("local")));
    // Whoever did not announce 8-bit text may send some: it is announced upstream all the same.
    passes(address_of(&relay, "local"), "unannounced").await;
    let taken = world.wait_for(3).await;
    assert!(parameters(&taken[2])[0].contains(&"BODY=8BITMIME".to_owned()), "{:?}", taken[2].parameters);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_is_completed_and_traced_as_by_the_queue() {
    let world = world().await;
    let relay = world.relay().await;
    assert_eq!(send(&relay, "local", b"Subject: bare\r\n\r\nbody").await, 250);
    let taken = world.wait_for(1).await;
    let (header, body) = split(&taken[0]);
    assert_eq!(body, b"body\r\n");
    assert!(header.starts_with("Received: from test.local ([127.0.0.1]) by "), "{header}");
    for field in ["\r\nSubject: bare\r\n", &format!("\r\nFrom: {SENDER}\r\n"), "\r\nDate: ", "\r\nMessage-ID: <"] {
        assert_eq!(format!("\r\n{header}").matches(field).count(), 1, "{field:?} in\n{header}");
    }
    // The id in Received is that of the log.
    let line = relay.log().wait_for(|line| line.contains("\"outcome\":\"accepted\""));
    let id = crate::harness::field(&line, "id");
    assert!(header.replace("\r\n\t", " ").contains(&format!(" id {id};")), "{id} in\n{header}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_message_in_small_and_odd_pieces_arrives_octet_for_octet() {
    let world = world().await;
    let relay = world.relay().await;
    let mut chance = fastrand::Rng::with_seed(7);
    let mut text = [&message("pieces")[..], b"\r\n"].concat();
    while text.len() < 900_000 {
        text.extend(std::iter::repeat_n(b'.', [0, 0, 1, 2, 3][chance.usize(..5)]));
        let octets = std::iter::repeat_with(|| chance.u8(..)).filter(|octet| !matches!(octet, 0 | b'\r' | b'\n'));
        let line: Vec<u8> = octets.take(2000).collect();
        text.extend_from_slice(&line[..chance.usize(..2000)]);
        text.extend_from_slice(b"\r\n");
    }
    let mut on_the_wire = Vec::new();
    let mut stuffer = DotStuffer::new();
    stuffer.stuff(&text, &mut on_the_wire);
    stuffer.finish(&mut on_the_wire);
    let mut client = Client::connect(relay.address).await.unwrap();
    client.begin(&[RECIPIENT]).await;
    let mut rest = &on_the_wire[..];
    while !rest.is_empty() {
        let (piece, left) = rest.split_at(chance.usize(1..5000).min(rest.len()));
        client.write(piece).await.unwrap();
        rest = left;
    }
    let reply = client.reply().await.unwrap();
    assert_eq!(reply.code(), 250, "{reply}");
    let taken = world.wait_for(1).await;
    let body = &text[text.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4..];
    assert!(split(&taken[0]).1 == body, "{} octets came", taken[0].body.length());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_100_megabytes_passes_in_little_memory() {
    const BLOCK: usize = 1 << 20;
    let world = world()
        .await
        .set("listener", "max_message_size = \"150 MiB\"")
        .set("mailbox", "max_message_size = \"150 MiB\"");
    world.mailbox(|mailbox| mailbox.max_send_size = 150 << 20);
    let relay = world.relay().await;
    passes(relay.address, "warm").await;
    let before = peak_memory(relay.pid());
    let mut client = Client::connect(relay.address).await.unwrap();
    client.begin(&[RECIPIENT]).await;
    client.write(&message("large")).await.unwrap();
    let line = [&[b'x'; 76][..], b"\r\n"].concat();
    let block: Vec<u8> = line.iter().copied().cycle().take(BLOCK / line.len() * line.len()).collect();
    client.write(b"\r\n").await.unwrap();
    for _ in 0..101 {
        client.write(&block).await.unwrap();
    }
    client.write(b".\r\n").await.unwrap();
    assert_eq!(client.reply().await.unwrap().code(), 250);
    let taken = world.wait_for(2).await;
    assert!(taken[1].body.length() > 100 << 20);
    let grown = peak_memory(relay.pid()).saturating_sub(before);
    eprintln!("a message of {} octets moved the peak of resident memory by {grown} KiB", taken[1].body.length());
    assert!(grown < 16 * 1024, "resident memory grew by {grown} KiB");
    let files = std::fs::read_dir(world.path("state/bodies")).map_or(0, Iterator::count);
    assert_eq!(files, 0, "nothing is stored");
}

/// The highest resident memory so far, in KiB.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_is_refused_and_nothing_of_it_arrives() {
    let world = world().await.set("listener", "max_message_size = \"64 KiB\"");
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    let reply = client.command(&format!("MAIL FROM:<{SENDER}> SIZE=70000")).await.unwrap();
    assert_eq!(reply.to_string(), "552 5.3.4 Message is larger than the 65536 octets allowed here");
    let filler = [&b"x".repeat(70)[..], b"\r\n"].concat().repeat(3000);
    let large = [message("large"), b"\r\n".to_vec(), filler].concat();
    let heard = converse(&mut client, SENDER, &[RECIPIENT], &large).await.unwrap();
    assert_eq!((heard.at, heard.reply.code()), (At::End, 552), "{heard:?}");
    let heard = converse(&mut client, SENDER, &[RECIPIENT], &message("small")).await.unwrap();
    assert!(heard.is_taken(), "{heard:?}");
    assert_eq!((world.sandbox.counters().messages, copies(&world, "small")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_its_mailboxs_own_limit_is_refused_and_nothing_of_it_arrives() {
    let world = world().await.set("mailbox", "max_message_size = \"64 KiB\"");
    let world = world.set("listener", "max_message_size = \"35 MiB\"").set("tables", listener("other", DIRECT));
    let relay = world.relay().await;
    let filler = [&b"x".repeat(70)[..], b"\r\n"].concat().repeat(3000);
    let large = [message("large"), b"\r\n".to_vec(), filler].concat();
    let mut client = Client::connect(relay.address).await.unwrap();
    let heard = converse(&mut client, SENDER, &[RECIPIENT], &large).await.unwrap();
    assert_eq!((heard.at, heard.reply.code()), (At::End, 552), "{heard:?}");
    passes(relay.address, "small").await;
    assert_eq!(world.sandbox.counters().messages, 1);
}
