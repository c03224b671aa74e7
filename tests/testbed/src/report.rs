//! Compares what was sent on one side with what arrived on the other: lost, doubled, reordered, and how long it took.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// One numbered message that was sent. Numbers rise in the order in which the source accepted them.
#[derive(Debug, Clone, Copy)]
pub struct Said {
    /// Its number.
    pub number: u32,
    /// When its sender began to send it.
    pub at: Instant,
}

/// One numbered message on the target side, in the order of that side.
#[derive(Debug, Clone, Copy)]
pub struct Arrived {
    /// The number in it.
    pub number: u32,
    /// When it became visible there, if that was watched.
    pub at: Option<Instant>,
}

/// The result for one direction.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// How many were sent.
    pub messages: usize,
    /// Numbers that never arrived.
    pub lost: Vec<u32>,
    /// Numbers that arrived more than once.
    pub doubled: Vec<u32>,
    /// Numbers that arrived after a higher one.
    pub misplaced: Vec<u32>,
    /// Numbers that nobody sent.
    pub unknown: Vec<u32>,
    /// Times from the start of sending until the message was visible on the other side, shortest first.
    pub latencies: Vec<Duration>,
}

impl Verdict {
    /// Compares what was sent with what arrived.
    #[must_use]
    pub fn of(said: &[Said], arrived: &[Arrived]) -> Self {
        let mut verdict = Self {
            messages: said.len(),
            ..Self::default()
        };
        let began: BTreeMap<u32, Instant> =
            said.iter().map(|said| (said.number, said.at)).collect();
        let mut copies: BTreeMap<u32, usize> = BTreeMap::new();
        let mut highest = None;
        for copy in arrived {
            let count = copies.entry(copy.number).or_default();
            *count += 1;
            if *count > 1 {
                if *count == 2 {
                    verdict.doubled.push(copy.number);
                }
                continue;
            }
            let Some(began) = began.get(&copy.number) else {
                verdict.unknown.push(copy.number);
                continue;
            };
            if highest.is_some_and(|highest| copy.number < highest) {
                verdict.misplaced.push(copy.number);
            }
            highest = highest.max(Some(copy.number));
            verdict
                .latencies
                .extend(copy.at.map(|at| at.saturating_duration_since(*began)));
        }
        verdict
            .lost
            .extend(began.keys().filter(|number| !copies.contains_key(number)));
        verdict.latencies.sort_unstable();
        verdict
    }

    /// Compares the messages with the numbers from `first` on.
    #[must_use]
    pub fn of_those_from(first: usize, said: &[Said], arrived: &[Arrived]) -> Self {
        let since = |number: u32| usize::try_from(number).is_ok_and(|number| number >= first);
        let said: Vec<Said> = said
            .iter()
            .filter(|said| since(said.number))
            .copied()
            .collect();
        let arrived: Vec<Arrived> = arrived
            .iter()
            .filter(|copy| since(copy.number))
            .copied()
            .collect();
        Self::of(&said, &arrived)
    }

    /// Adds the result for another place or direction.
    pub fn join(&mut self, other: Self) {
        self.messages += other.messages;
        self.lost.extend(other.lost);
        self.doubled.extend(other.doubled);
        self.misplaced.extend(other.misplaced);
        self.unknown.extend(other.unknown);
        self.latencies.extend(other.latencies);
        self.latencies.sort_unstable();
    }

    /// The longest latency of the messages that arrived and were watched.
    #[must_use]
    pub fn longest(&self) -> Option<Duration> {
        self.latencies.last().copied()
    }

    /// Whether nothing was lost, doubled, reordered or unknown, and at least one message was sent.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.messages > 0
            && self.lost.is_empty()
            && self.doubled.is_empty()
            && self.misplaced.is_empty()
            && self.unknown.is_empty()
    }

    /// The latency that this share of the messages does not exceed; `None` without messages.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        percentile(&self.latencies, percent)
    }
}

/// The value that `percent` of the sorted values do not exceed (nearest rank).
#[must_use]
pub fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// Milliseconds, or seconds if that is easier to read; a dash for `None`.
#[must_use]
pub fn short(duration: Option<Duration>) -> String {
    match duration {
        None => "-".to_owned(),
        Some(duration) if duration < Duration::from_secs(10) => {
            format!("{} ms", duration.as_millis())
        }
        Some(duration) => format!("{:.1} s", duration.as_secs_f64()),
    }
}

