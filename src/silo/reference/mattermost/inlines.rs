//! The inline text of a paragraph as Mattermost's server finds it: what is plain text, and what is code or an address.

pub(super) mod links;

use super::Version;
use links::{address, definition_of, is_escapable, label, www};

/// A piece of a paragraph.
enum Piece {
    /// Plain text, which may mention somebody.
    Text(String),
    /// Something that separates the texts around it.
    Gap,
    /// A place where the source differs from the text: some versions of the server split the text there.
    Seam,
}

/// A bracket that may begin a link or an image.
struct Bracket {
    /// The index of its piece.
    piece: usize,
    /// Where the label begins.
    behind: usize,
    is_picture: bool,
    is_dead: bool,
}

/// The runs of plain text, in which the server looks for mentions. Addresses of links count as text, to be careful.
pub(super) fn runs(paragraph: &str, labels: &[String], version: &Version) -> Vec<String> {
    let mut reader = Reader {
        raw: paragraph,
        version,
        at: 0,
        pieces: Vec::new(),
        brackets: Vec::new(),
    };
    while reader.at < paragraph.len() {
        let before = reader.at;
        reader.read(labels);
        // This guarantees progress.
        reader.at = reader.at.max(before + 1);
    }
    let (mut joined, mut separate) = (vec![String::new()], vec![String::new()]);
    for piece in reader.pieces {
        if let Piece::Text(text) = piece {
            for runs in [&mut joined, &mut separate] {
                if let Some(run) = runs.last_mut() {
                    run.push_str(&text);
                }
            }
            continue;
        }
        separate.push(String::new());
        if matches!(piece, Piece::Gap) {
            joined.push(String::new());
        }
    }
    joined.append(&mut separate);
    joined
}

