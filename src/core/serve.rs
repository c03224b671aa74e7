//! How whoever connects is served over HTTP: so many at a time, each for so long. A connection that says nothing holds a
//! descriptor of ours, and the rest of the bridge needs those.

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

/// How long nothing is accepted after it failed: mostly for want of descriptors.
const PAUSE: Duration = Duration::from_secs(1);

/// What each listener allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many connections there are at a time. Further ones wait until they are accepted.
    pub at_once: usize,
    /// How long the head of a request may take, and a kept connection may be silent.
    pub head_within: Duration,
    /// How long a connection may last, whatever happens on it.
    pub all_within: Duration,
}

/// Serves until told to stop; what is being answered then is answered.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let places = Arc::new(Semaphore::new(limits.at_once));
    let mut talks = JoinSet::new();
    loop {
        while talks.try_join_next().is_some() {}
        let next = async {
            // It is never closed.
            let place = places.clone().acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((socket, _)) => {
                let talk = talk(socket, router.clone(), limits, stop.clone());
                talks.spawn(async move {
                    // How a connection ends is the business of whoever opened it.
                    let _ended = timeout(limits.all_within, talk).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(error = %error, "A connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    while talks.join_next().await.is_some() {}
    Ok(())
}

async fn talk(
    socket: TcpStream,
    router: Router,
    limits: Limits,
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
    async fn b17_who_says_nothing_is_let_go_and_others_get_their_turn() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = Limits {
            at_once: 2,
            head_within: Duration::from_millis(300),
            all_within: Duration::from_mins(1),
        };
        let router = Router::new().route("/", get(|| async { "here" }));
        let stop = CancellationToken::new();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, router, limits, stop.clone()));
        let mut silent = Vec::new();
        for said in [
            "",
            "GET / HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nx",
            "G",
        ] {
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(said.as_bytes()).await.unwrap();
            silent.push(socket);
        }
        // Its turn comes after theirs.
        let answer = crate::http::client()
            .unwrap()
            .get(format!("http://{address}/"));
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "here");
        for mut socket in silent {
            let mut rest = Vec::new();
            // Nothing, or that it took too long.
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
        let limits = Limits {
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
        // There is one place, and it becomes free although nobody reads the large answer.
        let client = crate::http::client().unwrap();
        let answer = client.get(format!("http://{address}/small"));
        let answer = answer.header("connection", "close").send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "here");
        stop.cancel();
        serving.join_next().await.unwrap().unwrap().unwrap();
    }
}
