//! Pure conversion of Gitter's rendered HTML into neutral text. The other direction is in `markdown`.

use footbridge_core::text::{
    Body,
    html::{Dialect, parsed_as_shown},
};

use super::emoji;

/// Gitter's rendered HTML as the neutral tree; the raw text if there is no HTML, or none that can be parsed.
#[must_use]
pub fn body_from_html(html: &str, text: &str) -> Body {
    let body = parsed_as_shown(html, Dialect::Gitter, emoji::shown).unwrap_or_default();
    if body.is_empty() {
        Body::plain(&emoji::shown(text))
    } else {
        body
    }
}

#[cfg(test)]
mod tests {
    use footbridge_core::text;

    use super::*;

    #[test]
    fn gitters_html_is_read() {
        let table = [
            ("hi <em>there</em><br>you", "hi <em>there</em><br>you"),
            (
                r#"<span data-link-type="mention" data-screen-name="al" class="mention">@al</span> hi"#,
                "@al hi",
            ),
            (
                r#"<span data-link-type="groupmention" data-group-name="all" class="groupmention">@/all</span>"#,
                "@/all",
            ),
            (
                r#"see <a target="_blank" data-link-type="issue" data-issue="12" class="issue">#12</a>"#,
                "see #12",
            ),
            (
                r#"<pre><code class="rust"><span class="keyword">let</span> x;</code></pre>"#,
                r#"<pre><code class="language-rust">let x;</code></pre>"#,
            ),
            (
                r#"<a href="http://x.example" rel="nofollow noopener noreferrer" target="_blank" class="link ">x</a>"#,
                r#"<a href="http://x.example">x</a>"#,
            ),
            (
                r#"<img src="http://x.example/a.png" alt="cat" rel="nofollow">"#,
                r#"<a href="http://x.example/a.png">cat</a>"#,
            ),
            (
                r#"<span class="katex"><span class="katex-mathml"><math><semantics><mrow><mi>x</mi></mrow><annotation encoding="application/x-tex">x^2</annotation></semantics></math></span><span class="katex-html">x2</span></span>"#,
                "<span data-mx-maths=\"x^2\"><code>x^2</code></span>",
            ),
            (
                ":rocket: :shipit: 10:30:45 <code>:rocket:</code>",
                "🚀 :shipit: 10:30:45 <code>:rocket:</code>",
            ),
            (
                "<a href=\"http://&#109;ailto:bob@x.example\" class=\"link link-tooltip\">&#98;ob@x.example</a>",
                "<a href=\"mailto:bob@x.example\">bob@x.example</a>",
            ),
            (
                ":satellite: :thinking: (:x:) <a href=\"http://x.example\">:x:</a> <em>:x:</em>",
                "📡 :thinking: (:x:) <a href=\"http://x.example\">:x:</a> <em>❌</em>",
            ),
            (
                r#"<a href="https://x.example/:x:/">https://x.example/:x:/</a> a:x:b"#,
                r#"<a href="https://x.example/:x:/">https://x.example/:x:/</a> a:x:b"#,
            ),
        ];
        for (html, expected) in table {
            let body = body_from_html(html, "raw");
            assert_eq!(text::html_from_body(&body), expected, "{html:?}");
        }
        assert_eq!(body_from_html("", "raw :tada:"), Body::plain("raw 🎉"));
    }
}
