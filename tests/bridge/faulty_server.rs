//! A faulty server: the script says byte for byte what it does with each connection. After the script it forwards
//! connections to a working server, so that a test can see the effect.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// What happens to one connection.
#[derive(Clone)]
pub enum ConnectionBehavior {
    /// The connection is accepted, and no byte is ever sent.
    HalfOpen,
    /// A response whose headers never end.
    EndlessHeaders,
    /// An HTTP response in these pieces, each sent alone, then so many MiB of one letter, then the end.
    Response(Vec<Vec<u8>>, usize),
    /// A WebSocket that sends these bytes, each piece alone, then so many MiB of one letter, then nothing.
    WebSocket(Vec<Vec<u8>>, usize),
    /// Every WebSocket request is redirected to this address; every other connection is forwarded unchanged.
    RedirectWebSocket(String),
    /// A forwarded connection over a bad link.
    Forward(Link),
}

/// The quality of a link.
#[derive(Clone, Copy)]
pub struct Link {
    /// The most bytes that pass at once, after this pause.
    pub piece: usize,
    pub pause: Duration,
    /// After this many bytes from the server the connection breaks.
    pub breaks_after: usize,
}

/// A link without faults.
pub const GOOD_LINK: Link = Link {
    piece: 64 << 10,
    pause: Duration::ZERO,
    breaks_after: usize::MAX,
};

pub struct FaultyServer {
    pub address: SocketAddr,
    /// Connections so far.
    pub connection_count: Arc<AtomicUsize>,
    /// Bytes of faulty responses that a client accepted.
    pub bytes_taken: Arc<AtomicU64>,
    /// Connections that were redirected.
    pub redirected: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl FaultyServer {
    /// Plays the script, its last entry for ever, in front of the server at this address.
    pub async fn in_front_of(honest: &str, script: Vec<ConnectionBehavior>) -> Self {
        let honest: url::Url = honest.parse().unwrap();
        let honest = SocketAddr::from(([127, 0, 0, 1], honest.port().unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connection_count, bytes_taken) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
        let redirected = Arc::<AtomicUsize>::default();
        let (counter, bytes, redirects) = (
            connection_count.clone(),
            bytes_taken.clone(),
            redirected.clone(),
        );
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                socket.set_nodelay(true).unwrap();
                let index = counter.fetch_add(1, Ordering::SeqCst);
                let behavior = script[index.min(script.len() - 1)].clone();
                let (bytes, redirects) = (bytes.clone(), redirects.clone());
                // The client may close the connection at any moment.
                connections.spawn(async move {
                    drop(serve(socket, behavior, honest, (&bytes, &redirects)).await);
                });
            }
        });
        Self {
            address,
            connection_count,
            bytes_taken,
            redirected,
            _serving: serving,
        }
    }
}

async fn serve(
    mut socket: TcpStream,
    behavior: ConnectionBehavior,
    honest: SocketAddr,
    (bytes_taken, redirected): (&AtomicU64, &AtomicUsize),
) -> std::io::Result<()> {
    match behavior {
        ConnectionBehavior::HalfOpen => std::future::pending().await,
        ConnectionBehavior::EndlessHeaders => {
            read_request(&mut socket).await?;
            socket.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            for number in 0_u64.. {
                let header = format!("x-more-{number}: {}\r\n", "y".repeat(1000));
                socket.write_all(header.as_bytes()).await?;
                bytes_taken.fetch_add(header.len() as u64, Ordering::SeqCst);
            }
            Ok(())
        }
        ConnectionBehavior::Response(pieces, flood) => {
            read_request(&mut socket).await?;
            let head =
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";
            socket.write_all(head).await?;
            send(&mut socket, pieces, flood, bytes_taken).await
        }
        ConnectionBehavior::WebSocket(pieces, flood) => {
            let request = read_request(&mut socket).await?;
            let key = request
                .lines()
                .find_map(|line| line.strip_prefix("sec-websocket-key: "))
                .unwrap_or_default();
            let head = format!(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {}\r\n\r\n",
                derive_accept_key(key.trim().as_bytes())
            );
            socket.write_all(head.as_bytes()).await?;
            send(&mut socket, pieces, flood, bytes_taken).await?;
            std::future::pending().await
        }
        ConnectionBehavior::RedirectWebSocket(to) => {
            let request = read_request(&mut socket).await?;
            if request.to_lowercase().contains("\r\nupgrade: websocket") {
                let head =
                    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
                socket.write_all(head.as_bytes()).await?;
                redirected.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
            let mut server = TcpStream::connect(honest).await?;
            server.write_all(request.as_bytes()).await?;
            tokio::io::copy_bidirectional(&mut socket, &mut server)
                .await
                .map(drop)
        }
        ConnectionBehavior::Forward(link) => {
            let server = TcpStream::connect(honest).await?;
            server.set_nodelay(true)?;
            let (mut from_client, mut to_client) = socket.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            let there = Link {
                breaks_after: usize::MAX,
                ..link
            };
            tokio::select! {
                done = pass(&mut from_client, &mut to_server, there) => done,
                done = pass(&mut from_server, &mut to_client, link) => done,
            }
        }
    }
}

async fn send(
    socket: &mut TcpStream,
    pieces: Vec<Vec<u8>>,
    flood: usize,
    bytes_taken: &AtomicU64,
) -> std::io::Result<()> {
    for piece in pieces {
        socket.write_all(&piece).await?;
        bytes_taken.fetch_add(piece.len() as u64, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let filler = vec![b'x'; 16 << 10];
    for _ in 0..flood << 6 {
        socket.write_all(&filler).await?;
        bytes_taken.fetch_add(filler.len() as u64, Ordering::SeqCst);
    }
    Ok(())
}

/// The head of a request; Hyper writes header names in lower case.
async fn read_request(socket: &mut TcpStream) -> std::io::Result<String> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(socket.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&request).into_owned())
}

async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    link: Link,
) -> std::io::Result<()> {
    let mut passed = 0;
    let mut buffer = vec![0; link.piece];
    while passed < link.breaks_after {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        if !link.pause.is_zero() {
            tokio::time::sleep(link.pause).await;
        }
        to.write_all(&buffer[..count]).await?;
        passed += count;
    }
    Ok(())
}
