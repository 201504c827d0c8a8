//! What machine this is, for a reader of the figures.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::figure::Machine;

/// Describes this machine, and the file system of a directory.
pub(crate) fn describe(directory: &Path) -> Machine {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory_kib: u64 = value(&memory, "MemTotal").trim_end_matches("kB").trim().parse().unwrap_or(0);
    let system = rustix::system::uname();
    Machine {
        processor: value(&processors, "model name").to_owned(),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        memory_mib: memory_kib / 1024,
        kernel: format!("{} {}", system.sysname().to_string_lossy(), release(&system.release().to_string_lossy())),
        file_system: file_system(directory),
    }
}

/// The version in a kernel's release; what a distributor or a cloud put behind it says nothing here.
fn release(release: &str) -> &str {
    release.split('-').next().unwrap_or(release)
}

fn value<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_once(':')).map_or("unknown", |(_, value)| value.trim())
}

fn file_system(directory: &Path) -> String {
    let output = Command::new("stat").args(["-f", "-c", "%T"]).arg(directory).output();
    let name = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    if name.is_empty() { "unknown".to_owned() } else { name }
}

/// Whether a file system lives in memory: syncs on it are free, and figures on it worth nothing.
pub(crate) fn in_memory(file_system: &str) -> bool {
    matches!(file_system, "tmpfs" | "ramfs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known() {
        let machine = describe(Path::new("/dev/shm"));
        assert!(machine.processors > 0 && machine.memory_mib > 0, "{machine:?}");
        assert!(machine.kernel.starts_with("Linux "), "{machine:?}");
        assert!(in_memory(&machine.file_system), "{machine:?}");
        assert_eq!(release("6.1.0-18-amd64"), "6.1.0");
    }
}
