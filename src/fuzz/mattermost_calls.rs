//! Whom Mattermost calls: the grammar of its server (version 11: `shared/markdown`, and the standard parser of mentions
//! in `app`), written anew from what those do, apart from everything that we write by. Where the server could read a text
//! in more than one way, the one that calls somebody counts.

/// What may stand in a word that calls somebody.
fn in_word(c: char) -> bool {
    matches!(c, ':' | '.' | '-' | '_' | '@') || c.is_alphabetic() || c.is_numeric()
}

/// Whether somebody is called: everybody in the channel, a group or a person of any name.
#[must_use]
pub fn calls(markdown: &str) -> bool {
    paragraphs(markdown)
        .iter()
        .flat_map(|paragraph| runs(paragraph))
        .any(|run| run_calls(&run))
}

/// The server's parser of mentions.
fn run_calls(run: &str) -> bool {
    run.split(|c| !in_word(c)).any(|word| {
        if word.starts_with(':') && word.ends_with(':') {
            // An emoji, by the looks of it.
            return false;
        }
        let word = word.trim_start_matches([':', '.', '-', '_']);
        // What it does not find it looks for in parts.
        is_call(word) || word.split(['.', '-', ':']).any(is_call)
    })
}

fn is_call(word: &str) -> bool {
    word.strip_prefix('@')
        .is_some_and(|name| name.contains(|c: char| c.is_alphabetic() || c.is_numeric()))
}

/// The text of each paragraph: everything outside of fences, without the marks of quotes and lists.
fn paragraphs(markdown: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut paragraph = String::new();
    let mut fence: Option<Fence> = None;
    for line in markdown.split(['\n', '\r']) {
        let place = Place::of(line);
        if let Some(open) = &fence {
            if open.holds(&place) {
                if open.is_closed_by(place.text) {
                    fence = None;
                }
                continue;
            }
            fence = None;
        }
        if let Some(open) = Fence::opened_by(&place) {
            all.push(std::mem::take(&mut paragraph));
            fence = Some(open);
        } else if place.text.is_empty() {
            all.push(std::mem::take(&mut paragraph));
        } else {
            paragraph.push_str(place.text);
            paragraph.push('\n');
        }
    }
    all.push(paragraph);
    all
}

/// Where the text of a line stands.
struct Place<'a> {
    /// In how many quotes.
    quotes: usize,
    /// In which column the text of the innermost item of a list begins; 0 outside of lists.
    item: usize,
    /// In which column the text begins.
    column: usize,
    text: &'a str,
}

impl<'a> Place<'a> {
    fn of(line: &'a str) -> Self {
        let (mut quotes, mut item) = (0, 0);
        let mut text = line.trim_start_matches([' ', '\t']);
        loop {
            if let Some(rest) = text.strip_prefix('>') {
                (quotes, item) = (quotes + 1, 0);
                text = rest.trim_start_matches([' ', '\t']);
            } else if let Some(rest) = without_mark(text) {
                text = rest.trim_start_matches([' ', '\t']);
                item = line.len() - text.len();
            } else {
                let column = line.len() - text.len();
                return Self {
                    quotes,
                    item,
                    column,
                    text,
                };
            }
        }
    }
}

/// What stands behind the mark of an item of a list.
fn without_mark(text: &str) -> Option<&str> {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let behind = if rest.len() < text.len() {
        rest.strip_prefix(['.', ')'])
    } else {
        text.strip_prefix(['-', '*', '+'])
    };
    behind.filter(|behind| behind.starts_with([' ', '\t']))
}

struct Fence {
    mark: char,
    length: usize,
    quotes: usize,
    item: usize,
}

impl Fence {
    fn opened_by(place: &Place<'_>) -> Option<Self> {
        let mark = place.text.chars().next().filter(|c| "`~".contains(*c))?;
        let info = place.text.trim_start_matches(mark);
        let length = place.text.len() - info.len();
        let is_fence = length >= 3 && !info.contains('`');
        is_fence.then_some(Self {
            mark,
            length,
            quotes: place.quotes,
            item: place.item,
        })
    }

    /// Whether a line is still in the quotes and in the item in which the fence was opened.
    fn holds(&self, place: &Place<'_>) -> bool {
        place.text.is_empty() || (place.quotes >= self.quotes && place.column >= self.item)
    }

    fn is_closed_by(&self, text: &str) -> bool {
        let text = text.trim_end();
        text.len() >= self.length && text.chars().all(|c| c == self.mark)
    }
}

