//! Lists of messages: filtered by id, sorted by `sent`, always returned oldest first. This mismatch is the service's
//! own.

use super::{api_error::ApiError, ids::well_formed, posts::Post, world::Channel};

/// The largest number of messages per response.
pub(super) const MAX_LIMIT: usize = 100;
const MAX_SKIP: usize = 5000;

/// Which messages a request lists.
#[derive(Clone, Default)]
pub(super) struct ListQuery {
    pub(super) limit: usize,
    pub(super) skip: usize,
    pub(super) before: Option<String>,
    pub(super) before_inclusive: Option<String>,
    pub(super) after: Option<String>,
    pub(super) around: Option<String>,
    pub(super) search: Option<String>,
    /// Whether thread replies are included.
    pub(super) threads: bool,
    /// Only the replies to this root.
    pub(super) thread: Option<String>,
}

/// The limit of a query, within what the service allows. Anything but a positive number counts as not given.
pub(super) fn limit(asked: Option<&str>, default: usize, most: usize) -> usize {
    match asked.and_then(|asked| asked.parse().ok()) {
        None | Some(0) => default,
        Some(number) => most.min(number),
    }
}

impl ListQuery {
    fn check(&self) -> Result<(), ApiError> {
        if self.skip > MAX_SKIP {
            return Err(ApiError::BAD_REQUEST);
        }
        let marks = [
            &self.before,
            &self.before_inclusive,
            &self.after,
            &self.around,
        ];
        // The service asserts on these instead of responding with 400.
        if marks.into_iter().flatten().any(|id| !well_formed(id)) {
            return Err(ApiError::BROKEN);
        }
        Ok(())
    }

    fn shows(&self, post: &Post) -> bool {
        match &self.thread {
            Some(root) => post.message.parent_id.as_ref() == Some(root),
            None => self.threads || post.message.parent_id.is_none(),
        }
    }

    fn within(&self, post: &Post) -> bool {
        let id = post.message.id.as_str();
        self.before
            .as_ref()
            .is_none_or(|mark| id < mark.to_ascii_lowercase().as_str())
            && self
                .before_inclusive
                .as_ref()
                .is_none_or(|mark| id <= mark.to_ascii_lowercase().as_str())
            && self
                .after
                .as_ref()
                .is_none_or(|mark| id > mark.to_ascii_lowercase().as_str())
    }

    /// The messages, oldest first (by relevance in a search).
    pub(super) fn pick<'a>(&self, room: &'a Channel) -> Result<Vec<&'a Post>, ApiError> {
        self.check()?;
        let mut posts: Vec<&Post> = room.posts.iter().filter(|post| self.shows(post)).collect();
        if let Some(words) = &self.search {
            return Ok(self.found(posts, words));
        }
        posts.sort_by_key(|post| post.message.sent_ms);
        if let Some(around) = &self.around {
            return Ok(self.halves(&posts, around));
        }
        posts.retain(|post| self.within(post));
        if self.after.is_some() && self.before.is_none() && self.before_inclusive.is_none() {
            return Ok(posts.into_iter().skip(self.skip).take(self.limit).collect());
        }
        Ok(newest(posts, self.skip, self.limit))
    }

    fn halves<'a>(&self, posts: &[&'a Post], around: &str) -> Vec<&'a Post> {
        let around = around.to_ascii_lowercase();
        let (before, after): (Vec<&Post>, Vec<&Post>) =
            posts.iter().partition(|post| post.message.id <= around);
        let half = self.limit / 2;
        let mut picked = newest(before, 0, self.limit - half);
        picked.extend(after.into_iter().take(half));
        picked
    }

    fn found<'a>(&self, mut posts: Vec<&'a Post>, words: &str) -> Vec<&'a Post> {
        let words: Vec<String> = words.split_whitespace().map(str::to_lowercase).collect();
        let score = |post: &Post| {
            let text = post.message.text.to_lowercase();
            words
                .iter()
                .map(|word| text.matches(word.as_str()).count())
                .sum::<usize>()
        };
        posts.retain(|post| score(post) > 0);
        posts.sort_by_key(|post| std::cmp::Reverse(score(post)));
        posts.into_iter().skip(self.skip).take(self.limit).collect()
    }
}

fn newest(posts: Vec<&Post>, skip: usize, limit: usize) -> Vec<&Post> {
    let mut posts: Vec<&Post> = posts.into_iter().rev().skip(skip).take(limit).collect();
    posts.reverse();
    posts
}
