//! Links and addresses as Mattermost's server finds them.

use super::super::Version;

/// White space of Mattermost's server in inline text: only that of ASCII.
pub(in super::super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\u{b}' | '\u{c}' | '\r')
}

pub(super) fn is_escapable(byte: u8) -> bool {
    byte.is_ascii_punctuation()
}

/// The length of the address without a scheme that begins here.
pub(super) fn www(raw: &str, at: usize, version: &Version) -> Option<usize> {
    let before = at.checked_sub(1).filter(|at| *at > 0);
    let before = before.and_then(|at| raw.as_bytes().get(at));
    let free = |byte: u8| is_space(char::from(byte)) || version.before_www.contains(&byte);
    if before.is_some_and(|byte| !free(*byte)) {
        return None;
    }
    let behind = raw.get(at..)?;
    let numbered = behind.strip_prefix("www")?;
    let host = numbered.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_www = numbered.len() - host.len() <= 3 && host.starts_with('.');
    (is_www && is_domain(behind))
        .then(|| length(behind, version))
        .filter(|length| *length > 0)
}

/// The length of the scheme of the address with this colon, and the length of the rest.
pub(super) fn address(raw: &str, colon: usize, version: &Version) -> Option<(usize, usize)> {
    let behind = raw.get(colon..)?.strip_prefix("://")?;
    let before = raw.get(..colon)?;
    let start = before
        .trim_end_matches(|c: char| c.is_ascii_alphanumeric())
        .len();
    let known = ["http", "https", "ftp", "mailto", "tel", "gemini"];
    let scheme = before.get(start..)?;
    let is_known = known.iter().any(|known| known.eq_ignore_ascii_case(scheme));
    if !is_known || !behind.starts_with(|c| begins_host(c, version)) || !is_domain(behind) {
        return None;
    }
    let all = length(raw.get(start..)?, version);
    // The server would shorten it to nothing if the colon were removed.
    (all > scheme.len()).then(|| (scheme.len(), all - scheme.len()))
}

fn begins_host(c: char, version: &Version) -> bool {
    if c.is_ascii() {
        in_host(c)
    } else {
        let may = c.is_alphanumeric() || version.symbols_are_hosts;
        may && !c.is_whitespace() && c != '\u{fffd}'
    }
}

/// Whether an ASCII character may be in a host name: a letter, a number, or a symbol of mathematics, currency or
/// writing.
fn in_host(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || c.is_ascii_control() && !c.is_whitespace()
        || "$+<=>^`|~".contains(c)
}

/// Whether a domain begins here: no underscore ends it. The server checks neither the last character nor anything after
/// a character outside of ASCII.
fn is_domain(text: &str) -> bool {
    let looked_at = text.get(1..text.len().saturating_sub(1));
    let looked_at = looked_at.unwrap_or_else(|| text.get(1..).unwrap_or_default());
    let end = looked_at.find(|c: char| c != '-' && c != '.' && !in_host(c));
    !end.is_some_and(|at| looked_at.get(at..).is_some_and(|end| end.starts_with('_')))
}

/// How many bytes belong to an address.
fn length(text: &str, version: &Version) -> usize {
    let text = text.split(is_space).next().unwrap_or_default();
    let mut url = text.split(version.ends).next().unwrap_or_default();
    loop {
        let count = |of: char| url.chars().filter(|c| *c == of).count();
        let Some(last) = url.chars().next_back() else {
            break;
        };
        let shorter = url.len() - last.len_utf8();
        url = match last {
            '?' | '!' | '.' | ',' | ':' | '*' | '_' | '~' | '\'' | '"' => url.get(..shorter),
            ';' => {
                let name = url.get(..shorter).unwrap_or_default();
                let start = name.trim_end_matches(|c: char| c.is_ascii_alphabetic());
                let named = start.len() < name.len() && start.ends_with('&');
                url.get(..if named { start.len() - 1 } else { shorter })
            }
            ')' if count(')') > count('(') => url.get(..shorter),
            _ => break,
        }
        .unwrap_or_default();
    }
    url.len()
}

/// The text between brackets that begin here, and where they end.
pub(super) fn label(raw: &str, at: usize) -> Option<(&str, usize)> {
    let inner = raw.get(at..)?.strip_prefix('[')?;
    let end = unescaped(inner, |byte| byte == b'[' || byte == b']')?;
    let name = inner.get(..end)?;
    let is_one = inner.as_bytes().get(end) == Some(&b']') && name.chars().count() < 999;
    is_one.then_some((name, at + end + 2))
}

/// The position of the first byte of this kind without a backslash in front.
fn unescaped(text: &str, is_it: impl Fn(u8) -> bool) -> Option<usize> {
    let mut bytes = text.bytes().enumerate().peekable();
    while let Some((at, byte)) = bytes.next() {
        if byte == b'\\' {
            bytes.next_if(|(_, byte)| is_escapable(*byte));
        } else if is_it(byte) {
            return Some(at);
        }
    }
    None
}

