//! Configurations that work and configurations that do not, with what is said of them; and what holds of all.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use serde_json::{Map, Value as Json, json};

use super::sample::Chance;
use super::schema::{Fallback, Form, Key, Section, Shape};
use super::settings::{HOSTNAME, SECTIONS};
use super::value::{Toml, TomlKey};
use super::*;

const SMALLEST: &str = r#"
[tenant.contoso]
tenant_id     = "11111111-2222-3333-4444-555555555555"
client_id     = "66666666-7777-8888-9999-000000000000"
client_secret = { file = "/etc/xoauth2-relay/contoso.secret" }

[mailbox.scanner]
address = "scanner@contoso.com"
"#;

/// What the daemon demands.
const RELEASE: Demand = Demand { built: true, relations: true, files: true };
/// The contract, whatever this release can do, on a machine without its files.
const CONTRACT: Demand = Demand { built: false, relations: true, files: false };

fn read_as(demand: Demand, text: &str, environment: &[(&str, &str)]) -> Result<Configuration, String> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    read("test.toml", text, environment, demand).map_err(|mistakes| mistakes.to_string())
}

fn settings(text: &str, environment: &[(&str, &str)]) -> Settings {
    read_as(RELEASE, text, environment).unwrap_or_else(|mistakes| panic!("{mistakes}")).settings
}

fn mistakes(text: &str) -> String {
    read_as(RELEASE, text, &[]).expect_err("the configuration is wrong")
}

#[test]
fn the_smallest_file_works_and_has_the_contracts_defaults() {
    let settings = settings(SMALLEST, &[]);
    let listener = &settings.listeners["local"];
    assert_eq!(listener.address.socket().unwrap().to_string(), "127.0.0.1:2525");
    assert_eq!(listener.max_message_size.octets(), 35 << 20);
    let mailbox = &settings.mailboxes["scanner"];
    assert_eq!((mailbox.connections.get(), mailbox.messages_per_minute.get()), (3, 30));
    assert_eq!(mailbox.login.as_ref().unwrap().to_string(), "scanner@contoso.com");
    let (name, tenant) = settings.tenant_of(mailbox).unwrap();
    assert_eq!((name, tenant.smtp_host()), ("contoso", "smtp.office365.com"));
    assert_eq!(tenant.scope.as_str(), "https://outlook.office365.com/.default");
    assert_eq!(settings.http.address.0.unwrap().to_string(), "127.0.0.1:9525");
    assert_eq!(settings.shutdown.grace.duration().as_secs(), 8);
}

#[test]
fn a_cloud_decides_where_tokens_and_mail_go() {
    for (cloud, authority, scope, host) in [
        ("gcc-high", "https://login.microsoftonline.us", "https://outlook.office365.us/.default", "smtp.office365.us"),
        (
            "dod",
            "https://login.microsoftonline.us",
            "https://outlook-dod.office365.us/.default",
            "outlook-dod.office365.us",
        ),
        (
            "china",
            "https://login.partner.microsoftonline.cn",
            "https://partner.outlook.cn/.default",
            "smtp.partner.outlook.cn",
        ),
    ] {
        let text = SMALLEST.replace("[mailbox", &format!("cloud = {cloud:?}\nsmtp.port = 25\n[mailbox"));
        let json = read_as(RELEASE, &text, &[]).unwrap().json();
        let tenant = &json["tenant"]["contoso"];
        assert_eq!(tenant["authority"]["value"], authority);
        assert_eq!(tenant["scope"]["value"], scope);
        assert_eq!(tenant["smtp"]["host"], json!({ "value": host, "source": "default" }));
        assert_eq!(tenant["smtp"]["port"]["value"], 25);
    }
}

#[test]
fn every_value_is_told_with_its_source() {
    let text = format!("hostname = \"relay.example.com\"\n{SMALLEST}");
    let environment = [
        ("XOAUTH2_RELAY__MAILBOX__SCANNER__CONNECTIONS", "2"),
        ("XOAUTH2_RELAY__TENANT__CONTOSO__CLIENT_SECRET__ENV", "CONTOSO_SECRET"),
    ];
    let configuration = read_as(RELEASE, &text, &environment).unwrap();
    let printed = configuration.to_string();
    for (value, source) in [
        ("hostname = \"relay.example.com\"", "test.toml:1:1"),
        ("address = \"scanner@contoso.com\"", "test.toml:9:1"),
        ("connections = 2", "environment variable XOAUTH2_RELAY__MAILBOX__SCANNER__CONNECTIONS"),
        (
            "client_secret.env = \"CONTOSO_SECRET\"",
            "environment variable XOAUTH2_RELAY__TENANT__CONTOSO__CLIENT_SECRET__ENV",
        ),
        ("messages_per_minute = 30", "default"),
    ] {
        let line = format!("{value:<64}  # {source}");
        assert!(printed.lines().any(|printed| printed == line), "{line}\n{printed}");
    }
    let json = configuration.json();
    assert_eq!(
        json["mailbox"]["scanner"]["address"],
        json!({ "value": "scanner@contoso.com", "source": { "file": "test.toml", "line": 9, "column": 1 } })
    );
    assert_eq!(
        json["mailbox"]["scanner"]["connections"]["source"],
        json!({ "environment": "XOAUTH2_RELAY__MAILBOX__SCANNER__CONNECTIONS" })
    );
    assert_eq!(json["shutdown"]["grace"], json!({ "value": "8s", "source": "default" }));
}

