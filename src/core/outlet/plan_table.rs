//! A table of deliveries, for tests: each planner's plans are in a text file beside it, so that a change of a plan
//! is seen.

mod builders;
mod cases;

use std::{fmt::Write as _, fs, path::Path};

use footbridge_store::RemoteId;
use sha2::{Digest as _, Sha256};

use super::{Content, Outgoing, Part, Plan, Step};
pub use builders::NOW;
pub use cases::cases;

/// A text longer than this is shown by its ends and a digest.
const SHOWN: usize = 160;

/// Compares a table with the file that holds it; with `FOOTBRIDGE_GOLDEN=rewrite` it writes the file.
///
/// # Panics
/// Where they differ.
pub fn check(file: &Path, seen: &str) {
    if std::env::var("FOOTBRIDGE_GOLDEN").is_ok_and(|wish| wish == "rewrite") {
        fs::write(file, seen).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
    let golden = fs::read_to_string(file).unwrap_or_default();
    let differs = seen
        .lines()
        .zip(golden.lines())
        .find(|(seen, golden)| seen != golden);
    if let Some((seen, golden)) = differs {
        panic!("{}:\nplanned:  {seen}\nexpected: {golden}", file.display());
    }
    assert_eq!(
        seen.lines().count(),
        golden.lines().count(),
        "{}",
        file.display()
    );
}

/// A planner's plan of each delivery, as text.
#[must_use]
pub fn table(plan: impl Fn(&Outgoing) -> Plan) -> String {
    let mut out = String::new();
    for (name, outgoing) in cases() {
        write_plan(&mut out, name, &plan(&outgoing));
    }
    out
}

/// Writes one plan below its name.
pub fn write_plan(out: &mut String, name: &str, plan: &Plan) {
    let rows = match plan {
        Plan::Steps(steps) => steps.iter().map(|step| step_line(step, 1)).collect(),
        Plan::Skip(rule) => format!("  skip {rule}\n"),
    };
    // Writing into a string cannot fail.
    let _written = write!(out, "{name}\n{rows}");
}

fn step_line(step: &Step, depth: usize) -> String {
    let (line, fallback) = match step {
        Step::Post {
            content,
            thread,
            reply_to,
        } => {
            let line = format!(
                "post {}{}",
                position(thread.as_ref(), reply_to.as_ref()),
                said(content)
            );
            (line, None)
        }
        Step::SendFile {
            file,
            content,
            thread,
            reply_to,
            fallback,
        } => {
            let at = position(thread.as_ref(), reply_to.as_ref());
            let line = format!("send {} {at}{}", file.name, said(content));
            (line, fallback.as_ref())
        }
        Step::Edit {
            target,
            content,
            is_caption,
            fallback,
        } => {
            let below = if *is_caption { "caption of " } else { "" };
            let line = format!("edit {below}{target} {}", said(content));
            (line, fallback.as_ref())
        }
        Step::Delete { target, by_edit } => {
            let why = if *by_edit { " for an edit" } else { "" };
            (format!("delete {target}{why}"), None)
        }
        Step::React {
            target,
            key,
            unencrypted,
            is_marker,
        } => {
            let line = format!("react {target} {key} unencrypted={unencrypted} marker={is_marker}");
            (line, None)
        }
        Step::Unreact { shown } => (format!("unreact {shown}"), None),
        Step::Bundle { parts, thread } => {
            let parts: Vec<_> = parts.iter().map(part).collect();
            let line = format!(
                "bundle {}{}",
                position(thread.as_ref(), None),
                parts.join(" | ")
            );
            (line, None)
        }
        Step::EditPart {
            target,
            slot,
            part: new,
            fallback,
        } => {
            let new = new.as_ref().map_or("nothing".to_owned(), part);
            (
                format!("edit part {slot} of {target} {new}"),
                fallback.as_ref(),
            )
        }
    };
    let fallback = fallback.map(|step| step_line(step, depth + 1));
    let head = if depth > 1 { "else " } else { "" };
    format!(
        "{}{head}{line}\n{}",
        "  ".repeat(depth),
        fallback.unwrap_or_default()
    )
}

fn position(thread: Option<&RemoteId>, reply_to: Option<&RemoteId>) -> String {
    let thread = thread.map(|root| format!("in thread {root} "));
    let reply = reply_to.map(|to| format!("as reply to {to} "));
    thread.unwrap_or_default() + &reply.unwrap_or_default()
}

fn said(content: &Content) -> String {
    let author = content.author.as_ref().map(|author| {
        let avatar = author.avatar.as_deref().unwrap_or("none");
        format!(" by {:?} <{}> avatar {avatar}", author.name, author.id)
    });
    let html = content.html.as_ref();
    let html = html.map(|html| format!(" html {}", shown(html)));
    let mentions = &content.mentions;
    let mentions = (!mentions.is_empty()).then(|| format!(" mentions {}", mentions.join(",")));
    format!(
        "{:?} {}{}{}{}",
        content.style,
        shown(&content.text),
        html.unwrap_or_default(),
        author.unwrap_or_default(),
        mentions.unwrap_or_default()
    )
}

fn part(part: &Part) -> String {
    let (block, gone) = (part.block, part.gone);
    format!(
        "{:?}: {} html {} block={block} gone={gone}",
        part.author,
        shown(&part.body),
        shown(&part.html)
    )
}

/// A text on one line.
fn shown(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        return format!("{text:?}");
    }
    let first: String = text.chars().take(60).collect();
    let last: Vec<char> = text.chars().rev().take(30).collect();
    let last: String = last.into_iter().rev().collect();
    let digest = Sha256::digest(text);
    let mut short = String::new();
    for byte in digest.iter().take(4) {
        let _written = write!(short, "{byte:02x}");
    }
    format!("{first:?}…{} bytes, {short}…{last:?}", text.len())
}
