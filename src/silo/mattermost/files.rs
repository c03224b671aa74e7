//! Files from and to Mattermost, as streams.

use std::time::Duration;

use footbridge_core::spool::Spooled;
use reqwest::{
    Body, Method, RequestBuilder, Response,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use serde::Deserialize;

use super::{
    api::File,
    client::{Client, refusal_in},
    errors::{RepeatSafety, RequestError, SERVICE, Subject, classify},
};

/// The time limit of a request that transfers a file, up to the last byte of the response.
const TRANSFER_TIMEOUT: Duration = Duration::from_mins(15);

impl Client {
    /// Uploads a file into a channel, as a stream. Returns its id; nobody sees it until a post names it.
    pub async fn upload(
        &self,
        channel: &str,
        name: &str,
        file: &Spooled,
    ) -> Result<String, RequestError> {
        #[derive(Deserialize)]
        struct Uploaded {
            file_infos: Vec<File>,
        }
        // Without a form the body is the file (API reference, `POST /files`).
        let mut url = self.rest.address(&["files"])?;
        let query = [("channel_id", channel), ("filename", name)];
        url.query_pairs_mut().extend_pairs(query);
        let blocks = file.decrypted();
        let blocks = blocks.map_err(|error| RequestError::Refused(error.to_string()))?;
        let request = self
            .rest
            .request(Method::POST, url)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, file.length())
            .body(Body::wrap_stream(blocks));
        let response = self.stream(request).await?;
        let body = self.rest.body(response, RepeatSafety::Safe).await?;
        let uploaded: Option<Uploaded> = serde_json::from_slice(&body).ok();
        let file = uploaded.and_then(|uploaded| uploaded.file_infos.into_iter().next());
        let id = file.map(|file| file.id).filter(|id| !id.is_empty());
        id.ok_or_else(|| SERVICE.unexpected_format(RepeatSafety::Safe))
    }

    /// The bytes of a file, read on demand.
    pub async fn download(&self, id: &str) -> Result<Response, RequestError> {
        let url = self.rest.address(&["files", id])?;
        self.stream(self.rest.request(Method::GET, url)).await
    }

    /// The preview of an image.
    pub async fn preview(&self, id: &str) -> Result<Response, RequestError> {
        let url = self.rest.address(&["files", id, "preview"])?;
        self.stream(self.rest.request(Method::GET, url)).await
    }

    /// The avatar of a user; `words` are from [`super::user_cache::UserCache::picture`].
    pub async fn fetch_avatar(&self, words: &str) -> Result<Response, RequestError> {
        let user = words.split('/').next().unwrap_or_default();
        let url = self.rest.address(&["users", user, "image"])?;
        self.stream(self.rest.request(Method::GET, url)).await
    }

    /// A request with a long body or response.
    async fn stream(&self, request: RequestBuilder) -> Result<Response, RequestError> {
        self.turn().await;
        let sent = request.timeout(TRANSFER_TIMEOUT).send().await;
        let response = sent.map_err(|error| SERVICE.no_response(RepeatSafety::Safe, error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let after = self.learn(status.as_u16(), response.headers());
        let (subject, repeat) = (Subject::File, RepeatSafety::Safe);
        let refusal = refusal_in(self.rest.body(response, repeat).await);
        Err(classify(
            subject,
            repeat,
            status.as_u16(),
            &refusal.id,
            after,
        ))
    }
}
