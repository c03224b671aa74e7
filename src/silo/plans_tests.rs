//! What each delivery of the table takes in a channel.

use std::path::PathBuf;

use footbridge_core::{
    capabilities::{Attribution, Capabilities},
    outlet::plan_table::{NOW, check, table},
    plan::plan,
};

use crate::{gitter, matterbridge, mattermost};

fn check_plans(name: &str, can: &Capabilities) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("plans")
        .join(name);
    check(&file, &table(|outgoing| plan(can, outgoing, NOW)));
}

#[test]
fn each_delivery_has_its_plan_in_gitter() {
    check_plans("gitter.txt", &gitter::CAPABILITIES);
}

#[test]
fn each_delivery_has_its_plan_in_mattermost() {
    let can = Capabilities {
        attribution: Attribution::Override,
        ..mattermost::CAPABILITIES
    };
    check_plans("mattermost.txt", &can);
}

#[test]
fn each_delivery_has_its_plan_in_mattermost_with_names_in_the_text() {
    check_plans("mattermost_inline.txt", &mattermost::CAPABILITIES);
}

#[test]
fn each_delivery_has_its_plan_behind_a_matterbridge() {
    check_plans("matterbridge.txt", &matterbridge::CAPABILITIES);
}
