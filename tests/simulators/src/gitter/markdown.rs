//! Markdown as Gitter's server rendered it: an old GitHub dialect with hard line breaks, escaped HTML, and its own
//! mentions, issues and bare links. The inline part is in `inline`.

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd, TextMergeStream, html};

use super::inline::{self, escape};

/// An issue mentioned in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Issue {
    pub(super) number: String,
    pub(super) repo: Option<String>,
}

/// A mention as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) screen_name: String,
    pub(super) group: bool,
}

/// A rendered text with the links, mentions and issues in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Rendered {
    pub(super) html: String,
    pub(super) urls: Vec<String>,
    pub(super) mentions: Vec<Named>,
    pub(super) issues: Vec<Issue>,
}

/// Stands for an escaped `#` until the text is rendered, so that it starts no issue.
pub(super) const ESCAPED_HASH: char = '\u{e000}';
/// Stands for a backslash that escapes nothing in this dialect.
pub(super) const LITERAL_BACKSLASH: char = '\u{e001}';

/// Renders a message.
pub(super) fn render(text: &str) -> Rendered {
    let prepared = prepare(text);
    let mut rendered = Rendered::default();
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH;
    let parser = TextMergeStream::new(Parser::new_ext(&prepared, options));
    let events = map_events(parser, &mut rendered);
    let mut out = String::new();
    html::push_html(&mut out, strip_lone_paragraph(events).into_iter());
    rendered.html = restore(out.trim_end());
    rendered
}

fn restore(html: &str) -> String {
    html.chars()
        .map(|letter| match letter {
            ESCAPED_HASH => '#',
            LITERAL_BACKSLASH => '\\',
            other => other,
        })
        .collect()
}

/// Rewrites this dialect's own rules into the common one's: `#x` is a heading, `\@`, `\$` and `\<` are no escapes, `\#`
/// must differ from `#`, and a single tilde is literal.
fn prepare(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut fence: Option<&str> = None;
    for line in text.split_inclusive('\n') {
        let bare = line.trim_start();
        let mark = ["```", "~~~"]
            .into_iter()
            .find(|mark| bare.starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            _ => {}
        }
        if fence.is_some() || mark.is_some() {
            out.push_str(line);
        } else {
            prepare_line(line, &mut out);
        }
    }
    out
}

fn prepare_line(line: &str, out: &mut String) {
    let hashes = line.bytes().take_while(|byte| *byte == b'#').count();
    let (head, rest) = line.split_at(hashes);
    out.push_str(head);
    let is_issue = rest.starts_with(|first: char| first.is_ascii_digit());
    if (1..=6).contains(&hashes)
        && !is_issue
        && rest.starts_with(|first: char| !first.is_whitespace())
    {
        out.push(' ');
    }
    // A code span keeps its backslashes; an escaped mark begins no code span.
    let (mut from, mut in_code, mut escaped) = (0, false, false);
    for (at, letter) in rest.char_indices() {
        if letter == '`' && !escaped {
            part_of_line(&rest[from..at], in_code, out);
            out.push('`');
            (from, in_code) = (at + 1, !in_code);
        }
        escaped = letter == '\\' && !escaped && !in_code;
    }
    part_of_line(&rest[from..], in_code, out);
}

fn part_of_line(part: &str, in_code: bool, out: &mut String) {
    if in_code {
        out.push_str(part);
    } else {
        prepare_escapes(part, out);
    }
}

fn prepare_escapes(part: &str, out: &mut String) {
    let mut letters = part.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, letters.peek()) {
            ('\\', Some('#')) => {
                letters.next();
                out.push(ESCAPED_HASH);
            }
            (
                '\\',
                Some(
                    '@' | '$' | '<' | '&' | '"' | '\'' | ',' | '/' | ':' | ';' | '=' | '?' | '^'
                    | '%',
                ),
            ) => {
                out.push(LITERAL_BACKSLASH);
            }
            ('\\', Some(next)) => {
                out.push('\\');
                out.push(*next);
                letters.next();
            }
            // A single tilde does not strike out.
            ('~', next) if next != Some(&'~') && !out.ends_with('~') => out.push_str("\\~"),
            _ => out.push(letter),
        }
    }
}

fn raw(html: String) -> Event<'static> {
    Event::InlineHtml(html.into())
}

/// Replaces what this dialect renders differently. Text inside links and images stays unchanged.
fn map_events<'a>(parser: impl Iterator<Item = Event<'a>>, found: &mut Rendered) -> Vec<Event<'a>> {
    let mut out = Vec::new();
    let mut inside = Inside::Text;
    let mut links = 0_usize;
    for event in parser {
        inside = match inside {
            Inside::Text => open(event, &mut links, found, &mut out),
            other => other.take(event, &mut out),
        };
    }
    out
}

