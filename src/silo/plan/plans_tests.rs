//! What each delivery of the table takes in a channel.

use std::{path::PathBuf, time::Duration};

use footbridge_core::{
    capabilities::Attribution,
    outlet::plan_table::{NOW, check, table},
};

use super::{PostRules, plan};
use crate::{markdown::Flavour, matterbridge};

const GITTER: PostRules = PostRules {
    flavour: Flavour::Gitter,
    longest: 4096,
    editable: Some(Duration::from_secs(590)),
    names: Attribution::Inline,
    files: false,
};
const MATTERMOST: PostRules = PostRules {
    flavour: Flavour::Mattermost,
    longest: 16_383,
    editable: None,
    names: Attribution::Override,
    files: true,
};

fn check_plans(name: &str, rules: &PostRules) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("plan/plans")
        .join(name);
    let seen = table(|outgoing| plan(rules, outgoing, NOW, |id| format!("https://x.example/{id}")));
    check(&file, &seen);
}

#[test]
fn each_delivery_has_its_plan_in_gitter() {
    check_plans("gitter.txt", &GITTER);
}

#[test]
fn each_delivery_has_its_plan_in_mattermost() {
    check_plans("mattermost.txt", &MATTERMOST);
}

#[test]
fn each_delivery_has_its_plan_in_mattermost_with_names_in_the_text() {
    let rules = PostRules {
        names: Attribution::Inline,
        ..MATTERMOST
    };
    check_plans("mattermost_inline.txt", &rules);
}

#[test]
fn each_delivery_has_its_plan_behind_a_matterbridge() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("plan/plans/matterbridge.txt");
    check(&file, &table(matterbridge::plan::plan));
}
