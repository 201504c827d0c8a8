//! One line into an [`Order`]: words apart by spaces, lower case, nothing guessed. What is wrong is said with what
//! would be right. Whether a fault makes sense at its stage, and whether a mailbox exists, is decided when it is obeyed.

use std::str::FromStr;
use std::time::Duration;

use super::{ClientSecret, FORMS, MailboxOrder, Order, OrderError};
use crate::command::check_address;
use crate::fault::is_reply;
use crate::{Action, Fault, Grant, Limits, RateMode, SharedLogin, SmtpAuth, Stage, Target, catalogue, suggestion};

/// Longest wait or lifetime that can be ordered.
const LONGEST: Duration = Duration::from_hours(24);
const SECONDS: &str = "a number of seconds from 0 to 86400";
const ON_OFF: &[(&str, bool)] = &[("on", true), ("off", false)];

impl FromStr for Order {
    type Err = OrderError;

    fn from_str(line: &str) -> Result<Self, OrderError> {
        let mut words = Words { rest: line.trim(), usage: "" };
        let verb = words.next().ok_or(OrderError::Empty)?;
        let mut known: Vec<(&str, &str)> = FORMS.iter().map(|&(verb, form, _)| (verb, form)).collect();
        known.dedup_by_key(|&mut (verb, _)| verb);
        words.usage = one_of("order", verb, &known)?;
        let order = words.order(verb)?;
        words.end()?;
        Ok(order)
    }
}

