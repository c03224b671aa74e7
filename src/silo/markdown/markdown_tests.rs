//! How Gitter's messages are converted, and that nothing that the bridge writes there mentions anybody.

use footbridge_core::text::html::{Dialect, body_from_html};

use crate::reference::gitter::calls as pings;
use proptest::prelude::*;

use super::*;

const RULES: Rules = crate::gitter::MARKDOWN;

fn markdown(plain: &str) -> String {
    markdown_from_body(&Body::plain(plain), RULES)
}

fn from_matrix(html: &str) -> String {
    markdown_from_body(&body_from_html(html, Dialect::Matrix), RULES)
}

/// C01, C02: all known attempts to mention everybody.
const CALLS: [&str; 66] = [
    "@all",
    "@ALL",
    "@/all",
    "@/ALL",
    "@/everyone",
    "@here",
    "@channel",
    "@everyone",
    "@room",
    "@group",
    "@alice",
    "@alice:example.org",
    "@Alice_B",
    "@-all",
    "@.all",
    "@:all",
    "@[all]",
    "@]all",
    "@@all",
    "@@@all",
    "@/@/all",
    "@/all/",
    "@_all_",
    "@a",
    "@0",
    "(@all)",
    "[@all]",
    "[@all](x)",
    "[x](@all)",
    "*@all*",
    "**@all**",
    "_@all_",
    "~~@all~~",
    "\\@all",
    "\\\\@all",
    "`@all",
    "@`all`",
    "``@all`",
    "$$@all$$",
    "<@all>",
    "<!@all>",
    "<!channel>",
    "<@U123>",
    "<b>@all</b>",
    "<a href=\"@all\">@all</a>",
    "<!-- @all -->",
    "&#64;all",
    "&#x40;all",
    "&commat;all",
    "&amp;#64;all",
    "#1@all",
    "a/b#1@all",
    "a/b@abcdef1@all",
    "a/b@all",
    "é@all",
    "!@all",
    "![@all](@all)",
    "> @all",
    "- @all",
    "1. @all",
    "# @all",
    "| @all |\n|---|\n| @all |",
    "    @all",
    "\t@all",
    "x\n@all",
    "bob@example.com@all",
];

#[test]
fn names_of_emoji_stay_text_by_each_silos_own_list() {
    for (rules, text, expected) in [
        (
            crate::gitter::MARKDOWN,
            ":shipit: :satellite: :thinking_face: :thinking:",
            ":\u{200b}shipit: :\u{200b}satellite: :thinking_face: :thinking:",
        ),
        (
            crate::mattermost::MARKDOWN,
            ":shipit: :satellite: :thinking_face: :thinking: :+1_dark_skin_tone: :blobcat:",
            ":shipit: :\u{200b}satellite: :\u{200b}thinking_face: :\u{200b}thinking: :\u{200b}+1_dark_skin_tone: :blobcat:",
        ),
    ] {
        assert_eq!(markdown_from_body(&Body::plain(text), rules), expected);
    }
}

#[test]
fn an_address_of_any_scheme_still_leads_there_in_mattermost() {
    for (text, expected) in [
        ("www.x.example/a:x:b", "www.x.example/a%3Ax:b"),
        (
            "ftp://h.example/a:Smile:b :x:",
            "ftp://h.example/a%3ASmile:b :\u{200b}x:",
        ),
        ("www.x.example:x:/", "www.x.example:\u{200b}x:/"),
        ("https://x.example/a:x:b", "https://x.example/a:x:b"),
    ] {
        let written = markdown_from_body(&Body::plain(text), crate::mattermost::MARKDOWN);
        assert_eq!(written, expected);
    }
    // Far longer than any message: scanning it once per name would take minutes.
    let long = format!("ftp://a/{}", ":x".repeat(60_000));
    let written = markdown_from_body(&Body::plain(&long), crate::mattermost::MARKDOWN);
    assert_eq!(written.matches("%3A").count(), 59_999);
}

