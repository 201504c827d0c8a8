//! Answers requests on a control socket, each connection in a task of its own and everything about it bounded.
//!
//! What is answered is the [`Handler`]'s; this knows lines, versions and who asks. Whatever goes wrong here ends a
//! connection and never more: mail does not depend on it.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};
use zeroize::Zeroizing;

use super::framing::{Lines, TooLong};
use super::protocol::{MAX_REQUEST, Refusal, RefusalCode, Request, answer};
use super::socket::Socket;

/// Pause after a failed accept, which may fail again at once.
const PAUSE: Duration = Duration::from_secs(1);
/// Octets read at once.
const CHUNK: usize = 8 * 1024;

/// Answers requests.
pub(crate) trait Handler: Send + Sync + 'static {
    /// The reply to `request` of `peer`. Must end in bounded time; whatever changes something is logged with the peer.
    fn handle(&self, request: Request, peer: Peer) -> impl Future<Output = Result<Value, Refusal>> + Send;
}

/// Who asks, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its effective user.
    pub(crate) uid: u32,
    /// Its process; none where the system does not tell, or from another process namespace.
    pub(crate) pid: Option<i32>,
}

impl Peer {
    /// Who may always ask, whatever has become of the file's mode.
    pub(crate) fn is_root_or_us(self) -> bool {
        self.uid == 0 || self.uid == rustix::process::geteuid().as_raw()
    }
}

/// Bounds of the connections.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// Served at the same time; the others wait in the backlog.
    pub(crate) connections: usize,
    /// Answered on one connection; whoever has more to ask connects again.
    pub(crate) requests: usize,
    /// From the first octet of a request to its end.
    pub(crate) request: Duration,
    /// From an answer to the first octet of the next request; empty lines begin none.
    pub(crate) idle: Duration,
    /// The same while others wait for a place.
    pub(crate) idle_when_full: Duration,
    /// For an answer to be taken, and for the connections to end at a stop.
    pub(crate) reply: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 32,
            requests: 1000,
            request: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            idle_when_full: Duration::from_secs(1),
            reply: Duration::from_secs(10),
        }
    }
}

/// Serves until `stop`, then ends what is under way; the socket's file goes with it.
pub(crate) async fn serve<H: Handler>(socket: Socket, handler: Arc<H>, bounds: Bounds, stop: CancellationToken) {
    let server = Server { places: Arc::new(Semaphore::new(bounds.connections)), full: Arc::default(), bounds, stop };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = server.stop.cancelled() => break,
            Some(ended) = connections.join_next() => reap(ended),
            accepted = socket.listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let Some(place) = server.place(&mut connections).await else { break };
                    if let Some(connection) = server.connection(stream, &socket, &handler) {
                        connections.spawn(connection.run(place));
                    }
                }
                Err(error) => {
                    warn!(%error, "a control connection could not be accepted, trying again shortly");
                    let _ = timeout(PAUSE, server.stop.cancelled()).await;
                }
            },
        }
    }
    // First, so that nobody new connects while the last ones are answered.
    drop(socket);
    let _ = timeout(server.bounds.reply, async { while connections.join_next().await.is_some() {} }).await;
}

struct Server {
    places: Arc<Semaphore>,
    /// Somebody waits for a place.
    full: Arc<Notify>,
    bounds: Bounds,
    stop: CancellationToken,
}

