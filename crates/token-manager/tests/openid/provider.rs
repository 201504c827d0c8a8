//! The providers: `provider.mjs` under Node.js, one process for all tests since it takes long to load, and what each provider
//! tells of its answers.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use url::Url;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openid/provider.mjs");
const HOW: &str = "oidc-provider: npm install --prefix DIR oidc-provider@8.8.1, then NODE_PATH=DIR/node_modules";
/// Beyond this something hangs.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// One provider of the process.
pub(crate) struct Provider {
    /// What its endpoints stand under.
    pub(crate) authority: Url,
    said: watch::Receiver<Vec<Value>>,
}

impl Provider {
    /// One set up as `setup` says, on a free port; none when it is not installed.
    pub(crate) async fn start(setup: Value) -> Option<Self> {
        let mut lines = Node::started()?.begin(setup);
        let said = tokio::time::timeout(LONGEST_WAIT, lines.wait_for(|lines| !lines.is_empty())).await;
        let issuer = said.expect("the provider does not start").expect("node has ended")[0]["issuer"].clone();
        Some(Self { authority: Url::parse(issuer.as_str().unwrap()).unwrap(), said: lines })
    }

    /// Waits for the answer of its token endpoint with this number, counted from 1.
    pub(crate) async fn answer(&self, number: usize) -> Value {
        self.wait(|lines| lines.get(number).cloned()).await
    }

    /// Waits for an answer of its token endpoint that is as wished.
    pub(crate) async fn answered(&self, wished: impl Fn(&Value) -> bool) -> Value {
        self.wait(|lines| lines.iter().skip(1).find(|line| wished(line)).cloned()).await
    }

    /// The answers that it has told of so far.
    pub(crate) fn answers(&self) -> Vec<Value> {
        self.said.borrow().iter().skip(1).cloned().collect()
    }

    async fn wait(&self, find: impl Fn(&[Value]) -> Option<Value>) -> Value {
        let mut lines = self.said.clone();
        let said = tokio::time::timeout(LONGEST_WAIT, lines.wait_for(|lines| find(lines).is_some())).await;
        let lines = said.expect("the provider says nothing more").expect("node has ended");
        find(&lines).expect("it was there when the wait ended")
    }
}

/// What each provider has said, by its number: its issuer first, then its answers.
type Said = Vec<watch::Sender<Vec<Value>>>;

/// The process. It ends with its standard input, which ends with this one.
struct Node {
    _process: Child,
    input: Mutex<ChildStdin>,
    /// None any more when the process has ended.
    said: &'static Mutex<Option<Said>>,
}

impl Node {
    /// The one process; none when what it needs is not installed.
    fn started() -> Option<&'static Self> {
        static NODE: OnceLock<Result<Node, String>> = OnceLock::new();
        NODE.get_or_init(Self::start).as_ref().map_err(|reason| skip(reason)).ok()
    }

    fn start() -> Result<Self, String> {
        static SAID: Mutex<Option<Said>> = Mutex::new(Some(Vec::new()));
        let mut node = Command::new("node");
        node.arg(SCRIPT).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = node.spawn().map_err(|_| "node is not installed")?;
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = lines.next().expect("node ended early, and says why").unwrap();
        if serde_json::from_str::<Value>(&first).unwrap()["ready"].is_null() {
            process.wait().unwrap();
            return Err(format!("node does not find {HOW}"));
        }
        let input = Mutex::new(process.stdin.take().unwrap());
        std::thread::spawn(move || listen(lines, &SAID));
        Ok(Self { _process: process, input, said: &SAID })
    }

    /// Makes one more provider, and gives what it will say.
    fn begin(&self, mut setup: Value) -> watch::Receiver<Vec<Value>> {
        let (sender, receiver) = watch::channel(Vec::new());
        let mut said = self.said.lock().unwrap();
        let providers = said.as_mut().expect("node has ended");
        setup["number"] = json!(providers.len());
        providers.push(sender);
        writeln!(self.input.lock().unwrap(), "{setup}").unwrap();
        receiver
    }
}

/// Hands each line to whom it is of.
fn listen(lines: Lines<BufReader<ChildStdout>>, said: &Mutex<Option<Said>>) {
    for line in lines.map_while(Result::ok) {
        let line: Value = serde_json::from_str(&line).unwrap();
        let number = usize::try_from(line["provider"].as_u64().unwrap()).unwrap();
        if let Some(providers) = &*said.lock().unwrap() {
            providers[number].send_modify(|lines| lines.push(line));
        }
    }
    // Whoever waits learns of it.
    said.lock().unwrap().take();
}

/// Says that a test is skipped; fails where that is not allowed.
fn skip(reason: &str) {
    assert!(std::env::var("REQUIRE_REAL_PEERS").as_deref() != Ok("1"), "REQUIRE_REAL_PEERS=1, but {reason}");
    eprintln!("skipped: {reason}");
}
