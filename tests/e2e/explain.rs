//! `explain` as an administrator runs it: on a configuration alone, with no daemon, no queue and no secret there.

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value as Json;
use tempfile::TempDir;

use crate::harness::binary;

const CONFIGURATION: &str = r#"
[spool]
directory = "/nonexistent/state"
[tenant.contoso]
tenant_id = "11111111-2222-3333-4444-555555555555"
client_id = "66666666-7777-8888-9999-000000000000"
client_secret = { file = "/nonexistent/secret" }
[tenant.fabrikam]
tenant_id = "21111111-2222-3333-4444-555555555555"
client_id = "66666666-7777-8888-9999-000000000001"
client_secret = { file = "/nonexistent/secret" }
[mailbox.erp]
tenant = "contoso"
address = "erp@contoso.com"
[mailbox.out]
tenant = "fabrikam"
address = "out@fabrikam.com"
[[route]]
name = "partner"
senders = ["*@contoso.com"]
recipients = ["*@fabrikam.com"]
deny_recipients = ["boss@fabrikam.com"]
mailbox = ["out"]
[[route]]
name = "erp"
senders = ["*@contoso.com"]
mailbox = ["erp"]
[rewrite]
senders = { "root@erp01" = "erp@contoso.com" }
"#;

struct Said {
    code: Option<i32>,
    output: String,
    complaint: String,
}

impl Said {
    fn json(&self) -> Json {
        serde_json::from_str(&self.output).unwrap_or_else(|error| panic!("{error}: {}{}", self.output, self.complaint))
    }
}

struct World {
    directory: TempDir,
}

impl World {
    fn new(configuration: &str) -> Self {
        let directory = TempDir::new().unwrap();
        std::fs::write(directory.path().join("relay.toml"), configuration).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn explain(&self, arguments: &str, message: &str) -> Said {
        let mut command = binary();
        command.arg("explain").arg("--config").arg(self.path("relay.toml")).args(arguments.split(' '));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A command that reads no message has gone before it is written.
        let _ = child.stdin.take().unwrap().write_all(message.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        Said { code: output.status.code(), output: text(&output.stdout), complaint: text(&output.stderr) }
    }
}

#[test]
fn a_message_that_would_be_taken_is_exit_0_and_says_how_it_leaves() {
    let world = World::new(CONFIGURATION);
    let said = world.explain("--sender root@erp01 --to a@example.com", "");
    assert_eq!((said.code, said.complaint.as_str()), (Some(0), ""), "{}", said.output);
    for part in [
        "Mail of root@erp01 from 127.0.0.1 at listener local would be taken.",
        "root@erp01 becomes erp@contoso.com by [rewrite]",
        "2 \"erp\": senders: erp@contoso.com is in *@contoso.com",
        "route 1 \"partner\" but for recipients: a@example.com is not in",
        "- From: root@erp01",
        "+ From: erp@contoso.com",
    ] {
        assert!(said.output.contains(part), "{part:?} is missing in\n{}", said.output);
    }
}

#[test]
fn a_printers_file_on_standard_input_says_sender_and_recipients_itself() {
    let world = World::new(CONFIGURATION);
    let message = "From: ERP <root@erp01>\nTo: A <a@example.com>, b@fabrikam.com\nBcc: c@example.com\n\nbody\n";
    let said = world.explain("--message - --json", message);
    assert_eq!(said.code, Some(0), "{}", said.complaint);
    let json = said.json();
    let parts: Vec<_> = json["deliveries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| {
            let recipients: Vec<_> = part["recipients"].as_array().unwrap().iter().filter_map(Json::as_str).collect();
            (part["tenant"].as_str().unwrap(), recipients)
        })
        .collect();
    assert_eq!(parts, [("contoso", vec!["a@example.com", "c@example.com"]), ("fabrikam", vec!["b@fabrikam.com"])]);
    let diff = json["deliveries"][0]["mailboxes"][0]["header_diff"].as_array().unwrap();
    assert!(diff.contains(&"- Bcc: c@example.com".into()), "{diff:?}");
    assert_eq!(json["taken"], true);
}

#[test]
fn a_message_that_no_route_takes_is_exit_77_with_the_reply_and_the_near_misses() {
    let world = World::new(CONFIGURATION);
    let said = world.explain("--sender root@erp02 --to a@example.com --json", "");
    assert_eq!(said.code, Some(77), "{}", said.complaint);
    let json = said.json();
    assert_eq!(json["taken"], false);
    let refused = &json["refused"][0];
    assert_eq!(refused["command"], "MAIL");
    assert!(refused["reply"].as_str().unwrap().starts_with("550 5.7.1 No route takes this mail"), "{refused}");
    let near: Vec<_> = refused["near_misses"].as_array().unwrap().iter().map(|near| &near["text"]).collect();
    assert_eq!(near, ["root@erp02 is not in *@contoso.com", "root@erp02 is not in *@contoso.com"]);
}

#[test]
fn a_refused_recipient_is_exit_77_and_the_others_are_explained() {
    let world = World::new(CONFIGURATION);
    let said = world.explain("--sender erp@contoso.com --to boss@fabrikam.com --to a@example.com", "");
    assert_eq!(said.code, Some(77), "{}", said.complaint);
    for part in [
        "would be taken for 1 of",
        "! At RCPT for boss@fabrikam.com the client hears: 550 5.7.1",
        "Do this: add the address to the route's allow_recipients",
        "DELIVERY 1\n  to             a@example.com\n",
    ] {
        assert!(said.output.contains(part), "{part:?} is missing in\n{}", said.output);
    }
}

#[test]
fn a_message_that_cannot_be_read_or_makes_no_sense_is_told_so() {
    let world = World::new(CONFIGURATION);
    let said = world.explain("--message /nonexistent.eml", "");
    assert_eq!(said.code, Some(69), "{}", said.output);
    assert!(said.complaint.contains("/nonexistent.eml cannot be read"), "{}", said.complaint);
    let said = world.explain("--message -", "\u{0}\u{1}no header at all");
    assert_eq!(said.code, Some(64), "{}", said.output);
    assert!(said.complaint.contains("--sender ADDRESS"), "{}", said.complaint);
    let said = world.explain("--message - --sender erp@contoso.com --to a@example.com", "From: \u{0}<<>>,;\n\n\u{0}");
    assert_eq!(said.code, Some(0), "{}{}", said.output, said.complaint);
    assert!(said.output.contains("is repaired"), "{}", said.output);
    assert!(!said.output.contains('\u{0}'));
}

#[test]
fn a_wrong_configuration_or_command_line_is_exit_64_with_every_mistake() {
    let world = World::new(&CONFIGURATION.replace("[\"erp\"]", "[\"epr\"]"));
    let said = world.explain("--sender a@b.c --to a@b.c", "");
    assert_eq!(said.code, Some(64), "{}", said.output);
    assert!(said.complaint.contains("epr"), "{}", said.complaint);
    let said = world.explain("--sender a@b.c --to a@b.c --json", "");
    assert_eq!(said.code, Some(64));
    assert!(!said.json()["mistakes"].as_array().unwrap().is_empty());
    let world = World::new(CONFIGURATION);
    assert_eq!(world.explain("--sender a@b.c", "").code, Some(64));
    assert_eq!(world.explain("--sender a@b.c --to a@b.c --client nowhere", "").code, Some(64));
    assert_eq!(world.explain("--sender a@b.c --to a@b.c --listener nowhere", "").code, Some(64));
}
