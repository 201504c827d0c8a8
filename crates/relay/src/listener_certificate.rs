//! The certificate of a listener: read at the start, taken up anew when its files change, without a session noticing.
//! A handshake gets whatever is in use at its moment; sessions keep what they began with.
//!
//! `files` says what the two files hold, `validity` what is said of their dates, `standing` how often it is said that they
//! stay wrong. Which listener has which certificate is the configuration's matter, speaking TLS the session's.

mod files;
mod standing;
mod validity;

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use clock::{Clock, WallTime};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tracing::{error, info, warn};

use crate::config::{Settings, exposure};

pub(crate) use files::{CertificateError, Chain, Facts, Pair, PrivateKey, Role};
use standing::{Standing, Word};
use validity::Reminder;
pub(crate) use validity::Validity;

/// How often the files are looked at: a renewal is in use within seconds, and an idle daemon is hardly woken.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A certificate with its key, in use and followed.
pub(crate) struct ListenerCertificate {
    certificate: PathBuf,
    private_key: PathBuf,
    in_use: RwLock<Arc<Pair>>,
    seen: Mutex<Seen>,
}

/// What the last look saw.
#[derive(Default)]
struct Seen {
    stamps: [Option<Stamp>; 2],
    reminder: Reminder,
    /// Why what the files hold now is not in use.
    kept: Option<Arc<CertificateError>>,
    kept_told: Standing,
    /// What is wrong with the rights of the private key.
    exposed: Option<String>,
    exposed_told: Standing,
}

impl Seen {
    /// What is to be told at `now` of files that are not in use.
    fn kept_due(&mut self, changed: bool, now: WallTime) -> Option<Word> {
        if self.kept.is_none() {
            self.kept_told.end();
        }
        self.kept_told.word(&self.kept.as_ref()?.to_string(), changed, now)
    }

    /// What is to be told at `now` of the private key's rights.
    fn exposed_due(&mut self, now: WallTime) -> Option<String> {
        if self.exposed.is_none() {
            self.exposed_told.end();
        }
        let exposed = self.exposed.as_ref()?;
        self.exposed_told.word(exposed, false, now).map(|_| exposed.clone())
    }
}

/// What changes when a file does, be it written, replaced by a rename, or a link on the way to it turned elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    /// Also of rights, which may be what kept it from being read.
    changed: (i64, i64),
}

impl Stamp {
    /// Of the file that `path` leads to; none where there is none.
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// What a look found.
#[derive(Debug)]
pub(crate) struct Look {
    /// What became of the files.
    pub(crate) change: Change,
    /// What is to be said of the dates of what is in use, if anything.
    pub(crate) notice: Option<Validity>,
    /// Why what the files hold now is not in use, told or not.
    pub(crate) kept: Option<Arc<CertificateError>>,
    /// What is to be said of the rights of the private key, if anything.
    pub(crate) exposed: Option<String>,
}

/// What became of the files since the last look.
#[derive(Debug)]
pub(crate) enum Change {
    /// Nothing that was not told.
    None,
    /// They changed or can be read again, and hold what is in use.
    Same,
    /// What they hold now is in use.
    Reloaded,
    /// They do not go together, as between the two writes of a renewal, or cannot be read; what was in use stays so.
    Kept(Word),
}

impl ListenerCertificate {
    /// Reads both files. Fails when they cannot be served; dates are no reason.
    pub(crate) fn load(certificate: &Path, private_key: &Path) -> Result<Arc<Self>, CertificateError> {
        // Before they are read: a change in between is seen by the next look.
        let stamps = [certificate, private_key].map(Stamp::of);
        let pair = Pair::read(certificate, private_key)?;
        Ok(Arc::new(Self {
            certificate: certificate.to_owned(),
            private_key: private_key.to_owned(),
            in_use: RwLock::new(Arc::new(pair)),
            seen: Mutex::new(Seen { stamps, exposed: exposure(private_key), ..Seen::default() }),
        }))
    }

    /// A TLS configuration that serves whatever is in use, for as long as the process runs: TLS 1.2 and 1.3, no
    /// certificates of clients, sessions resumed as rustls does by default.
    pub(crate) fn server_config(self: &Arc<Self>) -> Arc<ServerConfig> {
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(self) as _;
        crate::tls::server(resolver)
    }

    /// What the certificate in use says of itself.
    pub(crate) fn facts(&self) -> Facts {
        self.pair().facts.clone()
    }

