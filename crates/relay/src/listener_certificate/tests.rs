//! Certificates in use: what handshakes get before and after their files change, and what is said.

use std::fs;
use std::os::unix::fs::symlink;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};
use tempfile::TempDir;

use super::*;

const NOON: &str = "2026-06-01T12:00:00Z";

fn at(text: &str) -> WallTime {
    WallTime::parse_rfc3339(text).unwrap()
}

/// A certificate for one name, good for longer than these tests, with its key, in PEM.
fn made(name: &str) -> (String, String) {
    made_for(name, 2020, 2999)
}

/// The same from the first day of a year to that of another.
fn made_for(name: &str, from: i32, to: i32) -> (String, String) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// What a look that tells of it says why the files are not in use.
fn told(look: &Look, word: Word) -> &CertificateError {
    assert!(matches!(look.change, Change::Kept(other) if other == word), "{look:?}");
    look.kept.as_deref().unwrap()
}

/// Two files in a directory.
struct Files {
    directory: TempDir,
}

impl Files {
    fn new((certificate, key): &(String, String)) -> Self {
        let files = Self { directory: TempDir::new().unwrap() };
        files.put("tls.pem", certificate);
        files.put("tls.key", key);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// By a rename, as tools that renew do: each file is new, so no two looks can take one for the other.
    fn put(&self, name: &str, text: &str) {
        fs::write(self.path("new"), text).unwrap();
        fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    fn load(&self) -> Arc<ListenerCertificate> {
        ListenerCertificate::load(&self.path("tls.pem"), &self.path("tls.key")).unwrap()
    }
}

/// A handshake in memory with a client that trusts `trusted` and calls the server `name`; both ends, or what the client says.
fn handshake(
    server: &Arc<ServerConfig>,
    trusted: &str,
    name: &str,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    use rustls::pki_types::pem::PemObject;
    let mut roots = RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut octets = Vec::new();
        client.write_tls(&mut octets).unwrap();
        server.read_tls(&mut octets.as_slice()).unwrap();
        server.process_new_packets()?;
        octets.clear();
        server.write_tls(&mut octets).unwrap();
        client.read_tls(&mut octets.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok((client, server))
}

#[test]
fn a_new_pair_is_in_use_at_the_next_handshake_and_sessions_go_on() {
    let (old, new) = (made("relay01"), made("relay01"));
    let files = Files::new(&old);
    let certificate = files.load();
    let config = certificate.server_config();
    let now = at(NOON);
    let (mut client, mut server) = handshake(&config, &old.0, "relay01").unwrap();
    assert!(handshake(&config, &new.0, "relay01").is_err());
    assert!(matches!(certificate.look(now).change, Change::None));

    files.put("tls.pem", &new.0);
    // Half-way: told once, and the old one serves.
    assert!(matches!(told(&certificate.look(now), Word::First), CertificateError::Mismatch { .. }));
    assert!(matches!(certificate.look(now).change, Change::None));
    handshake(&config, &old.0, "relay01").unwrap();
    files.put("tls.key", &new.1);
    assert!(matches!(certificate.look(now).change, Change::Reloaded));
    assert!(matches!(certificate.look(now).change, Change::None));
    handshake(&config, &new.0, "relay01").unwrap();
    assert!(handshake(&config, &old.0, "relay01").is_err());

    // The session of before.
    std::io::Write::write_all(&mut client.writer(), b"QUIT\r\n").unwrap();
    let mut octets = Vec::new();
    client.write_tls(&mut octets).unwrap();
    server.read_tls(&mut octets.as_slice()).unwrap();
    server.process_new_packets().unwrap();
    let mut read = [0; 16];
    assert_eq!(std::io::Read::read(&mut server.reader(), &mut read).unwrap(), 6);
}

#[test]
fn files_that_go_away_or_break_leave_the_old_one_in_use_and_come_back() {
    let (old, new) = (made("relay01"), made("relay01"));
    let files = Files::new(&old);
    let certificate = files.load();
    let config = certificate.server_config();
    let now = at(NOON);
    fs::remove_file(files.path("tls.key")).unwrap();
    assert!(matches!(told(&certificate.look(now), Word::First), CertificateError::Unreadable { .. }));
    assert!(matches!(certificate.look(now).change, Change::None));
    files.put("tls.pem", &old.0[..100]);
    assert!(matches!(told(&certificate.look(now), Word::First), CertificateError::Broken { .. }));
    handshake(&config, &old.0, "relay01").unwrap();
    files.put("tls.pem", &old.0);
    files.put("tls.key", &old.1);
    assert!(matches!(certificate.look(now).change, Change::Same));
    files.put("tls.key", &new.1);
    files.put("tls.pem", &new.0);
    assert!(matches!(certificate.look(now).change, Change::Reloaded));
}

/// With every descriptor in use, reading fails though nothing is wrong with the files, and they do not change again.
#[test]
fn a_renewal_that_could_not_be_read_is_taken_up_once_it_can_be() {
    let (old, new) = (made("relay01"), made("relay01"));
    let files = Files::new(&old);
    let certificate = files.load();
    files.put("tls.pem", &new.0);
    files.put("tls.key", &new.1);
    let full = |role| {
        let source = rustix::io::Errno::MFILE.into();
        Err(CertificateError::Unreadable { role, path: files.path("tls.pem"), user: 0, source })
    };
    let now = at(NOON);
    let said = told(&certificate.look_by(now, || full(Role::Certificate)), Word::First).to_string();
    assert!(said.contains("LimitNOFILE=") && !said.contains("right file"), "{said}");
    // Told once for each cause, whichever comes.
    assert!(matches!(certificate.look_by(now, || full(Role::Certificate)).change, Change::None));
    told(&certificate.look_by(now, || full(Role::PrivateKey)), Word::First);
    assert!(matches!(certificate.look_by(now, || full(Role::Certificate)).change, Change::None));
    let later = now + Duration::from_hours(24);
    told(&certificate.look_by(later, || full(Role::Certificate)), Word::Again);
    let look = certificate.look(later);
    assert!(matches!(look.change, Change::Reloaded) && look.kept.is_none(), "{look:?}");
    handshake(&certificate.server_config(), &new.0, "relay01").unwrap();
    // And it is not read again for nothing.
    let look = certificate.look_by(later, || panic!("nothing changed"));
    assert!(matches!(look.change, Change::None));
}

#[test]
fn a_renewal_left_half_way_is_told_daily_and_with_the_dates() {
    let (old, new) = (made_for("relay01", 2026, 2027), made("relay01"));
    let files = Files::new(&old);
    let certificate = files.load();
    files.put("tls.pem", &new.0);
    let fits_not = |error: &CertificateError| matches!(error, CertificateError::Mismatch { .. });
    assert!(fits_not(told(&certificate.look(at(NOON)), Word::First)));
    assert!(matches!(certificate.look(at("2026-06-02T11:59:59Z")).change, Change::None));
    assert!(fits_not(told(&certificate.look(at("2026-06-02T12:00:00Z")), Word::Again)));
    let look = certificate.look(at("2026-06-02T12:00:05Z"));
    assert!(matches!(look.change, Change::None) && look.kept.as_deref().is_some_and(fits_not));
    // Whoever is told of the end is told that the renewal is what failed.
    let look = certificate.look(at("2027-01-02T00:00:00Z"));
    assert!(look.notice == Some(Validity::Expired) && look.kept.as_deref().is_some_and(fits_not));
    files.put("tls.key", &new.1);
    let look = certificate.look(at("2027-01-02T00:00:05Z"));
    assert!(matches!(look.change, Change::Reloaded) && look.kept.is_none() && look.notice.is_none(), "{look:?}");
}

#[test]
fn a_key_that_others_can_reach_is_used_and_told_at_once_and_daily() {
    let (old, new) = (made("relay01"), made("relay01"));
    let files = Files::new(&old);
    let rights = |mode| {
        let rights = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(files.path("tls.key"), rights).unwrap();
    };
    rights(0o600);
    let certificate = files.load();
    assert_eq!(certificate.look(at(NOON)).exposed, None);
    files.put("tls.pem", &new.0);
    files.put("tls.key", &new.1);
    // By its group: wrong on every file system.
    rights(0o620);
    let look = certificate.look(at(NOON));
    assert!(matches!(look.change, Change::Reloaded), "{look:?}");
    let said = look.exposed.unwrap();
    let key = files.path("tls.key");
    assert_eq!(Some(&said), crate::config::exposure(&key).as_ref());
    assert!(said.contains(&format!("chmod 600 {}", key.display())), "{said}");
    assert_eq!(certificate.look(at("2026-06-02T11:59:59Z")).exposed, None);
    assert_eq!(certificate.look(at("2026-06-02T12:00:00Z")).exposed, Some(said));
    rights(0o600);
    let look = certificate.look(at("2026-06-09T12:00:00Z"));
    assert!(look.exposed.is_none() && matches!(look.change, Change::Same), "{look:?}");
    rights(0o620);
    assert!(certificate.look(at("2026-06-09T12:00:05Z")).exposed.is_some());
}

/// Kubernetes: `tls.crt` leads over `..data` into a directory, and a renewal turns `..data` elsewhere.
#[test]
fn a_link_that_is_turned_elsewhere_is_seen() {
    let (old, new) = (made("relay01"), made("relay01"));
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    for (version, pair) in [("v1", &old), ("v2", &new)] {
        fs::create_dir(path(version)).unwrap();
        fs::write(path(version).join("tls.crt"), &pair.0).unwrap();
        fs::write(path(version).join("tls.key"), &pair.1).unwrap();
    }
    symlink("v1", path("..data")).unwrap();
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), path(name)).unwrap();
    }
    let certificate = ListenerCertificate::load(&path("tls.crt"), &path("tls.key")).unwrap();
    symlink("v2", path("..data_tmp")).unwrap();
    fs::rename(path("..data_tmp"), path("..data")).unwrap();
    assert!(matches!(certificate.look(at(NOON)).change, Change::Reloaded));
    handshake(&certificate.server_config(), &new.0, "relay01").unwrap();
}

