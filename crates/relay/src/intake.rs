//! Takes mail from the wire in to the spool: who may submit, what is added to the header, and the 250 that is a promise.
//!
//! Client, recipients and tenant are decided here and do not change afterwards (invariant 7).

use std::sync::{Arc, OnceLock};

use clock::Clock;
use mail::{Envelope, Field, ForwardPath, HeaderBlock, HeaderSplitter, Received, Recipient, ReversePath};
use smtp_server::{Client, Credentials, Intake, MessageSink, Transaction};
use spool::{BodySink, NewDelivery, NewMessage, Origin, Spool, StoreError};
use tracing::{error, info, warn};
use wire::{MailParameters, Reply};

use crate::config::Network;
use crate::routing::{Route, Routing};

/// More Received fields than this are a loop (RFC 5321 section 6.3 asks for at least 100).
const MAX_HOPS: usize = 100;
/// Characters of a Message-ID that are logged and kept in the history; the header keeps all of it.
const MAX_TRACE_KEY: usize = 250;

/// What is open once the spool is: shared by all listeners.
pub(crate) struct Rooms<S> {
    /// The queue.
    pub(crate) spool: Arc<S>,
    /// Our name.
    pub(crate) hostname: String,
    /// Where mail goes.
    pub(crate) routing: Arc<Routing>,
    /// Time.
    pub(crate) clock: Arc<dyn Clock>,
}

/// The intake of one listener.
pub(crate) struct ListenerIntake<S> {
    networks: Vec<Network>,
    rooms: Arc<OnceLock<Arc<Rooms<S>>>>,
}

impl<S> ListenerIntake<S> {
    /// An intake for clients from `networks`. Until `rooms` is set it asks them to come back.
    pub(crate) fn new(networks: Vec<Network>, rooms: Arc<OnceLock<Arc<Rooms<S>>>>) -> Self {
        Self { networks, rooms }
    }
}

impl<S: Spool> Intake for ListenerIntake<S> {
    type Transaction = MailTransaction<S>;

    fn connect(&self, client: &Client) -> Result<(), Reply> {
        let address = client.address();
        if !self.networks.iter().any(|network| network.contains(address)) {
            warn!(listener = %client.listener, client = %address, "client refused: not in the listener's networks");
            return Err(Reply::new(554, (5, 7, 1), format!("{address} is not in the networks of this listener")));
        }
        if self.rooms.get().is_none() { Err(starting()) } else { Ok(()) }
    }

    async fn authenticate(&self, _client: &Client, _credentials: Credentials) -> Result<Arc<str>, Reply> {
        Err(Reply::new(454, (4, 7, 0), "Logins cannot be checked now, try again later"))
    }

    async fn mail(
        &self,
        client: &Client,
        reverse_path: ReversePath,
        parameters: MailParameters,
    ) -> Result<MailTransaction<S>, Reply> {
        let rooms = Arc::clone(self.rooms.get().ok_or_else(starting)?);
        let Some(route) = rooms.routing.route(&client.listener).cloned() else {
            warn!(listener = %client.listener, client = %client.address(), "mail refused: no [[route]] takes mail of this listener");
            return Err(Reply::new(
                550,
                (5, 7, 1),
                "No route takes mail from here; the relay's administrator can add one",
            ));
        };
        Ok(MailTransaction {
            rooms,
            route,
            client: client.clone(),
            envelope: Envelope {
                body_type: parameters.body,
                smtputf8: parameters.smtputf8,
                ret: parameters.ret,
                envelope_id: parameters.envelope_id,
                reverse_path,
            },
            recipients: Vec::new(),
        })
    }
}

fn starting() -> Reply {
    Reply::new(421, (4, 3, 2), "Starting, try again in a moment")
}

/// A transaction between MAIL and DATA.
pub(crate) struct MailTransaction<S> {
    rooms: Arc<Rooms<S>>,
    route: Route,
    client: Client,
    envelope: Envelope,
    recipients: Vec<Recipient>,
}

impl<S: Spool> Transaction for MailTransaction<S> {
    type Sink = Submission<S>;

    async fn rcpt(&mut self, recipient: Recipient) -> Reply {
        self.recipients.push(recipient);
        Reply::new(250, (2, 1, 5), "Recipient OK")
    }

    async fn data(self) -> Result<Submission<S>, Reply> {
        let sink = self.rooms.spool.receive().map_err(|error| store_failed(&error))?;
        Ok(Submission { transaction: self, sink, header: Header::default() })
    }
}

/// A message being received.
pub(crate) struct Submission<S: Spool> {
    transaction: MailTransaction<S>,
    sink: S::Sink,
    header: Header,
}

enum Header {
    Coming(HeaderSplitter),
    Whole(HeaderBlock),
}

impl Default for Header {
    fn default() -> Self {
        Self::Coming(HeaderSplitter::default())
    }
}

