//! Cuts an HTTP stream of lines into them: chunks end anywhere, also inside a character; whitespace keeps the
//! connection alive; a line may be garbage, or endless.

/// A line longer than this is left out, unless a stream is known to have longer ones. In bytes.
const LONGEST_LINE: usize = 1 << 20;

/// What a piece of the stream held.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A line that is not blank.
    Text(Vec<u8>),
    /// A line was too long; all of it was left out.
    TooLong,
}

/// Collects the bytes of one stream.
pub struct Lines {
    begun: Vec<u8>,
    skipping: bool,
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
            skipping: false,
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
        if self.skipping {
            return;
        }
        // Blanks before a line are keep-alives: a stream of them without end must not pile up.
        let bytes = if self.begun.is_empty() {
            bytes.trim_ascii_start()
        } else {
            bytes
        };
        if self.begun.len() + bytes.len() > self.longest {
            self.begun = Vec::new();
            self.skipping = true;
        } else {
            self.begun.extend_from_slice(bytes);
        }
    }

    fn finish(&mut self) -> Option<Line> {
        if std::mem::take(&mut self.skipping) {
            return Some(Line::TooLong);
        }
        (!self.begun.is_empty()).then(|| Line::Text(std::mem::take(&mut self.begun)))
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
                Line::TooLong => "too long".to_owned(),
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
    fn keep_alives_take_no_memory() {
        let mut lines = Lines::default();
        for _ in 0..100_000 {
            assert!(lines.take(b" \n").is_empty());
            assert!(lines.take(b" ").is_empty());
        }
        assert_eq!(lines.begun.len(), 0);
    }
}
