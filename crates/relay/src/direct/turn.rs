//! Finds a turn for a client that waits: on the first of several lanes that has one. Not here: what a turn is, which is the
//! forwarder's.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use forwarder::{Lane, NoTurn, Slot, TokenSource};
use mail::LaneId;
use tokio::time::Instant;

/// How long a client waits for a turn: most give up a command after 30 seconds or more.
const WITHIN: Duration = Duration::from_secs(20);

/// A turn on one of `lanes` by `opened`, which gives a lane as it runs, and its place among them. Fails when all have said that
/// there is none, with the reason that passes soonest, or none where no lane runs. Of several that have one at once the first
/// goes before the others. Safe to drop.
pub(super) async fn first<T: TokenSource, O: Future<Output = Option<Arc<Lane<T>>>>>(
    lanes: &[&LaneId],
    opened: impl Fn(&LaneId) -> O,
) -> Result<(usize, Slot<T>), Option<NoTurn>> {
    let until = Instant::now() + WITHIN;
    let turn = |id| {
        let opening = opened(id);
        async move {
            let lane = opening.await.ok_or(None)?;
            lane.live_slot(until.saturating_duration_since(Instant::now())).await.map_err(Some)
        }
    };
    soonest(lanes.iter().map(|id| turn(id)).collect()).await
}

/// What the first of `waiting` gives that gives anything, and its place; else the least of their reasons.
async fn soonest<S>(
    waiting: Vec<impl Future<Output = Result<S, Option<NoTurn>>>>,
) -> Result<(usize, S), Option<NoTurn>> {
    let mut waiting: Vec<_> = waiting.into_iter().map(Box::pin).enumerate().collect();
    let mut refused: Option<NoTurn> = None;
    poll_fn(|context| {
        let mut found = None;
        waiting.retain_mut(|(at, turn)| {
            if found.is_some() {
                return true;
            }
            match turn.as_mut().poll(context) {
                Poll::Pending => return true,
                Poll::Ready(Ok(slot)) => found = Some((*at, slot)),
                Poll::Ready(Err(reason)) => refused = refused.take().into_iter().chain(reason).min_by_key(rank),
            }
            false
        });
        match found {
            Some(found) => Poll::Ready(Ok(found)),
            None if waiting.is_empty() => Poll::Ready(Err(refused.take())),
            None => Poll::Pending,
        }
    })
    .await
}

/// Of several reasons the one that passes soonest is told.
fn rank(reason: &NoTurn) -> u8 {
    match reason {
        NoTurn::Busy => 0,
        NoTurn::Minute(_) => 1,
        NoTurn::Day(_) => 2,
        NoTurn::Trouble(_) => 3,
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::Pin;

    use forwarder::{Trouble, TroubleKind};
    use mail::Scope;

    use super::*;

    type Waiting = Pin<Box<dyn Future<Output = Result<&'static str, Option<NoTurn>>>>>;

    fn says(answer: Result<&'static str, Option<NoTurn>>) -> Waiting {
        Box::pin(ready(answer))
    }

    fn never() -> Waiting {
        Box::pin(pending())
    }

    #[tokio::test]
    async fn the_first_that_has_a_turn_takes_the_message_and_of_reasons_the_soonest_is_told() {
        let trouble =
            || NoTurn::Trouble(Trouble { kind: TroubleKind::Refused, scope: Scope::Mailbox, text: String::new() });
        let minute = || NoTurn::Minute(Duration::from_secs(30));
        for (waiting, expected) in [
            (vec![says(Ok("a")), says(Ok("b"))], Ok((0, "a"))),
            (vec![never(), says(Err(Some(trouble()))), says(Ok("c"))], Ok((2, "c"))),
            (vec![says(Err(Some(trouble()))), says(Err(Some(minute())))], Err(Some(minute()))),
            (vec![says(Err(Some(NoTurn::Busy))), says(Err(Some(minute())))], Err(Some(NoTurn::Busy))),
            (vec![says(Err(None)), says(Err(Some(trouble()))), says(Err(None))], Err(Some(trouble()))),
            (vec![says(Err(None))], Err(None)),
            (Vec::new(), Err(None)),
        ] {
            assert_eq!(soonest(waiting).await, expected);
        }
    }
}
