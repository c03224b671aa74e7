//! The meaning of Mattermost's error responses, by status and error id.

use std::time::Duration;

use anyhow::anyhow;
use footbridge_core::outlet::Outcome;

use crate::request_error::Service;
pub use crate::request_error::{RepeatSafety, RequestError, Subject, no_channel};

/// Mattermost.
pub static SERVICE: Service = Service {
    name: "Mattermost",
    signed_out: "Mattermost no longer accepts the account's token; put a new one in the configuration",
    address_key: "url",
};

/// Mattermost refuses the token.
pub const SIGNED_OUT: RequestError = RequestError::SignedOut(&SERVICE);

/// Why an existing channel is closed.
pub const FORBIDDEN_CHANNEL: &str =
    "Mattermost does not allow this account into the channel (removed, or it is private)";

/// Why a channel is closed that does not exist.
pub const NO_CHANNEL: &str = "The channel does not exist on Mattermost";

/// The possible reasons why a channel is not found by its name. Mattermost's response is the same for all.
pub const HIDDEN_CHANNEL: &str = "Mattermost shows this account no channel of that name: it may be private (then \
     send `/invite @<the bridge's account>` in it), renamed (then its address shows the new name), or missing";

/// Why a readable channel is closed.
pub const ARCHIVED_CHANNEL: &str =
    "The channel is archived on Mattermost; unarchive it, or remove its portal";

/// The error ids of changes in an archived channel.
const ARCHIVED: [&str; 6] = [
    "api.post.create_post.can_not_post_to_deleted.error",
    "api.post.update_post.can_not_update_post_in_deleted.error",
    "api.post.patch_post.can_not_update_post_in_deleted.error",
    "api.post.delete_post.can_not_delete_post_in_deleted.error",
    "api.reaction.save.archived_channel.app_error",
    "api.reaction.delete.archived_channel.app_error",
];

/// The meaning of a status other than success. `id` is that of Mattermost's error, empty if a proxy answered; `after`
/// is the wait that the headers ask for.
pub fn classify(
    subject: Subject,
    repeat: RepeatSafety,
    status: u16,
    id: &str,
    after: Duration,
) -> RequestError {
    match (status, subject) {
        (401, _) => SIGNED_OUT,
        // The first request is still in progress, or was when its connection broke.
        (_, _) if id == "api.post.deduplicate_create_post.pending" => RequestError::Unavailable {
            outcome: Outcome::Unknown,
            source: anyhow!("Mattermost is still busy with the same message"),
        },
        (400 | 403, _) if ARCHIVED.contains(&id) => RequestError::Closed(ARCHIVED_CHANNEL),
        (400, _) if id == "api.post.create_post.root_id.app_error" => {
            RequestError::NoThread(&SERVICE)
        }
        (400, _) if id == "model.post.is_valid.msg.app_error" => {
            RequestError::Refused("The message is too long for Mattermost".to_owned())
        }
        (400, Subject::Message) if id.contains("permissions_time_limit") => {
            RequestError::TooLate(&SERVICE)
        }
        (429, _) => RequestError::RateLimited {
            service: &SERVICE,
            after,
        },
        (413, Subject::File) => {
            RequestError::Refused("The file is too large for Mattermost".to_owned())
        }
        (_, Subject::File) if id.contains("attachments.disabled") => {
            RequestError::Refused("Mattermost accepts no files".to_owned())
        }
        (400 | 403 | 404, Subject::File) => RequestError::Refused(
            "Mattermost does not have the file, or does not accept it".to_owned(),
        ),
        (403, Subject::Channel) => RequestError::Closed(FORBIDDEN_CHANNEL),
        (404, Subject::Channel) if id.starts_with("app.team.") => RequestError::Closed(
            "Mattermost shows this account no team of that name: look for it in the address of the channel, \
             https://<server>/<team>/channels/<channel>",
        ),
        (404, Subject::Channel) => RequestError::Closed(NO_CHANNEL),
        // The name is unknown, or custom emoji are disabled.
        (400..=499 | 501, Subject::Reaction) if is_of_emoji(id) => RequestError::NoEmoji(&SERVICE),
        // No other request about posts concerns emoji.
        (400..=499, Subject::Message) if is_of_emoji(id) => {
            RequestError::Rejected(format!("Mattermost refused it with status {status}"))
        }
        (_, Subject::Reaction) if id == "app.reaction.save.save.too_many_reactions" => {
            RequestError::Refused(
                "Mattermost accepts no further emoji as a reaction to that message".to_owned(),
            )
        }
        (404, Subject::Message | Subject::Reaction) => RequestError::Gone(&SERVICE),
        (403, Subject::Message | Subject::Reaction) => RequestError::Forbidden(&SERVICE),
        (408 | 500.. | ..=399, _) => SERVICE.unexpected_status(repeat, status),
        (413, _) => RequestError::Refused("The message is too large for Mattermost".to_owned()),
        (_, _) => RequestError::Rejected(format!("Mattermost refused it with status {status}")),
    }
}

