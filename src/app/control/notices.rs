//! The notices about portals, consent and people's own choices (pure). Each fits on a phone.

use std::time::Duration;

use footbridge_core::{clock, lane::personal_accounts::StandIn, message::Message};
use footbridge_store::{Millis, Place, Portal, PortalHold, PortalSpec};

use super::{backend::Audience, permissions::PermissionError};

/// The version of the text that people agree to. It is increased whenever `disclosure` says something else.
pub const TEXT_VERSION: u32 = 2;

/// Tells a person that the bridge speaks for them itself.
#[must_use]
pub fn stand_in(why: StandIn, device: &str) -> String {
    match why {
        StandIn::Limited => "Your homeserver lets your account send no more for the moment, so I speak for you myself until it does."
            .to_owned(),
        StandIn::Closed => {
            "Your account could not write in one of the rooms, so I speak for you there myself and try again later.".to_owned()
        }
        StandIn::Removed => format!(
            "Device {device} was removed from your account. Its keys are deleted here, and I speak for you myself again."
        ),
    }
}

/// How a person gives the bridge a device on their account.
#[must_use]
pub fn how_to_log_in(user: &str, operator: &str) -> String {
    format!(
        "A password does not belong into a chat, so I cannot log {user} in from here. {operator} can, on the machine on which I run, \
         where you type your password yourself. Then you sign the device in your client, and I speak through it. `!bridge logout` \
         takes it back at any time."
    )
}

/// What it means to link an account on a silo.
pub const LINKED_ACCOUNT: &str = "As soon as I have a device on your Matrix account, too, what that account writes there appears in the \
     rooms as written by you. `!bridge silo logout <silo>` ends that at any time.";

/// The silo and the channel of a portal.
#[must_use]
pub fn destination(spec: &PortalSpec) -> String {
    format!("{} {}", spec.silo, spec.channel)
}

/// When messages begin to leave a room.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConsentStart {
    /// The time from now.
    pub delay: Duration,
    /// How many earlier messages wait to leave it.
    pub waiting: u64,
}

/// A number of messages, in words.
#[must_use]
pub fn messages(count: u64) -> String {
    match count {
        1 => "1 message".to_owned(),
        _ => format!("{count} messages"),
    }
}

/// The disclosure: what leaves the room, and what people can do about it (P16).
#[must_use]
pub fn disclosure(
    spec: &PortalSpec,
    audience: &Audience,
    operator: &str,
    begins: &ConsentStart,
) -> String {
    let when = if begins.delay.is_zero() {
        "From now on".to_owned()
    } else {
        format!("In {}, from then on", clock::in_words(begins.delay))
    };
    let until_then = match (begins.delay.is_zero(), begins.waiting) {
        (true, 0) => String::new(),
        (true, waiting) => format!(
            " Messages that waited here ({}) are relayed, too.",
            messages(waiting)
        ),
        (false, 0) => " Messages written here until then are not relayed.".to_owned(),
        (false, waiting) => format!(
            " Messages that wait here ({}) are relayed then, too; messages written between now and then are not.",
            messages(waiting)
        ),
    };
    let who = match audience.public {
        Some(true) => "Everybody can read that channel, and others may keep copies of it",
        Some(false) => "The members of that channel can read it, and may keep copies",
        None => "Whoever can read that channel may keep copies of it",
    };
    format!(
        "{when} every message in this room, its edits and its author's name can be read in {}.{until_then} {who}; a \
         message that is deleted here may stay there. The bridge is run by {operator}, the other side by {}. To keep \
         a message here, begin it with `!nobridge`; to keep all of yours here, send `!bridge optout`; to unlink the \
         room, send `!bridge portal remove`.",
        destination(spec),
        audience.operator,
    )
}

/// The notice to new members of a room.
#[must_use]
pub fn newcomers(spec: &PortalSpec) -> String {
    format!(
        "For new members: messages in this room can be read in {}. Begin a message with `!nobridge` to keep it here, \
         or send `!bridge optout` to keep all of yours here. `!bridge help` lists the commands.",
        destination(spec)
    )
}

/// Asks for the confirmation code to be posted in the channel.
#[must_use]
pub fn post_this(spec: &PortalSpec, code: &str, within: Duration) -> String {
    format!(
        "To confirm that you may link {}, post this code there within {}: {code}",
        destination(spec),
        clock::in_words(within)
    )
}

/// Says that the code was posted, and asks an encrypted room for consent.
#[must_use]
pub fn agree_now(spec: &PortalSpec, by: &str) -> String {
    let to = destination(spec);
    format!(
        "{by} has posted the code in {to}. This room is encrypted, and relayed messages can be read there. To agree, \
         send `!bridge consent {to}` here. Nothing is relayed until then."
    )
}

/// Says that a room was encrypted after it was linked.
#[must_use]
pub fn encrypted_now(spec: &PortalSpec) -> String {
    let to = destination(spec);
    format!(
        "This room is encrypted now, and nobody has given consent to relay its messages. Messages wait, in both \
         directions. To relay them to {to}, an admin sends `!bridge consent {to}` here."
    )
}

/// The same at the other end.
#[must_use]
pub fn encrypted_over_there() -> String {
    "The Matrix room was encrypted. Messages wait, in both directions, until somebody there gives consent."
        .to_owned()
}