/// What of the line is left.
struct Words<'a> {
    rest: &'a str,
    /// The form of the order, for errors.
    usage: &'static str,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (word, rest) = self.rest.split_once(' ').unwrap_or((self.rest, ""));
        self.rest = rest.trim_start();
        (!word.is_empty()).then_some(word)
    }

    fn peek(&self) -> Option<&'a str> {
        Words { ..*self }.next()
    }

    fn need(&mut self, expected: &'static str) -> Result<&'a str, OrderError> {
        let usage = self.usage;
        self.next().ok_or(OrderError::Missing { expected, usage })
    }

    /// The value of the next word, which must be one of these.
    fn choice<T: Copy>(&mut self, what: &'static str, known: &[(&'static str, T)]) -> Result<T, OrderError> {
        one_of(what, self.need(what)?, known)
    }

    fn seconds(&mut self) -> Result<Duration, OrderError> {
        let word = self.need(SECONDS)?;
        let seconds = word.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        seconds.filter(|&seconds| seconds <= LONGEST).ok_or_else(|| bad(word, SECONDS))
    }

    fn address(&mut self) -> Result<String, OrderError> {
        let word = self.need("an address")?;
        check_address(word, false).map_err(|_| bad(word, "a mail address"))?;
        Ok(word.to_owned())
    }

    /// `for NAME`, if it follows.
    fn whom(&mut self) -> Result<Option<String>, OrderError> {
        if self.peek() != Some("for") {
            return Ok(None);
        }
        self.next();
        self.need("a name behind `for`").map(|name| Some(name.to_owned()))
    }

    fn end(&mut self) -> Result<(), OrderError> {
        let usage = self.usage;
        self.next().map_or(Ok(()), |word| Err(OrderError::TooMuch { word: word.to_owned(), usage }))
    }

    fn order(&mut self, verb: &str) -> Result<Order, OrderError> {
        Ok(match verb {
            "fault" => Order::Fault(self.fault()?),
            "faults" => Order::Faults(self.next().map(str::to_owned)),
            "waiting" => Order::Waiting,
            "clear" => Order::Clear,
            "mailbox" => Order::Mailbox { address: self.address()?, change: self.mailbox_change()? },
            "tenant" => {
                self.choice("tenant's setting", &[("smtp-auth", ())])?;
                Order::TenantSmtpAuth { on: self.choice("state", ON_OFF)?, tenant: self.whom()? }
            }
            "role" => Order::Role { on: self.choice("state", ON_OFF)?, client: self.whom()? },
            "secret" => {
                let value = ClientSecret(self.need("the secret's value")?.to_owned());
                Order::Secret { value, client: self.whom()? }
            }
            "public" => Order::Public { on: self.choice("state", ON_OFF)?, client: self.whom()? },
            "devices" => Order::Devices,
            "device" => self.device()?,
            "browser" if self.peek() == Some("nobody") => {
                self.next();
                Order::Browser(None)
            }
            "browser" => Order::Browser(Some(self.address()?)),
            "shared-login" => {
                let known = [("mailbox", SharedLogin::Mailbox), ("delegate", SharedLogin::Delegate)];
                Order::SharedLogin(self.choice("user of a shared mailbox", &known)?)
            }
            "revoke" => Order::Revoke(self.address()?),
            "lifetime" if self.peek() == Some("random") => {
                self.next();
                Order::Lifetime(None)
            }
            "lifetime" => Order::Lifetime(Some(self.seconds()?)),
            "tarpit" => Order::Tarpit(self.seconds()?),
            "rate" => {
                Order::Rate(self.choice("rate mode", &[("reject", RateMode::Reject), ("delay", RateMode::Delay)])?)
            }
            "limits" => Order::Limits(self.choice("limits", &[("exchange", Limits::Exchange), ("off", Limits::Off)])?),
            "permission-delay" => Order::PermissionDelay(self.seconds()?),
            "state" => Order::State,
            "unproven" => Order::Unproven,
            // The only form that is left of those that the caller checked.
            _ => Order::Help,
        })
    }

    fn device(&mut self) -> Result<Order, OrderError> {
        let does_approve = self.choice("device order", &[("approve", true), ("decline", false)])?;
        if !does_approve {
            let declines = |form: &&str| form.starts_with("device decline");
            self.usage = FORMS.iter().map(|&(_, form, _)| form).find(declines).unwrap_or_default();
        }
        let code = self.need("the device's code")?.to_owned();
        if !does_approve {
            return Ok(Order::DeclineDevice(code));
        }
        let mut user = None;
        if self.peek() == Some("as") {
            self.next();
            user = Some(self.address()?);
        }
        Ok(Order::ApproveDevice { code, user })
    }

    fn fault(&mut self) -> Result<Fault, OrderError> {
        let name = self.need("a fault's name or `at`")?;
        if name == "at" {
            return self.fault_at();
        }
        let mut fault = catalogue::find(name)?.fault();
        while let Some(word) = self.peek() {
            if !self.clause(&mut fault)? {
                return Err(unknown("word behind a fault", word, &["times", "always", "for"]));
            }
        }
        Ok(fault)
    }

    fn fault_at(&mut self) -> Result<Fault, OrderError> {
        self.usage =
            FORMS.iter().map(|&(_, form, _)| form).find(|form| form.starts_with("fault at")).unwrap_or_default();
        let stage = self.choice("stage", &Stage::ALL.map(|stage| (stage.name(), stage)))?;
        let mut fault = Fault::once(stage, Action::Close);
        while self.clause(&mut fault)? {}
        let word = self.need("reply, close, stall or wait")?;
        fault.action = match word {
            "reply" => self.reply()?,
            "close" => Action::Close,
            "stall" => Action::Stall,
            "wait" => Action::Delay(self.seconds()?),
            _ => return Err(unknown("action", word, &["times", "always", "for", "reply", "close", "stall", "wait"])),
        };
        Ok(fault)
    }

    /// Takes `times N`, `always` or `for WHO`; false if none of them follows.
    fn clause(&mut self, fault: &mut Fault) -> Result<bool, OrderError> {
        match self.peek() {
            Some("times") => {
                self.next();
                let word = self.need("a number")?;
                let times = word.parse().ok().filter(|&times: &u32| times > 0);
                fault.times = Some(times.ok_or_else(|| bad(word, "a number from 1"))?);
            }
            Some("always") => {
                self.next();
                fault.times = None;
            }
            Some("for") => {
                let who = self.whom()?.unwrap_or_default();
                fault.target = if fault.stage.is_http() { Target::Client(who) } else { Target::Mailbox(who) };
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The rest of the line.
    fn reply(&mut self) -> Result<Action, OrderError> {
        let usage = self.usage;
        let text = std::mem::take(&mut self.rest);
        match text {
            "" => Err(OrderError::Missing { expected: "the reply's text", usage }),
            text if is_reply(text) => Ok(Action::Reply(text.to_owned())),
            text => Err(bad(text, "a reply such as `451 4.7.0 Temporary server error`")),
        }
    }

    fn mailbox_change(&mut self) -> Result<MailboxOrder, OrderError> {
        let known = ["add", "full", "smtp-auth", "grant", "shared", "delegate", "alias", "send-as"];
        let word = self.need("add, full, smtp-auth, grant, shared, delegate, alias or send-as")?;
        if let Some(&(_, form, _)) = FORMS.iter().find(|(_, form, _)| form.split(' ').nth(2) == Some(word)) {
            self.usage = form;
        }
        let switch = [("inherit", SmtpAuth::Inherit), ("on", SmtpAuth::Enabled), ("off", SmtpAuth::Disabled)];
        let paths = [("rbac", Some(Grant::Rbac)), ("full-access", Some(Grant::FullAccess)), ("none", None)];
        Ok(match word {
            "add" => MailboxOrder::Add,
            "full" => MailboxOrder::Full(self.choice("state", ON_OFF)?),
            "smtp-auth" => MailboxOrder::SmtpAuth(self.choice("state", &switch)?),
            "grant" => MailboxOrder::Grant(self.choice("grant", &paths)?),
            "shared" => MailboxOrder::Shared(self.choice("state", ON_OFF)?),
            "delegate" => MailboxOrder::Delegate(self.address()?),
            "alias" => MailboxOrder::Alias(self.address()?),
            "send-as" => MailboxOrder::SendAs(self.address()?),
            _ => return Err(unknown("mailbox order", word, &known)),
        })
    }
}

fn one_of<T: Copy>(what: &'static str, word: &str, known: &[(&'static str, T)]) -> Result<T, OrderError> {
    let found = known.iter().find(|&&(name, _)| name == word).map(|&(_, value)| value);
    found.ok_or_else(|| unknown(what, word, &known.iter().map(|&(name, _)| name).collect::<Vec<_>>()))
}