/// The runs of plain text of a paragraph, in which the server looks for mentions. Addresses of links count as text.
fn runs(paragraph: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut run = String::new();
    let mut in_brackets = false;
    let mut at = 0;
    while let Some(rest) = paragraph.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(c) = rest.chars().next() else { break };
        let after = rest.get(c.len_utf8()..).unwrap_or_default();
        let taken = match c {
            '\n' => {
                all.push(std::mem::take(&mut run));
                1
            }
            '\\' if after.starts_with(|c: char| c.is_ascii_punctuation()) => {
                run.extend(after.chars().next());
                2
            }
            '`' => match code_span(rest) {
                Ok(length) => {
                    all.push(std::mem::take(&mut run));
                    length
                }
                Err(length) => {
                    run.push_str(rest.get(..length).unwrap_or_default());
                    length
                }
            },
            '&' => {
                let (meant, length) = reference(after).unwrap_or((c, 0));
                run.push(meant);
                1 + length
            }
            // Between brackets that may become a link nothing is one by itself.
            '[' => {
                in_brackets = true;
                run.push(c);
                1
            }
            ':' if !in_brackets && url(paragraph, at).is_some() => {
                let (start, end) = url(paragraph, at).unwrap_or((at, at + 1));
                run.truncate(run.len().saturating_sub(at - start));
                all.push(std::mem::take(&mut run));
                end - at
            }
            c => {
                run.push(c);
                c.len_utf8()
            }
        };
        at += taken;
    }
    all.push(run);
    all
}

/// How long the code is that begins here, or the backticks that begin none.
fn code_span(rest: &str) -> Result<usize, usize> {
    let inner = rest.trim_start_matches('`');
    let length = rest.len() - inner.len();
    let mark = "`".repeat(length);
    let mut from = 0;
    while let Some(found) = inner.get(from..).and_then(|rest| rest.find(&mark)) {
        let end = from + found + length;
        let behind = inner.get(end..).unwrap_or_default();
        let more = behind.len() - behind.trim_start_matches('`').len();
        if more == 0 {
            return Ok(length + end);
        }
        from = end + more;
    }
    Err(length)
}

/// The character that a reference behind an ampersand stands for, and how long that is.
fn reference(after: &str) -> Option<(char, usize)> {
    let (name, _) = after.split_once(';')?;
    let c = match name {
        "commat" => '@',
        "amp" | "AMP" => '&',
        "lowbar" => '_',
        "period" => '.',
        "colon" => ':',
        _ => {
            let number = name.strip_prefix('#')?;
            let number = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => number.parse(),
            };
            char::from_u32(number.ok()?)?
        }
    };
    Some((c, name.len() + 1))
}

/// From where to where the bare URL reaches that has its colon here.
fn url(text: &str, colon: usize) -> Option<(usize, usize)> {
    let behind = text.get(colon..)?.strip_prefix("://")?;
    let before = text.get(..colon)?;
    let scheme = before.trim_end_matches(|c: char| c.is_ascii_alphanumeric());
    let start = scheme.len();
    let known = ["http", "https", "ftp", "mailto", "tel", "gemini"];
    let scheme = before.get(start..)?;
    if !known.iter().any(|known| known.eq_ignore_ascii_case(scheme)) {
        return None;
    }
    let in_host = |c: char| !c.is_whitespace() && (c.is_alphanumeric() || !is_punctuation(c));
    if !behind.starts_with(in_host) {
        return None;
    }
    let host = behind.find(|c: char| !in_host(c) && c != '-' && c != '.');
    if host.is_some_and(|end| behind.get(end..).is_some_and(|rest| rest.starts_with('_'))) {
        return None;
    }
    let end = behind.find(|c: char| c.is_ascii_whitespace() || c == '<' || c == '>');
    let url = behind.get(..end.unwrap_or(behind.len()))?;
    // Brackets that are closed too often, entities and the like stay outside; leaving out more is careful.
    let url = url.trim_end_matches(|c: char| "?!.,:*_~'\";)".contains(c));
    Some((start, colon + 3 + url.len()))
}

/// Unicode's category P, as far as it matters: what is neither a letter nor a number nor a symbol of mathematics, money
/// or writing. More than that is careful.
fn is_punctuation(c: char) -> bool {
    !c.is_alphanumeric() && !matches!(c, '$' | '+' | '<' | '=' | '>' | '^' | '`' | '|' | '~')
}

#[cfg(test)]
mod tests {
    use super::calls;

    #[test]
    fn what_the_server_takes_for_a_mention_is_one() {
        for text in [
            "@all",
            "x @ALL y",
            "(@here)",
            "@channel.",
            "**@all**",
            "@ann.b",
            "x.@all",
            "-@all",
            "_@all_",
            "\\@all",
            "&#64;all",
            "&commat;all",
            "&#x40;all",
            "a\u{e9} @\u{e9}",
            "http://@all",
            "http://a_b/@all",
            "xhttps://foo/@channel",
            "[ https://foo/@all",
            "`x @all",
            "``@all`",
            "> @all",
            // The item ends, and its fence with it.
            "- ```\n@all",
            "| @all |",
            "# @all",
            "![@all](x)",
        ] {
            assert!(calls(text), "{text:?}");
        }
    }

    #[test]
    fn what_it_does_not_take_for_one_is_none() {
        for text in [
            "all",
            "@ all",
            "@\u{200b}all",
            "bob@example.com",
            "x@all",
            "`@all`",
            "`` ` @all``",
            "```\n@all\n```",
            "> ```\n> @all\n> ```",
            "- ```\n  @all\n  ```",
            "https://medium.com/@al",
            "see HTTPS://medium.com/@al, or",
            "https://medium.com/%40all",
            ":@all:",
        ] {
            assert!(!calls(text), "{text:?}");
        }
    }
}
