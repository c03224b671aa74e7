//! What Mattermost's refusals mean: one table from status and error id to faults, and from faults to the errors the house
//! branches on.

use std::time::Duration;

use anyhow::anyhow;
use footbridge_core::outlet::{Outcome, SendError};

use crate::SiloError;

/// Why a channel is closed that exists.
pub const FORBIDDEN_CHANNEL: &str =
    "Mattermost does not let this account into the channel (removed, or it is private)";

/// Why a channel is closed that is not there.
pub const NO_CHANNEL: &str = "The channel does not exist on Mattermost";

/// What it may be that a channel is not found by its name. Mattermost answers the same to all of these.
pub const HIDDEN_CHANNEL: &str = "Mattermost shows this account no channel of that name: it may be private (then say \
     `/invite @<the bridge's account>` in it), renamed (then its address shows the new name), or there is none";

/// Why a channel is closed that can still be read.
pub const ARCHIVED_CHANNEL: &str =
    "The channel is archived on Mattermost; unarchive it, or remove its portal";

/// What Mattermost answers to changes in an archived channel.
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
    /// Our account, people, settings.
    Account,
    /// A channel: reading it, writing into it.
    Channel,
    /// One post that exists already.
    Post,
    /// The same, on which a reaction is put.
    Reaction,
    /// A file.
    File,
}

/// Whether the work may have been done where there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepeatSafety {
    /// It makes something new.
    Unsafe,
    /// It reads, or sets something to what it is already.
    Safe,
}

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The token is not accepted.
    #[error("Mattermost no longer accepts the account's token; put a new one in the configuration")]
    SignedOut,
    /// The channel is closed to this account.
    #[error("{0}")]
    Closed(&'static str),
    /// The post does not exist (any more).
    #[error("the message does not exist on Mattermost")]
    Gone,
    /// The account may not change the post, or it does not exist: only reading it tells.
    #[error("Mattermost does not let this account change that message")]
    Forbidden,
    /// The server has no emoji of that name.
    #[error("Mattermost has no emoji of that name")]
    NoEmoji,
    /// The thread that a post was meant for does not exist (any more).
    #[error("the thread does not exist on Mattermost")]
    NoThread,
    /// An answer that looks like never, but that says nothing of the reason.
    #[error("{0}")]
    Rejected(String),
    /// Mattermost will never take this.
    #[error("{0}")]
    Refused(String),
    /// The time in which a post may be edited is over.
    #[error("Mattermost does not let a message be edited that late")]
    TooLate,
    /// Too many requests.
    #[error("Mattermost's request limit is reached")]
    RateLimited {
        /// When it may be tried again.
        after: Duration,
    },
    /// The service is out, and somebody else finds out when it is back.
    #[error("Mattermost is unavailable; retrying periodically")]
    CircuitOpen {
        /// When it may be tried again.
        after: Duration,
    },
    /// Mattermost cannot be reached, or does not answer as it should.
    #[error("{}", footbridge_core::error_chain::format(source.as_ref()))]
    Unavailable {
        /// Whether the work may have been done all the same.
        outcome: Outcome,
        /// What went wrong.
        source: anyhow::Error,
    },
}

fn outcome_of(repeat: RepeatSafety) -> Outcome {
    match repeat {
        RepeatSafety::Unsafe => Outcome::Unknown,
        RepeatSafety::Safe => Outcome::NotDone,
    }
}

