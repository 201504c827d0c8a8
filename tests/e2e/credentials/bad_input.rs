//! What stands in the place of a credential and is none: at the start and while the relay runs. It is told once with tenant, key
//! and file, mail is taken and held, and everything goes on when the file is mended.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sandbox::DEFAULT_SECRET;

use super::certificates::{ELLIPTIC, FIRST, KeyForm, SECOND, short};
use super::{Kind, Run, change_application, each, log_line, register, replace, status, submit};
use crate::harness::{PATIENCE, Relay, World, binary, field, skip, until, write_secret};

const SECRET: Kind = Kind::SecretInFile;
const CERTIFICATE: Kind = Kind::CERTIFICATE;
const FEDERATED: Kind = Kind::FederatedToken;

/// A file in the place of another.
struct Case {
    kind: Kind,
    /// What is wrong, in the file of this name.
    file: &'static str,
    content: Content,
    /// The key that names it.
    key: &'static str,
    said: &'static str,
}

#[derive(Clone)]
enum Content {
    Missing,
    Text(String),
    Octets(Vec<u8>),
    /// Certificate and key in each other's place.
    Swapped,
}

impl Content {
    fn write(&self, world: &World, file: &str) {
        let path = world.path(file);
        match self {
            Self::Missing => std::fs::remove_file(path).unwrap(),
            Self::Text(text) => write_secret(&path, text),
            Self::Octets(octets) => {
                write_secret(&path, "");
                std::fs::write(path, octets).unwrap();
            }
            Self::Swapped => {
                write_secret(&world.path("cert.pem"), &FIRST.key);
                write_secret(&world.path("key.pem"), &FIRST.certificate);
            }
        }
    }
}

fn utf_16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn cases() -> Vec<Case> {
    use Content::{Missing, Octets, Swapped, Text};
    let text = |text: &str| Text(text.to_owned());
    let secret = |content, said| Case { kind: SECRET, file: "secret", content, key: "client_secret", said };
    let certificate = |content, said| {
        let key = "certificate_credential.certificate";
        Case { kind: CERTIFICATE, file: "cert.pem", content, key, said }
    };
    let key = |content, said| {
        let key = "certificate_credential.key";
        Case { kind: CERTIFICATE, file: "key.pem", content, key, said }
    };
    let token = |content, said| Case { kind: FEDERATED, file: "token", content, key: "federated_token", said };
    let with_mark = [&[0xff, 0xfe][..], &utf_16(DEFAULT_SECRET)].concat();
    let encrypted = FIRST.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    vec![
        secret(Missing, "No such file"),
        secret(text(""), "the secret is empty"),
        secret(text("\n"), "the secret is empty"),
        secret(Text(format!("{DEFAULT_SECRET}\n{DEFAULT_SECRET}\n")), "it must be one line of plain text"),
        secret(Octets(with_mark), "it is no text"),
        secret(Octets(utf_16(DEFAULT_SECRET)), "it must be one line of plain text"),
        secret(Text("x".repeat(70_000)), "longer than any secret"),
        certificate(Missing, "No such file"),
        certificate(text("hello"), "there is no certificate in it: in PEM it begins with -----BEGIN CERTIFICATE-----"),
        certificate(Octets(FIRST.der.clone()), "from DER: openssl x509 -inform DER"),
        certificate(Text(short()), "the RSA key of the certificate has 1024 bits"),
        certificate(Text(ELLIPTIC.certificate.clone()), "the certificate is of an EC key"),
        certificate(Swapped, "it holds a private key; are certificate and key swapped?"),
        key(text(""), "there is no private key in it: it is empty"),
        key(Text(ELLIPTIC.key.clone()), "the private key is of an EC key"),
        key(Text(encrypted), "the private key is encrypted"),
        key(Text(SECOND.key.clone()), "the private key does not belong to the certificate"),
        token(Missing, "No such file"),
        token(text("eyJ\neyJ"), "it must be one line of plain text"),
    ]
}

fn mend(kind: Kind, world: &World) {
    match kind {
        Kind::Certificate(_, form) => FIRST.write(world, form),
        Kind::FederatedToken => write_secret(&world.path("token"), &super::workload_token(world)),
        _ => write_secret(&world.path("secret"), DEFAULT_SECRET),
    }
}

