//! A wire between a client and its server that can be cut.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Carries connections to a server; it ends with its value.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    cuts: watch::Sender<u64>,
    carried: watch::Receiver<u64>,
    accepting: JoinHandle<()>,
}

impl Wire {
    /// Lays a wire to the server at `url`, `nats://host:port`.
    ///
    /// # Panics
    ///
    /// When there is no free port, or the address is none.
    pub async fn to(url: &str) -> Self {
        let server = url.rsplit_once('/').map_or(url, |(_, server)| server).to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (cuts, cut) = watch::channel(0);
        let (carries, carried) = watch::channel(0);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                carries.send_modify(|carried| *carried += 1);
                tokio::spawn(carry(client, server.clone(), cut.clone()));
            }
        });
        Self { address, cuts, carried, accepting }
    }

    /// Where clients connect to.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Breaks every connection that it carries; others can be made at once.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Waits until so many connections were made over it, those that broke included.
    ///
    /// # Panics
    ///
    /// When the wire has ended.
    pub async fn carried(&self, connections: u64) {
        let mut carried = self.carried.clone();
        carried.wait_for(|carried| *carried >= connections).await.expect("a wire");
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(mut client: TcpStream, server: String, mut cut: watch::Receiver<u64>) {
    cut.mark_unchanged();
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        // With the wire everything that it carries ends too.
        _ = cut.changed() => {}
    }
}
