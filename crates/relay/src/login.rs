//! The command `login`: signs a user in for a mailbox, shows what has to be done and how it stands, and leaves the refresh
//! token in the vault. Where the daemon runs, it does the work, for it holds the credential and the login's few connections;
//! without one the command does it alone.

mod callback;
mod desk;
mod import;

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::cli::Login;
use crate::config::{Grant, Settings};
use crate::exit::Exit;
use crate::output::{complain, print};
use crate::sign_ins::{BROWSER, Begin, Begun, Progress, Prompt, State, Way};

use callback::Loopback;
use desk::{Desk, DeskError};
use import::ImportError;

/// Octets of an address that is pasted.
const LONGEST_LINE: u64 = 64 * 1024;

/// Why nobody is signed in. One sentence each, with the remedy.
#[derive(Debug, thiserror::Error)]
enum LoginError {
    #[error("{0}")]
    NoMailbox(String),
    #[error("{0}")]
    Import(#[from] ImportError),
    #[error("no port of this machine can be opened for the browser to come back to: {0}")]
    Loopback(io::Error),
    #[error("{0}")]
    Desk(#[from] DeskError),
    #[error("{text}{}", remedy(.advice))]
    Failed { text: String, advice: String },
}

fn remedy(advice: &str) -> String {
    if advice.is_empty() { String::new() } else { format!("\n{advice}") }
}

impl LoginError {
    fn exit(&self) -> Exit {
        match self {
            Self::NoMailbox(_) | Self::Import(ImportError::NoToken | ImportError::TooLong) => Exit::Usage,
            Self::Import(ImportError::Unreadable { .. }) | Self::Loopback(_) | Self::Desk(_) | Self::Failed { .. } => {
                Exit::Unavailable
            }
        }
    }
}

/// Runs the command.
pub(crate) async fn login(settings: &Settings, options: &Login) -> Exit {
    let under_way = OnceLock::new();
    let signed_in = tokio::select! {
        signed_in = sign_in(settings, options, &under_way) => signed_in,
        _ = tokio::signal::ctrl_c() => {
            complain(&format!("\nxoauth2-relay: {}", give_up(under_way.get()).await));
            return Exit::Unavailable;
        }
    };
    match signed_in {
        Ok(text) => print(&format!("{text}\n")),
        Err(error) => {
            complain(&format!("xoauth2-relay: {error}"));
            error.exit()
        }
    }
}

/// A sign-in that has begun, and who does its work.
type UnderWay = (Arc<Desk>, String);

/// Ends it where it is, which may be at the daemon. Says what is left of it.
async fn give_up(under_way: Option<&UnderWay>) -> &'static str {
    let Some((desk, id)) = under_way else { return "given up; nothing was changed" };
    match desk.give_up(id).await {
        Ok(Progress { state: State::Stored { .. }, .. }) => "too late to give up: the sign-in is stored",
        Ok(_) => "given up; nothing was changed",
        Err(_) => "given up; the daemon gives it up, too, when nobody asks after it",
    }
}

async fn sign_in(settings: &Settings, options: &Login, under_way: &OnceLock<UnderWay>) -> Result<String, LoginError> {
    let mailbox = mailbox(settings, options)?;
    let mut loopback = None;
    let way = if let Some(file) = &options.import {
        Way::TakeOver { refresh_token: read_token(file).await? }
    } else if options.browser {
        let opened = loopback.insert(Loopback::open().await.map_err(LoginError::Loopback)?);
        Way::Browser { redirect_uri: opened.redirect_uri() }
    } else {
        Way::DeviceCode
    };
    let wish = Begin { tenant: options.tenant.clone(), mailbox, unproven: options.unproven, way };
    let (desk, begun) = Desk::begin(settings, options.socket.as_deref(), wish).await?;
    let (desk, mut screen) = (Arc::new(desk), Screen::new(&begun));
    let (desk, _) = under_way.get_or_init(|| (desk, begun.id.clone()));
    show_prompt(desk, &begun);
    let mut callbacks = loopback.map(|loopback| loopback.serve(desk, &begun.id));
    let typed = callbacks.as_ref().map(|_| typed_lines());
    let ended = tokio::select! {
        ended = follow(desk, &begun, &mut screen) => ended?,
        never = paste(typed, desk, &begun.id) => match never {},
    };
    if let Some(callbacks) = &mut callbacks {
        // So that the browser gets its page before the process ends.
        callbacks.end().await;
    }
    match ended.state {
        State::Stored { user, is_proven } => Ok(done(&begun, ended.account.as_deref(), &user, is_proven)),
        State::Failed { text, advice } => Err(LoginError::Failed { text, advice }),
        State::Waiting | State::Asking | State::Proving { .. } => unreachable!("`follow` ends with the sign-in"),
    }
}

fn done(begun: &Begun, account: Option<&str>, user: &str, is_proven: bool) -> String {
    let Begun { mailbox, tenant, login, .. } = begun;
    let who = account.map(|account| format!(" by {account}")).unwrap_or_default();
    let done = format!("Mailbox {mailbox} of tenant {tenant} is signed in{who}.");
    if !is_proven {
        return format!(
            "{done}\nIt is stored unproven: Exchange did not take it as {login}, and mail waits until it does."
        );
    }
    if user.eq_ignore_ascii_case(login) {
        return done;
    }
    format!(
        "{done}\nExchange takes it as {user} and not as {login}: mail leaves by the mailbox of {user}, which needs SendAs for {login} \
         (Add-RecipientPermission {login} -AccessRights SendAs -Trustee {user}). If that was not meant, sign in again as {login}."
    )
}

/// The mailbox that is meant: as named, or the only one that users sign in for.
fn mailbox(settings: &Settings, options: &Login) -> Result<String, LoginError> {
    let is_of = |name: &str| options.tenant.as_deref().is_none_or(|tenant| tenant == name);
    let seats: Vec<&str> = settings
        .mailboxes
        .iter()
        .filter(|(_, mailbox)| {
            settings.tenant_of(mailbox).is_some_and(|(name, tenant)| tenant.grant == Grant::Delegated && is_of(name))
        })
        .map(|(name, _)| name.as_str())
        .collect();
    let there = seats.join(", ");
    let text = match (&options.mailbox, seats.as_slice()) {
        (Some(wanted), seats) if seats.contains(&wanted.as_str()) => return Ok(wanted.clone()),
        (None, [only]) => return Ok((*only).to_owned()),
        (_, []) => match &options.tenant {
            Some(tenant) => format!(
                "users sign in for no mailbox of tenant {tenant}: set grant = \"delegated\" in [tenant.{tenant}], or leave --tenant out"
            ),
            None => {
                "users sign in for no mailbox of this configuration: set grant = \"delegated\" in its tenant".to_owned()
            }
        },
        (Some(wanted), _) => format!("users sign in for no mailbox {wanted}; there is {there}"),
        (None, _) => format!("users sign in for several mailboxes: name one with --mailbox; there is {there}"),
    };
    Err(LoginError::NoMailbox(text))
}

/// Shows each step until the last.
async fn follow(desk: &Desk, begun: &Begun, screen: &mut Screen) -> Result<Progress, DeskError> {
    let mut seen = 0;
    loop {
        let progress = desk.progress(&begun.id, seen).await?;
        if progress.step != seen || matches!(progress.state, State::Waiting) {
            screen.show(&progress);
        }
        seen = progress.step;
        if progress.is_over() {
            screen.end();
            return Ok(progress);
        }
    }
}

/// Takes addresses that are pasted, until the sign-in is over.
async fn paste(typed: Option<mpsc::Receiver<Zeroizing<String>>>, desk: &Desk, id: &str) -> std::convert::Infallible {
    if let Some(mut typed) = typed {
        while let Some(line) = typed.recv().await {
            if line.trim().is_empty() {
                continue;
            }
            if let Err(error) = desk.callback(id, line).await {
                complain(&format!("xoauth2-relay: {error}"));
            }
        }
    }
    std::future::pending().await
}

/// Lines of standard input, read by a thread that ends with the process.
fn typed_lines() -> mpsc::Receiver<Zeroizing<String>> {
    let (sender, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        loop {
            let mut line = Zeroizing::new(String::new());
            match io::stdin().lock().take(LONGEST_LINE).read_line(&mut line) {
                Ok(length) if length > 0 => {}
                _ => return,
            }
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// What the user has to do.
fn show_prompt(desk: &Desk, begun: &Begun) {
    let Begun { tenant, mailbox, login, prompt, .. } = begun;
    complain(&format!("Signing in for mailbox {mailbox} ({login}) of tenant {tenant}, {}.", desk.who()));
    match prompt {
        Some(Prompt::DeviceCode { user_code, verification_uri, lifetime_seconds }) => complain(&format!(
            "\n  Open    {verification_uri}\n  Enter   {user_code}\n\nSign in there as {login}, or as a user with full access to that mailbox, within {} minutes.",
            lifetime_seconds / 60
        )),
        Some(Prompt::Browser { url }) => complain(&format!(
            "\nOpen this in a browser:\n\n  {url}\n\nSign in there as {login}, or as a user with full access to that mailbox. If the browser is on another machine, \
             it will end at an address that it cannot open: copy that address from it, paste it here and press Enter."
        )),
        None => {}
    }
}

/// What is shown, on standard error: standard output is for the result.
#[allow(clippy::struct_excessive_bools, reason = "each is something that was shown or not, none is a state")]
struct Screen {
    /// Whether lines can be written over.
    is_terminal: bool,
    /// Upstream's words that were shown.
    tries: usize,
    is_account_shown: bool,
    is_line_open: bool,
    is_waiting_shown: bool,
    /// How long the user has.
    ends: Instant,
}

impl Screen {
    fn new(begun: &Begun) -> Self {
        let lifetime = match &begun.prompt {
            Some(Prompt::DeviceCode { lifetime_seconds, .. }) => Duration::from_secs(*lifetime_seconds),
            Some(Prompt::Browser { .. }) | None => BROWSER,
        };
        Self {
            // Whoever pastes an address types on that line.
            is_terminal: io::stderr().is_terminal() && !matches!(begun.prompt, Some(Prompt::Browser { .. })),
            tries: 0,
            is_account_shown: false,
            is_line_open: false,
            is_waiting_shown: false,
            ends: Instant::now() + lifetime,
        }
    }

    fn show(&mut self, progress: &Progress) {
        if let (Some(account), false) = (&progress.account, self.is_account_shown) {
            self.is_account_shown = true;
            self.line(&format!("Signed in by {account}."));
        }
        for tried in &progress.tries[self.tries.min(progress.tries.len())..] {
            let outcome = if tried.is_taken { "is taken" } else { "is not taken" };
            self.line(&format!("AUTH XOAUTH2 as {} {outcome}: {}", tried.user, tried.text));
        }
        self.tries = progress.tries.len();
        match &progress.state {
            State::Waiting => self.wait(),
            State::Asking => self.open("Asking for a token ..."),
            State::Proving { user } => self.open(&format!("Proving the token by AUTH XOAUTH2 as {user} ...")),
            State::Stored { .. } | State::Failed { .. } => {}
        }
    }

    /// How long is left, over the line before on a terminal; elsewhere once.
    fn wait(&mut self) {
        let left = self.ends.saturating_duration_since(Instant::now()).as_secs();
        if self.is_terminal || !self.is_waiting_shown {
            self.open(&format!("Waiting for you ... {}:{:02} left", left / 60, left % 60));
        }
        self.is_waiting_shown = true;
    }

    /// A line that stays.
    fn line(&mut self, text: &str) {
        self.end();
        complain(text);
    }

    /// A line that is written over on a terminal.
    fn open(&mut self, text: &str) {
        self.end();
        if self.is_terminal {
            let _ = write!(io::stderr().lock(), "{text}");
            let _ = io::stderr().flush();
            self.is_line_open = true;
        } else {
            complain(text);
        }
    }

    fn end(&mut self) {
        if self.is_line_open {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
            self.is_line_open = false;
        }
    }
}

/// On a thread that may wait for a pipe while Ctrl-C is heard.
async fn read_token(file: &std::path::Path) -> Result<Zeroizing<String>, LoginError> {
    let file = file.to_owned();
    let read = tokio::task::spawn_blocking(move || import::read(&file)).await;
    let ended = |error: tokio::task::JoinError| DeskError::Internal(error.to_string());
    Ok(read.map_err(ended)??)
}