    fn pair(&self) -> Arc<Pair> {
        Arc::clone(&self.in_use.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks once whether the files changed, takes up what they hold if it goes together, and whether that, their rights
    /// or their dates at `now` are worth a word. Reads the disk.
    pub(crate) fn look(&self, now: WallTime) -> Look {
        self.look_by(now, || Pair::read(&self.certificate, &self.private_key))
    }

    fn look_by(&self, now: WallTime, read: impl FnOnce() -> Result<Pair, CertificateError>) -> Look {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = [&*self.certificate, &*self.private_key].map(Stamp::of);
        let changed = stamps != seen.stamps;
        seen.stamps = stamps;
        if changed {
            seen.exposed = exposure(&self.private_key);
        }
        // What was not read may be by now without a change of its own: a renewal must not be lost to a full table of open
        // files.
        let unread = seen.kept.as_ref().is_some_and(|error| error.is_unreadable());
        let taken_up = if changed || unread { self.take_up(read(), &mut seen) } else { Change::None };
        let change = seen.kept_due(changed, now).map_or(taken_up, Change::Kept);
        let Facts { not_before, not_after, .. } = self.pair().facts;
        let validity = Validity::at(not_before, not_after, now);
        let notice = seen.reminder.is_due(validity, now).then_some(validity);
        Look { change, notice, kept: seen.kept.clone(), exposed: seen.exposed_due(now) }
    }

    fn take_up(&self, read: Result<Pair, CertificateError>, seen: &mut Seen) -> Change {
        let pair = match read {
            Ok(pair) => pair,
            Err(error) => {
                seen.kept = Some(Arc::new(error));
                return Change::None;
            }
        };
        seen.kept = None;
        // The key is that of the first certificate, so it is the same too.
        if pair.certified.cert == self.pair().certified.cert {
            return Change::Same;
        }
        seen.reminder = Reminder::default();
        *self.in_use.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pair);
        Change::Reloaded
    }

    /// Says what is in use, and what is wrong with its dates: the first look of a start.
    pub(crate) fn announce(&self, now: WallTime) {
        self.say_in_use("certificate in use");
        self.tell(&self.look(now), now);
    }

    fn say_in_use(&self, text: &str) {
        let Facts { subject, not_after, .. } = self.facts();
        let names = self.facts().shown_names();
        info!(certificate = %self.certificate.display(), names, subject, expires = %not_after, "{text}");
    }

    /// Writes what a look found into the log.
    fn tell(&self, look: &Look, now: WallTime) {
        let certificate = self.certificate.display();
        match &look.change {
            Change::None => {}
            Change::Same => info!(%certificate, "certificate files were read anew; they hold what is in use"),
            Change::Reloaded => self.say_in_use("certificate reloaded; sessions under way keep the old one"),
            Change::Kept(word) => self.tell_kept(look.kept.as_deref(), *word),
        }
        if let Some(text) = &look.exposed {
            error!(%certificate, "the relay goes on, but the next start will fail with exit 64: {text}");
        }
        let Some(validity) = look.notice else { return };
        let Facts { not_before, not_after, .. } = self.facts();
        let text = DatesNotice { validity, not_before, not_after, now, kept: look.kept.as_deref() };
        match validity {
            Validity::Good => {}
            Validity::EndsWithin(_) => warn!(%certificate, expires = %not_after, "{text}"),
            Validity::NotYet | Validity::Expired => error!(%certificate, expires = %not_after, "{text}"),
        }
    }

    /// A renewal that is half done is a warning; one that still is a day later will not be finished by itself.
    fn tell_kept(&self, error: Option<&CertificateError>, word: Word) {
        let (Some(error), certificate) = (error, self.certificate.display()) else { return };
        let text = KeptNotice { error, word };
        match word {
            Word::First => warn!(%certificate, "{text}"),
            Word::Again => error!(%certificate, "{text}"),
        }
    }
}

impl fmt::Debug for ListenerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ListenerCertificate");
        shown.field("certificate", &self.certificate).field("facts", &self.pair().facts).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for ListenerCertificate {
    /// Whatever name the client asks for: devices that ask for one often have it wrong, and a listener has one certificate.
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.pair().certified))
    }
}

/// What is said of files that are not in use.
struct KeptNotice<'a> {
    error: &'a CertificateError,
    word: Word,
}

impl fmt::Display for KeptNotice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { error, word } = self;
        let next = match (word, error.is_shortage()) {
            (Word::First, _) if error.is_unreadable() => "they are read again every few seconds",
            (Word::First, _) => "they are read again when they change",
            (Word::Again, true) => "they still cannot be read, a day later",
            (Word::Again, false) => "nothing has mended them for a day, and the next start will fail with exit 64",
        };
        write!(
            f,
            "the certificate files changed and cannot be used; what they held before stays in use; {next}: {error}"
        )
    }
}

/// What is said of a certificate's dates.
struct DatesNotice<'a> {
    validity: Validity,
    not_before: WallTime,
    not_after: WallTime,
    now: WallTime,
    /// Why newer files are not in use, if there are any.
    kept: Option<&'a CertificateError>,
}

impl DatesNotice<'_> {
    fn remedy(&self) -> String {
        match self.kept {
            Some(error) => format!("its files changed since and cannot be used: {error}"),
            None => "renew it: the files are taken up without a restart".to_owned(),
        }
    }
}

