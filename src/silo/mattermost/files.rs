//! Files from and to Mattermost, as streams.

use std::time::Duration;

use footbridge_core::spool::Spooled;
use reqwest::{
    Body, RequestBuilder, Response,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use serde::Deserialize;

use super::{
    api::File,
    client::{Client, address, read_bounded, refusal_in},
    errors::{RepeatSafety, RequestError, Subject, classify, classify_no_response, unreadable},
};

/// The time limit of a request that transfers a file, up to the last byte of the response.
const TRANSFER_TIMEOUT: Duration = Duration::from_mins(15);

impl Client {
    /// Uploads a file into a channel, as a stream. Returns its id; nobody sees it until a post names it.
    pub async fn upload(
        &self,
        channel: &str,
        (name, file): (&str, &Spooled),
    ) -> Result<String, RequestError> {
        #[derive(Deserialize)]
        struct Uploaded {
            file_infos: Vec<File>,
        }
        // Without a form the body is the file (API reference, `POST /files`).
        let mut url = address(&self.base, &["files"])?;
        let query = [("channel_id", channel), ("filename", name)];
        url.query_pairs_mut().extend_pairs(query);
        let blocks = file.decrypted();
        let blocks = blocks.map_err(|error| RequestError::Refused(error.to_string()))?;
        let request = self
            .http
            .post(url)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, file.length())
            .body(Body::wrap_stream(blocks));
        let response = self.stream(request).await?;
        let body = read_bounded(response, RepeatSafety::Safe).await?;
        let uploaded: Option<Uploaded> = serde_json::from_slice(&body).ok();
        let file = uploaded.and_then(|uploaded| uploaded.file_infos.into_iter().next());
        let id = file.map(|file| file.id).filter(|id| !id.is_empty());
        id.ok_or_else(|| unreadable(RepeatSafety::Safe))
    }

    /// The bytes of a file, read on demand.
    pub async fn download(&self, id: &str) -> Result<Response, RequestError> {
        let request = self.http.get(address(&self.base, &["files", id])?);
        self.stream(request).await
    }

    /// The preview of an image.
    pub async fn preview(&self, id: &str) -> Result<Response, RequestError> {
        let url = address(&self.base, &["files", id, "preview"])?;
        self.stream(self.http.get(url)).await
    }

    /// The avatar of a user; `words` are from [`super::user_cache::UserCache::picture`].
    pub async fn fetch_avatar(&self, words: &str) -> Result<Response, RequestError> {
        let user = words.split('/').next().unwrap_or_default();
        let url = address(&self.base, &["users", user, "image"])?;
        self.stream(self.http.get(url)).await
    }

    /// A request with a long body or response.
    async fn stream(&self, request: RequestBuilder) -> Result<Response, RequestError> {
        self.turn().await;
        let sent = request
            .timeout(TRANSFER_TIMEOUT)
            .bearer_auth(self.token.expose())
            .send()
            .await;
        let response = sent.map_err(|error| classify_no_response(RepeatSafety::Safe, error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let after = self.learn(status.as_u16(), response.headers());
        let about = (Subject::File, RepeatSafety::Safe);
        let refusal = refusal_in(read_bounded(response, RepeatSafety::Safe).await);
        Err(classify(about, status.as_u16(), &refusal.id, after))
    }
}