impl Server {
    /// Waits for a place; who has been idle for long or was just answered gives up his. None when stopped.
    async fn place(&self, connections: &mut JoinSet<()>) -> Option<OwnedSemaphorePermit> {
        loop {
            if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
                // Who left for another reason has not heard that he was wanted gone, and the next need not either.
                signalled(&self.full).await;
                return Some(place);
            }
            self.full.notify_one();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                Some(ended) = connections.join_next() => reap(ended),
            }
        }
    }

    fn connection<H>(&self, stream: UnixStream, socket: &Socket, handler: &Arc<H>) -> Option<Connection<H>> {
        let credentials = match stream.peer_cred() {
            Ok(credentials) => credentials,
            Err(error) => {
                warn!(%error, "a control connection of nobody known was closed");
                return None;
            }
        };
        let peer = Peer { uid: credentials.uid(), pid: credentials.pid() };
        Some(Connection {
            stream,
            lines: Lines::new(MAX_REQUEST),
            peer,
            admitted: peer.is_root_or_us() || socket.admits_by_group(),
            handler: Arc::clone(handler),
            bounds: self.bounds.clone(),
            full: Arc::clone(&self.full),
            stop: self.stop.clone(),
        })
    }
}

fn reap(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(%error, "a control connection ended by a fault of ours; the others go on. Please report this");
    }
}

struct Connection<H> {
    stream: UnixStream,
    lines: Lines,
    peer: Peer,
    admitted: bool,
    handler: Arc<H>,
    bounds: Bounds,
    full: Arc<Notify>,
    stop: CancellationToken,
}

/// Why a connection ends.
enum End {
    /// The client has gone, was idle for too long, or we stop.
    Silent,
    /// With a last word; what the client still sends is not read as requests.
    Refused(Refusal),
}

impl<H: Handler> Connection<H> {
    async fn run(mut self, place: OwnedSemaphorePermit) {
        let _place = place;
        if let End::Refused(refusal) = self.serve().await {
            debug!(uid = self.peer.uid, pid = self.peer.pid, code = ?refusal.code, "control connection refused");
            if self.write(&answer(&Err(refusal))).await.is_ok() {
                self.let_read().await;
            }
        }
    }

    async fn serve(&mut self) -> End {
        if !self.admitted {
            let Peer { uid, pid } = self.peer;
            warn!(
                uid,
                pid,
                "a user who may not use the control socket was refused; its file's mode should be 0600, or 0660 for a group"
            );
            let text = format!("user {uid} may not use this socket: run the command as root or as the service's user");
            return End::Refused(Refusal::new(RefusalCode::Forbidden, text));
        }
        for _ in 0..self.bounds.requests {
            let line = match self.request().await {
                Ok(line) => line,
                Err(end) => return end,
            };
            let told = match Request::parse(&line) {
                Ok(request) => self.handler.handle(request, self.peer).await,
                Err(refusal) => Err(refusal),
            };
            // Else one that asks without a pause would keep its place for ever while others wait.
            if self.write(&answer(&told)).await.is_err() || signalled(&self.full).await {
                return End::Silent;
            }
        }
        End::Silent
    }

    /// The next request's line.
    async fn request(&mut self) -> Result<Zeroizing<Vec<u8>>, End> {
        if let Some(line) = self.lines.next().map_err(too_long)? {
            return Ok(line);
        }
        // Fixed here, once: an empty line is no request and buys no time.
        let mut unwanted = pin!(unwanted(Arc::clone(&self.full), &self.bounds));
        while !self.lines.has_begun() {
            if !self.read_unless(unwanted.as_mut()).await? {
                return Err(End::Silent);
            }
            if let Some(line) = self.lines.next().map_err(too_long)? {
                return Ok(line);
            }
        }
        let wait = self.bounds.request;
        timeout(wait, self.rest()).await.unwrap_or_else(|_| {
            let text = format!("the request did not come in within {} s; it ends with a line end", wait.as_secs());
            Err(End::Refused(Refusal::new(RefusalCode::Timeout, text)))
        })
    }

    /// Reads until the line that has begun is whole.
    async fn rest(&mut self) -> Result<Zeroizing<Vec<u8>>, End> {
        loop {
            if !self.read().await? {
                return self.lines.last().map_err(too_long)?.ok_or(End::Silent);
            }
            if let Some(line) = self.lines.next().map_err(too_long)? {
                return Ok(line);
            }
        }
    }