/// The address after a label, and where its bracket ends.
pub(super) fn target(raw: &str, at: usize, is_picture: bool) -> Option<(String, usize)> {
    raw.get(at..)?.strip_prefix('(')?;
    let start = behind_space(raw, at + 1);
    if raw.get(start..)?.starts_with(')') {
        return Some((String::new(), start + 1));
    }
    let (address, mut end) = destination(raw, start)?;
    let spaced = |at: usize| raw.get(at..).is_some_and(|rest| rest.starts_with(is_space));
    if is_picture && spaced(end) && raw.get(behind_space(raw, end)..)?.starts_with('=') {
        end = dimensions(raw, behind_space(raw, end))?;
    }
    if spaced(end) {
        let start = behind_space(raw, end);
        if raw.get(start..)?.starts_with(')') {
            return Some((address, start + 1));
        }
        if raw.get(start..)?.starts_with(['"', '\'', '(']) {
            end = title(raw, start)?;
        }
    }
    let end = behind_space(raw, end);
    raw.get(end..)?
        .starts_with(')')
        .then_some((address, end + 1))
}

fn behind_space(raw: &str, at: usize) -> usize {
    let rest = raw.get(at..).unwrap_or_default();
    raw.len() - rest.trim_start_matches(is_space).len()
}

fn destination(raw: &str, at: usize) -> Option<(String, usize)> {
    let rest = raw.get(at..).filter(|rest| !rest.is_empty())?;
    if let Some(inner) = rest.strip_prefix('<') {
        let end = unescaped(inner, |byte| {
            b"<>".contains(&byte) || is_space(char::from(byte))
        });
        if let Some(end) = end.filter(|end| inner.as_bytes().get(*end) == Some(&b'>')) {
            return Some((inner.get(..end)?.to_owned(), at + end + 2));
        }
    }
    let mut open = 0usize;
    let mut bytes = rest.bytes().enumerate().peekable();
    let mut end = rest.len();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next_if(|(_, byte)| is_escapable(*byte));
            }
            b'(' => open += 1,
            b')' if open > 0 => open -= 1,
            byte if byte == b')' || is_space(char::from(byte)) => {
                end = at;
                break;
            }
            _ => {}
        }
    }
    Some((rest.get(..end)?.to_owned(), at + end))
}

/// Where the size of an image ends.
fn dimensions(raw: &str, at: usize) -> Option<usize> {
    let digits = |at: usize| {
        let rest = raw.get(at..).unwrap_or_default();
        // The server does not check the last character.
        let looked_at = rest.get(..rest.len().saturating_sub(1)).unwrap_or_default();
        at + looked_at.bytes().take_while(u8::is_ascii_digit).count()
    };
    let ends = |at: usize| {
        raw.as_bytes()
            .get(at)
            .is_some_and(|byte| *byte == b')' || is_space(char::from(*byte)))
    };
    let wide = digits(at + 1);
    if ends(wide) {
        return Some(wide);
    }
    raw.get(wide..)?
        .strip_prefix(['x', 'X'])
        .filter(|rest| !rest.is_empty())?;
    let high = digits(wide + 1);
    (ends(high) && (wide > at + 1 || high > wide + 1)).then_some(high)
}

/// Where a title ends.
fn title(raw: &str, at: usize) -> Option<usize> {
    let rest = raw.get(at..)?;
    let mark = match rest.bytes().next()? {
        b'(' => b')',
        mark @ (b'"' | b'\'') => mark,
        _ => return None,
    };
    Some(at + 1 + unescaped(rest.get(1..)?, |byte| byte == mark)? + 1)
}

/// The label of the link definition that begins here, and the text after it.
pub(in super::super) fn definition(raw: &str) -> Option<(String, &str)> {
    let (name, at) = label(raw, 0)?;
    raw.get(at..)?.strip_prefix(':')?;
    let (_, end) = destination(raw, behind_space(raw, at + 1))?;
    if raw.get(end..)?.starts_with(is_space) {
        let titled = title(raw, behind_space(raw, end)).and_then(|end| next_line(raw, end));
        if let Some(behind) = titled {
            return Some((folded(name), behind));
        }
    }
    Some((folded(name), next_line(raw, end)?))
}

/// The text of the next line, if the rest of this line is white space.
fn next_line(raw: &str, at: usize) -> Option<&str> {
    let rest = raw.get(at..)?;
    let end = rest.find(['\n', '\r']).unwrap_or(rest.len());
    let (line, behind) = rest.split_at_checked(end)?;
    let behind = behind
        .strip_prefix("\r\n")
        .or_else(|| behind.strip_prefix(['\n', '\r']));
    line.chars()
        .all(is_space)
        .then_some(behind.unwrap_or_default())
}

pub(super) fn definition_of(name: &str, labels: &[String]) -> bool {
    labels.contains(&folded(name))
}

/// A label normalised for comparison.
fn folded(name: &str) -> String {
    let words: Vec<_> = name.split_whitespace().collect();
    words.join(" ").to_lowercase()
}
