//! Links to files, for silos that accept none: each link leads to the bridge's media gateway, for a limited time.

use std::time::Duration;

use footbridge_store::{EntryId, Error, Millis, Place, Store};
use url::Url;

use crate::file::File;

/// Creates links.
#[derive(Clone, Debug)]
pub struct MediaLinks {
    /// The prefix of every link.
    pub public_url: Url,
    /// How long a link is valid.
    pub good_for: Duration,
}

impl MediaLinks {
    /// The file of this entry with a link for people in `to`. A second call returns the same link.
    pub async fn link_for(
        &self,
        store: &Store,
        entry: EntryId,
        to: &Place,
        file: &File,
        now: Millis,
    ) -> Result<File, Error> {
        let lookup = format!("{entry} {to} {}", file.source);
        let until = now.plus(self.good_for);
        let payload = serde_json::to_vec(file).unwrap_or_default();
        let token = store
            .create_media_link(entry, &lookup, payload, until, now)
            .await?;
        let mut url = self.public_url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push(&token).push(&file.safe_name());
        }
        Ok(File {
            link: Some(url.into()),
            ..file.clone()
        })
    }
}
