//! Reads tags and attributes, and keeps only the values that are safe.

use ruma_html::ElementData;

use crate::text::{is_invisible, sanitized};

pub(super) fn tag(element: &ElementData) -> &str {
    &element.name.local
}

pub(super) fn attribute(element: &ElementData, name: &str) -> Option<String> {
    element
        .attrs
        .borrow()
        .iter()
        .find(|attribute| &*attribute.name.local == name)
        .map(|attribute| attribute.value.to_string())
}

pub(super) fn is_block(name: &str) -> bool {
    matches!(
        name,
        "p" | "div"
            | "details"
            | "summary"
            | "section"
            | "article"
            | "header"
            | "footer"
            | "center"
            | "dl"
            | "dt"
            | "dd"
            | "figure"
            | "figcaption"
            | "h1"
            | "h2"
            | "h3"
            | "h4"
            | "h5"
            | "h6"
            | "pre"
            | "hr"
            | "blockquote"
            | "ul"
            | "ol"
            | "li"
            | "table"
            | "tr"
            | "caption"
    )
}

/// The formula of an element (client-server API, `data-mx-maths`).
pub(super) fn maths(element: &ElementData) -> Option<String> {
    let tex = attribute(element, "data-mx-maths")?;
    let tex = sanitized(&tex).replace('\n', " ");
    (!tex.trim().is_empty()).then(|| tex.trim().to_owned())
}

/// A language name that is safe in an attribute or behind a code fence.
pub(super) fn is_language(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '#' | '_' | '.'))
}

/// The target of a link, if the tree may hold it: known scheme, no invisible characters.
pub(super) fn safe_href(href: &str) -> Option<String> {
    let href = href.trim();
    let (scheme, rest) = href.split_once(':')?;
    let known = ["http", "https", "mailto", "matrix"]
        .iter()
        .find(|known| scheme.eq_ignore_ascii_case(known))?;
    let visible = |c: char| !(c.is_control() || c.is_whitespace() || is_invisible(c));
    (!rest.is_empty() && href.len() <= 4096 && rest.chars().all(visible))
        .then(|| format!("{known}:{rest}"))
}

/// The person a link refers to: `https://matrix.to/#/@alice:example.org` or `matrix:u/alice:example.org`.
pub(super) fn matrix_to_user(href: &str) -> Option<String> {
    let id = if let Some(rest) = href.strip_prefix("https://matrix.to/#/") {
        let id = rest
            .split('?')
            .next()?
            .replace("%40", "@")
            .replace("%3A", ":");
        id.starts_with('@').then_some(id)?
    } else {
        let id = href.strip_prefix("matrix:u/")?.split('?').next()?;
        format!("@{id}")
    };
    let bare = !id.contains('/') && id.len() <= 255;
    (bare && id.contains(':')).then_some(id)
}
