//! Reads a channel with more changes than one response contains: page by page, oldest first.

use super::{
    api::Post,
    client::{PAGE, Range},
    errors::RequestError,
    listener::{EventSource, ListenError, Listener},
};

impl Listener {
    /// Reads all posts after the last one that was read, page by page, and the page before them, in which posts may
    /// have been edited or deleted.
    pub(super) async fn catch_up_by_pages(&mut self, channel: &str) -> Result<(), ListenError> {
        let anchor = match self.anchor(channel) {
            Some(anchor) => anchor,
            None => self.oldest(channel).await?,
        };
        let mut after = match self.read(channel, &Range::Before(anchor.clone())).await {
            Ok(before) => {
                self.take(channel, before, EventSource::Paged).await?;
                anchor
            }
            // The server's retention policy may have removed the post itself.
            Err(ListenError::Request(RequestError::Closed(_))) => self.oldest(channel).await?,
            Err(failure) => return Err(failure),
        };
        loop {
            let posts = self.read(channel, &Range::After(after.clone())).await?;
            let is_full = posts.len() >= PAGE;
            let next = border(&posts).unwrap_or_default();
            self.take(channel, posts, EventSource::Paged).await?;
            if !is_full || next.is_empty() || next == after {
                return Ok(());
            }
            after = next;
        }
    }

    /// The oldest post of a channel that was empty when it was linked. All of its page is processed.
    async fn oldest(&mut self, channel: &str) -> Result<String, ListenError> {
        let mut page = 0;
        loop {
            let posts = self.read(channel, &Range::Newest(page)).await?;
            if posts.len() < PAGE {
                let oldest = border(&posts).unwrap_or_default();
                self.take(channel, posts, EventSource::Paged).await?;
                return Ok(oldest);
            }
            page += 1;
        }
    }
}

/// The newest post of a page that is older than the page's newest time: paging after it misses no post of the same
/// time.
fn border(posts: &[Post]) -> Option<String> {
    let newest = posts.last()?;
    let older = posts
        .iter()
        .rev()
        .find(|post| post.create_at < newest.create_at);
    Some(older.unwrap_or(newest).id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(id: &str, create_at: i64) -> Post {
        Post {
            id: id.to_owned(),
            create_at,
            ..Post::default()
        }
    }

    #[test]
    fn reading_continues_after_a_time_that_was_read_completely() {
        let page = [post("a", 1), post("b", 2), post("c", 2)];
        assert_eq!(border(&page).as_deref(), Some("a"));
        assert_eq!(
            border(&page[1..]).as_deref(),
            Some("c"),
            "there is nothing older"
        );
        assert_eq!(border(&[]), None);
    }
}
