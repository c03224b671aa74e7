//! The replies to chat commands (pure).

use std::time::Duration;

use footbridge_core::{clock, lane::notice_texts::place_in_words};
use footbridge_store::{
    ClosedLane, DeliveryStatus, LaneCounters, MessageStatus, Millis, Place, Portal, SkipRule,
};

/// The reply to `help`.
#[must_use]
pub fn help() -> String {
    "Reply to a message with `!bridge why` to see its status, or with `!bridge retry` to send it again if it failed \
     (a reaction with 🔁 does the same). `!bridge status` shows the state of the links here. Begin a message with \
     `!nobridge` to keep it here; `!bridge optout` keeps all of yours here. In a direct message, `!bridge silo login <silo>` links \
     your account there to you, and `!bridge devices` shows what I hold for you.\n\
     For admins: `!bridge portal add <silo> <channel>`, `portal remove`, `consent <silo> <channel>`, `pause`, `resume`, \
     `trust @user:server <key>`. In a direct message, add ` in #room:server`."
        .to_owned()
}

/// The reply to an unknown command.
#[must_use]
pub fn unknown(meant: Option<&str>) -> String {
    match meant {
        Some(meant) => format!("Unknown command. Did you mean `!bridge {meant}`?"),
        None => format!("Unknown command. {}", help()),
    }
}

/// Says that no room key of a sender has ever come, and what helps.
#[must_use]
pub fn senders_without_keys(sender: &str) -> String {
    format!(
        "The bridge has never received a room key from {sender}. Their client may not know the bridge's device, \
         because the bridge was invited before it had logged in. Remove the bridge from the room and invite it \
         again: clients then look up its devices, and later messages are relayed."
    )
}

/// The warning that is sent instead of a withheld answer, once in a while.
#[must_use]
pub fn rate_limited() -> &'static str {
    "You send commands too often, so I do not answer for some minutes. Commands that change something (`optout`, \
     `pause`, `portal remove`) still take effect."
}

/// The reply to a command with wrong arguments.
#[must_use]
pub fn incomplete(usage: &str) -> String {
    format!("Usage: `!bridge {usage}`.")
}

/// What became of a message, as asked in `here`.
#[must_use]
pub fn message_status(message_status: &MessageStatus, here: &Place, now: Millis) -> String {
    if message_status.deliveries.is_empty() {
        return "No delivery of this message is pending or has failed.".to_owned();
    }
    let texts = message_status.deliveries.iter().map(|(to, status)| {
        if to == here {
            format!(
                "This message was written in {}. {}",
                place_in_words(&message_status.from),
                delivery_text("Here", status, message_status.accepted_at, now)
            )
        } else {
            let place = place_in_words(to);
            delivery_text(
                &format!("To {place}"),
                status,
                message_status.accepted_at,
                now,
            )
        }
    });
    texts.collect::<Vec<_>>().join(" ")
}

fn delivery_text(to: &str, status: &DeliveryStatus, accepted_at: Millis, now: Millis) -> String {
    match status {
        DeliveryStatus::Delivered { at, tries } => {
            let tries = tries.map_or_else(String::new, |tries| format!(", at attempt {tries}"));
            format!(
                "{to}: delivered {}, {} after it was written{tries}.",
                moment(*at),
                clock::in_words(at.since(accepted_at))
            )
        }
        DeliveryStatus::Pending { .. } => format!("{to}: {}.", pending(status, accepted_at, now)),
        DeliveryStatus::Skipped { rule } => {
            format!("{to}: not sent, because {}.", rule_text(*rule))
        }
        DeliveryStatus::Failed {
            reason,
            at,
            tries,
            kept,
        } => format!(
            "{to}: failed {} after {}: {}.{}",
            moment(*at),
            times(*tries),
            reason.trim_end_matches('.'),
            if *kept {
                " `!bridge retry` sends it again."
            } else {
                " It is no longer stored."
            }
        ),
    }
}

fn pending(status: &DeliveryStatus, accepted_at: Millis, now: Millis) -> String {
    let DeliveryStatus::Pending {
        ahead,
        tries,
        last_error,
        retry_at,
        without_key,
        outcome_unknown,
        closed,
        held,
    } = status
    else {
        return String::new();
    };
    let mut text = format!("waiting for {}", clock::in_words(now.since(accepted_at)));
    if *without_key {
        text.push_str(", because the bridge has not received its room key");
        return text;
    }
    if *held {
        text.push_str(", because a portal on its route is on hold");
        return text;
    }
    match ahead {
        0 => {}
        1 => text.push_str(", behind 1 other message"),
        ahead => {
            let behind = format!(", behind {ahead} other messages");
            text.push_str(&behind);
        }
    }
    if let Some(ClosedLane { reason, since, .. }) = closed {
        let since = clock::in_words(now.since(*since));
        let reason = reason.trim_end_matches('.');
        let closed = format!(", because the bridge has had no access there for {since}: {reason}");
        text.push_str(&closed);
    } else if *ahead > 0 {
        return text;
    } else if *outcome_unknown {
        text.push_str(", the bridge is checking whether it has arrived");
    } else if let (Some(last_error), true) = (last_error, *tries > 0) {
        let tried = format!(", after {}: {}", times(*tries), error_in_words(last_error));
        text.push_str(&tried);
    } else {
        text.push_str(", it is being sent");
    }
    if let Some(retry_at) = retry_at.filter(|retry_at| *retry_at > now) {
        let next = format!("; next attempt in {}", clock::in_words(retry_at.since(now)));
        text.push_str(&next);
    }
    text
}