/// Each of these once mentioned somebody, by the parser that Gitter's server used.
#[test]
fn c02_code_stays_code_in_gitter() {
    for (html, expected) in [
        (
            "<ul><li><ul><li>x</li></ul><pre><code>a\n\n@all</code></pre></li></ul>",
            "- - x\n  \n  ```\n  a\n  \n  @all\n  ```",
        ),
        (
            "<ul><li><blockquote>x</blockquote><pre><code>a\n\n@all</code></pre></li></ul>",
            "- > x\n  \n  ```\n  a\n  \n  @all\n  ```",
        ),
        (
            "<ul><li><pre><code>a\n\n\n@all</code></pre></li></ul>",
            "- ```\n  a\n  \n  \u{200b}\n  @all\n  ```",
        ),
        (
            "<ul><li>a<hr></li><li><pre><code>a\n\n@all</code></pre></li></ul>",
            "- a\n  \\-\\-\\-\n- ```\n  a\n  \n  @all\n  ```",
        ),
        (
            "<ul><li><blockquote>x</blockquote></li><li>y</li></ul>",
            "- > x\n\n- y",
        ),
        (
            "<del><code>@all</code></del> <code>x @all</code>",
            "~~\u{200b}`@all`~~ `x @all`",
        ),
        (
            "x<del> <code>a@all</code></del> <code>x @all</code>",
            "x ~~\u{200b}`a@all`~~ `x @all`",
        ),
        (
            "'<code>@all</code>' <code>x @all</code>",
            "'\u{200b}`@all`' `x @all`",
        ),
        (
            "<table><tr><td>|`a</td><td><code>@all</code></td></tr></table>",
            "| &vert;\\`a | `@all` |\n| --- | --- |",
        ),
    ] {
        assert_eq!(from_matrix(html), expected, "{html}");
    }
}

#[test]
fn c01_no_spelling_mentions_anybody() {
    for call in CALLS {
        for text in [
            call.to_owned(),
            format!("hey {call} you"),
            call.replace("all", "alice"),
        ] {
            let body = Body::plain(&text);
            for style in [Style::Text, Style::Emote, Style::Notice] {
                let said = attributed("@all", &body, style, RULES);
                assert!(!pings(&said), "{text:?} became {said:?}");
            }
            let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
            for html in [
                &text,
                &escaped,
                &text.replace('@', "&#x40;"),
                &text.replace('@', "&commat;"),
            ] {
                for wrapped in [
                    html.clone(),
                    format!("<b>@</b>{html}"),
                    format!("<ul><li>{html}</li></ul>"),
                    format!("<table><tr><td>{html}</td></tr></table>"),
                    format!("<a href=\"https://x.example/\">{html}</a>"),
                    format!("<a href=\"https://x.example/\">{html} @ </a>x"),
                    format!("@<i>{html}</i>"),
                ] {
                    let said = from_matrix(&wrapped);
                    assert!(!pings(&said), "{wrapped:?} became {said:?}");
                }
            }
        }
    }
}

#[test]
fn the_ping_check_itself_sees_pings() {
    for call in [
        "@all",
        "x @/all",
        "(@a:b.c)",
        "é@x",
        "**@all**",
        "\\@all",
        "@[x]",
        "https://medium.com/@al",
        "[x](https://medium.com/@al)",
    ] {
        assert!(pings(call), "{call}");
    }
    for harmless in ["@\u{200b}all", "`@all`", "bob@example.com", "@ home"] {
        assert!(!pings(harmless), "{harmless}");
    }
}