impl fmt::Display for DatesNotice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.validity {
            Validity::Good => write!(f, "the certificate is good until {}", self.not_after),
            Validity::NotYet => write!(
                f,
                "the certificate is good from {} on, and it is {} now: is this machine's clock right? It is served all the \
                 same; clients that check it refuse it",
                self.not_before, self.now
            ),
            Validity::Expired => write!(
                f,
                "the certificate expired at {}; it is served all the same, and clients that check it refuse it; {}",
                self.not_after,
                self.remedy()
            ),
            Validity::EndsWithin(_) => {
                let hours = self.not_after.saturating_since(self.now).as_secs() / 3600;
                let left = if hours < 48 { format!("{hours} hours") } else { format!("{} days", hours / 24) };
                write!(f, "the certificate expires in {left}, at {}; {}", self.not_after, self.remedy())
            }
        }
    }
}

/// What `check` says of a certificate's dates at `now`; nothing when they are good.
pub(crate) fn doubt(facts: &Facts, now: WallTime) -> Option<String> {
    let Facts { not_before, not_after, .. } = *facts;
    let validity = Validity::at(not_before, not_after, now);
    (validity != Validity::Good).then(|| DatesNotice { validity, not_before, not_after, now, kept: None }.to_string())
}

/// The certificates of all listeners; those that name the same two files share one.
#[derive(Debug, Default)]
pub(crate) struct ListenerCertificates {
    by_listener: BTreeMap<String, Arc<ListenerCertificate>>,
    all: Vec<Arc<ListenerCertificate>>,
}

impl ListenerCertificates {
    /// Reads the certificate of each listener that has one.
    pub(crate) fn load(settings: &Settings) -> Result<Self, CertificateError> {
        let first = |errors: Vec<(String, CertificateError)>| errors.into_iter().next();
        let error = match Self::default().renewed(settings) {
            Ok(loaded) => return Ok(loaded),
            Err(errors) => first(errors),
        };
        Err(error.expect("what cannot be read has a reason").1)
    }

    /// Those of other settings: files that were followed before stay as they are in use, others are read. Tells every error by
    /// the key of the file that is at fault.
    pub(crate) fn renewed(&self, settings: &Settings) -> Result<Self, Vec<(String, CertificateError)>> {
        let (mut renewed, mut errors) = (Self::default(), Vec::new());
        for (name, listener) in &settings.listeners {
            let (Some(certificate), Some(private_key)) = (&listener.certificate, &listener.private_key) else {
                continue;
            };
            let (certificate, private_key) = (certificate.as_path(), private_key.as_path());
            let is_meant =
                |one: &&Arc<ListenerCertificate>| one.certificate == certificate && one.private_key == private_key;
            let known = renewed.all.iter().chain(&self.all).find(is_meant).map(Arc::clone);
            let one = match known {
                Some(known) => known,
                None => match ListenerCertificate::load(certificate, private_key) {
                    Ok(loaded) => loaded,
                    Err(error) => {
                        let key = match error.role() {
                            Role::Certificate => "certificate",
                            Role::PrivateKey => "private_key",
                        };
                        errors.push((format!("listener.{name}.{key}"), error));
                        continue;
                    }
                },
            };
            if !renewed.all.iter().any(|other| Arc::ptr_eq(other, &one)) {
                renewed.all.push(Arc::clone(&one));
            }
            renewed.by_listener.insert(name.clone(), one);
        }
        if errors.is_empty() { Ok(renewed) } else { Err(errors) }
    }

    /// Says which are in use that were not `before`, and looks at once whether the files of the others changed: gives the keys of
    /// those that hold another certificate, which is in use now. Reads the disk.
    pub(crate) fn announce(&self, before: &Self, now: WallTime) -> Vec<String> {
        let mut contents = Vec::new();
        for one in &self.all {
            if !before.all.iter().any(|other| Arc::ptr_eq(other, one)) {
                one.announce(now);
                continue;
            }
            let look = one.look(now);
            one.tell(&look, now);
            if matches!(look.change, Change::Reloaded) {
                let listeners = self.by_listener.iter().filter(|(_, its)| Arc::ptr_eq(its, one));
                contents.extend(listeners.map(|(name, _)| format!("listener.{name}.certificate (contents)")));
            }
        }
        contents
    }

    /// The certificate of the listener called `listener`.
    pub(crate) fn of(&self, listener: &str) -> Option<&Arc<ListenerCertificate>> {
        self.by_listener.get(listener)
    }

    /// Follows all their files for ever, in one task: looks every five seconds, and says what it finds. Without any
    /// certificate it sleeps and never wakes.
    pub(crate) async fn watch(self: Arc<Self>, clock: Arc<dyn Clock>) {
        self.watch_every(LOOK_EVERY, clock).await;
    }

    async fn watch_every(self: Arc<Self>, pause: Duration, clock: Arc<dyn Clock>) {
        if self.all.is_empty() {
            std::future::pending::<()>().await;
        }
        loop {
            tokio::time::sleep(pause).await;
            let (all, now) = (self.all.clone(), clock.wall());
            let looking = tokio::task::spawn_blocking(move || {
                for one in &all {
                    one.tell(&one.look(now), now);
                }
            });
            if let Err(error) = looking.await {
                error!(%error, "looking at the certificate files ended by a fault of ours; the next look is tried all the same");
            }
        }
    }
}

#[cfg(test)]
mod tests;
