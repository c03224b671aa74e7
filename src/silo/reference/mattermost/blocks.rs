//! The blocks of a text as Mattermost's server finds them: which lines are a paragraph, and which are code.

use super::inlines::links;

/// A block that is open at a line, the outermost first.
enum Open {
    Document,
    Quote,
    List { ordered: bool, mark: u8 },
    Item { width: usize, is_empty: bool },
    Paragraph(Vec<String>),
    Indented,
    Fence { opening: String, is_closed: bool },
}

impl Open {
    /// Whether a line continues this block; if so, the rest of its indentation and its text.
    fn goes_on<'a>(&self, indent: usize, rest: &'a str) -> Option<(usize, &'a str)> {
        let blank = rest.trim().is_empty();
        match self {
            Self::Quote if indent > 3 => None,
            Self::Quote => {
                let (indent, rest) = indented(rest.strip_prefix('>')?);
                Some((indent.saturating_sub(1), rest))
            }
            Self::List { .. } if blank => Some((0, rest)),
            Self::Item { is_empty, .. } if blank => (!is_empty).then_some((0, rest)),
            Self::Item { width, .. } => Some((indent.checked_sub(*width)?, rest)),
            Self::Paragraph(_) => (!blank).then_some((indent, rest)),
            Self::Indented if indent >= 4 => Some((indent - 4, rest)),
            Self::Indented => blank.then_some((0, rest)),
            Self::Fence { is_closed, .. } => (!is_closed).then_some((indent, rest)),
            Self::Document | Self::List { .. } => Some((indent, rest)),
        }
    }

    /// Whether it is code, which contains every line that continues it.
    fn is_code(&self) -> bool {
        matches!(self, Self::Indented | Self::Fence { .. })
    }

    fn is_paragraph(&self) -> bool {
        matches!(self, Self::Paragraph(_))
    }
}

/// The paragraphs of a text, and the labels of its link definitions.
#[derive(Default)]
pub(super) struct Paragraphs {
    pub(super) texts: Vec<String>,
    pub(super) labels: Vec<String>,
}

impl Paragraphs {
    /// What a server with this nesting limit finds.
    pub(super) fn of(markdown: &str, deepest: usize) -> Self {
        let mut paragraphs = Self::default();
        let mut open = vec![Open::Document];
        for line in lines(markdown) {
            paragraphs.line(line, &mut open, deepest);
        }
        paragraphs.close(open);
        paragraphs
    }

    fn line(&mut self, line: &str, open: &mut Vec<Open>, deepest: usize) {
        let (mut indent, mut rest) = indented(line);
        let mut last = 0;
        for (index, block) in open.iter().enumerate() {
            let Some((within, behind)) = block.goes_on(indent, rest) else {
                break;
            };
            let (more, behind) = indented(behind);
            (indent, rest, last) = (within + more, behind, index);
        }
        let is_code = open.get(last).is_some_and(Open::is_code);
        if !is_code {
            let around = Around {
                matched: open.get(last),
                unmatched: open.get(last + 1..).and_then(<[Open]>::last),
            };
            let mut new = Vec::new();
            starts(indent, rest, around, last + 1, deepest, &mut new);
            if !new.is_empty() {
                self.add(new, last, open);
                return;
            }
        }
        let blank = rest.trim().is_empty();
        if let Some(Open::Paragraph(lines)) = open.last_mut()
            && !blank
        {
            lines.push(rest.to_owned());
            return;
        }
        let closed = open.split_off(last + 1);
        self.close(closed);
        if let Some(Open::Fence { opening, is_closed }) = open.last_mut() {
            let behind = rest.strip_prefix(opening.as_str()).map(str::trim);
            let mark = opening.chars().next().unwrap_or('`');
            *is_closed = indent <= 3 && behind.is_some_and(|more| more.chars().all(|c| c == mark));
        }
        if !is_code && !blank {
            self.add(vec![Open::Paragraph(vec![rest.to_owned()])], last, open);
        }
    }

    /// Adds new blocks to the innermost block that can contain them.
    fn add(&mut self, mut new: Vec<Open>, last: usize, open: &mut Vec<Open>) {
        for index in (0..=last).rev() {
            match (open.get_mut(index), new.first()) {
                (
                    Some(Open::List { ordered, mark }),
                    Some(Open::List {
                        ordered: too,
                        mark: same,
                    }),
                ) if *ordered == *too && *mark == *same => {
                    new.remove(0);
                }
                (Some(Open::Document | Open::Quote), _) => {}
                (Some(Open::Item { is_empty, .. }), _) => *is_empty = false,
                _ => continue,
            }
            let closed = open.split_off(index + 1);
            self.close(closed);
            open.append(&mut new);
            return;
        }
    }

