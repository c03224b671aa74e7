//! The texts of the notices about failures and closed places, nothing else.

use footbridge_store::{Place, Side, StatusNotice, StatusTopic};

use crate::message::{Message, ReplyTarget};

/// The payload of a notice in its current state.
#[must_use]
pub fn render(state: &StatusNotice) -> Option<Vec<u8>> {
    let to = place_in_words(&state.to);
    let text = match &state.topic {
        StatusTopic::Failures {
            failed: 0,
            retrying,
            delivered,
            ..
        } => settled(*retrying, *delivered, &to),
        StatusTopic::Failures {
            failed,
            retryable,
            retrying,
            delivered,
            reason,
        } => {
            let what = failed_in_words(*failed, &to, reason);
            let how = if *retryable > 0 {
                how_to_retry(*failed, state.shown_on)
            } else {
                ""
            };
            format!("{what}{how}{}", the_rest(*retrying, *delivered))
        }
        StatusTopic::Closed {
            reason,
            open: false,
        } => format!(
            "⚠ The bridge cannot write to {to}: {reason}. Messages wait until it can write there again."
        ),
        StatusTopic::Closed { open: true, .. } => format!("✅ The bridge can write to {to} again."),
    };
    let about = state.about.as_ref().map(|copy| ReplyTarget {
        message: copy.remote.clone(),
        thread: copy.thread.clone(),
    });
    let message = match &state.replaces {
        Some(notice_id) => Message::edited_notice(notice_id.clone(), &text, state.at),
        None => Message::notice_about(&text, about, state.at),
    };
    message.to_bytes().ok()
}

/// The name of a place in a notice.
#[must_use]
pub fn place_in_words(place: &Place) -> String {
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

/// What people can do. The bridge does not receive reactions from silos.
fn how_to_retry(failed: u64, shown: Side) -> &'static str {
    match (shown, failed) {
        (Side::Matrix, 1) => " React with 🔁 or reply `!bridge retry` to try again.",
        (Side::Matrix, _) => " React with 🔁 or reply `!bridge retry` to try them again.",
        (Side::Silo, 1) => " Reply `!bridge retry` in its thread to try again.",
        (Side::Silo, _) => " Reply `!bridge retry` in this thread to try them again.",
    }
}

fn the_rest(retrying: u64, delivered: u64) -> String {
    match (retrying, delivered) {
        (0, 0) => String::new(),
        (0, delivered) => format!(" Delivered after all: {delivered}."),
        (retrying, 0) => format!(" Being tried again: {retrying}."),
        (retrying, delivered) => {
            format!(" Being tried again: {retrying}; delivered after all: {delivered}.")
        }
    }
}

fn settled(retrying: u64, delivered: u64, to: &str) -> String {
    match (retrying, delivered) {
        (0, 0) => "The undelivered messages are no longer needed.".to_owned(),
        (0, 1) => format!("✅ Delivered to {to} after all."),
        (0, delivered) => format!("✅ {delivered} messages were delivered to {to} after all."),
        (1, 0) => format!("🔁 Trying again to deliver a message to {to}…"),
        (retrying, 0) => format!("🔁 Trying again to deliver {retrying} messages to {to}…"),
        (retrying, delivered) => {
            format!("🔁 Trying again: {retrying} more to {to}; delivered after all: {delivered}.")
        }
    }
}
