//! An example of each report, whole, as a file. `WRITE_EXAMPLES=1 cargo test -p mail` writes them anew: read them then as an
//! accountant would.

use mail::report::{Digest, DigestEntry, Fate, Kind, Letter, Notice, Report};
use mail::{
    BodyType, Diagnostic, EnhancedCode, Envelope, EnvelopeId, ForwardPath, HeaderBlock, Mailbox, MessageId, Notify,
    OriginalRecipient, Recipient, Ret, ReversePath,
};

use crate::reading::octets;

const SERVER: Option<&str> = Some("smtp.office365.com");
const TRIED: Option<&str> = Some("Sat, 21 Nov 2026 08:54:07 +0000");
const ARRIVAL: &str = "Sat, 21 Nov 2026 07:54:00 +0000";
const HEADER: &str = "Received: from erp01 ([10.1.2.3]) by relay01.contoso.com with ESMTP id\r\n\
     \t1-2A; Sat, 21 Nov 2026 07:54:00 +0000\r\n\
     From: Invoices <erp@contoso.com>\r\n\
     To: bob@fabrikam.example\r\n\
     Subject: Invoice 4711\r\n\
     Date: Sat, 21 Nov 2026 08:53:58 +0100\r\n\
     Message-ID: <4711.1@erp01.contoso.com>\r\n";

fn reply(code: u16, enhanced: &str, text: &str) -> Diagnostic {
    Diagnostic { code: Some(code), enhanced: EnhancedCode::parse(enhanced), text: text.into() }
}

fn to(recipient: &str) -> Recipient {
    ForwardPath::parse(recipient.as_bytes()).unwrap().into()
}

fn from(sender: &str) -> Envelope {
    Envelope::from(ReversePath::parse(sender.as_bytes()).unwrap())
}

/// What became of a message whose client and caller said nothing more.
fn fate<'a>(recipient: &'a Recipient, reply: &'a Diagnostic) -> Fate<'a> {
    Fate {
        recipient,
        reply,
        remote_mta: reply.code.and(SERVER),
        reason: None,
        remedy: None,
        last_attempt: TRIED,
        will_retry_until: None,
    }
}

/// Who writes to whom.
struct Post {
    from: Mailbox,
    to: Mailbox,
    message_id: MessageId,
}

impl Post {
    fn to(address: &str) -> Self {
        Self {
            from: "scanner@contoso.com".parse().unwrap(),
            to: address.parse().unwrap(),
            message_id: MessageId::parse("<1-2B.1795251247000@relay01.contoso.com>").unwrap(),
        }
    }

    fn letter(&self) -> Letter<'_> {
        Letter {
            hostname: "relay01.contoso.com",
            from: &self.from,
            to: &self.to,
            date: "Sat, 21 Nov 2026 08:54:08 +0000",
            message_id: &self.message_id,
        }
    }

    fn report(&self, kind: Kind, returned: Ret, envelope: &Envelope, header: &str, fates: &[Fate<'_>]) -> Report {
        let original = HeaderBlock::parse(header.as_bytes().to_vec());
        Notice {
            kind,
            letter: self.letter(),
            nonce: 0x2f1d_98c4_5a07_4be3_9d6e_1f20_77aa_c35b,
            queue_id: "1-2A",
            arrival: ARRIVAL,
            envelope,
            original: &original,
            returned,
            fates,
        }
        .report()
    }
}

/// Compares with the file of this name, which has the line ends of its neighbours.
fn is_example(name: &str, report: &Report) {
    let text =
        String::from_utf8(octets(report, b"Please find our invoice attached.\r\n")).unwrap().replace("\r\n", "\n");
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reports/examples").join(name);
    if std::env::var_os("WRITE_EXAMPLES").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{}", path.display());
}

#[test]
fn a_sender_that_may_not_be_used() {
    let recipient = to("bob@fabrikam.example");
    let text = "SendAsDenied; scanner@contoso.com not allowed to send as erp@contoso.com; \
                STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed to process message due \
                to a permanent exception with message Cannot submit message. [Hostname=AM0PR04MB1234.eurprd04.prod.outlook.com]";
    let reply = reply(554, "5.2.252", text);
    let fates = [Fate {
        reason: Some("the mailbox scanner@contoso.com may not send as erp@contoso.com"),
        remedy: Some(
            "Please ask your Exchange administrator to give scanner@contoso.com the permission \"Send As\" for \
             erp@contoso.com. It takes up to two hours to work; then send the message again.",
        ),
        ..fate(&recipient, &reply)
    }];
    let post = Post::to("erp@contoso.com");
    is_example("failed.eml", &post.report(Kind::Failed, Ret::Headers, &from("erp@contoso.com"), HEADER, &fates));
}

