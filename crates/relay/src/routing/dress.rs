//! What leaves: envelope sender and header of a message as the chosen mailbox sends it. Pure.
//!
//! In this order: the maps of `[rewrite]`, once; whether the mailbox may send as what came out; what the route's `sender`
//! makes of that; blind copies go. Not here: which mailbox it is, and what acceptance repaired before (`intake`).

use std::fmt;
use std::ops::Range;

use mail::{AddressList, EditedValue, Field, FieldEdit, HeaderBlock, Mailbox, Member, Name, ReversePath};
use mail::{name_in, named, readable};

use super::address_map::AddressMap;
use super::address_set::AddressKey;
use super::identity::Identity;
use crate::config::SenderPolicy;

/// Most characters of a value in an [`Edit`].
const MAX_SHOWN: usize = 200;
/// Most edits that are told of; a header that has more was made to have them.
const MAX_EDITS: usize = 50;

/// A message as it was accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given<'a> {
    /// Its envelope sender.
    pub(crate) reverse_path: &'a ReversePath,
    /// Its header.
    pub(crate) header: &'a HeaderBlock,
}

/// A message as it leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dressed {
    /// Its envelope sender.
    pub(crate) reverse_path: ReversePath,
    /// Its header.
    pub(crate) header: HeaderBlock,
    /// What was changed, in the order in which it was; the first 50.
    pub(crate) edits: Vec<Edit>,
}

/// Where a sender stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The envelope.
    MailFrom,
    /// The From field.
    From,
    /// The Sender field.
    Sender,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MailFrom => "MAIL FROM",
            Self::From => "the From field",
            Self::Sender => "the Sender field",
        })
    }
}

/// The first sender that the mailbox may not send as, after the maps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("mailbox {mailbox:?} may not send as {sender}, which stands in {place}")]
pub(crate) struct MayNotSendAs {
    /// Who.
    pub(crate) sender: Mailbox,
    /// Where.
    pub(crate) place: Place,
    /// Name of the mailbox in the configuration.
    pub(crate) mailbox: String,
}

/// What the administrator can do about that.
pub(crate) const MAY_NOT_REMEDY: &str =
    "add the address to the mailbox's may_send_as, if Exchange lets it, or set the route's sender to \"auto\"";

/// What was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The envelope sender.
    MailFrom,
    /// A field, by its name.
    Field(&'static str),
}

/// What it became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Now {
    /// This value, in one printable line of at most 200 characters.
    Value(String),
    /// A field of another name with the same value.
    Renamed(&'static str),
    /// Nothing.
    Removed,
}

/// Why it was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// A map has it.
    Mapped,
    /// The mailbox may not send as what stands here, or elsewhere in the message: it leaves under one identity.
    MayNotSendAs(MayNotSendAs),
    /// The route has `sender = "rewrite"`.
    Policy,
    /// There is no From field with an address.
    NoFrom,
    /// It names no address, so that nobody can tell whether it may be there.
    NoAddress,
    /// One From field is all that RFC 5322 section 3.6 has.
    SeveralFrom,
    /// Exchange bounces several From addresses without a Sender field (5.1.20), and RFC 5322 section 3.6.2 wants it.
    NoSender,
    /// Exchange takes no null sender from a login.
    NullSender,
    /// Who answers means those that From named.
    Answers,
    /// Who had a blind copy is not told (RFC 5322 section 3.6.3).
    BlindCopy,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mapped => "mapped by [rewrite]",
            Self::MayNotSendAs(MayNotSendAs { sender, place, mailbox }) => {
                return write!(f, "mailbox {mailbox:?} may not send as {sender}, which stood in {place}");
            }
            Self::Policy => "the route has sender = \"rewrite\"",
            Self::NoFrom => "the header names no sender",
            Self::NoAddress => "it names no address",
            Self::SeveralFrom => "a message has one From field",
            Self::NoSender => "Exchange takes several From addresses only with a Sender field",
            Self::NullSender => "Exchange takes no null sender from a login",
            Self::Answers => "answers go to those that From named",
            Self::BlindCopy => "who had a blind copy is not told",
        })
    }
}