    fn close(&mut self, closed: Vec<Open>) {
        for block in closed {
            if let Open::Paragraph(mut lines) = block {
                // The server has a bug: it removes as many bytes from the end as there is white space in front.
                if let Some(first) = lines.first_mut() {
                    let kept = first.trim_start_matches(links::is_space).len();
                    let whole = (0..=kept).rev().find(|at| first.is_char_boundary(*at));
                    first.truncate(whole.unwrap_or(0));
                }
                let text = lines.concat();
                let mut rest = text.as_str();
                while let Some((label, behind)) = links::definition(rest) {
                    self.labels.push(label);
                    rest = behind;
                }
                self.texts.push(rest.to_owned());
            }
        }
    }
}

/// The blocks around a place where a block may begin.
#[derive(Clone, Copy, Default)]
struct Around<'a> {
    /// The innermost block that the line continues.
    matched: Option<&'a Open>,
    /// The innermost block that is still open.
    unmatched: Option<&'a Open>,
}

/// The blocks that begin here, each inside the one before; none if the line is plain text.
fn starts(
    indent: usize,
    rest: &str,
    around: Around<'_>,
    depth: usize,
    deepest: usize,
    new: &mut Vec<Open>,
) {
    let inside = |indent, rest, new: &mut Vec<Open>| {
        let before = new.len();
        starts(indent, rest, Around::default(), depth + 1, deepest, new);
        if new.len() == before && !rest.trim().is_empty() {
            new.push(Open::Paragraph(vec![rest.to_owned()]));
        }
        new.len() > before
    };
    if indent <= 3
        && depth < deepest
        && let Some(behind) = rest.strip_prefix('>')
    {
        new.push(Open::Quote);
        let (indent, behind) = indented(behind.strip_prefix(' ').unwrap_or(behind));
        inside(indent, behind, new);
    } else if let Some((list, mark)) = item(indent, rest, around)
        && depth < deepest
    {
        let (wide, behind) = indented(rest.get(mark..).unwrap_or_default());
        let blank = behind.trim().is_empty();
        let taken = if blank || wide >= 5 { 1 } else { wide };
        new.push(list);
        let at = new.len();
        let width = indent + mark + taken;
        new.push(Open::Item {
            width,
            is_empty: true,
        });
        let filled = inside(wide.saturating_sub(taken), behind, new);
        if let Some(Open::Item { is_empty, .. }) = new.get_mut(at) {
            *is_empty = !filled;
        }
    } else if indent >= 4 && !rest.trim().is_empty() {
        let behind_text = match (around.unmatched, around.matched) {
            (Some(block), _) | (None, Some(block)) => block.is_paragraph(),
            (None, None) => false,
        };
        if !behind_text {
            new.push(Open::Indented);
        } else if let Some(fence) = fence(rest) {
            new.push(fence);
        }
    } else if let Some(fence) = fence(rest) {
        new.push(fence);
    }
}

/// The list of an item that begins here, and the length of its mark.
fn item(indent: usize, rest: &str, around: Around<'_>) -> Option<(Open, usize)> {
    if indent > 3 && !matches!(around.matched, Some(Open::List { .. })) {
        return None;
    }
    let behind = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = rest.len() - behind.len();
    let mark = behind.bytes().next()?;
    let ordered = digits > 0;
    let marks: &[u8] = if ordered { b".)" } else { b"-+*" };
    if digits > 9 || !marks.contains(&mark) {
        return None;
    }
    let behind = behind.get(1..)?;
    let blank = behind.trim().is_empty();
    let ends_text =
        !ordered || rest.get(..digits).and_then(|number| number.parse().ok()) == Some(1u32);
    let in_text = around.unmatched.is_none() && around.matched.is_some_and(Open::is_paragraph);
    if (in_text && (blank || !ends_text)) || (!blank && !behind.starts_with([' ', '\t'])) {
        return None;
    }
    Some((Open::List { ordered, mark }, digits + 1))
}

fn fence(rest: &str) -> Option<Open> {
    let mark = rest.chars().next().filter(|c| "`~".contains(*c))?;
    let info = rest.trim_start_matches(mark);
    let length = rest.len() - info.len();
    (length >= 3 && !info.contains('`')).then(|| Open::Fence {
        opening: rest.get(..length).unwrap_or_default().to_owned(),
        is_closed: false,
    })
}

/// The columns of the leading blanks, and the text after them.
fn indented(text: &str) -> (usize, &str) {
    let rest = text.trim_start_matches([' ', '\t']);
    let blanks = text.get(..text.len() - rest.len()).unwrap_or_default();
    let columns = blanks.chars().map(|c| if c == '\t' { 4 } else { 1 }).sum();
    (columns, rest)
}

/// The lines with their ends; a carriage return alone ends one, too.
fn lines(markdown: &str) -> impl Iterator<Item = &str> {
    markdown.split_inclusive('\n').flat_map(|line| {
        let text = line.strip_suffix("\r\n").unwrap_or(line);
        let ended = line.len() - text.len();
        let mut rest = line;
        let mut left = text.len();
        std::iter::from_fn(move || {
            let end = rest
                .get(..left)
                .and_then(|text| text.find('\r'))
                .map_or(left + ended, |at| at + 1);
            let (first, behind) = rest.split_at_checked(end).filter(|_| !rest.is_empty())?;
            (rest, left) = (behind, left.saturating_sub(end));
            Some(first)
        })
    })
}
