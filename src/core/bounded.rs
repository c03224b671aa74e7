//! Reading the body of an HTTP answer up to a limit. Whoever answers decides how much comes, so that nothing of ours
//! reads a body in any other way; files go through the spool, which has a limit of its own.

use reqwest::Response;
use serde::de::DeserializeOwned;

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// It has more bytes than this.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// The connection broke, or took too long.
    #[error("the answer broke off")]
    Broken(#[source] reqwest::Error),
    /// It is not the JSON that was asked for.
    #[error("the answer is not the JSON that was asked for")]
    NoJson(#[source] serde_json::Error),
}

/// The body, if it has at most so many bytes. Of a longer one no more is read, nor of one that says so beforehand.
pub async fn body(mut answer: Response, most: usize) -> Result<Vec<u8>, Unread> {
    let told = answer.content_length().unwrap_or_default();
    if usize::try_from(told).map_or(true, |told| told > most) {
        return Err(Unread::TooLong(most));
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(Unread::Broken)? {
        if body.len() + chunk.len() > most {
            return Err(Unread::TooLong(most));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The same, read as JSON.
pub async fn json<T: DeserializeOwned>(answer: Response, most: usize) -> Result<T, Unread> {
    serde_json::from_slice(&body(answer, most).await?).map_err(Unread::NoJson)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// The answer of a server that sends these bytes, and what a reader with a limit of 1,000 bytes makes of it.
    async fn read(head: &str, body_bytes: usize) -> Result<Vec<u8>, Unread> {
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
                // Whoever has read enough hangs up.
                if socket.write_all(&piece).await.is_err() {
                    return;
                }
            }
        });
        let http = crate::http::client().unwrap();
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
        assert!(matches!(flood, Err(Unread::TooLong(1_000))), "{flood:?}");
        let told = "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n";
        let told = read(told, 0).await;
        assert!(matches!(told, Err(Unread::TooLong(1_000))), "{told:?}");
        let cut = "HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n";
        let cut = read(cut, 100).await;
        assert!(matches!(cut, Err(Unread::Broken(_))), "{cut:?}");
    }
}
