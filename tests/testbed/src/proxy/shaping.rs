//! How a fault shapes what passes a proxy after a response's headers: bodies, and the bytes of an upgraded connection.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::{StreamExt as _, stream};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::rule::{Cut, Fault};
use footbridge_simulators::connections::Switch;

/// How long the last bytes before a cut may take to be sent.
const FLUSH: Duration = Duration::from_millis(5);

/// How bytes are passed on.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    Whole,
    CutAfter(usize, Cut),
    Trickle(usize, Duration),
}

impl Shape {
    pub(super) fn of(fault: Option<&Fault>) -> Self {
        match fault {
            Some(Fault::CutAfter(bytes, how)) => Self::CutAfter(*bytes, *how),
            Some(Fault::Trickle(bytes, pause)) => Self::Trickle((*bytes).max(1), *pause),
            _ => Self::Whole,
        }
    }
}

/// The body of a response as the client gets it. When the upstream connection breaks, the client's is cut, too.
pub(super) fn shaped(answer: reqwest::Response, shape: Shape, switch: Switch) -> Body {
    let flow = answer
        .bytes_stream()
        .map(|piece| piece.map_err(io::Error::other));
    match shape {
        Shape::Whole => Body::from_stream(flow),
        Shape::CutAfter(most, how) => {
            let begun = (Box::pin(flow), most, switch);
            let cut = stream::unfold(begun, move |(mut flow, left, switch)| async move {
                if left == 0 {
                    // What was passed on has to be sent before the cut.
                    tokio::time::sleep(FLUSH).await;
                    switch.cut(how);
                    let aborted = io::Error::from(io::ErrorKind::ConnectionAborted);
                    return Some((Err(aborted), (flow, 0, switch)));
                }
                let piece = flow.next().await?;
                let piece = piece.map(|piece| piece.slice(..piece.len().min(left)));
                let left = left - piece.as_ref().map_or(0, Bytes::len);
                Some((piece, (flow, left, switch)))
            });
            Body::from_stream(cut)
        }
        Shape::Trickle(size, pause) => {
            let drops = flow.flat_map(move |piece| {
                let pieces: Vec<io::Result<Bytes>> = match piece {
                    Ok(piece) => piece
                        .chunks(size)
                        .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
                        .collect(),
                    Err(error) => vec![Err(error)],
                };
                stream::iter(pieces)
            });
            Body::from_stream(drops.then(move |drop| async move {
                tokio::time::sleep(pause).await;
                drop
            }))
        }
    }
}

/// Relays bytes both ways over an upgraded connection until one end closes.
pub(super) async fn pump<A, B>(client: A, upstream: B, shape: Shape, switch: &Switch)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_upstream, mut to_upstream) = tokio::io::split(upstream);
    let up = async {
        tokio::io::copy(&mut from_client, &mut to_upstream)
            .await
            .ok();
    };
    let down = async {
        carry(&mut from_upstream, &mut to_client, shape, switch)
            .await
            .ok();
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
    to_upstream.shutdown().await.ok();
    to_client.shutdown().await.ok();
}

async fn carry(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    shape: Shape,
    switch: &Switch,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    let mut passed = 0;
    loop {
        let count = from.read(&mut buffer).await?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        match shape {
            Shape::Whole => to.write_all(bytes).await?,
            Shape::CutAfter(most, how) => {
                let left = most.saturating_sub(passed);
                to.write_all(bytes.get(..left.min(count)).unwrap_or_default())
                    .await?;
                to.flush().await?;
                if left <= count {
                    tokio::time::sleep(FLUSH).await;
                    switch.cut(how);
                    return Ok(());
                }
            }
            Shape::Trickle(size, pause) => {
                for drop in bytes.chunks(size) {
                    to.write_all(drop).await?;
                    to.flush().await?;
                    tokio::time::sleep(pause).await;
                }
            }
        }
        passed += count;
        to.flush().await?;
    }
}
