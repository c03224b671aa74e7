//! Reads the body of an HTTP response up to a limit. The other side decides how much it sends, so the bridge reads a body in no
//! other way; files go through the spool, which has its own limit.

use reqwest::Response;
use serde::de::DeserializeOwned;

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It has more bytes than this.
    #[error("the response is longer than {0} bytes")]
    TooLong(usize),
    /// The connection broke, or took too long.
    #[error("the connection broke while the response was read")]
    Broken(#[source] reqwest::Error),
    /// It is not the JSON that was requested.
    #[error("the response is not the expected JSON")]
    NotJson(#[source] serde_json::Error),
}

/// The body, if it has at most `most` bytes. Stops reading at that limit, and reads nothing if the length header exceeds it.
pub async fn body(mut answer: Response, most: usize) -> Result<Vec<u8>, BodyError> {
    let length = answer.content_length().unwrap_or_default();
    if usize::try_from(length).map_or(true, |length| length > most) {
        return Err(BodyError::TooLong(most));
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(BodyError::Broken)? {
        if body.len() + chunk.len() > most {
            return Err(BodyError::TooLong(most));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The same, parsed as JSON.
pub async fn json<T: DeserializeOwned>(answer: Response, most: usize) -> Result<T, BodyError> {
    serde_json::from_slice(&body(answer, most).await?).map_err(BodyError::NotJson)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// The response of a server that sends these bytes, and the result of a reader with a limit of 1,000 bytes.
    async fn read(head: &str, body_bytes: usize) -> Result<Vec<u8>, BodyError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let head = head.to_owned();
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 1_024];
            let read = socket.read(&mut request).await.unwrap();
            assert!(read > 0);
            socket.write_all(head.as_bytes()).await.unwrap();
            let piece = [b'1'; 100];
            for _ in 0..body_bytes / 100 {
                // The reader closes the connection when it has read enough.
                if socket.write_all(&piece).await.is_err() {
                    return;
                }
            }
        });
        let http = crate::http_client::client().unwrap();
        let answer = http.get(url).send().await.unwrap();
        let read = body(answer, 1_000).await;
        serving.join_next().await.unwrap().unwrap();
        read
    }

    #[tokio::test]
    async fn b17_no_more_is_read_than_the_limit() {
        let open = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
        assert_eq!(read(open, 1_000).await.unwrap().len(), 1_000);
        let flood = read(open, 500 << 20).await;
        assert!(matches!(flood, Err(BodyError::TooLong(1_000))), "{flood:?}");
        let declared = "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n";
        let declared = read(declared, 0).await;
        assert!(
            matches!(declared, Err(BodyError::TooLong(1_000))),
            "{declared:?}"
        );
        let cut = "HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n";
        let cut = read(cut, 100).await;
        assert!(matches!(cut, Err(BodyError::Broken(_))), "{cut:?}");
    }
}
