//! Where long texts are split, and that the parts together are the text.

use proptest::prelude::*;

use super::*;

const PREFIX: &str = "**Al**: ";
const MAX_UNITS: usize = 4096;

fn split(text: &str, prefix: &str) -> Vec<String> {
    super::split(text, prefix, MAX_UNITS)
}

/// The text of all parts, without white space and the marks of the cuts.
fn rejoined(parts: &[String], prefix: &str) -> String {
    parts
        .iter()
        .map(|part| part.strip_prefix(prefix.trim_end()).unwrap_or(part))
        .flat_map(str::chars)
        .filter(|c| !c.is_whitespace() && *c != '\u{200b}')
        .collect()
}

fn squeezed(text: &str) -> String {
    rejoined(&[text.to_owned()], "")
}

#[test]
fn what_fits_is_one_part() {
    assert_eq!(split("hi", PREFIX), ["**Al**: hi"]);
    let exact = "x".repeat(MAX_UNITS - units(PREFIX));
    assert_eq!(split(&exact, PREFIX).len(), 1);
    assert_eq!(split(&format!("{exact}y"), PREFIX).len(), 2);
    // C13: two units each, though four bytes.
    let emoji = "😀".repeat((MAX_UNITS - units(PREFIX)) / 2);
    assert_eq!(split(&emoji, PREFIX).len(), 1);
}

#[test]
fn a_prefix_that_is_there_is_not_doubled() {
    let text = format!("{PREFIX}{}", "word ".repeat(1500));
    let parts = split(&text, PREFIX);
    assert!(parts.len() > 1);
    for part in parts {
        assert_eq!(part.matches("**Al**").count(), 1);
    }
}

#[test]
fn cuts_are_made_at_the_best_place() {
    let first = "a".repeat(2000);
    let rest = "b".repeat(3000);
    for (between, end) in [("\n\n", ""), ("\n", ""), (". ", "."), (" ", "")] {
        let parts = split(&format!("{first}{between}{rest}"), "");
        assert_eq!(parts[0], format!("{first}{end}"), "{between:?}");
        assert_eq!(parts[1], rest);
    }
    let mixed = format!(
        "{}\n\n{} {}",
        "a ".repeat(900),
        "b ".repeat(500),
        "c ".repeat(1500)
    );
    assert!(split(&mixed, "")[0].ends_with('a'));
}

#[test]
fn open_code_is_closed_and_opened_again() {
    let line = "let x = 1; // @all\n";
    let text = format!("```rust\n{}```", line.repeat(400));
    let parts = split(&text, PREFIX);
    assert!(parts.len() > 1);
    for part in &parts {
        assert!(part.starts_with("**Al**:\n\n```rust\n"), "{part:.40}");
        assert!(part.ends_with("\n```"));
        assert_eq!(part.matches("```").count(), 2);
    }
    let lines: usize = parts.iter().map(|part| part.matches("let x").count()).sum();
    assert_eq!(lines, 400);
}

#[test]
fn links_and_code_stay_whole_where_they_can() {
    for whole in [
        "[a long label of many words](https://x.example/path)",
        "`some code with @all in it`",
        "https://x.example/a/long/path?with=@all",
        "**a name of several words**",
    ] {
        for lead in 4000..4096 {
            let text = format!("{} {whole} {}", "x".repeat(lead - 1), "y ".repeat(50));
            let parts = split(&text, "");
            assert!(
                parts.iter().any(|part| part.contains(whole)),
                "{lead} {whole}"
            );
        }
    }
}

#[test]
fn code_that_must_be_split_stays_code() {
    let parts = split(&format!("`{}`", "a @all ".repeat(900)), PREFIX);
    assert!(parts.len() > 1);
    for part in parts {
        assert_eq!(part.matches('`').count(), 2);
    }
}

#[test]
fn a_split_url_mentions_nobody() {
    let parts = split(
        &format!("https://x.example/{}", "a)@all".repeat(900)),
        PREFIX,
    );
    assert!(parts.len() > 1);
    for part in parts.iter().skip(1) {
        assert!(!part.contains("@a"));
    }
}

#[test]
fn c13_text_beyond_eight_parts_is_marked_as_cut() {
    let parts = split(&"word ".repeat(10_000), PREFIX);
    assert_eq!(parts.len(), MAX_PARTS);
    assert!(parts[7].ends_with(TRUNCATED.trim_start()));
    assert!(parts.iter().all(|part| units(part) <= MAX_UNITS));
}

