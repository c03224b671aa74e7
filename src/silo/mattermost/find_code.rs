//! Finds who posted a code in a channel, and whether they are an admin there.

use super::{
    client::{Client, Range},
    errors::RequestError,
};
use crate::Poster;

/// The author of the post with exactly this text among the newest of a channel. A post of the bridge's account `me`
/// does not count, as its text comes from a room; nor does one for somebody other than its account, such as a
/// webhook's, whose text anybody may have written.
pub async fn find(
    client: &Client,
    me: &str,
    channel: &str,
    code: &str,
) -> Result<Option<Poster>, RequestError> {
    let posts = client.posts(channel, &Range::Newest(0)).await?;
    let mut newest = posts.into_iter().rev().filter(|post| {
        post.user_id != me && post.props.mark.is_none() && !post.props.speaks_for_another()
    });
    let Some(post) = newest.find(|post| post.message.trim() == code) else {
        return Ok(None);
    };
    let user = client.user(&post.user_id).await?;
    let member = client.member(channel, &post.user_id).await?;
    let has = |roles: &str, role: &str| roles.split_whitespace().any(|word| word == role);
    let is_admin = member.scheme_admin
        || has(&member.roles, "channel_admin")
        || has(&user.roles, "system_admin");
    Ok(Some(Poster {
        name: user.name(),
        is_admin: Some(is_admin),
    }))
}