/// One thing that was changed, for `explain` and the log. Shown in one printable line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edit {
    /// What.
    pub(crate) part: Part,
    /// What it was, in one printable line of at most 200 characters; empty if it was not there.
    pub(crate) was: String,
    /// What it is.
    pub(crate) now: Now,
    /// Why.
    pub(crate) why: Why,
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part, was, now, why } = self;
        match part {
            Part::MailFrom => f.write_str("MAIL FROM")?,
            Part::Field(name) => f.write_str(name)?,
        }
        let shown = if was.is_empty() { "(empty)" } else { was };
        match (now, was.is_empty()) {
            (Now::Value(now), true) => write!(f, ": {now} added"),
            (Now::Value(now), false) => write!(f, ": {was} became {now}"),
            (Now::Renamed(name), _) => write!(f, ": {shown} became {name}"),
            (Now::Removed, _) => write!(f, ": {shown} removed"),
        }?;
        write!(f, " ({why})")
    }
}

/// Whether `sender`, after the maps, could be sent as under `policy` when there is no header yet: only `reject` refuses.
pub(crate) fn may_send(sender: &Mailbox, policy: SenderPolicy, identity: &Identity) -> Result<(), MayNotSendAs> {
    if policy != SenderPolicy::Reject || identity.may_send_as(sender) {
        return Ok(());
    }
    Err(may_not(sender, Place::MailFrom, identity))
}

fn may_not(sender: &Mailbox, place: Place, identity: &Identity) -> MayNotSendAs {
    MayNotSendAs { sender: sender.clone(), place, mailbox: identity.name.clone() }
}

/// The message `given` as the mailbox `identity` sends it. Fails under `reject` only.
///
/// Under `auto`, one sender that the mailbox may not send as, or a header without one, has envelope and header rewritten
/// both: a message is of one identity. A null envelope sender alone does not, and neither does a Sender field without an
/// address, which is renamed. In time linear in the header.
pub(crate) fn dress(
    given: &Given<'_>,
    policy: SenderPolicy,
    identity: &Identity,
    senders: &AddressMap,
) -> Result<Dressed, MayNotSendAs> {
    let dressed = Dressed { reverse_path: given.reverse_path.clone(), header: given.header.clone(), edits: Vec::new() };
    let mut fitting = Fitting { dressed, identity };
    fitting.keep_one_from();
    fitting.map(senders);
    let why = match policy {
        SenderPolicy::Keep => None,
        SenderPolicy::Rewrite => Some(Why::Policy),
        SenderPolicy::Reject => match fitting.refused() {
            Some(refused) => return Err(refused),
            None => None,
        },
        SenderPolicy::Auto => match fitting.refused() {
            Some(refused) => Some(Why::MayNotSendAs(refused)),
            None => fitting.lacks_from().then_some(Why::NoFrom),
        },
    };
    if policy != SenderPolicy::Keep {
        fitting.replace_null_sender();
    }
    if let Some(why) = &why {
        fitting.rewrite_envelope(why);
        fitting.rewrite_from(why);
    }
    match policy {
        SenderPolicy::Rewrite => fitting.settle_sender(&Why::Policy, |sender| is_same(sender, &identity.from)),
        SenderPolicy::Auto => {
            fitting.settle_sender(why.as_ref().unwrap_or(&Why::NoAddress), |sender| identity.may_send_as(sender));
            fitting.supply_sender();
        }
        SenderPolicy::Reject => fitting.supply_sender(),
        SenderPolicy::Keep => {}
    }
    fitting.remove_blind_copies();
    Ok(fitting.dressed)
}

/// As Exchange and [`Identity::may_send_as`] compare.
fn is_same(one: &Mailbox, other: &Mailbox) -> bool {
    AddressKey::from(one) == AddressKey::from(other)
}

/// A message on its way from given to dressed.
struct Fitting<'a> {
    dressed: Dressed,
    identity: &'a Identity,
}