#[test]
fn files_that_are_written_in_place_are_seen() {
    let (old, new) = (made("relay01"), made("other.example.com"));
    let files = Files::new(&old);
    let certificate = files.load();
    fs::write(files.path("tls.pem"), &new.0).unwrap();
    fs::write(files.path("tls.key"), &new.1).unwrap();
    assert!(matches!(certificate.look(at(NOON)).change, Change::Reloaded));
    assert_eq!(certificate.facts().names, ["other.example.com"]);
}

#[test]
fn dates_are_told_once_and_anew_after_a_reload() {
    let pair = made_for("relay01", 2026, 2027);
    let files = Files::new(&pair);
    let certificate = files.load();
    let notice = |now: &str| certificate.look(at(now)).notice;
    assert_eq!(notice(NOON), None);
    let week = Validity::EndsWithin(Duration::from_hours(7 * 24));
    assert_eq!(notice("2026-12-28T00:00:00Z"), Some(week));
    assert_eq!(notice("2026-12-28T00:00:05Z"), None);
    assert_eq!(notice("2027-01-02T00:00:00Z"), Some(Validity::Expired));
    assert_eq!(notice("2027-01-02T00:00:05Z"), None);
    assert_eq!(notice("2027-01-03T00:00:00Z"), Some(Validity::Expired));
    let other = made_for("relay01", 2026, 2027);
    files.put("tls.pem", &other.0);
    files.put("tls.key", &other.1);
    assert_eq!(notice("2027-01-03T00:00:05Z"), Some(Validity::Expired));
}

