//! Files as a person's client sends and reads them: with the SDK's own attachments, so that ours are held against somebody
//! else's encryption.

use matrix_sdk::{
    attachment::AttachmentConfig,
    media::{MediaFormat, MediaRequestParameters},
    ruma::events::room::{MediaSource, message::TextMessageEventContent},
};
use serde_json::Value;

use super::{Boxed, TestClient};

impl TestClient {
    /// Sends a file, with words or without; answers the event's id.
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

    /// Reads the file of an event with this content.
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
