//! Cuts an HTTP stream of lines into them: chunks end anywhere, also inside a character; whitespace keeps the
//! connection alive; a line may be garbage, or endless.

/// A line longer than this is left out, unless a stream is known to have longer ones. In bytes.
const LONGEST_LINE: usize = 1 << 20;

/// How much is kept of either end of a line that is too long, in bytes.
const EDGE: usize = 256 << 10;

/// What a piece of the stream held.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A line that is not blank.
    Text(Vec<u8>),
    /// A line was too long: how it begins and how it ends. What stands between was left out.
    TooLong {
        /// Its first bytes.
        head: Vec<u8>,
        /// Its last ones.
        tail: Vec<u8>,
    },
}

/// Collects the bytes of one stream.
pub struct Lines {
    begun: Vec<u8>,
    /// The end of a line that is too long, as far as it has come; `begun` is its head then.
    tail: Option<Vec<u8>>,
    longest: usize,
}

impl Default for Lines {
    fn default() -> Self {
        Self::of_at_most(LONGEST_LINE)
    }
}

impl Lines {
    /// For a stream whose lines have at most this many bytes.
    #[must_use]
    pub fn of_at_most(longest: usize) -> Self {
        Self {
            begun: Vec::new(),
            tail: None,
            longest,
        }
    }

    /// Takes the next bytes; answers the lines that they complete. Lines end with LF, CR or both.
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
        let edge = EDGE.min(self.longest);
        if let Some(tail) = &mut self.tail {
            keep(tail, bytes, edge);
            return;
        }
        // Blanks before a line are keep-alives: a stream of them without end must not pile up.
        let bytes = if self.begun.is_empty() {
            bytes.trim_ascii_start()
        } else {
            bytes
        };
        if self.begun.len() + bytes.len() <= self.longest {
            self.begun.extend_from_slice(bytes);
            return;
        }
        let missing = edge.saturating_sub(self.begun.len()).min(bytes.len());
        let (head, rest) = bytes.split_at(missing);
        self.begun.extend_from_slice(head);
        let mut tail = Vec::new();
        keep(&mut tail, self.begun.get(edge..).unwrap_or_default(), edge);
        keep(&mut tail, rest, edge);
        self.begun.truncate(edge);
        self.begun.shrink_to_fit();
        self.tail = Some(tail);
    }

    fn finish(&mut self) -> Option<Line> {
        let begun = std::mem::take(&mut self.begun);
        match self.tail.take() {
            Some(tail) => Some(Line::TooLong { head: begun, tail }),
            None => (!begun.is_empty()).then_some(Line::Text(begun)),
        }
    }
}

/// Goes on with an end, of which `most` bytes are kept.
fn keep(tail: &mut Vec<u8>, bytes: &[u8], most: usize) {
    let newest = bytes.len().saturating_sub(most);
    tail.extend_from_slice(bytes.get(newest..).unwrap_or_default());
    tail.drain(..tail.len().saturating_sub(most));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: Vec<Line>) -> Vec<String> {
        lines
            .into_iter()
            .map(|line| match line {
                Line::Text(bytes) => String::from_utf8(bytes).unwrap(),
                Line::TooLong { .. } => "too long".to_owned(),
            })
            .collect()
    }

    #[test]
    fn lines_are_the_same_however_the_stream_is_cut() {
        let stream =
            " \n{\"a\":\"grün 🦆\"}\r\n \r\n\n{\"b\":1}\r \n{\"c\":2}\n{\"unfinished\"".as_bytes();
        for size in 1..=stream.len() {
            let mut lines = Lines::default();
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
        let mut lines = Lines::default();
        for _ in 0..200 {
            assert!(lines.take(&[b'x'; 10_000]).is_empty());
            assert!(lines.begun.capacity() <= 2 * LONGEST_LINE);
        }
        assert_eq!(texts(lines.take(b"\n{}\n")), ["too long", "{}"]);
    }

    #[test]
    fn both_ends_of_a_line_that_is_too_long_are_kept() {
        let line: Vec<u8> = (0..200_u8).map(|number| b'a' + number % 26).collect();
        let stream = [&line[..], b"\nnext\n"].concat();
        for size in 1..=stream.len() {
            let mut lines = Lines::of_at_most(30);
            let pieces = stream.chunks(size);
            let found: Vec<Line> = pieces.flat_map(|chunk| lines.take(chunk)).collect();
            let (head, tail) = (line[..30].to_vec(), line[170..].to_vec());
            let expected = [Line::TooLong { head, tail }, Line::Text(b"next".to_vec())];
            assert_eq!(found, expected, "pieces of {size}");
        }
    }

    #[test]
    fn keep_alives_take_no_memory() {
        let mut lines = Lines::default();
        for _ in 0..100_000 {
            assert!(lines.take(b" \n").is_empty());
            assert!(lines.take(b" ").is_empty());
        }
        assert_eq!(lines.begun.len(), 0);
    }
}
