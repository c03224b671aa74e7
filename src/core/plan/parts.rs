//! Bundles: several short messages in one, and later edits of each.

use footbridge_store::{Copy, SkipRule};

use super::{Planner, Position, delete};
use crate::{
    capabilities::Capabilities,
    message::{Action, Message, Sender, Style},
    names,
    outlet::{Content, Outgoing, Part, Plan, Step},
    render::{Speech, SpeechKind, json_length},
    text::{Block, Body, html_from_body},
};

/// The author of a part that the bridge itself wrote.
const BRIDGE_NAME: &str = "Footbridge";
/// The most messages in one: more cannot be read at a glance.
pub const MAX_PARTS: usize = 25;
/// The most bytes of JSON of all parts together, including the readable form.
const MAX_PARTS_BYTES: usize = 16_000;
/// The most bytes of JSON of one bundled message.
const MAX_PART_BYTES: usize = 4_000;

/// One message for the first of these, and how many it carries; `None` where the first is sent alone. Only short plain texts of one
/// paragraph are bundled, and no replies: a message replies to one message.
#[must_use]
pub fn bundle(can: &Capabilities, messages: &[Outgoing]) -> Option<(Step, usize)> {
    if !can.bundles {
        return None;
    }
    let mut weight = 0;
    let parts: Vec<Part> = messages
        .iter()
        .take(MAX_PARTS)
        .map_while(|outgoing| {
            let part = joinable(outgoing)?;
            weight += part.weight();
            (weight <= MAX_PARTS_BYTES).then_some(part)
        })
        .collect();
    let (first, count) = (messages.first()?, parts.len());
    if count < 2 {
        return None;
    }
    let in_thread = matches!(
        first.message.action,
        Action::Post {
            thread: Some(_),
            ..
        }
    );
    let planner = Planner {
        can,
        outgoing: first,
        // No part of a new message depends on the time.
        now: first.message.sent_at,
    };
    let thread = planner.position(false, in_thread).thread;
    Some((Step::Bundle { parts, thread }, count))
}

fn joinable(outgoing: &Outgoing) -> Option<Part> {
    let Action::Post {
        body,
        style: Style::Text,
        reply_to: None,
        ..
    } = &outgoing.message.action
    else {
        return None;
    };
    let part = Part::new(&outgoing.message.sender, body);
    // A message with several authors mentions nobody.
    let calls = !body.pinged().is_empty();
    let fits = !calls
        && outgoing.message.files.is_empty()
        && !outgoing.late
        && !part.block
        && part.weight() <= MAX_PART_BYTES;
    fits.then_some(part)
}

impl Part {
    /// A text of one author.
    #[must_use]
    pub fn new(sender: &Sender, body: &Body) -> Self {
        Self {
            author: author(sender),
            body: body.to_plain(),
            html: html_from_body(body),
            block: !matches!(body.0.as_slice(), [Block::Paragraph(_)]),
            gone: false,
        }
    }

    /// The bytes of JSON that the part adds to a message: it is in the readable form and among the parts, and its author may be in both.
    #[must_use]
    pub fn weight(&self) -> usize {
        2 * (json_length(&self.body) + json_length(&self.html)) + 8 * self.author.len() + 80
    }
}

fn author(sender: &Sender) -> String {
    if sender.is_bridge() {
        // Among other authors' parts, the bridge's own needs a name.
        return BRIDGE_NAME.to_owned();
    }
    names::bidi_isolate(&names::display_name(&sender.name, &sender.id))
}

/// The plan for an edit or a deletion of one part.
#[must_use]
pub fn part_edit(can: &Capabilities, outgoing: &Outgoing, slot: u32) -> Plan {
    let message = &outgoing.message;
    let Some(copy) = outgoing.copies.first() else {
        return Plan::Skip(SkipRule::UnknownTarget);
    };
    // Copies after the first are messages that had to be sent separately.
    let separate = outgoing.copies.get(1..).unwrap_or_default();
    let of_part = |part, fallback| Step::EditPart {
        target: copy.remote.clone(),
        slot,
        part,
        fallback,
    };
    let (part, fallback) = match &message.action {
        Action::Edit { body, style, .. } => {
            let rest = Outgoing {
                message: Message {
                    sender: marked(&message.sender),
                    ..message.clone()
                },
                copies: separate.to_vec(),
                ..outgoing.clone()
            };
            let planner = Planner {
                can,
                outgoing: &rest,
                now: message.sent_at,
            };
            let speech = planner.speech(body, SpeechKind::Said(*style));
            let has_files = |copy: &Copy| copy.file.as_ref().is_some_and(|file| !file.is_empty());
            let changes_files = !message.files.is_empty() || separate.iter().any(has_files);
            if !separate.is_empty() && (message.sender.is_bridge() || changes_files) {
                return Plan::Steps(planner.edit_one_by_one(&speech));
            }
            if let Some(last) = separate.last() {
                return Plan::Steps(vec![Step::Edit {
                    target: last.remote.clone(),
                    content: planner.edited(&speech),
                    is_caption: false,
                    fallback: None,
                }]);
            }
            if !message.files.is_empty() {
                // A message of several has no files: this one is sent separately, and its part is removed.
                let at = Position::in_thread(copy.thread.as_ref());
                let mut steps = planner.new_message(&speech, &at);
                steps.push(of_part(None, None));
                return Plan::Steps(steps);
            }
            let at = Position {
                thread: copy.thread.clone(),
                reply_to: Some(copy.remote.clone()),
            };
            let instead = at.post(planner.edited(&speech));
            (
                Some(Part::new(&message.sender, body)),
                Some(Box::new(instead)),
            )
        }
        Action::Delete { .. } => (None, None),
        _ => return Plan::Skip(SkipRule::UnknownTarget),
    };
    let removals = separate.iter().map(|copy| delete(copy, false));
    let steps = std::iter::once(of_part(part, fallback)).chain(removals);
    Plan::Steps(steps.collect())
}

impl Planner<'_> {
    /// An edited text as a message of its own, where the bundle cannot be changed.
    fn edited(&self, speech: &Speech<'_>) -> Content {
        let kind = match speech.kind {
            SpeechKind::Said(Style::Emote) => SpeechKind::Said(Style::Text),
            kind => kind,
        };
        self.whole(&Speech {
            kind,
            late: false,
            ..*speech
        })
    }
}

/// The author of an edited message that is sent separately.
fn marked(sender: &Sender) -> Sender {
    if sender.is_bridge() {
        return sender.clone();
    }
    let name = names::display_name(&sender.name, &sender.id);
    Sender {
        id: sender.id.clone(),
        name: format!("{name} (edited)"),
        avatar: None,
    }
}
