//! Checks of opened portals that need no network: those whose encrypted room has not agreed (B29), and those that are
//! broken (B30).

use std::collections::HashSet;

use footbridge_store::{Portal, PortalHold, PortalSource, Side, Snapshot};

use super::{CheckResult, CheckResults, bad};
use crate::{
    config::{Config, Diagnostic},
    control,
};

/// Checks every active portal.
pub(super) fn look(config: &Config, snapshot: &Snapshot, findings: &mut CheckResults) {
    let silos: HashSet<&str> = config.silos.iter().map(|silo| silo.name()).collect();
    for portal in &snapshot.portals {
        if !portal.active || portal.source == PortalSource::Management {
            continue;
        }
        let mut senders_without_keys = snapshot.senders_without_keys.iter();
        if let Some(one) = senders_without_keys.find(|one| one.place == portal.room) {
            findings.add(
                "keys",
                CheckResult::Uncertain(format!(
                    "{}: {}",
                    portal.spec.room,
                    control::senders_without_keys(&one.sender)
                )),
            );
        }
        let lacks_consent = snapshot
            .holds
            .iter()
            .any(|(id, hold)| *id == portal.id && *hold == PortalHold::Consent);
        if lacks_consent {
            findings.add("portal", bad(without_consent(portal)));
        }
        if let Some(diagnostic) = broken(snapshot, portal, &silos) {
            findings.add("portal", CheckResult::Warned(Box::new(diagnostic)));
        }
    }
}

fn name(portal: &Portal) -> String {
    let spec = &portal.spec;
    format!("{} - {} {}", spec.room, spec.silo, spec.channel)
}

fn without_consent(portal: &Portal) -> Diagnostic {
    let spec = &portal.spec;
    let (room, silo, channel) = (&spec.room, &spec.silo, &spec.channel);
    Diagnostic::new(
        "B29",
        format!("the encrypted room {room} has not given consent"),
    )
    .note(format!(
        "the portal {} is off until then; its messages wait, and the other portals run",
        name(portal)
    ))
    .help(format!(
        "somebody listed in `[admin] users` who may change power levels in {room} sends there, encrypted: !bridge \
         consent {silo} {channel}; or stop the bridge and run: footbridge portal add '{room}' {silo} {channel}"
    ))
}

/// What is wrong with a portal that worked when it was made.
fn broken(snapshot: &Snapshot, portal: &Portal, silos: &HashSet<&str>) -> Option<Diagnostic> {
    let what = if silos.contains(portal.spec.silo.as_str()) {
        let mut all_counters = snapshot.all_counters.iter();
        let closed = all_counters.find(|counters| {
            counters.lane.portal == portal.id && counters.closed_since.is_some()
        })?;
        let place = match closed.lane.toward {
            Side::Matrix => "the bridge has no access to its room",
            Side::Silo => "the bridge has no access to its channel",
        };
        let why = closed.closed_reason.iter();
        why.fold(place.to_owned(), |place, why| format!("{place}: {why}"))
    } else {
        format!("the configuration has no silo `{}`", portal.spec.silo)
    };
    let take_apart = match portal.source {
        PortalSource::Config => "remove its [[portal]] from the configuration".to_owned(),
        _ => format!("remove it: footbridge portal remove '{}'", portal.spec.room),
    };
    Some(
        Diagnostic::new("B30", format!("the portal {} is off: {what}", name(portal)))
            .warning()
            .note("its messages wait, and the other portals run")
            .help(format!("fix that, or {take_apart}")),
    )
}