/// What is collected completely before it is written.
enum Inside {
    Text,
    Code { language: String, source: String },
    Image { url: String, alt: String },
}

impl Inside {
    /// Adds an event to what is collected; its end event writes it.
    fn take(mut self, event: Event<'_>, out: &mut Vec<Event<'_>>) -> Self {
        match (&mut self, event) {
            (Self::Code { source, .. }, Event::Text(text)) => source.push_str(&text),
            (Self::Code { language, source }, _) => {
                out.push(Event::Html(code_block(language, source).into()));
                return Self::Text;
            }
            (Self::Image { alt, .. }, Event::Text(text) | Event::Code(text)) => alt.push_str(&text),
            (Self::Image { url, alt }, Event::End(TagEnd::Image)) => {
                let (url, alt) = (escape(url), escape(alt));
                out.push(raw(format!(
                    r#"<img src="{url}" alt="{alt}" rel="nofollow">"#
                )));
                return Self::Text;
            }
            _ => {}
        }
        self
    }
}

/// Writes an event, or begins to collect.
fn open<'a>(
    event: Event<'a>,
    links: &mut usize,
    found: &mut Rendered,
    out: &mut Vec<Event<'a>>,
) -> Inside {
    out.push(match event {
        Event::Start(Tag::CodeBlock(kind)) => {
            let language = match &kind {
                CodeBlockKind::Fenced(info) => info.split_whitespace().next().unwrap_or_default(),
                CodeBlockKind::Indented => "",
            };
            return Inside::Code {
                language: language.to_owned(),
                source: String::new(),
            };
        }
        Event::Start(Tag::Image { dest_url, .. }) => {
            return Inside::Image {
                url: inline::safe_url(&dest_url),
                alt: String::new(),
            };
        }
        Event::Start(Tag::Link { dest_url, .. }) => {
            *links += 1;
            raw(inline::link_open(&dest_url, found))
        }
        Event::End(TagEnd::Link) => {
            *links = links.saturating_sub(1);
            raw("</a>".to_owned())
        }
        Event::Text(text) if *links == 0 => raw(inline::render(&text, found)),
        Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => raw(escape(&text)),
        Event::SoftBreak | Event::HardBreak => raw("<br>".to_owned()),
        other => other,
    });
    Inside::Text
}

