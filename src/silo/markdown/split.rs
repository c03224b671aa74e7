//! Cuts a text into parts that fit, at safe places. A part never gains meaning by the cut: open code is closed
//! and opened again, and what a link kept from calling somebody is broken where the link was.

use unicode_segmentation::UnicodeSegmentation as _;

use super::joined;

/// The most parts one message is sent in.
const MAX_PARTS: usize = 8;

const TRUNCATED: &str = "\n\n*(the rest of this message was too long)*";

/// The text in parts of at most `most` UTF-16 units, each beginning with `prefix`. A prefix that `text` begins with
/// already is not doubled; one of more than half a part is left out. What does not fit into eight parts is
/// cut off, and the eighth says so.
#[must_use]
pub fn split(text: &str, prefix: &str, most: usize) -> Vec<String> {
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
    // Room for a line end behind the prefix, and for the end of open code.
    let room = most - units(prefix) - 2 - 2 * (longest_fence(text) + 8);
    let mut parts = Vec::new();
    let mut rest = text.to_owned();
    while units(&rest) > room && parts.len() + 1 < MAX_PARTS {
        let (head, tail) = cut(&rest, room);
        parts.push(joined(prefix, &head));
        rest = tail;
    }
    if units(&rest) > room {
        let (head, _) = cut(&rest, room - units(TRUNCATED));
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
    text.chars().map(char::len_utf16).sum()
}

fn longest_fence(text: &str) -> usize {
    text.split(|c| c != '`')
        .map(str::len)
        .max()
        .unwrap_or(0)
        .min(64)
}

/// A stretch that should stay together, in bytes.
struct Span {
    start: usize,
    end: usize,
    kind: Kind,
}

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    /// Code in running text, with its fence.
    Code(String),
    /// A block of code: what closes it and what opens it again.
    Fenced { close: String, open: String },
    /// A link, a URL or something in bold.
    Whole,
}

/// The beginning of a text that is too long, and the rest.
fn cut(text: &str, room: usize) -> (String, String) {
    let spans = spans(text);
    let end = within(text, room);
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
            .find(|place| at(*place).is_none_or(|span| matches!(span.kind, Kind::Fenced { .. })))
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
    let (head, tail) = text.split_at(place);
    let span = at(place).map(|span| span.kind.clone());
    let torn = !tail.starts_with(char::is_whitespace);
    match span {
        Some(Kind::Fenced { close, open }) => {
            let tail = tail.strip_prefix('\n').unwrap_or(tail);
            let head = head.trim_end_matches('\n');
            (format!("{head}\n{close}"), format!("{open}\n{tail}"))
        }
        Some(Kind::Code(fence)) => (format!("{head}{fence}"), format!("{fence}{tail}")),
        _ if torn => (head.to_owned(), uncalled(tail)),
        _ => (
            head.trim_end().to_owned(),
            tail.trim_start_matches(['\n', ' ']).to_owned(),
        ),
    }
}

/// How many bytes of a text fit.
fn within(text: &str, room: usize) -> usize {
    let mut taken = 0usize;
    text.char_indices()
        .find(|(_, c)| {
            taken += c.len_utf16();
            taken > room
        })
        .map_or(text.len(), |(at, _)| at)
}

/// A cut where there is no good place: before a span that fits into the next part, else between characters and
/// not within an escape or an entity.
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
            slashes % 2 == 0 && !open && !mark && *at > 0
        })
        .unwrap_or(head.len())
}

/// The rest of a torn word: whoever it would call now is not called.
fn uncalled(tail: &str) -> String {
    let end = tail.find(char::is_whitespace).unwrap_or(tail.len());
    let (word, rest) = tail.split_at(end);
    let word = word.replace("@\u{200b}", "@").replace('@', "@\u{200b}");
    format!("{word}{rest}")
}

/// What should stay together, in order.
fn spans(text: &str) -> Vec<Span> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let line_start = at == 0 || text.get(..at).is_some_and(|before| before.ends_with('\n'));
        let span = if line_start { fenced(rest) } else { None }.or_else(|| inline(rest));
        if let Some((length, kind)) = span {
            found.push(Span {
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
        if c == '\\' {
            at += chars.next().map_or(0, char::len_utf8);
        }
    }
    found
}

/// A block of code at the start of this line.
fn fenced(rest: &str) -> Option<(usize, Kind)> {
    let first = rest.lines().next()?;
    let lead = first.find('`')?;
    let (lead, mark) = first.split_at(lead);
    let fence: String = mark.chars().take_while(|c| *c == '`').collect();
    let plain_lead = lead
        .chars()
        .all(|c| matches!(c, ' ' | '>' | '-' | '.') || c.is_ascii_digit());
    if fence.len() < 3 || !plain_lead || mark.get(fence.len()..)?.contains('`') {
        return None;
    }
    let mut length = first.len() + 1;
    for line in rest.get(length..)?.split_inclusive('\n') {
        length += line.len();
        if line.trim_matches([' ', '>', '\n']) == fence {
            break;
        }
    }
    let again = if lead.contains('>') { "> " } else { "" };
    Some((
        length.min(rest.len()),
        Kind::Fenced {
            close: format!("{again}{fence}"),
            open: format!("{again}{mark}"),
        },
    ))
}

/// Code, a link, a URL or bold text that begins here.
fn inline(rest: &str) -> Option<(usize, Kind)> {
    if rest.starts_with('`') {
        let fence: String = rest.chars().take_while(|c| *c == '`').collect();
        let inner = rest.get(fence.len()..)?;
        let close = inner
            .match_indices(fence.as_str())
            .map(|(at, _)| at)
            .find(|at| {
                !inner
                    .get(at + fence.len()..)
                    .is_some_and(|after| after.starts_with('`'))
                    && !inner.get(..*at).is_some_and(|before| before.ends_with('`'))
            })?;
        return Some((close + 2 * fence.len(), Kind::Code(fence)));
    }
    if rest.starts_with('[') {
        let target = rest.find("](")?;
        let end = target + rest.get(target..)?.find(')')? + 1;
        let one = !rest.get(..end)?.contains("\n\n");
        return one.then_some((end, Kind::Whole));
    }
    if rest.starts_with("http://") || rest.starts_with("https://") {
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        return Some((end, Kind::Whole));
    }
    if rest.starts_with("**") {
        let end = rest.get(2..)?.find("**")? + 4;
        return (end < 500).then_some((end, Kind::Whole));
    }
    None
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
