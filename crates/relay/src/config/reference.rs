//! The reference page and the annotated example, made from the schema, so that they cannot differ from what is read.

use std::fmt::Write;

use super::effective::fallback;
use super::schema::{Allowed, Fallback, Key, Shape, Word};
use super::settings::{HOSTNAME, SECTIONS};
use super::value::Toml;

const HEAD: &str = "\
<!-- Made by `xoauth2-relay check --reference`; do not edit. -->
# Configuration

One TOML file, `/etc/xoauth2-relay/xoauth2-relay.toml` unless `--config` names another, under an environment layer.
`xoauth2-relay check` tells every mistake in one run with its line and column, what was found and what is allowed; if there is
none it prints the configuration in effect with the source of each value (`--json` for programs). An unknown key is a mistake.
A key or word marked *later* is part of the contract and not built yet: it is refused by its name and never ignored.
[example.toml](example.toml) is all of this as one annotated file.

- **Environment**: `XOAUTH2_RELAY__TENANT__CONTOSO__CLIENT_ID=...`, two underscores between the names; it lies over the file.
  Lists are comma-separated, maps are `old=new,old=new`. A secret reference given there
  (`XOAUTH2_RELAY__TENANT__CONTOSO__CLIENT_SECRET__ENV=NAME`) replaces the whole reference of the file. Routes are file only.
- **Names** that you choose are of lower-case letters, digits and `_`, so that the environment can reach them.
- **Durations**: a whole number and `s`, `m`, `h` or `d`. **Sizes**: a whole number and `B`, `KiB`, `MiB`, `GiB` or `TiB`.
- **Secrets** never stand in the configuration: `{ file = \"...\" }`, `{ env = \"NAME\" }` or `{ systemd_credential = \"name\" }`. A file
  that group can write or others can read is refused, unless it lies in memory as containers' secrets do. A final newline is cut.
- **Patterns** of addresses are `erp@contoso.com`, `*@contoso.com` or `*`.
- **CA files** that are named are the only ones trusted; else the machine's store is, or where there is none Mozilla's, which is built in.

";

/// The reference page, in Markdown.
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    page.push_str("## Top level\n\n");
    keys(&mut page, std::slice::from_ref(&HOSTNAME));
    for section in SECTIONS {
        let later = if section.built { "" } else { " *(later)*" };
        let _ = write!(page, "\n## `{}`{later}\n\n{}\n", section.header(), prose(section.about));
        keys(&mut page, section.keys);
    }
    page
}

fn keys(page: &mut String, keys: &[Key]) {
    page.push_str("| key | left out | what it is |\n| --- | --- | --- |\n");
    rows(page, "", keys);
}

fn rows(page: &mut String, path: &str, keys: &[Key]) {
    for key in keys {
        let later = if key.built { "" } else { " *(later)*" };
        let name = format!("{path}{}", key.name);
        let about = prose(key.about).replace('\n', " ");
        let _ = writeln!(page, "| `{name}`{later} | {} | {} {}. |", fallback(key), about.trim(), form(&(key.shape)()));
        if let Shape::Table(inner) = (key.shape)() {
            rows(page, &format!("{name}."), inner);
        }
    }
}

fn form(shape: &Shape) -> String {
    match shape {
        Shape::Scalar(allowed) => capital(&words(allowed)),
        Shape::List(allowed) => format!("List, each {}", words(allowed)),
        Shape::Map(old, new) => format!("Map from {} to {}", words(old), words(new)),
        Shape::Secret => "Secret reference".to_owned(),
        Shape::Table(_) => "Table".to_owned(),
    }
}