/// Whether a text names the key and its file.
fn names(text: &str, key: &str, path: &Path) -> bool {
    text.contains(&format!("file {} (tenant.contoso.{key})", path.display()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_relay_starts_says_what_is_wrong_holds_mail_and_goes_on_when_it_is_mended() {
    each(cases(), |case| async move { drive(&case).await }).await;
}

async fn drive(Case { kind, file, content, key, said }: &Case) {
    let world = kind.world().await;
    content.write(&world, file);
    let relay = kind.relay(&world).await;
    submit(relay.address, "one").await;
    let line = log_line(&relay, |line| line.contains("token request failed")).await;
    let failure = field(&line, "failure");
    assert!(failure.starts_with("credential: ") && failure.contains(said), "{said}: {line}");
    assert!(names(&failure, key, &world.path(file)) && field(&line, "tenant") == "contoso", "{line}");
    assert!(names(&field(&line, "advice"), key, &world.path(file)), "{line}");
    log_line(&relay, |line| line.contains("lane waits for a token")).await;
    let shown = status(&world).await;
    let told = &shown["tokens"][0]["last_failure"];
    assert!(told["class"] == "credential" && told["text"].as_str().unwrap().contains(said), "{shown}");
    let counters = world.sandbox.counters();
    assert_eq!((counters.token_requests, counters.messages), (0, 0), "{said}: nobody is asked with that");
    mend(*kind, &world);
    world.wait_for(1).await;
    assert!(until(PATIENCE, || world.count("SELECT count(*) FROM delivery") == Some(0)).await, "{said}");
    let log = relay.terminate().await.1;
    assert_eq!(log.lines().filter(|line| line.contains("token request failed\"")).count(), 1, "{said}: {log}");
    assert_eq!(world.sandbox.counters().token_requests, 1, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_is_not_set_is_told_with_its_name() {
    for (kind, place, said) in [
        (Kind::SecretInVariable, "environment variable CONTOSO_SECRET", "environment variable not found"),
        (
            Kind::SecretOfSystemd,
            "systemd credential contoso",
            "$CREDENTIALS_DIRECTORY is not set; is this run by systemd",
        ),
    ] {
        let world = kind.world().await;
        let mut command = kind.command(&world);
        command.env_remove("CONTOSO_SECRET").env_remove("CREDENTIALS_DIRECTORY");
        let relay = Relay::spawn(command).await;
        submit(relay.address, "one").await;
        let line = log_line(&relay, |line| line.contains("token request failed")).await;
        let (failure, advice) = (field(&line, "failure"), field(&line, "advice"));
        assert!(failure.starts_with("credential: ") && failure.contains(said), "{line}");
        let place = format!("{place} (tenant.contoso.client_secret)");
        assert!(failure.contains(&place) && advice.contains(&place), "{line}");
        assert_eq!(relay.terminate().await.0.code(), Some(0));
        assert_eq!(world.sandbox.counters().token_requests, 0, "nobody is asked");
        let relay = kind.relay(&world).await;
        world.wait_for(1).await;
        relay.terminate().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_memory_that_all_in_the_container_can_read_is_as_docker_gives_it() {
    // tmpfs(5) by statfs(2), as f_type is written by stat(1).
    let kind = std::process::Command::new("stat").args(["-f", "-c", "%t", "/dev/shm"]).output();
    if !kind.is_ok_and(|kind| kind.stdout.starts_with(b"1021994")) {
        return skip("/dev/shm is not in memory");
    }
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let file = directory.path().join("contoso");
    write_secret(&file, &format!("{DEFAULT_SECRET}\n"));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o444)).unwrap();
    let world =
        SECRET.world().await.proved_by(format!("client_secret = {{ file = {:?} }}", file.display().to_string()));
    let run = Run::begin(SECRET, world, 1).await;
    submit(run.relay.address, "one").await;
    run.world.wait_for(1).await;
    assert!(until(PATIENCE, || run.world.count("SELECT count(*) FROM delivery") == Some(0)).await);
    let log = run.end().await;
    assert_eq!(super::warnings(&log), 0, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_runs_what_is_no_secret_leaves_the_old_one_in_use() {
    let mut run = Run::begin(SECRET, SECRET.world().await, 4).await;
    for content in [Content::Octets(utf_16(DEFAULT_SECRET)), Content::Missing] {
        content.write(&run.world, "secret");
        run.send_with_another_token().await;
    }
    let new = "new8Q~The.Second-One_Of~The.Sandbox";
    change_application(&run.world, |application| application.secrets = vec![new.to_owned()]);
    replace(&run.world.path("secret"), new);
    run.send_with_another_token().await;
    log_line(&run.relay, |line| line.contains("the new client secret brought a token")).await;
    let log = run.end().await;
    // It is told when it lasts until the next look.
    assert_eq!(super::warnings(&log), 0, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_runs_what_is_no_certificate_leaves_the_old_one_in_use() {
    let mut run = Run::begin(CERTIFICATE, CERTIFICATE.world().await, 4).await;
    for content in [Content::Text(ELLIPTIC.key.clone()), Content::Swapped] {
        content.write(&run.world, "key.pem");
        run.send_with_another_token().await;
    }
    register(&run.world, &[&SECOND]);
    SECOND.write(&run.world, KeyForm::Pkcs1);
    run.send_with_another_token().await;
    log_line(&run.relay, |line| line.contains("the new certificate brought a token")).await;
    let log = run.end().await;
    assert_eq!(super::warnings(&log), 0, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_others_get_at_while_the_relay_runs_is_told_once_and_used() {
    let mut run = Run::begin(SECRET, SECRET.world().await, 4).await;
    run.send().await;
    // Writable too: where temporary files are in memory, what all can read may be a container's.
    let open = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(run.world.path("secret"), open).unwrap();
    for _ in 0..2 {
        run.send_with_another_token().await;
    }
    let is_it = |line: &str| line.contains("\"WARN\"") && line.contains("a secret is not its owner's alone");
    let line = log_line(&run.relay, is_it).await;
    assert!(line.contains("tenant.contoso.client_secret") && line.contains("chmod 600"), "{line}");
    let log = run.end().await;
    assert_eq!(super::warnings(&log), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_doubts_no_good_credential_and_every_bad_one() {
    let complaint = |world: &World| {
        let output = binary().args(["check", "--config"]).arg(world.configuration()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for kind in [SECRET, CERTIFICATE, Kind::Certificate("RS256", KeyForm::Pkcs1), FEDERATED, Kind::MANAGED_IDENTITY] {
        assert_eq!(complaint(&kind.world().await), "", "{kind:?}");
    }
    for Case { kind, file, content, key, said } in cases() {
        let world = kind.world().await;
        content.write(&world, file);
        let complaint = complaint(&world);
        assert!(complaint.contains("warning: tenant.contoso.") && complaint.contains(said), "{said}: {complaint}");
        // Where the line begins with the key, it is not said again.
        let begins = format!("tenant.contoso.{key}: file {} ", world.path(file).display());
        assert!(names(&complaint, key, &world.path(file)) || complaint.contains(&begins), "{complaint}");
    }
}
