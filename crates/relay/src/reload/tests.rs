use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;

const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$";

/// What every configuration of these tests has; `tables` and the lines of `tenant` are the case's, in them SECRET is a path.
fn configuration(directory: &TempDir, tables: &str, tenant: &str) -> Configuration {
    let (secret, file) = (directory.path().join("secret"), directory.path().join("relay.toml"));
    std::fs::write(&secret, "not a secret").unwrap();
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    let text = format!(
        "hostname = \"relay.test\"\n{tables}\n[tenant.contoso]\ntenant_id = \"11111111-2222-3333-4444-555555555555\"\n\
         client_id = \"66666666-7777-8888-9999-000000000000\"\n{tenant}\n\
         [mailbox.scanner]\naddress = \"scanner@contoso.com\"\n"
    );
    let text = text.replace("SECRET", &secret.display().to_string());
    std::fs::write(&file, text).unwrap();
    crate::config::load(&file, std::iter::empty()).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

const TENANT: &str = "client_secret = { file = \"SECRET\" }";

#[test]
fn what_differs_is_told_by_its_key_and_nothing_else_is() {
    let directory = TempDir::new().unwrap();
    let user = |hash: &str| format!("[user.erp]\npassword_hash = \"{HASH}{hash}\"");
    let proxy = format!("{TENANT}\nhttps_proxy = \"http://proxy:3128\"");
    let route = "[[route]]\nname = \"a\"\nmailbox = [\"scanner\"]";
    let narrow =
        |name: &str| format!("[[route]]\nname = \"{name}\"\nrecipients = [\"x@y.test\"]\nmailbox = [\"scanner\"]\n");
    let (one, other) = (user("aGFzaGhhc2hoYXNoaGFzaA"), user("bGFzaGhhc2hoYXNoaGFzaA"));
    for (before, after, expected) in [
        (("", TENANT), ("", TENANT), &[][..]),
        (("", TENANT), ("# a remark", TENANT), &[]),
        (("", TENANT), ("[log]\nlevel = \"info\"", TENANT), &[]),
        (("", TENANT), ("[log]\nlevel = \"debug\"", TENANT), &["log.level"]),
        (
            ("[listener.local]", TENANT),
            ("[listener.local]\nnetworks = [\"127.0.0.1\"]", TENANT),
            &["listener.local.networks"],
        ),
        (("[listener.a]", TENANT), ("[listener.b]", TENANT), &["listener.b", "listener.a"]),
        ((&one, TENANT), (&one, TENANT), &[]),
        ((&one, TENANT), (&other, TENANT), &["user.erp.password_hash"]),
        (("", TENANT), ("", &proxy), &["tenant.contoso.https_proxy"]),
        (("", TENANT), ("", "client_secret = { env = \"PATH\" }"), &["tenant.contoso.client_secret"]),
        (("", TENANT), ("", &format!("{TENANT}\nsmtp = {{ port = 2587 }}")), &["tenant.contoso.smtp.port"]),
        (("", TENANT), (route, TENANT), &["route.\"a\""]),
        ((route, TENANT), (&narrow("b"), TENANT), &["route.\"b\"", "route.\"a\""]),
        ((route, TENANT), (&format!("{}{route}", narrow("b")), TENANT), &["route.\"b\""]),
        ((route, TENANT), (&format!("{route}\nmax_age = \"1d\""), TENANT), &["route.\"a\".max_age"]),
        (
            (&format!("{}{}{route}", narrow("c"), narrow("b")), TENANT),
            (&format!("{}{}{route}", narrow("b"), narrow("c")), TENANT),
            &["route (order)"],
        ),
    ] {
        let old = configuration(&directory, before.0, before.1).settings;
        let new = configuration(&directory, after.0, after.1).settings;
        assert_eq!(changes(&old, &new), expected, "{before:?} {after:?}");
        let back = changes(&new, &old);
        assert_eq!(back.is_empty(), expected.is_empty(), "{back:?}");
        let same = is_same_tenant(&old.tenants["contoso"], &new.tenants["contoso"]);
        assert_eq!(same, !expected.iter().any(|key| key.starts_with("tenant.")), "{expected:?}");
    }
}

#[test]
fn what_only_a_restart_can_change_is_refused_a_sentence_a_key() {
    let refused = |changes: &[&str]| {
        let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
        fixed(&changes).into_iter().map(|mistake| mistake.key).collect::<Vec<_>>()
    };
    for (changes, expected) in [
        (&["log.level", "hostname"][..], &[][..]),
        (&["spool.directory", "control.socket"], &["spool.directory", "control.socket"]),
        (&["spool.max_bytes", "log.format"], &["log.format"]),
        (&["vault.key.file"], &["vault.key"]),
        (&["vault.key"], &["vault.key"]),
        (&["vault.keys"], &[]),
    ] {
        assert_eq!(refused(changes), expected, "{changes:?}");
    }
    for (key, _) in FIXED {
        let text = fixed(&[key.to_owned()])[0].text.clone();
        assert!(text.ends_with("restart to change it"), "{text}");
    }
}

#[test]
fn from_no_state_to_state_and_back_needs_a_restart() {
    let directory = TempDir::new().unwrap();
    let direct = "[listener.local]\ndelivery = \"direct\"";
    let kept = format!("{direct}\n[spool]\ndirectory = \"/var/lib/xoauth2-relay\"");
    let text = format!("{direct}\n[log]\nformat = \"text\"");
    let delegated = "grant = \"delegated\"";
    let second = format!("{direct}\n[listener.lan]\naddress = \"127.0.0.1:2526\"");
    for (before, after, expected) in [
        ((direct, TENANT), (direct, TENANT), &[][..]),
        ((direct, TENANT), ("", TENANT), &["listener.local.delivery"]),
        (("", TENANT), (direct, TENANT), &["listener.local.delivery"]),
        ((direct, TENANT), (&second, TENANT), &["listener.lan.delivery"]),
        ((direct, TENANT), (direct, delegated), &["tenant.contoso.grant"]),
        ((direct, delegated), (direct, TENANT), &["tenant.contoso.grant"]),
        ((direct, TENANT), (&kept, TENANT), &["spool.directory"]),
        ((&kept, TENANT), (direct, TENANT), &["spool.directory"]),
        // The directory stays, whoever asks for it.
        (("", TENANT), (&kept, TENANT), &[]),
        (("", TENANT), (direct, delegated), &[]),
        (("", TENANT), (&text, TENANT), &["listener.local.delivery", "log.format"]),
    ] {
        let old = configuration(&directory, before.0, before.1).settings;
        let new = configuration(&directory, after.0, after.1).settings;
        let mistakes = unchangeable(&old, &new, &changes(&old, &new));
        let keys: Vec<_> = mistakes.iter().map(|mistake| mistake.key.as_str()).collect();
        assert_eq!(keys, expected, "{before:?} {after:?}");
        assert!(mistakes.iter().all(|mistake| mistake.text.contains("restart to change it")), "{mistakes:?}");
    }
}

#[test]
fn a_mistake_stands_where_its_key_was_written() {
    let directory = TempDir::new().unwrap();
    let read = configuration(&directory, "[listener.local]\naddress = \"127.0.0.1:2526\"", TENANT);
    let file = directory.path().join("relay.toml").display().to_string();
    let placed = Mistake::new("listener.local.address", "x").placed(&read);
    assert_eq!(placed.to_string(), format!("{file}:3:1: listener.local.address: x"));
    let placed = Mistake::new("tenant.contoso.client_secret", "x").placed(&read);
    assert!(placed.origin.starts_with(&format!("{file}:7:")), "{placed}");
    // A default stands nowhere.
    assert_eq!(Mistake::new("http.address", "x").placed(&read).to_string(), "http.address: x");
    assert_eq!(Mistake::new("", "x").placed(&read).to_string(), "x");
}

#[test]
fn a_socket_that_needs_the_place_of_another_is_named_with_it() {
    let taken = [
        (Holder::Ours("listener local".to_owned()), "127.0.0.1:2525".parse().unwrap()),
        (Holder::Ours("http".to_owned()), "[::1]:9525".parse().unwrap()),
    ];
    for (wanted, expected) in [
        ("127.0.0.1:2526", None),
        ("127.0.0.2:2525", None),
        ("127.0.0.1:0", None),
        ("127.0.0.1:2525", Some("127.0.0.1:2525 is where listener local listens now")),
        ("0.0.0.0:2525", Some("0.0.0.0:2525 overlaps 127.0.0.1:2525, which is where listener local listens now")),
        ("[::]:9525", Some("[::]:9525 overlaps [::1]:9525, which is where http listens now")),
    ] {
        let told = overlaps(wanted.parse().unwrap(), &taken);
        assert_eq!(told.is_some(), expected.is_some(), "{wanted}: {told:?}");
        let (told, expected) = (told.unwrap_or_default(), expected.unwrap_or_default());
        assert!(told.starts_with(expected), "{told}");
        assert!(told.is_empty() || told.contains("a restart does it"), "{told}");
    }
}

#[test]
fn a_socket_of_systemd_is_never_said_to_go_by_a_reload() {
    let taken = [(Holder::HandedOver("smtp".to_owned()), "127.0.0.1:25".parse().unwrap())];
    let told = overlaps("0.0.0.0:25".parse().unwrap(), &taken).unwrap();
    assert!(told.contains("\"smtp\"") && told.contains("address = \"systemd:smtp\""), "{told}");
    assert!(!told.contains("two reloads"), "{told}");
}

#[test]
fn a_line_of_the_log_tells_fifty_keys_and_how_many_more() {
    let changes = |count: usize| (0..count).map(|at| format!("user.u{at}")).collect::<Vec<_>>();
    assert_eq!(in_a_line(&changes(2)), "user.u0, user.u1");
    assert!(in_a_line(&changes(50)).ends_with(", user.u49"));
    assert!(in_a_line(&changes(53)).ends_with(", user.u49 and 3 more"));
}
