//! The upstream's process: opens its doors, says where they are, and carries out orders until its input ends.

use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sandbox::{Limits, Sandbox, SandboxOptions};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::distance::carry;
use super::ledger::Ledger;
use super::order::{Answer, Doors, Order};
use super::session::{Desk, bare, secure};
use crate::error::BenchError;

/// What the far door adds to each round trip.
pub(crate) const ROUND_TRIP: Duration = Duration::from_millis(30);

/// Runs until standard input ends. The CA file is written into `directory`.
pub(crate) async fn serve(directory: &Path) -> Result<(), BenchError> {
    let desk = Arc::new(Desk {
        ledger: Mutex::new(Ledger::new()),
        dot: Mutex::new(Duration::ZERO),
        arrived: tokio::sync::Notify::new(),
    });
    let (authorities, acceptor) = certificate()?;
    // With its limits on it would refuse tokens to a subject that is started often.
    let options = SandboxOptions { limits: Limits::Off, ..SandboxOptions::default() };
    let tokens = Sandbox::start(options)
        .await
        .map_err(|error| BenchError::Impossible(format!("the token authority does not start: {error}")))?;
    let ca_file = directory.join("ca.pem");
    std::fs::write(&ca_file, format!("{authorities}{}", tokens.ca_pem()))
        .map_err(BenchError::file("write", &ca_file))?;

    let (near, near_port) = bind().await?;
    let (far, far_port) = bind().await?;
    let (plain, plain_port) = bind().await?;
    tokio::spawn(carry(far, near_port, ROUND_TRIP));
    let shared = Arc::clone(&desk);
    tokio::spawn(async move {
        loop {
            if let Ok((stream, _)) = plain.accept().await {
                tokio::spawn(bare(stream, Arc::clone(&shared)));
            }
        }
    });
    let shared = Arc::clone(&desk);
    tokio::spawn(async move {
        loop {
            if let Ok((stream, _)) = near.accept().await {
                tokio::spawn(secure(stream, Arc::clone(&shared), acceptor.clone()));
            }
        }
    });

    let authority = tokens.authority();
    answer(&Answer::Open(Doors { near: near_port, far: far_port, bare: plain_port, ca_file, authority }))?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.map_err(BenchError::socket("read an order"))? {
        let order = serde_json::from_str(&line)
            .map_err(|error| BenchError::Impossible(format!("an order {line:?} that is none: {error}")))?;
        answer(&carry_out(order, &desk).await)?;
    }
    Ok(())
}

async fn carry_out(order: Order, desk: &Desk) -> Answer {
    match order {
        Order::Begin { epoch, body, dot } => {
            desk.ledger.lock().unwrap_or_else(PoisonError::into_inner).begin(epoch, body, Instant::now());
            *desk.dot.lock().unwrap_or_else(PoisonError::into_inner) = Duration::from_millis(dot);
            Answer::Begun
        }
        Order::Wait { messages, bound } => {
            // Late is told by the account itself: it has fewer messages than were waited for.
            let _late = tokio::time::timeout(bound, enough(desk, messages)).await;
            Answer::Account(desk.ledger.lock().unwrap_or_else(PoisonError::into_inner).account())
        }
    }
}

async fn enough(desk: &Desk, messages: usize) {
    loop {
        let mut arrived = std::pin::pin!(desk.arrived.notified());
        arrived.as_mut().enable();
        if desk.ledger.lock().unwrap_or_else(PoisonError::into_inner).messages() >= messages {
            return;
        }
        arrived.await;
    }
}

#[allow(clippy::print_stdout, reason = "standard output is the way back to the benchmark")]
fn answer(answer: &Answer) -> Result<(), BenchError> {
    let text = serde_json::to_string(answer)
        .map_err(|error| BenchError::Impossible(format!("an answer that is no JSON: {error}")))?;
    println!("{text}");
    std::io::stdout().flush().map_err(BenchError::socket("answer an order"))
}

async fn bind() -> Result<(TcpListener, u16), BenchError> {
    let what = "listen on loopback";
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(BenchError::socket(what))?;
    let port = listener.local_addr().map_err(BenchError::socket(what))?.port();
    Ok((listener, port))
}

/// A certificate of its own for `localhost`, by a certificate authority of its own; ECDSA P-256.
fn certificate() -> Result<(String, TlsAcceptor), BenchError> {
    let failed = |error: rcgen::Error| BenchError::Impossible(format!("no certificate: {error}"));
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name.push(DnType::CommonName, "benchmark upstream CA");
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().map_err(failed)?).map_err(failed)?;
    let key = KeyPair::generate().map_err(failed)?;
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).map_err(failed)?;
    let leaf = leaf.signed_by(&key, &ca).map_err(failed)?;
    let chain: Vec<CertificateDer<'static>> = vec![leaf.der().clone()];
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| BenchError::Impossible(format!("a certificate that does not serve: {error}")))?;
    Ok((ca.pem(), TlsAcceptor::from(Arc::new(config))))
}
