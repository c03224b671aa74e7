//! The meaning of Mattermost's error responses: one table from status and error id to errors, and from those to the
//! errors that the lanes and listeners handle.

use std::time::Duration;

use anyhow::anyhow;
use footbridge_core::outlet::{Outcome, SendError};

use crate::SiloError;

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

/// What a request was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The account, users, settings.
    Account,
    /// A channel: reading it, posting in it.
    Channel,
    /// One post that exists already.
    Post,
    /// The same, for adding a reaction.
    Reaction,
    /// A file.
    File,
}

/// Whether a request without a response may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepeatSafety {
    /// It makes something new.
    Unsafe,
    /// It reads, or sets the same value again.
    Safe,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Mattermost refuses the token.
    #[error("Mattermost no longer accepts the account's token; put a new one in the configuration")]
    SignedOut,
    /// The channel is closed to this account.
    #[error("{0}")]
    Closed(&'static str),
    /// The post does not exist (any more).
    #[error("the message does not exist on Mattermost")]
    Gone,
    /// The account may not change the post, or it does not exist: only reading it tells which.
    #[error("Mattermost does not allow this account to change that message")]
    Forbidden,
    /// The server has no emoji of that name.
    #[error("Mattermost has no emoji of that name")]
    NoEmoji,
    /// The thread of a post does not exist (any more).
    #[error("the thread does not exist on Mattermost")]
    NoThread,
    /// A response that looks permanent and gives no reason.
    #[error("{0}")]
    Rejected(String),
    /// Mattermost will never accept this.
    #[error("{0}")]
    Refused(String),
    /// The time in which a post may be edited is over.
    #[error("Mattermost does not allow an edit that late")]
    TooLate,
    /// Too many requests.
    #[error("Mattermost's request limit is reached")]
    RateLimited {
        /// How long to wait.
        after: Duration,
    },
    /// The service is out, and another request is the probe.
    #[error("Mattermost is unavailable; retrying periodically")]
    CircuitOpen {
        /// How long to wait.
        after: Duration,
    },
    /// Mattermost cannot be reached, or gives an unexpected response.
    #[error("{}", footbridge_core::error_chain::format(source.as_ref()))]
    Unavailable {
        /// Whether the request may have been processed.
        outcome: Outcome,
        /// The cause.
        source: anyhow::Error,
    },
}

fn outcome_of(repeat: RepeatSafety) -> Outcome {
    match repeat {
        RepeatSafety::Unsafe => Outcome::Unknown,
        RepeatSafety::Safe => Outcome::NotDone,
    }
}

/// The meaning of a status other than success. `id` is that of Mattermost's error, empty if a proxy answered; `after`
/// is the wait that the headers ask for.
pub fn classify(
    (subject, repeat): (Subject, RepeatSafety),
    status: u16,
    id: &str,
    after: Duration,
) -> RequestError {
    match (status, subject) {
        (401, _) => RequestError::SignedOut,
        // The first request is still in progress, or was when its connection broke.
        (_, _) if id == "api.post.deduplicate_create_post.pending" => RequestError::Unavailable {
            outcome: Outcome::Unknown,
            source: anyhow!("Mattermost is still busy with the same message"),
        },
        (400 | 403, _) if ARCHIVED.contains(&id) => RequestError::Closed(ARCHIVED_CHANNEL),
        (400, _) if id == "api.post.create_post.root_id.app_error" => RequestError::NoThread,
        (400, _) if id == "model.post.is_valid.msg.app_error" => {
            RequestError::Refused("The message is too long for Mattermost".to_owned())
        }
        (400, Subject::Post) if id.contains("permissions_time_limit") => RequestError::TooLate,
        (429, _) => RequestError::RateLimited { after },
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
        (400..=499 | 501, Subject::Reaction) if is_of_emoji(id) => RequestError::NoEmoji,
        // No other request about posts concerns emoji.
        (400..=499, Subject::Post) if is_of_emoji(id) => {
            RequestError::Rejected(format!("Mattermost refused it with status {status}"))
        }
        (_, Subject::Reaction) if id == "app.reaction.save.save.too_many_reactions" => {
            RequestError::Refused(
                "Mattermost accepts no further emoji as a reaction to that message".to_owned(),
            )
        }
        (404, Subject::Post | Subject::Reaction) => RequestError::Gone,
        (403, Subject::Post | Subject::Reaction) => RequestError::Forbidden,
        // A redirect is not followed, because the request carries the token.
        (300..=399, _) => RequestError::Unavailable {
            outcome: outcome_of(repeat),
            source: anyhow!(
                "Mattermost answered with a redirect (status {status}); write the address that it redirects to into `url`"
            ),
        },
        (408 | 500.. | ..=299, _) => RequestError::Unavailable {
            outcome: outcome_of(repeat),
            source: anyhow!("Mattermost answered with status {status}"),
        },
        (413, _) => RequestError::Refused("The message is too large for Mattermost".to_owned()),
        (_, _) => RequestError::Rejected(format!("Mattermost refused it with status {status}")),
    }
}