fn unknown(what: &'static str, word: &str, known: &[&'static str]) -> OrderError {
    let nearest = suggestion::nearest(word, known.iter().copied());
    OrderError::UnknownWord { what, word: word.to_owned(), known: known.to_vec(), nearest }
}

fn bad(given: &str, expected: &'static str) -> OrderError {
    OrderError::BadValue { given: given.to_owned(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Order, OrderError> {
        line.parse()
    }

    fn reply(text: &str) -> Action {
        Action::Reply(text.to_owned())
    }

    #[test]
    fn faults_are_ordered_by_name_or_by_stage() {
        let full = || catalogue::find("mailbox-full").unwrap().fault();
        let scanner = || Target::Mailbox("scanner@contoso.com".to_owned());
        let token = || catalogue::find("token-429").unwrap().fault();
        let table = [
            ("fault mailbox-full", full()),
            ("fault mailbox-full times 3", full().times(3)),
            ("  fault   mailbox-full  always ", Fault { times: None, ..full() }),
            ("fault mailbox-full for scanner@contoso.com times 2", full().times(2).only(scanner())),
            ("fault token-429 for abc", token().only(Target::Client("abc".to_owned()))),
            ("fault at mail reply 451 4.7.0 Not  now [..]", Fault::once(Stage::Mail, reply("451 4.7.0 Not  now [..]"))),
            (
                "fault at end-of-data always for scanner@contoso.com close",
                Fault::always(Stage::EndOfData, Action::Close).only(scanner()),
            ),
            ("fault at auth times 2 stall", Fault::once(Stage::Auth, Action::Stall).times(2)),
            ("fault at token wait 1.5", Fault::once(Stage::Token, Action::Delay(Duration::from_millis(1_500)))),
        ];
        for (line, fault) in table {
            assert_eq!(parse(line), Ok(Order::Fault(fault)), "{line}");
        }
    }

    #[test]
    fn everything_else_is_ordered_too() {
        let mailbox = |change| Order::Mailbox { address: "a@contoso.com".to_owned(), change };
        let imds = || catalogue::find("imds-410").unwrap().fault().only(Target::Client("abc".to_owned()));
        let table = [
            ("faults", Order::Faults(None)),
            ("faults quota", Order::Faults(Some("quota".to_owned()))),
            ("waiting", Order::Waiting),
            ("clear", Order::Clear),
            ("mailbox a@contoso.com add", mailbox(MailboxOrder::Add)),
            ("mailbox a@contoso.com full on", mailbox(MailboxOrder::Full(true))),
            ("mailbox a@contoso.com smtp-auth inherit", mailbox(MailboxOrder::SmtpAuth(SmtpAuth::Inherit))),
            ("mailbox a@contoso.com smtp-auth off", mailbox(MailboxOrder::SmtpAuth(SmtpAuth::Disabled))),
            ("mailbox a@contoso.com grant rbac", mailbox(MailboxOrder::Grant(Some(Grant::Rbac)))),
            ("mailbox a@contoso.com grant none", mailbox(MailboxOrder::Grant(None))),
            ("mailbox a@contoso.com alias b@contoso.com", mailbox(MailboxOrder::Alias("b@contoso.com".to_owned()))),
            ("mailbox a@contoso.com send-as b@contoso.com", mailbox(MailboxOrder::SendAs("b@contoso.com".to_owned()))),
            ("tenant smtp-auth off", Order::TenantSmtpAuth { on: false, tenant: None }),
            (
                "tenant smtp-auth on for contoso.com",
                Order::TenantSmtpAuth { on: true, tenant: Some("contoso.com".to_owned()) },
            ),
            ("role on", Order::Role { on: true, client: None }),
            ("secret x~y", Order::Secret { value: ClientSecret("x~y".to_owned()), client: None }),
            ("mailbox a@contoso.com shared on", mailbox(MailboxOrder::Shared(true))),
            (
                "mailbox a@contoso.com delegate b@contoso.com",
                mailbox(MailboxOrder::Delegate("b@contoso.com".to_owned())),
            ),
            ("public on", Order::Public { on: true, client: None }),
            ("public off for abc", Order::Public { on: false, client: Some("abc".to_owned()) }),
            ("devices", Order::Devices),
            ("device approve ABC123", Order::ApproveDevice { code: "ABC123".to_owned(), user: None }),
            (
                "device approve ABC123 as b@contoso.com",
                Order::ApproveDevice { code: "ABC123".to_owned(), user: Some("b@contoso.com".to_owned()) },
            ),
            ("device decline ABC123", Order::DeclineDevice("ABC123".to_owned())),
            ("browser b@contoso.com", Order::Browser(Some("b@contoso.com".to_owned()))),
            ("browser nobody", Order::Browser(None)),
            ("shared-login delegate", Order::SharedLogin(SharedLogin::Delegate)),
            ("shared-login mailbox", Order::SharedLogin(SharedLogin::Mailbox)),
            ("revoke b@contoso.com", Order::Revoke("b@contoso.com".to_owned())),
            ("fault imds-410 for abc", Order::Fault(imds())),
            ("lifetime 60", Order::Lifetime(Some(Duration::from_mins(1)))),
            ("lifetime random", Order::Lifetime(None)),
            ("tarpit 5", Order::Tarpit(Duration::from_secs(5))),
            ("rate delay", Order::Rate(RateMode::Delay)),
            ("limits off", Order::Limits(Limits::Off)),
            ("permission-delay 7200", Order::PermissionDelay(Duration::from_hours(2))),
            ("state", Order::State),
            ("unproven", Order::Unproven),
            ("help", Order::Help),
        ];
        for (line, order) in table {
            assert_eq!(parse(line), Ok(order), "{line}");
        }
    }

    #[test]
    fn mistakes_are_told_with_what_would_be_right() {
        let table = [
            ("", "no order; `help` lists them"),
            (
                "stat",
                "no order `stat` (did you mean `state`?); there are: fault, faults, waiting, clear, mailbox, tenant, role, secret, public, devices, device, browser, shared-login, revoke, lifetime, tarpit, rate, limits, permission-delay, state, unproven, help",
            ),
            ("fault", "a fault's name or `at` is missing; the order is `fault NAME [times N|always] [for WHO]`"),
            ("fault mailbox-ful", "no fault `mailbox-ful` (did you mean `mailbox-full`?); `faults` lists them"),
            (
                "fault mailbox-full tmes 3",
                "no word behind a fault `tmes` (did you mean `times`?); there are: times, always, for",
            ),
            ("fault mailbox-full times 0", "`0` is not a number from 1"),
            (
                "fault mailbox-full for",
                "a name behind `for` is missing; the order is `fault NAME [times N|always] [for WHO]`",
            ),
            (
                "fault at mial close",
                "no stage `mial` (did you mean `mail`?); there are: connect, ehlo, starttls, auth, mail, rcpt, data, content, end-of-data, token, device-code, imds",
            ),
            ("fault at mail drop", "no action `drop`; there are: times, always, for, reply, close, stall, wait"),
            (
                "fault at mail reply",
                "the reply's text is missing; the order is `fault at STAGE [times N|always] [for WHO] reply TEXT|close|stall|wait SECONDS`",
            ),
            ("fault at mail reply no", "`no` is not a reply such as `451 4.7.0 Temporary server error`"),
            (
                "fault at mail close now",
                "`now` is too much; the order is `fault at STAGE [times N|always] [for WHO] reply TEXT|close|stall|wait SECONDS`",
            ),
            ("mailbox contoso.com add", "`contoso.com` is not a mail address"),
            (
                "mailbox a@contoso.com ful on",
                "no mailbox order `ful` (did you mean `full`?); there are: add, full, smtp-auth, grant, shared, delegate, alias, send-as",
            ),
            ("mailbox a@contoso.com full", "state is missing; the order is `mailbox ADDRESS full on|off`"),
            ("mailbox a@contoso.com grant full", "no grant `full`; there are: rbac, full-access, none"),
            ("tenant smtp off", "no tenant's setting `smtp`; there are: smtp-auth"),
            ("tarpit -1", "`-1` is not a number of seconds from 0 to 86400"),
            ("tarpit 86401", "`86401` is not a number of seconds from 0 to 86400"),
            ("lifetime NaN", "`NaN` is not a number of seconds from 0 to 86400"),
            ("rate rejcet", "no rate mode `rejcet` (did you mean `reject`?); there are: reject, delay"),
            ("device aprove X", "no device order `aprove` (did you mean `approve`?); there are: approve, decline"),
            ("device decline", "the device's code is missing; the order is `device decline CODE`"),
            ("device approve X as", "an address is missing; the order is `device approve CODE [as USER]`"),
            ("device approve X for y", "`for` is too much; the order is `device approve CODE [as USER]`"),
            ("browser somebody", "`somebody` is not a mail address"),
            ("shared-login both", "no user of a shared mailbox `both`; there are: mailbox, delegate"),
            ("clear all", "`all` is too much; the order is `clear`"),
        ];
        for (line, error) in table {
            assert_eq!(parse(line).unwrap_err().to_string(), error, "{line}");
        }
    }

    #[test]
    fn every_form_in_the_help_is_an_order() {
        for (verb, form, _) in FORMS {
            assert!(form.starts_with(verb), "{form}");
            let line = form
                .replace(" [times N|always]", "")
                .replace("reply TEXT|close|stall|wait SECONDS", "close")
                .replace("NAME", "mailbox-full")
                .replace("STAGE", "mail")
                .replace(" [for WHO]", " for a@b.c")
                .replace(" [for TENANT]", " for contoso.com")
                .replace(" [for CLIENT]", " for abc")
                .replace(" [WORD]", " quota")
                .replace("CODE", "ABC123")
                .replace(" [as USER]", " as a@b.c")
                .replace("USER", "a@b.c")
                .replace("ADDRESS", "a@b.c")
                .replace("OTHER", "d@b.c")
                .replace("SECONDS", "5");
            let line = line.split('|').next().unwrap();
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line));
        }
    }

    #[test]
    fn a_secret_is_not_in_debug_output() {
        assert!(!format!("{:?}", parse("secret open-sesame").unwrap()).contains("sesame"));
    }
}
