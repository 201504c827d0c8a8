//! Whether a message still makes progress: pure, the time is passed in. A scanner that sends a page now and then passes; a
//! client that sends an octet now and then, to hold a session, does not. No message is cut for how long it takes in all.

use std::time::{Duration, Instant};

/// What counts as progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Longest silence (RFC 5321 section 4.5.3.2.5: three minutes).
    pub silence: Duration,
    /// In each window of this length...
    pub window: Duration,
    /// ...so many octets must come.
    pub octets: u64,
}

impl Default for Pace {
    /// 50 octets a second, a twentieth of what a modem of 9,600 bit/s brings.
    fn default() -> Self {
        Self { silence: Duration::from_mins(3), window: Duration::from_mins(10), octets: 30_000 }
    }
}

impl Pace {
    /// For a message that goes straight through: it holds one of the three connections that a mailbox has at a time, for as long
    /// as its client takes. A thousand octets a second are a tenth of what a scanner on a slow line brings.
    pub fn live() -> Self {
        Self { silence: Duration::from_secs(30), window: Duration::from_secs(30), octets: 30_000 }
    }
}

/// The progress of one message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    pace: Pace,
    last: Instant,
    window_began: Instant,
    in_window: u64,
}

impl Progress {
    /// The message begins.
    pub(crate) fn new(pace: Pace, now: Instant) -> Self {
        Self { pace, last: now, window_began: now, in_window: 0 }
    }

    /// Octets came.
    pub(crate) fn came(&mut self, octets: u64, now: Instant) {
        self.last = now;
        self.in_window += octets;
        if self.in_window >= self.pace.octets {
            self.window_began = now;
            self.in_window = 0;
        }
    }

    /// Time that was ours: we did not read meanwhile.
    pub(crate) fn resumed(&mut self, paused: Duration, now: Instant) {
        self.last = now;
        self.window_began += paused;
    }

    /// More must have come by then.
    pub(crate) fn deadline(&self) -> Instant {
        (self.last + self.pace.silence).min(self.window_began + self.pace.window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { silence: Duration::from_mins(3), window: Duration::from_mins(5), octets: 30_000 };

    /// The second at which a message that brings (second, octets) is cut, or none if all of it arrives.
    fn cut(pieces: impl IntoIterator<Item = (u64, u64)>) -> Option<u64> {
        cut_at(PACE, pieces)
    }

    fn cut_at(pace: Pace, pieces: impl IntoIterator<Item = (u64, u64)>) -> Option<u64> {
        let start = Instant::now();
        let mut progress = Progress::new(pace, start);
        for (second, octets) in pieces {
            let now = start + Duration::from_secs(second);
            if now > progress.deadline() {
                return Some((progress.deadline() - start).as_secs());
            }
            progress.came(octets, now);
        }
        None
    }

    #[test]
    fn slow_scans_pass_and_drips_do_not() {
        let every = |seconds: u64, octets: u64| (1..=1000u64).map(move |at| (at * seconds, octets));
        // A page of 100 KB every two and a half minutes; a modem; a line at the pace that is asked.
        assert_eq!(cut(every(150, 100_000)), None);
        assert_eq!(cut(every(1, 960)), None);
        assert_eq!(cut(every(1, 101)), None);
        // An octet a second, an octet every two minutes, and silence.
        assert_eq!(cut(every(1, 1)), Some(300));
        assert_eq!(cut(every(120, 1)), Some(300));
        assert_eq!(cut([(181, 1_000_000)]), Some(180));
        // Much at first buys no right to drip later.
        assert_eq!(cut(std::iter::once((0, 10_000_000)).chain(every(1, 1))), Some(300));
    }

    #[test]
    fn a_message_that_goes_straight_through_must_be_quick() {
        let cut = |seconds: u64, octets: u64| cut_at(Pace::live(), (1..=1000u64).map(|at| (at * seconds, octets)));
        // A scanner on a slow line, what is asked, a page now and then.
        assert_eq!(cut(1, 10_000), None);
        assert_eq!(cut(1, 1_000), None);
        assert_eq!(cut(29, 100_000), None);
        assert_eq!(cut(1, 999), Some(30));
        assert_eq!(cut(29, 20_000), Some(30));
        assert_eq!(cut(31, 100_000), Some(30));
    }

    #[test]
    fn what_we_take_for_ourselves_is_no_silence_of_the_client() {
        let start = Instant::now();
        let mut progress = Progress::new(PACE, start);
        let paused = Duration::from_secs(1000);
        progress.resumed(paused, start + paused);
        assert_eq!(progress.deadline(), start + paused + PACE.silence);
    }
}