fn is_of_emoji(id: &str) -> bool {
    id.starts_with("app.emoji.") || id.starts_with("api.emoji.")
}

/// The error of a request without a response.
pub fn classify_no_response(repeat: RepeatSafety, error: reqwest::Error) -> RequestError {
    let outcome = if error.is_connect() || error.is_builder() {
        Outcome::NotDone
    } else {
        outcome_of(repeat)
    };
    // The URL contains ids of channels and people, so it is left out.
    let source = anyhow::Error::new(error.without_url()).context("Mattermost did not answer");
    RequestError::Unavailable { outcome, source }
}

/// The error for a response in an unexpected format.
pub fn unreadable(repeat: RepeatSafety) -> RequestError {
    RequestError::Unavailable {
        outcome: outcome_of(repeat),
        source: anyhow!("Mattermost's response has an unexpected format"),
    }
}

impl RequestError {
    /// Whether the server answered that it will not perform the request. Not so if it was not reached, or asks to wait.
    pub fn is_answer(&self) -> bool {
        match self {
            Self::Closed(_)
            | Self::Gone
            | Self::Forbidden
            | Self::NoEmoji
            | Self::NoThread
            | Self::Rejected(_)
            | Self::Refused(_)
            | Self::TooLate => true,
            Self::SignedOut
            | Self::RateLimited { .. }
            | Self::CircuitOpen { .. }
            | Self::Unavailable { .. } => false,
        }
    }

    /// How long the server asks the bridge to wait, if it says so.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { after } | Self::CircuitOpen { after } => Some(*after),
            _ => None,
        }
    }
}

impl From<RequestError> for SendError {
    fn from(error: RequestError) -> Self {
        let reason = error.to_string();
        match error {
            RequestError::SignedOut => Self::SignedOut { reason },
            RequestError::Closed(_) => Self::Closed { reason },
            RequestError::Gone
            | RequestError::Forbidden
            | RequestError::NoThread
            | RequestError::Refused(_) => Self::Refused { reason },
            RequestError::Rejected(_) => Self::Rejected { reason },
            // Planned again at once: an emoji without a name goes into the text line.
            RequestError::NoEmoji => Self::Retry {
                after: Some(Duration::ZERO),
                outcome: Outcome::NotDone,
                source: anyhow!(reason),
            },
            RequestError::TooLate => Self::TooLate,
            RequestError::RateLimited { after } => Self::RateLimited { after: Some(after) },
            RequestError::CircuitOpen { after } => Self::Retry {
                after: Some(after),
                outcome: Outcome::NotDone,
                source: anyhow!(reason),
            },
            RequestError::Unavailable { outcome, source } => Self::Retry {
                after: None,
                outcome,
                source,
            },
        }
    }
}

impl From<RequestError> for SiloError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::SignedOut => Self::SignedOut(error.to_string()),
            RequestError::Closed(reason) => Self::NoChannel(reason.to_owned()),
            RequestError::Unavailable { source, .. } => Self::Unavailable(source),
            other => Self::Unavailable(anyhow::Error::new(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(subject: Subject, repeat: RepeatSafety, status: u16, id: &str) -> &'static str {
        let error = classify((subject, repeat), status, id, Duration::ZERO);
        SendError::from(error).kind()
    }

    #[test]
    fn every_refusal_has_one_meaning() {
        use RepeatSafety::{Safe, Unsafe};
        use Subject::{Account, Channel, Post};
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
                Post,
                Safe,
                403,
                "api.context.permissions.app_error",
                "refused",
            ),
            (Post, Safe, 404, "", "refused"),
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
                Post,
                Safe,
                400,
                "api.post.update_post.permissions_time_limit.app_error",
                "too-late",
            ),
            (Channel, Unsafe, 400, "something.else", "rejected"),
            (Channel, Unsafe, 413, "", "refused"),
            (Channel, Unsafe, 429, "", "limited"),
            (Channel, Unsafe, 502, "", "unknown"),
            (Post, Safe, 502, "", "not-done"),
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
            let found = kind(Subject::Post, RepeatSafety::Safe, status, id);
            assert_eq!(found, meaning, "{status}");
        }
    }
}
