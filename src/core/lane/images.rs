//! The lane uploads the avatars of persons before the first message that shows them, and delays no message for long.

use std::time::Duration;

use footbridge_store::{Delivery, Side};
use tracing::debug;

use super::Lane;
use crate::{
    file::File,
    image::{Image, LARGEST},
    message::Sender,
    outlet::{SendError, Step},
};

/// How long a message waits for the avatar of its author.
const IMAGE_TIMEOUT: Duration = Duration::from_secs(10);

impl Lane {
    /// Uploads the avatar of the step's author, if the target side needs it. Without it the message is sent all the same.
    pub(super) async fn upload_author_avatar(&self, delivery: &Delivery, step: &Step) {
        let Some(author) = author_of(step) else {
            return;
        };
        if author.avatar.is_none() || !self.outlet.needs_avatar(&delivery.to, author).await {
            return;
        }
        let uploaded = async {
            let spool = self.spool.with_limits(LARGEST, 1);
            let avatar = self.source.avatar(author, &spool).await?;
            let (to, outlet) = (&delivery.to, &self.outlet);
            outlet.upload_avatar(to, author, &avatar).await?;
            Ok::<_, SendError>(())
        };
        match tokio::time::timeout(IMAGE_TIMEOUT, uploaded).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(delivery.id = delivery.id.0, %error, "Avatar not fetched"),
            Err(_) => debug!(delivery.id = delivery.id.0, "Avatar fetch timed out"),
        }
    }
}

impl Lane {
    /// The thumbnail of a file, where a room is the target and the file has one.
    pub(super) async fn thumbnail(&self, delivery: &Delivery, file: &File) -> Option<Image> {
        if self.id.toward != Side::Matrix || !file.has_thumbnail {
            return None;
        }
        let spool = self.spool.with_limits(LARGEST, 1);
        match tokio::time::timeout(IMAGE_TIMEOUT, self.source.thumbnail(file, &spool)).await {
            Ok(Ok(thumbnail)) => Some(thumbnail),
            Ok(Err(error)) => {
                debug!(delivery.id = delivery.id.0, %error, "Thumbnail not fetched");
                None
            }
            Err(_) => {
                debug!(delivery.id = delivery.id.0, "Thumbnail fetch timed out");
                None
            }
        }
    }
}

/// The author of the content that a step carries, where the side shows the author beside the content.
fn author_of(step: &Step) -> Option<&Sender> {
    let (Step::Post { content, .. } | Step::SendFile { content, .. } | Step::Edit { content, .. }) =
        step
    else {
        return None;
    };
    content.author.as_ref()
}
