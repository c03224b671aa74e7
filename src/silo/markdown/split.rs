//! Splits a text into parts that fit, at safe places. The split never gives a part another meaning: open code is closed
//! and opened again, and an `@` that the link made harmless is made harmless where the link was cut.

use std::ops::Range;

use footbridge_core::capabilities::{LengthUnit, TextLimit};
use unicode_segmentation::UnicodeSegmentation as _;

mod containers;

use super::joined;

/// The most parts of one message.
const MAX_PARTS: usize = 8;

/// A longer fence is not treated as one at a cut: it could not be closed and opened again within a part.
const MAX_FENCE: usize = 64;

/// A longer link may be cut, in bytes; the same for bold text.
const MAX_LINK: usize = 4096;
const MAX_BOLD: usize = 500;

const TRUNCATED: &str = "\n\n*(the rest of this message was too long)*";

/// The text in parts of at most `most` UTF-16 units (see [`split_to`]).
#[must_use]
pub fn split(text: &str, prefix: &str, most: usize) -> Vec<String> {
    let unit = LengthUnit::Utf16;
    split_to(text, prefix, TextLimit { max: most, unit })
}

/// The text in parts that fit, each beginning with `prefix`. A prefix that `text` already begins with is not doubled; one
/// of more than half a part is left out. What does not fit into eight parts is cut off, and the eighth says so.
#[must_use]
pub fn split_to(text: &str, prefix: &str, limit: TextLimit) -> Vec<String> {
    let TextLimit { max: most, unit } = limit;
    let units = |text: &str| unit.length(text);
    let prefix = if units(prefix) > most / 2 { "" } else { prefix };
    let text = text
        .strip_prefix(prefix)
        .or_else(|| text.strip_prefix(prefix.trim_end()))
        .map_or(text, |rest| {
            if prefix.is_empty() {
                rest
            } else {
                rest.trim_start_matches('\n')
            }
        });
    let whole = joined(prefix, text);
    if units(&whole) <= most {
        return vec![whole];
    }
    let fence = longest_fence(text);
    let without_mentions = parted(text);
    // Code with such a fence is not protected, so cutting it could mention whoever it names.
    let text = if fence > MAX_FENCE {
        &without_mentions
    } else {
        text
    };
    // Space for a line end after the prefix, and for the end of open code, which may be in lists and quotes.
    let lead = containers::deepest(text);
    let room = most - units(prefix) - 2 - 2 * (fence.min(MAX_FENCE) + 8) - lead;
    let mut parts = Vec::new();
    let mut rest = text.to_owned();
    while units(&rest) > room && parts.len() + 1 < MAX_PARTS {
        let (head, tail) = cut(&rest, room, unit);
        parts.push(joined(prefix, &head));
        rest = tail;
    }
    if units(&rest) > room {
        let (head, _) = cut(&rest, room - units(TRUNCATED), unit);
        rest = head + TRUNCATED;
    }
    if !rest.trim().is_empty() {
        parts.push(joined(prefix, &rest));
    }
    parts
}

/// The length in UTF-16 units.
#[must_use]
pub fn units(text: &str) -> usize {
    LengthUnit::Utf16.length(text)
}

