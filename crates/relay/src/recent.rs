//! The last warnings and errors of the log, kept in memory for `status`.
//!
//! It sees what the log shows and nothing else, so no secret, token or body can be in it (invariant 8).

use std::collections::VecDeque;
use std::fmt::{self, Debug, Write};
use std::sync::{Arc, Mutex, PoisonError};

use clock::{Clock, WallTime};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Events kept.
const KEPT: usize = 20;
/// Characters of one event; the log has all of it.
const LONGEST: usize = 500;

/// The last events; clones share them.
#[derive(Clone)]
pub(crate) struct Recent {
    events: Arc<Mutex<VecDeque<RecentEvent>>>,
    clock: Arc<dyn Clock>,
}

/// A warning or an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecentEvent {
    /// When.
    pub(crate) at: WallTime,
    /// WARN or ERROR.
    pub(crate) level: Level,
    /// Which part of the relay.
    pub(crate) target: String,
    /// The message and its fields, one line.
    pub(crate) text: String,
}

impl Recent {
    /// Nothing yet; times are those of `clock`.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { events: Arc::default(), clock }
    }

    /// The last events, newest last.
    pub(crate) fn events(&self) -> Vec<RecentEvent> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn keep(&self, event: RecentEvent) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() >= KEPT {
            events.pop_front();
        }
        events.push_back(event);
    }
}

impl<S: Subscriber> Layer<S> for Recent {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN {
            return;
        }
        let mut line = Line::default();
        event.record(&mut line);
        let target = metadata.target().to_owned();
        self.keep(RecentEvent { at: self.clock.wall(), level: *metadata.level(), target, text: line.text() });
    }
}

/// One event becoming a line: the message, then the fields.
#[derive(Default)]
struct Line {
    message: Bounded,
    fields: Bounded,
}

impl Line {
    fn text(self) -> String {
        let mut text = self.message;
        // A bounded text never fails, it only ends.
        let _ = text.write_str(&self.fields.text);
        if text.cut {
            text.text.push_str("...");
        }
        text.text
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

/// A text of at most [`LONGEST`] characters, without control characters.
#[derive(Default)]
struct Bounded {
    text: String,
    length: usize,
    cut: bool,
}

impl Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        for character in more.chars() {
            if self.length == LONGEST {
                self.cut = true;
                break;
            }
            self.text.push(if character.is_control() { ' ' } else { character });
            self.length += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clock::ManualClock;
    use tracing::{error, info, subscriber, warn};
    use tracing_subscriber::{layer::SubscriberExt, registry};

    const NOW: WallTime = WallTime::from_unix_millis(1_795_247_640_000);

    fn recorded(events: impl FnOnce()) -> Vec<RecentEvent> {
        let recent = Recent::new(Arc::new(ManualClock::at(NOW)));
        subscriber::with_default(registry().with(recent.clone()), events);
        recent.events()
    }

    #[test]
    fn warnings_and_errors_are_kept_with_their_fields() {
        let events = recorded(|| {
            info!("nothing to see");
            warn!(lane = %"tenant/login", seconds = 3, "lane stands still");
            error!("broken\nin two lines");
        });
        let lines: Vec<_> = events.iter().map(|event| (event.level, event.text.as_str())).collect();
        let expected =
            [(Level::WARN, "lane stands still lane=tenant/login seconds=3"), (Level::ERROR, "broken in two lines")];
        assert_eq!(lines, expected);
        assert_eq!(events[0].at, NOW);
        assert!(events[0].target.ends_with("recent::tests"));
    }

    #[test]
    fn only_the_last_are_kept_and_each_is_bounded() {
        let events = recorded(|| {
            for number in 0..30 {
                warn!(long = "ä".repeat(5_000), "event {number}");
            }
        });
        assert_eq!(events.len(), KEPT);
        assert!(events[0].text.starts_with("event 10 long="));
        for event in &events {
            assert_eq!(event.text.chars().count(), LONGEST + 3);
        }
    }
}