fn code_block(language: &str, source: &str) -> String {
    let class = if language.is_empty() {
        String::new()
    } else {
        format!(r#" class="{}""#, escape(language))
    };
    let source = source.strip_suffix('\n').unwrap_or(source);
    format!("<pre><code{class}>{}</code></pre>\n", highlight(source))
}

/// Enough highlighting to give code spans that a reader has to remove: numbers.
fn highlight(source: &str) -> String {
    let mut out = String::new();
    let mut rest = source;
    while let Some(start) = rest.find(|letter: char| letter.is_ascii_digit()) {
        let (before, tail) = rest.split_at(start);
        let end = tail
            .find(|letter: char| !letter.is_ascii_digit())
            .unwrap_or(tail.len());
        let (number, after) = tail.split_at(end);
        out.push_str(&escape(before));
        let in_word = before.ends_with(|letter: char| letter.is_alphanumeric() || letter == '_');
        if in_word {
            out.push_str(number);
        } else {
            out.push_str(r#"<span class="number">"#);
            out.push_str(number);
            out.push_str("</span>");
        }
        rest = after;
    }
    out.push_str(&escape(rest));
    out
}

/// A single paragraph has no `<p>`; of two or more, every one has.
fn strip_lone_paragraph(events: Vec<Event<'_>>) -> Vec<Event<'_>> {
    let count = events
        .iter()
        .filter(|event| matches!(event, Event::Start(Tag::Paragraph)))
        .count();
    if count != 1 {
        return events;
    }
    events
        .into_iter()
        .filter(|event| {
            !matches!(
                event,
                Event::Start(Tag::Paragraph) | Event::End(TagEnd::Paragraph)
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::render;

    const LINK: &str = r#"rel="nofollow noopener noreferrer" target="_blank""#;

    fn check(cases: &[(&str, &str)]) {
        for (text, html) in cases {
            assert_eq!(render(text).html, html.replace("LINK", LINK), "{text}");
        }
    }

    #[test]
    fn behaviour_13_blocks_render_as_the_service_did() {
        check(&[
            ("one paragraph", "one paragraph"),
            ("one\n\n\ntwo", "<p>one</p>\n<p>two</p>"),
            ("one\ntwo", "one<br>two"),
            ("# x", "<h1>x</h1>"),
            ("#x", "<h1>x</h1>"),
            ("x\n===", "<h1>x</h1>"),
            ("    code", "<pre><code>code</code></pre>"),
            (
                "```rust\nlet a = 12;\n```",
                "<pre><code class=\"rust\">let a = <span class=\"number\">12</span>;</code></pre>",
            ),
            ("~~~\n#x <b>\n~~~", "<pre><code>#x &lt;b&gt;</code></pre>"),
            ("> q\nlazy", "<blockquote>\nq<br>lazy</blockquote>"),
            ("---", "<hr />"),
        ]);
        assert!(render("- [ ] a\n- b").html.contains("<li>[ ] a</li>"));
        assert!(render("|a|b|\n|-|-|\n|1|2|").html.contains("<td>1</td>"));
    }

    #[test]
    fn behaviour_13_spans_render_as_the_service_did() {
        check(&[
            (
                "**b** _i_ *i* ~~s~~ `c`",
                "<strong>b</strong> <em>i</em> <em>i</em> <del>s</del> <code>c</code>",
            ),
            ("snake_case_name", "snake_case_name"),
            (
                "<b>x</b> <!-- y -->",
                "&lt;b&gt;x&lt;/b&gt; &lt;!-- y --&gt;",
            ),
            ("a &amp; b & c", "a &amp; b &amp; c"),
            (":smile: 🎉", ":smile: 🎉"),
            (
                "https://e.org/a_b_c.",
                "<a href=\"https://e.org/a_b_c\" LINK class=\"link \">https://e.org/a_b_c</a>.",
            ),
            (
                "[t](e.org \"title\")",
                "<a href=\"http://e.org\" LINK class=\"link link-tooltip\">t</a>",
            ),
            (
                "[t](javascript:alert(1))",
                "<a href=\"#\" LINK class=\"link link-tooltip\">t</a>",
            ),
            (
                "![a](https://e.org/i.png)",
                "<img src=\"https://e.org/i.png\" alt=\"a\" rel=\"nofollow\">",
            ),
            (
                "bob@example.com",
                "<a href=\"mailto:bob@example.com\" LINK class=\"link \">bob@example.com</a>",
            ),
        ]);
        assert!(render("$$x^2$$").html.starts_with("<span class=\"katex\">"));
    }

    #[test]
    fn behaviour_13_mentions_and_issues_are_found() {
        let mention = |name: &str| {
            format!(
                r#"<span data-link-type="mention" data-screen-name="{name}" class="mention">@{name}</span>"#
            )
        };
        assert_eq!(render("hi @bob!").html, format!("hi {}!", mention("bob")));
        // A Matrix id is not a mention of a Gitter user.
        assert_eq!(
            render("@alice:example.org").html,
            mention("alice:example.org")
        );
        let all = render("@/all");
        assert!(
            all.html
                .contains(r#"data-group-name="all" class="groupmention""#)
        );
        assert!(all.mentions[0].group && all.mentions[0].screen_name == "all");
        let issue = "<a target=\"_blank\" data-link-type=\"issue\" data-issue=\"12\" class=\"issue\">#12</a>";
        assert_eq!(render("#12").html, issue);
        assert_eq!(render("see #12.").html, format!("see {issue}."));
        let found = render(
            "org/repo#12 https://github.com/o/r/issues/5 https://gitlab.com/o/r/-/merge_requests/6",
        );
        let numbers: Vec<_> = found
            .issues
            .iter()
            .map(|issue| issue.number.as_str())
            .collect();
        assert_eq!(numbers, ["12", "5", "6"]);
        assert!(found.html.contains(">o/r#5</a>") && found.html.contains(">o/r#6</a>"));
        let commit = render("org/repo@0123456789abcdef");
        assert!(commit.html.contains(">org/repo@0123456</a>") && commit.mentions.is_empty());
    }

    #[test]
    fn behaviour_13_only_some_escapes_work() {
        check(&[
            (r"\*not\* \_it\_ \~ \> \| \.", "*not* _it_ ~ &gt; | ."),
            (r"\#12", "#12"),
            (r"`\#12`", r"<code>\#12</code>"),
            ("`@bob #12`", "<code>@bob #12</code>"),
            ("@\u{200b}bob", "@\u{200b}bob"),
        ]);
        assert_eq!(render(r"\@bob").mentions.len(), 1);
        assert!(render(r"\@bob").html.starts_with('\\'));
        assert!(render(r"\$$x$$").html.contains("katex"));
        assert_eq!(render(r"\<b>").html, r"\&lt;b&gt;");
    }
}