fn longest_fence(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

/// A range that should stay together, in bytes.
struct Span {
    start: usize,
    end: usize,
    kind: SpanKind,
}

impl Span {
    /// Only between the fences of a code block.
    fn may_be_cut(&self, place: usize) -> bool {
        matches!(&self.kind, SpanKind::Fenced { inside, .. } if inside.contains(&place))
    }
}

#[derive(Clone, PartialEq, Eq)]
enum SpanKind {
    /// Inline code, with its fence.
    Code(String),
    /// A code block: the range of its lines, in bytes from the start of the text, what precedes each of them, what
    /// closes the block and what opens it again.
    Fenced {
        inside: Range<usize>,
        lead: String,
        close: String,
        open: String,
    },
    /// A link, a URL or bold text.
    Whole,
}

/// Splits a text that is too long into a part of at most `room` units and the rest.
fn cut(text: &str, room: usize, unit: LengthUnit) -> (String, String) {
    let end = within(text, room, unit);
    let spans = spans(text, end);
    let at = |place: usize| {
        spans
            .iter()
            .find(|span| span.start < place && place < span.end)
    };
    let head = text.get(..end).unwrap_or(text);
    let least = end / 3;
    let good = |places: &mut dyn Iterator<Item = usize>| {
        places
            .filter(|place| *place > least && *place <= end)
            .find(|place| at(*place).is_none_or(|span| span.may_be_cut(*place)))
    };
    let place = good(&mut head.rmatch_indices("\n\n").map(|(at, _)| at))
        .or_else(|| good(&mut head.rmatch_indices('\n').map(|(at, _)| at)))
        .or_else(|| good(&mut head.rmatch_indices(". ").map(|(at, _)| at + 1)))
        .or_else(|| {
            good(
                &mut head
                    .rmatch_indices(['!', '?'])
                    .map(|(at, _)| at + 1)
                    .filter(|at| head.get(*at..).is_some_and(|rest| rest.starts_with(' '))),
            )
        })
        .or_else(|| good(&mut head.rmatch_indices(' ').map(|(at, _)| at)))
        .unwrap_or_else(|| hard(head, at(end).map_or(0, |span| span.start), least));
    let marks = containers::bare_marks(head.get(..place).unwrap_or_default());
    let place = match at(place).map(|span| (span.start, &span.kind)) {
        Some((start, SpanKind::Fenced { inside, .. })) => {
            // The marks of a line stay with it, and so do those of the whole block.
            let place = marks.map_or(place, |line| line.saturating_sub(1));
            if place <= inside.start && start > 0 {
                start
            } else {
                place.clamp(inside.start, inside.end)
            }
        }
        _ => marks.filter(|start| *start > 0).unwrap_or(place),
    };
    divided(text, place, at(place))
}

/// Splits a text at this place, inside of `span` or outside of any, so that each part is complete by itself.
fn divided(text: &str, place: usize, span: Option<&Span>) -> (String, String) {
    let (head, tail) = text.split_at(place);
    let torn = !tail.starts_with(char::is_whitespace);
    match span.map(|span| span.kind.clone()) {
        Some(SpanKind::Fenced {
            lead, close, open, ..
        }) => {
            let (line, quotes) = (tail.strip_prefix('\n'), containers::quotes(&lead));
            let tail = if head.ends_with('\n') || line.is_some() {
                containers::left(line.unwrap_or(tail), &lead, true)
            } else {
                // The marks of the rest of a line are in the part before.
                format!("{quotes}{}", containers::left(tail, &lead, false))
            };
            let head = head.trim_end_matches('\n');
            (
                format!("{head}\n{lead}{close}"),
                format!("{quotes}{open}\n{tail}"),
            )
        }
        Some(SpanKind::Code(fence)) => {
            // A backtick next to the fence would change the fence.
            let apart = |beside: bool| if beside { " " } else { "" };
            let (end, start) = (apart(head.ends_with('`')), apart(tail.starts_with('`')));
            let tail = containers::left(tail, &containers::around(head), false);
            (
                format!("{head}{end}{fence}"),
                format!("{fence}{start}{tail}"),
            )
        }
        kind => {
            let mut head = head.trim_end().to_owned();
            let tail = match (kind, span) {
                // A link that is cut is none, and code in its label becomes text, which must mention nobody.
                (Some(SpanKind::Whole), Some(span)) if torn => {
                    let label = head.split_off(span.start.min(head.len()));
                    head.push_str(&label.replace("@\u{200b}", "@").replace('@', "\u{ff20}"));
                    let (link, rest) = text
                        .get(place..)
                        .and_then(|tail| tail.split_at_checked(span.end - place))
                        .unwrap_or((tail, ""));
                    format!("{}{rest}", parted(link))
                }
                _ if torn => without_mentions_in_first_word(tail),
                _ => tail.to_owned(),
            };
            let behind = tail.trim_start_matches([' ', '\n']);
            let gap = tail.get(..tail.len() - behind.len()).unwrap_or_default();
            if let Some((_, lead)) = gap.rsplit_once('\n') {
                let tail = format!("{lead}{behind}");
                let lead = containers::lead(&tail).to_owned();
                (head, containers::left(&tail, &lead, true))
            } else {
                let lead = containers::around(&head);
                (head, containers::left(behind, &lead, false))
            }
        }
    }
}

/// How many bytes of a text fit.
fn within(text: &str, room: usize, unit: LengthUnit) -> usize {
    let mut taken = 0usize;
    text.char_indices()
        .find(|(_, c)| {
            taken += unit.length(c.encode_utf8(&mut [0; 4]));
            taken > room
        })
        .map_or(text.len(), |(at, _)| at)
}

/// A cut where there is no good place: before a span that fits into the next part, else between characters and not
/// within an escape or an entity.
fn hard(head: &str, span_start: usize, least: usize) -> usize {
    if span_start > least {
        return span_start;
    }
    head.grapheme_indices(true)
        .map(|(at, _)| at)
        .rev()
        .take(64)
        .find(|at| {
            let before = head.get(..*at).unwrap_or("");
            let slashes = before.len() - before.trim_end_matches('\\').len();
            let open = before.rfind('&').is_some_and(|amp| {
                before.len() - amp < 12 && !before.get(amp..).is_some_and(|name| name.contains(';'))
            });
            let mark = before.ends_with(['*', '~', '`', '_']);
            let run = head.get(*at..).is_some_and(|tail| tail.starts_with('`'));
            slashes % 2 == 0 && !open && !mark && !run && *at > 0
        })
        .unwrap_or(head.len())
}

/// The rest of a word that was cut, so that it mentions nobody.
fn without_mentions_in_first_word(tail: &str) -> String {
    let end = tail.find(char::is_whitespace).unwrap_or(tail.len());
    let (word, rest) = tail.split_at(end);
    format!("{}{rest}", parted(word))
}

fn parted(text: &str) -> String {
    text.replace("@\u{200b}", "@").replace('@', "@\u{200b}")
}

/// The spans that begin before this place, in order.
fn spans(text: &str, end: usize) -> Vec<Span> {
    let mut spans = Vec::new();
    // Lengths of fences that are never closed: searched for once, not from each of them (C14).
    let mut open = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|_| at < end) {
        let line_start = at == 0 || text.get(..at).is_some_and(|before| before.ends_with('\n'));
        let span = if line_start { fenced(rest) } else { None }.or_else(|| inline(rest, &mut open));
        if let Some((length, mut kind)) = span {
            if let SpanKind::Fenced { inside, .. } = &mut kind {
                *inside = inside.start + at..inside.end + at;
            }
            spans.push(Span {
                start: at,
                end: at + length,
                kind,
            });
            at += length;
            continue;
        }
        let mut chars = rest.chars();
        let Some(c) = chars.next() else { break };
        at += c.len_utf8();
        // A backslash before a letter or a digit escapes nothing.
        if c == '\\' {
            let escaped = chars.next().filter(|c| !c.is_ascii_alphanumeric());
            at += escaped.map_or(0, char::len_utf8);
        }
    }
    spans
}

