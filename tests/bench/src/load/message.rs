//! A message of an exact size that carries its own number.

/// The header field that holds epoch and number; it survives every relay unchanged.
pub(crate) const MARK: &str = "X-Bench: ";

/// The blank of all messages of an experiment; clones share nothing, so each client numbers its own.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    octets: Vec<u8>,
    number_at: usize,
    body: usize,
}

/// Digits of epoch and number each.
const DIGITS: usize = 10;
const LINE: usize = 78;

impl Message {
    /// A message of `octets` in all, header and line ends counted, the final dot not.
    pub(crate) fn new(epoch: u32, octets: usize, from: &str, to: &str) -> Self {
        let before = format!("From: <{from}>\r\nTo: <{to}>\r\nSubject: measured\r\n{MARK}{epoch:0DIGITS$}-");
        let header = format!("{before}{:0DIGITS$}\r\n\r\n", 0);
        // A body ends with a line end, and has one line at least.
        let body = octets.saturating_sub(header.len()).max(3);
        let mut message = Vec::with_capacity(header.len() + body + 3);
        message.extend_from_slice(header.as_bytes());
        let mut left = body;
        while left > 0 {
            // A line end must not stand alone, nor an octet before it be missing.
            let line = if left < LINE + 3 { left.min(LINE + 2) } else { LINE };
            message.extend(std::iter::repeat_n(b'x', line - 2));
            message.extend_from_slice(b"\r\n");
            left -= line;
        }
        message.extend_from_slice(b".\r\n");
        Self { octets: message, number_at: before.len(), body }
    }

    /// Octets of the body.
    pub(crate) fn body(&self) -> usize {
        self.body
    }

    /// The message with this number and the final dot, as it goes over the wire.
    pub(crate) fn numbered(&mut self, number: u32) -> &[u8] {
        let digits = format!("{number:0DIGITS$}");
        self.octets[self.number_at..self.number_at + DIGITS].copy_from_slice(digits.as_bytes());
        &self.octets
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sizes_are_exact(octets in 120usize..3000, number: u32, epoch: u32) {
            let mut message = Message::new(epoch, octets, "a@b.example", "c@d.example");
            let body = message.body();
            let text = String::from_utf8(message.numbered(number).to_vec()).unwrap();
            let text = text.strip_suffix(".\r\n").unwrap();
            prop_assert_eq!(text.len(), octets);
            prop_assert!(text.ends_with("\r\n"));
            let (header, rest) = text.split_once("\r\n\r\n").unwrap();
            prop_assert_eq!(rest.len(), body);
            let line = header.lines().last().unwrap().strip_prefix(MARK).unwrap();
            let (said_epoch, said_number) = line.split_once('-').unwrap();
            prop_assert_eq!((said_epoch.parse::<u32>(), said_number.parse::<u32>()), (Ok(epoch), Ok(number)));
            prop_assert!(rest.split("\r\n").all(|line| line.len() <= LINE && !line.starts_with('.')));
        }
    }
}
