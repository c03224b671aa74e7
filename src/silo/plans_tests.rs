//! What each delivery of the table takes in a channel. The results are in the folders of the silos.

use std::path::PathBuf;

use footbridge_core::{
    capabilities::{Attribution, Capabilities},
    outlet::plan_table::{NOW, check, table},
    plan::plan,
};

use crate::{KINDS, mattermost};

fn check_plans(file: &str, can: &Capabilities) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file);
    check(&file, &table(|outgoing| plan(can, outgoing, NOW)));
}

#[test]
fn each_delivery_has_its_plan_in_every_silo() {
    for kind in KINDS {
        check_plans(&format!("{}/plans.txt", kind.word), kind.can);
    }
}

#[test]
fn each_delivery_has_its_plan_in_a_mattermost_that_overrides_names() {
    let can = Capabilities {
        attribution: Attribution::Override,
        ..mattermost::CAPABILITIES
    };
    check_plans("mattermost/plans_override.txt", &can);
}
