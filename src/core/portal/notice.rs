//! What people read about failures and closed places: the words, nothing else.

use footbridge_store::{NoticeState, Place, Side, Topic};

use crate::message::{About, Message};

/// The letter of a notice as things stand.
#[must_use]
pub fn letter(state: &NoticeState) -> Option<Vec<u8>> {
    let to = end_of(&state.to);
    let text = match &state.topic {
        Topic::Failures {
            failed: 0,
            again,
            delivered,
            ..
        } => settled(*again, *delivered, &to),
        Topic::Failures {
            failed,
            kept,
            again,
            delivered,
            reason,
        } => {
            let what = failed_in_words(*failed, &to, reason);
            let how = if *kept > 0 {
                how_to_retry(*failed, state.shown)
            } else {
                ""
            };
            format!("{what}{how}{}", the_rest(*again, *delivered))
        }
        Topic::Closed {
            reason,
            open: false,
        } => format!(
            "⚠ The bridge cannot write to {to}: {reason}. Messages wait, and follow when it can again."
        ),
        Topic::Closed { open: true, .. } => format!("✅ The bridge can write to {to} again."),
    };
    let about = state.about.as_ref().map(|copy| About {
        message: copy.remote.clone(),
        thread: copy.thread.clone(),
    });
    let message = match &state.replaces {
        Some(fact) => Message::changed_notice(fact.clone(), &text, state.at),
        None => Message::notice_about(&text, about, state.at),
    };
    message.to_bytes().ok()
}

/// A place in words.
#[must_use]
pub fn end_of(place: &Place) -> String {
    if place.network() == Place::MATRIX {
        "the Matrix room".to_owned()
    } else {
        format!("the {} channel", place.network())
    }
}

fn failed_in_words(failed: u64, to: &str, reason: &str) -> String {
    let reason = reason.trim_end_matches('.');
    if failed == 1 {
        format!("⚠ A message from here could not be delivered to {to}: {reason}.")
    } else {
        format!(
            "⚠ {failed} messages from here could not be delivered to {to}; the last one: {reason}."
        )
    }
}

/// What people can do. Silos have no reactions that the bridge hears of.
fn how_to_retry(failed: u64, shown: Side) -> &'static str {
    match (shown, failed) {
        (Side::Matrix, 1) => " React with 🔁 or answer `!bridge retry` to try again.",
        (Side::Matrix, _) => " React with 🔁 or answer `!bridge retry` to try them again.",
        (Side::Silo, 1) => " Answer `!bridge retry` in its thread to try again.",
        (Side::Silo, _) => " Answer `!bridge retry` in this thread to try them again.",
    }
}

fn the_rest(again: u64, delivered: u64) -> String {
    match (again, delivered) {
        (0, 0) => String::new(),
        (0, delivered) => format!(" Delivered after all: {delivered}."),
        (again, 0) => format!(" Being tried again: {again}."),
        (again, delivered) => {
            format!(" Being tried again: {again}; delivered after all: {delivered}.")
        }
    }
}

fn settled(again: u64, delivered: u64, to: &str) -> String {
    match (again, delivered) {
        (0, 0) => "What could not be delivered is no longer needed.".to_owned(),
        (0, 1) => format!("✅ Delivered to {to} after all."),
        (0, delivered) => format!("✅ {delivered} messages were delivered to {to} after all."),
        (1, 0) => format!("🔁 Trying again to deliver a message to {to}…"),
        (again, 0) => format!("🔁 Trying again to deliver {again} messages to {to}…"),
        (again, delivered) => {
            format!("🔁 Trying again: {again} more to {to}; delivered after all: {delivered}.")
        }
    }
}
