//! The lists and quotes around the place of a cut. After the cut the lists do not exist any more, so their contents
//! move to the left: a renderer would misread their indentation.

use super::super::numbered;

/// The maximum width that is reserved for what precedes the end of code, in columns.
const MAX_LEAD: usize = 64;

/// The blanks and the quote marks in front of a line.
pub(super) fn lead(line: &str) -> &str {
    let behind = line.trim_start_matches([' ', '>']);
    line.get(..line.len() - behind.len()).unwrap_or_default()
}

/// What precedes the other lines of an item or a quote that begins with these marks.
pub(super) fn within(marks: &str) -> String {
    let inner = marks.chars();
    inner.map(|c| if c == '>' { c } else { ' ' }).collect()
}

/// The quote marks alone.
pub(super) fn quotes(lead: &str) -> String {
    "> ".repeat(lead.matches('>').count())
}

/// What precedes a line that continues the end of this text.
pub(super) fn around(text: &str) -> String {
    let line = text.rsplit('\n').next().unwrap_or_default();
    let behind = without_marks(line);
    within(line.get(..line.len() - behind.len()).unwrap_or_default())
}

/// Where the last line of this text begins, if it consists of marks only: what they belong to follows.
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

/// The widest prefix of a code fence in lists and quotes, in columns.
pub(super) fn deepest(text: &str) -> usize {
    let fences = text.lines().filter_map(|line| {
        let (lead, _) = line.split_once("```")?;
        let known = |c: char| matches!(c, ' ' | '>' | '-' | '.') || c.is_ascii_digit();
        lead.chars().all(known).then_some(lead.len())
    });
    fences.max().unwrap_or(0).min(MAX_LEAD)
}

/// Removes `lead` from each line, as long as the lines have it; quote marks stay. `whole` says whether the first line
/// is a whole line or the rest of one.
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
        let same = same.take_while(|(one, other)| one == other).count();
        let (removed, kept) = line.split_at_checked(same).unwrap_or(("", line));
        let is_left = same < lead.len() && !line.trim().is_empty();
        if is_left {
            lead = removed;
        }
        // An item that is not the first would now be text of the paragraph above it.
        if is_left && index > 0 && numbered(kept.trim_start_matches("> ")) {
            out.push_str(quotes(removed).trim_end());
            out.push('\n');
        }
        out.push_str(&quotes(removed));
        out.push_str(kept);
    }
    out
}