impl<S: Spool> MessageSink for Submission<S> {
    async fn write(&mut self, chunk: &[u8]) -> Result<(), Reply> {
        let Header::Coming(splitter) = &mut self.header else {
            return self.store(chunk).await;
        };
        let split = splitter.push(chunk).map_err(|error| header_refused(&error.to_string()))?;
        let Some((block, body)) = split else { return Ok(()) };
        let block = self.header_ended(block, b"\r\n").await?;
        self.header = Header::Whole(block);
        self.store(body).await
    }

    async fn end(mut self) -> Reply {
        match self.header_at_end().await {
            Ok(block) => self.commit(block).await,
            Err(reply) => reply,
        }
    }
}

impl<S: Spool> Submission<S> {
    async fn store(&mut self, octets: &[u8]) -> Result<(), Reply> {
        if octets.is_empty() {
            return Ok(());
        }
        self.sink.write(octets).await.map_err(|error| store_failed(&error))
    }

    /// The header block is whole, and this ended it. What a client without a header sent in its place belongs to the body.
    async fn header_ended(&mut self, block: HeaderBlock, end: &[u8]) -> Result<HeaderBlock, Reply> {
        if block.count("Received") > MAX_HOPS {
            return Err(Reply::new(554, (5, 4, 6), "Too many hops: this message goes round in a loop"));
        }
        if block.is_header() {
            return Ok(block);
        }
        self.store(block.as_bytes()).await?;
        self.store(end).await?;
        Ok(HeaderBlock::parse(Vec::new()))
    }

    /// A message may end before its header does.
    async fn header_at_end(&mut self) -> Result<HeaderBlock, Reply> {
        match std::mem::take(&mut self.header) {
            Header::Whole(block) => Ok(block),
            Header::Coming(splitter) => {
                let block = splitter.finish().map_err(|error| header_refused(&error.to_string()))?;
                self.header_ended(block, b"").await
            }
        }
    }

    async fn commit(self, block: HeaderBlock) -> Reply {
        let MailTransaction { rooms, route, client, envelope, recipients } = self.transaction;
        let id = self.sink.id();
        let accepted_at = rooms.clock.wall();
        let stamp = Stamp { id: id.to_string(), date: accepted_at.rfc5322(), millis: accepted_at.unix_millis() };
        let (header, message_id) = match complete(
            block,
            &stamp,
            &client,
            &envelope,
            &Place { hostname: &rooms.hostname, address: &route.address },
        ) {
            Ok(complete) => complete,
            Err(error) => return header_refused(&error.to_string()),
        };
        let body_len = self.sink.written();
        let size = header.as_bytes().len() as u64 + 2 + body_len;
        let recipient_count = recipients.len();
        let message = NewMessage {
            header: header.into_bytes(),
            message_id: message_id.clone(),
            listener: client.listener.to_string(),
            client: client.address().to_string(),
            accepted_at,
            origin: Origin::Submitted,
            deliveries: vec![NewDelivery {
                tenant: route.tenant.clone(),
                lanes: route.lanes.clone(),
                route: route.name.clone(),
                route_epoch: 0,
                recipients: recipients.into_iter().map(|to| qualified(to, &route.address)).collect(),
            }],
            envelope: envelope.clone(),
        };
        match rooms.spool.commit(self.sink, message).await {
            Ok(()) => {
                info!(
                    %id, client = %client.address(), listener = %client.listener, sender = %envelope.reverse_path,
                    recipients = recipient_count, size, %message_id, "queued"
                );
                Reply::new(250, (2, 0, 0), format!("Queued as {id}"))
            }
            Err(error) => store_failed(&error),
        }
    }
}

/// What makes this acceptance this one.
struct Stamp {
    id: String,
    date: String,
    millis: i64,
}

/// Where it is accepted.
struct Place<'a> {
    /// Our name.
    hostname: &'a str,
    /// The route's mailbox.
    address: &'a mail::Mailbox,
}

/// Adds Received, and Date, Message-ID and From where they are missing (RFC 6409 section 8). Gives the Message-ID too.
fn complete(
    mut header: HeaderBlock,
    stamp: &Stamp,
    client: &Client,
    envelope: &Envelope,
    place: &Place<'_>,
) -> Result<(HeaderBlock, String), mail::FieldError> {
    let Stamp { id, date, millis } = stamp;
    let Place { hostname, address } = place;
    if !header.has("From") {
        let from = envelope.reverse_path.mailbox().unwrap_or(address);
        header.append(&Field::new("From", &from.to_string())?);
    }
    if !header.has("Date") {
        header.append(&Field::new("Date", date)?);
    }
    let message_id = if let Some(value) = header.value("Message-ID") {
        trace_key(value)
    } else {
        let message_id = format!("<{id}.{millis}@{hostname}>");
        header.append(&Field::new("Message-ID", &message_id)?);
        message_id
    };
    let protocol = client.protocol(envelope.smtputf8);
    let received = Received { helo: &client.helo, client: client.address(), by: hostname, protocol, id, date };
    header.prepend(&received.field()?);
    Ok((header, message_id))
}

/// A Message-ID for logs and history: clients put anything there, of any length.
fn trace_key(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    one_line.chars().filter(|c| !c.is_control()).take(MAX_TRACE_KEY).collect()
}

