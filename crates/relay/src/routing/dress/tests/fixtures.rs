//! Headers in the manner of real devices and programs (`tests/headers`), through what acceptance repairs and then dressed.

use std::fs;
use std::path::{Path, PathBuf};

use wire::Dialect;

use super::*;
use crate::config::SenderPolicy;
use crate::intake::repair::{repair_date, settle_from};

/// Stands in for a Date that nobody understands.
const DATE: &str = "Sat, 21 Nov 2026 07:54:00 +0000";

/// One file, whose form its folder's README says.
struct Fixture {
    policy: SenderPolicy,
    mail_from: ReversePath,
    identity: Identity,
    senders: AddressMap,
    given: Vec<u8>,
    /// The rest of the line `== `, and what stands under it.
    wanted: (String, Vec<u8>),
}

impl Fixture {
    fn read(octets: &[u8]) -> Self {
        let mut sections = sections(octets).into_iter();
        let settings = String::from_utf8(sections.next().unwrap().1).unwrap();
        let mut policy = None;
        let (mut mail_from, mut from, mut may_send_as) = (None, "scanner@contoso.com".to_owned(), String::new());
        let mut rules = Vec::new();
        for line in settings.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (key, value) = line.split_once(':').unwrap();
            match (key, value.trim()) {
                ("policy", "auto") => policy = Some(Auto),
                ("policy", "keep") => policy = Some(Keep),
                ("policy", "rewrite") => policy = Some(Rewrite),
                ("policy", "reject") => policy = Some(Reject),
                ("mail from", sender) => mail_from = Some(path(sender)),
                ("from", address) => address.clone_into(&mut from),
                ("may send as", patterns) => patterns.clone_into(&mut may_send_as),
                ("rewrite", rule) => rules.push(rule.split_once(" = ").unwrap()),
                other => panic!("{other:?}"),
            }
        }
        let patterns: Vec<_> = may_send_as.split(", ").filter(|pattern| !pattern.is_empty()).collect();
        let (heading, given) = sections.next().unwrap();
        assert_eq!(heading, "given");
        Self {
            policy: policy.unwrap(),
            mail_from: mail_from.unwrap(),
            identity: identity(&from, &patterns),
            senders: map(&rules),
            given,
            wanted: sections.next().unwrap(),
        }
    }

    /// What leaves, or why nothing does, as the file says it.
    fn outcome(&self) -> (String, Vec<u8>) {
        let mut header = HeaderBlock::parse(self.given.clone());
        let sender = self.mail_from.mailbox().unwrap_or(&self.identity.address);
        settle_from(&mut header, sender, Dialect::Lenient).unwrap();
        repair_date(&mut header, DATE).unwrap();
        let given = Given { reverse_path: &self.mail_from, header: &header };
        match dress(&given, self.policy, &self.identity, &self.senders) {
            Ok(dressed) => (format!("sent <{}>", dressed.reverse_path), dressed.header.into_bytes()),
            Err(refused) => ("refused".to_owned(), format!("{refused}\r\n").into_bytes()),
        }
    }
}

/// What stands under each line `== `, before the first as well, with CRLF for each LF.
fn sections(octets: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut sections = vec![(String::new(), Vec::new())];
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap();
        if let Some(heading) = line.strip_prefix(b"== ") {
            sections.push((String::from_utf8(heading.to_vec()).unwrap(), Vec::new()));
        } else {
            let (_, section) = sections.last_mut().unwrap();
            section.extend_from_slice(line);
            section.extend_from_slice(b"\r\n");
        }
    }
    // The empty line before a heading is for the reader.
    for (_, section) in &mut sections {
        while section.ends_with(b"\r\n\r\n") {
            section.truncate(section.len() - b"\r\n".len());
        }
    }
    sections
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/headers");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "txt")).collect()
}

#[test]
fn headers_of_devices_and_programs_leave_as_they_should() {
    let files = files();
    assert!(files.len() >= 25, "{files:?}");
    for file in files {
        let fixture = Fixture::read(&fs::read(&file).unwrap());
        let (heading, octets) = fixture.outcome();
        let (wanted_heading, wanted) = &fixture.wanted;
        let shown = file.file_name().unwrap().to_string_lossy();
        assert_eq!(heading, *wanted_heading, "{shown}");
        assert_eq!(String::from_utf8_lossy(&octets), String::from_utf8_lossy(wanted), "{shown}");
        assert_eq!(octets, *wanted, "{shown}");
    }
}