struct Reader<'a> {
    raw: &'a str,
    version: &'a Version,
    at: usize,
    pieces: Vec<Piece>,
    brackets: Vec<Bracket>,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.raw.get(self.at..).unwrap_or_default()
    }

    /// Reads this many bytes as text.
    fn text(&mut self, length: usize) {
        let text = self.rest().get(..length).unwrap_or_default().to_owned();
        self.pieces.push(Piece::Text(text));
        self.at += length;
    }

    /// Skips this many bytes.
    fn gap(&mut self, length: usize) {
        self.pieces.push(Piece::Gap);
        self.at += length;
    }

    fn read(&mut self, labels: &[String]) {
        let rest = self.rest();
        let mut chars = rest.chars();
        let Some(c) = chars.next() else { return };
        let after = chars.as_str();
        match c {
            '\n' | '\r' => self.gap(1),
            '\\' if after.bytes().next().is_some_and(is_escapable) => {
                self.at += 1;
                self.pieces.push(Piece::Seam);
                self.text(1);
            }
            '`' => match code_span(rest) {
                Ok(length) => self.gap(length),
                Err(length) => self.text(length),
            },
            '&' => match reference(after) {
                Some((meant, length)) => {
                    self.pieces.extend([Piece::Text(meant), Piece::Seam]);
                    self.at += 1 + length;
                }
                None => self.text(1),
            },
            '[' => self.bracket(1, false),
            '!' if after.starts_with('[') => self.bracket(2, true),
            ']' => self.bracket_ends(labels),
            'w' | 'W' => {
                match www(self.raw, self.at, self.version).filter(|_| self.takes_addresses()) {
                    Some(length) => self.gap(length),
                    None => self.text(1),
                }
            }
            ':' => {
                match address(self.raw, self.at, self.version).filter(|_| self.takes_addresses()) {
                    Some((scheme, length)) => {
                        if let Some(Piece::Text(text)) = self.pieces.last_mut() {
                            text.truncate(text.len().saturating_sub(scheme));
                        }
                        self.gap(length);
                    }
                    None => match self.emoji() {
                        Some(length) => self.gap(length),
                        None => self.text(1),
                    },
                }
            }
            _ => {
                let end = rest.get(c.len_utf8()..).and_then(|more| {
                    more.find(['\r', '\n', '\\', '`', '&', '!', '[', ']', 'w', 'W', ':'])
                });
                self.text(end.map_or(rest.len(), |end| end + c.len_utf8()));
            }
        }
    }

    /// No bare address is recognised after a bracket that may become a link.
    fn takes_addresses(&self) -> bool {
        self.brackets.iter().all(|bracket| bracket.is_dead)
    }

    fn emoji(&self) -> Option<usize> {
        let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let before = self.at.checked_sub(1).filter(|at| *at > 0);
        let before = before.and_then(|at| self.raw.as_bytes().get(at));
        let name = self.rest().strip_prefix(':')?;
        let length = name.find(':').filter(|length| *length > 0)?;
        let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-+".contains(c);
        let is_name = name.get(..length)?.chars().all(known);
        let behind = name.as_bytes().get(length + 1);
        let is_free = !before.is_some_and(word) && !behind.is_some_and(word);
        (is_name && is_free).then_some(length + 2)
    }

    fn bracket(&mut self, length: usize, is_picture: bool) {
        self.brackets.push(Bracket {
            piece: self.pieces.len(),
            behind: self.at + length,
            is_picture,
            is_dead: false,
        });
        self.text(length);
    }

    fn bracket_ends(&mut self, labels: &[String]) {
        let link = self.brackets.pop().filter(|bracket| !bracket.is_dead);
        let link = link.and_then(|bracket| Some((self.link_ends(&bracket, labels)?, bracket)));
        let Some(((address, end), bracket)) = link else {
            self.text(1);
            return;
        };
        if let Some(piece) = self.pieces.get_mut(bracket.piece) {
            *piece = Piece::Gap;
        }
        // The contents of a label stay as they were read, piece by piece.
        let inner = self.pieces.split_off(bracket.piece + 1);
        for piece in inner {
            self.pieces.extend([piece, Piece::Seam]);
        }
        self.pieces.push(Piece::Gap);
        self.pieces.push(Piece::Text(address));
        self.pieces.push(Piece::Gap);
        self.at = end;
        if !bracket.is_picture {
            for before in &mut self.brackets {
                before.is_dead |= !before.is_picture;
            }
        }
    }

    /// The address of a link and where the link ends, if this is the end of its label.
    fn link_ends(&self, bracket: &Bracket, labels: &[String]) -> Option<(String, usize)> {
        let behind = self.at + 1;
        if let Some((address, end)) = links::target(self.raw, behind, bracket.is_picture) {
            return Some((address, end));
        }
        let second = label(self.raw, behind);
        let end = second.map_or(behind, |(_, end)| end);
        let named = second.map(|(name, _)| name).filter(|name| !name.is_empty());
        let own = || self.raw.get(bracket.behind..self.at);
        let name = named.or_else(own)?;
        definition_of(name, labels).then_some((String::new(), end))
    }
}

/// The length of the code that begins here, or of the backticks that begin none.
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

/// The meaning of a reference after an ampersand, and its length.
fn reference(after: &str) -> Option<(String, usize)> {
    let (name, _) = after.split_once(';')?;
    let meant = match name {
        "commat" => '@',
        "amp" | "AMP" => '&',
        "lowbar" | "UnderBar" => '_',
        "period" => '.',
        "colon" => ':',
        "fjlig" => return Some(("fj".to_owned(), name.len() + 1)),
        _ => {
            let number = name.strip_prefix('#')?;
            let (digits, radix, most) = match number.strip_prefix(['x', 'X']) {
                Some(digits) => (digits, 16, 8),
                None => (number, 10, 8),
            };
            let good =
                (1..=most).contains(&digits.len()) && digits.chars().all(|c| c.is_digit(radix));
            let number = u32::from_str_radix(digits, radix).ok().filter(|_| good)?;
            char::from_u32(number)
                .filter(|c| *c != '\0')
                .unwrap_or('\u{fffd}')
        }
    };
    Some((meant.to_string(), name.len() + 1))
}
