//! Configurations that work and configurations that do not, with what is said of them.

use super::*;

const SMALLEST: &str = r#"
[tenant.contoso]
tenant_id     = "11111111-2222-3333-4444-555555555555"
client_id     = "66666666-7777-8888-9999-000000000000"
client_secret = { file = "/etc/xoauth2-relay/contoso.secret" }

[mailbox.scanner]
address = "scanner@contoso.com"
"#;

fn read_with(text: &str, environment: &[(&str, &str)]) -> Result<Settings, String> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    read("test.toml", text, environment).map_err(|mistakes| mistakes.to_string())
}

fn mistakes(text: &str) -> String {
    read_with(text, &[]).expect_err("the configuration is wrong")
}

#[test]
fn the_smallest_file_works_and_has_the_contracts_defaults() {
    let settings = read_with(SMALLEST, &[]).unwrap();
    let listener = &settings.listeners["local"];
    assert_eq!(listener.address.to_string(), "127.0.0.1:2525");
    assert_eq!(listener.max_message_size, 35 << 20);
    let mailbox = &settings.mailboxes["scanner"];
    assert_eq!((mailbox.connections, mailbox.messages_per_minute), (3, 30));
    assert_eq!((mailbox.tenant.as_str(), mailbox.login.as_str()), ("contoso", "scanner@contoso.com"));
    let tenant = &settings.tenants["contoso"];
    assert_eq!(tenant.smtp.host, "smtp.office365.com");
    assert_eq!(tenant.scope, "https://outlook.office365.com/.default");
    assert_eq!(settings.http.address.unwrap().to_string(), "127.0.0.1:9525");
    assert_eq!(settings.shutdown.grace.as_secs(), 8);
}

#[test]
fn what_check_prints_reads_as_the_same_configuration() {
    let printed = read_with(SMALLEST, &[]).unwrap().to_string();
    let again = read_with(&printed, &[]).unwrap_or_else(|mistakes| panic!("{mistakes}\n{printed}"));
    assert_eq!(again.to_string(), printed);
}

#[test]
fn every_mistake_is_told_in_one_run_with_its_place() {
    let said = mistakes(
        r#"
hostnam = "x"
[listener.local]
address = "localhost"
tls = "starttls"
max_recipients = 0
[tenant.contoso]
tenant_id = "common"
client_idd = "66666666-7777-8888-9999-000000000000"
client_secret = "hunter2"
[mailbox.scanner]
address = "scanner"
max_message_size = "35 MB"
[[route]]
name = "all"
"#,
    );
    let expected = [
        "test.toml:2:1: hostnam: is not a known key; did you mean hostname?",
        "test.toml:4:1: listener.local.address: \"localhost\" is not an address with a port",
        "test.toml:5:1: listener.local.tls: \"starttls\" is not built yet",
        "test.toml:6:1: listener.local.max_recipients: must be a whole number from 1 to 50000",
        "test.toml:7:9: tenant.contoso.client_id: is missing",
        "test.toml:8:1: tenant.contoso.tenant_id: \"common\" cannot be used",
        "test.toml:9:1: tenant.contoso.client_idd: is not a known key; did you mean client_id?",
        "test.toml:10:1: tenant.contoso.client_secret: a secret never stands in the configuration itself",
        "test.toml:12:1: mailbox.scanner.address: \"scanner\" is not an address",
        "test.toml:13:1: mailbox.scanner.max_message_size: \"35 MB\" is not a size",
        "test.toml:14:3: route: is not built yet in this release; remove it",
    ];
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{said}");
    for (line, start) in lines.iter().zip(expected) {
        assert!(line.starts_with(start), "{line:?} does not start with {start:?}");
    }
    assert!(!said.contains("hunter2"), "what may be a secret is not repeated");
}

#[test]
fn text_that_is_not_toml_is_told_with_its_place() {
    let said = mistakes("[tenant.contoso\ntenant_id = 1\n");
    assert!(said.lines().any(|line| line.starts_with("test.toml:1:") && line.contains("not valid TOML")), "{said}");
}

#[test]
fn the_environment_lies_over_the_file() {
    let settings = read_with(
        SMALLEST,
        &[
            ("XOAUTH2_RELAY__MAILBOX__SCANNER__CONNECTIONS", "2"),
            ("XOAUTH2_RELAY__LISTENER__LAN__ADDRESS", "10.0.0.1:25"),
            ("XOAUTH2_RELAY__LISTENER__LAN__NETWORKS", "10.0.0.0/8, ::1"),
            ("XOAUTH2_RELAY__TENANT__CONTOSO__CLIENT_SECRET__ENV", "CONTOSO_SECRET"),
            ("OTHER__THING", "x"),
        ],
    )
    .unwrap();
    assert_eq!(settings.mailboxes["scanner"].connections, 2);
    assert_eq!(settings.listeners["lan"].networks.len(), 2);
    // The reference in the file is replaced whole, not mixed.
    assert_eq!(settings.tenants["contoso"].client_secret, SecretReference::Environment("CONTOSO_SECRET".into()));
}

