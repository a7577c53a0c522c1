//! A real HTTP server on a loopback port that answers as it is told, byte by byte,
//! misbehaviour included.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What the server does once it has read a request.
#[derive(Debug, Clone)]
pub(crate) enum Script {
    /// Sends these bytes and closes the connection.
    Answer(Vec<u8>),
    /// Sends these bytes, then neither sends nor closes anything.
    Hang(Vec<u8>),
    /// Sends the first bytes, then the second ones for as long as anybody takes them.
    Endless(Vec<u8>, Vec<u8>),
}

/// A request as it arrived.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Received {
    /// Request line and headers, each a line in lower case.
    pub(crate) head: Vec<String>,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head.iter().find_map(|line| line.strip_prefix(&prefix))
    }
}

/// The server; it ends with its value.
#[derive(Debug)]
pub(crate) struct ScriptedPlugin {
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    closed: Arc<Notify>,
    server: JoinHandle<()>,
}

impl ScriptedPlugin {
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let closed = Arc::new(Notify::new());
        let server = tokio::spawn(serve(listener, script, received.clone(), closed.clone()));
        Self { address, received, closed, server }
    }

    pub(crate) async fn answering(status: &str, body: &str) -> Self {
        Self::start(Script::Answer(response(status, "", body))).await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Waits until the client has closed a connection that hangs.
    pub(crate) async fn connection_closed(&self) {
        self.closed.notified().await;
    }
}

impl Drop for ScriptedPlugin {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A complete response; `headers` are whole lines.
pub(crate) fn response(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

async fn serve(
    listener: TcpListener,
    script: Script,
    received: Arc<Mutex<Vec<Received>>>,
    closed: Arc<Notify>,
) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (script, received, closed) = (script.clone(), received.clone(), closed.clone());
        tokio::spawn(async move {
            let Some(request) = read_request(&mut stream).await else { return };
            received.lock().unwrap().push(request);
            match script {
                // The client may hang up in the middle of what it does not want.
                Script::Answer(bytes) => drop(stream.write_all(&bytes).await),
                Script::Endless(bytes, again) => {
                    let _ = stream.write_all(&bytes).await;
                    while stream.write_all(&again).await.is_ok() {}
                    closed.notify_one();
                }
                Script::Hang(bytes) => {
                    let _ = stream.write_all(&bytes).await;
                    let _ = stream.read(&mut [0; 1]).await;
                    closed.notify_one();
                }
            }
        });
    }
}

/// A request; none where the client gives up before it has sent all of it.
async fn read_request(stream: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if matches!(stream.read_buf(&mut bytes).await, Ok(0) | Err(_)) {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let head = head.lines().map(str::to_ascii_lowercase).collect();
    let mut request = Received { head, body: bytes.split_off(end + 4) };
    let length: usize = request.header("content-length").unwrap().parse().unwrap();
    while request.body.len() < length {
        if matches!(stream.read_buf(&mut request.body).await, Ok(0) | Err(_)) {
            return None;
        }
    }
    Some(request)
}
