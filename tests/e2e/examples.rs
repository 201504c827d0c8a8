//! The example configurations of `docs/examples`, each as it stands: checked, and run in front of a Microsoft 365 that is set up as
//! the example says, with mail as its product sends it. What cannot be here, such as Microsoft's hosts, lies over the file
//! by the environment ([`Stage::new`]); clients have the addresses of the example by a PROXY header.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sandbox::{
    Application, DEFAULT_CLIENT_ID, DEFAULT_TENANT_ID, Grant, Mailbox, Message, Sandbox, SandboxOptions, TenantModel,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::harness::{Log, PATIENCE, Relay, binary, split, write_secret};
use crate::tenants::{HASH, PASSWORD, address_of};

/// Whom the products write to.
const CUSTOMER: &str = "someone@example.com";
/// The second tenant of `many-apps.toml`.
const FABRIKAM: (&str, &str) = ("22222222-2222-3333-4444-555555555555", "77777777-7777-8888-9999-000000000000");
/// The applications' secret.
const SECRET: &str = "Only.For-The_Examples~Opens.Nothing";

/// An example with the Microsoft 365 that it is for.
struct Stage {
    sandbox: Sandbox,
    directory: TempDir,
    file: PathBuf,
    /// What lies over the file.
    variables: Vec<(String, String)>,
}

impl Stage {
    /// The example of this name. What the file says of Microsoft's hosts, of ports, of its secrets' places and of passwords is
    /// replaced, and nothing else.
    async fn new(name: &str, tenants: Vec<TenantModel>) -> Self {
        let sandbox = Sandbox::start(SandboxOptions { tenants, ..SandboxOptions::default() }).await.unwrap();
        let directory = TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        std::fs::write(at("ca.pem"), sandbox.ca_pem()).unwrap();
        std::fs::create_dir(at("state")).unwrap();
        write_secret(Path::new(&at("secret")), SECRET);
        write_secret(Path::new(&at("vault.key")), "q3Xk9vB1mZ7tR5nY2wL8pQ==");
        let mut command = binary();
        command.args(["self-signed", "--name", "localhost", "--certificate", &at("tls.pem")]);
        assert!(command.args(["--private-key", &at("tls.key")]).output().unwrap().status.success());

        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples").join(format!("{name}.toml"));
        let text = std::fs::read_to_string(&file).unwrap();
        let (host, port) = (sandbox.smtp_host(), sandbox.smtp_port().to_string());
        let authority = sandbox.authority();
        let mut variables = Vec::new();
        let mut set = |path: &str, value: &str| {
            let path = path.to_uppercase().replace('.', "__");
            variables.push((format!("XOAUTH2_RELAY__{path}"), value.to_owned()));
        };
        for section in text.lines().filter_map(|line| line.strip_prefix('[')?.strip_suffix(']')) {
            match section.split('.').next() {
                Some("listener") => {
                    set(&format!("{section}.address"), "127.0.0.1:0");
                    set(&format!("{section}.proxy_protocol_from"), "127.0.0.1");
                    if key(&text, section, "certificate") {
                        set(&format!("{section}.certificate"), &at("tls.pem"));
                        set(&format!("{section}.private_key"), &at("tls.key"));
                    }
                }
                Some("tenant") => {
                    set(&format!("{section}.client_secret.file"), &at("secret"));
                    set(&format!("{section}.authority"), &authority);
                    set(&format!("{section}.authority_ca_file"), &at("ca.pem"));
                    set(&format!("{section}.smtp.host"), host);
                    set(&format!("{section}.smtp.port"), &port);
                    set(&format!("{section}.smtp.ca_file"), &at("ca.pem"));
                }
                Some("user") => set(&format!("{section}.password_hash"), HASH),
                Some("vault") => set("vault.key.file", &at("vault.key")),
                _ => {}
            }
        }
        // Who stores nothing is given no place for it.
        if !text.contains("delivery = \"direct\"") {
            set("spool.directory", &at("state"));
        }
        set("spool.min_free_bytes", "1 MiB");
        set("http.address", "");
        set("log.format", "json");
        Self { sandbox, directory, file, variables }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = binary();
        command.args(words).arg("--config").arg(&self.file).envs(self.variables.iter().cloned());
        command
    }

    /// Runs it.
    async fn relay(&self) -> Relay {
        Relay::spawn(self.command(&["run"])).await
    }

