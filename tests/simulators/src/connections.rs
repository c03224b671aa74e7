//! Connections that a test can cut, reset or freeze: the HTTP server gets them instead of plain sockets. A cut
//! connection sends nothing more, whatever its handler still does.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};

/// How a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Closed normally (FIN), without a response to requests in progress.
    Close,
    /// Reset (RST).
    Reset,
    /// Half open: nothing is sent or read any more, and the peer does not notice.
    Freeze,
}

const OPEN: u8 = 0;
const CLOSED: u8 = 1;
const RESET: u8 = 2;
const FROZEN: u8 = 3;

/// Controls one connection.
#[derive(Clone, Default)]
pub struct Switch(Arc<SwitchState>);

#[derive(Default)]
struct SwitchState {
    state: AtomicU8,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Switch {
    /// Cuts its connection.
    pub fn cut(&self, how: Cut) {
        let state = match how {
            Cut::Close => CLOSED,
            Cut::Reset => RESET,
            Cut::Freeze => FROZEN,
        };
        self.0.state.store(state, Ordering::SeqCst);
        self.0.reader.wake();
        self.0.writer.wake();
    }

    fn state(&self) -> u8 {
        self.0.state.load(Ordering::SeqCst)
    }
}

impl Connected<IncomingStream<'_, CuttableListener>> for Switch {
    fn connect_info(stream: IncomingStream<'_, CuttableListener>) -> Self {
        stream.io().switch.clone()
    }
}

/// The open connections of one port.
#[derive(Clone, Default)]
pub struct OpenConnections(Arc<Mutex<Vec<Weak<SwitchState>>>>);

impl OpenConnections {
    fn add(&self, switch: &Switch) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|wire| wire.strong_count() > 0);
        open.push(Arc::downgrade(&switch.0));
    }

    /// Cuts every open connection and returns how many there were.
    pub fn cut_all(&self, how: Cut) -> usize {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let live: Vec<_> = open.iter().filter_map(Weak::upgrade).collect();
        drop(open);
        for wire in &live {
            Switch(Arc::clone(wire)).cut(how);
        }
        live.len()
    }
}

/// A listener that registers its connections in `connections`.
pub struct CuttableListener {
    /// Accepts the connections.
    pub inner: TcpListener,
    /// The open ones.
    pub connections: OpenConnections,
}

impl Listener for CuttableListener {
    type Io = CuttableConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (CuttableConnection, SocketAddr) {
        loop {
            match self.inner.accept().await {
                Ok((socket, peer)) => {
                    // Small responses must not wait for the peer's delayed acknowledgement.
                    if socket.set_nodelay(true).is_err() {
                        continue;
                    }
                    let switch = Switch::default();
                    self.connections.add(&switch);
                    return (CuttableConnection { socket, switch }, peer);
                }
                // No file descriptors left, or the peer gave up already: the port stays open.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// A connection that its [`Switch`] can cut.
pub struct CuttableConnection {
    socket: TcpStream,
    switch: Switch,
}

impl CuttableConnection {
    fn broken(&self) -> io::Error {
        if self.switch.state() == RESET {
            // Without lingering the kernel closes with RST. If this call fails, it is only a FIN.
            drop(self.socket.set_zero_linger());
        }
        io::ErrorKind::ConnectionAborted.into()
    }
}

impl AsyncRead for CuttableConnection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.switch.0.reader.register(context.waker());
        match this.switch.state() {
            OPEN => Pin::new(&mut this.socket).poll_read(context, buffer),
            FROZEN => Poll::Pending,
            _ => Poll::Ready(Err(this.broken())),
        }
    }
}

impl AsyncWrite for CuttableConnection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.switch.0.writer.register(context.waker());
        match this.switch.state() {
            OPEN => Pin::new(&mut this.socket).poll_write(context, bytes),
            FROZEN => Poll::Ready(Ok(bytes.len())),
            _ => Poll::Ready(Err(this.broken())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.switch.state() {
            OPEN => Pin::new(&mut this.socket).poll_flush(context),
            FROZEN => Poll::Ready(Ok(())),
            _ => Poll::Ready(Err(this.broken())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.switch.state() {
            OPEN | CLOSED => Pin::new(&mut this.socket).poll_shutdown(context),
            FROZEN => Poll::Ready(Ok(())),
            _ => Poll::Ready(Err(this.broken())),
        }
    }
}