fn times(tries: u32) -> String {
    if tries == 1 {
        "1 attempt".to_owned()
    } else {
        format!("{tries} attempts")
    }
}

fn moment(at: Millis) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(
        |_| "at an unknown time".to_owned(),
        |at| at.strftime("on %Y-%m-%d at %H:%M:%S UTC").to_string(),
    )
}

/// What a kind of error means.
fn error_in_words(kind: &str) -> String {
    match kind {
        "slowed" => "the other side rate-limits the bridge",
        "not-done" => "the other side cannot be reached",
        "unknown" => "the other side did not confirm it",
        "rejected" => "the other side rejects it",
        "closed" => "the other side gives the bridge no access",
        "signed-out" => "the bridge is signed out there",
        _ => return format!("({kind})"),
    }
    .to_owned()
}

/// What a rule means.
fn rule_text(rule: SkipRule) -> &'static str {
    match rule {
        SkipRule::Command => "it is a command to the bridge",
        SkipRule::BeforeLink => "it was written before the room was linked",
        SkipRule::PlaintextInEncryptedRoom => "it was not encrypted although the room is",
        SkipRule::UntrustedDevice => "it was sent from a device that its owner has not verified",
        SkipRule::Undecryptable => "no room key decrypts it",
        SkipRule::ForeignEdit => "only the author of a message may edit it",
        SkipRule::RedactionOrStateEncrypted => {
            "it is an encrypted redaction or state event, which the homeserver cannot check"
        }
        SkipRule::WrittenElsewhere => {
            "the message was written elsewhere: only its author and the moderators there can change it"
        }
        SkipRule::UnknownTarget => "the message it belongs to has no copy there",
        SkipRule::TargetWaiting => "the message it belongs to was still waiting",
        SkipRule::DeletedBeforeDelivery => "it was deleted before it was sent",
        SkipRule::EditIncluded => "the message was sent with this change included",
        SkipRule::EditRedacted => "the edit was redacted before it was sent",
        SkipRule::MessageRedacted => "the message itself was redacted",
        SkipRule::Empty | SkipRule::NothingToDo => "there is nothing in it to send",
        SkipRule::NotAMessage => "it is not a message",
        SkipRule::Unwritable => "it could not be saved",
        SkipRule::Unlinked => "the portal was removed before it was sent",
        SkipRule::BeforeConsent => "it was written before the room's consent took effect",
        SkipRule::OptedOut => "its author has opted out",
        SkipRule::NoBridge => "it begins with `!nobridge`",
        SkipRule::PortalRemoved => "the portal was removed",
        SkipRule::Superseded => "a later one replaced it",
        SkipRule::MovedToAnotherLane => {
            "it was sent through another portal, which has relayed the message that it belongs to"
        }
        SkipRule::PeerBridge => {
            "another Footbridge, which links the room to the same channel, has relayed it"
        }
        SkipRule::Loop => {
            "messages of this account keep coming back, as when two bridges relay each other's copies"
        }
        SkipRule::LateDuplicate => "it is a second copy of a message that was delivered already",
        SkipRule::Replayed => "it is an old message that was shown again under a new event",
        SkipRule::ForeignRoom => "it was encrypted for another room",
        SkipRule::SenderMismatch => "its key belongs to somebody other than its sender",
        SkipRule::InsecureKey => "its key came from a backup, a file or a third party",
        SkipRule::Panic => "the bridge crashed on it; please report this bug",
        SkipRule::SystemMessage => "the portal does not relay system messages",
        SkipRule::Notice => "it is a notice of a bot, and the portal does not relay notices",
        SkipRule::NoReactions => "the other side has no reactions",
        SkipRule::ReactionAlreadyShown => "the reaction is already shown there",
        SkipRule::ReactionDuplicate => "the same reaction is already being sent",
        SkipRule::ReactionFlood => "its author reacted too often within a minute",
        SkipRule::ReactionInEncryptedRoom => {
            "reactions cannot be encrypted, and its target room is encrypted"
        }
        SkipRule::ReactionUnwanted => "the portal does not relay reactions",
        SkipRule::RoomLeft => "the bridge is no longer in the room",
    }
}