fn is_of_emoji(id: &str) -> bool {
    id.starts_with("app.emoji.") || id.starts_with("api.emoji.")
}

#[cfg(test)]
mod tests {
    use footbridge_core::outlet::SendError;

    use super::*;

    fn kind(subject: Subject, repeat: RepeatSafety, status: u16, id: &str) -> &'static str {
        let error = classify(subject, repeat, status, id, Duration::ZERO);
        SendError::from(error).kind()
    }

    #[test]
    fn every_refusal_has_one_meaning() {
        use RepeatSafety::{Safe, Unsafe};
        use Subject::{Account, Channel, Message};
        let table = [
            (Account, Safe, 401, "", "signed-out"),
            (
                Channel,
                Unsafe,
                403,
                "api.context.permissions.app_error",
                "closed",
            ),
            (Channel, Unsafe, 404, "", "closed"),
            (
                Message,
                Safe,
                403,
                "api.context.permissions.app_error",
                "refused",
            ),
            (Message, Safe, 404, "", "refused"),
            (
                Channel,
                Unsafe,
                400,
                "model.post.is_valid.msg.app_error",
                "refused",
            ),
            (
                Channel,
                Unsafe,
                400,
                "api.post.create_post.can_not_post_to_deleted.error",
                "closed",
            ),
            (
                Channel,
                Unsafe,
                400,
                "api.post.deduplicate_create_post.pending",
                "unknown",
            ),
            (
                Message,
                Safe,
                400,
                "api.post.update_post.permissions_time_limit.app_error",
                "too-late",
            ),
            (Channel, Unsafe, 400, "something.else", "rejected"),
            (Channel, Unsafe, 413, "", "refused"),
            (Channel, Unsafe, 429, "", "limited"),
            (Channel, Unsafe, 502, "", "unknown"),
            (Message, Safe, 502, "", "not-done"),
            (Channel, Unsafe, 302, "", "unknown"),
        ];
        for (subject, repeat, status, id, meaning) in table {
            assert_eq!(
                kind(subject, repeat, status, id),
                meaning,
                "{subject:?} {status} {id}"
            );
        }
    }

    #[test]
    fn every_refusal_of_a_reaction_has_one_meaning() {
        for (status, id, meaning) in [
            (400, "app.emoji.get_by_name.no_result", "slowed"),
            (429, "app.emoji.get_by_name.no_result", "limited"),
            (500, "app.emoji.get_by_name.app_error", "not-done"),
            (404, "app.emoji.get_by_name.no_result", "slowed"),
            (501, "api.emoji.disabled.app_error", "slowed"),
            (404, "app.post.get.app_error", "refused"),
            (400, "app.reaction.save.save.too_many_reactions", "refused"),
            (
                403,
                "api.reaction.save.archived_channel.app_error",
                "closed",
            ),
            (
                403,
                "api.reaction.delete.archived_channel.app_error",
                "closed",
            ),
        ] {
            let found = kind(Subject::Reaction, RepeatSafety::Safe, status, id);
            assert_eq!(found, meaning, "{status} {id}");
        }
        // No other request fails because of an emoji.
        for (status, meaning) in [(400, "rejected"), (404, "rejected"), (501, "not-done")] {
            let id = "app.emoji.get_by_name.no_result";
            let found = kind(Subject::Message, RepeatSafety::Safe, status, id);
            assert_eq!(found, meaning, "{status}");
        }
    }
}
