//! A message's road from the first command to what leaves, walked without client, queue and upstream: by the functions that
//! sessions, intake and delivery call. Pure.

use std::net::SocketAddr;
use std::sync::Arc;

use mail::{AddressList, BodyType, Envelope, ForwardPath, HeaderBlock, LaneId, Mailbox, Recipient, ReversePath};
use smtp_server::session::{Session, Step as Move, Tls};
use smtp_server::{Client, Credentials};
use wire::{AuthCommand, Command, MailParameters, Reply};

use super::diff::diff;
use super::explanation::{self as view, Explanation, Refused, Rewritten, Step};
use super::matching::{Matching, named};
use super::question::{Question, QuestionError};
use crate::config::{Authentication, DeliveryMode, Encryption, Listener, SenderPolicy, Settings};
use crate::container::Gateways;
use crate::direct::answer;
use crate::direct::way::sendings;
use crate::intake::acceptance::{Acceptance, Refusal, check_size};
use crate::intake::addressing::Deliveries;
use crate::intake::{Addressed, ListenerPolicy, login, terms};
use crate::routing::dress::{Edit, Given, Part};
use crate::routing::{Asked, Chosen, Sender, Taken};
use crate::rules::Rules;
use crate::sending::{Leave, leave_by};
use crate::users::Users;

/// What to do where no route matches and the near misses stand below.
const NO_ROUTE: &str = "add a [[route]] that matches, or widen one";

/// What becomes of the message that `question` is about under right settings.
pub(super) fn rehearse(settings: &Settings, question: &Question) -> Result<Explanation, QuestionError> {
    let (listener_name, listener, why) = listener(settings, question)?;
    let rules = Rules::new(settings);
    let users = Arc::new(Users::new(&settings.users));
    let policy = terms::policy(settings, listener, &users, Gateways::default());
    let mut rehearsal = Rehearsal {
        settings,
        rules: &rules,
        question,
        listener,
        client: Client {
            session: 0,
            listener: listener_name.into(),
            peer: SocketAddr::new(question.client, 0),
            proxy: None,
            helo: String::new(),
            esmtp: true,
            tls: None,
            user: None,
        },
        policy: &policy,
        users: &users,
        said: Explanation {
            taken: false,
            listener: listener_name.to_owned(),
            client: question.client,
            user: question.user.clone(),
            sender: question.reverse_path.mailbox().map(|sender| rewritten(&rules, sender)),
            from: Vec::new(),
            size: question.size,
            steps: question.assumed.iter().map(|text| step("assumed", text.clone())).collect(),
            refused: Vec::new(),
            recipients: Vec::new(),
            deliveries: Vec::new(),
            not_known: Vec::new(),
        },
    };
    rehearsal.tell("listener", format!("{listener_name}: {why}"));
    if listener.delivery == DeliveryMode::Direct {
        let text = "delivery = \"direct\": nothing is stored, the client hears Exchange's own answer; the first recipient fixes the \
                    mailbox, and the envelope is judged before the header comes";
        rehearsal.tell("delivery", text.to_owned());
    }
    rehearsal.walk();
    Ok(rehearsal.said)
}

/// The listener that is asked about, and why this one.
fn listener<'a>(
    settings: &'a Settings,
    question: &Question,
) -> Result<(&'a str, &'a Listener, &'static str), QuestionError> {
    let all = || settings.listeners.iter().map(|(name, listener)| (name.as_str(), listener));
    if let Some(name) = &question.listener {
        let found = all().find(|(known, _)| known == name).map(|(name, listener)| (name, listener, "as asked"));
        let known = || all().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
        return found.ok_or_else(|| QuestionError::Listener { name: name.clone(), known: known() });
    }
    let admits = |listener: &Listener| listener.networks.iter().any(|network| network.contains(question.client));
    let mut admitting = all().filter(|(_, listener)| admits(listener));
    let (first, others) = (admitting.next(), admitting.next());
    let found = match (settings.listeners.len(), first, others) {
        (1, _, _) => all().next().map(|(name, listener)| (name, listener, "the only one")),
        (_, Some((name, listener)), None) => Some((name, listener, "the only one that this client may use")),
        (_, Some((name, listener)), Some(_)) => {
            Some((name, listener, "the first that this client may use; ask for another with --listener"))
        }
        (_, None, _) => all().next().map(|(name, listener)| (name, listener, "this client may use none; the first")),
    };
    found.ok_or_else(|| QuestionError::Listener { name: String::new(), known: "none".to_owned() })
}

