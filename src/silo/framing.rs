//! Splits an HTTP stream into its lines: chunks end anywhere, also inside a character; whitespace is a keep-alive; a
//! line may be invalid or endless.

/// A longer line is dropped, unless the stream is known to have longer ones. In bytes.
const MAX_LINE: usize = 1 << 20;

/// The longest string, in bytes, that is kept of a line that is too long.
const MAX_STRING: usize = 256 << 10;
/// Replaces a longer string: it is no base64, and nobody writes it.
pub const CUT: &str = "\u{10fffd}cut out\u{10fffd}";

/// What a part of the stream contained.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A line that is not blank.
    Text(Vec<u8>),
    /// A line of JSON was too long: the line with [`CUT`] instead of each string of more than 256 KiB. The rest is
    /// complete.
    Shortened(Vec<u8>),
    /// A line was too long even without its long strings. It was dropped.
    TooLong,
}

/// Collects the bytes of one stream.
pub struct LineFramer {
    begun: Vec<u8>,
    /// The line without its long strings, once the line is too long; `begun` is empty then.
    shortened: Option<Shortened>,
    longest: usize,
}

impl Default for LineFramer {
    fn default() -> Self {
        Self::with_limit(MAX_LINE)
    }
}

impl LineFramer {
    /// For a stream whose lines have at most this many bytes.
    #[must_use]
    pub fn with_limit(longest: usize) -> Self {
        Self {
            begun: Vec::new(),
            shortened: None,
            longest,
        }
    }

    /// Takes the next bytes and returns the lines that they complete. Lines end with LF, CR or both.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            self.collect(line);
            lines.extend(self.finish());
        }
        self.collect(rest);
        lines
    }

    fn collect(&mut self, bytes: &[u8]) {
        if let Some(shortened) = &mut self.shortened {
            shortened.take(bytes);
            return;
        }
        // Whitespace before a line is a keep-alive: an endless run of it must not use memory.
        let bytes = if self.begun.is_empty() {
            bytes.trim_ascii_start()
        } else {
            bytes
        };
        if self.begun.len() + bytes.len() <= self.longest {
            self.begun.extend_from_slice(bytes);
            return;
        }
        let mut shortened = Shortened::with_limit(self.longest);
        shortened.take(&std::mem::take(&mut self.begun));
        shortened.take(bytes);
        self.shortened = Some(shortened);
    }

    fn finish(&mut self) -> Option<Line> {
        let begun = std::mem::take(&mut self.begun);
        match self.shortened.take() {
            Some(shortened) if shortened.is_too_long => Some(Line::TooLong),
            Some(shortened) => Some(Line::Shortened(shortened.kept)),
            None => (!begun.is_empty()).then_some(Line::Text(begun)),
        }
    }
}

/// A line of JSON without its long strings. The result does not depend on how the line is split into chunks.
struct Shortened {
    kept: Vec<u8>,
    /// Where in `kept` the content of the current string begins.
    string: Option<usize>,
    /// Whether the next character of the string follows a backslash.
    is_escaped: bool,
    /// Whether the string is too long.
    is_cut: bool,
    longest: usize,
    /// Whether `kept` is too long as well.
    is_too_long: bool,
}

