//! What is read, and what is said of files that are not right.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::{any, prop_assert, proptest};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::*;

/// A CA, an intermediate, and a server's certificate with its key.
struct Made {
    root: String,
    intermediate: String,
    server: String,
    key: KeyPair,
}

fn made() -> Made {
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let (root, root_key) = (authority("root"), KeyPair::generate().unwrap());
    let root_pem = root.self_signed(&root_key).unwrap().pem();
    let root = Issuer::new(root, root_key);
    let (intermediate, intermediate_key) = (authority("intermediate"), KeyPair::generate().unwrap());
    let intermediate_pem = intermediate.signed_by(&intermediate_key, &root).unwrap().pem();
    let intermediate = Issuer::new(intermediate, intermediate_key);
    let mut server = CertificateParams::new(vec!["relay01.example.com".to_owned(), "10.1.2.3".to_owned()]).unwrap();
    server.distinguished_name.push(DnType::CommonName, "relay\n01");
    server.not_before = date_time_ymd(2026, 1, 1);
    server.not_after = date_time_ymd(2027, 1, 1);
    let key = KeyPair::generate().unwrap();
    let server = server.signed_by(&key, &intermediate).unwrap().pem();
    Made { root: root_pem, intermediate: intermediate_pem, server, key }
}

fn pair(certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Pair, String> {
    let chain = Chain::parse(Path::new("tls.pem"), certificate.as_ref());
    let key = PrivateKey::parse(Path::new("tls.key"), key.as_ref());
    chain.and_then(|chain| Pair::new(chain, key?)).map_err(|error| error.to_string())
}

#[test]
fn a_chain_and_its_key_are_read_with_what_they_say() {
    let made = made();
    let text = format!("the bag attributes of some tools\n{}{}{}", made.server, made.intermediate, made.root);
    let pair = pair(text.replace('\n', "\r\n"), made.key.serialize_pem()).unwrap();
    assert_eq!(pair.certified.cert.len(), 3);
    let Facts { subject, names, not_before, not_after } = pair.facts;
    assert!(subject.contains("relay?01"), "one line: {subject}");
    assert_eq!(names, ["relay01.example.com", "10.1.2.3"]);
    assert_eq!(not_before.rfc3339(), "2026-01-01T00:00:00.000Z");
    assert_eq!(not_after.rfc3339(), "2027-01-01T00:00:00.000Z");
}

#[test]
fn one_file_may_hold_both() {
    let made = made();
    let both = made.key.serialize_pem() + &made.server;
    assert!(pair(&both, &both).is_ok());
}

#[test]
fn wrong_certificates_are_told_with_the_remedy() {
    let made = made();
    let key = made.key.serialize_pem();
    let request = CertificateParams::new(vec!["x".to_owned()]).unwrap().serialize_request(&made.key).unwrap();
    let der = CertificateDer::from_pem_slice(made.server.as_bytes()).unwrap().to_vec();
    let cut = made.server[..made.server.len() / 2].to_owned();
    let edited = made.server.replacen("MII", "M*I", 1);
    let no_x509 = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned();
    for (what, octets, said) in [
        ("empty", b" \n".to_vec(), "there is no certificate in tls.pem: it is empty"),
        (
            "swapped",
            key.clone().into_bytes(),
            "there is no certificate in tls.pem: it holds a private key; are certificate and private_key swapped?",
        ),
        (
            "request",
            request.pem().unwrap().into_bytes(),
            "it holds a request; name the certificate that the CA made of it",
        ),
        ("DER", der, "it is DER; `openssl x509 -inform DER -in tls.pem -out tls.pem.pem` makes it PEM"),
        (
            "PKCS #12",
            vec![0x30, 0x82, 0x0a, 0x11, 0x02, 0x01, 0x03, 0x30],
            "it is PKCS #12; `openssl pkcs12 -in tls.pem -nokeys",
        ),
        ("text", b"hello".to_vec(), "in PEM it begins with -----BEGIN CERTIFICATE-----"),
        ("cut short", cut.into_bytes(), "the certificate in tls.pem is broken: its -----END line is missing"),
        ("edited", edited.into_bytes(), "something else than base64"),
        ("no X.509", no_x509.into_bytes(), "is broken: certificate number 1 is no X.509"),
        (
            "wrong order",
            (made.intermediate.clone() + &made.root + &made.server).into_bytes(),
            "the certificates in tls.pem are in the wrong order: the private key belongs to number 3, which must come first",
        ),
        (
            "another's",
            (made.intermediate.clone() + &made.root).into_bytes(),
            "the private key in tls.key does not belong to the certificate in tls.pem",
        ),
    ] {
        let error = pair(octets, &key).map(drop).expect_err(what);
        assert!(error.contains(said), "{what}: {error}");
    }
}

#[test]
fn wrong_keys_are_told_with_the_remedy_and_never_repeated() {
    let made = made();
    let key = made.key.serialize_pem();
    let base64: String = key.lines().filter(|line| !line.starts_with('-')).collect();
    let labelled = |label: &str, body: &str| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
    let old = labelled("EC PRIVATE KEY", &format!("Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n{base64}"));
    for (what, octets, said) in [
        ("empty", Vec::new(), "there is no private key in tls.key: it is empty"),
        (
            "swapped",
            made.server.clone().into_bytes(),
            "it holds a certificate; are certificate and private_key swapped?",
        ),
        (
            "encrypted",
            labelled("ENCRYPTED PRIVATE KEY", &base64).into_bytes(),
            "`openssl pkey -in tls.key -out tls.key.plain` decrypts it",
        ),
        ("encrypted as before", old.into_bytes(), "is encrypted"),
        ("public", labelled("PUBLIC KEY", &base64).into_bytes(), "it holds a public key"),
        (
            "DER",
            made.key.serialize_der(),
            "it is DER; `openssl pkey -inform DER -in tls.key -out tls.key.pem` makes it PEM",
        ),
        ("PKCS #12", vec![0x30, 0x82, 0x0a, 0x11, 0x02, 0x01, 0x03, 0x30], "-nocerts -noenc -out tls.key.key"),
        ("cut short", key.as_bytes()[..key.len() / 2].to_vec(), "its -----END line is missing"),
        ("on one line", key.replace('\n', "").into_bytes(), "its -----END line is missing, or its line ends are"),
        (
            "its first line lost in another",
            key.replacen("-----\n", "", 1).into_bytes(),
            "its -----BEGIN line is not a line of its own",
        ),
        ("no key", labelled("PRIVATE KEY", "AAAA").into_bytes(), "of a kind that cannot be used"),
        (
            "of another",
            KeyPair::generate().unwrap().serialize_pem().into_bytes(),
            "the private key in tls.key does not belong to the certificate in tls.pem",
        ),
    ] {
        let error = pair(&made.server, octets).map(drop).expect_err(what);
        assert!(error.contains(said), "{what}: {error}");
        assert!(!error.contains(&base64[..16]), "{what}: {error}");
    }
}

#[test]
fn files_that_cannot_be_read_are_told_with_the_user() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("tls.pem");
    let said = |path: &Path| Chain::read(path).map(drop).unwrap_err().to_string();
    assert!(said(&path).ends_with("make one by `xoauth2-relay self-signed`"), "{}", said(&path));
    assert!(said(directory.path()).contains("it is no regular file"));
    fs::write(&path, vec![b'x'; 2 << 20]).unwrap();
    assert!(said(&path).contains("it has more than 1048576 octets; is it the right file?"), "{}", said(&path));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    // Root reads everything.
    if !rustix::process::geteuid().is_root() {
        let user = rustix::process::geteuid().as_raw();
        assert!(said(&path).contains(&format!("this runs as user {user}")), "{}", said(&path));
    }
    let denied = reading_remedy(&io::ErrorKind::PermissionDenied.into(), 4711);
    assert!(denied.contains("this runs as user 4711: let that user read the file"), "{denied}");
}