#[test]
fn an_escape_is_never_split() {
    for lead in 4060..4100 {
        let text = format!("{}{}", "x".repeat(lead), "\\*&lt;".repeat(20));
        for part in split(&text, "") {
            assert!(!part.starts_with('*') && !part.starts_with("lt;"), "{lead}");
            assert!(!part.ends_with('\\') && !part.ends_with('&'), "{lead}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn c13_parts_fit_and_contain_everything(
        words in prop::collection::vec(prop_oneof![
            "[a-zé😀]{1,60}", Just(". ".to_owned()), Just("\n".to_owned()), Just("\n\n".to_owned()),
            Just("👨‍👩‍👧‍👦".to_owned()), Just(" ".to_owned()),
        ], 0..900),
        prefix in prop_oneof![Just(String::new()), Just(PREFIX.to_owned())],
    ) {
        let text = words.concat();
        let parts = split(&text, &prefix);
        prop_assert!(parts.len() <= MAX_PARTS);
        for part in &parts {
            prop_assert!(units(part) <= MAX_UNITS);
            prop_assert!(part.starts_with(&prefix));
        }
        prop_assert_eq!(rejoined(&parts, &prefix), squeezed(&text));
    }

    #[test]
    fn no_text_is_too_strange_to_be_split(text in prop::collection::vec(
        prop_oneof!["\\PC{0,40}", Just("```\n".to_owned()), Just("`".to_owned()), Just("[a](".to_owned()),
            Just("**".to_owned()), Just("\\".to_owned()), Just("\n".to_owned())], 0..600)) {
        for part in split(&text.concat(), PREFIX) {
            prop_assert!(units(&part) <= MAX_UNITS);
        }
    }
}

/// C14: the time for each of these must be linear in its length. Searching anew from each mark takes minutes.
#[test]
fn c14_marks_that_nothing_closes_cost_no_time() {
    for mark in [
        "[", "[](", "`a``b", "**", "` ", "[a\n\n", "http://", "```\n`",
    ] {
        let text = mark.repeat((1 << 20) / mark.len());
        let parts = split(&text, PREFIX);
        assert!(parts.len() <= MAX_PARTS);
    }
}

/// After a cut there is no list: its contents move to the left, or the end of the code would not be recognised.
#[test]
fn what_stood_in_a_list_moves_to_the_left_behind_a_cut() {
    let code = "          say @all\n".repeat(300);
    let text = format!("- a\n  - 10. ```\n{code}        ```\n    11. b\n  - c\n- d");
    let parts = split(&text, "");
    assert_eq!(parts.len(), 2);
    assert!(parts[0].ends_with("\n        ```"), "{}", parts[0]);
    assert!(
        parts[1].starts_with("```\n  say @all\n"),
        "{:.40}",
        parts[1]
    );
    assert!(parts[1].ends_with("\n  say @all\n```\n\n11. b\n- c\n- d"));
    let quoted = format!("> - ```\n{}>   ```\n> - b", ">   @all\n".repeat(600));
    let parts = split(&quoted, "");
    assert!(parts[1].starts_with("> ```\n> @all\n"), "{:.40}", parts[1]);
    assert!(parts[1].ends_with("\n> @all\n> ```\n> - b"));
    let torn = split(&format!("6. {}\n7. b", "word ".repeat(1000)), "");
    assert!(torn[1].ends_with("word \n\n7. b"), "{}", torn[1]);
}

#[test]
fn no_backtick_is_next_to_the_marks_of_split_code() {
    for lead in 0..40 {
        let code = format!("``` {}{} ```", "x".repeat(lead), "a``b`c`".repeat(1500));
        for part in split(&code, "") {
            assert_eq!(part.matches("```").count(), 2, "{lead} {part}");
            assert!(!part.contains("````"), "{lead}");
        }
    }
}

#[test]
fn c02_code_in_a_quote_stays_in_it_wherever_it_is_cut() {
    let block = "> ```\n> say @all and @all\n> \n> @all\n> ```\n";
    for before in 0..120 {
        let text = format!("{}\n\n{}", "x".repeat(before), block.repeat(3));
        for most in 80..140 {
            for part in super::split(&text, "", most) {
                let outside = part
                    .lines()
                    .find(|line| line.contains('@') && !line.starts_with("> "));
                assert_eq!(outside, None, "{before} {most} {part}");
                assert_eq!(
                    part.matches("> ```").count() % 2,
                    0,
                    "{before} {most} {part}"
                );
            }
        }
    }
}
