//! The rules of Gitter's marked (`inline.breaks`), each written by hand: how many bytes at the start of a text they
//! match.

use super::{is_space, is_word, run};

fn in_repository(c: char) -> bool {
    is_word(c) || c == '-' || c == '.'
}

fn in_mailbox(c: char) -> bool {
    c.is_ascii_alphanumeric() || ".!#$%&'*+/=?^_`{|}~-".contains(c)
}

fn first_len(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

/// `owner/name` at the start.
pub(super) fn repository(src: &str) -> Option<usize> {
    let owner = run(src, in_repository);
    let behind = src[owner..].strip_prefix('/').filter(|_| owner > 0)?;
    let name = run(behind, in_repository);
    (name > 0).then_some(owner + 1 + name)
}

pub(super) fn issue(src: &str, repository: Option<usize>) -> Option<(usize, usize)> {
    [repository, Some(0)]
        .into_iter()
        .flatten()
        .find_map(|start| {
            let behind = src[start..].strip_prefix('#')?;
            let digits = run(behind, |c| c.is_ascii_digit());
            (digits > 0).then_some((start + 1 + digits, digits))
        })
}

pub(super) fn mail(src: &str) -> Option<usize> {
    let mut at = run(src, in_mailbox);
    src[at..].strip_prefix('@').filter(|_| at > 0)?;
    at += 1;
    let label = |text: &str| {
        let longest = run(text, |c| c.is_ascii_alphanumeric() || c == '-').min(63);
        text[..longest].trim_end_matches('-').len()
    };
    let is_label = |text: &str| text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !is_label(&src[at..]) {
        return None;
    }
    at += label(&src[at..]);
    while let Some(behind) = src[at..]
        .strip_prefix('.')
        .filter(|behind| is_label(behind))
    {
        at += 1 + label(behind);
    }
    Some(at)
}

pub(super) fn url(src: &str, in_brackets: bool) -> Option<usize> {
    let scheme = ["https://", "http://"]
        .iter()
        .find(|scheme| src.starts_with(**scheme))?
        .len();
    let url = &src[..run(src, |c| !is_space(c) && c != '<')];
    let ends = |c: char| ".,:;\"']".contains(c) || (in_brackets && c == ')');
    let url = url.trim_end_matches(ends);
    (url.get(scheme..)?.chars().count() >= 2).then_some(url.len())
}

/// `^!?\[((?:\[[^\]]*\]|[^\[\]])*)\]`: brackets of which the first is text, because no link is defined for them.
pub(super) fn no_link(src: &str) -> bool {
    let bracket = src.strip_prefix('!').unwrap_or(src);
    let Some(mut rest) = bracket.strip_prefix('[') else {
        return false;
    };
    loop {
        let Some(at) = rest.find(['[', ']']) else {
            return false;
        };
        if rest[at..].starts_with(']') {
            return true;
        }
        match rest[at..].split_once(']') {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
}

pub(super) fn html_tag(src: &str) -> Option<usize> {
    if let Some(behind) = src.strip_prefix("<!--") {
        return behind.find("-->").map(|end| end + 7);
    }
    let behind = src.strip_prefix('<')?;
    let name = behind.strip_prefix('/').unwrap_or(behind);
    let mut rest = &name[Some(run(name, is_word)).filter(|length| *length > 0)?..];
    loop {
        let c = rest.chars().next()?;
        rest = &rest[c.len_utf8()..];
        match c {
            '>' => return Some(src.len() - rest.len()),
            '"' | '\'' => rest = rest.split_once(c)?.1,
            _ => {}
        }
    }
}

/// `^\*\*([\s\S]+?)\*\*(?!\*)`: the position of the second mark.
pub(super) fn strong(src: &str, mark: &str) -> Option<usize> {
    let inner = src.strip_prefix(mark)?;
    let from = 2 + first_len(inner);
    let more = &mark[..1];
    let marks =
        (from..src.len()).filter(|at| src.is_char_boundary(*at) && src[*at..].starts_with(mark));
    marks
        .into_iter()
        .find(|at| !src[at + 2..].starts_with(more))
}

/// `^\b_((?:[^_]|__)+?)_\b`
pub(super) fn underscored(src: &str) -> Option<usize> {
    let mut at = 1;
    src.strip_prefix('_')?;
    loop {
        let rest = &src[at..];
        if at > 1 && rest.starts_with('_') && !rest[1..].starts_with(is_word) {
            return Some(at);
        }
        at += match rest.chars().next()? {
            '_' if rest.starts_with("__") => 2,
            '_' => return None,
            c => c.len_utf8(),
        };
    }
}

/// `^\*((?:\*\*|[\s\S])+?)\*(?!\*)`
pub(super) fn starred(src: &str) -> Option<usize> {
    src.strip_prefix('*')?;
    // Each position is checked once: what fails from there always fails.
    let mut failed = vec![false; src.len() + 1];
    let mut stack = vec![(1, false)];
    while let Some((at, looked)) = stack.pop() {
        if looked {
            failed[at] = true;
            continue;
        }
        if failed[at] {
            continue;
        }
        let rest = &src[at..];
        if at > 1 && rest.starts_with('*') && !rest[1..].starts_with('*') {
            return Some(at);
        }
        stack.push((at, true));
        if let Some(c) = rest.chars().next() {
            stack.push((at + c.len_utf8(), false));
        }
        if rest.starts_with("**") {
            stack.push((at + 2, false));
        }
    }
    None
}

/// ``^(`+)\s*([\s\S]*?[^`])\s*\1(?!`)``
pub(super) fn code(src: &str) -> Option<(&str, usize)> {
    let marks = run(src, |c| c == '`');
    for fence in (1..=marks).rev() {
        let behind = &src[fence..];
        let blanks = run(behind, is_space);
        let starts = (0..=blanks)
            .rev()
            .filter(|skip| behind.is_char_boundary(*skip));
        for start in starts.map(|skip| fence + skip) {
            let mut ends = src[start..].char_indices().filter(|(_, c)| *c != '`');
            let match_end = ends.find_map(|(at, c)| {
                let end = start + at + c.len_utf8();
                let mark = end + run(&src[end..], is_space);
                let last = src[mark..].strip_prefix(&src[..fence])?;
                (!last.starts_with('`')).then_some((end, mark))
            });
            if let Some((end, mark)) = match_end {
                return Some((&src[start..end], mark + fence));
            }
        }
    }
    None
}

/// `^~~(?=\S)([\s\S]*?\S)~~`
pub(super) fn struck(src: &str) -> Option<usize> {
    let inner = src
        .strip_prefix("~~")
        .filter(|inner| !inner.starts_with(is_space))?;
    let from = 2 + first_len(inner);
    let marks =
        (from..src.len()).filter(|at| src.is_char_boundary(*at) && src[*at..].starts_with("~~"));
    marks.into_iter().find(|at| !src[..*at].ends_with(is_space))
}

/// The length of the text before anything that may be something else.
pub(super) fn text(src: &str) -> usize {
    let from = first_len(src);
    let mut ends = src[from..].char_indices().map(|(at, _)| from + at);
    let special = |at: &usize| {
        let rest = &src[*at..];
        rest.starts_with("$$")
            || rest.starts_with(['\\', '<', '!', '[', '_', '*', '`', '#', '~'])
            || rest.starts_with("https://")
            || rest.starts_with("http://")
            || rest.trim_start_matches(' ').starts_with('\n')
            || rest[run(rest, |c| c != '#' && in_mailbox(c))..].starts_with('@')
            || issue(rest, repository(rest)).is_some()
    };
    ends.find(special).unwrap_or(src.len())
}
