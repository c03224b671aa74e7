//! The result of a row, and the table of all results.

use std::time::Duration;

use serde_json::{Value, json};

use crate::report::{Table, Verdict, short};

/// The result of one row.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// `F01` …
    pub fault: &'static str,
    /// How many faults were injected.
    pub injections: u64,
    /// Both directions together.
    pub verdict: Verdict,
    /// Copies that the fault itself made and no bridge could know of.
    pub excused: usize,
    /// How often the bridge was restarted.
    pub restarts: u32,
    /// Remarks for the table.
    pub remark: String,
    /// Why the row failed although nothing was lost, doubled or reordered.
    pub objections: Vec<String>,
    /// How long it ran.
    pub took: Duration,
    /// If the row has a table of its parts: the heading. `lines` has a line for each part.
    pub heading: Vec<String>,
    /// See `heading`.
    pub lines: Vec<Vec<String>>,
}

impl Outcome {
    /// The result of a row that ended with an error.
    #[must_use]
    pub fn broken(fault: &'static str, error: &anyhow::Error, took: Duration) -> Self {
        let text = format!("{error:#}");
        Self {
            fault,
            objections: vec![text.lines().next().unwrap_or_default().to_owned()],
            took,
            ..Self::default()
        }
    }

    /// Adds a remark.
    pub fn note(&mut self, text: &str) {
        if !self.remark.is_empty() {
            self.remark.push_str(", ");
        }
        self.remark.push_str(text);
    }

    /// Adds an objection.
    pub fn object(&mut self, text: &str) {
        self.objections.push(text.to_owned());
    }

    /// Removes the objection to failed messages, for faults that must make messages fail.
    pub fn forgive_failures(&mut self) {
        self.objections
            .retain(|objection| !objection.ends_with("ended as failed"));
    }

    /// How many numbers arrived more than once or were never sent, without the copies that the fault itself made.
    #[must_use]
    pub fn doubled(&self) -> usize {
        let doubled = self.verdict.doubled.len().saturating_sub(self.excused);
        doubled + self.verdict.unknown.len()
    }

    /// Whether nothing was lost, doubled or reordered, nothing objected to, and at least one message sent.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.verdict.messages > 0
            && self.verdict.lost.is_empty()
            && self.doubled() == 0
            && self.verdict.misplaced.is_empty()
            && self.objections.is_empty()
    }

    /// The table of its parts, if it has any.
    #[must_use]
    pub fn parts(&self) -> Option<Table> {
        let heading: Vec<&str> = self.heading.iter().map(String::as_str).collect();
        let mut table = Table::new(&heading);
        for line in &self.lines {
            let cells: Vec<&str> = line.iter().map(String::as_str).collect();
            table.row(&cells);
        }
        (!self.lines.is_empty()).then_some(table)
    }

    /// The last column: one word and the remarks.
    fn words(&self) -> String {
        let mut words = vec![if self.is_good() { "good" } else { "NOT GOOD" }.to_owned()];
        words.extend((!self.remark.is_empty()).then(|| self.remark.clone()));
        words.extend(self.objections.iter().cloned());
        words.join("; ")
    }

    /// The JSON form, for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "fault": self.fault,
            "good": self.is_good(),
            "injections": self.injections,
            "messages": self.verdict.messages,
            "lost": self.verdict.lost.len(),
            "doubled": self.doubled(),
            "doubled_by_the_fault_itself": self.excused,
            "reordered": self.verdict.misplaced.len(),
            "longest_delay_ms": self.verdict.longest().map(|longest| longest.as_millis()),
            "median_delay_ms": self.verdict.percentile(50).map(|median| median.as_millis()),
            "restarts": self.restarts,
            "seconds": self.took.as_secs(),
            "remark": self.remark,
            "objections": self.objections,
            "parts": self.lines,
        })
    }
}

/// The table of all results.
#[must_use]
pub fn table(outcomes: &[Outcome]) -> Table {
    let mut table = Table::new(&[
        "fault",
        "injections",
        "messages",
        "lost",
        "doubled",
        "reordered",
        "longest delay",
        "restarts",
        "seconds",
        "remark",
    ]);
    for outcome in outcomes {
        table.row(&[
            outcome.fault,
            &outcome.injections.to_string(),
            &outcome.verdict.messages.to_string(),
            &outcome.verdict.lost.len().to_string(),
            &outcome.doubled().to_string(),
            &outcome.verdict.misplaced.len().to_string(),
            &short(outcome.verdict.longest()),
            &outcome.restarts.to_string(),
            &outcome.took.as_secs().to_string(),
            &outcome.words(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Arrived, Said};

    fn outcome(said: &[u32], arrived: &[u32]) -> Outcome {
        let at = std::time::Instant::now();
        let said: Vec<_> = said.iter().map(|&number| Said { number, at }).collect();
        let arrived = arrived.iter().map(|&number| Arrived {
            number,
            at: Some(at),
        });
        Outcome {
            fault: "F00",
            verdict: Verdict::of(&said, &arrived.collect::<Vec<_>>()),
            ..Outcome::default()
        }
    }

    #[test]
    fn lost_doubled_reordered_and_invented_messages_are_each_noticed() {
        assert!(outcome(&[0, 1, 2], &[0, 1, 2]).is_good());
        for arrived in [
            &[0, 1][..],
            &[0, 1, 1, 2][..],
            &[0, 2, 1][..],
            &[0, 1, 2, 3][..],
        ] {
            let outcome = outcome(&[0, 1, 2], arrived);
            assert!(!outcome.is_good(), "{arrived:?}");
            assert!(table(&[outcome]).to_string().contains("NOT GOOD"));
        }
    }

    #[test]
    fn only_copies_of_the_fault_itself_are_excused() {
        let mut doubled = outcome(&[0, 1], &[0, 0, 1, 1]);
        doubled.excused = 1;
        assert!(!doubled.is_good());
        doubled.excused = 2;
        assert!(doubled.is_good());
        doubled.objections.push("but".to_owned());
        assert!(!doubled.is_good());
    }

    #[test]
    fn a_row_that_broke_is_not_good() {
        assert!(
            !Outcome::default().is_good(),
            "a run without messages proves nothing"
        );
        let error = anyhow::anyhow!("no\nmore");
        let broken = Outcome::broken("F01", &error, Duration::ZERO);
        assert!(!broken.is_good());
        assert_eq!(broken.json()["objections"][0], "no");
    }
}