/// The meaning of a status other than success. `id` is that of Mattermost's own error, empty where somebody else answered;
/// `after` is what the headers ask us to wait.
pub fn classify(
    (subject, repeat): (Subject, RepeatSafety),
    status: u16,
    id: &str,
    after: Duration,
) -> RequestError {
    match (status, subject) {
        (401, _) => RequestError::SignedOut,
        // The first one is still under way, or was when its connection broke.
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
            RequestError::Refused("The file is larger than Mattermost takes".to_owned())
        }
        (_, Subject::File) if id.contains("attachments.disabled") => {
            RequestError::Refused("Mattermost takes no files".to_owned())
        }
        (400 | 403 | 404, Subject::File) => RequestError::Refused(
            "Mattermost does not have the file, or does not take it".to_owned(),
        ),
        (403, Subject::Channel) => RequestError::Closed(FORBIDDEN_CHANNEL),
        (404, Subject::Channel) if id.starts_with("app.team.") => RequestError::Closed(
            "Mattermost shows this account no team of that name: look for it in the address of the channel, \
             https://<server>/<team>/channels/<channel>",
        ),
        (404, Subject::Channel) => RequestError::Closed(NO_CHANNEL),
        // The name is not known, or names of teams are switched off.
        (400..=499 | 501, Subject::Reaction) if is_of_emoji(id) => RequestError::NoEmoji,
        // Nothing else that we ask of posts has to do with emoji.
        (400..=499, Subject::Post) if is_of_emoji(id) => {
            RequestError::Rejected(format!("Mattermost refused it with status {status}"))
        }
        (_, Subject::Reaction) if id == "app.reaction.save.save.too_many_reactions" => {
            RequestError::Refused(
                "Mattermost takes no further kind of reaction to that message".to_owned(),
            )
        }
        (404, Subject::Post | Subject::Reaction) => RequestError::Gone,
        (403, Subject::Post | Subject::Reaction) => RequestError::Forbidden,
        // It is not followed, because the token would go along.
        (300..=399, _) => RequestError::Unavailable {
            outcome: outcome_of(repeat),
            source: anyhow!(
                "Mattermost answered with a redirect (status {status}); write the address that it leads to into `url`"
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

/// The fault behind a request that got no answer.
pub fn classify_no_response(repeat: RepeatSafety, error: reqwest::Error) -> RequestError {
    let outcome = if error.is_connect() || error.is_builder() {
        Outcome::NotDone
    } else {
        outcome_of(repeat)
    };
    // The address names channels and people's ids; the cause is enough.
    let source = anyhow::Error::new(error.without_url()).context("Mattermost did not answer");
    RequestError::Unavailable { outcome, source }
}

/// The fault behind an answer that is not what the API promises.
pub fn unreadable(repeat: RepeatSafety) -> RequestError {
    RequestError::Unavailable {
        outcome: outcome_of(repeat),
        source: anyhow!("Mattermost's answer is not what the API promises"),
    }
}

impl RequestError {
    /// Whether the server has answered that it does not do what it was asked. Not so where it was not reached, or asks to wait.
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

    /// How long we are asked to wait, if anybody said.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { after } | Self::CircuitOpen { after } => Some(*after),
            _ => None,
        }
    }
}

impl From<RequestError> for SendError {
    fn from(fault: RequestError) -> Self {
        let reason = fault.to_string();
        match fault {
            RequestError::SignedOut => Self::SignedOut { reason },
            RequestError::Closed(_) => Self::Closed { reason },
            RequestError::Gone
            | RequestError::Forbidden
            | RequestError::NoThread
            | RequestError::Refused(_) => Self::Refused { reason },
            RequestError::Rejected(_) => Self::Rejected { reason },
            // It is planned anew at once: what has no name there is told in words.
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
    fn from(fault: RequestError) -> Self {
        match fault {
            RequestError::SignedOut => Self::SignedOut(fault.to_string()),
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
        let fault = classify((subject, repeat), status, id, Duration::ZERO);
        SendError::from(fault).kind()
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
        // No other request is refused for an emoji.
        for (status, meaning) in [(400, "rejected"), (404, "rejected"), (501, "not-done")] {
            let id = "app.emoji.get_by_name.no_result";
            let found = kind(Subject::Post, RepeatSafety::Safe, status, id);
            assert_eq!(found, meaning, "{status}");
        }
    }
}