#[test]
fn c05_plain_text_shows_as_it_was_written() {
    // C05: Gitter's own renderer shows the right-hand sides as the left-hand sides.
    let table = [
        ("hello", "hello"),
        ("a *b* _c_ `d`", "a \\*b\\* \\_c\\_ \\`d\\`"),
        ("snake_case stays", "snake_case stays"),
        ("see #12 and org/repo#12", "see \\#12 and org/repo\\#12"),
        ("#tag", "\\#tag"),
        ("# not a heading", "\\# not a heading"),
        ("> no quote", "\\> no quote"),
        ("- no item\n+ no item", "\\- no item\n\\+ no item"),
        ("-5 degrees", "-5 degrees"),
        ("1. no item", "1\\. no item"),
        ("1.5 litres", "1.5 litres"),
        ("a\n===", "a\n\u{200b}==="),
        ("a\n---", "a\n\\---"),
        ("    no code", "\u{2002}\u{2002}\u{2002}\u{2002}no code"),
        ("[a](http://b)", "\\[a]\\(http://b)"),
        ("a < b <c> <!-- d -->", "a < b &lt;c> &lt;!-- d -->"),
        ("I <3 it >", "I &lt;3 it >"),
        ("x<=[a@all>", "x&lt;=\\[a@\u{200b}all>"),
        ("http://\\ http://*x", "http:\u{200b}//\\\\ http://%2Ax"),
        ("&amp; & &copy;", "&amp;amp; & &amp;copy;"),
        ("$$x$$", "$\u{200b}$x$\u{200b}$"),
        ("~~x~~ ~5", "\\~\\~x\\~\\~ ~5"),
        ("C:\\dir\\", "C:\\dir\\\\"),
        ("\\\\server\\share", "\\\\\\server\\share"),
        ("\\d+ \\* \\: \\_x", "\\d+ \\\\\\* \\\\: \\\\_x"),
        ("bob@example.com", "bob@example.com"),
        ("@alice", "@\u{200b}alice"),
        (
            "https://x.example/a_b?c=d&e=*#f_",
            "https://x.example/a_b?c=d&e=%2A#f_",
        ),
        ("(https://x.example/a_b).", "(https://x.example/a_b)."),
        ("https://medium.com/@alice_", "https://medium.com/%40alice_"),
        ("https://@/all x", "https:\u{200b}//@\u{200b}/all x"),
        (
            "http://al@x.example/@b",
            "http:\u{200b}//al@\u{200b}x.example/@\u{200b}b",
        ),
        ("🚀 :rocket: 12:30:45", "🚀 :\u{200b}rocket: 12:30:45"),
        // C27
        ("/me waves", "\u{200b}/me waves"),
        ("//comment", "\u{200b}//comment"),
    ];
    for (plain, expected) in table {
        assert_eq!(markdown(plain), expected, "{plain:?}");
    }
}

#[test]
fn formatting_is_relayed_to_gitter() {
    let table = [
        (
            "<b>a</b> <i>b</i> <del>c</del> <code>d*</code>",
            "**a** *b* ~~c~~ `d*`",
        ),
        ("<b>a</b><i>b</i>", "**a**\u{200b}*b*"),
        ("<i><b>a</b> b</i>", "*\u{200b}**a** b*"),
        ("<i>a*b</i>", "*a&ast;b*"),
        ("<b>x <code>a**b</code></b>", "x `a**b`"),
        ("<code>a`b</code>", "``a`b``"),
        ("<code>`</code>", "`` ` ``"),
        ("<p>a</p><p>b</p>", "a\n\nb"),
        ("a<br>b", "a\nb"),
        ("<h2>C#</h2>", "## C\\#\u{200b}"),
        ("<blockquote><p>a</p><p>b</p></blockquote>", "> a\n> \n> b"),
        (
            "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>",
            "- a\n- b\n  - c",
        ),
        ("<ol start=\"3\"><li>a</li><li>b</li></ol>", "3. a\n4. b"),
        (
            "<pre><code class=\"language-Rust\">let x = 1;\n</code></pre>",
            "```rust\nlet x = 1;\n```",
        ),
        ("<pre><code>a\n```\nb</code></pre>", "````\na\n```\nb\n````"),
        (
            "<a href=\"https://x.example/(a)\">b</a>",
            "[b](https://x.example/%28a%29)",
        ),
        (
            "<a href=\"https://x.example/a\">https://x.example/a</a>",
            "https://x.example/a",
        ),
        (
            "<a href=\"https://x.example/\">[b]</a>",
            "[&lsqb;b&rsqb;](https://x.example/)",
        ),
        (
            "wow!<a href=\"https://x.example/\">b</a>",
            "wow\\![b](https://x.example/)",
        ),
        (
            "<a href=\"mailto:a@b.example\">write</a>",
            "write (a@b.example)",
        ),
        ("<a href=\"javascript:alert(1)\">b</a>", "b"),
        (
            "<a href=\"https://matrix.to/#/@al:b.example\">Al</a>: hi",
            "@\u{200b}Al: hi",
        ),
        ("<span data-mx-spoiler>boo</span>", "(spoiler) boo"),
        (
            "<table><tr><th>a</th><th>b|c</th></tr><tr><td>1</td></tr></table>",
            "| a | b&vert;c |\n| --- | --- |\n| 1 |  |",
        ),
        ("a<hr>b", "a\n\n---\n\nb"),
        // C06
        (
            "<a href=\"https://evil.example/\">bank.example</a>",
            "[bank.example](https://evil.example/) (https://evil.example/)",
        ),
    ];
    for (html, expected) in table {
        assert_eq!(from_matrix(html), expected, "{html:?}");
    }
}