#[test]
fn what_has_expired_is_served_all_the_same() {
    let pair = made_for("relay01", 2020, 2021);
    let config = Files::new(&pair).load().server_config();
    let said = handshake(&config, &pair.0, "relay01").map(drop).unwrap_err().to_string();
    assert!(said.contains("expired"), "it reached the client, which looked at it: {said}");
}

#[test]
fn what_is_said_of_dates() {
    let facts = Facts {
        subject: String::new(),
        names: Vec::new(),
        not_before: at("2026-01-01T00:00:00Z"),
        not_after: at("2027-01-01T00:00:00Z"),
    };
    for (now, said) in [
        (NOON, None),
        ("2025-01-01T00:00:00Z", Some("is this machine's clock right?")),
        ("2026-12-03T00:00:00Z", Some("expires in 29 days, at 2027-01-01T00:00:00.000Z; renew it")),
        ("2026-12-30T12:00:00Z", Some("expires in 36 hours,")),
        ("2027-01-01T00:00:01Z", Some("expired at 2027-01-01T00:00:00.000Z; it is served all the same")),
    ] {
        let text = doubt(&facts, at(now));
        assert_eq!(text.is_some(), said.is_some(), "{now}: {text:?}");
        assert!(text.unwrap_or_default().contains(said.unwrap_or_default()), "{now}");
    }
}

