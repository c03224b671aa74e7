//! Whom a text mentions in Mattermost: the grammar of its server (version 11: `shared/markdown`, and the standard
//! parser of mentions in `app`), reimplemented from its behaviour, independently of the bridge's writer. Where the
//! server could read a text in more than one way, the reading with a mention counts.

mod blocks;
mod inlines;

use blocks::Paragraphs;

/// The relevant differences between the versions of the server.
struct Version {
    /// How deep blocks may be nested. Older versions have no limit; no text of the bridge reaches the number used here.
    deepest: usize,
    /// What may precede an address without a scheme, besides white space.
    before_www: &'static [u8],
    /// What ends an address, besides white space.
    ends: &'static [char],
    /// Whether a character that is neither ASCII nor a letter nor a number may begin a host name: the server decides by
    /// its Unicode tables.
    symbols_are_hosts: bool,
}

const VERSIONS: [Version; 4] = [
    Version::older(false),
    Version::older(true),
    Version::newer(false),
    Version::newer(true),
];

impl Version {
    const fn older(symbols_are_hosts: bool) -> Self {
        Self {
            deepest: 1_000,
            before_www: b"*_~)",
            ends: &['<'],
            symbols_are_hosts,
        }
    }

    const fn newer(symbols_are_hosts: bool) -> Self {
        Self {
            deepest: 32,
            before_www: b"*_~)<(>",
            ends: &['<', '>'],
            symbols_are_hosts,
        }
    }
}

/// The characters of a word that may mention somebody.
fn in_word(c: char) -> bool {
    matches!(c, ':' | '.' | '-' | '_' | '@') || c.is_alphabetic() || c.is_numeric()
}

/// Whether the text mentions somebody: everybody in the channel, a group or a person of any name.
#[must_use]
pub fn calls(markdown: &str) -> bool {
    VERSIONS.iter().any(|version| {
        let paragraphs = Paragraphs::of(markdown, version.deepest);
        let texts = paragraphs.texts.iter();
        let mut runs = texts.flat_map(|text| inlines::runs(text, &paragraphs.labels, version));
        runs.any(|run| run_calls(&run))
    })
}

/// The server's parser of mentions.
fn run_calls(run: &str) -> bool {
    run.split(|c| !in_word(c)).any(|word| {
        if word.starts_with(':') && word.ends_with(':') {
            // Probably an emoji.
            return false;
        }
        let word = word.trim_start_matches([':', '.', '-', '_']);
        // If it does not find the whole word, it looks for its parts.
        is_call(word) || word.split(['.', '-', ':']).any(is_call)
    })
}

fn is_call(word: &str) -> bool {
    word.strip_prefix('@')
        .is_some_and(|name| name.contains(|c: char| c.is_alphabetic() || c.is_numeric()))
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
            "1. ```\n a\n\n @all",
            // An address includes the backtick.
            "www.a`x @all y`",
            "**Ann**: www1.a/`x @all y`",
            "<www.a`x @all y`",
            "ftp://a\u{3000}`x @all y`",
            "gemini://a[`x @all y`",
            // In a paragraph no item begins with another number than 1, or with only a blank after the mark.
            "x\n5. ```\na\n\n@all\n```",
            "- x\n  5. ```\n     a\n\n     @all\n     ```",
            "1234567890. ```\n            a\n\n@all",
            // Nor does one that is nested too deep.
            &format!(
                "{}- x\n{}- ```\n{}a\n\n{0}@all",
                "- ".repeat(15),
                " ".repeat(30),
                " ".repeat(32)
            ),
            // A fence that is indented by four columns does not end the code, and text in front of a fence prevents it.
            "```\n    ```\n```\n@all\n```",
            "(delayed) ```\na\n\n@all\n```",
            "~~~\n```\n~~~\n@all",
            ":a:@all:",
            // In a label some letters are read one by one.
            "[www@all](x)",
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
            "www.a/@all",
            "(www.a/@all)",
            "www.a `x @all y`",
            "xxwww.a`x @all y`",
            "www.a_b`x @all y`",
            "http://_`x @all y`",
            "x\n1. ```\n   a\n\n   @all\n   ```",
            "- x\n\n  5. ```\n     a\n\n     @all\n     ```",
            "> - ```\n>   a\n>\n>   @all\n>   ```",
            "x\n\n    @all",
            "[a]: @all\n",
        ] {
            assert!(!calls(text), "{text:?}");
        }
    }
}
