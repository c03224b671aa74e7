//! Reads `/metrics`, and checks the equation that must always hold.

use std::collections::BTreeMap;

use anyhow::bail;

/// The samples of one response of `/metrics`.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: u64,
}

/// How many messages were accepted, delivered, skipped, failed or are pending, in one lane or in all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names explain the fields")]
pub struct Tally {
    pub accepted: u64,
    pub delivered: u64,
    pub skipped: u64,
    pub failed: u64,
    pub pending: u64,
}

impl Metrics {
    /// Parses the Prometheus text format; skips lines that are not samples with whole numbers.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self {
            samples: text.lines().filter_map(parse_sample).collect(),
        }
    }

    /// The sum of all samples with this name, whatever their labels; 0 if there are none.
    #[must_use]
    pub fn sum(&self, name: &str) -> u64 {
        self.samples
            .iter()
            .filter(|sample| sample.name == name)
            .map(|sample| sample.value)
            .sum()
    }

    /// The sum of the samples with this name that have this label.
    #[must_use]
    pub fn sum_where(&self, name: &str, label: &str, value: &str) -> u64 {
        let fits = |sample: &&Sample| {
            sample.name == name && sample.labels.get(label).is_some_and(|is| is == value)
        };
        self.samples
            .iter()
            .filter(fits)
            .map(|sample| sample.value)
            .sum()
    }

    /// The samples with this name, by the value of a label.
    #[must_use]
    pub fn by_label(&self, name: &str, label: &str) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        for sample in self.samples.iter().filter(|sample| sample.name == name) {
            if let Some(value) = sample.labels.get(label) {
                *found.entry(value.clone()).or_default() += sample.value;
            }
        }
        found
    }

    /// Fails unless `accepted = delivered + skipped + failed + pending` in every lane; returns the sums of all lanes.
    pub fn conservation(&self) -> anyhow::Result<Tally> {
        let mut lanes: BTreeMap<(&str, &str), Tally> = BTreeMap::new();
        let mut sum = Tally::default();
        for sample in &self.samples {
            let label = |name| sample.labels.get(name).map_or("", String::as_str);
            let lane = lanes.entry((label("portal"), label("toward"))).or_default();
            for tally in [lane, &mut sum] {
                match sample.name.as_str() {
                    "footbridge_accepted_total" => tally.accepted += sample.value,
                    "footbridge_delivered_total" => tally.delivered += sample.value,
                    "footbridge_skipped_total" => tally.skipped += sample.value,
                    "footbridge_failed_total" => tally.failed += sample.value,
                    "footbridge_pending" => tally.pending += sample.value,
                    _ => {}
                }
            }
        }
        for ((portal, toward), tally) in &lanes {
            let ended = tally.delivered + tally.skipped + tally.failed + tally.pending;
            if tally.accepted != ended {
                bail!("portal {portal} toward {toward} does not add up: {tally:?}");
            }
        }
        Ok(sum)
    }
}

fn parse_sample(line: &str) -> Option<Sample> {
    if line.starts_with('#') {
        return None;
    }
    let (head, value) = line.rsplit_once(' ')?;
    let (name, labels) = match head.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (head, ""),
    };
    // Values of the bridge's labels are ids and words: no commas or quotes to unescape.
    let labels = labels
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
        .collect();
    Some(Sample {
        name: name.to_owned(),
        labels,
        value: value.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
# TYPE footbridge_accepted counter
footbridge_accepted_total{portal=\"1\",toward=\"silo\"} 7
footbridge_delivered_total{portal=\"1\",toward=\"silo\"} 3
footbridge_skipped_total{portal=\"1\",toward=\"silo\",rule=\"own\"} 1
footbridge_skipped_total{portal=\"1\",toward=\"silo\",rule=\"state\"} 1
footbridge_failed_total{portal=\"1\",toward=\"silo\"} 1
footbridge_pending{portal=\"1\",toward=\"silo\"} 1
footbridge_accepted_total{portal=\"1\",toward=\"matrix\"} 2
footbridge_delivered_total{portal=\"1\",toward=\"matrix\"} 2
footbridge_up 1
# EOF
";

    #[test]
    fn lanes_are_summed_by_label() {
        let metrics = Metrics::parse(GOOD);
        assert_eq!(metrics.sum("footbridge_accepted_total"), 9);
        assert_eq!(
            metrics.sum_where("footbridge_skipped_total", "toward", "silo"),
            2
        );
        assert_eq!(metrics.sum("footbridge_up"), 1);
        let by_rule = metrics.by_label("footbridge_skipped_total", "rule");
        assert_eq!(
            by_rule,
            [("own".to_owned(), 1), ("state".to_owned(), 1)].into()
        );
        let sum = metrics.conservation().unwrap();
        assert_eq!((sum.accepted, sum.delivered, sum.pending), (9, 5, 1));
    }

    #[test]
    fn a_message_that_vanished_in_one_lane_is_noticed_even_when_the_sums_agree() {
        let text = GOOD
            .replace("toward=\"silo\"} 3", "toward=\"silo\"} 2")
            .replace(
                "\"matrix\"} 2\nfootbridge_up",
                "\"matrix\"} 3\nfootbridge_up",
            );
        let error = Metrics::parse(&text)
            .conservation()
            .unwrap_err()
            .to_string();
        assert!(error.contains("does not add up"), "{error}");
    }
}