fn step(step: &'static str, text: String) -> Step {
    Step { step, text }
}

fn rewritten(rules: &Rules, sender: &Mailbox) -> Rewritten {
    let mapped = rules.routing.senders.mapped(sender).map(|mapped| mapped.to_string());
    Rewritten { given: sender.to_string(), mapped }
}

/// That the road ends here; what stands in the explanation says why.
struct Ended;

struct Rehearsal<'a> {
    settings: &'a Settings,
    rules: &'a Rules,
    question: &'a Question,
    listener: &'a Listener,
    client: Client,
    policy: &'a ListenerPolicy,
    users: &'a Users,
    said: Explanation,
}

impl Rehearsal<'_> {
    fn tell(&mut self, what: &'static str, text: String) {
        self.said.steps.push(step(what, text));
    }

    fn acceptance(&self) -> Acceptance<'_> {
        Acceptance { policy: self.policy, rules: self.rules, client: &self.client }
    }

    /// A refusal by the session.
    fn refuse(&mut self, command: &'static str, recipient: Option<&ForwardPath>, reply: &Reply, remedy: &str) {
        self.said.refused.push(Refused {
            command,
            recipient: recipient.map(ToString::to_string),
            reply: reply.to_string(),
            reason: reply.text(),
            remedy: remedy.to_owned(),
            near_misses: Vec::new(),
        });
    }

    /// A refusal by the intake, of a sender as it is known then.
    fn refuse_by(
        &mut self,
        command: &'static str,
        recipient: Option<&ForwardPath>,
        refusal: &Refusal,
        sender: &Sender,
    ) {
        let near_misses = match refusal {
            Refusal::Routes { recipient, .. } if refusal.is_unrouted() => {
                let asked = recipient.as_ref().map(|path| self.rules.routing.asked(path));
                self.matching(sender, |matching| matching.near_misses(None, asked.as_ref()))
            }
            _ => Vec::new(),
        };
        let recipient = match refusal {
            Refusal::Routes { recipient: Some(path), .. } => Some(path),
            _ => recipient,
        };
        self.said.refused.push(Refused {
            command,
            recipient: recipient.map(ToString::to_string),
            reply: refusal.reply().to_string(),
            reason: refusal.to_string(),
            remedy: match refusal {
                // The usual one is to run this command.
                refusal if refusal.is_unrouted() => NO_ROUTE,
                _ => refusal.remedy(),
            }
            .to_owned(),
            near_misses,
        });
    }

    fn matching<T>(&self, sender: &Sender, ask: impl FnOnce(Matching<'_>) -> T) -> T {
        let submitter = self.acceptance().submitter(sender.clone());
        ask(Matching { settings: self.settings, routing: &self.rules.routing, submitter: &submitter })
    }

    fn walk(&mut self) {
        // What a refusal has ended is told by it.
        let _ = self.converse();
        let Explanation { refused, deliveries, .. } = &self.said;
        self.said.taken = refused.is_empty() && !deliveries.is_empty();
    }

    fn converse(&mut self) -> Result<(), Ended> {
        self.connect()?;
        let mut session = self.session();
        self.log_in(&mut session)?;
        let (sender, envelope) = self.mail(&mut session)?;
        let mut recipients = self.recipients(&mut session, &sender);
        let header = if recipients.is_empty() { Err(Ended) } else { self.header(&envelope, &sender, &mut recipients) };
        let last = match &header {
            Ok(header) => self.rules.routing.sender_of_message(&envelope.reverse_path, header),
            Err(Ended) => sender,
        };
        self.tell_recipients(&last, &recipients);
        self.deliver(&envelope, &header?, &last, recipients);
        Ok(())
    }

    fn connect(&mut self) -> Result<(), Ended> {
        let Question { client, .. } = self.question;
        if let Err(refusal) = self.acceptance().admits() {
            self.refuse_by("connect", None, &refusal, &Sender::Unread);
            return Err(Ended);
        }
        let network = self.listener.networks.iter().find(|network| network.contains(*client));
        if let Some(network) = network {
            self.tell("client", format!("{client} may connect: it is in {network}"));
        }
        if self.listener.proxy_protocol_from.iter().any(|network| network.contains(*client)) {
            let text = "it is also among proxy_protocol_from: a load balancer there must say who the client is";
            self.tell("client", text.to_owned());
        }
        Ok(())
    }

    /// A session whose client has begun as it must, with TLS where that is offered.
    fn session(&mut self) -> Session {
        let Settings { hostname, .. } = self.settings;
        let largest = self.rules.routing.largest_message(&self.said.listener, self.listener);
        let profile = terms::profile(hostname.as_str(), self.listener, largest, Tls::None);
        let mut session = Session::new(Arc::new(profile), self.question.client.is_loopback());
        let text = match self.listener.tls {
            Encryption::None => None,
            Encryption::StartTls => Some("tls = \"starttls\": the client is taken to use it"),
            Encryption::RequireStartTls => Some("tls = \"require-starttls\": the client must use it, and is taken to"),
            Encryption::Implicit => {
                Some("tls = \"implicit\": the client must speak TLS from the first octet, and is taken to")
            }
        };
        if let Some(text) = text {
            self.tell("tls", text.to_owned());
            session.encrypted();
        }
        session.command(Ok(Command::Ehlo("client.invalid".to_owned())));
        session
    }

    fn log_in(&mut self, session: &mut Session) -> Result<(), Ended> {
        let authentication = self.listener.authentication;
        let Some(name) = &self.question.user else {
            let text = match authentication {
                Authentication::None => "nobody logs in: authentication = \"none\"",
                Authentication::Required => return Ok(()),
                Authentication::Optional => "nobody logs in, and nobody must: authentication = \"optional\"",
                Authentication::AcceptAny => "nobody logs in, and nobody must: authentication = \"accept-any\"",
            };
            self.tell("login", text.to_owned());
            return Ok(());
        };
        let login = AuthCommand { mechanism: "LOGIN".to_owned(), initial_response: None };
        if let Some(refused) = refused(session.command(Ok(Command::Auth(login)))) {
            let remedy = "send without --user; or let the listener offer it: authentication = \"optional\", with tls or \
                          allow_cleartext_auth beyond this machine";
            self.refuse("AUTH", None, &refused, remedy);
            return Err(Ended);
        }
        let (user, text) = if authentication == Authentication::AcceptAny {
            let text = "authentication = \"accept-any\": any name and password is taken, and proves nothing";
            (Arc::from(name.as_str()), format!("{name}: {text}"))
        } else {
            let credentials = Credentials { name: name.clone(), password: Vec::new().into() };
            let Some(user) = self.users.name_of(&credentials) else {
                let remedy = format!("add [user.{name}] with a password_hash, or ask about another --user");
                self.refuse("AUTH", None, &login::wrong(), &remedy);
                return Err(Ended);
            };
            (Arc::clone(user), format!("{user} is a [user.*]; the password is taken for right"))
        };
        session.authentication_answered(None);
        self.said.user = Some(user.to_string());
        self.client.user = Some(user);
        self.tell("login", text);
        Ok(())
    }

    fn mail(&mut self, session: &mut Session) -> Result<(Sender, Envelope), Ended> {
        let Question { reverse_path, size, is_eight_bit, recipients, .. } = self.question;
        let is_ascii = reverse_path.is_ascii() && recipients.iter().all(ForwardPath::is_ascii);
        let header_is_ascii = self.question.header.as_ref().is_ok_and(|header| header.as_bytes().is_ascii());
        let body = if *is_eight_bit { BodyType::EightBitMime } else { BodyType::SevenBit };
        let smtputf8 = !is_ascii || !header_is_ascii;
        let parameters = MailParameters { size: *size, body, smtputf8, ..MailParameters::default() };
        if let Some(refused) = refused(session.command(Ok(Command::Mail(reverse_path.clone(), parameters)))) {
            let remedy = match refused.code() {
                530 => "let the client log in (--user), or the listener have authentication = \"optional\"",
                552 => {
                    "send less, or raise max_message_size of the listener and the mailboxes, and MaxSendSize in Exchange"
                }
                _ => "change what the client says, as the reply asks",
            };
            self.refuse("MAIL", None, &refused, remedy);
            return Err(Ended);
        }
        self.tell_sender();
        let sender = match self.acceptance().mail(reverse_path) {
            Ok(sender) => sender,
            Err(refusal) => {
                let sender = self.rules.routing.sender_of_envelope(reverse_path);
                self.refuse_by("MAIL", None, &refusal, &sender);
                return Err(Ended);
            }
        };
        session.mail_answered(None, smtputf8);
        if let (Some(mailbox), Some(user)) = (reverse_path.mailbox(), self.client.user.clone()) {
            self.tell("allowed_senders", format!("{user} may send as {mailbox}{}", self.allowed(&user)));
        }
        Ok((sender, Envelope { body_type: body, smtputf8, ..Envelope::from(reverse_path.clone()) }))
    }

    fn tell_sender(&mut self) {
        let text = match &self.said.sender {
            None => "the null sender: routes are asked about the From field".to_owned(),
            Some(Rewritten { given, mapped: Some(mapped) }) => {
                format!("{given} becomes {mapped} by [rewrite] senders; routes are asked about that")
            }
            Some(Rewritten { given, mapped: None }) => format!("{given}, the envelope sender; no map has it"),
        };
        self.tell("sender", text);
    }

    fn allowed(&self, user: &str) -> &'static str {
        match self.settings.users.get(user) {
            Some(user) if user.allowed_senders.is_empty() => ": it has no allowed_senders, so the routes decide alone",
            Some(_) => ": it is among its allowed_senders",
            None => ": accept-any asks for none",
        }
    }

    /// Those that are taken.
    fn recipients(&mut self, session: &mut Session, sender: &Sender) -> Vec<Addressed> {
        let mut taken = Vec::new();
        for path in &self.question.recipients {
            let given = Recipient::from(path.clone());
            if let Some(refused) = refused(session.command(Ok(Command::Rcpt(given.clone())))) {
                self.refuse(
                    "RCPT",
                    Some(path),
                    &refused,
                    "send to fewer at a time, or raise the listener's max_recipients",
                );
                continue;
            }
            let way = self.acceptance().way(sender.clone(), path, &|_| false);
            if let Ok(way) = &way
                && let Some((reply, remedy)) = self.left_behind(sender, &taken, way.as_ref())
            {
                session.rcpt_answered(&reply);
                self.refuse("RCPT", Some(path), &reply, remedy);
                continue;
            }
            let way = way.map(|way| taken.push(Addressed { given, way }));
            let size = self.question.size.unwrap_or(0);
            let answer = way.and_then(|()| check_size(&taken, size).inspect_err(|_| drop(taken.pop())));
            let reply = answer.as_ref().map_or_else(Refusal::reply, |()| Reply::new(250, (2, 1, 5), "Recipient OK"));
            session.rcpt_answered(&reply);
            if let Err(refusal) = answer {
                self.refuse_by("RCPT", Some(path), &refusal, sender);
            }
        }
        taken
    }

    /// What a recipient hears whom a direct listener cannot take along with those before.
    fn left_behind(&self, sender: &Sender, taken: &[Addressed], way: Option<&Taken>) -> Option<(Reply, &'static str)> {
        if self.listener.delivery == DeliveryMode::Queue {
            return None;
        }
        let Some(way) = way else {
            return Some((
                answer::depends(),
                "send with an envelope sender, or to a listener with delivery = \"queue\"",
            ));
        };
        let first = taken.first()?.way.as_ref()?;
        let Ok(sendings) = sendings(&self.rules.routing, &self.question.reverse_path, sender, first) else {
            return None;
        };
        let is_taken_along = sendings.iter().any(|sending| sending.takes_along(&self.rules.routing, sender, way));
        let remedy = "nothing to do where the client sends to it again by itself; else let one route take both, or use a listener \
                      with delivery = \"queue\"";
        (!is_taken_along).then(|| (answer::another_way(), remedy))
    }

    /// The header as it is stored, but for what acceptance adds to every message.
    fn header(
        &mut self,
        envelope: &Envelope,
        sender: &Sender,
        recipients: &mut [Addressed],
    ) -> Result<HeaderBlock, Ended> {
        let size = self.question.size.unwrap_or(0);
        let settled = self.question.header.clone().map_err(Refusal::from).and_then(|mut header| {
            let acceptance = self.acceptance();
            acceptance.check_hops(&header)?;
            let repair = acceptance.header(envelope, size, recipients, &mut header, &|_| false)?;
            Ok((header, repair))
        });
        let (mut header, repair) = match settled {
            Ok(settled) => settled,
            Err(refusal) => {
                let sender = match &self.question.header {
                    Ok(header) => self.rules.routing.sender_of_message(&envelope.reverse_path, header),
                    Err(_) => sender.clone(),
                };
                self.refuse_by("message", None, &refusal, &sender);
                return Err(Ended);
            }
        };
        let list = header.value("From").and_then(|value| AddressList::parse(value).ok());
        let from: Vec<_> = list.iter().flat_map(AddressList::mailboxes).cloned().collect();
        self.said.from = from.iter().map(|mailbox| rewritten(self.rules, mailbox)).collect();
        if let Some(repair) = repair {
            self.tell("header", format!("{} is no address list and is repaired: {}", repair.field, repair.was));
        }
        if let (Some(user), false) = (self.client.user.clone(), from.is_empty()) {
            let named: Vec<_> = from.iter().map(ToString::to_string).collect();
            let text = format!("{user} may send as {}{}", named.join(", "), self.allowed(&user));
            self.tell("allowed_senders", format!("From field: {text}"));
        }
        // The date of acceptance is not known here.
        if let Ok(Some(repair)) = crate::intake::repair::repair_date(&mut header, "(when it is accepted)") {
            self.tell("header", format!("Date cannot be read and is repaired: {}", repair.was));
        }
        if self.question.size.is_some() {
            let missing = ["Date", "Message-ID"].into_iter().filter(|name| !header.has(name));
            let added: Vec<_> = std::iter::once("Received").chain(missing).collect();
            self.tell("header", format!("added when it is accepted: {}", added.join(", ")));
        }
        Ok(header)
    }

    fn tell_recipients(&mut self, sender: &Sender, taken: &[Addressed]) {
        let views = self.question.recipients.iter().map(|path| {
            let asked = self.rules.routing.asked(path);
            self.matching(sender, |matching| {
                let decisive = self.rules.routing.decisive(matching.submitter, &asked);
                let mapped = match (&asked, path) {
                    (Asked::Mailbox { mailbox, .. }, ForwardPath::Mailbox(given)) if mailbox != given => {
                        Some(mailbox.to_string())
                    }
                    _ => None,
                };
                view::Recipient {
                    address: Rewritten { given: path.to_string(), mapped },
                    taken: taken.iter().any(|taken| taken.given.path == *path && taken.way.is_some()),
                    route: decisive.map(|route| matching.route(route, &asked)),
                    near_misses: matching.near_misses(decisive.map(|route| &**route), Some(&asked)),
                }
            })
        });
        self.said.recipients = views.collect();
    }

    fn deliver(&mut self, envelope: &Envelope, header: &HeaderBlock, sender: &Sender, recipients: Vec<Addressed>) {
        let ways: Vec<_> = recipients.iter().filter_map(|addressed| addressed.way.clone()).collect();
        let given = Given { reverse_path: &envelope.reverse_path, header };
        for delivery in Deliveries::of(recipients, self.rules.routing.epoch).deliveries {
            let is_its = |way: &&Taken| way.route.name == delivery.route && way.carriers.lanes == delivery.lanes;
            let Some(way) = ways.iter().find(is_its) else { continue };
            let redirected = ways.iter().filter(is_its).filter_map(|way| way.redirected.as_ref());
            let (chosen, because) = self.chosen(way, sender);
            let view = view::Delivery {
                route: delivery.route.clone(),
                recipients: delivery.recipients.iter().map(|recipient| recipient.path.to_string()).collect(),
                redirected_from: redirected.map(ToString::to_string).collect(),
                tenant: delivery.tenant,
                chosen,
                because,
                policy: policy(way.route.policy),
                max_age: self.rules.routing.max_age(&delivery.route).as_secs(),
                max_message_size: way.carriers.max_message_size(),
                mailboxes: self.mailboxes(way, sender, &given),
            };
            self.said.deliveries.push(view);
        }
        self.tell_unknown(sender);
    }

    /// Each mailbox of a way with the message as it sends it, in the order of the configuration.
    fn mailboxes(&self, way: &Taken, sender: &Sender, given: &Given<'_>) -> Vec<view::Mailbox> {
        let mut lanes: Vec<&LaneId> = Vec::new();
        for carrier in way.carriers.members() {
            if !lanes.contains(&&carrier.lane) {
                lanes.push(&carrier.lane);
            }
        }
        let sent = lanes.into_iter().filter_map(|lane| {
            let (identity, leave) = leave_by(&self.rules.routing, &way.route, lane, sender, given)?;
            let (mail_from, edits, header_diff) = match leave {
                Leave::As(dressed) => {
                    let before = self.question.header.as_ref().map_or(given.header, |header| header);
                    // A direct listener says MAIL before it knows the header.
                    let said = self.said_before(way, lane, sender);
                    let is_said = |edit: &&Edit| {
                        edit.part != Part::MailFrom || said.as_ref().is_none_or(|said| *said == dressed.reverse_path)
                    };
                    let edits = dressed.edits.iter().filter(is_said).map(ToString::to_string).collect();
                    let reverse_path = said.as_ref().unwrap_or(&dressed.reverse_path);
                    (reverse_path.to_string(), edits, diff(before, &dressed.header))
                }
                Leave::Refused(refused) => (String::new(), vec![refused.to_string()], Vec::new()),
                Leave::Elsewhere(_) => return None,
            };
            Some(view::Mailbox {
                name: identity.name.clone(),
                address: identity.address.to_string(),
                login: lane.login().to_owned(),
                lane: lane.to_string(),
                mail_from,
                edits,
                header_diff,
            })
        });
        sent.collect()
    }

    /// The envelope's sender as a direct listener says it by `lane`; none of one that queues.
    fn said_before(&self, way: &Taken, lane: &LaneId, sender: &Sender) -> Option<ReversePath> {
        if self.listener.delivery == DeliveryMode::Queue {
            return None;
        }
        let sendings = sendings(&self.rules.routing, &self.question.reverse_path, sender, way).ok()?;
        sendings.into_iter().find(|sending| sending.lane == *lane).map(|sending| sending.reverse_path)
    }

    /// Why these mailboxes.
    fn chosen(&self, way: &Taken, sender: &Sender) -> (&'static str, String) {
        let several = way.carriers.members().len() > 1;
        let sender = named(sender);
        match &way.chosen {
            Chosen::Named if self.settings.routes.is_empty() => {
                ("only", "no routes are written: the only mailbox serves everything".to_owned())
            }
            Chosen::Named if several => {
                ("named", "the route names them: they spread the mail and take over from each other".to_owned())
            }
            Chosen::Named => ("named", "the route names it".to_owned()),
            Chosen::Own => ("own", format!("the sender's own: its address is {sender}")),
            Chosen::Wildcard(name) => {
                let vouched = match (&self.client.user, self.settings.mailboxes.get(name)) {
                    (_, Some(mailbox)) if !mailbox.wildcard_needs_user => "wildcard_needs_user = false".to_owned(),
                    (Some(user), _) => format!("{user} has allowed_senders"),
                    (None, _) => String::new(),
                };
                ("wildcard", format!("the sender's own, {sender}, by the wildcard mailbox {name}: {vouched}"))
            }
            Chosen::Fallback | Chosen::Unknown => {
                ("fallback", format!("the route's fallback: {sender} has no mailbox here"))
            }
        }
    }

    fn tell_unknown(&mut self, sender: &Sender) {
        let deliveries = || self.said.deliveries.iter();
        let mut mailboxes = deliveries().flat_map(|delivery| &delivery.mailboxes);
        let is_foreign = mailboxes.any(|mailbox| mailbox.mail_from != mailbox.address)
            || deliveries().any(|delivery| delivery.policy == "keep");
        let has_wildcard = deliveries().any(|delivery| delivery.chosen == "wildcard");
        let mut not_known = vec!["whether the queue has room for it".to_owned()];
        if is_foreign {
            not_known
                .push("whether Exchange lets the mailbox send as that sender (SendAs); its answer shows it".to_owned());
        }
        if has_wildcard {
            not_known.push(format!(
                "whether Exchange has a mailbox {}; of those it was found not to have the daemon knows",
                named(sender)
            ));
        }
        self.said.not_known = not_known;
    }
}

/// The reply, if a session does not go on with a command.
fn refused(next: Move) -> Option<Reply> {
    match next {
        Move::Reply(reply) | Move::Close(reply) => Some(reply),
        Move::Challenge(_)
        | Move::StartTls(_)
        | Move::Reset(_)
        | Move::Authenticate(_)
        | Move::Mail(..)
        | Move::Rcpt(_)
        | Move::Data => None,
    }
}

fn policy(policy: SenderPolicy) -> &'static str {
    match policy {
        SenderPolicy::Auto => "auto",
        SenderPolicy::Keep => "keep",
        SenderPolicy::Rewrite => "rewrite",
        SenderPolicy::Reject => "reject",
    }
}
