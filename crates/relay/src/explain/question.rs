//! The message that is asked about: from the command line and, where that is silent, from the message's own header, as
//! `sendmail -t` reads it. Pure but for the reader that a message comes from.

use std::io::{self, Read};
use std::net::IpAddr;

use mail::{
    AddressList, Field, ForwardPath, HeaderBlock, HeaderSplitter, HeaderTooLong, MAX_HEADER_LEN, PathError,
    ReversePath, begins_with_header,
};

use crate::cli;

/// Octets of a message that are kept: all of a header that is not too long, and a line.
const KEPT: usize = MAX_HEADER_LEN + 1024;
/// Most recipients that are read from a header.
const MAX_RECIPIENTS: usize = 1000;

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// The listener, if one is named.
    pub(super) listener: Option<String>,
    /// The client's address.
    pub(super) client: IpAddr,
    /// Who it logs in as.
    pub(super) user: Option<String>,
    /// MAIL FROM.
    pub(super) reverse_path: ReversePath,
    /// RCPT TO.
    pub(super) recipients: Vec<ForwardPath>,
    /// The header, or that it is too long.
    pub(super) header: Result<HeaderBlock, HeaderTooLong>,
    /// The size of the message, if there is one.
    pub(super) size: Option<u64>,
    /// Whether any octet beyond ASCII is in it.
    pub(super) is_eight_bit: bool,
    /// What was not said and is taken for granted.
    pub(super) assumed: Vec<String>,
}

/// A message as it would be received: its header, and how long it is.
#[derive(Clone, Debug)]
pub(super) struct Message {
    header: Result<HeaderBlock, HeaderTooLong>,
    size: u64,
    is_eight_bit: bool,
}

/// Why nothing can be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum QuestionError {
    /// Not in the configuration.
    #[error("--listener {name}: there is no such listener; there is {known}")]
    Listener {
        /// As it was given.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// Not a sender.
    #[error("--sender {text}: {source}; give an address, or \"<>\" for the null sender")]
    Sender {
        /// As it was given.
        text: String,
        /// What is wrong.
        source: PathError,
    },
    /// Not a recipient.
    #[error("--to {text}: {source}")]
    Recipient {
        /// As it was given.
        text: String,
        /// What is wrong.
        source: PathError,
    },
    /// Not one line.
    #[error("--header-from: it must be one line without control characters")]
    HeaderFrom,
    /// Nobody sends.
    #[error("who sends it? Give --sender ADDRESS, or a --message whose From field names one")]
    NoSender,
    /// Nobody gets it.
    #[error("who gets it? Give --to ADDRESS, or a --message whose To, Cc or Bcc field names one")]
    NoRecipient,
}

impl Message {
    /// Reads a message to its end, keeping its header only. Lines may end in LF alone, as they do in files: a client makes
    /// CRLF of that.
    pub(super) fn read(mut source: impl Read) -> io::Result<Self> {
        let (mut kept, mut size, mut is_eight_bit, mut last) = (Vec::new(), 0, false, 0);
        let mut chunk = vec![0; 64 << 10];
        loop {
            let len = match source.read(&mut chunk) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for octet in &chunk[..len] {
                let is_bare = *octet == b'\n' && last != b'\r';
                for octet in [is_bare.then_some(b'\r'), Some(*octet)].into_iter().flatten() {
                    size += 1;
                    if kept.len() < KEPT {
                        kept.push(octet);
                    }
                }
                is_eight_bit |= !octet.is_ascii();
                last = *octet;
            }
        }
        Ok(Self { header: header_of(&kept), size, is_eight_bit })
    }

    /// The addresses in the fields of these names.
    fn addresses(&self, names: &[&str]) -> Vec<mail::Mailbox> {
        let Ok(header) = &self.header else { return Vec::new() };
        let values = names.iter().flat_map(|name| header.values(name));
        let lists = values.filter_map(|value| AddressList::parse(value).ok());
        lists.flat_map(|list| list.mailboxes().cloned().collect::<Vec<_>>()).take(MAX_RECIPIENTS).collect()
    }
}

/// The header of a message that begins so.
fn header_of(octets: &[u8]) -> Result<HeaderBlock, HeaderTooLong> {
    if begins_with_header(octets) != Some(true) {
        return Ok(HeaderBlock::default());
    }
    let mut splitter = HeaderSplitter::default();
    match splitter.push(octets)? {
        Some((header, _)) => Ok(header),
        None => splitter.finish(),
    }
}

impl Question {
    /// What the options ask about `message`.
    pub(super) fn new(options: &cli::Explain, message: Option<Message>) -> Result<Self, QuestionError> {
        let mut assumed = Vec::new();
        let given = options.sender.as_deref().map(|text| {
            let path = ReversePath::parse(without_brackets(text).as_bytes());
            path.map_err(|source| QuestionError::Sender { text: text.to_owned(), source })
        });
        let reverse_path = match (given.transpose()?, &message) {
            (Some(path), _) => path,
            (None, Some(message)) => {
                let first = message.addresses(&["From"]).into_iter().next().ok_or(QuestionError::NoSender)?;
                assumed.push(format!("the envelope sender is {first}, as the From field says"));
                ReversePath::Mailbox(first)
            }
            (None, None) => return Err(QuestionError::NoSender),
        };
        let recipient = |text: &String| {
            let path = ForwardPath::parse(without_brackets(text).as_bytes());
            path.map_err(|source| QuestionError::Recipient { text: text.clone(), source })
        };
        let mut recipients = options.to.iter().map(recipient).collect::<Result<Vec<_>, _>>()?;
        if let (true, Some(message)) = (recipients.is_empty(), &message) {
            for address in message.addresses(&["To", "Cc", "Bcc"]).into_iter().map(ForwardPath::Mailbox) {
                if !recipients.contains(&address) {
                    recipients.push(address);
                }
            }
            assumed.push("the recipients are those of the To, Cc and Bcc fields".to_owned());
        }
        if recipients.is_empty() {
            return Err(QuestionError::NoRecipient);
        }
        let Some(message) = message else {
            let from = match (&options.header_from, reverse_path.mailbox()) {
                (Some(text), _) => Some(text.clone()),
                (None, Some(sender)) => {
                    assumed.push("the From field names the envelope sender".to_owned());
                    Some(sender.to_string())
                }
                (None, None) => None,
            };
            let mut header = HeaderBlock::default();
            if let Some(from) = from {
                header.append(&Field::new("From", &from).map_err(|_| QuestionError::HeaderFrom)?);
            }
            let is_eight_bit = !header.as_bytes().is_ascii();
            return Ok(Self::of(options, reverse_path, recipients, assumed, (Ok(header), None, is_eight_bit)));
        };
        let Message { header, size, is_eight_bit } = message;
        Ok(Self::of(options, reverse_path, recipients, assumed, (header, Some(size), is_eight_bit)))
    }

    fn of(
        options: &cli::Explain,
        reverse_path: ReversePath,
        recipients: Vec<ForwardPath>,
        assumed: Vec<String>,
        (header, size, is_eight_bit): (Result<HeaderBlock, HeaderTooLong>, Option<u64>, bool),
    ) -> Self {
        Self {
            listener: options.listener.clone(),
            client: options.client.to_canonical(),
            user: options.user.clone(),
            reverse_path,
            recipients,
            header,
            size,
            is_eight_bit,
            assumed,
        }
    }
}

/// As SMTP writes them, or not.
fn without_brackets(text: &str) -> &str {
    text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).unwrap_or(text)
}
