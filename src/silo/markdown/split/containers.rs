//! The lists and quotes around a place where a text is cut. Behind the cut the lists are no more: what stood in them moves
//! to the left, or a renderer would take it for something else.

use super::super::numbered;

/// More columns than that are not given back to the end of code.
const MAX_LEAD: usize = 64;

/// The blanks and the marks of quotes in front of a line.
pub(super) fn lead(line: &str) -> &str {
    let behind = line.trim_start_matches([' ', '>']);
    line.get(..line.len() - behind.len()).unwrap_or_default()
}

/// What stands in front of the lines of an item or a quote that begins with these marks.
pub(super) fn within(marks: &str) -> String {
    let inner = marks.chars();
    inner.map(|c| if c == '>' { c } else { ' ' }).collect()
}

/// The marks of the quotes alone.
pub(super) fn quotes(lead: &str) -> String {
    "> ".repeat(lead.matches('>').count())
}

/// What stands in front of the lines that go on where this text ends.
pub(super) fn around(text: &str) -> String {
    let line = text.rsplit('\n').next().unwrap_or_default();
    let behind = without_marks(line);
    within(line.get(..line.len() - behind.len()).unwrap_or_default())
}

/// Where the last line of this text begins, if it holds nothing but marks: what they belong to follows them.
pub(super) fn bare_marks(text: &str) -> Option<usize> {
    let start = text.rfind('\n').map_or(0, |at| at + 1);
    let line = format!("{} ", text.get(start..)?);
    (!line.trim().is_empty() && without_marks(&line).is_empty()).then_some(start)
}

/// A line without the marks of quotes and items.
fn without_marks(line: &str) -> &str {
    let behind = line.trim_start_matches([' ', '>']);
    let digits = behind.trim_start_matches(|c: char| c.is_ascii_digit());
    let item = if digits.len() < behind.len() {
        digits.strip_prefix(". ")
    } else {
        behind.strip_prefix("- ")
    };
    item.map_or(behind, without_marks)
}

/// The columns of the code that stands deepest in lists and quotes.
pub(super) fn deepest(text: &str) -> usize {
    let fences = text.lines().filter_map(|line| {
        let (lead, _) = line.split_once("```")?;
        let known = |c: char| matches!(c, ' ' | '>' | '-' | '.') || c.is_ascii_digit();
        lead.chars().all(known).then_some(lead.len())
    });
    fences.max().unwrap_or(0).min(MAX_LEAD)
}

/// What is left of a text when its lines lose what stood in front of them, as long as they have it; the marks of quotes
/// stay. `whole` says whether the first line is one, or the rest of one.
pub(super) fn left<'a>(text: &'a str, mut lead: &'a str, whole: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            out.push('\n');
        }
        if index == 0 && !whole {
            out.push_str(line);
            continue;
        }
        let same = line.bytes().zip(lead.bytes());
        let same = same.take_while(|(ours, gone)| ours == gone).count();
        let (gone, said) = line.split_at_checked(same).unwrap_or(("", line));
        let is_left = same < lead.len() && !line.trim().is_empty();
        if is_left {
            lead = gone;
        }
        // An item that is not the first would be text of the paragraph above it now.
        if is_left && index > 0 && numbered(said.trim_start_matches("> ")) {
            out.push_str(quotes(gone).trim_end());
            out.push('\n');
        }
        out.push_str(&quotes(gone));
        out.push_str(said);
    }
    out
}