/// What is allowed; of a choice, what each word means.
fn words(Allowed { text, words }: &Allowed) -> String {
    if words.is_empty() {
        return text.replace('|', "\\|");
    }
    let meaning = |word: &Word| {
        let later = if word.built { "" } else { " *(later)*" };
        format!("`{:?}`{later}: {}", word.name, prose(word.about).trim().trim_end_matches('.'))
    };
    words.iter().map(meaning).collect::<Vec<_>>().join("; ")
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

/// A doc comment without the space that starts each line.
fn prose(about: &str) -> String {
    about.lines().flat_map(|line| [line.strip_prefix(' ').unwrap_or(line), "\n"]).collect()
}

const EXAMPLE_HEAD: &str = "\
# xoauth2-relay: every key, what it does, and what is in effect when it is left out, where it is not marked as an example.
# Made by `xoauth2-relay check --example`. What is not commented out is the smallest file that works; \"later\" marks what is not
# built yet and would be refused. docs/configuration.md tells more of each.
";

/// What the example shows where no default can: the keys of the smallest file, and examples of others.
const SHOWN: [(&str, &str); 34] = [
    ("hostname", "\"relay01.example.com\""),
    ("listener.certificate", "\"/etc/xoauth2-relay/tls.pem\""),
    ("listener.private_key", "\"/etc/xoauth2-relay/tls.key\""),
    ("user.password_hash", "\"$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA\""),
    ("tenant.tenant_id", "\"11111111-2222-3333-4444-555555555555\""),
    ("tenant.client_id", "\"66666666-7777-8888-9999-000000000000\""),
    ("tenant.client_secret", "{ file = \"/etc/xoauth2-relay/contoso.secret\" }"),
    (
        "tenant.certificate_credential",
        "{ certificate = \"app.pem\", key = { file = \"app.key\" }, algorithm = \"PS256\" }",
    ),
    ("tenant.federated_token", "{ file = \"/var/run/secrets/azure/tokens/azure-identity-token\" }"),
    ("tenant.managed_identity", "{ client_id = \"77777777-8888-9999-aaaa-000000000000\" }"),
    ("tenant.client_secret_expires", "\"2027-05-27\""),
    ("tenant.authority", "\"https://login.microsoftonline.com\""),
    ("tenant.authority_ca_file", "\"/etc/xoauth2-relay/ca.pem\""),
    ("tenant.scope", "\"https://outlook.office365.com/.default\""),
    ("tenant.smtp", "{ host = \"smtp.office365.com\", port = 587 }"),
    ("tenant.source_address", "\"10.1.0.5\""),
    ("tenant.https_proxy", "\"http://proxy:3128\""),
    ("tenant.smtp_proxy", "\"http://proxy:3128\""),
    ("mailbox.tenant", "\"contoso\""),
    ("mailbox.address", "\"scanner@contoso.com\""),
    ("mailbox.login", "\"scanner@contoso.onmicrosoft.com\""),
    ("mailbox.from", "\"documents@contoso.com\""),
    ("route.name", "\"erp invoices\""),
    ("route.listeners", "[\"local\"]"),
    ("route.networks", "[\"10.1.2.0/24\"]"),
    ("route.users", "[\"erp\"]"),
    ("route.senders", "[\"*@old.local\"]"),
    ("route.recipients", "[\"*\"]"),
    ("route.mailbox", "[\"scanner\"]"),
    ("route.fallback", "\"scanner\""),
    ("rewrite.senders", "{ \"root@erp01\" = \"erp@contoso.com\", \"@old.local\" = \"@contoso.com\" }"),
    ("vault.key", "{ systemd_credential = \"vault-key\" }"),
    ("spool.directory", "\"/var/lib/xoauth2-relay\""),
    ("control.socket", "\"/run/xoauth2-relay/control.sock\""),
];

/// The sections that the smallest file has.
const SMALLEST: [&str; 2] = ["tenant", "mailbox"];
/// Its keys.
const SMALLEST_KEYS: [&str; 4] = ["tenant.tenant_id", "tenant.client_id", "tenant.client_secret", "mailbox.address"];

/// Shown values that are in effect although they depend on the rest.
const DEFAULTS: [&str; 6] =
    ["tenant.authority", "tenant.scope", "tenant.smtp", "mailbox.tenant", "spool.directory", "rewrite.recipients"];

/// The annotated example.
pub fn example() -> String {
    let mut file = EXAMPLE_HEAD.to_owned();
    file.push('\n');
    shown(&mut file, "", &HOSTNAME, true);
    for section in SECTIONS {
        let name = match section.name {
            "listener" => "local",
            "user" => "erp",
            "tenant" => "contoso",
            _ => "scanner",
        };
        let header = section.header().replace("NAME", name);
        let later = if section.built { "" } else { "   # later" };
        let comment = if SMALLEST.contains(&section.name) { "" } else { "# " };
        let _ = write!(file, "\n{}{comment}{header}{later}\n", commented(section.about));
        for key in section.keys {
            shown(&mut file, section.name, key, section.built);
        }
    }
    file
}

fn shown(file: &mut String, section: &str, key: &Key, section_is_built: bool) {
    let path = if section.is_empty() { key.name.to_owned() } else { format!("{section}.{}", key.name) };
    let value = SHOWN.iter().find(|(shown, _)| *shown == path).map(|(_, value)| (*value).to_owned());
    let value = value.or_else(|| match &key.fallback {
        Fallback::Constant(default) => Some(Toml(&default()).to_string()),
        _ => None,
    });
    let is_default = matches!(key.fallback, Fallback::Constant(_)) || DEFAULTS.contains(&path.as_str());
    let remark = match (key.built || !section_is_built, is_default || SMALLEST_KEYS.contains(&path.as_str())) {
        (true, true) => "",
        (true, false) => "   # an example",
        (false, true) => "   # later",
        (false, false) => "   # an example; later",
    };
    let comment = if SMALLEST_KEYS.contains(&path.as_str()) { "" } else { "# " };
    // A test holds that there is one for every key.
    let value = value.unwrap_or_else(|| "...".to_owned());
    file.push_str(&commented(key.about));
    if let Shape::Scalar(Allowed { words, .. }) = (key.shape)() {
        for word in words {
            let later = if word.built { "" } else { " (later)" };
            let _ = writeln!(file, "#   {:?}{later}: {}", word.name, prose(word.about).trim());
        }
    }
    let _ = writeln!(file, "{comment}{} = {value}{remark}", key.name);
}

fn commented(about: &str) -> String {
    prose(about).replace('`', "").lines().flat_map(|line| ["# ", line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::super::secret_reference;
    use super::*;

    /// A page under docs/ that is made from the schema.
    fn is_made(page: &str, file: &str) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(file);
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == page, "docs/{file} is not what the schema makes; write it anew with `.ci/pages`");
    }

    #[test]
    fn the_reference_page_is_the_schemas() {
        is_made(&reference(), "configuration.md");
    }

    #[test]
    fn the_example_is_the_schemas() {
        is_made(&example(), "example.toml");
    }

    #[test]
    fn the_example_shows_a_value_for_every_key() {
        assert!(!example().contains("..."));
    }

    #[test]
    fn what_the_example_shows_are_keys() {
        for (path, _) in SHOWN {
            let (section, name) = path.split_once('.').unwrap_or(("", path));
            let keys = SECTIONS.iter().find(|known| known.name == section).map_or(&[HOSTNAME][..], |known| known.keys);
            assert!(keys.iter().any(|key| key.name == name), "{path}");
        }
    }

    #[test]
    fn secrets_are_told_as_they_are_read() {
        assert!(secret_reference::FORMS.iter().all(|form| HEAD.contains(form)));
    }
}
