//! Links to files, for silos that take none: each leads to our own media gateway, for a while.

use std::time::Duration;

use footbridge_store::{EntryId, Error, Millis, Place, Store};
use url::Url;

use crate::file::File;

/// Makes links.
#[derive(Clone, Debug)]
pub struct Links {
    /// What stands in front of every link.
    pub public_url: Url,
    /// How long one is good for.
    pub good_for: Duration,
}

impl Links {
    /// The file of this entry with a link for people in `to`. Asked again, it is the same one.
    pub async fn to(
        &self,
        store: &Store,
        (entry, to): (EntryId, &Place),
        file: &File,
        now: Millis,
    ) -> Result<File, Error> {
        let which = format!("{entry} {to} {}", file.source);
        let until = now.plus(self.good_for);
        let letter = serde_json::to_vec(file).unwrap_or_default();
        let token = store.offer(entry, &which, letter, until, now).await?;
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
