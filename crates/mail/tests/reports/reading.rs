//! A plain reading of a report, of the RFCs and not of the builder: fields, parts, quoted-printable.

use mail::report::{Content, Report};

/// A part, or the whole: fields in their order, unfolded, and the octets of the body.
#[derive(Debug)]
pub(crate) struct Entity {
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Entity {
    /// Reads header, empty line and body.
    pub(crate) fn read(octets: &[u8]) -> Self {
        let end = find(octets, b"\r\n\r\n").expect("a header ends in an empty line");
        Self { fields: fields(&octets[..end + 2]), body: octets[end + 4..].to_vec() }
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.fields.iter().map(|(name, _)| name.as_str()).collect()
    }

    pub(crate) fn value(&self, name: &str) -> &str {
        self.fields.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    pub(crate) fn boundary(&self) -> String {
        self.value("Content-Type").split('"').nth(1).expect("a boundary").to_owned()
    }

    /// The parts of a multipart, which has no preamble and no epilogue.
    pub(crate) fn parts(&self) -> Vec<Self> {
        let delimiter = format!("\r\n--{}", self.boundary());
        let mut rest = &[b"\r\n", &self.body[..]].concat()[..];
        let mut parts = Vec::new();
        rest = rest.strip_prefix(delimiter.as_bytes()).expect("it begins with a boundary");
        while let Some(part) = rest.strip_prefix(b"\r\n") {
            let end = find(part, delimiter.as_bytes()).expect("a part ends in a boundary");
            parts.push(Self::read(&part[..end]));
            rest = &part[end + delimiter.len()..];
        }
        assert_eq!(rest, b"--\r\n", "it ends with its last boundary");
        parts
    }

    /// The body without its transfer encoding.
    pub(crate) fn decoded(&self) -> Vec<u8> {
        match self.value("Content-Transfer-Encoding") {
            "7bit" | "8bit" => self.body.clone(),
            "quoted-printable" => unquoted(&self.body),
            other => panic!("{other} is no encoding used here"),
        }
    }
}

/// The octets of a report that go over the wire, with `body` in its place.
pub(crate) fn octets(report: &Report, body: &[u8]) -> Vec<u8> {
    let content = match &report.content {
        Content::Whole(octets) => octets.clone(),
        Content::Around { before, after } => [before, body, after].concat(),
    };
    [report.header.as_bytes(), b"\r\n", &content].concat()
}

/// Fields, unfolded. Panics where a line is neither a field nor the further line of one.
pub(crate) fn fields(block: &[u8]) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in std::str::from_utf8(block).unwrap().split_terminator("\r\n") {
        if line.starts_with([' ', '\t']) {
            assert!(!line.trim().is_empty(), "a line of blanks only");
            fields.last_mut().expect("a field before its further lines").1.push_str(line);
        } else {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("no field: {line:?}"));
            fields.push((name.to_owned(), value.to_owned()));
        }
    }
    fields
}

pub(crate) fn find(octets: &[u8], wanted: &[u8]) -> Option<usize> {
    octets.windows(wanted.len()).position(|window| window == wanted)
}

fn unquoted(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(text.to_vec()).unwrap().replace("=\r\n", "");
    let mut parts = text.split('=');
    let mut octets = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        octets.push(u8::from_str_radix(&part[..2], 16).unwrap());
        octets.extend_from_slice(&part.as_bytes()[2..]);
    }
    octets
}
