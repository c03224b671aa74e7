//! Files of a test client. It sends and reads them with the SDK's own attachment code, so that tests check the bridge's
//! file encryption against another implementation.

use matrix_sdk::{
    attachment::AttachmentConfig,
    media::{MediaFormat, MediaRequestParameters},
    ruma::events::room::{MediaSource, message::TextMessageEventContent},
};
use serde_json::Value;

use super::{Boxed, TestClient};

impl TestClient {
    /// Sends a file, with or without a caption; returns the event id.
    #[must_use]
    pub fn send_file(
        &self,
        room: &str,
        (name, mime): (&str, &str),
        bytes: Vec<u8>,
        caption: Option<&str>,
    ) -> Boxed<'_, anyhow::Result<String>> {
        let (room, name, mime) = (room.to_owned(), name.to_owned(), mime.to_owned());
        let caption = caption.map(TextMessageEventContent::plain);
        Box::pin(async move {
            let config = AttachmentConfig::new().caption(caption);
            let sent = self
                .room(&room)?
                .send_attachment(name, &mime.parse()?, bytes, config)
                .await?;
            Ok(sent.event_id.to_string())
        })
    }

    /// Downloads and decrypts the file of an event with this content.
    #[must_use]
    pub fn read_file(&self, content: &Value) -> Boxed<'_, anyhow::Result<Vec<u8>>> {
        let source = content.clone();
        Box::pin(async move {
            let request = MediaRequestParameters {
                source: serde_json::from_value::<MediaSource>(source)?,
                format: MediaFormat::File,
            };
            Ok(self
                .client
                .media()
                .get_media_content(&request, false)
                .await?)
        })
    }
}