impl Shortened {
    fn with_limit(longest: usize) -> Self {
        Self {
            kept: Vec::new(),
            string: None,
            is_escaped: false,
            is_cut: false,
            longest,
            is_too_long: false,
        }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.is_too_long {
            let taken = match self.string {
                None => self.outside(bytes),
                Some(start) => self.inside(start, bytes),
            };
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    /// Reads bytes outside of strings; returns how many.
    fn outside(&mut self, bytes: &[u8]) -> usize {
        let quote = bytes.iter().position(|byte| *byte == b'"');
        let end = quote.map_or(bytes.len(), |at| at + 1);
        self.kept
            .extend_from_slice(bytes.get(..end).unwrap_or_default());
        if quote.is_some() {
            self.string = Some(self.kept.len());
        }
        self.limit();
        end
    }

    /// Reads bytes of the string that began at `start`; returns how many.
    fn inside(&mut self, start: usize, bytes: &[u8]) -> usize {
        let (end, closes) = if std::mem::take(&mut self.is_escaped) {
            (1, false)
        } else {
            let mark = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\'));
            let closes = mark.is_some_and(|at| bytes.get(at) == Some(&b'"'));
            self.is_escaped = mark.is_some() && !closes;
            (mark.map_or(bytes.len(), |at| at + 1), closes)
        };
        let read = bytes.get(..end - usize::from(closes)).unwrap_or_default();
        let length = self.kept.len() - start + read.len();
        if !self.is_cut && length <= MAX_STRING.min(self.longest) {
            self.kept.extend_from_slice(read);
        } else if !self.is_cut {
            self.is_cut = true;
            self.kept.truncate(start);
        }
        if closes {
            if std::mem::take(&mut self.is_cut) {
                self.kept.extend_from_slice(CUT.as_bytes());
            }
            self.kept.push(b'"');
            self.string = None;
            self.limit();
        }
        end
    }

    /// Checked only outside of strings, so that the result does not depend on the chunks.
    fn limit(&mut self) {
        if self.kept.len() > self.longest {
            self.is_too_long = true;
            self.kept = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: Vec<Line>) -> Vec<String> {
        lines
            .into_iter()
            .map(|line| match line {
                Line::Text(bytes) => String::from_utf8(bytes).unwrap(),
                Line::Shortened(_) => "shortened".to_owned(),
                Line::TooLong => "too long".to_owned(),
            })
            .collect()
    }

    #[test]
    fn lines_are_the_same_however_the_stream_is_cut() {
        let stream =
            " \n{\"a\":\"grün 🦆\"}\r\n \r\n\n{\"b\":1}\r \n{\"c\":2}\n{\"unfinished\"".as_bytes();
        for size in 1..=stream.len() {
            let mut lines = LineFramer::default();
            let found: Vec<String> = stream
                .chunks(size)
                .flat_map(|chunk| texts(lines.take(chunk)))
                .collect();
            assert_eq!(
                found,
                ["{\"a\":\"grün 🦆\"}", "{\"b\":1}", "{\"c\":2}"],
                "pieces of {size}"
            );
        }
    }

    #[test]
    fn c15_an_endless_line_is_left_out_and_the_next_one_is_not() {
        let mut lines = LineFramer::default();
        for _ in 0..200 {
            assert!(lines.take(&[b'x'; 10_000]).is_empty());
            let shortened = lines.shortened.iter();
            let kept: usize = shortened.map(|line| line.kept.capacity()).sum();
            assert!(lines.begun.capacity() + kept <= 3 * MAX_LINE);
        }
        assert_eq!(texts(lines.take(b"\n{}\n")), ["too long", "{}"]);
    }

    #[test]
    fn a_line_that_is_too_long_loses_its_long_strings_and_nothing_else() {
        let long = "x".repeat(80);
        for (line, kept) in [
            (
                format!(r#"{{"a\"b":"{long}","c":["\\","{long}\"",1]}}"#),
                Some(r#"{"a\"b":"…","c":["\\","…",1]}"#.replace('…', CUT)),
            ),
            // Without a long string.
            (r#"["a",1],"#.repeat(12), None),
            (long.clone(), None),
            (format!("[\"{long}"), Some("[\"".to_owned())),
        ] {
            let kept = kept.map_or(Line::TooLong, |kept| Line::Shortened(kept.into_bytes()));
            let stream = format!("{line}\nnext\n");
            for size in 1..=stream.len() {
                let mut lines = LineFramer::with_limit(60);
                let pieces = stream.as_bytes().chunks(size);
                let found: Vec<Line> = pieces.flat_map(|chunk| lines.take(chunk)).collect();
                assert_eq!(found.len(), 2, "{line} in pieces of {size}");
                assert_eq!(found[0], kept, "{line} in pieces of {size}");
                assert_eq!(found[1], Line::Text(b"next".to_vec()));
            }
        }
    }

    #[test]
    fn keep_alives_take_no_memory() {
        let mut lines = LineFramer::default();
        for _ in 0..100_000 {
            assert!(lines.take(b" \n").is_empty());
            assert!(lines.take(b" ").is_empty());
        }
        assert_eq!(lines.begun.len(), 0);
    }
}
