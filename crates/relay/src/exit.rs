//! How the process ends: few codes, mapped once (sysexits.h).

use std::process::ExitCode;

/// The end of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All went well.
    Success,
    /// The command line or the configuration is wrong; nothing was started.
    Usage,
    /// `explain`: the message would be refused, or one of its recipients.
    Refused,
    /// Something outside is not to be had: a port, the state directory, a file.
    Unavailable,
    /// A fault of ours.
    Internal,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Usage => 64,
            Exit::Unavailable => 69,
            Exit::Internal => 70,
            Exit::Refused => 77,
        })
    }
}
