//! What people read about failures and closed places: the words, nothing else.

use footbridge_store::{NoticeState, Place, Topic};

use crate::message::{About, Message};

/// The letter of a notice as things stand.
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
        } => failures(*failed, *kept, *again, *delivered, &to, reason),
        Topic::Closed {
            reason,
            open: false,
        } => format!(
            "⚠ The bridge can no longer write to {to}: {reason}. Messages wait, and follow when it can again."
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
pub fn end_of(place: &Place) -> String {
    if place.network() == Place::MATRIX {
        "the Matrix room".to_owned()
    } else {
        format!("the {} channel", place.network())
    }
}

fn failures(failed: u64, kept: u64, again: u64, delivered: u64, to: &str, reason: &str) -> String {
    let reason = reason.trim_end_matches('.');
    let what = if failed == 1 {
        format!("⚠ A message from here could not be delivered to {to}: {reason}.")
    } else {
        format!(
            "⚠ {failed} messages from here could not be delivered to {to}; the last one: {reason}."
        )
    };
    let them = if failed == 1 { "" } else { " them" };
    let how = if kept > 0 {
        format!(" React with 🔁 or answer `!bridge retry` to try{them} again.")
    } else {
        String::new()
    };
    let rest = match (again, delivered) {
        (0, 0) => String::new(),
        (0, delivered) => format!(" Delivered after all: {delivered}."),
        (again, 0) => format!(" Being tried again: {again}."),
        (again, delivered) => {
            format!(" Being tried again: {again}; delivered after all: {delivered}.")
        }
    };
    format!("{what}{how}{rest}")
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
