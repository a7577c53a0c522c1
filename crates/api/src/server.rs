//! The server: which address, how many connections, and how long each may last.
//!
//! A connection carries one request. That costs a scraper one connection in 15 s
//! and bounds what a slow or silent client can hold: one of
//! [`CONNECTIONS_MAX`] places, for [`CONNECTION_LIMIT`] at the most.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::operated::Operated;
use crate::routes::routes;

/// Connections at once; those above wait in the backlog of the operating system.
pub const CONNECTIONS_MAX: usize = 64;

/// Bytes of a request's first line and headers; more is refused. The least that
/// hyper allows, and more than any scraper or prober sends.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;

/// How long a client may take to send its request's headers.
pub const HEAD_LIMIT: Duration = Duration::from_secs(5);

/// How long an answer may take: the broker is asked for some of it.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(8);

/// How long what a client still sends after its answer is read and dropped. A
/// connection that is closed on unread bytes is reset, and takes the answer with
/// it before the client has read why it was refused (RFC 9112, section 9.6).
pub const LINGER_LIMIT: Duration = Duration::from_secs(2);

/// Bytes that are dropped in this way; a client that sends more has its
/// connection reset.
pub const LINGER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How long a connection may last, until the last byte of the answer is taken.
pub const CONNECTION_LIMIT: Duration = Duration::from_secs(20);

/// How long what a client does may take; [`Default`] gives the constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// See [`HEAD_LIMIT`].
    pub head: Duration,
    /// See [`ANSWER_LIMIT`].
    pub answer: Duration,
    /// See [`CONNECTION_LIMIT`].
    pub connection: Duration,
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self { head: HEAD_LIMIT, answer: ANSWER_LIMIT, connection: CONNECTION_LIMIT }
    }
}

/// Pause after the operating system gave no connection: it may lack file handles.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// A bound address that answers once it runs.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    limits: TimeLimits,
}

impl Server {
    /// Takes `address`; port 0 means a free one.
    ///
    /// # Errors
    ///
    /// When it is taken, or may not be.
    ///
    /// # Cancel safety
    ///
    /// The address is free again when dropped.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, limits: TimeLimits::default() })
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(self, limits: TimeLimits) -> Self {
        Self { limits, ..self }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers for `operated`, for as long as it is polled.
    ///
    /// # Cancel safety
    ///
    /// Connections that are answered go on to their end; no further one is taken.
    pub async fn run<O: Operated>(self, operated: Arc<O>) {
        let router = routes(operated, self.limits.answer);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "no connection could be taken");
                    tokio::time::sleep(AGAIN_AFTER).await;
                    continue;
                }
            };
            let answered = answer(stream, router.clone(), self.limits.head);
            let limit = self.limits.connection;
            tokio::spawn(async move {
                if tokio::time::timeout(limit, answered).await.is_err() {
                    tracing::debug!("a connection took too long and was closed");
                }
                drop(place);
            });
        }
    }
}

async fn answer(stream: TcpStream, router: axum::Router, head_limit: Duration) {
    let mut served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_limit)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = poll_fn(|context| served.poll_without_shutdown(context)).await {
        tracing::debug!(%error, "a request could not be answered");
    }
    linger(served.into_parts().io.into_inner()).await;
}

/// Tells the client that nothing more comes, and reads what it still sends until
/// it has closed its side too, [`LINGER_LIMIT`] is over or [`LINGER_BYTES_MAX`]
/// are read.
async fn linger(mut stream: TcpStream) {
    let drained = async {
        stream.shutdown().await?;
        let mut rest = stream.take(LINGER_BYTES_MAX as u64);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // Neither a client that is gone nor one that never closes changes anything.
    let _ = tokio::time::timeout(LINGER_LIMIT, drained).await;
}

#[cfg(test)]
mod tests;
