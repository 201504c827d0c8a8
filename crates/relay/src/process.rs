//! What the process asks of the operating system for itself, once, before anything else.

use rustix::fs::Mode;
use rustix::process::{Resource, getrlimit, setrlimit, umask};

/// Files are for the owner only, and as many descriptors as the system allows.
pub(crate) fn prepare() {
    umask(Mode::from_raw_mode(0o077));
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it is refused the lower limit serves; the accept loop says so when it is reached.
    let _ = setrlimit(Resource::Nofile, limit);
}
