//! The neutral text, with well-formed and with malformed input.

use std::time::{Duration, Instant};

use footbridge_store::{Millis, RemoteId};
use proptest::prelude::*;

use super::{
    html::{Dialect, body_from_html, parsed},
    *,
};
use crate::message::{Action, Message, Sender, Style};

fn again(html: &str) -> String {
    html_from_body(&body_from_html(html, Dialect::Matrix))
}

fn squeezed(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

#[test]
fn c06_c07_only_the_specifications_tags_are_relayed() {
    // C07
    let table = [
        ("<p>a</p><p>b</p>", "<p>a</p><p>b</p>"),
        ("a<br/>b", "a<br>b"),
        (
            "<b>a</b><i>b</i><s>c</s>",
            "<strong>a</strong><em>b</em><del>c</del>",
        ),
        ("<h3>a</h3>", "<h3>a</h3>"),
        ("<hr>", "<hr>"),
        (
            "<pre><code class=\"language-c++\">a &lt; b\n</code></pre>",
            "<pre><code class=\"language-c++\">a &lt; b</code></pre>",
        ),
        (
            "<pre><code class='language-\"><b>x'>a</code></pre>",
            "<pre><code>a</code></pre>",
        ),
        (
            "<ol start=5><li>a<li>b</ol>",
            "<ol start=\"5\"><li>a</li><li>b</li></ol>",
        ),
        ("<ol start=-99999999999><li>a</ol>", "<ol><li>a</li></ol>"),
        (
            "<blockquote>a<blockquote>b</blockquote></blockquote>",
            "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote>",
        ),
        (
            "<table><thead><tr><th>a</th></tr></thead><tbody><tr><td>b</td></tr></tbody></table>",
            "<table><tr><th>a</th></tr><tr><td>b</td></tr></table>",
        ),
        (
            "<span data-mx-spoiler=\"why\">a</span>",
            "<span data-mx-spoiler>a</span>",
        ),
        (
            "<span data-mx-maths=\"x^2 &lt; 1\">x</span>",
            "<span data-mx-maths=\"x^2 &lt; 1\"><code>x^2 &lt; 1</code></span>",
        ),
        (
            "a<div data-mx-maths=\"x^2\"><code>x</code></div>b",
            "<p>a</p><div data-mx-maths=\"x^2\"><code>x^2</code></div><p>b</p>",
        ),
        ("<span data-mx-color=\"#f00\">a</span>", "a"),
        (
            "<a href=\"HTTPS://x.example/?a&amp;b='\">a</a>",
            "<a href=\"https://x.example/?a&amp;b=&#39;\">a</a>",
        ),
        ("<a href=\"javascript:alert(1)\">a</a>", "a"),
        ("<a href=\"data:text/html,x\">a</a>", "a"),
        ("<a href=\"https://x.example/\u{202e}\">a</a>", "a"),
        ("<a name=x>a</a>", "a"),
        ("<img src=\"mxc://x/y\" alt=\"cat\" onerror=\"x()\">", "cat"),
        (
            "<details><summary>a</summary>b</details>",
            "<p>a</p><p>b</p>",
        ),
        (
            "<mx-reply><blockquote>old</blockquote></mx-reply>new",
            "new",
        ),
        ("<script>alert(1)</script>a<style>b{}</style>", "a"),
        ("<svg><style><img src=x onerror=y></style></svg>a", "a"),
        (
            "<math><mtext><table><mglyph><style><img src=x onerror=y>",
            "",
        ),
        ("<b onclick=\"x()\" style=\"x\">a</b>", "<strong>a</strong>"),
        ("<iframe src=x></iframe><object>a</object>", "a"),
        ("<b><p>a</p></b>b", "<p>a</p><p>b</p>"),
        ("a<!-- b -->c", "ac"),
        ("  a \n\n b  ", "a b"),
        ("&lt;b&gt; &amp;amp;", "&lt;b&gt; &amp;amp;"),
        (
            "<a href=\"https://matrix.to/#/@al:b.example\">Al</a>",
            "@Al",
        ),
        ("<a href=\"matrix:u/al:b.example\">@Al</a>", "@Al"),
        (
            "<a href=\"https://matrix.to/#/!room:b.example\">room</a>",
            "<a href=\"https://matrix.to/#/!room:b.example\">room</a>",
        ),
        // C06
        (
            "<a href=\"https://evil.example/\">https://bank.example/</a>",
            "<a href=\"https://evil.example/\">https://bank.example/</a> (https://evil.example/)",
        ),
        (
            "<a href=\"https://www.a.example/x\">a.example</a>",
            "<a href=\"https://www.a.example/x\">a.example</a>",
        ),
    ];
    for (html, expected) in table {
        assert_eq!(again(html), expected, "{html:?}");
    }
}

#[test]
fn c14_wild_html_is_neither_slow_nor_deep() {
    // C14
    let formatting = (0..90).fold(String::new(), |all, n| all + format!("<b a{n}>").as_str());
    let wild = [
        "<div>".repeat(10_000),
        "<b>".repeat(10_000) + "x",
        "<blockquote>".repeat(10_000) + "x" + "</blockquote>".repeat(10_000).as_str(),
        "<ul><li>".repeat(10_000) + "x",
        "<table><tr><td>".repeat(5_000) + "x",
        "<svg>".repeat(10_000),
        format!("<div>{formatting}</div>") + "<p>x</p>".repeat(10_000).as_str(),
        "<table>".to_owned() + "a<br>".repeat(20_000).as_str(),
        (0..20_000).fold("<a ".to_owned(), |all, n| all + format!("a{n} ").as_str()) + ">x",
        "<i>".repeat(99) + "<br>".repeat(4_000).as_str() + "<p>",
        "x".repeat(200_000) + "<b>y</b>",
        "<".repeat(100_000),
        "&".repeat(100_000),
        "</p>".repeat(30_000),
        "<style><a b=\"</style>".to_owned() + "<b>".repeat(5_000).as_str() + "\">",
    ];
    for html in &wild {
        for dialect in [Dialect::Matrix, Dialect::Gitter] {
            let start = Instant::now();
            let body = body_from_html(html, dialect);
            assert!(!html_from_body(&body).contains("<b>"));
            let took = start.elapsed();
            assert!(took < Duration::from_secs(10), "{took:?} for {html:.40}");
        }
    }
    assert_eq!(parsed(&"<div>".repeat(10_000), Dialect::Matrix), None);
    assert_eq!(
        body_from_html(&("x".repeat(200_000) + "<b>&lt;y</b>"), Dialect::Matrix),
        Body::plain(&("x".repeat(200_000) + "<y"))
    );
}

#[test]
fn the_deepest_tree_can_be_stored_and_read_back() {
    for html in [
        "<blockquote>".repeat(90) + "x",
        "<ul><li>".repeat(90) + "<b><i><a href='https://x.example'>x",
        "<b><i>".repeat(45) + "x",
        "<blockquote><ul><li>".repeat(30) + "<table><tr><td><b><i><s>x",
    ] {
        let message = Message {
            sender: Sender {
                id: "@a:b".into(),
                name: "A".into(),
                avatar: None,
            },
            sent_at: Millis(1),
            files: Vec::new(),
            action: Action::Post {
                body: body_from_html(&html, Dialect::Matrix),
                style: Style::Text,
                reply_to: Some(RemoteId::from("$1")),
                thread: None,
            },
        };
        let stored = message.to_bytes().unwrap();
        assert_eq!(Message::from_bytes(&stored).unwrap(), message, "{html:.60}");
        let Action::Post { body, .. } = message.action else {
            unreachable!()
        };
        assert!(body.to_plain().contains('x'));
    }
}

#[test]
fn every_action_keeps_its_stored_form() {
    let body = body_from_html(
        "<h1>a</h1><p><b>b</b> <i>c</i> <del>d</del> <code>e</code> <a href='https://x.example/'>f</a> \
         <a href='https://matrix.to/#/@g:h'>G</a> <span data-mx-spoiler>i</span><br>j</p>\
         <pre><code class='language-rust'>k</code></pre><blockquote>l</blockquote><ol><li>m</li></ol>\
         <table><tr><td>n</td></tr></table><hr>",
        Dialect::Matrix,
    );
    let stored = |action| {
        let message = Message {
            sender: Sender {
                id: "@a:b".into(),
                name: "A".into(),
                avatar: None,
            },
            sent_at: Millis(1),
            files: Vec::new(),
            action,
        };
        String::from_utf8(message.to_bytes().unwrap()).unwrap()
    };
    let target = RemoteId::from("$t");
    insta::assert_snapshot!(stored(Action::Post { body, style: Style::Text, reply_to: Some(target.clone()), thread: Some(target.clone()) }), @r##"{"sender":{"id":"@a:b","name":"A"},"sent_at":1,"action":{"Post":{"body":[{"Heading":[1,[{"Text":"a"}]]},{"Paragraph":[{"Bold":[{"Text":"b"}]},{"Text":" "},{"Italic":[{"Text":"c"}]},{"Text":" "},{"Strike":[{"Text":"d"}]},{"Text":" "},{"Code":"e"},{"Text":" "},{"Link":{"href":"https://x.example/","label":[{"Text":"f"}]}},{"Text":" "},{"Mention":{"id":"@g:h","name":"G"}},{"Text":" "},{"Spoiler":[{"Text":"i"}]},"Break",{"Text":"j"}]},{"Code":{"language":"rust","text":"k"}},{"Quote":[{"Paragraph":[{"Text":"l"}]}]},{"List":{"start":1,"items":[[{"Paragraph":[{"Text":"m"}]}]]}},{"Table":[[[{"Text":"n"}]]]},"Rule"],"style":"Text","reply_to":"$t","thread":"$t"}}}"##);
    insta::assert_snapshot!(stored(Action::Edit { target: target.clone(), body: Body::plain("x"), style: Style::Emote }), @r##"{"sender":{"id":"@a:b","name":"A"},"sent_at":1,"action":{"Edit":{"target":"$t","body":[{"Paragraph":[{"Text":"x"}]}],"style":"Emote"}}}"##);
    insta::assert_snapshot!(stored(Action::Delete { target }), @r##"{"sender":{"id":"@a:b","name":"A"},"sent_at":1,"action":{"Delete":{"target":"$t"}}}"##);
    insta::assert_snapshot!(stored(Action::Unsupported { summary: "sent an image".into() }), @r##"{"sender":{"id":"@a:b","name":"A"},"sent_at":1,"action":{"Unsupported":{"summary":"sent an image"}}}"##);
    insta::assert_snapshot!(stored(Action::System { summary: "Bob joined".into() }), @r##"{"sender":{"id":"@a:b","name":"A"},"sent_at":1,"action":{"System":{"summary":"Bob joined"}}}"##);
    insta::assert_snapshot!(stored(Action::Bridge { text: "Hello.".into(), about: None }), @r##"{"sender":{"id":"@a:b","name":"A"},"sent_at":1,"action":{"Bridge":{"text":"Hello.","about":null}}}"##);
}

#[test]
fn c11_plain_text_is_cleaned() {
    // C11
    assert_eq!(
        sanitized("a\u{0}b\u{1b}[31m\tc\r\nd\re\u{85}"),
        "ab[31m\tc\nd\ne"
    );
    assert_eq!(sanitized("a\u{202e}b"), "ab");
    assert_eq!(sanitized("👩‍👩‍👧‍👦 🏴󠁧󠁢󠁥󠁮󠁧󠁿 é ⚠️"), "👩‍👩‍👧‍👦 🏴󠁧󠁢󠁥󠁮󠁧󠁿 é ⚠️");
    let flood = format!("a{}b", "\u{301}".repeat(10_000));
    assert_eq!(sanitized(&flood), format!("a{}b", "\u{301}".repeat(8)));
}

#[test]
fn plain_text_can_be_read() {
    let html = "<h1>a</h1><p>b<br>c</p><ul><li>d</li><li>e<ol><li>f</li></ol></li></ul>\
        <blockquote><p>g</p><p>h</p></blockquote><pre>i\n  j</pre>\
        <p><a href='https://x.example/'>k</a> <a href='https://x.example/'>https://x.example/</a></p>";
    insta::assert_snapshot!(body_from_html(html, Dialect::Matrix).to_plain(), @r##"
    a

    b
    c

    - d
    - e
      1. f

    > g
    > 
    > h

    i
      j

    k (https://x.example/) https://x.example/
    "##);
}

#[test]
fn names_are_shown_without_invisible_characters() {
    let table = [
        ("Alice", "Alice"),
        ("  A \n\t B  ", "A B"),
        ("\u{202e}evil\u{202c}", "evil"),
        ("A\u{200b}l\u{ad}ice\u{feff}", "Alice"),
        ("👩‍👩‍👧‍👦 Fam", "👩‍👩‍👧‍👦 Fam"),
        ("\u{2800}\u{3164}\u{200b}", "@id:b"),
        ("", "@id:b"),
    ];
    for (name, expected) in table {
        assert_eq!(
            crate::names::display_name(name, "@id:b"),
            expected,
            "{name:?}"
        );
    }
    assert_eq!(crate::names::display_name("", ""), "someone");
    let long = crate::names::display_name(&"x".repeat(500), "");
    assert_eq!(long.chars().count(), 101);
    assert!(crate::names::display_name(&"👩‍👩‍👧‍👦".repeat(500), "").len() <= 1300);
}

#[test]
fn a_long_body_is_split_between_blocks() {
    let weigh = |block: &Block| Body(vec![block.clone()]).to_plain().len();
    let body = Body::plain(&format!("{}\n\n{}\n\nc", "a ".repeat(40), "b".repeat(90)));
    let parts = split_body(&body, 100, &weigh);
    assert_eq!(parts.len(), 2);
    assert!(parts[0].to_plain().ends_with("a "));
    let code = body_from_html(
        &format!(
            "<pre><code class='language-c'>{}</code></pre>",
            "x = 1;\n".repeat(100)
        ),
        Dialect::Matrix,
    );
    for part in split_body(&code, 100, &weigh) {
        assert!(matches!(
            part.0.as_slice(),
            [Block::Code {
                language: Some(_),
                ..
            }]
        ));
        assert!(part.to_plain().len() <= 100);
    }
}

const ALLOWED: [&str; 21] = [
    "p",
    "br",
    "strong",
    "em",
    "del",
    "code",
    "pre",
    "blockquote",
    "ul",
    "ol",
    "li",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "a",
    "hr",
    "table",
    "tr",
];

/// The names of the tags in HTML that the bridge generated, where every `<` of text is escaped.
fn tags(html: &str) -> Vec<String> {
    html.split('<')
        .skip(1)
        .map(|tag| {
            tag.trim_start_matches('/')
                .chars()
                .take_while(char::is_ascii_alphanumeric)
                .collect()
        })
        .collect()
}

fn soup() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "<b>",
            "</b>",
            "<i a=b>",
            "</i>",
            "<p>",
            "</p>",
            "<ul>",
            "<li>",
            "</ul>",
            "<table>",
            "<tr>",
            "<td>",
            "</table>",
            "<a href='https://x.example/'>",
            "</a>",
            "<pre>",
            "<code class=language-x>",
            "</code>",
            "</pre>",
            "<script>",
            "</script>",
            "<svg>",
            "<math>",
            "<style>",
            "</style>",
            "<template>",
            "<br>",
            "<img src=x alt=y>",
            "<select>",
            "<option>",
            "<form>",
            "<body>",
            "<html a=b>",
            "<frameset>",
            "<head>",
            "<caption>",
            "<col>",
            "<plaintext>",
            "<textarea>",
            "<!--",
            "-->",
            "<![CDATA[",
            "]]>",
            "<?x",
            "&lt;",
            "&#0;",
            "&#xD800;",
            "\u{0}",
            "<",
            ">",
            "\"",
            "<blockquote>",
            "</blockquote>",
            "<span data-mx-spoiler>",
            "</span>",
            "<h1>",
            "</h1>",
            "<mx-reply>",
            "<foreignObject>",
            "<annotation>",
            "<span class=katex>",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,8}",
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

#[test]
fn a_shortcode_is_an_emoji_only_outside_words_and_urls() {
    for (text, shown) in [
        (":smile:", "😄"),
        ("hi :smile:, (:x:) :x::x:\n:x:", "hi 😄, (❌) ❌❌\n❌"),
        ("a:x:b a:x: :x:b _:x:", "a:x:b a:x: :x:b _:x:"),
        (
            "12:30:45 10:100:30 std::x::y :x",
            "12:30:45 10:100:30 std::x::y :x",
        ),
        (":nobody: ::", ":nobody: ::"),
        (
            "https://x.example/a:smile:b https://x.example/:smile:/ :smile:",
            "https://x.example/a:smile:b https://x.example/:smile:/ 😄",
        ),
        (
            "(see:https://x.example/?a=:x:) :x:-ftp://a/:x: WWW.a.b:x:- mailto:a@b?subject=-:x:-",
            "(see:https://x.example/?a=:x:) ❌-ftp://a/:x: WWW.a.b:x:- mailto:a@b?subject=-:x:-",
        ),
        (
            "x.example/-:x:- either/or :x:/:x: a.b/:x:",
            "x.example/-:x:- either/or ❌/❌ a.b/❌",
        ),
        ("grün :x: 你好:x:", "grün ❌ 你好❌"),
    ] {
        let github = |name: &str| emojis::get_by_shortcode(name).map(ToString::to_string);
        assert_eq!(with_emoji(text, github), shown);
    }
}

proptest! {
    #[test]
    fn c07_no_html_is_too_strange(html in soup()) {
        for dialect in [Dialect::Matrix, Dialect::Gitter] {
            let body = body_from_html(&html, dialect);
            let out = html_from_body(&body);
            for tag in tags(&out) {
                prop_assert!(ALLOWED.contains(&tag.as_str()) || tag == "span" || tag == "td" || tag == "th", "{tag} in {out}");
            }
            prop_assert!(!out.contains("javascript:") || !out.contains("href=\"javascript:"));
            let plain = body.to_plain();
            prop_assert!(plain.chars().all(|c| c == '\n' || c == '\t' || !c.is_control()));
        }
    }

    #[test]
    fn text_survives_a_round_trip_through_html(text in "\\PC{0,80}(\n{1,2}\\PC{0,40}){0,3}") {
        // C05
        let html = html_from_body(&Body::plain(&text));
        let back = body_from_html(&html, Dialect::Matrix).to_plain();
        prop_assert_eq!(squeezed(&back), squeezed(&sanitized(&text)));
    }

    #[test]
    fn generated_html_survives_a_round_trip(html in soup()) {
        let once = again(&html);
        let twice = again(&once);
        prop_assert_eq!(squeezed(&body_from_html(&once, Dialect::Matrix).to_plain()),
            squeezed(&body_from_html(&twice, Dialect::Matrix).to_plain()));
    }
}