/// A code block at the start of this line.
fn fenced(rest: &str) -> Option<(usize, SpanKind)> {
    let first = rest.lines().next()?;
    let lead = first.find('`')?;
    let (lead, mark) = first.split_at(lead);
    let fence: String = mark.chars().take_while(|c| *c == '`').collect();
    let plain_lead = lead
        .chars()
        .all(|c| matches!(c, ' ' | '>' | '-' | '.') || c.is_ascii_digit());
    let is_fence = (3..=MAX_FENCE).contains(&fence.len());
    if !is_fence || !plain_lead || mark.get(fence.len()..)?.contains('`') {
        return None;
    }
    let start = first.len() + 1;
    let (mut length, mut end) = (start, start);
    for line in rest.get(start..)?.split_inclusive('\n') {
        length += line.len();
        if line.trim_matches([' ', '>', '\n']) == fence {
            break;
        }
        end = length;
    }
    Some((
        length.min(rest.len()),
        SpanKind::Fenced {
            // Without the end of its last line.
            inside: start..end.saturating_sub(1).max(start),
            lead: containers::within(lead),
            close: fence,
            open: mark.to_owned(),
        },
    ))
}

/// Code, a link, a URL or bold text that begins here. `open` are the lengths of fences that are never closed.
fn inline(rest: &str, open: &mut Vec<usize>) -> Option<(usize, SpanKind)> {
    if rest.starts_with('`') {
        let fence: String = rest.chars().take_while(|c| *c == '`').collect();
        if fence.len() > MAX_FENCE || open.contains(&fence.len()) {
            return None;
        }
        let inner = rest.get(fence.len()..)?;
        let Some(close) = closing(inner, &fence) else {
            open.push(fence.len());
            return None;
        };
        return Some((close + 2 * fence.len(), SpanKind::Code(fence)));
    }
    if rest.starts_with('[') {
        let rest = beginning(rest, MAX_LINK);
        let target = rest.find("](")?;
        let end = target + rest.get(target..)?.find(')')? + 1;
        let one = !rest.get(..end)?.contains("\n\n");
        return one.then_some((end, SpanKind::Whole));
    }
    if rest.starts_with("http://") || rest.starts_with("https://") {
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        return Some((end, SpanKind::Whole));
    }
    if rest.starts_with("**") {
        let end = beginning(rest, MAX_BOLD).get(2..)?.find("**")? + 4;
        return Some((end, SpanKind::Whole));
    }
    None
}

/// Where a fence of exactly this length is.
fn closing(inner: &str, fence: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        at += inner.get(at..)?.find('`')?;
        let run = inner.get(at..)?.bytes().take_while(|byte| *byte == b'`');
        let run = run.count();
        if run == fence.len() {
            return Some(at);
        }
        at += run;
    }
}

/// The first bytes of a text, at most `most`.
fn beginning(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or(text)
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
