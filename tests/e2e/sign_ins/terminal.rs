//! `xoauth2-relay login` as a person at a terminal, or a script, meets it.

use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;

use crate::harness::{Log, World, binary};

/// A `login` under way; killed when dropped.
pub(crate) struct Terminal {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Standard error: what a person sees.
    pub(crate) screen: Arc<Log>,
    /// Standard output.
    result: Arc<Log>,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) screen: String,
    pub(crate) result: String,
}

impl Terminal {
    /// Starts `login` with these options.
    pub(crate) fn login(world: &World, options: &[&str]) -> Self {
        let mut command = binary();
        command.args(["login", "--tenant", "contoso", "--config"]).arg(world.configuration()).args(options);
        let stdio = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = stdio.spawn().unwrap();
        let (screen, result) = (Log::of(child.stderr.take().unwrap()), Log::of(child.stdout.take().unwrap()));
        Self { stdin: child.stdin.take(), child, screen, result }
    }

    /// The same at a terminal, whose screen holds all that is shown; none where there is no script(1) of util-linux.
    pub(crate) fn on_a_screen(world: &World, options: &str) -> Option<Self> {
        let is_there =
            Command::new("script").arg("--version").stdout(Stdio::null()).status().is_ok_and(|it| it.success());
        let (login, configuration) = (binary(), world.configuration());
        let line = format!(
            "{} login --tenant contoso --config {} {options}",
            login.get_program().to_str()?,
            configuration.to_str()?
        );
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        let stdio = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = is_there.then(|| stdio.spawn().unwrap())?;
        let (screen, result) = (Log::of(child.stdout.take().unwrap()), Log::of(child.stderr.take().unwrap()));
        Some(Self { stdin: child.stdin.take(), child, screen, result })
    }

    /// The same for a mailbox, by device code.
    pub(crate) fn device(world: &World, mailbox: &str) -> Self {
        Self::login(world, &["--mailbox", mailbox])
    }

    /// The same by a browser.
    pub(crate) fn browser(world: &World, mailbox: &str) -> Self {
        Self::login(world, &["--mailbox", mailbox, "--browser"])
    }

    /// The code that is shown.
    pub(crate) fn code(&self) -> String {
        self.shown("  Enter ")
    }

    /// The address at which it is entered.
    pub(crate) fn page(&self) -> String {
        self.shown("  Open ")
    }

    fn shown(&self, what: &str) -> String {
        let line = self.screen.wait_for(|line| line.starts_with(what));
        line[what.len()..].trim().to_owned()
    }

    /// The link that a browser is to open.
    pub(crate) fn link(&self) -> String {
        self.screen.wait_for(|line| line.starts_with("  https://")).trim().to_owned()
    }

    /// Types a line, or pastes it.
    pub(crate) fn enter(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Gives all of standard input; a command that has read enough need not read all.
    pub(crate) fn pipe(&mut self, text: &[u8]) {
        let _ = self.stdin.take().unwrap().write_all(text);
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end.
    pub(crate) async fn end(mut self) -> Ended {
        tokio::task::spawn_blocking(move || {
            self.screen.wait_for_end();
            self.result.wait_for_end();
            let code = self.child.wait().unwrap().code();
            Ended { code, screen: self.screen.text(), result: self.result.text() }
        })
        .await
        .unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- what login shows ---\n{}", self.screen.text());
        }
    }
}