#[test]
fn a_bare_url_does_not_swallow_what_follows() {
    assert_eq!(
        from_matrix("https://x.example/<b>now</b>"),
        "https://x.example/ **now**"
    );
    assert_eq!(markdown("<http://x.example>"), "&lt;http://x.example >");
}

#[test]
fn names_contain_no_markup_and_no_line_breaks() {
    // C08, C10
    let table = [
        ("Alice", "**Alice**: "),
        ("*A*_b_`c`", "**\\*A\\*\\_b\\_\\`c\\`**: "),
        ("@all", "**@\u{200b}all**: "),
        ("x\n# y", "**x # y**: "),
        ("http://x.example", "**http:\u{200b}//x\\.example**: "),
        ("[a](b)", "**\\[a]\\(b)**: "),
        ("a/b#12", "**a/b\\#12**: "),
        ("\u{202e}evil\u{200b}", "**evil**: "),
        ("\u{200b}", "**someone**: "),
    ];
    for (name, expected) in table {
        assert_eq!(sender_prefix(name, RULES), expected, "{name:?}");
    }
}

#[test]
fn a_message_follows_the_name_of_its_author() {
    let said = |plain: &str, style| attributed("Al", &Body::plain(plain), style, RULES);
    assert_eq!(said("hi", Style::Text), "**Al**: hi");
    assert_eq!(said("waves", Style::Emote), "\\* **Al** waves");
    assert_eq!(said("beep", Style::Notice), "**Al**: beep");
    let code = body_from_html("<pre><code>x</code></pre>", Dialect::Matrix);
    assert_eq!(
        attributed("Al", &code, Style::Text, RULES),
        "**Al**:\n\n```\nx\n```"
    );
}

