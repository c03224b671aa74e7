//! The rows, by what their faults concern.

mod churn;
mod device;
mod closed_places;
mod feeds;
mod hostile;
mod keys;
mod kills;
mod limits;
mod quirks;
mod outage;
mod session;
mod store;
mod network;

use super::Row;

/// Every row that can be run, in the order of the catalogue.
#[must_use]
pub fn all() -> Vec<Row> {
    let mut rows: Vec<Row> = [
        churn::rows(),
        device::rows(),
        closed_places::rows(),
        feeds::rows(),
        hostile::rows(),
        keys::rows(),
        kills::rows(),
        limits::rows(),
        quirks::rows(),
        outage::rows(),
        session::rows(),
        store::rows(),
        network::rows(),
    ]
    .into_iter()
    .flatten()
    .collect();
    rows.sort_by_key(|row| row.id);
    rows
}

/// The row with this id, in upper or lower case.
#[must_use]
pub fn find(id: &str) -> Option<Row> {
    all()
        .into_iter()
        .find(|row| row.id.eq_ignore_ascii_case(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_name_and_there_once() {
        let rows = all();
        for row in &rows {
            assert_eq!(find(&row.id.to_lowercase()).unwrap().title, row.title);
            assert_eq!(rows.iter().filter(|other| other.id == row.id).count(), 1);
        }
        assert!(find("F99").is_none());
    }
}
