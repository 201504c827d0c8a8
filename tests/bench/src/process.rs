//! What a process and its children use, from `/proc`: CPU time, memory, context switches. Linux only.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::BenchError;

/// A process and all its descendants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tree {
    root: u32,
}

/// Samples are this far apart at least; and ten times as far as a sample takes, so that looking costs little.
const INTERVAL: Duration = Duration::from_millis(25);

impl Tree {
    pub(crate) fn of(root: u32) -> Self {
        Self { root }
    }

    /// The living processes, the root first.
    pub(crate) fn members(self) -> Vec<u32> {
        let mut members = vec![self.root];
        let mut at = 0;
        while let Some(member) = members.get(at).copied() {
            // A process that ends meanwhile simply has no children left.
            for thread in numbers(&format!("/proc/{member}/task")) {
                let children = fs::read_to_string(format!("/proc/{member}/task/{thread}/children"));
                members.extend(children.unwrap_or_default().split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
            }
            at += 1;
        }
        members
    }

    /// CPU time of all, user and system, with that of children that have ended.
    pub(crate) fn cpu(self) -> Duration {
        self.members().into_iter().map(cpu).sum()
    }

    /// CPU time of this process itself, without children.
    pub(crate) fn own_cpu() -> Duration {
        let id = std::process::id();
        cpu(id).saturating_sub(ticks_to_time(ticks(id, 4).saturating_sub(ticks(id, 2))))
    }

    /// Resident memory in MiB: the resident set of a lone process; of several the sum of their private parts, since
    /// they share their program.
    pub(crate) fn resident(self) -> f64 {
        let members = self.members();
        let alone = members.len() == 1;
        let pages: u64 = members
            .into_iter()
            .filter_map(|id| {
                let text = fs::read_to_string(format!("/proc/{id}/statm")).ok()?;
                let mut fields = text.split_whitespace().skip(1).map_while(|field| field.parse::<u64>().ok());
                let (resident, shared) = (fields.next()?, fields.next()?);
                Some(if alone { resident } else { resident - shared })
            })
            .sum();
        mib(pages * rustix::param::page_size() as u64)
    }

    /// Voluntary context switches of each thread: how often it went to sleep, and so was woken.
    pub(crate) fn wakes(self) -> BTreeMap<u32, u64> {
        let threads = self.members().into_iter().flat_map(|id| {
            let directory = format!("/proc/{id}/task");
            numbers(&directory).into_iter().map(move |thread| (thread, format!("{directory}/{thread}/status")))
        });
        threads.filter_map(|(thread, path)| Some((thread, field(&path, "voluntary_ctxt_switches:")?))).collect()
    }

    /// Begins to watch the highest of [`Self::resident`].
    pub(crate) fn watch(self) -> Watch {
        // Lets the kernel count the peak of a lone process anew; of other users' processes it may not.
        let _sampled_only = fs::write(format!("/proc/{}/clear_refs", self.root), "5");
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let sampler = std::thread::spawn(move || {
            let mut highest = 0.0_f64;
            while !told.load(Ordering::Relaxed) {
                let begun = Instant::now();
                highest = highest.max(self.resident());
                std::thread::park_timeout(INTERVAL.max(begun.elapsed() * 10));
            }
            highest.max(self.resident())
        });
        Watch { tree: self, stop, sampler: Some(sampler) }
    }
}

/// Watches the memory of a tree until asked.
#[derive(Debug)]
pub(crate) struct Watch {
    tree: Tree,
    stop: Arc<AtomicBool>,
    sampler: Option<JoinHandle<f64>>,
}

impl Watch {
    /// The highest resident memory since it began, in MiB.
    pub(crate) fn peak(mut self) -> Result<f64, BenchError> {
        let sampled = self
            .end()
            .and_then(|sampler| sampler.join().ok())
            .ok_or_else(|| BenchError::Impossible("the watch over memory panicked".to_owned()))?;
        let members = self.tree.members();
        let counted = match members.as_slice() {
            [only] => field(&format!("/proc/{only}/status"), "VmHWM:").map_or(0.0, |kib| mib(kib * 1024)),
            _ => 0.0,
        };
        Ok(sampled.max(counted))
    }

    fn end(&mut self) -> Option<JoinHandle<f64>> {
        self.stop.store(true, Ordering::Relaxed);
        let sampler = self.sampler.take()?;
        sampler.thread().unpark();
        Some(sampler)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

/// CPU that this machine had to give to its neighbours so far; on hardware of its own, zero.
pub(crate) fn stolen() -> Duration {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = text.lines().next().and_then(|line| line.split_whitespace().nth(8)?.parse().ok());
    ticks_to_time(ticks.unwrap_or(0))
}

/// Whether a process still runs; one that has ended and waits for its parent does not.
pub(crate) fn alive(id: u32) -> bool {
    fs::read_to_string(format!("/proc/{id}/stat"))
        .is_ok_and(|text| !text.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X'])))
}

/// Who traces a process.
pub(crate) fn tracer(id: u32) -> Option<u32> {
    let tracer = field(&format!("/proc/{id}/status"), "TracerPid:")?;
    u32::try_from(tracer).ok().filter(|tracer| *tracer != 0)
}

/// Of a living process in nanoseconds, as the scheduler counts them: ticks are cut off, which is much in a crowd of young
/// processes. Threads that have ended are in the ticks alone, and so are children.
fn cpu(id: u32) -> Duration {
    let threads = numbers(&format!("/proc/{id}/task"));
    let ran: u64 = threads
        .into_iter()
        .filter_map(|thread| {
            let text = fs::read_to_string(format!("/proc/{id}/task/{thread}/schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        })
        .sum();
    let own = ticks_to_time(ticks(id, 2));
    Duration::from_nanos(ran).max(own) + ticks_to_time(ticks(id, 4)).saturating_sub(own)
}

/// The first of utime, stime, cutime and cstime together; zero of a process that is gone.
fn ticks(id: u32, fields: usize) -> u64 {
    // The name may hold spaces and parentheses: fields are counted behind the last one.
    let text = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace().skip(11).take(fields).filter_map(|field| field.parse::<u64>().ok()).sum()
}

fn ticks_to_time(ticks: u64) -> Duration {
    Duration::from_nanos(ticks.saturating_mul(1_000_000_000 / rustix::param::clock_ticks_per_second().max(1)))
}

fn numbers(directory: &str) -> Vec<u32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn field(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[allow(clippy::cast_precision_loss, reason = "memory is far below 2^52 octets")]
fn mib(octets: u64) -> f64 {
    octets as f64 / f64::from(1024 * 1024)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_tree_has_its_children_and_their_cpu() {
        let script = "(i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done) & wait; echo done; read x";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let tree = Tree::of(child.id());
        let watch = tree.watch();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
        // The loop ran in a child that has ended.
        assert_eq!(tree.members(), vec![child.id()]);
        assert!(tree.cpu() > Duration::from_millis(20), "{:?}", tree.cpu());
        assert!(tree.resident() > 0.1);
        assert!(tree.wakes().values().sum::<u64>() > 0);
        assert!(watch.peak().unwrap() >= tree.resident());
        child.kill().unwrap();
        assert_eq!(tracer(child.id()), None);
        child.wait().unwrap();
        assert!(!alive(child.id()) && alive(std::process::id()));
        assert_eq!(tree.cpu(), Duration::ZERO);
    }
}
