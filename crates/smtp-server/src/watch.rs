//! Looks whether the client is still there while a hook works for it. A client that has closed its side, with nothing left
//! of what it sent, can never finish what the hook works for: the hook is dropped at once, and with it whatever it holds.
//! One that has sent all and then closed its side is served to the end, since its octets come before its end does.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use tokio::io::AsyncRead;
use wire::MAX_COMMAND_LEN;

use crate::connection::End;
use crate::input::Input;

/// What a client must have sent for the watch to end: from then on its own octets come before its end does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// A whole line, or one that is too long. A piece of a line becomes no command once the client has closed its side.
    Line,
    /// Anything: the end of a message may be in it.
    Octets,
}

impl Until {
    fn is_reached(self, input: &Input) -> bool {
        let rest = input.rest();
        match self {
            Self::Line => rest.len() > MAX_COMMAND_LEN || rest.contains(&b'\n'),
            Self::Octets => !rest.is_empty(),
        }
    }
}

/// What the hook gives, unless the client goes before. Reads nothing if the hook is ready at once, and nothing more once
/// `until` is reached, so that `input` stays below a read and a line.
pub(crate) async fn attend<H: Future>(
    hook: Pin<&mut H>,
    until: Until,
    stream: &mut (impl AsyncRead + Unpin),
    input: &mut Input,
) -> Result<H::Output, End> {
    let mut hook = hook;
    let mut watches = None;
    poll_fn(|context| {
        if let Poll::Ready(output) = hook.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        while *watches.get_or_insert_with(|| !until.is_reached(input)) {
            match input.poll_fill(stream, context) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(End::Gone)),
                Poll::Ready(Ok(_)) => watches = None,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::pin;

    use tokio::io::AsyncWriteExt;

    use super::*;

    /// A client that has sent these and closed its side, and what is kept of it while a hook waits for ever.
    async fn left_of(sent: &[&[u8]], until: Until) -> Option<Vec<u8>> {
        let (mut client, mut stream) = tokio::io::duplex(64);
        let mut input = Input::default();
        let comes_and_goes = async {
            for octets in sent {
                client.write_all(octets).await.unwrap();
            }
            drop(client);
            // Until nothing moves any more.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        };
        let hook = pin!(pending::<()>());
        let ended = tokio::select! {
            biased;
            ended = attend(hook, until, &mut stream, &mut input) => Some(ended),
            () = comes_and_goes => None,
        };
        match ended {
            None => Some(input.rest().to_vec()),
            Some(Err(End::Gone)) => None,
            Some(other) => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_client_has_gone_when_nothing_is_left_that_could_finish() {
        let long = vec![b'x'; MAX_COMMAND_LEN + 1];
        for (sent, until, left) in [
            (&[][..], Until::Line, None),
            (&[], Until::Octets, None),
            (&[&b"DATA"[..]], Until::Line, None),
            (&[b"DA", b"TA"], Until::Line, None),
            (&[b"DATA\r\n"], Until::Line, Some(&b"DATA\r\n"[..])),
            (&[b"DA", b"TA\n"], Until::Line, Some(b"DATA\n")),
            (&[b"x"], Until::Octets, Some(b"x")),
            (&[&long], Until::Line, Some(&long)),
        ] {
            // The pipe is narrow: of a long line what came before the watch ended is kept, and no more.
            let found = left_of(sent, until).await;
            let is_right = match (&found, left) {
                (Some(found), Some(left)) => *found == left,
                (None, None) => true,
                _ => false,
            };
            assert!(is_right, "{sent:?} {until:?}: {found:?}");
        }
    }

    /// Nothing is asked of the stream: this one would panic.
    #[tokio::test]
    async fn a_hook_that_is_ready_costs_no_read() {
        struct Untouchable;
        impl AsyncRead for Untouchable {
            fn poll_read(
                self: Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
                _: &mut tokio::io::ReadBuf<'_>,
            ) -> Poll<std::io::Result<()>> {
                panic!("read")
            }
        }
        let mut input = Input::default();
        let answer = attend(pin!(ready(7)), Until::Line, &mut Untouchable, &mut input).await;
        assert_eq!(answer.unwrap(), 7);
    }
}
