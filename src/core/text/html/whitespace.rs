//! White space as HTML treats it: a run is one space, and a line has none at its ends.

use crate::text::Inline;

/// A line ready for the tree. Empty if it has no readable text.
pub(super) fn normalized(line: Vec<Inline>) -> Vec<Inline> {
    let mut after_space = true;
    let mut line = folded(line, &mut after_space);
    trim_end(&mut line);
    line
}

/// Folds white space. `after_space` says whether another space here would be superfluous.
fn folded(line: Vec<Inline>, after_space: &mut bool) -> Vec<Inline> {
    let mut out: Vec<Inline> = Vec::new();
    for inline in line {
        match inline {
            Inline::Text(text) => {
                let mut kept = String::with_capacity(text.len());
                for c in text.chars() {
                    let blank = c.is_ascii_whitespace();
                    if !blank {
                        kept.push(c);
                    } else if !*after_space {
                        kept.push(' ');
                    }
                    *after_space = blank;
                }
                match out.last_mut() {
                    Some(Inline::Text(before)) => before.push_str(&kept),
                    _ if kept.is_empty() => {}
                    _ => out.push(Inline::Text(kept)),
                }
            }
            Inline::Break => {
                trim_space(&mut out);
                out.push(Inline::Break);
                *after_space = true;
            }
            Inline::Code(_) | Inline::Maths(_) | Inline::Mention { .. } | Inline::Ping { .. } => {
                out.push(inline);
                *after_space = false;
            }
            Inline::Bold(inner) => push(&mut out, Inline::Bold, folded(inner, after_space)),
            Inline::Italic(inner) => push(&mut out, Inline::Italic, folded(inner, after_space)),
            Inline::Strike(inner) => push(&mut out, Inline::Strike, folded(inner, after_space)),
            Inline::Spoiler(inner) => push(&mut out, Inline::Spoiler, folded(inner, after_space)),
            Inline::Link { href, label } => {
                let label = folded(label, after_space);
                *after_space = false;
                out.push(Inline::Link { href, label });
            }
        }
    }
    out
}

fn push(out: &mut Vec<Inline>, wrap: fn(Vec<Inline>) -> Inline, inner: Vec<Inline>) {
    if !inner.is_empty() {
        out.push(wrap(inner));
    }
}

fn trim_space(line: &mut Vec<Inline>) {
    while let Some(Inline::Text(text)) = line.last_mut() {
        text.truncate(text.trim_end_matches(' ').len());
        if !text.is_empty() {
            return;
        }
        line.pop();
    }
}

fn trim_end(line: &mut Vec<Inline>) {
    loop {
        match line.last_mut() {
            Some(Inline::Break) => {
                line.pop();
            }
            Some(Inline::Text(text)) => {
                text.truncate(text.trim_end_matches(' ').len());
                if !text.is_empty() {
                    return;
                }
                line.pop();
            }
            Some(
                Inline::Bold(inner)
                | Inline::Italic(inner)
                | Inline::Strike(inner)
                | Inline::Spoiler(inner),
            ) => {
                trim_end(inner);
                if !inner.is_empty() {
                    return;
                }
                line.pop();
            }
            Some(
                Inline::Code(_)
                | Inline::Maths(_)
                | Inline::Mention { .. }
                | Inline::Ping { .. }
                | Inline::Link { .. },
            )
            | None => return,
        }
    }
}

/// Links replaced by their labels.
pub(super) fn without_links(line: Vec<Inline>) -> Vec<Inline> {
    line.into_iter()
        .flat_map(|inline| match inline {
            Inline::Link { label, .. } => without_links(label),
            Inline::Bold(inner) => vec![Inline::Bold(without_links(inner))],
            Inline::Italic(inner) => vec![Inline::Italic(without_links(inner))],
            Inline::Strike(inner) => vec![Inline::Strike(without_links(inner))],
            Inline::Spoiler(inner) => vec![Inline::Spoiler(without_links(inner))],
            other => vec![other],
        })
        .collect()
}