/// Text made of problematic pieces.
fn hurtful() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(CALLS.to_vec()).prop_map(str::to_owned),
        prop::sample::select(vec![
            "@",
            "*",
            "**",
            "_",
            "~~",
            "`",
            "```",
            "$$",
            "\\",
            "[",
            "](",
            ")",
            "<",
            ">",
            "<a ",
            "<!--",
            "&",
            ";",
            "#1",
            "\n",
            "\n\n",
            " ",
            "    ",
            "|",
            "---",
            "https://x.example/@al",
            "http://",
            "HTTP://y.example/@b",
            "bob@example.com",
            "word",
            "é",
            "😀",
            "\u{200d}",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,6}",
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

#[test]
fn code_after_an_address_stays_code() {
    let html = "<a href='https://x.example'>https://x.example/<code>x&lt;@all></code></a>";
    assert!(!pings(&from_matrix(html)), "{}", from_matrix(html));
    let marked = "https://x.example\"x<i><code>b/@all</code></i>";
    assert_eq!(
        from_matrix(marked),
        "https://x.example\"x *\u{200b}`b/@all`*"
    );
    let linked = "https://x.example\"x<a href='https://y.example'><code>b/@all</code></a>";
    assert_eq!(
        from_matrix(linked),
        "https://x.example\"x [`b/@all`](https://y.example)"
    );
}

proptest! {
    #[test]
    fn c02_no_plain_text_mentions_anybody(text in hurtful()) {
        // C01, C02, C04
        let said = attributed(&text, &Body::plain(&text), Style::Text, RULES);
        prop_assert!(!pings(&said), "{said:?}");
        for part in split(&said, "", 4096) {
            prop_assert!(!pings(&part), "{part:?}");
        }
    }

    #[test]
    fn c02_no_html_mentions_anybody(text in hurtful(), tags in prop::collection::vec(
        prop::sample::select(vec!["b", "i", "del", "code", "pre", "a", "li", "ul", "p", "td", "table", "h1"]), 0..6)) {
        let mut html = text.clone();
        for tag in tags {
            html = format!("{text}<{tag} href='https://x.example'>{html}</{tag}>@");
        }
        let said = from_matrix(&html);
        prop_assert!(!pings(&said), "{html:?} became {said:?}");
    }

    #[test]
    fn text_without_special_characters_is_unchanged(text in "[a-z]{1,8}( [a-z,;?]{1,8}){0,10}") {
        prop_assert_eq!(markdown(&text), text);
    }
}

#[test]
fn c01_only_configured_persons_are_mentioned_and_nothing_becomes_part_of_the_name() {
    let text = |text: &str| Inline::Text(text.to_owned());
    let ping = Inline::Ping {
        id: "ann.b".to_owned(),
        name: "Ann".to_owned(),
    };
    let said =
        |line: Vec<Inline>, rules| markdown_from_body(&Body(vec![Block::Paragraph(line)]), rules);
    for rules in [crate::gitter::MARKDOWN, crate::mattermost::MARKDOWN] {
        assert_eq!(
            said(vec![text("hi "), ping.clone(), text("by @bob")], rules),
            "hi @ann.b\u{200b}by @\u{200b}bob"
        );
        assert_eq!(
            said(vec![text("x"), ping.clone()], rules),
            "x @ann.b\u{200b}"
        );
        let mention = Inline::Mention {
            id: "ann.b".to_owned(),
            name: "ann.b".to_owned(),
        };
        assert_eq!(said(vec![mention], rules), "@\u{200b}ann.b");
    }
}

#[test]
fn maths_is_maths_where_it_is_shown_and_code_where_not() {
    let line = |tex: &str| Body(vec![Block::Paragraph(vec![Inline::Maths(tex.to_owned())])]);
    let block = |tex: &str| Body(vec![Block::Maths(tex.to_owned())]);
    let gitter = |body: &Body| markdown_from_body(body, crate::gitter::MARKDOWN);
    assert_eq!(gitter(&line("x^2")), "$$x^2$$");
    assert_eq!(gitter(&block("\\frac{a}{b}")), "$$\\frac{a}{b}$$");
    for hostile in ["a$$b", "@all", "x`y", "#1", "<b>"] {
        assert!(!gitter(&line(hostile)).contains("$$@"), "{hostile}");
        assert!(gitter(&line(hostile)).starts_with('`'), "{hostile}");
    }
    let mattermost = |body: &Body| markdown_from_body(body, crate::mattermost::MARKDOWN);
    assert_eq!(mattermost(&line("x^2")), "`x^2`");
    assert_eq!(mattermost(&block("x^2")), "```latex\nx^2\n```");
}

#[test]
fn c27_no_message_is_a_command_of_the_silo() {
    let corpus = [
        "/me dances",
        "/invite @bob",
        "/topic new",
        "/leave",
        "/msg bob hi",
        "/echo x 10",
        "//",
        "/",
    ];
    for rules in [crate::gitter::MARKDOWN, crate::mattermost::MARKDOWN] {
        for text in corpus {
            let written = markdown_from_body(&Body::plain(text), rules);
            assert!(!written.starts_with('/'), "{written:?}");
            let told = attributed("/me", &Body::plain(text), Style::Text, rules);
            assert!(!told.starts_with('/'), "{told:?}");
        }
    }
}
