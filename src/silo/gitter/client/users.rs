//! The users of a room.

use serde_json::Value;

use super::{Call, Client, Priority, RequestError, Subject, User};

/// The most users of one page.
pub const PEOPLE_PAGE: usize = 100;

impl Client {
    /// A page of the users of a room, after the first `skip` of them.
    pub async fn people(&self, room: &str, skip: usize) -> Result<Vec<User>, RequestError> {
        let path = ["rooms", room, "users"];
        let call = Call::get(Subject::Channel, &path)
            .query("limit", PEOPLE_PAGE)
            .query("skip", skip);
        let users: Vec<Value> = self.ask(Priority::Read, call).await?;
        let users = users
            .into_iter()
            .filter_map(|user| serde_json::from_value(user).ok());
        Ok(users.collect())
    }
}
