//! Finds who posted a code in a room, and whether Gitter lists them as an admin.

use super::{
    api::User,
    client::{Client, PEOPLE_PAGE, Range},
    errors::RequestError,
    rate_limiter::Priority,
};
use crate::Poster;

/// How many pages of users are read to find out who is an admin.
const MAX_PAGES: usize = 10;

/// The author of the message with exactly this text among the newest of a room. A message of the bridge's account `me`
/// does not count, as its text comes from a Matrix room; nor does one that an app posted for a virtual user.
pub async fn find(
    client: &Client,
    me: &str,
    room: &str,
    code: &str,
) -> Result<Option<Poster>, RequestError> {
    let page = client
        .messages(Priority::Audit, room, &Range::default())
        .await?;
    let mut newest = page.messages.into_iter().rev();
    let author = newest
        .find(|message| {
            let by_person = message.virtual_user.is_none() && !message.is_from(me);
            by_person && message.raw().trim() == code
        })
        .and_then(|message| message.from_user);
    let Some(author) = author else {
        return Ok(None);
    };
    let mut people = Vec::new();
    for _ in 0..MAX_PAGES {
        let page = client.people(room, people.len()).await?;
        let is_full = page.len() >= PEOPLE_PAGE;
        people.extend(page);
        if !is_full {
            break;
        }
    }
    Ok(Some(Poster {
        is_admin: is_admin(&people, &author.id),
        name: author
            .display_name
            .or(author.username)
            .unwrap_or_else(|| "Somebody".to_owned()),
    }))
}

/// Whether this is an admin among these users of the room; `None` where no user is marked as one.
fn is_admin(people: &[User], id: &str) -> Option<bool> {
    let mut admins = people
        .iter()
        .filter(|user| user.role.as_deref() == Some("admin"))
        .peekable();
    admins.peek()?;
    Some(admins.any(|user| user.id == id))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_admin_is_a_user_marked_as_one_and_without_marks_it_is_unknown() {
        let people =
            |users: serde_json::Value| -> Vec<User> { serde_json::from_value(users).unwrap() };
        let some =
            people(json!([{"id": "a", "role": "admin"}, {"id": "b"}, {"id": "c", "role": "x"}]));
        assert_eq!(is_admin(&some, "a"), Some(true));
        assert_eq!(is_admin(&some, "b"), Some(false));
        assert_eq!(is_admin(&some, "c"), Some(false));
        assert_eq!(is_admin(&some, "absent"), Some(false));
        assert_eq!(is_admin(&people(json!([{"id": "b"}])), "b"), None);
    }
}