    /// So many messages that Exchange took, by what they are called; none was denied.
    async fn sent(&self, count: u64) -> Vec<Arc<Message>> {
        let mut sent = self.sandbox.wait_for(count, PATIENCE).await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(self.sandbox.send_as_denials(), []);
        sent.sort_by_key(|message| message.message_id.clone());
        sent
    }

    /// A session of the client at `address`; gives all that it hears after its greeting. With `user` it logs in, by TLS.
    async fn says(&self, relay: &Relay, client: &Client<'_>, commands: &str) -> String {
        let proxy = format!("PROXY TCP4 {} 10.1.0.5 4711 25\r\n", client.address);
        let mut stream = TcpStream::connect(address_of(relay, client.listener)).await.unwrap();
        let Some(user) = client.user else {
            stream.write_all(proxy.as_bytes()).await.unwrap();
            return talk(stream, commands).await;
        };
        stream.write_all(format!("{proxy}EHLO product\r\nSTARTTLS\r\n").as_bytes()).await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        for greeting in ["220 relay01.contoso.com", "220 2.0.0"] {
            while !line.starts_with(greeting) {
                line.clear();
                assert_ne!(timeout(PATIENCE, stream.read_line(&mut line)).await.unwrap().unwrap(), 0, "{greeting}");
            }
        }
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.directory.path().join("tls.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let connector = TlsConnector::from(Arc::new(versions.with_root_certificates(roots).with_no_client_auth()));
        let name = ServerName::try_from("localhost").unwrap();
        let stream = connector.connect(name, stream.into_inner()).await.unwrap();
        let login = STANDARD.encode(format!("\0{user}\0{PASSWORD}"));
        talk(stream, &format!("AUTH PLAIN {login}\r\n{commands}")).await
    }

    /// The client hands over a message that is called `name`; gives what it hears.
    async fn submits(&self, relay: &Relay, client: &Client<'_>, mail: &Mail<'_>) -> String {
        let Mail { sender, to, header, name } = mail;
        let fields: Vec<_> = header.lines().filter(|line| !is_named(line)).collect();
        let recipients = to.join(">\r\nRCPT TO:<");
        let text = format!("{}\r\nMessage-ID: <{name}@product>\r\n\r\nText.", fields.join("\r\n"));
        let envelope = format!("MAIL FROM:<{sender}>\r\nRCPT TO:<{recipients}>\r\n");
        self.says(relay, client, &format!("{envelope}DATA\r\n{text}\r\n.\r\nQUIT\r\n")).await
    }

    /// The same, and it is taken.
    async fn takes(&self, relay: &Relay, client: &Client<'_>, mail: &Mail<'_>) {
        let heard = self.submits(relay, client, mail).await;
        assert!(heard.contains("250 2.0.0 Queued as"), "{}: {heard}", mail.name);
    }
}

fn is_named(line: &str) -> bool {
    line.to_ascii_lowercase().starts_with("message-id:")
}

/// Whether a section has a key.
fn key(text: &str, section: &str, key: &str) -> bool {
    let behind = text.split(&format!("[{section}]\n")).nth(1).unwrap_or_default();
    behind.lines().take_while(|line| !line.starts_with('[')).any(|line| line.split(' ').next() == Some(key))
}

async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, commands: &str) -> String {
    stream.write_all(format!("EHLO product\r\n{commands}").as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    // A reset is an end, too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut heard)).await.unwrap();
    String::from_utf8_lossy(&heard).into_owned()
}

/// Who submits.
struct Client<'a> {
    listener: &'a str,
    /// Its address in the example's network.
    address: &'a str,
    /// Logs in as this one.
    user: Option<&'a str>,
}

/// What is submitted.
struct Mail<'a> {
    sender: &'a str,
    to: &'a [&'a str],
    /// Message-ID is another.
    header: &'a str,
    /// Left side of its Message-ID.
    name: &'a str,
}

/// So many messages that are begun, and no more.
fn begun(count: usize) -> String {
    "MAIL FROM:<anybody@contoso.com>\r\nRSET\r\n".repeat(count) + "QUIT\r\n"
}

/// The header as the device or program of `tests/headers` gives it.
fn given(fixture: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/headers").join(fixture);
    let text = std::fs::read_to_string(file).unwrap();
    text.split("\n== given\n").nth(1).unwrap().split("\n\n").next().unwrap().to_owned()
}