#[test]
fn what_is_said_of_files_that_are_not_in_use() {
    let mismatch = CertificateError::Mismatch { certificate: "tls.pem".into(), private_key: "tls.key".into() };
    let unreadable = |errno: rustix::io::Errno| {
        let (role, path) = (Role::PrivateKey, PathBuf::from("tls.key"));
        CertificateError::Unreadable { role, path, user: 7, source: errno.into() }
    };
    let (full, machine) = (unreadable(rustix::io::Errno::MFILE), unreadable(rustix::io::Errno::NFILE));
    let forbidden = unreadable(rustix::io::Errno::ACCESS);
    let exit = "the next start will fail with exit 64: ";
    for (error, word, says, silent) in [
        (&mismatch, Word::First, "when they change: the private key in tls.key does not belong", exit),
        (&mismatch, Word::Again, exit, "when they change"),
        (&forbidden, Word::First, "every few seconds: cannot read the private key tls.key", exit),
        (&forbidden, Word::Again, exit, "every few seconds"),
        (&full, Word::First, "LimitNOFILE=", "right file"),
        // The next start has descriptors again.
        (&full, Word::Again, "LimitNOFILE=", exit),
        (&machine, Word::Again, "fs.file-max", exit),
    ] {
        let said = KeptNotice { error, word }.to_string();
        assert!(said.contains(says) && !said.contains(silent), "{says}: {said}");
    }
    let dates = |validity, kept| {
        let (not_before, not_after, now) = (at(NOON), at(NOON), at(NOON));
        DatesNotice { validity, not_before, not_after, now, kept }.to_string()
    };
    for validity in [Validity::Expired, Validity::EndsWithin(Duration::ZERO)] {
        assert!(dates(validity, None).contains("; renew it: "));
        let said = dates(validity, Some(&mismatch));
        assert!(said.contains("its files changed since and cannot be used: the private key"), "{said}");
        assert!(!said.contains("renew it"), "{said}");
    }
}

/// Two listeners with one certificate, and one without any.
fn settings(files: &Files) -> Settings {
    let tls = |tls: &str, port: u16| {
        let (certificate, key) = (files.path("tls.pem"), files.path("tls.key"));
        format!(
            "address = \"127.0.0.1:{port}\"\ntls = \"{tls}\"\ncertificate = {certificate:?}\nprivate_key = {key:?}\n"
        )
    };
    let text = format!(
        "[tenant.contoso]\ntenant_id = \"11111111-2222-3333-4444-555555555555\"\n\
         client_id = \"66666666-7777-8888-9999-000000000000\"\nclient_secret = {{ file = \"/nonexistent/secret\" }}\n\
         [mailbox.scanner]\naddress = \"scanner@contoso.com\"\n\
         [listener.plain]\n[listener.submission]\n{}[listener.smtps]\n{}",
        tls("starttls", 2587),
        tls("implicit", 2465)
    );
    fs::set_permissions(files.path("tls.key"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(files.path("relay.toml"), text).unwrap();
    crate::config::load(&files.path("relay.toml"), std::iter::empty())
        .unwrap_or_else(|wrong| panic!("{wrong}"))
        .settings
}

#[tokio::test]
async fn listeners_with_the_same_files_share_a_certificate_that_is_followed() {
    let (old, new) = (made("relay01"), made("relay02"));
    let files = Files::new(&old);
    let settings = settings(&files);
    let certificates = Arc::new(ListenerCertificates::load(&settings).unwrap());
    assert!(certificates.of("plain").is_none());
    let certificate = Arc::clone(certificates.of("smtps").unwrap());
    assert!(Arc::ptr_eq(&certificate, certificates.of("submission").unwrap()));
    let watch = tokio::spawn(certificates.watch_every(Duration::from_millis(5), Arc::new(clock::SystemClock::new())));
    files.put("tls.pem", &new.0);
    files.put("tls.key", &new.1);
    let reloaded = async {
        while certificate.facts().names != ["relay02"] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), reloaded).await.unwrap();
    watch.abort();

    fs::remove_file(files.path("tls.key")).unwrap();
    let said = ListenerCertificates::load(&settings).unwrap_err().to_string();
    assert!(said.starts_with("cannot read the private key "), "{said}");
}
