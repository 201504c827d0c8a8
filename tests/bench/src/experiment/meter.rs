//! CPU and memory of a subject, and the CPU of what drives it, over a while.

use std::time::Duration;

use crate::bench::{Bench, each};
use crate::error::BenchError;
use crate::figure::{Key, Quantity};
use crate::process::{Tree, Watch};

/// Measures from a moment on.
pub(super) struct Meter {
    tree: Tree,
    upstream: Tree,
    cpu: Duration,
    rest: Duration,
    watch: Watch,
}

impl Meter {
    /// From now on.
    pub(super) fn begin(bench: &Bench, tree: Tree) -> Self {
        Self { cpu: tree.cpu(), ..Self::from_start(bench, tree) }
    }

    /// Like [`Self::begin`], but with all CPU of the subject since it was started.
    pub(super) fn from_start(bench: &Bench, tree: Tree) -> Self {
        let upstream = Tree::of(bench.upstream.id());
        Self { tree, upstream, cpu: Duration::ZERO, rest: Tree::own_cpu() + upstream.cpu(), watch: tree.watch() }
    }

    /// Notes what was used for so many messages.
    pub(super) fn end(
        self,
        bench: &mut Bench,
        messages: usize,
        key: impl Fn(Quantity) -> Key,
    ) -> Result<(), BenchError> {
        let rest = Tree::own_cpu() + self.upstream.cpu();
        bench.note(key(Quantity::Cpu), each(self.tree.cpu().saturating_sub(self.cpu), messages));
        bench.note(key(Quantity::RestCpu), each(rest.saturating_sub(self.rest), messages));
        bench.note(key(Quantity::PeakResident), self.watch.peak()?);
        Ok(())
    }
}