/// Rows under a heading; columns are as wide as needed, and columns of numbers are aligned to the right.
#[derive(Debug, Clone, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with a heading.
    #[must_use]
    pub fn new(heading: &[&str]) -> Self {
        Self {
            rows: vec![heading.iter().map(ToString::to_string).collect()],
        }
    }

    /// The columns of [`Self::verdict`].
    #[must_use]
    pub fn of_verdicts() -> Self {
        Self::new(&[
            "direction",
            "messages",
            "lost",
            "doubled",
            "out of order",
            "latency p50",
            "p95",
        ])
    }

    /// Adds a row.
    pub fn row(&mut self, cells: &[&str]) -> &mut Self {
        self.rows
            .push(cells.iter().map(ToString::to_string).collect());
        self
    }

    /// Adds a row with the result for one direction.
    pub fn verdict(&mut self, name: &str, verdict: &Verdict) -> &mut Self {
        self.row(&[
            name,
            &verdict.messages.to_string(),
            &verdict.lost.len().to_string(),
            &(verdict.doubled.len() + verdict.unknown.len()).to_string(),
            &verdict.misplaced.len().to_string(),
            &short(verdict.percentile(50)),
            &short(verdict.percentile(95)),
        ])
    }
}

impl Table {
    fn is_numeric(&self, column: usize) -> bool {
        let mut cells = self.rows.iter().skip(1).filter_map(|row| row.get(column));
        cells.all(|cell| cell.starts_with(|first: char| first == '-' || first.is_ascii_digit()))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or_default()
            })
            .collect();
        for (place, row) in self.rows.iter().enumerate() {
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let gap = if column == 0 { "  " } else { "   " };
                if self.is_numeric(column) {
                    write!(to, "{gap}{cell:>width$}")?;
                } else {
                    write!(to, "{gap}{cell:<width$}")?;
                }
            }
            writeln!(to)?;
            if place == 0 {
                let rule = widths
                    .iter()
                    .map(|width| width + 3)
                    .sum::<usize>()
                    .saturating_sub(3);
                writeln!(to, "  {}", "─".repeat(rule))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(said: &[u32], arrived: &[u32]) -> Verdict {
        let start = Instant::now();
        let said: Vec<_> = said
            .iter()
            .map(|&number| Said { number, at: start })
            .collect();
        let arrived: Vec<_> = arrived
            .iter()
            .enumerate()
            .map(|(place, &number)| Arrived {
                number,
                at: Some(start + Duration::from_millis(10 * (place as u64 + 1))),
            })
            .collect();
        Verdict::of(&said, &arrived)
    }

    #[test]
    fn what_arrives_once_and_in_order_is_clean() {
        let verdict = verdict(&[1, 2, 3, 4], &[1, 2, 3, 4]);
        assert!(verdict.is_clean());
        assert_eq!(verdict.percentile(50), Some(Duration::from_millis(20)));
        assert_eq!(verdict.percentile(95), Some(Duration::from_millis(40)));
    }

    #[test]
    fn each_error_is_distinct() {
        let verdict = verdict(&[1, 2, 3, 4, 5], &[1, 3, 2, 3, 3, 9, 5]);
        assert_eq!(verdict.lost, [4]);
        assert_eq!(verdict.doubled, [3]);
        assert_eq!(verdict.misplaced, [2]);
        assert_eq!(verdict.unknown, [9]);
        assert!(!verdict.is_clean());
    }

    #[test]
    fn joined_verdicts_keep_every_fault_and_the_longest_delay() {
        let mut all = verdict(&[1, 2], &[1, 2]);
        all.join(verdict(&[1, 2, 3], &[2, 2, 1]));
        assert_eq!(all.messages, 5);
        assert_eq!(
            (&*all.lost, &*all.doubled, &*all.misplaced),
            (&[3][..], &[2][..], &[1][..])
        );
        assert_eq!(all.longest(), Some(Duration::from_millis(30)));
        assert!(!all.is_clean());
    }

    #[test]
    fn a_run_without_messages_proves_nothing() {
        assert!(!verdict(&[], &[]).is_clean());
    }

    #[test]
    fn a_table_stays_in_its_columns() {
        let mut table = Table::of_verdicts();
        table.verdict("room → channel", &verdict(&[1], &[1]));
        let text = table.to_string();
        let lengths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert_eq!(lengths[0], lengths[2]);
        assert_eq!(lengths[0], lengths[1]);
        assert!(lengths[0] <= 100, "{text}");
    }
}
