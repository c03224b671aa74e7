//! A server that lies: what it does with each connection is written down byte by byte. At the end of its script it
//! passes everything on to an honest one, so that a test can see what came of the lies.

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
pub enum Lie {
    /// It is accepted, and nothing ever comes.
    HalfOpen,
    /// An answer whose headers never end.
    EndlessHeaders,
    /// An HTTP answer of these pieces, each on its own, then so many MiB of one letter, then the end.
    Answer(Vec<Vec<u8>>, usize),
    /// A WebSocket that sends these bytes, each piece on its own, then so many MiB of one letter, then nothing.
    WebSocket(Vec<Vec<u8>>, usize),
    /// Whoever asks for a WebSocket is sent to this address; every other connection is an honest one.
    RedirectSocket(String),
    /// An honest connection over a bad line.
    Line(Line),
}

/// How bad.
#[derive(Clone, Copy)]
pub struct Line {
    /// The most bytes that pass at once, after this pause.
    pub piece: usize,
    pub pause: Duration,
    /// After this many bytes from the server it breaks.
    pub breaks_after: usize,
}

/// A line without fault.
pub const GOOD: Line = Line {
    piece: 64 << 10,
    pause: Duration::ZERO,
    breaks_after: usize::MAX,
};

pub struct Liar {
    pub address: SocketAddr,
    /// Connections so far.
    pub met: Arc<AtomicUsize>,
    /// Bytes that the lies sent and that somebody took.
    pub swallowed: Arc<AtomicU64>,
    /// How many were sent elsewhere.
    pub redirected: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Liar {
    /// Lies in this order, the last one for ever, in front of the server at this address.
    pub async fn before(honest: &str, script: Vec<Lie>) -> Self {
        let honest: url::Url = honest.parse().unwrap();
        let honest = SocketAddr::from(([127, 0, 0, 1], honest.port().unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (met, swallowed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
        let redirected = Arc::<AtomicUsize>::default();
        let (counter, bytes, led) = (met.clone(), swallowed.clone(), redirected.clone());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut talks = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                socket.set_nodelay(true).unwrap();
                let index = counter.fetch_add(1, Ordering::SeqCst);
                let lie = script[index.min(script.len() - 1)].clone();
                let (bytes, led) = (bytes.clone(), led.clone());
                // Whoever is lied to may hang up at any moment.
                talks.spawn(async move { drop(tell(socket, lie, honest, (&bytes, &led)).await) });
            }
        });
        Self {
            address,
            met,
            swallowed,
            redirected,
            _serving: serving,
        }
    }
}

async fn tell(
    mut socket: TcpStream,
    lie: Lie,
    honest: SocketAddr,
    (swallowed, redirected): (&AtomicU64, &AtomicUsize),
) -> std::io::Result<()> {
    match lie {
        Lie::HalfOpen => std::future::pending().await,
        Lie::EndlessHeaders => {
            read_request(&mut socket).await?;
            socket.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            for number in 0_u64.. {
                let header = format!("x-more-{number}: {}\r\n", "y".repeat(1000));
                socket.write_all(header.as_bytes()).await?;
                swallowed.fetch_add(header.len() as u64, Ordering::SeqCst);
            }
            Ok(())
        }
        Lie::Answer(pieces, flood) => {
            read_request(&mut socket).await?;
            let head =
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";
            socket.write_all(head).await?;
            send(&mut socket, pieces, flood, swallowed).await
        }
        Lie::WebSocket(pieces, flood) => {
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
            send(&mut socket, pieces, flood, swallowed).await?;
            std::future::pending().await
        }
        Lie::RedirectSocket(to) => {
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
        Lie::Line(line) => {
            let server = TcpStream::connect(honest).await?;
            server.set_nodelay(true)?;
            let (mut from_client, mut to_client) = socket.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            let there = Line {
                breaks_after: usize::MAX,
                ..line
            };
            tokio::select! {
                done = pass(&mut from_client, &mut to_server, there) => done,
                done = pass(&mut from_server, &mut to_client, line) => done,
            }
        }
    }
}

async fn send(
    socket: &mut TcpStream,
    pieces: Vec<Vec<u8>>,
    flood: usize,
    swallowed: &AtomicU64,
) -> std::io::Result<()> {
    for piece in pieces {
        socket.write_all(&piece).await?;
        swallowed.fetch_add(piece.len() as u64, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let drop_of_water = vec![b'x'; 16 << 10];
    for _ in 0..flood << 6 {
        socket.write_all(&drop_of_water).await?;
        swallowed.fetch_add(drop_of_water.len() as u64, Ordering::SeqCst);
    }
    Ok(())
}

/// The head of a request, names of headers in small letters as Hyper writes them.
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
    line: Line,
) -> std::io::Result<()> {
    let mut passed = 0;
    let mut buffer = vec![0; line.piece];
    while passed < line.breaks_after {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        if !line.pause.is_zero() {
            tokio::time::sleep(line.pause).await;
        }
        to.write_all(&buffer[..count]).await?;
        passed += count;
    }
    Ok(())
}
