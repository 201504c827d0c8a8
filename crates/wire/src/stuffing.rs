//! Writes a message at rest onto the wire: a dot before each line that starts with one, and the final dot
//! (RFC 5321 section 4.5.2). Input has only CRLF line ends, as `body.rs` leaves them.

use memchr::memchr_iter;

/// Stuffs one message, given in pieces of any size.
#[derive(Debug)]
pub struct DotStuffer {
    at_line_start: bool,
}

impl DotStuffer {
    /// At the start of a message.
    pub fn new() -> Self {
        Self { at_line_start: true }
    }

    /// Appends the next octets to `output`, stuffed: at most half as many again.
    pub fn stuff(&mut self, octets: &[u8], output: &mut Vec<u8>) {
        let Some(last) = octets.last() else { return };
        if self.at_line_start && octets.starts_with(b".") {
            output.push(b'.');
        }
        let mut written = 0;
        for line_feed in memchr_iter(b'\n', octets) {
            if octets.get(line_feed + 1) == Some(&b'.') {
                output.extend_from_slice(&octets[written..=line_feed]);
                output.push(b'.');
                written = line_feed + 1;
            }
        }
        output.extend_from_slice(&octets[written..]);
        self.at_line_start = *last == b'\n';
    }

    /// Appends the final dot, after a line end if the message lacked one.
    pub fn finish(self, output: &mut Vec<u8>) {
        output.extend_from_slice(if self.at_line_start { b".\r\n" } else { b"\r\n.\r\n" });
    }
}

impl Default for DotStuffer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_start_with_a_dot_gain_one_wherever_the_pieces_end() {
        for (message, sent) in [
            ("", ".\r\n"),
            (".\r\n", "..\r\n.\r\n"),
            ("a\r\n.b\r\n..c\r\nd.\r\n", "a\r\n..b\r\n...c\r\nd.\r\n.\r\n"),
            ("no end", "no end\r\n.\r\n"),
        ] {
            for size in 1..=message.len().max(1) {
                let (mut stuffer, mut output) = (DotStuffer::new(), Vec::new());
                for piece in message.as_bytes().chunks(size) {
                    stuffer.stuff(piece, &mut output);
                }
                stuffer.finish(&mut output);
                assert_eq!(String::from_utf8_lossy(&output), sent, "{message:?} in pieces of {size}");
            }
        }
    }
}