/// A bare `postmaster` means nothing upstream: it is the postmaster of the mailbox's domain.
fn qualified(recipient: Recipient, address: &mail::Mailbox) -> Recipient {
    let path = match recipient.path {
        ForwardPath::Postmaster => {
            ForwardPath::parse(format!("postmaster@{}", address.domain()).as_bytes()).unwrap_or(ForwardPath::Postmaster)
        }
        path @ ForwardPath::Mailbox(_) => path,
    };
    Recipient { path, ..recipient }
}

fn header_refused(text: &str) -> Reply {
    Reply::new(554, (5, 6, 0), format!("The message header cannot be taken: {text}"))
}

/// The store's trouble as the client hears it: always a reason to come back, never to give up.
fn store_failed(error: &StoreError) -> Reply {
    match error {
        StoreError::Full(_) => {
            warn!(%error, "message not accepted");
            Reply::new(452, (4, 3, 1), "Insufficient system storage, try again later")
        }
        StoreError::Failed(_) | StoreError::Damaged(_) => {
            error!(%error, "message not accepted");
            Reply::new(451, (4, 3, 0), "The queue cannot be written now, try again later")
        }
        StoreError::Closed => Reply::new(421, (4, 3, 2), "Shutting down, try again shortly"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(header: &str, sender: &str) -> (String, String) {
        let client = Client {
            session: 1,
            listener: "local".into(),
            peer: "192.0.2.1:1000".parse().unwrap(),
            proxy: None,
            helo: "erp01".into(),
            esmtp: true,
            tls: None,
            user: None,
        };
        let reverse_path = ReversePath::parse(sender.as_bytes()).unwrap();
        let envelope = Envelope::from(reverse_path);
        let stamp = Stamp { id: "1-2".into(), date: "Sat, 21 Nov 2026 07:54:00 +0000".into(), millis: 7 };
        let block = HeaderBlock::parse(header.as_bytes().to_vec());
        let address = "scanner@contoso.com".parse().unwrap();
        let place = Place { hostname: "relay.test", address: &address };
        let (header, message_id) = complete(block, &stamp, &client, &envelope, &place).unwrap();
        let header = String::from_utf8(header.into_bytes()).unwrap();
        let received = "Received: from erp01 ([192.0.2.1]) by relay.test with ESMTP id 1-2; Sat, 21\r\n\tNov 2026 07:54:00 +0000\r\n";
        (header.strip_prefix(received).unwrap_or_else(|| panic!("no Received in {header}")).to_owned(), message_id)
    }

    #[test]
    fn clients_are_asked_to_come_back_until_the_queue_is_open_and_strangers_to_stay_away() {
        let networks = vec!["192.0.2.0/24".parse().unwrap()];
        let intake = ListenerIntake::<spool::SqliteSpool>::new(networks, Arc::default());
        let client = |peer: &str| Client {
            session: 1,
            listener: "local".into(),
            peer: peer.parse().unwrap(),
            proxy: None,
            helo: String::new(),
            esmtp: false,
            tls: None,
            user: None,
        };
        assert_eq!(intake.connect(&client("192.0.2.1:1")).unwrap_err().code(), 421);
        assert_eq!(intake.connect(&client("198.51.100.1:1")).unwrap_err().code(), 554);
    }

    #[test]
    fn a_whole_header_gains_only_its_received_field() {
        let header = "From: a@b\r\nDate: x\r\nMessage-ID: <1@b>\r\n";
        assert_eq!(completed(header, "a@b"), (header.to_owned(), "<1@b>".to_owned()));
    }

    #[test]
    fn what_is_missing_is_made() {
        let made = "From: a@b\r\nDate: Sat, 21 Nov 2026 07:54:00 +0000\r\nMessage-ID: <1-2.7@relay.test>\r\n";
        assert_eq!(completed("Subject: x\r\n", "a@b").0, format!("Subject: x\r\n{made}"));
        assert_eq!(completed("", "a@b").0, made);
        // Without a sender the mailbox itself speaks.
        assert!(completed("", "").0.starts_with("From: scanner@contoso.com\r\n"));
    }

    #[test]
    fn a_trace_key_is_one_short_line() {
        assert_eq!(trace_key(b" <1@b>\r\n"), "<1@b>");
        assert_eq!(trace_key(b" \x1b[31m<1@b>\r\n\t(folded)\r\n"), "[31m<1@b> (folded)");
        assert_eq!(trace_key(&[b'x'; 10_000]).len(), MAX_TRACE_KEY);
    }

    #[test]
    fn a_bare_postmaster_is_the_mailboxs() {
        let address = "scanner@contoso.com".parse().unwrap();
        let asked = Recipient {
            path: ForwardPath::Postmaster,
            notify: Some(mail::Notify::NEVER),
            original: mail::OriginalRecipient::parse("rfc822;postmaster").ok(),
        };
        let found = qualified(asked.clone(), &address);
        assert_eq!(found.to_string(), "postmaster@contoso.com");
        assert_eq!((found.notify, found.original), (asked.notify, asked.original));
    }
}