#[test]
fn mistakes_of_the_environment_name_the_variable() {
    let said = read_with(
        SMALLEST,
        &[("XOAUTH2_RELAY__MAILBOX__SCANNER__CONNECTIONS", "many"), ("XOAUTH2_RELAY__SPOL__DIRECTORY", "/x")],
    )
    .unwrap_err();
    assert_eq!(
        said,
        "environment variable XOAUTH2_RELAY__MAILBOX__SCANNER__CONNECTIONS: mailbox.scanner.connections: \
         must be a whole number from 1 to 1000\n\
         environment variable XOAUTH2_RELAY__SPOL__DIRECTORY: spol: is not a known key; did you mean spool?"
    );
}

#[test]
fn an_open_relay_is_refused() {
    let said = mistakes(&format!("{SMALLEST}\n[listener.all]\naddress = \"0.0.0.0:25\"\nnetworks = [\"0.0.0.0/0\"]\n"));
    assert!(said.contains("listener.all.networks: 0.0.0.0/0 reaches beyond private ranges"), "{said}");
    let said = mistakes(&format!("{SMALLEST}\n[listener.none]\naddress = \"127.0.0.1:25\"\nnetworks = []\n"));
    assert!(said.contains("listener.none.networks: is empty"), "{said}");
}

#[test]
fn relations_are_checked() {
    let two = format!("{SMALLEST}\n[mailbox.other]\naddress = \"other@contoso.com\"\n");
    assert!(mistakes(&two).contains("more than one mailbox needs [[route]]"));
    let wrong = SMALLEST.replace("address =", "tenant = \"fabrikam\"\naddress =");
    assert!(mistakes(&wrong).contains("mailbox.scanner.tenant: there is no [tenant.fabrikam]; there is contoso"));
    assert!(mistakes("").contains("tenant: is missing"));
    let both = SMALLEST.replace("{ file = \"/etc/xoauth2-relay/contoso.secret\" }", "{ file = \"a\", env = \"B\" }");
    assert!(mistakes(&both).contains("must be exactly one of"));
    let twins = format!("{SMALLEST}\n[listener.a]\naddress=\"127.0.0.1:1\"\n[listener.b]\naddress=\"127.0.0.1:1\"\n");
    assert!(mistakes(&twins).contains("listener.b.address: 127.0.0.1:1 is already taken by listener a"));
}

/// The contract file names every key there will be: each is either read or refused by name, none is unknown.
#[test]
fn every_name_of_the_contract_is_known() {
    let contract = include_str!("../../../../docs/configuration-contract.toml");
    let mut found = 0;
    let mut section = schema::ROOT;
    for line in contract.lines() {
        // Keys that are shown commented out are keys all the same.
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some(header) = line.strip_prefix('[') {
            let name = header.trim_start_matches('[').split(['.', ']']).next().unwrap();
            assert!(schema::ROOT.iter().any(|key| key.name == name), "[{name}] is unknown");
            section = match name {
                "listener" => schema::LISTENER,
                "tenant" => schema::TENANT,
                "mailbox" => schema::MAILBOX,
                "spool" => schema::SPOOL,
                "http" => schema::HTTP,
                "log" => schema::LOG,
                "shutdown" => schema::SHUTDOWN,
                // Refused as a whole.
                _ => &[],
            };
            continue;
        }
        let Some((key, _)) = line.split_once(" = ").or_else(|| line.split_once("= ")) else { continue };
        let key = key.trim();
        if section.is_empty() || !key.bytes().all(|octet| octet.is_ascii_lowercase() || octet == b'_') {
            continue;
        }
        assert!(section.iter().any(|known| known.name == key), "{key} is unknown");
        found += 1;
    }
    assert!(found > 50, "the contract was read: {found}");
}

#[test]
fn a_key_that_is_not_built_is_refused_by_name() {
    for (section, key) in [("listener", "lf_only_clients"), ("tenant", "smtp_proxy"), ("mailbox", "may_send_as")] {
        let text =
            SMALLEST.replace("[mailbox.scanner]", &format!("[{section}.later]\n{key} = true\n[mailbox.scanner]"));
        assert!(mistakes(&text).contains(&format!("{section}.later.{key}: is not built yet")), "{section}.{key}");
    }
}

#[test]
fn names_and_paths_that_would_fail_later_are_refused_now() {
    for (line, said) in [
        ("hostname = \"relay_01.x\"\n", "hostname: \"relay_01.x\" is not a host name"),
        ("[spool]\ndirectory = \"\"\n", "spool.directory: is empty"),
        ("[http]\naddress = \"127.0.0.1:2525\"\n", "http.address: 127.0.0.1:2525 is already taken by listener local"),
    ] {
        let text = if line.starts_with('[') { format!("{SMALLEST}{line}") } else { format!("{line}{SMALLEST}") };
        assert!(mistakes(&text).contains(said), "{}", mistakes(&text));
    }
    let missing = SMALLEST.replace("[mailbox", "authority_ca_file = \"/nonexistent/ca.pem\"\n[mailbox");
    assert!(mistakes(&missing).contains("authority_ca_file: cannot use the CA file /nonexistent/ca.pem"));
    let pasted = SMALLEST.replace("66666666-7777-8888-9999-000000000000", "a-secret-by-mistake");
    let said = mistakes(&pasted);
    assert!(said.contains("client_id: this is not a GUID") && !said.contains("by-mistake"), "{said}");
}
