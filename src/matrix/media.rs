//! Files on the homeserver: streamed with the bridge's own requests, because the SDK holds whole files in memory.
//! Downloads are authenticated (Matrix 1.11, "Content repository"); encrypted files are verified before anybody gets
//! them.

use std::time::Duration;

use anyhow::anyhow;
use footbridge_core::{
    bounded::{self, BodyError},
    file::File,
    image::Image,
    outlet::{Done, Outcome, SendError, Step, no_files_error},
    spool::{Spool, Spooled},
};
use footbridge_store::{Copy, Place};
use matrix_sdk::{Room, ruma::OwnedTransactionId};
use reqwest::{Body, Method, Response, header};
use serde::Deserialize;
use tracing::debug;
use url::Url;

use super::{
    Matrix,
    convert::{
        self,
        files::{self, MediaSource},
    },
};

/// How long the transfer of a file may take.
const TRANSFER_TIMEOUT: Duration = Duration::from_mins(15);
/// The MIME type of an encrypted file.
const ENCRYPTED_MIME: &str = "application/octet-stream";
/// The longest response about a file, in bytes: it contains a URL.
const MAX_RESPONSE: usize = 64 << 10;

impl Matrix {
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

    /// Uploads a file and sends its event. Encrypted rooms get it encrypted.
    pub(super) async fn send_media(
        &self,
        room: &Room,
        to: &Place,
        key: OwnedTransactionId,
        step: &Step,
        (spooled, preview): (&Spooled, Option<&Image>),
    ) -> Result<Done, SendError> {
        let Step::SendFile {
            file,
            content,
            thread,
            reply_to,
            ..
        } = step
        else {
            return Err(no_files_error());
        };
        let encrypted = self.guard(room, to).await?;
        let address = self
            .upload_media(spooled, file.safe_type(), encrypted)
            .await?;
        let source = (file, spooled);
        let content = self.disambiguate(room, to, content).await;
        let mut event = files::event_of(source, &content, &address, encrypted);
        if let Some(preview) = preview {
            // Without a thumbnail the file is sent all the same.
            match self
                .upload_media(&preview.bytes, preview.mime, encrypted)
                .await
            {
                Ok(address) => files::put_thumbnail(&mut event, file, preview, &address, encrypted),
                Err(error) => debug!(%error, "A thumbnail is missing"),
            }
        }
        convert::relate(&mut event, thread.as_ref(), reply_to.as_ref());
        let event = self.with_avatar(room, to, &content, event).await;
        let digest_input = convert::caption::to_verify(&event);
        let remote = self.send_event(room, to, key, event).await?;
        self.save_event_digest(to, &remote, digest_input).await?;
        Ok(Done::Created(Copy {
            remote,
            thread: thread.clone(),
            sent_at: self.clock.now(),
            file: None,
        }))
    }

    /// Uploads a file, encrypted or not. Returns its URL.
    pub(super) async fn upload_media(
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
        let url = below(self.account.client().homeserver(), path);
        let token = self.account.client().access_token().unwrap_or_default();
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