/// The reply where the message is not known.
#[must_use]
pub fn not_known() -> String {
    "I do not know that message. It was written before the bridge joined, or it is of a kind that is never relayed: \
     a notice of a bot, a state event, a receipt."
        .to_owned()
}

/// The status of a portal, one line for each direction.
#[must_use]
pub fn status(portal: &Portal, all_counters: &[LaneCounters], here: &Place, now: Millis) -> String {
    let lines = all_counters.iter().map(|counters| {
        let end = match counters.lane.toward {
            footbridge_store::Side::Matrix => &portal.room,
            footbridge_store::Side::Silo => &portal.channel,
        };
        let to = match end {
            end if end == here => "To here".to_owned(),
            end if end.network() == Place::MATRIX => format!("To {}", portal.room_name()),
            _ => format!("To {} {}", portal.spec.silo, portal.spec.channel),
        };
        line(&to, counters, now)
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn line(to: &str, counters: &LaneCounters, now: Millis) -> String {
    let mut line = format!("{to}: {} delivered", counters.delivered);
    let mut add = |text: String| line.push_str(&text);
    match (counters.pending, counters.oldest_pending) {
        (0, _) | (_, None) => add(", none waiting".to_owned()),
        (pending, Some(oldest)) => add(format!(
            ", {pending} waiting, the oldest for {}",
            clock::in_words(now.since(oldest))
        )),
    }
    if counters.waiting > 0 {
        add(format!(" ({} for their room key)", counters.waiting));
    }
    if counters.on_hold > 0 {
        add(format!(" ({} wait for a portal on hold)", counters.on_hold));
    }
    if counters.failed > 0 {
        add(format!(
            ", {} failed ({} can be retried)",
            counters.failed, counters.parked
        ));
    }
    if let Some(since) = counters.closed_since {
        let since: Duration = now.since(since);
        add(format!(
            "; the bridge has had no access there for {}",
            clock::in_words(since)
        ));
    }
    line.push('.');
    line
}

#[cfg(test)]
mod tests {
    use footbridge_store::{EntryId, SkipRule};

    use super::*;

    fn asked(status: DeliveryStatus) -> String {
        let message = MessageStatus {
            entry: EntryId(1),
            from: Place::room("!r"),
            accepted_at: Millis(0),
            deliveries: vec![(Place::new("gitter", "c"), status)],
        };
        message_status(&message, &Place::room("!r"), Millis(90_000))
    }

    #[test]
    fn each_rule_has_its_own_text() {
        let mut words: Vec<&str> = SkipRule::ALL.iter().map(|rule| rule_text(*rule)).collect();
        words.sort_unstable();
        words.dedup();
        // "Nothing to send" has one text, whichever code found it.
        assert_eq!(words.len(), SkipRule::ALL.len() - 1);
    }

    #[test]
    fn each_state_has_its_text() {
        let waits =
            |ahead, last_error: Option<&str>, without_key, retry_at| DeliveryStatus::Pending {
                ahead,
                tries: 3,
                last_error: last_error.map(str::to_owned),
                retry_at,
                without_key,
                outcome_unknown: false,
                closed: None,
                held: false,
            };
        let held = DeliveryStatus::Pending {
            ahead: 2,
            tries: 0,
            last_error: None,
            retry_at: None,
            without_key: false,
            outcome_unknown: false,
            closed: None,
            held: true,
        };
        let table = [
            (
                DeliveryStatus::Delivered {
                    at: Millis(3_000),
                    tries: Some(9),
                },
                "To the gitter channel: delivered on 1970-01-01 at 00:00:03 UTC, 3 s after it was written, at attempt 9.",
            ),
            (
                waits(2, None, false, None),
                "To the gitter channel: waiting for 90 s, behind 2 other messages.",
            ),
            (
                waits(0, Some("unknown"), false, Some(Millis(95_000))),
                "To the gitter channel: waiting for 90 s, after 3 attempts: the other side did not confirm it; next attempt in 5 s.",
            ),
            (
                waits(5, None, true, None),
                "To the gitter channel: waiting for 90 s, because the bridge has not received its room key.",
            ),
            (
                held,
                "To the gitter channel: waiting for 90 s, because a portal on its route is on hold.",
            ),
            (
                DeliveryStatus::Skipped {
                    rule: SkipRule::UntrustedDevice,
                },
                "To the gitter channel: not sent, because it was sent from a device that its owner has not verified.",
            ),
            (
                DeliveryStatus::Failed {
                    reason: "it is too large".into(),
                    at: Millis(1_000),
                    tries: 1,
                    kept: true,
                },
                "To the gitter channel: failed on 1970-01-01 at 00:00:01 UTC after 1 attempt: it is too large. `!bridge retry` sends it again.",
            ),
        ];
        for (status, words) in table {
            assert_eq!(asked(status), words);
        }
    }
}
