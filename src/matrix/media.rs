//! Files on the homeserver: streamed with the bridge's own requests, because the SDK holds whole files in memory.
//! Downloads are authenticated (Matrix 1.11, "Content repository"); encrypted files are verified before anybody gets
//! them.

use std::time::Duration;

use anyhow::anyhow;
use footbridge_core::{
    bounded::{self, BodyError},
    file::File,
    outlet::{Outcome, SendError},
    spool::{Spool, Spooled},
};
use matrix_sdk::Client;
use reqwest::{Body, Method, Response, header};
use serde::Deserialize;
use url::Url;

use super::convert::files::{self, MediaSource};

/// How long the transfer of a file may take.
const TRANSFER_TIMEOUT: Duration = Duration::from_mins(15);
/// The MIME type of an encrypted file.
const ENCRYPTED_MIME: &str = "application/octet-stream";
/// The longest response about a file, in bytes: it contains a URL.
const MAX_RESPONSE: usize = 64 << 10;

/// Files of the account's homeserver.
#[derive(Debug)]
pub(super) struct Media {
    client: Client,
    /// For files, which the SDK would hold in memory.
    http: reqwest::Client,
}

impl Media {
    pub(super) fn of(client: Client, http: reqwest::Client) -> Self {
        Self { client, http }
    }

    /// Downloads a file of a room, complete and verified.
    pub(super) async fn download(&self, file: &File, spool: &Spool) -> Result<Spooled, SendError> {
        let no_url = || refused("the message has no media URL");
        let source = files::source_of(&file.source).ok_or_else(no_url)?;
        let address = match &source {
            MediaSource::Clear(address) => address,
            MediaSource::Encrypted(file) => &file.url,
        };
        let (server, id) = address.parts().map_err(|_| no_url())?;
        let path = ["client", "v1", "media", "download", server.as_str(), id];
        let mut answer = self.ask(Method::GET, &path, |request| request).await;
        if matches!(&answer, Err(SendError::Refused { .. })) {
            // Homeservers before Matrix 1.11.
            let path = ["media", "v3", "download", server.as_str(), id];
            answer = self.ask(Method::GET, &path, |request| request).await;
        }
        let bytes = answer?.bytes_stream();
        Ok(match source {
            MediaSource::Clear(_) => spool.seal(bytes).await?,
            MediaSource::Encrypted(file) => spool.verify(bytes, (*file).into()).await?,
        })
    }

    /// Uploads a file, encrypted or not. Returns its URL.
    pub(super) async fn upload_file(
        &self,
        spooled: &Spooled,
        kind: &str,
        encrypted: bool,
    ) -> Result<String, SendError> {
        let (blocks, kind) = if encrypted {
            (spooled.encrypted(), ENCRYPTED_MIME)
        } else {
            (spooled.decrypted()?, kind)
        };
        let answer = self
            .ask(Method::POST, &["media", "v3", "upload"], |request| {
                request
                    .header(header::CONTENT_TYPE, kind)
                    .header(header::CONTENT_LENGTH, spooled.length())
                    .body(Body::wrap_stream(blocks))
            })
            .await?;
        let uploaded: Result<Uploaded, BodyError> = bounded::json(answer, MAX_RESPONSE).await;
        let uploaded = uploaded.map_err(|error| SendError::Retry {
            after: None,
            outcome: Outcome::NotDone,
            source: anyhow::Error::new(error).context("the homeserver returned no media URL"),
        })?;
        Ok(uploaded.content_uri)
    }

    async fn ask(
        &self,
        method: Method,
        path: &[&str],
        with: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Result<Response, SendError> {
        let url = below(self.client.homeserver(), path);
        let token = self.client.access_token().unwrap_or_default();
        let request = self.http.request(method, url).timeout(TRANSFER_TIMEOUT);
        let answer = with(request.bearer_auth(token)).send().await;
        let answer = answer.map_err(|error| not_done(&error))?;
        let status = answer.status().as_u16();
        let retry_after = answer.headers().get(header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        match status {
            200..=299 => Ok(answer),
            413 => Err(refused("the file is larger than the homeserver accepts")),
            // If the token is no longer accepted, the next sync reports it.
            401 | 408 | 425 | 500.. => Err(SendError::Retry {
                after: None,
                outcome: Outcome::NotDone,
                source: anyhow!("the homeserver answered {status} about a file"),
            }),
            429 => Err(SendError::Retry {
                after: Some(Duration::from_secs(retry_after.unwrap_or(5))),
                outcome: Outcome::NotDone,
                source: anyhow!("the homeserver accepts no more files for now"),
            }),
            _ => Err(refused(&format!(
                "the homeserver does not have the file, or does not accept it (status {status})"
            ))),
        }
    }
}

#[derive(Deserialize)]
struct Uploaded {
    content_uri: String,
}

/// The URL of a path below `/_matrix`; every segment is encoded.
fn below(mut homeserver: Url, path: &[&str]) -> Url {
    if let Ok(mut segments) = homeserver.path_segments_mut() {
        segments.pop_if_empty().push("_matrix").extend(path);
    }
    homeserver
}

fn refused(reason: &str) -> SendError {
    SendError::Refused {
        reason: reason.to_owned(),
    }
}

/// No event was sent, whatever became of the upload. The URL would name the file; the cause is enough.
fn not_done(error: &reqwest::Error) -> SendError {
    let why = if error.is_timeout() {
        "it took too long"
    } else if error.is_connect() {
        "the homeserver does not answer"
    } else {
        "the connection broke"
    };
    SendError::Retry {
        after: None,
        outcome: Outcome::NotDone,
        source: anyhow!("file transfer failed: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c26_no_part_of_an_address_leads_elsewhere() {
        let home = || "https://matrix.example.org/".parse().unwrap();
        let url = below(
            home(),
            &["client", "v1", "media", "download", "a/../..", "x?y#z"],
        );
        assert_eq!(
            url.as_str(),
            "https://matrix.example.org/_matrix/client/v1/media/download/a%2F..%2F../x%3Fy%23z"
        );
        for bad in [
            "mxc://",
            "mxc://example.org",
            "mxc://example.org/",
            "mxc://example.org/../admin",
            "mxc://example.org/a/b",
            "mxc://exa mple/abc",
            "https://example.org/a",
            "file:///etc/passwd",
        ] {
            assert!(files::source_of(bad).is_none(), "{bad}");
        }
        assert!(files::source_of("mxc://example.org:8448/Abc_d-1").is_some());
    }
}