#[test]
fn several_recipients_of_whom_each_has_another_reason_and_the_message_comes_back() {
    let recipients =
        [to("anna@contoso.com"), to("bob@fabrikam.example"), to("zoë@bücher.example"), to("dan@x.example")];
    let original = OriginalRecipient::parse("rfc822;Anna+2BOrders@contoso.com").ok();
    let recipients = recipients.map(|recipient| Recipient { original: original.clone(), ..recipient });
    let unknown = reply(550, "5.1.1", "RESOLVER.ADR.RecipNotFound; not found");
    let late = reply(
        451,
        "4.4.4",
        "Mail received as unauthenticated, incoming to a recipient domain configured in a hosted \
                                   tenant which has no mail-enabled subscriptions. ATTR5",
    );
    let own = Diagnostic::local("upstream does not take SMTPUTF8 messages");
    let fates = [
        fate(&recipients[0], &unknown),
        fate(&recipients[1], &unknown),
        fate(&recipients[2], &own),
        fate(&recipients[3], &late),
    ];
    let mut envelope = from("erp@contoso.com");
    envelope.envelope_id = EnvelopeId::parse("order+20run+2042").ok();
    let post = Post::to("erp@contoso.com");
    is_example("failed-many.eml", &post.report(Kind::Failed, Ret::Full, &envelope, HEADER, &fates));
}

#[test]
fn a_postmaster_hears_of_mail_whose_sender_cannot_be_told() {
    let recipient = to("kundë@fabrikam.example");
    let reply = reply(550, "5.1.10", "RESOLVER.ADR.RecipientNotFound; Recipient kundë@fabrikam.example not found");
    let header = "Subject: =?iso-8859-1?Q?Gr=FC=DFe_vom_B=FCro?=\r\nX-Note: gr\u{fc}n\r\nMessage-ID: none\r\n";
    let post = Post::to("postmaster@contoso.com");
    let envelope = from("nightly@printers.example");
    let fates = [fate(&recipient, &reply)];
    is_example("failed-postmaster.eml", &post.report(Kind::Failed, Ret::Headers, &envelope, header, &fates));
}

#[test]
fn mail_that_is_late() {
    let recipient = to("bob@fabrikam.example");
    let reply =
        reply(535, "5.7.139", "Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox.");
    let fates = [Fate {
        reason: Some("the mailbox scanner@contoso.com may not send mail by SMTP at present"),
        remedy: Some("Your Exchange administrator can switch \"Authenticated SMTP\" on for scanner@contoso.com."),
        will_retry_until: Some("Thu, 26 Nov 2026 07:54:00 +0000"),
        ..fate(&recipient, &reply)
    }];
    let post = Post::to("erp@contoso.com");
    is_example("delayed.eml", &post.report(Kind::Delayed, Ret::Full, &from("erp@contoso.com"), HEADER, &fates));
}

#[test]
fn mail_that_was_passed_on_to_a_server_that_does_not_report() {
    let recipient = Recipient { notify: Notify::parse("SUCCESS").ok(), ..to("bob@fabrikam.example") };
    let reply = reply(250, "2.0.0", "OK <4711.1@erp01.contoso.com> [Hostname=AM0PR04MB1234.eurprd04.prod.outlook.com]");
    let fates = [fate(&recipient, &reply)];
    let post = Post::to("erp@contoso.com");
    let report = post.report(Kind::Relayed, Ret::Headers, &from("erp@contoso.com"), HEADER, &fates);
    assert_eq!((report.body_type, report.smtputf8), (BodyType::SevenBit, false));
    is_example("relayed.eml", &report);
}

#[test]
fn a_digest_of_many_failures() {
    let (erp, nobody) = (from("erp@contoso.com").reverse_path, ReversePath::Null);
    let few = [to("bob@fabrikam.example"), to("eve@fabrikam.example")];
    let many: Vec<_> = (1..=13).map(|at| to(&format!("subscriber{at}@newsletter.example"))).collect();
    let denied = reply(554, "5.2.252", "SendAsDenied; scanner@contoso.com not allowed to send as erp@contoso.com");
    let late = Diagnostic::local("cannot connect to smtp.office365.com:587: connection timed out");
    let entries = [
        DigestEntry {
            time: ARRIVAL,
            queue_id: "1-2A",
            sender: &erp,
            recipients: &few,
            message_id: "<4711.1@erp01.contoso.com>",
            reply: &denied,
        },
        DigestEntry {
            time: "Sat, 21 Nov 2026 08:02:11 +0000",
            queue_id: "1-31",
            sender: &nobody,
            recipients: &many,
            message_id: "",
            reply: &late,
        },
    ];
    let post = Post::to("postmaster@contoso.com");
    is_example("digest.eml", &Digest { letter: post.letter(), entries: &entries, beyond: 40 }.report());
}