#[test]
fn a_byte_order_mark_does_no_harm() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("tls.pem");
    fs::write(&path, format!("\u{feff}{}", made().server)).unwrap();
    assert!(Chain::read(&path).is_ok());
}

#[test]
fn without_names_the_common_name_counts_and_many_names_are_cut() {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "relay01");
    let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    let facts = Chain::parse(Path::new("x"), certificate.as_bytes()).unwrap().facts;
    assert_eq!(facts.names, ["relay01"]);
    assert_eq!(facts.shown_names(), "relay01");
    let names = (0..11).map(|at| at.to_string()).collect();
    assert_eq!(Facts { names, ..facts }.shown_names(), "0, 1, 2, 3, 4, 5, 6, 7 and 3 more");
}

proptest! {
    #[test]
    fn whatever_is_in_a_file_is_told_and_does_not_panic(octets in proptest::collection::vec(any::<u8>(), 0..300), label in "(CERTIFICATE|PRIVATE KEY|X)") {
        let path = Path::new("tls.pem");
        let text = [format!("-----BEGIN {label}-----\n").as_bytes(), &octets, format!("\n-----END {label}-----\n").as_bytes()].concat();
        for octets in [&octets, &text] {
            prop_assert!(Chain::parse(path, octets).is_err());
            prop_assert!(PrivateKey::parse(path, octets).is_err());
        }
    }
}
