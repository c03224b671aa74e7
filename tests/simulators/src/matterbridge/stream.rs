//! `/api/stream`: one object per chunk, one read of the buffer per interval, no keep-alive; several readers take
//! messages from each other.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use tokio::sync::mpsc;

use super::Shared;

pub(super) fn answer(shared: &Arc<Shared>) -> Response {
    let (chunks, receiver) = mpsc::channel(1);
    tokio::spawn(pump(Arc::clone(shared), chunks));
    let body = stream::unfold(receiver, |mut receiver| async {
        let chunk: Bytes = receiver.recv().await?;
        Some((Ok::<_, Infallible>(chunk), receiver))
    });
    let kind = (header::CONTENT_TYPE, "application/json");
    ([kind], Body::from_stream(body)).into_response()
}

async fn pump(shared: Arc<Shared>, chunks: mpsc::Sender<Bytes>) {
    let reader = shared.world.read();
    hand_out(&shared, reader, &chunks).await;
    shared.world.leave_ring(reader);
}

async fn hand_out(shared: &Shared, reader: u64, chunks: &mpsc::Sender<Bytes>) {
    let mut next = Some(shared.world.hello());
    loop {
        if let Some(message) = next.take() {
            let line = format!("{}\n", message.json());
            if chunks.send(line.into()).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = chunks.closed() => return,
            () = tokio::time::sleep(shared.options.pace) => {}
        }
        next = shared.world.pop(reader);
    }
}