impl Fitting<'_> {
    fn tell(&mut self, part: Part, was: String, now: Now, why: Why) {
        if self.dressed.edits.len() < MAX_EDITS {
            self.dressed.edits.push(Edit { part, was, now, why });
        }
    }

    /// What acceptance has seen to since it repairs From: others that it did not see are no senders, as they are to it.
    fn keep_one_from(&mut self) {
        let Some(other) = self.dressed.header.values("From").nth(1) else { return };
        let was = readable(other, MAX_SHOWN);
        renamed(&mut self.dressed.header, "From", "X-Original-From", 1);
        self.tell(Part::Field("From"), was, Now::Renamed("X-Original-From"), Why::SeveralFrom);
    }

    fn map(&mut self, senders: &AddressMap) {
        if let Some(new) = self.dressed.reverse_path.mailbox().and_then(|sender| senders.mapped(sender)) {
            self.set_envelope(new, Why::Mapped);
        }
        for name in ["From", "Sender", "Reply-To"] {
            let mut edits = Vec::new();
            self.dressed.header.edit(name, |value| {
                let (edit, now) = mapped(name, value, senders)?;
                if edits.len() < MAX_EDITS {
                    edits.push((readable(value, MAX_SHOWN), Now::Value(now)));
                }
                Some(edit)
            });
            for (was, now) in edits {
                self.tell(Part::Field(name), was, now, Why::Mapped);
            }
        }
    }

    fn set_envelope(&mut self, new: Mailbox, why: Why) {
        let was = format!("<{}>", self.dressed.reverse_path);
        let now = Now::Value(format!("<{new}>"));
        self.dressed.reverse_path = ReversePath::Mailbox(new);
        self.tell(Part::MailFrom, readable(was.as_bytes(), MAX_SHOWN), now, why);
    }

    /// The addresses of the fields of this name.
    fn addresses(&self, name: &str) -> impl Iterator<Item = Mailbox> {
        let lists = self.dressed.header.values(name).filter_map(|value| AddressList::parse(value).ok());
        lists.flat_map(|list| list.mailboxes().cloned().collect::<Vec<_>>())
    }

    /// The first sender that the mailbox may not send as.
    fn refused(&self) -> Option<MayNotSendAs> {
        let envelope = self.dressed.reverse_path.mailbox().cloned().map(|sender| (sender, Place::MailFrom));
        let from = self.addresses("From").map(|sender| (sender, Place::From));
        let sender = self.addresses("Sender").map(|sender| (sender, Place::Sender));
        let mut all = envelope.into_iter().chain(from).chain(sender);
        let (sender, place) = all.find(|(sender, _)| !self.identity.may_send_as(sender))?;
        Some(may_not(&sender, place, self.identity))
    }

    fn lacks_from(&self) -> bool {
        self.addresses("From").next().is_none()
    }

    fn replace_null_sender(&mut self) {
        if self.dressed.reverse_path == ReversePath::Null {
            self.set_envelope(self.identity.from.clone(), Why::NullSender);
        }
    }

    fn rewrite_envelope(&mut self, why: &Why) {
        let from = &self.identity.from;
        if self.dressed.reverse_path.mailbox().is_none_or(|sender| !is_same(sender, from)) {
            self.set_envelope(from.clone(), why.clone());
        }
    }

    /// Has From name the mailbox alone, and those that it named be answered.
    fn rewrite_from(&mut self, why: &Why) {
        let from = &self.identity.from;
        let value = self.dressed.header.value("From").unwrap_or_default().to_vec();
        let was = readable(&value, MAX_SHOWN);
        let list = AddressList::parse(&value).ok().filter(|list| list.mailboxes().next().is_some());
        let Some(list) = list else {
            renamed(&mut self.dressed.header, "From", "X-Original-From", 0);
            // More than anybody reads: its name would be noise.
            let name =
                if AddressList::parse(&value).is_ok() { name_in(&value, 0..0) } else { Name::Text(String::new()) };
            let text = named(&name, from);
            self.dressed.header.append(&field("From", &text));
            self.tell(Part::Field("From"), was, Now::Value(readable(text.as_bytes(), MAX_SHOWN)), why.clone());
            return;
        };
        let answers = answers(&value, &list, from);
        if let Some((edit, now)) = rewritten(&value, &list, from) {
            self.dressed.header.edit("From", |_| Some(edit.clone()));
            self.tell(Part::Field("From"), was, Now::Value(now), why.clone());
        }
        if !answers.is_empty() {
            self.have_answered(&answers.join(", "));
        }
    }

    /// Puts `answers` into Reply-To, unless one is there that names somebody.
    fn have_answered(&mut self, answers: &str) {
        let names_somebody = |value| AddressList::parse(value).map_or(true, |list| list.mailboxes().next().is_some());
        if self.dressed.header.values("Reply-To").any(names_somebody) {
            return;
        }
        let was = self.dressed.header.value("Reply-To").map(|value| readable(value, MAX_SHOWN)).unwrap_or_default();
        let mut new = Some(field("Reply-To", answers));
        self.dressed.header.edit("Reply-To", |_| Some(new.take().map_or(FieldEdit::Removed, FieldEdit::Field)));
        if let Some(new) = new {
            self.dressed.header.append(&new);
        }
        let now = Now::Value(readable(answers.as_bytes(), MAX_SHOWN));
        self.tell(Part::Field("Reply-To"), was, now, Why::Answers);
    }

    /// Renames Sender unless every address in it `may_stay` and there is one.
    fn settle_sender(&mut self, why: &Why, may_stay: impl Fn(&Mailbox) -> bool) {
        let reading = |value| match AddressList::parse(value) {
            Ok(list) if list.mailboxes().next().is_none() => Some(Why::NoAddress),
            Ok(list) => (!list.mailboxes().all(&may_stay)).then(|| why.clone()),
            Err(_) => Some(Why::NoAddress),
        };
        let header = &self.dressed.header;
        let Some((was, why)) =
            header.values("Sender").find_map(|value| Some((readable(value, MAX_SHOWN), reading(value)?)))
        else {
            return;
        };
        renamed(&mut self.dressed.header, "Sender", "X-Original-Sender", 0);
        self.tell(Part::Field("Sender"), was, Now::Renamed("X-Original-Sender"), why);
    }

    /// Several senders that may all stay need somebody who sent it.
    fn supply_sender(&mut self) {
        if self.dressed.header.has("Sender") || self.addresses("From").nth(1).is_none() {
            return;
        }
        let sender = self.dressed.reverse_path.mailbox().unwrap_or(&self.identity.from).to_string();
        self.dressed.header.append(&field("Sender", &sender));
        self.tell(Part::Field("Sender"), String::new(), Now::Value(sender), Why::NoSender);
    }

    fn remove_blind_copies(&mut self) {
        for name in ["Bcc", "Resent-Bcc"] {
            let mut were = Vec::new();
            self.dressed.header.edit(name, |value| {
                if were.len() < MAX_EDITS {
                    were.push(readable(value, MAX_SHOWN));
                }
                Some(FieldEdit::Removed)
            });
            for was in were {
                self.tell(Part::Field(name), was, Now::Removed, Why::BlindCopy);
            }
        }
    }
}

