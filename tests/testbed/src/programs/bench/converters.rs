//! Measures how fast texts are converted: Matrix HTML to a silo's Markdown, Markdown to Matrix HTML, and plain text, in
//! MB of input a second, compared with a plain copy of the same text.

use std::hint::black_box;
use std::time::{Duration, Instant};

use footbridge_core::text::html::{Dialect, body_from_html};
use footbridge_core::text::{Body, html_from_body};
use footbridge_silo::{
    gitter,
    markdown::{body_from_markdown, markdown_from_body, split},
};
use footbridge_testbed::report::Table;

use super::seconds;

/// How long each conversion is measured.
const SPAN: Duration = Duration::from_secs(2);

const HTML: &str = "<p>The <b>release</b> of <i>today</i> brings <code>cargo run</code> and \
    <a href=\"https://example.org/a_b?c=d\">a link</a>, says <a href=\"https://matrix.to/#/@al:example.org\">Al</a>.</p>\
    <ul><li>one</li><li>two <del>three</del></li></ul><pre><code class=\"language-rust\">let x = 1;\n</code></pre>\
    <blockquote><p>quoted &amp; said</p></blockquote><table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>";
const MARKDOWN: &str = "The **release** of *today* brings `cargo run` and [a link](https://example.org/a_b?c=d), \
    says @al.\n\n- one\n- two ~~three~~\n\n```rust\nlet x = 1;\n```\n\n> quoted & said\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n";
const PLAIN: &str = "What people say is mostly plain: a line or two, an emoji 🎉, a snake_case, https://example.org/ and \
    no @mention of anybody.\n";

/// Measures all conversions.
pub fn measure(table: &mut Table) {
    let bodies = |html: &str| body_from_html(html, Dialect::Matrix);
    row(table, "Matrix HTML → Markdown", HTML, &|html| {
        markdown_from_body(&bodies(html), gitter::MARKDOWN).len()
    });
    row(table, "Markdown → Matrix HTML", MARKDOWN, &|markdown| {
        html_from_body(&body_from_markdown(markdown)).len()
    });
    row(table, "plain text → Markdown", PLAIN, &|plain| {
        markdown_from_body(&Body::plain(plain), gitter::MARKDOWN).len()
    });
    row(
        table,
        "Markdown, split",
        &MARKDOWN.repeat(60),
        &|markdown| split(markdown, "**Ann**: ", 4096).len(),
    );
}

fn row(table: &mut Table, name: &str, text: &str, convert: &dyn Fn(&str) -> usize) {
    let rate = rate(text, convert);
    let copied = self::rate(text, &|text| black_box(text.to_owned()).len());
    table.row(&[
        name,
        &format!("{rate:.1} MB/s"),
        &format!("a copy: {copied:.0} MB/s, in texts of {} bytes", text.len()),
    ]);
}

/// Megabytes of input a second.
fn rate(text: &str, convert: &dyn Fn(&str) -> usize) -> f64 {
    let (began, mut done) = (Instant::now(), 0_u32);
    while began.elapsed() < SPAN {
        for _ in 0..16 {
            black_box(convert(black_box(text)));
        }
        done += 16;
    }
    let bytes = f64::from(u32::try_from(text.len()).unwrap_or(u32::MAX)) * f64::from(done);
    bytes / 1e6 / seconds(began.elapsed())
}