    /// Reads once; false at the end of the stream, when we stop, or once the client is `unwanted`.
    async fn read_unless(&mut self, unwanted: impl Future<Output = ()>) -> Result<bool, End> {
        let stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(false),
            // Before the read: for whoever writes without a pause that is always ready.
            () = unwanted => Ok(false),
            read = self.read() => read,
        }
    }

    /// Reads once; false at the end of the stream.
    async fn read(&mut self) -> Result<bool, End> {
        let mut chunk = Zeroizing::new([0; CHUNK]);
        let length = self.stream.read(&mut *chunk).await.map_err(|_| End::Silent)?;
        self.lines.push(&chunk[..length]);
        Ok(length > 0)
    }

    async fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        timeout(self.bounds.reply, self.stream.write_all(octets)).await?
    }

    /// Lets the client write to its end and read our last word: closed at once, it could lose both.
    async fn let_read(&mut self) {
        let unwanted = unwanted(Arc::clone(&self.full), &self.bounds);
        let discard = async {
            self.stream.shutdown().await?;
            let mut chunk = [0; CHUNK];
            while self.stream.read(&mut chunk).await? > 0 {}
            io::Result::Ok(())
        };
        tokio::select! {
            _ = timeout(self.bounds.request, discard) => {}
            () = unwanted => {}
        }
    }
}

/// Ends when a client that asks nothing has had its time, which is shorter while others wait.
fn unwanted(full: Arc<Notify>, bounds: &Bounds) -> impl Future<Output = ()> + use<> {
    let (idle, when_full) = (bounds.idle, bounds.idle_when_full.min(bounds.idle));
    async move {
        sleep(when_full).await;
        tokio::select! {
            () = full.notified() => {}
            () = sleep(idle.saturating_sub(when_full)) => {}
        }
    }
}

/// Whether somebody waits for a place and nobody has given up his for it yet. Says it once for each.
async fn signalled(full: &Notify) -> bool {
    tokio::select! {
        biased;
        () = full.notified() => true,
        () = std::future::ready(()) => false,
    }
}

fn too_long(_: TooLong) -> End {
    let text = format!("a request has at most {MAX_REQUEST} octets and ends with a line end");
    End::Refused(Refusal::new(RefusalCode::TooLong, text))
}

#[cfg(test)]
mod tests {
    use super::super::client::{AskError, ask};
    use super::*;
    use std::path::PathBuf;
    use tokio::io::{AsyncBufReadExt, BufReader};
    use tokio::task::JoinHandle;

    /// Says who asked for what; `panic` panics, `hang` ends with the test.
    struct Echo;

    impl Handler for Echo {
        async fn handle(&self, request: Request, peer: Peer) -> Result<Value, Refusal> {
            assert_ne!(request.name, "panic", "as asked");
            match request.name.as_str() {
                "hang" => std::future::pending().await,
                "big" => Ok(Value::String("x".repeat(1_000_000))),
                "unknown" => Err(Refusal::unknown_request("unknown", &["echo"])),
                name => Ok(serde_json::json!({ "name": name, "uid": peer.uid, "pid": peer.pid })),
            }
        }
    }

    struct Running {
        path: PathBuf,
        stop: CancellationToken,
        serving: JoinHandle<()>,
        _directory: tempfile::TempDir,
    }

    const PATIENCE: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(50);

    async fn start_with(change: impl FnOnce(&mut Bounds)) -> Running {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let mut bounds = Bounds::default();
        change(&mut bounds);
        let stop = CancellationToken::new();
        let socket = Socket::bind(&path).await.unwrap();
        let serving = tokio::spawn(serve(socket, Arc::new(Echo), bounds, stop.clone()));
        Running { path, stop, serving, _directory: directory }
    }

    impl Running {
        async fn connect(&self) -> BufReader<UnixStream> {
            BufReader::new(UnixStream::connect(&self.path).await.unwrap())
        }

        async fn works(&self) {
            ask(&self.path, &Request::new("echo"), PATIENCE).await.unwrap();
        }
    }