fn renamed(header: &mut HeaderBlock, name: &str, new_name: &'static str, kept: usize) {
    header.rename(name, new_name, kept).expect("the new name is a literal that is a field name");
}

/// A field of addresses and names as [`named`] writes them.
fn field(name: &'static str, value: &str) -> Field {
    Field::new(name, value).expect("a literal is the name, and neither an address nor a written name holds a control")
}

/// What a field of addresses becomes by the maps, and as it is shown; none if no rule is for any of them.
fn mapped(name: &'static str, value: &[u8], senders: &AddressMap) -> Option<(FieldEdit, String)> {
    let list = AddressList::parse(value).ok()?;
    let mut edits = Vec::new();
    let mut wanted = Vec::new();
    for member in list.members() {
        let Ok(address) = &member.address else { continue };
        let new = senders.mapped(address);
        if let Some(new) = &new {
            edits.push(replaced(value, member, new));
        }
        wanted.push((member, new.unwrap_or_else(|| address.clone())));
    }
    if edits.is_empty() {
        return None;
    }
    let addresses = wanted.iter().map(|(_, address)| address);
    if let Some(edited) = edited(name, value, &edits, addresses) {
        let now = readable(edited.as_bytes(), MAX_SHOWN);
        return Some((FieldEdit::Value(edited), now));
    }
    let text = wanted.iter().map(|(member, address)| named(&name_of(value, member), address)).collect::<Vec<_>>();
    let text = text.join(", ");
    let now = readable(text.as_bytes(), MAX_SHOWN);
    Some((FieldEdit::Field(field(name, &text)), now))
}

