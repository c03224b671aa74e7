//! Who has posted a code in a channel, and whether they decide there.

use super::{
    client::{Client, Range},
    errors::RequestError,
};
use crate::Poster;

/// The author of the post with exactly this text among the newest of a channel. A post of our own account, `me`, proves
/// nothing: it says what somebody in a room said. Nor does one that speaks for somebody else than its account, as a
/// webhook's does, whose text anybody may have written.
pub async fn find(
    client: &Client,
    me: &str,
    (channel, code): (&str, &str),
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