    async fn say(client: &mut BufReader<UnixStream>, octets: &[u8]) {
        client.get_mut().write_all(octets).await.unwrap();
    }

    /// The next line; empty at the end of the stream.
    async fn hear(client: &mut BufReader<UnixStream>) -> String {
        let mut line = String::new();
        timeout(PATIENCE, client.read_line(&mut line)).await.unwrap().unwrap();
        line
    }

    /// The code of the refusal that comes.
    async fn refusal(client: &mut BufReader<UnixStream>) -> String {
        let line = hear(client).await;
        let value: Value = serde_json::from_str(&line).unwrap();
        value["error"]["code"].as_str().unwrap_or_else(|| panic!("{line}")).to_owned()
    }

    #[tokio::test]
    async fn several_requests_are_answered_in_order_and_a_wrong_one_ends_nothing() {
        let server = start_with(|_| {}).await;
        let mut client = server.connect().await;
        say(&mut client, b"{\"version\":1,\"request\":\"one\"}\n\n{\"version\":1,\"request\":\"two\"}\r\nrubbish\n")
            .await;
        let first: Value = serde_json::from_str(&hear(&mut client).await).unwrap();
        assert_eq!(first["reply"]["name"], "one");
        assert_eq!(first["reply"]["uid"], rustix::process::geteuid().as_raw());
        assert_eq!(first["reply"]["pid"], std::process::id());
        assert!(hear(&mut client).await.contains("two"));
        assert_eq!(refusal(&mut client).await, "not_json");
        say(&mut client, b"{\"version\":1,\"request\":\"unknown\"}\n").await;
        assert_eq!(refusal(&mut client).await, "unknown_request");
        say(&mut client, b"{\"version\":9}\n").await;
        assert_eq!(refusal(&mut client).await, "unknown_version");
        // Without a line end, for whoever pipes a text into socat.
        say(&mut client, b"{\"version\":1,\"request\":\"last\"}").await;
        client.get_mut().shutdown().await.unwrap();
        assert!(hear(&mut client).await.contains("last"));
        assert_eq!(hear(&mut client).await, "");
    }

    #[tokio::test]
    async fn a_request_that_is_too_long_is_told_and_ends_the_connection() {
        let server = start_with(|_| {}).await;
        let mut client = server.connect().await;
        say(&mut client, &vec![b'x'; 300_000]).await;
        assert_eq!(refusal(&mut client).await, "too_long");
        assert_eq!(hear(&mut client).await, "");
        server.works().await;
    }

    #[tokio::test]
    async fn half_a_request_and_no_request_are_waited_for_no_longer_than_their_bounds() {
        let server = start_with(|bounds| {
            bounds.request = SHORT;
            bounds.idle = SHORT;
        })
        .await;
        let mut half = server.connect().await;
        say(&mut half, b"{\"version\":1,").await;
        assert_eq!(refusal(&mut half).await, "timeout");
        assert_eq!(hear(&mut half).await, "");
        let mut silent = server.connect().await;
        assert_eq!(hear(&mut silent).await, "");
        server.works().await;
    }

    #[tokio::test]
    async fn those_who_wait_get_the_places_of_those_who_idle() {
        let server = start_with(|bounds| {
            bounds.connections = 2;
            bounds.idle_when_full = SHORT;
        })
        .await;
        let mut idle = Vec::new();
        for _ in 0..10 {
            idle.push(server.connect().await);
        }
        server.works().await;
        assert_eq!(hear(&mut idle[0]).await, "");
    }

    /// Writes `octets` again and again, a fifth of [`SHORT`] apart, until the connection is closed.
    async fn drip(mut client: BufReader<UnixStream>, octets: &'static [u8]) {
        let mut pause = tokio::time::interval(SHORT / 5);
        while client.get_mut().write_all(octets).await.is_ok() {
            pause.tick().await;
        }
    }