/// Says why somebody lacks the permission.
#[must_use]
pub fn refusal(refusal: PermissionError) -> String {
    match refusal {
        PermissionError::NotListed => {
            "Permission denied: the operator of this bridge has not listed you in `[admin] users`.".to_owned()
        }
        PermissionError::NotInRoom => "Permission denied: you are not in that room.".to_owned(),
        PermissionError::TooLittlePower { has, needs } => {
            format!("Permission denied: your power level in that room is {has}, and {needs} is required.")
        }
        PermissionError::NotEncrypted => {
            "This command counts only if it is sent encrypted, from a device that its owner has verified.".to_owned()
        }
    }
}

/// Says that no portal waits for consent to this destination.
#[must_use]
pub fn wrong_destination(named: &str, waiting: &[String]) -> String {
    match waiting {
        [] => "Nothing here waits for consent. Start with `!bridge portal add <silo> <channel>`."
            .to_owned(),
        waiting => format!(
            "You named {named}, but the request here is for {}. Nothing was changed.",
            waiting.join(" and ")
        ),
    }
}

/// Says that a portal was removed.
#[must_use]
pub fn unlinked(names: &str, dropped: usize) -> String {
    let dropped = match dropped {
        0 => "No messages were waiting.".to_owned(),
        1 => "1 waiting message was erased and is not sent.".to_owned(),
        count => {
            format!("{count} waiting messages were erased and are not sent.")
        }
    };
    format!("This room is no longer linked to {names}. {dropped}")
}

/// The same, as it is stored.
#[must_use]
pub fn unlinked_notice(names: &str, dropped: usize, now: Millis) -> Option<Vec<u8>> {
    Message::notice(&unlinked(names, dropped), now)
        .to_bytes()
        .ok()
}

/// A hold, for `status` in this place. Only the room learns who has paused the portal: the channel must not learn who
/// is in the room.
#[must_use]
pub fn hold(hold: &PortalHold, portal: &Portal, here: &Place, now: Millis) -> String {
    match hold {
        PortalHold::Paused { by, since } => {
            let by = if *here == portal.room {
                format!(" by {by}")
            } else {
                String::new()
            };
            format!(
                "Paused{by} for {}; messages wait. `!bridge resume` relays them.",
                clock::in_words(now.since(*since))
            )
        }
        PortalHold::Upgraded { since } => format!(
            "On hold for {}: the room was upgraded, and the portal has not moved to the new room. Send `!bridge \
             resume`, or link the new room.",
            clock::in_words(now.since(*since))
        ),
        PortalHold::Consent => format!(
            "Waiting for consent: `!bridge consent {}`.",
            destination(&portal.spec)
        ),
        PortalHold::Delay { until } => format!(
            "Consent given; relaying starts in {}.",
            clock::in_words(until.since(now))
        ),
    }
}

/// The greeting in a room that the bridge has just joined.
#[must_use]
pub fn greeting() -> String {
    "Hello. I link rooms to channels of other networks. To link this room, send `!bridge portal add <silo> \
     <channel>`; in a direct message, add ` in #room:server`. `!bridge help` lists all commands."
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> PortalSpec {
        PortalSpec {
            room: "!r:x".into(),
            silo: "gitter".into(),
            channel: "org/room".into(),
        }
    }

    #[test]
    fn p16_the_disclosure_names_content_destination_operators_and_opt_out() {
        let audience = Audience {
            public: Some(true),
            operator: "gitter.im".into(),
        };
        let begins = ConsentStart {
            delay: Duration::from_mins(1),
            waiting: 0,
        };
        let text = disclosure(&spec(), &audience, "Example Org", &begins);
        for part in [
            "every message in this room",
            "gitter org/room",
            "Everybody can read",
            "Example Org",
            "gitter.im",
            "a message that is deleted here may stay there",
            "`!nobridge`",
            "`!bridge optout`",
            "`!bridge portal remove`",
            "60 s",
            "Messages written here until then are not relayed.",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let told = |begins| disclosure(&spec(), &Audience::default(), "x", &begins);
        let now = told(ConsentStart::default());
        assert!(
            now.starts_with("From now on") && !now.contains("until then"),
            "{now}"
        );
        let waited = told(ConsentStart {
            waiting: 7,
            ..begins
        });
        for part in [
            "Messages that wait here (7 messages) are relayed then, too",
            "written between now and then are not",
        ] {
            assert!(waited.contains(part), "{part}: {waited}");
        }
    }

    #[test]
    fn p18_the_notice_of_an_unlinked_portal_counts_what_was_dropped() {
        assert!(unlinked("gitter org/room", 0).ends_with("No messages were waiting."));
        assert!(unlinked("gitter org/room", 1).contains(" 1 waiting message was"));
        assert!(unlinked("gitter org/room", 7).contains(" 7 waiting messages were"));
    }

    #[test]
    fn p17_the_user_who_paused_is_named_in_the_room_only() {
        let portal = Portal {
            id: footbridge_store::PortalId(1),
            spec: spec(),
            room: Place::room("!r:x"),
            channel: Place::new("gitter", "c"),
            active: true,
            source: footbridge_store::PortalSource::Config,
        };
        let paused = PortalHold::Paused {
            by: "@ann:x".to_owned(),
            since: Millis(0),
        };
        let text = hold(&paused, &portal, &portal.room, Millis(60_000));
        assert!(text.starts_with("Paused by @ann:x for "), "{text}");
        let text = hold(&paused, &portal, &portal.channel, Millis(60_000));
        assert!(text.starts_with("Paused for "), "{text}");
    }
}