/// What puts `new` in the place of a member's address: only that changes where the member is right, else all of it is
/// written anew with its name.
fn replaced(value: &[u8], member: &Member, new: &Mailbox) -> (Range<usize>, String) {
    if member.is_right {
        (member.path.clone(), new.to_string())
    } else {
        (member.whole.clone(), named(&name_of(value, member), new))
    }
}

fn name_of(value: &[u8], member: &Member) -> Name {
    let Range { start, end } = member.whole;
    name_in(&value[start..end], member.path.start - start..member.path.end - start)
}

/// The value after `edits`, if it is one field still and `wanted` is read in it. An address with quotes among words that
/// have broken ones may be read otherwise.
fn edited<'a>(
    name: &str,
    value: &[u8],
    edits: &[(Range<usize>, String)],
    wanted: impl Iterator<Item = &'a Mailbox>,
) -> Option<EditedValue> {
    let edited = EditedValue::new(name, value, edits).ok()?;
    let list = AddressList::parse(edited.as_bytes()).ok()?;
    list.mailboxes().eq(wanted).then_some(edited)
}

/// Those in From who are to be answered, with their names: all but the mailbox itself.
fn answers(value: &[u8], list: &AddressList, from: &Mailbox) -> Vec<String> {
    let others = list.members().iter().filter_map(|member| match &member.address {
        Ok(address) if !is_same(address, from) => Some(named(&name_of(value, member), address)),
        _ => None,
    });
    others.collect()
}

/// What From becomes so that it names `from` alone, by the name of its first member, and as it is shown; none if it does
/// already. `list` is what stands in `value` and has an address.
fn rewritten(value: &[u8], list: &AddressList, from: &Mailbox) -> Option<(FieldEdit, String)> {
    let first = list.members().iter().find(|member| member.address.is_ok())?;
    let is_only = list.members().len() == 1 && first.group.is_none() && list.is_right_but_for_dots();
    if is_only && first.address.as_ref().is_ok_and(|address| is_same(address, from)) {
        return None;
    }
    if list.is_right_but_for_dots() && (first.display_name.is_some() || first.group.is_none()) {
        let is_bare = |range: &Range<usize>| value[range.clone()].iter().all(u8::is_ascii_whitespace);
        let (head, tail) = (0..first.whole.start, first.whole.end..value.len().saturating_sub(b"\r\n".len()));
        let mut edits = vec![(first.path.clone(), from.to_string())];
        if !is_bare(&head) {
            edits.insert(0, (head, " ".to_owned()));
        }
        if !is_bare(&tail) {
            edits.push((tail, String::new()));
        }
        if let Some(edited) = edited("From", value, &edits, std::iter::once(from)) {
            let now = readable(edited.as_bytes(), MAX_SHOWN);
            return Some((FieldEdit::Value(edited), now));
        }
    }
    let name = match (&first.display_name, &first.group) {
        (None, Some(group)) => name_in(&value[group.clone()], 0..0),
        // Words that are no address belong to the only one there is.
        _ if list.mailboxes().nth(1).is_none() => name_in(value, first.path.clone()),
        _ => name_of(value, first),
    };
    let text = named(&name, from);
    let now = readable(text.as_bytes(), MAX_SHOWN);
    Some((FieldEdit::Field(field("From", &text)), now))
}

#[cfg(test)]
mod tests;