    #[tokio::test]
    async fn whoever_drips_empty_lines_or_requests_keeps_no_place_that_others_wait_for() {
        for octets in [&b"\n"[..], b"\r\n", b"\n\n", b"{\"version\":1,\"request\":\"echo\"}\n", b"rubbish\n"] {
            let server = start_with(|bounds| bounds.idle_when_full = SHORT * 4).await;
            let mut drips = JoinSet::new();
            for _ in 0..Bounds::default().connections {
                drips.spawn(drip(server.connect().await, octets));
            }
            server.works().await;
        }
    }

    #[tokio::test]
    async fn empty_lines_buy_no_time() {
        for octets in [&b"\n"[..], b"\r\n"] {
            let server = start_with(|bounds| bounds.idle = SHORT * 4).await;
            let dripping = drip(server.connect().await, octets);
            timeout(PATIENCE, dripping).await.expect("it was not closed");
        }
    }

    #[tokio::test]
    async fn a_connection_has_so_many_answers_and_no_more() {
        let server = start_with(|bounds| bounds.requests = 2).await;
        let mut client = server.connect().await;
        say(&mut client, &b"{\"version\":1,\"request\":\"one\"}\n".repeat(3)).await;
        assert!(hear(&mut client).await.contains("one"));
        assert!(hear(&mut client).await.contains("one"));
        let mut rest = String::new();
        // Closed before the third was read, or after.
        let _ = timeout(PATIENCE, client.read_line(&mut rest)).await.unwrap();
        assert_eq!(rest, "");
        server.works().await;
    }

    #[tokio::test]
    async fn a_refused_client_that_goes_on_writing_keeps_no_place_that_others_wait_for() {
        let server = start_with(|bounds| {
            bounds.connections = 1;
            bounds.idle_when_full = SHORT;
            bounds.request = PATIENCE * 10;
        })
        .await;
        let mut refused = server.connect().await;
        say(&mut refused, &vec![b'x'; 300_000]).await;
        let _dripping = tokio::spawn(drip(refused, b"x"));
        server.works().await;
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_is_given_up() {
        let server = start_with(|bounds| {
            bounds.connections = 1;
            bounds.reply = SHORT;
        })
        .await;
        let mut deaf = server.connect().await;
        say(&mut deaf, b"{\"version\":1,\"request\":\"big\"}\n").await;
        server.works().await;
    }

    #[tokio::test]
    async fn a_panic_ends_its_own_connection_only() {
        let server = start_with(|_| {}).await;
        let mut well = server.connect().await;
        let error = ask(&server.path, &Request::new("panic"), PATIENCE).await.unwrap_err();
        assert!(matches!(error, AskError::Broken(_)), "{error}");
        say(&mut well, b"{\"version\":1,\"request\":\"well\"}\n").await;
        assert!(hear(&mut well).await.contains("well"));
    }

    #[tokio::test]
    async fn a_stop_ends_idle_clients_and_hung_requests_and_removes_the_file() {
        let server = start_with(|bounds| bounds.reply = SHORT).await;
        let mut idle = server.connect().await;
        let mut hung = server.connect().await;
        say(&mut hung, b"{\"version\":1,\"request\":\"hang\"}\n").await;
        server.works().await;
        server.stop.cancel();
        timeout(PATIENCE, server.serving).await.unwrap().unwrap();
        assert_eq!(hear(&mut idle).await, "");
        assert_eq!(hear(&mut hung).await, "");
        assert!(!server.path.exists());
        let error = ask(&server.path, &Request::new("echo"), PATIENCE).await.unwrap_err();
        assert!(matches!(error, AskError::NotRunning { .. }), "{error}");
    }

    #[test]
    fn root_and_our_own_user_are_told_from_others() {
        let is_admitted = |uid| Peer { uid, pid: None }.is_root_or_us();
        let ours = rustix::process::geteuid().as_raw();
        assert!(is_admitted(0) && is_admitted(ours) && !is_admitted(ours + 1));
    }
}
