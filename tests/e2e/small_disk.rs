//! A disk that is soon full: a small file system of its own, mounted for one test and gone with it.

use std::path::Path;
use std::process::Command;

use crate::harness::{is_root, skip};

/// A file system of a few MiB, for tests that run as root.
pub(crate) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// None, with a line that says so, where it cannot be had.
    pub(crate) fn mount(mebibytes: u32) -> Option<Self> {
        if !is_root() {
            skip("only root can mount a small disk");
            return None;
        }
        let directory = tempfile::TempDir::new().unwrap();
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory.path()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(directory));
        }
        skip("a small disk cannot be mounted here");
        None
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}
