//! Pictures of people are handed over before the first message that shows them, and hold none up for long.

use std::time::Duration;

use footbridge_store::{Delivery, Side};
use tracing::debug;

use super::Lane;
use crate::{
    file::File,
    message::Sender,
    outlet::{SendError, Step},
    picture::{LARGEST, Picture},
};

/// How long a message waits for the picture of its author.
const PATIENCE: Duration = Duration::from_secs(10);

impl Lane {
    /// Hands the picture of the step's author over, if the other side wants it. Without it the message goes all the same.
    pub(super) async fn introduce(&self, delivery: &Delivery, step: &Step) {
        let Some(author) = author_of(step) else {
            return;
        };
        if author.avatar.is_none() || !self.outlet.wants_picture(&delivery.to, author).await {
            return;
        }
        let handed = async {
            let spool = self.spool.apart(LARGEST, 1);
            let picture = self.source.picture(author, &spool).await?;
            let (to, outlet) = (&delivery.to, &self.outlet);
            outlet.take_picture(to, author, &picture).await?;
            Ok::<_, SendError>(())
        };
        match tokio::time::timeout(PATIENCE, handed).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(delivery.id = delivery.id.0, %error, "A picture is missing"),
            Err(_) => debug!(delivery.id = delivery.id.0, "A picture takes too long"),
        }
    }
}

impl Lane {
    /// The small picture of what a file shows, where a room is to have it and there is one.
    pub(super) async fn preview(&self, delivery: &Delivery, file: &File) -> Option<Picture> {
        if self.id.toward != Side::Matrix || !file.has_preview {
            return None;
        }
        let spool = self.spool.apart(LARGEST, 1);
        match tokio::time::timeout(PATIENCE, self.source.preview(file, &spool)).await {
            Ok(Ok(preview)) => Some(preview),
            Ok(Err(error)) => {
                debug!(delivery.id = delivery.id.0, %error, "A thumbnail is missing");
                None
            }
            Err(_) => {
                debug!(delivery.id = delivery.id.0, "A thumbnail takes too long");
                None
            }
        }
    }
}

/// Whose words a step carries, where that is shown beside them.
fn author_of(step: &Step) -> Option<&Sender> {
    let (Step::Post { content, .. } | Step::Send { content, .. } | Step::Replace { content, .. }) =
        step
    else {
        return None;
    };
    content.author.as_ref()
}
