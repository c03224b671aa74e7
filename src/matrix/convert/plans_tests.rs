//! What each delivery of the table takes in a room.

use std::path::PathBuf;

use footbridge_core::{
    outlet::plan_table::{NOW, cases, check, table, write_plan},
    plan,
};

use super::CAPABILITIES;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("convert/plans")
        .join(name)
}

#[test]
fn each_delivery_has_its_plan_in_a_room() {
    check(
        &file("room.txt"),
        &table(|outgoing| plan::plan(&CAPABILITIES, outgoing, NOW)),
    );
}

#[test]
fn each_change_of_a_part_has_its_plan() {
    let seen = table(|outgoing| plan::part_edit(&CAPABILITIES, outgoing, 1));
    check(&file("part.txt"), &seen);
}

#[test]
fn a_bundle_is_one_plan() {
    use footbridge_core::outlet::Plan;
    let mut seen = String::new();
    let all = cases();
    for (name, outgoing) in &all {
        let (_, text) = all.first().unwrap();
        let both = [text.clone(), outgoing.clone()];
        let plan = match plan::bundle(&CAPABILITIES, &both) {
            Some((step, count)) => {
                assert_eq!(count, 2);
                Plan::Steps(vec![step])
            }
            None => Plan::Steps(Vec::new()),
        };
        write_plan(&mut seen, name, &plan);
    }
    check(&file("bundle.txt"), &seen);
}
