//! The octets of a connection, in the clear or through TLS: one type, so that STARTTLS changes the stream under a session
//! that goes on. Which certificate is shown is the configuration's matter.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::{PeerIncompatible, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A connection's octets.
#[derive(Debug)]
pub(crate) enum Stream<S> {
    /// As they come.
    Clear(S),
    /// Through TLS; boxed, since most sessions have none.
    Tls(Box<TlsStream<S>>),
    /// A handshake failed: nothing comes any more.
    Lost,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The client offers TLS 1.1 or older alone, which the TLS library does not know and nobody should.
    #[error("the client offers nothing newer than TLS 1.1")]
    TooOld,
    /// Nothing in common, though the version is right.
    #[error("the client offers no cipher suite or key exchange that is safe")]
    NothingInCommon,
    /// What came is no TLS: a client that waits for a banner or for STARTTLS, or a port scan.
    #[error("what the client sent is no TLS")]
    NoTls,
    /// The client did not like our certificate.
    #[error("the client refused our certificate ({0})")]
    CertificateRefused(String),
    /// The client went or the stream failed.
    #[error("the connection was lost in the handshake ({0})")]
    Lost(io::Error),
    /// Anything else.
    #[error("the handshake failed ({0})")]
    Failed(String),
    /// It took too long.
    #[error("the client did not finish the handshake in time")]
    TimedOut,
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        match cause {
            None => Self::Lost(error),
            Some(rustls::Error::PeerIncompatible(
                PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::SupportedVersionsExtensionRequired
                // What TLS 1.2 brought; older clients cannot send it.
                | PeerIncompatible::SignatureAlgorithmsExtensionRequired,
            )) => Self::TooOld,
            Some(rustls::Error::PeerIncompatible(_)) => Self::NothingInCommon,
            Some(rustls::Error::InvalidMessage(_)) => Self::NoTls,
            Some(rustls::Error::AlertReceived(alert)) => Self::CertificateRefused(format!("{alert:?}")),
            Some(other) => Self::Failed(other.to_string()),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    /// Takes the client through a handshake. After an error the stream is lost.
    pub(crate) async fn encrypt(&mut self, config: Arc<ServerConfig>) -> Result<(), HandshakeError> {
        let Self::Clear(stream) = std::mem::replace(self, Self::Lost) else {
            return Err(HandshakeError::Failed("the session is encrypted already".to_owned()));
        };
        let encrypted = TlsAcceptor::from(config).accept(stream).await?;
        *self = Self::Tls(Box::new(encrypted));
        Ok(())
    }

    /// The version of TLS, as it is written.
    pub(crate) fn tls_version(&self) -> Option<&'static str> {
        let Self::Tls(stream) = self else { return None };
        match stream.get_ref().1.protocol_version()? {
            rustls::ProtocolVersion::TLSv1_2 => Some("TLS 1.2"),
            rustls::ProtocolVersion::TLSv1_3 => Some("TLS 1.3"),
            _ => Some("TLS"),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_read(context, room),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, room),
            Self::Lost => Poll::Ready(Ok(())),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_write(context, octets),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, octets),
            Self::Lost => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
            Self::Lost => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
            Self::Lost => Poll::Ready(Ok(())),
        }
    }
}