#[test]
fn the_environment_lies_over_the_file() {
    let settings = settings(
        SMALLEST,
        &[
            ("XOAUTH2_RELAY__MAILBOX__SCANNER__CONNECTIONS", " 2 "),
            ("XOAUTH2_RELAY__LISTENER__LAN__ADDRESS", "10.0.0.1:25"),
            ("XOAUTH2_RELAY__LISTENER__LAN__NETWORKS", "10.0.0.0/8, ::1"),
            ("XOAUTH2_RELAY__TENANT__CONTOSO__CLIENT_SECRET__ENV", "CONTOSO_SECRET"),
            ("OTHER__THING", "x"),
        ],
    );
    assert_eq!(settings.mailboxes["scanner"].connections.get(), 2);
    assert_eq!(settings.listeners["lan"].networks.len(), 2);
    // The reference in the file is replaced whole, not mixed.
    let secret = settings.tenants["contoso"].client_secret.clone();
    assert_eq!(secret, Some(SecretReference::Environment("CONTOSO_SECRET".into())));
}

/// No variable is ignored in silence, and none reaches what its name does not say.
#[test]
fn variables_that_are_no_keys_or_contradict_are_told() {
    let said = read_as(
        RELEASE,
        SMALLEST,
        &[
            ("XOAUTH2_RELAY__RETRY__SCHEDULE[1000000000]", "5s"),
            ("XOAUTH2_RELAY__HOSTNAME", "one.example"),
            ("XOAUTH2_RELAY__hostname", "two.example"),
            ("XOAUTH2_RELAY__TENANT__CONTOSO__CLIENT_SECRET", "hunter2"),
            ("XOAUTH2_RELAY__TENANT__CONTOSO__CLIENT_SECRET__ENV", "NAME"),
            ("XOAUTH2_RELAY__SPOOL.DIRECTORY", "/x"),
            ("XOAUTH2_RELAY__", "x"),
        ],
    )
    .unwrap_err();
    for line in [
        "environment variable XOAUTH2_RELAY__RETRY__SCHEDULE[1000000000]: names no key: letters, digits and _, two underscores between the names",
        "environment variable XOAUTH2_RELAY__hostname: contradicts environment variable XOAUTH2_RELAY__HOSTNAME; keep one",
        "environment variable XOAUTH2_RELAY__TENANT__CONTOSO__CLIENT_SECRET__ENV: contradicts environment variable XOAUTH2_RELAY__TENANT__CONTOSO__CLIENT_SECRET; keep one",
        "environment variable XOAUTH2_RELAY__SPOOL.DIRECTORY: names no key: letters, digits and _, two underscores between the names",
        "environment variable XOAUTH2_RELAY__: names no key: letters, digits and _, two underscores between the names",
    ] {
        assert!(said.lines().any(|told| told == line), "{line}\n{said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn a_variable_with_one_underscore_is_doubted_and_an_orchestrators_is_not() {
    let environment = [
        ("XOAUTH2_RELAY_HOSTNAME", "x"),
        ("XOAUTH2_RELAY_LISTENER__LOCAL__ADDRESS", "x"),
        ("XOAUTH2_RELAY_SERVICE_HOST", "10.0.0.1"),
        ("XOAUTH2_RELAY_PORT_2525_TCP", "x"),
    ];
    let doubts = read_as(RELEASE, SMALLEST, &environment).unwrap().misspelt;
    assert_eq!(
        doubts,
        [
            "environment variable XOAUTH2_RELAY_HOSTNAME is not read; it is spelt XOAUTH2_RELAY__HOSTNAME",
            "environment variable XOAUTH2_RELAY_LISTENER__LOCAL__ADDRESS is not read; it is spelt XOAUTH2_RELAY__LISTENER__LOCAL__ADDRESS",
        ]
    );
}

#[test]
fn a_service_managers_directories_lie_below_the_file_and_are_told() {
    let environment = [("STATE_DIRECTORY", "/x/y:/z"), ("RUNTIME_DIRECTORY", "/run/z"), ("XDG_STATE_HOME", "/home")];
    let configuration = read_as(RELEASE, SMALLEST, &environment).unwrap();
    let json = configuration.json();
    let source = |name: &str| json!({ "environment": name });
    assert_eq!(json["spool"]["directory"], json!({ "value": "/x/y", "source": source("STATE_DIRECTORY") }));
    assert_eq!(
        json["control"]["socket"],
        json!({ "value": "/run/z/control.sock", "source": source("RUNTIME_DIRECTORY") })
    );
    let own = read_as(RELEASE, SMALLEST, &environment[2..]).unwrap().json();
    assert_eq!(own["spool"]["directory"]["value"], "/home/xoauth2-relay");
    assert_eq!(own["control"]["socket"]["value"], "/home/xoauth2-relay/control.sock");
    let written = format!("{SMALLEST}[spool]\ndirectory = \"/mine\"\n");
    assert_eq!(read_as(RELEASE, &written, &environment).unwrap().json()["spool"]["directory"]["value"], "/mine");
}

#[test]
fn the_environments_proxy_is_for_tokens_and_lies_below_the_file() {
    let https = ("HTTPS_PROXY", "http://relay:hunter2@corporate:8080");
    let own = SMALLEST.replace("[mailbox", "https_proxy = \"http://own:3128\"\n[mailbox");
    for (text, environment, shown, source) in [
        (SMALLEST, &[https][..], Some("http://corporate:8080"), "HTTPS_PROXY"),
        (SMALLEST, &[("https_proxy", "corporate:8080")], Some("http://corporate:8080"), "https_proxy"),
        (SMALLEST, &[("HTTPS_PROXY", ""), ("https_proxy", "http://small")], Some("http://small"), "https_proxy"),
        (SMALLEST, &[https, ("NO_PROXY", "localhost,.microsoftonline.com")], None, ""),
        (SMALLEST, &[https, ("no_proxy", "*")], None, ""),
        (SMALLEST, &[("HTTP_PROXY", "http://other"), ("ALL_PROXY", "http://other")], None, ""),
        (&own, &[https], Some("http://own:3128"), ""),
        (&own, &[https, ("NO_PROXY", "*")], Some("http://own:3128"), ""),
    ] {
        let configuration = read_as(RELEASE, text, environment).unwrap();
        let tenant = &configuration.json()["tenant"]["contoso"];
        assert_eq!(tenant["https_proxy"]["value"].as_str(), shown, "{environment:?}");
        if !source.is_empty() {
            assert_eq!(tenant["https_proxy"]["source"], json!({ "environment": source }));
        }
        assert_eq!(tenant["smtp_proxy"], Json::Null, "{environment:?}");
        let printed = format!("{configuration}{configuration:?}");
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}

#[test]
fn an_environments_proxy_of_another_kind_is_told_where_it_would_be_used() {
    let socks = ("HTTPS_PROXY", "socks5://relay:hunter2@corporate:1080");
    assert_eq!(
        read_as(RELEASE, SMALLEST, &[socks]).unwrap_err(),
        "environment variable HTTPS_PROXY: tenant.contoso.https_proxy: this is not a URL such as \"http://proxy:3128\"; \
         or name login.microsoftonline.com in NO_PROXY, or set the key itself"
    );
    assert!(read_as(RELEASE, SMALLEST, &[socks, ("NO_PROXY", "login.microsoftonline.com")]).is_ok());
}

#[test]
fn a_proxys_password_comes_from_the_environment_and_is_not_printed() {
    let environment = [
        ("XOAUTH2_RELAY__TENANT__CONTOSO__SMTP_PROXY", "http://relay:hunter2@proxy:3128"),
        ("XOAUTH2_RELAY__TENANT__CONTOSO__HTTPS_PROXY", "http://relay:hunter2@proxy:3128"),
    ];
    let configuration = read_as(RELEASE, SMALLEST, &environment).unwrap();
    let proxy = configuration.settings.tenants["contoso"].smtp_proxy.as_ref().unwrap().for_smtp();
    assert!(proxy.authorization.is_some());
    let printed = format!("{configuration}{}{configuration:?}{proxy:?}", configuration.json());
    assert!(printed.contains("smtp_proxy = \"http://proxy:3128\"") && !printed.contains("hunter2"), "{printed}");
}

#[test]
fn a_hash_is_not_printed() {
    let text = format!(
        "{SMALLEST}[user.erp]\npassword_hash = \"$argon2id$v=19$m=8192,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA\"\n"
    );
    let configuration = read_as(CONTRACT, &text, &[]).unwrap();
    let shown = format!("{configuration}{}{configuration:?}", configuration.json());
    assert!(
        shown.contains("$m=8192,t=1,p=1$hidden$hidden") && !shown.contains("aGFza") && !shown.contains("c2FsdH"),
        "{shown}"
    );
}

#[test]
fn mistakes_of_the_environment_name_the_variable() {
    let said = read_as(
        RELEASE,
        SMALLEST,
        &[("XOAUTH2_RELAY__MAILBOX__SCANNER__CONNECTIONS", "many"), ("XOAUTH2_RELAY__SPOL__DIRECTORY", "/x")],
    )
    .unwrap_err();
    assert_eq!(
        said,
        "environment variable XOAUTH2_RELAY__MAILBOX__SCANNER__CONNECTIONS: mailbox.scanner.connections: \
         many is not a whole number from 1 to 1000\n\
         environment variable XOAUTH2_RELAY__SPOL__DIRECTORY: spol: is not a known key; did you mean spool?"
    );
}

#[test]
fn mistakes_are_told_as_json_too() {
    let wrong = read("test.toml", "hostnam = 1\n", std::iter::empty(), RELEASE).unwrap_err().json();
    let mistake = wrong.as_array().unwrap().iter().find(|mistake| mistake["key"] == "hostnam").unwrap();
    assert_eq!(mistake["origin"], "test.toml:1:1");
    assert_eq!(mistake["text"], "is not a known key; did you mean hostname?");
}

/// Each file of the folder ends with `#: ` lines: the mistakes that it must produce, all of them, in their order, without
/// the file's name. The line `#! contract` has it read with nothing refused as not built.
#[test]
fn every_wrong_configuration_is_told_as_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/config/wrong");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 60, "the folder was read: {}", files.len());
    let mut failures = String::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let demand = if text.contains("#! contract") { CONTRACT } else { RELEASE };
        let expected: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("#:")).map(str::trim_start).collect();
        let said = match read(&name, &text, std::iter::empty(), demand) {
            Ok(_) => "nothing".to_owned(),
            Err(mistakes) => mistakes.to_string().replace(&format!("{name}:"), ""),
        };
        if said.lines().map(str::trim_start).ne(expected.iter().copied()) {
            let _ = writeln!(failures, "{name} says\n{said}\n and should say\n{}\n", expected.join("\n"));
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

/// The contract file names every key there will be, with its default: the schema has exactly these.
#[test]
fn the_schema_is_the_contract() {
    let contract = include_str!("../../../../docs/configuration-contract.toml");
    let mut found = Vec::new();
    // Two of its examples cannot stand as they are: a hash cut short, and a fallback beside a route to one mailbox.
    let text = contract
        .replace("$argon2id$...", "$argon2id$v=19$m=8192,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA")
        .replace("fallback ", "# fallback ");
    let read = read_as(CONTRACT, &text, &[]).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let values = values(&read.json());
    let mut section = ("", std::slice::from_ref(&HOSTNAME), true, String::new());
    for line in contract.lines() {
        // Keys that are shown commented out are keys all the same.
        let (line, commented) = line.strip_prefix("# ").map_or((line, false), |line| (line, true));
        if let Some(header) = line.strip_prefix('[') {
            let name = header.trim_start_matches('[').split(['.', ']']).next().unwrap();
            let known = SECTIONS.iter().find(|section| section.name == name);
            let known = known.unwrap_or_else(|| panic!("[{name}] is unknown"));
            // A section of examples has no defaults, and neither has a route.
            let examples = line.contains("# example") || name == "route";
            let path = line.trim_start_matches('[').split(']').next().unwrap().replace('.', "/");
            section = (known.name, known.keys, !examples, path);
            continue;
        }
        let Some((name, rest)) = line.split_once('=') else { continue };
        let name = name.trim();
        if !name.bytes().all(|octet| octet.is_ascii_lowercase() || octet == b'_') || name.is_empty() {
            continue;
        }
        let key = section.1.iter().find(|key| key.name == name);
        let key = key.unwrap_or_else(|| panic!("{}.{name} is unknown", section.0));
        found.push((section.0, name));
        let shows_default = section.2 && !commented && !rest.contains("# example");
        if let (Fallback::Constant(default), true) = (&key.fallback, shows_default) {
            let name = if section.3.is_empty() { name.to_owned() } else { format!("{}/{name}", section.3) };
            assert_eq!(values.pointer(&format!("/{name}")), Some(&default()), "{name}");
        }
    }
    for section in SECTIONS {
        for key in section.keys {
            assert!(found.contains(&(section.name, key.name)), "{}.{} is not in the contract", section.name, key.name);
        }
    }
    assert!(found.len() > 80, "the contract was read: {}", found.len());
}

/// What is not built is refused by name, each key and each section, and only that.
#[test]
fn what_is_not_built_is_refused_by_name() {
    let mut refused = 0;
    for section in SECTIONS {
        for key in section.keys.iter().filter(|key| !key.built && section.built) {
            let value = (key.sample)(&mut Chance::new(7));
            let header = section.header().replace("NAME", "contoso").replace("[mailbox.contoso]", "[mailbox.scanner]");
            let required = if section.name == "route" { "name = \"x\"\nmailbox = [\"scanner\"]\n" } else { "" };
            let line = format!("{} = {}\n{required}", key.name, Toml(&value));
            let text = if SMALLEST.contains(&header) {
                SMALLEST.replace(&header, &format!("{header}\n{line}"))
            } else {
                format!("{SMALLEST}{header}\n{line}")
            };
            let said = mistakes(&text);
            let name = format!("{}: is not built yet in this release; remove it", key.name);
            assert!(said.lines().count() == 1 && said.ends_with(&name), "{said}");
            refused += 1;
        }
        if !section.built {
            let said = mistakes(&format!("{SMALLEST}{}\n", section.header().replace("NAME", "x")));
            assert!(
                said.ends_with(&format!("{}: is not built yet in this release; remove it", section.name)),
                "{said}"
            );
            refused += 1;
        }
    }
    assert!(refused > 2, "{refused}");
}

/// A whole configuration by chance, whose sections go together.
fn configuration(chance: &mut Chance) -> Json {
    let mut root = json!({ "hostname": (HOSTNAME.sample)(chance) });
    let tenants: Vec<_> = (0..=chance.below(2)).map(|at| format!("tenant_{at}")).collect();
    let mailboxes: Vec<_> = (0..=chance.below(3)).map(|at| format!("mailbox_{at}")).collect();
    let users: Vec<_> = (0..=chance.below(2)).map(|at| format!("user_{at}")).collect();
    let one_of = |names: &[String], chance: &mut Chance| Json::from(vec![chance.one(names).clone()]);
    for section in SECTIONS.iter().filter(|section| section.form == Form::One) {
        root[section.name] = chance.table(section.keys);
    }
    root["spool"]["max_bytes"] = json!("20 GiB");
    let schedule = &mut root["retry"]["schedule"];
    if schedule.is_null() {
        *schedule = json!(["1m"]);
    }
    let mut write = |section: &str, names: &[String], chance: &mut Chance| {
        let keys = SECTIONS.iter().find(|known| known.name == section).unwrap().keys;
        for name in names {
            root[section][name] = chance.table(keys);
        }
    };
    write("user", &users, chance);
    write("tenant", &tenants, chance);
    write("mailbox", &mailboxes, chance);
    write("listener", &["local".to_owned(), "lan".to_owned()], chance);
    for (at, name) in ["local", "lan"].into_iter().enumerate() {
        let listener = &mut root["listener"][name];
        listener["address"] = json!(format!("127.0.0.{}:{}", at + 1, 2525 + at));
        listener["networks"] = json!(["10.0.0.0/8", "::1/128"]);
        listener["max_connections"] = json!(1_000_000);
        listener["max_messages_per_minute"] = json!(1_000_000);
        listener["allow_cleartext_auth"] = json!(true);
        let tls = listener["tls"].as_str().is_some_and(|tls| tls != "none");
        for key in ["certificate", "private_key"] {
            listener.as_object_mut().unwrap().remove(key);
            if tls {
                listener[key] = json!("/etc/tls.pem");
            }
        }
    }
    for name in &tenants {
        let tenant = root["tenant"][name].as_object_mut().unwrap();
        for key in ["client_secret", "certificate_credential", "federated_token", "managed_identity"] {
            tenant.remove(key);
        }
        tenant.remove("grant");
        tenant.remove("external_recipients_per_day");
        if tenant.contains_key("source_address") {
            // It has a family of its own.
            tenant.remove("address_family");
        }
        tenant.insert("client_secret".to_owned(), json!({ "systemd_credential": "x" }));
    }
    for (at, name) in mailboxes.iter().enumerate() {
        let mailbox = &mut root["mailbox"][name];
        mailbox["tenant"] = json!(chance.one(&tenants));
        mailbox["address"] = json!(format!("box{at}@contoso.com"));
        mailbox["login"] = json!(format!("login{at}@contoso.com"));
        mailbox["connections"] = json!(chance.between(2, 1000));
    }
    let mut routes = Vec::new();
    for at in 0..=chance.below(2) {
        let keys = SECTIONS.iter().find(|known| known.name == "route").unwrap().keys;
        let mut route = chance.table(keys);
        let all = ["local".to_owned(), "lan".to_owned()];
        route["name"] = json!(format!("route {at}"));
        route["mailbox"] = one_of(&mailboxes, chance);
        route["users"] = one_of(&users, chance);
        route["listeners"] = one_of(&all, chance);
        route.as_object_mut().unwrap().remove("fallback");
        routes.push(route);
    }
    root["route"] = Json::from(routes);
    root
}

/// As a file: sections with headers.
fn file(configuration: &Json) -> String {
    let mut text = format!("hostname = {}\n", Toml(&configuration["hostname"]));
    let mut table = |header: String, table: &Map<String, Json>| {
        let _ = writeln!(text, "\n{header}");
        for (key, value) in table {
            let _ = writeln!(text, "{} = {}", TomlKey(key), Toml(value));
        }
    };
    for (section, content) in configuration.as_object().unwrap().iter().filter(|(name, _)| *name != "hostname") {
        match SECTIONS.iter().find(|known| known.name == section).unwrap().form {
            Form::One => table(format!("[{section}]"), content.as_object().unwrap()),
            Form::Named => {
                for (name, content) in content.as_object().unwrap() {
                    table(format!("[{section}.{}]", TomlKey(name)), content.as_object().unwrap());
                }
            }
            Form::Ordered => {
                for content in content.as_array().unwrap() {
                    table(format!("[[{section}]]"), content.as_object().unwrap());
                }
            }
        }
    }
    text
}

/// Without the sources.
fn values(json: &Json) -> Json {
    match json {
        Json::Object(entries) if entries.contains_key("source") => entries["value"].clone(),
        Json::Object(entries) => {
            Json::Object(entries.iter().map(|(key, value)| (key.clone(), values(value))).collect())
        }
        Json::Array(items) => items.iter().map(values).collect(),
        other => other.clone(),
    }
}

proptest! {
    /// What is printed reads as the same configuration, once the hashes that it hides are put back.
    #[test]
    fn a_right_configuration_survives_print_and_parse(seed in any::<u64>()) {
        let text = file(&configuration(&mut Chance::new(seed)));
        let one = read_as(CONTRACT, &text, &[]);
        prop_assert!(one.is_ok(), "{}\n{text}", one.unwrap_err());
        let one = one.unwrap();
        let printed = one.to_string().replace("$hidden$hidden", "$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA");
        let other = read_as(CONTRACT, &printed, &[]);
        prop_assert!(other.is_ok(), "{}\n{printed}", other.unwrap_err());
        prop_assert_eq!(values(&other.unwrap().json()), values(&one.json()));
    }

    /// Whatever single line is spoiled, its line is named.
    #[test]
    fn a_single_corruption_is_told_on_its_line(seed in any::<u64>(), how in 0..6u8) {
        let mut chance = Chance::new(seed);
        let text = file(&configuration(&mut chance));
        let mut lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
        let assignments: Vec<usize> = (0..lines.len()).filter(|at| lines[*at].contains(" = ")).collect();
        let at = *chance.one(&assignments);
        let (key, value) = lines[at].split_once(" = ").map(|(key, value)| (key.to_owned(), value.to_owned())).unwrap();
        lines[at] = match how {
            // An unknown key.
            0 => format!("{key}x = {value}"),
            // No value.
            1 => format!("{key} = "),
            // A value of a type that no key has.
            2 => format!("{key} = 1.5"),
            // A text that is never closed.
            3 => format!("{key} = \"{value}"),
            // The key twice.
            4 => format!("{key} = {value} = {value}"),
            // A table where none belongs, or the wrong one.
            _ => format!("{key} = {{ unheard_of = 1 }}"),
        };
        let text = lines.join("\n");
        let said = read_as(CONTRACT, &text, &[]);
        prop_assert!(said.is_err(), "{text}");
        let said = said.unwrap_err();
        let place = format!("test.toml:{}:", at + 1);
        prop_assert!(said.lines().any(|line| line.starts_with(&place)), "{place}\n{said}\n{text}");
    }

    /// The same of a single character in a key or its value, whichever: taken away, doubled or another. What is right all the
    /// same is no corruption. Two kinds are told elsewhere, and rightly: a bracket that is missing, where the next line shows
    /// it; and two values that no longer go together, where the other of them stands.
    #[test]
    fn a_single_character_is_told_on_its_line(seed in any::<u64>(), other in "[ -~]") {
        let mut chance = Chance::new(seed);
        let text = file(&configuration(&mut chance));
        let mut lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
        let assignments: Vec<usize> = (0..lines.len()).filter(|at| lines[*at].contains(" = ")).collect();
        let at = *chance.one(&assignments);
        let key = lines[at].split(' ').next().unwrap_or_default().to_owned();
        let places: Vec<(usize, char)> = lines[at].char_indices().collect();
        let (place, old) = *chance.one(&places);
        let new = match chance.below(3) {
            0 => String::new(),
            1 => format!("{old}{old}"),
            _ => other,
        };
        lines[at].replace_range(place..place + old.len_utf8(), &new);
        let text = lines.join("\n");
        let Err(said) = read_as(CONTRACT, &text, &[]) else { return Ok(()) };
        let is_told = |line: &str| {
            let (here, next) = (format!("test.toml:{}:", at + 1), format!("test.toml:{}:", at + 2));
            let by_a_bracket = "[]{}\"'\\".contains(old) || new.contains(['[', ']', '{', '}', '"', '\'', '\\', '#']);
            let by_another = line.contains(&key) || ["max_connections", "same login", "same Entra tenant", "another route", "never match", "spool.max_bytes"].iter().any(|text| line.contains(text));
            line.starts_with(&here) || by_a_bracket && line.starts_with(&next) || by_another
        };
        prop_assert!(said.lines().any(is_told), "line {}\n{said}\n{text}", at + 1);
    }

    /// Whatever the file holds, reading it ends in settings or in mistakes that name the file.
    #[test]
    fn no_text_is_too_strange(text in "(?s).{0,200}", seed in any::<u64>(), at in any::<usize>()) {
        let mut whole = file(&configuration(&mut Chance::new(seed)));
        let places: Vec<usize> = whole.char_indices().map(|(at, _)| at).collect();
        whole.insert_str(places[at % places.len()], &text);
        for text in [&whole, &text] {
            if let Err(said) = read_as(RELEASE, text, &[]) {
                // A text that was inserted may stand in a mistake with its own line ends.
                prop_assert!(said.starts_with("test.toml"), "{said}");
            }
        }
    }
}

/// Every key that can be given in one value, by its path below a section.
fn scalars(keys: &'static [Key], path: &str) -> Vec<(String, &'static Key)> {
    let mut found = Vec::new();
    for key in keys {
        let path = format!("{path}{}", key.name);
        match (key.shape)() {
            Shape::Table(inner) => found.extend(scalars(inner, &format!("{path}."))),
            Shape::Scalar(_) | Shape::List(_) | Shape::Map(..) | Shape::Secret => found.push((path, key)),
        }
    }
    found
}

/// The environment's text of a value, and the value's path below the key.
fn environment_text(value: &Json) -> (String, String) {
    match value {
        Json::String(text) => (String::new(), text.clone()),
        Json::Array(items) => {
            (String::new(), items.iter().map(|item| environment_text(item).1).collect::<Vec<_>>().join(","))
        }
        Json::Object(entries) => match entries.iter().next() {
            Some((form, value)) if ["file", "env", "systemd_credential"].contains(&form.as_str()) => {
                (format!(".{form}"), environment_text(value).1)
            }
            _ => {
                let pairs: Vec<_> =
                    entries.iter().map(|(old, new)| format!("{old}={}", environment_text(new).1)).collect();
                (String::new(), pairs.join(","))
            }
        },
        other => (String::new(), other.to_string()),
    }
}

/// The environment can give every key there is, and it wins over the file.
#[test]
fn every_key_can_be_given_by_the_environment() {
    let mut checked = 0;
    for section in SECTIONS.iter().filter(|section| section.form != Form::Ordered) {
        for (path, key) in scalars(section.keys, "") {
            check_override(section, &path, key);
            checked += 1;
        }
    }
    let configuration = read_as(RELEASE, SMALLEST, &[("XOAUTH2_RELAY__HOSTNAME", "from.environment")]).unwrap();
    assert_eq!(configuration.settings.hostname.as_str(), "from.environment");
    assert!(checked > 70, "{checked}");
}

fn check_override(section: &Section, path: &str, key: &Key) {
    let mut chance = Chance::new(path.len() as u64);
    let mut base = configuration(&mut chance);
    let owner = match section.form {
        Form::One => section.name.to_owned(),
        _ => format!("{}.{}", section.name, base[section.name].as_object().unwrap().keys().next().unwrap()),
    };
    if let Some((table, _)) = path.rsplit_once('.') {
        // The rest of its table stands in the file.
        let key = section.keys.iter().find(|key| key.name == table).unwrap();
        *base.pointer_mut(&format!("/{}", owner.replace('.', "/"))).unwrap() = {
            let mut section = base.pointer(&format!("/{}", owner.replace('.', "/"))).unwrap().clone();
            section[table] = (key.sample)(&mut chance);
            section
        };
    }
    // A value other than the file's, where there is another.
    let pointer = format!("/{}/{}", owner.replace('.', "/"), path.replace('.', "/"));
    let in_file = base.pointer(&pointer).cloned();
    let value = (0..50).map(|_| (key.sample)(&mut chance)).find(|value| Some(value) != in_file.as_ref());
    let Some(value) = value else { panic!("{pointer} has but one value") };
    let (below, text) = environment_text(&value);
    let full = format!("{owner}.{path}{below}");
    let variable = format!("XOAUTH2_RELAY__{}", full.replace('.', "__").to_ascii_uppercase());
    // The relations of a value by chance are not the matter here.
    let mistakes = Mistakes::default();
    let variables = [(variable.clone(), text)];
    let demand = Demand { relations: false, ..CONTRACT };
    let (settings, origins) = interpret("test.toml", &file(&base), &variables, demand, &mistakes).unwrap();
    let configuration = Configuration { settings, origins, misspelt: Vec::new() };
    assert!(mistakes.is_empty(), "{variable}: {mistakes}");
    let source = configuration.json().pointer(&format!("/{}/source", full.replace('.', "/"))).cloned();
    // An empty map or list shows nothing to point at below it.
    assert_eq!(source, Some(json!({ "environment": variable })), "{full}");
}

/// With a listener `local` and one `lan` of these modes, and the tenant's grant.
fn with_modes(local: &str, lan: &str, delegated: bool) -> String {
    let lan = if lan.is_empty() {
        String::new()
    } else {
        format!("[listener.lan]\naddress = \"127.0.0.1:2526\"\ndelivery = {lan:?}\n")
    };
    let grant = if delegated { "grant = \"delegated\"\n[mailbox" } else { "[mailbox" };
    let tenant = SMALLEST.replace("[mailbox", grant);
    format!("{tenant}[listener.local]\ndelivery = {local:?}\n{lan}")
}

#[test]
fn there_is_state_where_something_is_queued_somebody_signs_in_or_a_directory_is_given() {
    const USUAL: &str = "/var/lib/xoauth2-relay";
    let socket = |directory: &str| Some(format!("{directory}/control.sock"));
    for (local, lan, delegated, given, expected) in [
        ("queue", "", false, None, Some((USUAL, "listener.local.delivery"))),
        ("direct", "", false, None, None),
        ("direct", "direct", false, None, None),
        ("direct", "queue", false, None, Some((USUAL, "listener.lan.delivery"))),
        ("queue", "direct", false, None, Some((USUAL, "listener.local.delivery"))),
        ("direct", "", true, None, Some((USUAL, "tenant.contoso.grant"))),
        ("queue", "", true, None, Some((USUAL, "listener.local.delivery"))),
        ("direct", "", false, Some("file"), Some(("/given", "spool.directory"))),
        ("direct", "", false, Some("XOAUTH2_RELAY__SPOOL__DIRECTORY"), Some(("/given", "spool.directory"))),
        ("direct", "", false, Some("STATE_DIRECTORY"), Some(("/given", "spool.directory"))),
        ("direct", "", false, Some("XDG_STATE_HOME"), Some(("/given/xoauth2-relay", "spool.directory"))),
        ("queue", "", false, Some("STATE_DIRECTORY"), Some(("/given", "listener.local.delivery"))),
        ("direct", "", true, Some("file"), Some(("/given", "tenant.contoso.grant"))),
    ] {
        let case = (local, lan, delegated, given);
        let mut text = with_modes(local, lan, delegated);
        let environment = match given {
            Some("file") => {
                text += "[spool]\ndirectory = \"/given\"\n";
                vec![]
            }
            Some(variable) => vec![(variable, "/given")],
            None => vec![],
        };
        let settings = settings(&text, &environment);
        let found = settings.state_directory().map(|directory| directory.to_str().unwrap());
        assert_eq!(found, expected.map(|(directory, _)| directory), "{case:?}");
        assert_eq!(settings.why_state().as_deref(), expected.map(|(_, why)| why), "{case:?}");
        let found = settings.control_socket().map(|path| path.display().to_string());
        assert_eq!(found, expected.and_then(|(directory, _)| socket(directory)), "{case:?}");
        let both = local != lan && !lan.is_empty();
        assert_eq!(settings.kept_for_queue(), usize::from(both), "{case:?}");
    }
}

#[test]
fn a_control_socket_is_where_it_is_given_with_or_without_state() {
    for (mode, written, environment, expected) in [
        ("direct", "", None, None),
        ("direct", "/x.sock", None, Some("/x.sock")),
        ("direct", "", Some("/run/z"), Some("/run/z/control.sock")),
        ("direct", "/x.sock", Some("/run/z"), Some("/x.sock")),
        ("queue", "", None, Some("/var/lib/xoauth2-relay/control.sock")),
        ("queue", "", Some("/run/z"), Some("/run/z/control.sock")),
        ("queue", "/x.sock", Some("/run/z"), Some("/x.sock")),
    ] {
        let mut text = with_modes(mode, "", false);
        if !written.is_empty() {
            let _ = write!(text, "[control]\nsocket = {written:?}\n");
        }
        let environment: Vec<_> = environment.map(|directory| ("RUNTIME_DIRECTORY", directory)).into_iter().collect();
        let settings = settings(&text, &environment);
        let found = settings.control_socket().map(|path| path.to_str().unwrap());
        assert_eq!(found, expected, "{mode} {written} {environment:?}");
        assert_eq!(settings.state_directory().is_some(), mode == "queue");
    }
}

/// Whoever asks the daemon while the file is wrong is led to where a queue would be.
#[test]
fn a_listener_that_is_wrong_counts_as_one_that_queues() {
    let mistakes = Mistakes::default();
    let text = with_modes("direct", "directly", false);
    let (settings, _) = interpret("test.toml", &text, &[], RELEASE, &mistakes).unwrap();
    assert!(!mistakes.is_empty());
    assert_eq!(settings.state_directory(), Some(Path::new("/var/lib/xoauth2-relay")));
}

#[test]
fn a_queue_that_nothing_goes_through_need_not_hold_a_message() {
    let small = "[spool]\nmax_bytes = \"1 MiB\"\n";
    assert!(mistakes(&format!("{}{small}", with_modes("queue", "", false))).contains("spool.max_bytes"));
    settings(&format!("{}{small}", with_modes("direct", "", false)), &[]);
}

#[test]
fn what_there_is_not_is_not_printed() {
    let configuration = read_as(RELEASE, &with_modes("direct", "", false), &[]).unwrap();
    let (printed, json) = (configuration.to_string(), configuration.json());
    assert!(!printed.contains("\ndirectory = ") && !printed.contains("\nsocket = "), "{printed}");
    assert_eq!((&json["spool"]["directory"], &json["control"]), (&Json::Null, &Json::Null));
    let again = read_as(RELEASE, &printed, &[]).unwrap();
    assert_eq!(again.settings.state_directory(), None);
}
