//! Serves HTTP with a limit on the number of connections and on their duration. A silent connection holds a file descriptor, and
//! the rest of the bridge needs those.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// The pause after a connection could not be accepted: mostly for want of file descriptors.
const PAUSE: Duration = Duration::from_secs(1);

/// The limits of a listener.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// The number of connections at a time. Further ones wait until they are accepted.
    pub at_once: usize,
    /// How long the head of a request may take, and how long a kept connection may be silent.
    pub head_within: Duration,
    /// How long a connection may last, whatever happens on it.
    pub all_within: Duration,
}

/// Serves until it is stopped; requests in progress are completed.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let slots = Arc::new(Semaphore::new(limits.at_once));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let next = async {
            // The semaphore is never closed.
            let slot = slots.clone().acquire_owned().await.ok();
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            next = next => next,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((socket, _)) => {
                let connection = serve_connection(socket, router.clone(), limits, stop.clone());
                connections.spawn(async move {
                    // How a connection ends concerns only the client.
                    let _ended = timeout(limits.all_within, connection).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(error = %error, "A connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    while connections.join_next().await.is_some() {}
    Ok(())
}

async fn serve_connection(
    socket: TcpStream,
    router: Router,
    limits: ConnectionLimits,
    stop: CancellationToken,
) -> Result<(), hyper::Error> {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_within);
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = &mut connection => return ended,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn b17_a_silent_connection_is_closed_and_others_are_served() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = ConnectionLimits {
            at_once: 2,
            head_within: Duration::from_millis(300),
            all_within: Duration::from_mins(1),
        };
        let router = Router::new().route("/", get(|| async { "here" }));
        let stop = CancellationToken::new();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, router, limits, stop.clone()));
        let mut silent = Vec::new();
        for request in [
            "",
            "GET / HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nx",
            "G",
        ] {
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(request.as_bytes()).await.unwrap();
            silent.push(socket);
        }
        // It is accepted after the silent connections are closed.
        let answer = crate::http_client::client()
            .unwrap()
            .get(format!("http://{address}/"));
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "here");
        for mut socket in silent {
            let mut rest = Vec::new();
            // Nothing, or an error that the request took too long.
            drop(socket.read_to_end(&mut rest).await);
            assert!(!rest.starts_with(b"HTTP/1.1 200"));
        }
        stop.cancel();
        serving.join_next().await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn b17_a_connection_ends_however_slowly_it_is_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = ConnectionLimits {
            at_once: 1,
            head_within: Duration::from_mins(1),
            all_within: Duration::from_millis(300),
        };
        let router = Router::new()
            .route("/", get(|| async { vec![b'x'; 64 << 20] }))
            .route("/small", get(|| async { "here" }));
        let stop = CancellationToken::new();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, router, limits, stop.clone()));
        let mut slow = TcpStream::connect(address).await.unwrap();
        let ask = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        slow.write_all(ask).await.unwrap();
        // There is one slot, and it becomes free although nobody reads the large response.
        let client = crate::http_client::client().unwrap();
        let answer = client.get(format!("http://{address}/small"));
        let answer = answer.header("connection", "close").send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "here");
        stop.cancel();
        serving.join_next().await.unwrap().unwrap().unwrap();
    }
}
