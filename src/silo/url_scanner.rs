//! Whether a text ends within a web address, where a character may be percent-encoded.

/// Scans a text that grows: it reads each character once, however often it is asked.
#[derive(Default)]
pub struct UrlScanner {
    /// How many bytes were read.
    read: usize,
    /// Whether the present word contains an address.
    has_host: bool,
    /// Whether the host of the address has ended.
    in_path: bool,
}

impl UrlScanner {
    /// Whether the text, which only grows between calls, ends in an address behind its host: `https://a.b/…`,
    /// `ftp://a.b/…`, `www.a.b/…`. Any scheme counts, as apps make links of many.
    pub fn ends_in_url(&mut self, text: &str) -> bool {
        if text.get(self.read..).is_none() {
            // The text became shorter.
            *self = Self::default();
        }
        let from = self.read;
        for (at, c) in text.get(from..).unwrap_or_default().char_indices() {
            self.step(text.get(..from + at).unwrap_or_default(), c);
        }
        self.read = text.len();
        self.in_path
    }

    fn step(&mut self, before: &str, c: char) {
        if c.is_whitespace() || matches!(c, '<' | '>') {
            self.has_host = false;
            self.in_path = false;
        } else if self.has_host {
            self.in_path |= c == '/';
        } else if begins_host(before, c) {
            self.has_host = true;
        }
    }
}

/// Whether a host follows.
fn begins_host(before: &str, c: char) -> bool {
    match c {
        '/' => before
            .strip_suffix(":/")
            .is_some_and(|scheme| scheme.ends_with(|c: char| c.is_ascii_alphanumeric())),
        '.' => {
            let www = before.trim_end_matches(|c: char| c.is_ascii_digit());
            let start = www.len().checked_sub(3).and_then(|start| www.get(start..));
            start.is_some_and(|word| word.eq_ignore_ascii_case("www"))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_path_behind_its_host() {
        for (text, has_path) in [
            ("https://a.b/", true),
            ("see:HTTP://a.b/c", true),
            ("ftp://a.b/c d", false),
            ("(www.a.b/c", true),
            ("WWW2.a.b/", true),
            ("www.a.b", false),
            ("wwx.a.b/", false),
            ("https://a.b", false),
            ("a/b ://a/b", false),
            ("<https://a.b/c>", false),
            ("é://a/b", false),
            ("a.b/c", false),
        ] {
            assert_eq!(UrlScanner::default().ends_in_url(text), has_path, "{text}");
            // Asked at each character.
            let mut address = UrlScanner::default();
            let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
            let last = ends.map(|end| address.ends_in_url(&text[..end])).last();
            assert_eq!(last, Some(has_path), "{text}");
        }
        let mut address = UrlScanner::default();
        assert!(address.ends_in_url("https://a.b/c"));
        assert!(!address.ends_in_url("x"));
        assert!(address.ends_in_url("x http://a.b/"));
    }
}