/// A message of an application that has no quirks.
fn plain(from: &str) -> String {
    format!("From: {from}\nTo: {CUSTOMER}\nSubject: hello\nDate: Fri, 20 Nov 2026 10:00:00 +0100")
}

/// A field of a message as Exchange has it.
fn value(message: &Message, name: &str) -> Option<String> {
    let header = split(message).0.replace("\r\n\t", " ").replace("\r\n ", " ");
    header.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned()))
}

/// Tenant contoso, with an application that proves itself by [`SECRET`].
fn contoso(application: impl FnOnce(Application) -> Application) -> TenantModel {
    TenantModel::new(DEFAULT_TENANT_ID, &["contoso.com", "contoso.onmicrosoft.com"])
        .application(application(Application::new(DEFAULT_CLIENT_ID, SECRET)))
}

fn in_scope(address: &str) -> Mailbox {
    Mailbox::new(address).granted(DEFAULT_CLIENT_ID, Grant::Rbac)
}

/// Signs `user` in for a mailbox; `code` takes the code that is shown.
fn signs_in(stage: &Stage, more: &[&str], code: impl FnOnce(&str)) {
    let words = [&["login"], more].concat();
    let mut command = stage.command(&words);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let screen = Log::of(child.stderr.take().unwrap());
    if !more.contains(&"--import") {
        code(screen.wait_for(|line| line.starts_with("  Enter "))["  Enter ".len()..].trim());
    }
    screen.wait_for_end();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", screen.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_right_as_it_stands_and_told_of_in_the_index() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples");
    let index = std::fs::read_to_string(directory.join("README.md")).unwrap();
    let mut count = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = name.strip_suffix(".toml") else { continue };
        assert!(index.contains(&format!("]({name}.toml)")), "{name}");
        let stage = Stage::new(name, vec![contoso(|it| it)]).await;
        // All but the files that it names is looked at as it is; a listener without its certificate could not start.
        let mut command = binary();
        let certificates =
            stage.variables.iter().filter(|(key, _)| key.ends_with("__CERTIFICATE") || key.ends_with("_KEY"));
        command.args(["check", "--json", "--config"]).arg(&stage.file).envs(certificates.cloned());
        let output = command.output().unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(said["mistakes"].is_null() && said["configuration"].is_object(), "{name}: {said}");
        for doubt in said["doubts"].as_array().unwrap() {
            let text = doubt.as_str().unwrap();
            assert!(text.contains("No such file") || text.contains("only under systemd"), "{name}: {text}");
        }
        count += 1;
    }
    assert_eq!(count, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn racm_identity_logs_in_by_its_upn_and_sends_as_an_alias() {
    const UPN: &str = "racm@contoso.onmicrosoft.com";
    let aliases = ["racm@contoso.com", "identity@contoso.com", "access-reviews@contoso.com"];
    let mailbox = Mailbox::new(UPN).granted(DEFAULT_CLIENT_ID, Grant::FullAccess);
    let mailbox = aliases.iter().fold(mailbox, |mailbox, alias| mailbox.alias(alias));
    let tenant = contoso(Application::with_send_as_app).mailbox(mailbox).with_send_from_alias();
    let stage = Stage::new("racm-identity", vec![tenant]).await;
    let relay = stage.relay().await;
    let racm = Client { listener: "lan", address: "10.1.2.10", user: None };
    // As mail.option.sender has it: an alias, another, and the UPN of the vendor's guide.
    for (name, sender) in [("1", aliases[1]), ("2", aliases[2]), ("3", UPN)] {
        let header = plain(&format!("RAC/M Identity <{sender}>"));
        stage.takes(&relay, &racm, &Mail { sender, to: &[CUSTOMER], header: &header, name }).await;
    }
    let sent = stage.sent(3).await;
    let seen: Vec<_> =
        sent.iter().map(|message| (message.reverse_path.as_str(), message.shown_from[0].as_str())).collect();
    assert_eq!(seen, [(aliases[1], aliases[1]), (aliases[2], aliases[2]), (aliases[1], aliases[1])]);
    assert!(sent.iter().all(|message| message.login == UPN));
    let answers: Vec<_> = sent.iter().map(|message| value(message, "Reply-To")).collect();
    assert_eq!(answers, [None, None, Some(format!("RAC/M Identity <{UPN}>"))]);
    // Without the tenant's switch recipients see the primary address.
    stage.sandbox.set_send_from_alias(DEFAULT_TENANT_ID, false).unwrap();
    let header = plain(aliases[1]);
    stage.takes(&relay, &racm, &Mail { sender: aliases[1], to: &[CUSTOMER], header: &header, name: "4" }).await;
    assert_eq!(stage.sent(4).await[3].shown_from, [UPN]);
    let stranger = Client { address: "10.1.2.11", ..racm };
    let heard = stage.submits(&relay, &stranger, &Mail { sender: UPN, to: &[CUSTOMER], header: "", name: "5" }).await;
    assert!(heard.starts_with("554 5.7.1 10.1.2.11 is not in the networks"), "{heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn openfire_sends_as_its_people_by_one_login_and_as_itself_for_others() {
    const LOGIN: &str = "openfire@contoso.com";
    let people = ["jean-michel@contoso.com", "josiane@contoso.com"];
    let mailbox = people.iter().fold(Mailbox::new(LOGIN), |mailbox, other| mailbox.send_as(other));
    let tenant =
        people.iter().fold(contoso(|it| it).mailbox(mailbox), |tenant, other| tenant.mailbox(Mailbox::new(other)));
    let stage = Stage::new("openfire", vec![tenant]).await;
    signs_in(&stage, &["--mailbox", "openfire"], |code| stage.sandbox.approve_device(code, LOGIN).unwrap());
    let relay = stage.relay().await;
    let openfire = Client { listener: "internet", address: "203.0.113.7", user: Some("openfire") };
    let all = [people[0], people[1], "newcomer@contoso.com"];
    for (name, sender) in ["1", "2", "3"].into_iter().zip(all) {
        // Odoo's fields, without its Reply-To for answers to documents.
        let header = given("odoo.txt").replace("noreply+azure@contoso.com", sender);
        let header: Vec<_> = header.lines().filter(|line| !line.starts_with("Reply-To")).collect();
        let mail = Mail { sender, to: &[CUSTOMER], header: &header.join("\n"), name };
        stage.takes(&relay, &openfire, &mail).await;
    }
    let sent = stage.sent(3).await;
    assert!(sent.iter().all(|message| message.login == LOGIN));
    for (message, (from, answers)) in
        sent.iter().zip([(people[0], None), (people[1], None), (LOGIN, Some("Azure Interior <newcomer@contoso.com>"))])
    {
        assert_eq!((message.reverse_path.as_str(), message.shown_from[0].as_str()), (from, from));
        assert_eq!(value(message, "From"), Some(format!("\"Azure Interior\" <{from}>")));
        let reply_to = value(message, "Reply-To").map(|value| value.replace('"', ""));
        assert_eq!(reply_to.as_deref(), answers);
    }
    // Who knows the password sends as nobody outside, and who does not sends nothing.
    let outside = plain("boss@example.com");
    let mail = Mail { sender: people[0], to: &[CUSTOMER], header: &outside, name: "4" };
    let heard = stage.submits(&relay, &openfire, &mail).await;
    assert!(heard.contains("550 5.7.1 User openfire may not send as boss@example.com (From field)"), "{heard}");
    let heard = stage.submits(&relay, &Client { user: None, ..openfire }, &mail).await;
    assert!(heard.contains("530 5.7.0") && !heard.contains("AUTH"), "{heard}");
    for is_over in [false, true] {
        let heard = stage.says(&relay, &openfire, &begun(30)).await;
        assert_eq!(heard.contains("450 4.7.1 User openfire may send 60 messages a minute"), is_over, "{heard}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn aem_forms_sends_by_the_sign_in_that_it_had_and_hears_of_a_wrong_sender() {
    const LOGIN: &str = "forms@contoso.com";
    let tenant = contoso(|it| it).mailbox(Mailbox::new(LOGIN).send_as("noreply@contoso.com"));
    let stage = Stage::new("aem-forms", vec![tenant]).await;
    let token = stage.directory.path().join("refresh-token");
    write_secret(&token, &stage.sandbox.issue_refresh_token(DEFAULT_CLIENT_ID, LOGIN).unwrap());
    signs_in(&stage, &["--mailbox", "forms", "--import", token.to_str().unwrap()], |_| ());
    let relay = stage.relay().await;
    let aem = Client { listener: "lan", address: "10.1.2.30", user: None };
    let header = given("aem-forms.txt");
    for (name, from) in [("1", LOGIN), ("2", "noreply@contoso.com")] {
        let header = header.replace("forms@contoso.example", from);
        stage.takes(&relay, &aem, &Mail { sender: from, to: &[CUSTOMER], header: &header, name }).await;
    }
    let sent = stage.sent(2).await;
    let seen: Vec<_> = sent.iter().map(|message| (message.login.as_str(), message.shown_from[0].as_str())).collect();
    assert_eq!(seen, [(LOGIN, LOGIN), (LOGIN, "noreply@contoso.com")]);
    assert!(sent.iter().all(|message| value(message, "Reply-To").is_none()));
    for (sender, place) in [(LOGIN, "the From field"), ("forms@contoso.example", "MAIL FROM")] {
        let heard = stage.submits(&relay, &aem, &Mail { sender, to: &[CUSTOMER], header: &header, name: "3" }).await;
        let refusal = format!("550 5.7.1 Mail as forms@contoso.example is not taken here ({place})");
        assert!(heard.contains(&refusal), "{heard}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn docuware_sends_as_its_mailbox_and_answers_go_to_the_user() {
    let mailbox = Mailbox::new("invoices@contoso.com").granted(DEFAULT_CLIENT_ID, Grant::FullAccess);
    let stage = Stage::new("docuware", vec![contoso(Application::with_send_as_app).mailbox(mailbox)]).await;
    let relay = stage.relay().await;
    let docuware = Client { listener: "lan", address: "10.1.2.20", user: None };
    let own = plain("Invoices <invoices@contoso.com>");
    let mail = Mail { sender: "invoices@contoso.com", to: &[CUSTOMER], header: &own, name: "1" };
    stage.takes(&relay, &docuware, &mail).await;
    let mail = Mail { sender: "a.user@contoso.com", to: &[CUSTOMER], header: &given("docuware.txt"), name: "2" };
    stage.takes(&relay, &docuware, &mail).await;
    let sent = stage.sent(2).await;
    for message in &sent {
        assert_eq!(
            (message.login.as_str(), message.reverse_path.as_str()),
            ("invoices@contoso.com", "invoices@contoso.com")
        );
        assert_eq!(message.shown_from, ["invoices@contoso.com"]);
    }
    assert_eq!(value(&sent[0], "Reply-To"), None);
    assert_eq!(value(&sent[1], "From").as_deref(), Some("\"User, A.\" <invoices@contoso.com>"));
    assert_eq!(value(&sent[1], "Reply-To").as_deref(), Some("\"User, A.\" <a.user@contoso.com>"));
    assert_eq!(value(&sent[1], "Sender"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_stores_nothing_and_its_service_hears_exchange() {
    let stage = Stage::new("sidecar", vec![contoso(|it| it).mailbox(in_scope("orders@contoso.com"))]).await;
    let relay = stage.relay().await;
    let service = Client { listener: "app", address: "127.0.0.1", user: None };
    let from = "From: Orders <orders@contoso.com>";
    let mail = |name, sender| Mail { sender, to: &[CUSTOMER], header: from, name };
    let heard = stage.submits(&relay, &service, &mail("1", "orders@contoso.com")).await;
    assert!(heard.contains("250 2.0.0 OK <1@product> [Hostname="), "{heard}");
    let sent = stage.sent(1).await;
    assert_eq!((sent[0].login.as_str(), sent[0].reverse_path.as_str()), ("orders@contoso.com", "orders@contoso.com"));
    assert_eq!(std::fs::read_dir(stage.directory.path().join("state")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn printers_send_as_the_scanner_whatever_they_call_themselves_to_our_own_people() {
    const LOGIN: &str = "scanner@contoso.com";
    let stage = Stage::new("printers", vec![contoso(|it| it).mailbox(in_scope(LOGIN))]).await;
    let relay = stage.relay().await;
    let copier = Client { listener: "printers", address: "10.1.20.7", user: None };
    let header = given("konica-minolta.txt");
    let mail = |name| Mail { sender: "km@contoso.local", to: &["someone@contoso.com"], header: &header, name };
    stage.takes(&relay, &copier, &mail("1")).await;
    // One that insists on a login, in clear.
    let login = STANDARD.encode("\0admin\0whatever");
    let fax = Client { listener: "insisting", address: "10.1.21.9", user: None };
    let commands = format!(
        "AUTH PLAIN {login}\r\nMAIL FROM:<fax>\r\nRCPT TO:<someone@contoso.com>\r\nDATA\r\nMessage-ID: <2@product>\r\n\r\nx\r\n.\r\nQUIT\r\n"
    );
    let heard = stage.says(&relay, &fax, &commands).await;
    assert!(heard.contains("235 2.7.0") && heard.contains("250 2.0.0 Queued as"), "{heard}");
    let sent = stage.sent(2).await;
    for message in &sent {
        assert_eq!((message.login.as_str(), message.reverse_path.as_str()), (LOGIN, LOGIN));
        assert_eq!(message.shown_from, [LOGIN]);
    }
    assert_eq!(value(&sent[0], "From").as_deref(), Some("\"KONICA [2nd floor]\" <scanner@contoso.com>"));
    assert_eq!(value(&sent[0], "Reply-To").as_deref(), Some("\"KONICA [2nd floor]\" <km@contoso.local>"));
    let heard = stage.submits(&relay, &copier, &Mail { to: &[CUSTOMER], ..mail("3") }).await;
    assert!(heard.contains(&format!("550 5.7.1 Mail to {CUSTOMER} is not allowed from here")), "{heard}");
    // A device that is stuck is asked to come back at its eleventh message; another one is not.
    let stuck = Client { address: "10.1.20.8", ..copier };
    let heard = stage.says(&relay, &stuck, &begun(11)).await;
    assert_eq!(heard.matches("450 4.7.1 Client 10.1.20.8 may send 10 messages a minute").count(), 1, "{heard}");
    stage.takes(&relay, &copier, &mail("4")).await;
    // All devices together have a limit, too.
    for address in ["10.1.20.10", "10.1.20.11"] {
        let heard = stage.says(&relay, &Client { address, ..copier }, &begun(10)).await;
        let told = heard.contains("450 4.7.1 All clients of this listener together may send 25 messages a minute");
        assert_eq!(told, address == "10.1.20.11", "{heard}");
    }
    // No scanner reads a bounce.
    let gone = Mail { sender: "fax@contoso.local", to: &["unknown@contoso.com"], header: &header, name: "5" };
    stage.takes(&relay, &Client { listener: "insisting", ..copier }, &gone).await;
    let sent = stage.sent(4).await;
    let told = sent.iter().filter(|message| message.recipients[0].address == "postmaster@contoso.com");
    assert_eq!(told.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_applications_each_find_their_tenant_and_mailbox() {
    let erp = |name: &str| in_scope(name).send_as("invoices@contoso.com").send_as("orders@contoso.com");
    let tenants = vec![
        contoso(|it| it)
            .mailbox(erp("erp1@contoso.com"))
            .mailbox(erp("erp2@contoso.com"))
            .mailbox(in_scope("monitoring@contoso.com")),
        TenantModel::new(FABRIKAM.0, &["fabrikam.com"]).application(Application::new(FABRIKAM.1, SECRET)).mailbox(
            Mailbox::new("office@fabrikam.com").granted(FABRIKAM.1, Grant::Rbac).send_as("sales@fabrikam.com"),
        ),
    ];
    let stage = Stage::new("many-apps", tenants).await;
    let relay = stage.relay().await;
    let lan = |address| Client { listener: "lan", address, user: None };
    let erp = || Client { user: Some("erp"), ..lan("10.1.2.40") };
    let mails = [
        // The test system, which says that it is the ERP.
        ("1", lan("10.1.99.3"), "invoices@contoso.com", "monitoring@contoso.com", "testers@contoso.com"),
        ("2", lan("10.1.3.3"), "sales@fabrikam.local", "sales@fabrikam.com", CUSTOMER),
        ("3", lan("10.1.3.3"), "sales@fabrikam.com", "sales@fabrikam.com", CUSTOMER),
        ("4", lan("10.1.3.3"), "intern@fabrikam.com", "office@fabrikam.com", CUSTOMER),
        ("5", erp(), "orders@contoso.com", "orders@contoso.com", CUSTOMER),
        ("6", erp(), "invoices@contoso.com", "invoices@contoso.com", CUSTOMER),
        ("7", lan("10.1.5.9"), "root@nagios01", "monitoring@contoso.com", CUSTOMER),
        ("8", lan("10.1.5.9"), "hypervisor@rack7", "monitoring@contoso.com", CUSTOMER),
    ];
    for (name, client, sender, ..) in &mails {
        stage.takes(&relay, client, &Mail { sender, to: &[CUSTOMER], header: &plain(sender), name }).await;
    }
    let sent = stage.sent(8).await;
    for (message, (name, .., from, to)) in sent.iter().zip(&mails) {
        let seen =
            (message.reverse_path.as_str(), message.shown_from[0].as_str(), message.recipients[0].address.as_str());
        assert_eq!(seen, (*from, *from, *to), "{name}");
    }
    let by: Vec<_> = sent.iter().map(|message| message.login.trim_end_matches(".com")).collect();
    assert_eq!(by[..4], ["monitoring@contoso", "office@fabrikam", "office@fabrikam", "office@fabrikam"]);
    assert!(by[4..6].iter().all(|login| login.starts_with("erp")), "{by:?}");
    assert_eq!(by[6..], ["monitoring@contoso"; 2]);
    // A mapped sender has no other address to answer to; a rewritten one has.
    assert_eq!(value(&sent[6], "Reply-To"), None);
    assert_eq!(value(&sent[7], "Reply-To").as_deref(), Some("hypervisor@rack7"));
    let refused = [
        (lan("10.1.3.3"), "invoices@contoso.com", CUSTOMER, "550 5.7.1 No route takes this mail from here"),
        (lan("10.1.5.9"), "root@nagios01", "all@contoso.com", "550 5.7.1 Mail to all@contoso.com is not allowed"),
        (erp(), "boss@contoso.com", CUSTOMER, "550 5.7.1 User erp may not send as boss@contoso.com (MAIL FROM)"),
    ];
    for (client, sender, to, refusal) in refused {
        let mail = Mail { sender, to: &[to], header: &plain(sender), name: "9" };
        let heard = stage.submits(&relay, &client, &mail).await;
        assert!(heard.contains(refusal), "{heard}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_sends_by_the_own_mailbox_and_who_has_none_by_the_fallback() {
    let tenant = ["anna@contoso.com", "bob@contoso.com", "crm@contoso.com"].into_iter();
    let tenant = tenant.fold(contoso(|it| it), |tenant, address| tenant.mailbox(in_scope(address)));
    let stage = Stage::new("own-mailboxes", vec![tenant]).await;
    let relay = stage.relay().await;
    let crm = Client { listener: "lan", address: "10.1.2.40", user: Some("crm") };
    for (name, sender) in [("1", "anna@contoso.com"), ("2", "Bob@contoso.com"), ("3", "support@contoso.com")] {
        let header = plain(&format!("Who Clicks <{sender}>"));
        stage.takes(&relay, &crm, &Mail { sender, to: &[CUSTOMER], header: &header, name }).await;
    }
    let sent = stage.sent(3).await;
    let by: Vec<_> = sent.iter().map(|message| message.login.to_ascii_lowercase()).collect();
    assert_eq!(by, ["anna@contoso.com", "bob@contoso.com", "crm@contoso.com"]);
    assert_eq!(sent[0].shown_from, ["anna@contoso.com"]);
    assert_eq!(value(&sent[0], "Reply-To"), None);
    // There is no mailbox of that name.
    assert_eq!(value(&sent[2], "From").as_deref(), Some("Who Clicks <crm@contoso.com>"));
    assert_eq!(value(&sent[2], "Reply-To").as_deref(), Some("Who Clicks <support@contoso.com>"));
    let header = plain("boss@example.com");
    let mail = Mail { sender: "anna@contoso.com", to: &[CUSTOMER], header: &header, name: "4" };
    let heard = stage.submits(&relay, &crm, &mail).await;
    assert!(heard.contains("550 5.7.1 User crm may not send as boss@example.com (From field)"), "{heard}");
    for is_over in [false, false, true] {
        let heard = stage.says(&relay, &crm, &begun(40)).await;
        assert_eq!(heard.contains("450 4.7.1 User crm may send 120 messages a minute"), is_over, "{heard}");
    }
}
