//! The replies to chat commands (pure).

use std::time::Duration;

use footbridge_core::{clock, lane::notice_texts::place_in_words};
use footbridge_store::{
    ClosedLane, DeliveryStatus, LaneCounters, MessageStatus, Millis, Place, Portal, SkipRule,
};

/// The reply to `help`.
#[must_use]
pub fn help() -> String {
    "Reply to a message with `!bridge why` to learn what became of it, or with `!bridge retry` to send it again \
     if it failed (a reaction with 🔁 does the same). `!bridge status` tells how the bridge is doing here. Begin a \
     message with `!nobridge` to keep it here; `!bridge optout` keeps all of yours.\n\
     Who decides here: `!bridge portal add <silo> <channel>`, `portal remove`, `consent <silo> <channel>`, `pause`, \
     `resume`, `trust @user:server <key>`. From a direct message put ` in #room:server` behind it."
        .to_owned()
}

/// The reply to an unknown command.
#[must_use]
pub fn unknown(meant: Option<&str>) -> String {
    match meant {
        Some(meant) => format!("I do not know that. Did you mean `!bridge {meant}`?"),
        None => format!("I do not know that. {}", help()),
    }
}

/// Says that no room key of a sender has ever come, and what helps.
#[must_use]
pub fn senders_without_keys(sender: &str) -> String {
    format!(
        "No room key of {sender} has ever come: their client may not know of the bridge's device, because the bridge was \
         invited before it had logged in. Remove the bridge from the room and invite it again: clients look its devices \
         up then, and later messages are relayed."
    )
}

/// The warning that is sent instead of a withheld answer, once in a while.
#[must_use]
pub fn rate_limited() -> &'static str {
    "You ask too often, so I do not answer for some minutes. What you may decide (`optout`, `pause`, `portal remove`) is \
     done all the same."
}

/// The reply to a command with wrong arguments.
#[must_use]
pub fn incomplete(usage: &str) -> String {
    format!("Say `!bridge {usage}`.")
}

/// What became of a message, as asked in `here`.
#[must_use]
pub fn message_status(message_status: &MessageStatus, here: &Place, now: Millis) -> String {
    if message_status.deliveries.is_empty() {
        return "Nothing of this message is waiting, and nothing of it failed.".to_owned();
    }
    let texts = message_status.deliveries.iter().map(|(to, status)| {
        if to == here {
            format!(
                "This was written in {}. {}",
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
            let tries = tries.map_or_else(String::new, |tries| format!(", at try {tries}"));
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
                " It is not kept any more."
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
        text.push_str(", because the bridge has not received its key");
        return text;
    }
    if *held {
        text.push_str(", because a portal that it has to pass is on hold");
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
        let closed = format!(", because the bridge may not write there since {since}: {reason}");
        text.push_str(&closed);
    } else if *ahead > 0 {
        return text;
    } else if *outcome_unknown {
        text.push_str(", the bridge is finding out whether it has arrived");
    } else if let (Some(last_error), true) = (last_error, *tries > 0) {
        let tried = format!(", after {}: {}", times(*tries), error_in_words(last_error));
        text.push_str(&tried);
    } else {
        text.push_str(", it is being sent");
    }
    if let Some(retry_at) = retry_at.filter(|retry_at| *retry_at > now) {
        let next = format!("; next try in {}", clock::in_words(retry_at.since(now)));
        text.push_str(&next);
    }
    text
}

fn times(tries: u32) -> String {
    if tries == 1 {
        "1 try".to_owned()
    } else {
        format!("{tries} tries")
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
        "unknown" => "the other side does not answer as it should",
        "rejected" => "the other side rejects it",
        "closed" => "the other side does not let the bridge in",
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
        SkipRule::Undecryptable => "no key can open it",
        SkipRule::ForeignEdit => "only the author of a message may edit it",
        SkipRule::RedactionOrStateEncrypted => {
            "a redaction or a change of the room that was encrypted has not been checked by the homeserver"
        }
        SkipRule::WrittenElsewhere => {
            "the message was written elsewhere: only its author and those in charge there change it"
        }
        SkipRule::UnknownTarget => "the message it belongs to has no copy there",
        SkipRule::TargetWaiting => "the message it belongs to was still waiting",
        SkipRule::DeletedBeforeDelivery => "it was deleted before it was sent",
        SkipRule::EditIncluded => "the message was sent with this change in it",
        SkipRule::EditRedacted => "the edit was redacted before it was sent",
        SkipRule::MessageRedacted => "the message was redacted itself",
        SkipRule::Empty | SkipRule::NothingToDo => "there is nothing in it to send",
        SkipRule::NotAMessage => "it is no message",
        SkipRule::Unwritable => "it could not be saved",
        SkipRule::Unlinked => "the portal was removed before it was sent",
        SkipRule::BeforeConsent => "it was said before the consent of the room took effect",
        SkipRule::OptedOut => "its author has opted out",
        SkipRule::NoBridge => "it begins with `!nobridge`",
        SkipRule::PortalRemoved => "the portal was removed",
        SkipRule::Superseded => "a later one has taken its place",
        SkipRule::MovedToAnotherLane => {
            "it went on by another portal, where the message that it belongs to stands"
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
        SkipRule::ReactionAlreadyShown => "the reaction is shown there already",
        SkipRule::ReactionDuplicate => "the same reaction is on its way already",
        SkipRule::ReactionFlood => "its author reacted too often within a minute",
        SkipRule::ReactionInEncryptedRoom => {
            "a reaction cannot be encrypted, and the room that it goes to is"
        }
        SkipRule::ReactionUnwanted => "the portal does not relay reactions",
        SkipRule::RoomLeft => "the bridge is no longer in the room",
    }
}

/// The reply where the message is not known.
#[must_use]
pub fn not_known() -> String {
    "I know nothing of that message. It was written before the bridge was here, or it is of a kind that is never \
     relayed: a notice of a bot, a change of the room, a receipt."
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
        add(format!(" ({} for their key)", counters.waiting));
    }
    if counters.on_hold > 0 {
        add(format!(" ({} wait for a portal on hold)", counters.on_hold));
    }
    if counters.failed > 0 {
        add(format!(
            ", {} failed ({} can be tried again)",
            counters.failed, counters.parked
        ));
    }
    if let Some(since) = counters.closed_since {
        let since: Duration = now.since(since);
        add(format!(
            "; the bridge may not write there since {}",
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
    fn each_rule_has_words_of_its_own() {
        let mut words: Vec<&str> = SkipRule::ALL.iter().map(|rule| rule_text(*rule)).collect();
        words.sort_unstable();
        words.dedup();
        // Nothing to send is said in one way, whoever found it.
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
                "To the gitter channel: delivered on 1970-01-01 at 00:00:03 UTC, 3 s after it was written, at try 9.",
            ),
            (
                waits(2, None, false, None),
                "To the gitter channel: waiting for 90 s, behind 2 other messages.",
            ),
            (
                waits(0, Some("unknown"), false, Some(Millis(95_000))),
                "To the gitter channel: waiting for 90 s, after 3 tries: the other side does not answer as it should; next try in 5 s.",
            ),
            (
                waits(5, None, true, None),
                "To the gitter channel: waiting for 90 s, because the bridge has not received its key.",
            ),
            (
                held,
                "To the gitter channel: waiting for 90 s, because a portal that it has to pass is on hold.",
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
                "To the gitter channel: failed on 1970-01-01 at 00:00:01 UTC after 1 try: it is too large. `!bridge retry` sends it again.",
            ),
        ];
        for (status, words) in table {
            assert_eq!(asked(status), words);
        }
    }
}
