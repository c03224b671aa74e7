//! `footbridge status`: the counters and holds of all portals, from the store, and the state of the feeds, from the
//! running bridge if there is one.

use std::{fmt::Write, time::Duration};

use footbridge_core::clock::{Clock, in_words};
use footbridge_matrix::Trust;
use footbridge_store::{
    AccountInfo, LaneCounters, Millis, Portal, PortalHold, PortalSource, PortalSpec, Snapshot,
    Store,
};
use serde_json::{Value, json};

use super::{
    CommandResult,
    args::OutputFormat,
    console,
    refused_invites::{refused_here, refused_nowhere},
    running_bridge::{RunningBridge, another, live},
};
use crate::{
    admin::HealthReport,
    config::{Config, Exit, PortalConfig},
    control,
};

/// Prints the status.
pub async fn run(config: &Config, form: OutputFormat) -> CommandResult {
    let snapshot = Store::snapshot(&config.store.path).await?;
    let found = live(config).await;
    if let RunningBridge::Another = found {
        console::warn(&format!(
            "{}: give this one another `[admin] listen`",
            another(config)
        ));
    }
    let health = found.ours();
    let now = Clock::start().now();
    console::say(&match form {
        OutputFormat::Text => text(&snapshot, health.as_ref(), config, now),
        OutputFormat::Json => object(&snapshot, health.as_ref(), config, now).to_string(),
    });
    Ok(Exit::Fine)
}

fn trust_of(config: &Config) -> &'static str {
    match config.trust() {
        Trust::CrossSigned => "cross-signed",
        Trust::AnyDevice => "any-device",
    }
}

fn counters_of(snapshot: &Snapshot, portal: &Portal) -> impl Iterator<Item = LaneCounters> {
    snapshot
        .all_counters
        .iter()
        .filter(|counters| counters.lane.portal == portal.id)
        .cloned()
        .collect::<Vec<_>>()
        .into_iter()
}

fn text(
    snapshot: &Snapshot,
    health: Option<&HealthReport>,
    config: &Config,
    now: Millis,
) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _infallible = write_text(&mut text, snapshot, health, config, now);
    text
}

fn write_text(
    out: &mut String,
    snapshot: &Snapshot,
    health: Option<&HealthReport>,
    config: &Config,
    now: Millis,
) -> std::fmt::Result {
    write_account(out, snapshot.account.as_ref())?;
    writeln!(out, "trust     {}", trust_of(config))?;
    write_bridge(out, health, config)?;
    for portal in snapshot.portals.iter().filter(|portal| is_shown(portal)) {
        writeln!(
            out,
            "\nportal {}  {} - {} {}{}",
            portal.id,
            portal.room_name(),
            portal.spec.silo,
            portal.spec.channel,
            match (portal.active, portal.source) {
                (true, _) => "",
                (false, PortalSource::Config) => "  (no longer in the configuration)",
                (false, _) => "  (removed)",
            }
        )?;
        for hold in held(snapshot, portal, now) {
            writeln!(out, "  {hold}")?;
        }
        for sender in senders_without_keys(snapshot, portal) {
            writeln!(out, "  {}", control::senders_without_keys(sender))?;
        }
        if let Some(at) = refused_here(snapshot, portal) {
            let ago = in_words(now.since(at));
            writeln!(
                out,
                "  the bridge refused the invite to this room {ago} ago, when no portal named it: invite it again"
            )?;
        }
        for counters in counters_of(snapshot, portal) {
            write_lane(out, &counters, empty_after(health, &counters), now)?;
        }
    }
    let refused = refused_nowhere(snapshot);
    if !refused.is_empty() {
        let (count, noun) = match refused.len() {
            1 => (1, "a room"),
            count => (count, "rooms"),
        };
        writeln!(
            out,
            "\nrefused   {count} invite{} to {noun} that no portal names; once one does, invite the bridge again:",
            if count == 1 { "" } else { "s" }
        )?;
        for invite in refused {
            let ago = in_words(now.since(invite.at));
            writeln!(out, "          {}, {ago} ago", invite.room.address())?;
        }
    }
    let unopened = unopened(snapshot, config);
    for spec in &unopened {
        writeln!(
            out,
            "\nportal -  {spec}  (never opened yet; `footbridge check` and the log say why)"
        )?;
    }
    if snapshot.portals.is_empty() && unopened.is_empty() {
        writeln!(
            out,
            "\nno portals; add a [[portal]] to {}",
            config.source.path()
        )?;
    }
    Ok(())
}

/// A management room is not shown as a portal.
fn is_shown(portal: &Portal) -> bool {
    portal.source != PortalSource::Management
}

/// The senders in a portal's room of whom no room key has ever come.
fn senders_without_keys<'a>(
    snapshot: &'a Snapshot,
    portal: &'a Portal,
) -> impl Iterator<Item = &'a str> {
    let here = move |one: &&'a footbridge_store::SenderWithoutKeys| {
        portal.active && one.place == portal.room
    };
    snapshot
        .senders_without_keys
        .iter()
        .filter(here)
        .map(|one| one.sender.as_str())
}

/// What puts a portal on hold, in words.
fn held(snapshot: &Snapshot, portal: &Portal, now: Millis) -> Vec<String> {
    let holds = snapshot.holds.iter().filter(|(id, _)| *id == portal.id);
    let words = holds.filter_map(|(_, hold)| match hold {
        PortalHold::Paused { by, since } => Some(format!(
            "paused by {by} for {}; messages wait",
            in_words(now.since(*since))
        )),
        PortalHold::Upgraded { since } => Some(format!(
            "its room was upgraded {} ago; messages wait",
            in_words(now.since(*since))
        )),
        PortalHold::Consent => Some("waiting for consent: its room is encrypted".to_owned()),
        PortalHold::Delay { until } => (*until > now).then(|| {
            format!(
                "consent given; relaying starts in {}",
                in_words(until.since(now))
            )
        }),
    });
    words.collect()
}

fn write_account(out: &mut String, account: Option<&AccountInfo>) -> std::fmt::Result {
    match account {
        Some(info) => writeln!(
            out,
            "account   {} on device {}{}",
            info.user_id,
            info.device_id,
            if info.master_key.is_some() {
                ""
            } else {
                "; login not finished: footbridge login"
            }
        ),
        None => writeln!(out, "account   nobody is logged in: footbridge login"),
    }
}

fn write_bridge(
    out: &mut String,
    health: Option<&HealthReport>,
    config: &Config,
) -> std::fmt::Result {
    match health {
        None => writeln!(
            out,
            "bridge    not running, or its admin address {} does not answer",
            config.admin.listen
        )?,
        Some(health) => {
            let sync = health.sync_age_seconds.map_or_else(
                || "no sync yet".to_owned(),
                |age| format!("last sync {} ago", age_text(age)),
            );
            writeln!(
                out,
                "bridge    running, {}; {} of {} portals open; {sync}",
                if health.ready { "ready" } else { "not ready" },
                health.portals_running,
                health.portals
            )?;
            match health.store_state.as_str() {
                "low" => writeln!(
                    out,
                    "store     little space is left on the disk: nothing is read until there is more"
                )?,
                "full" => writeln!(
                    out,
                    "store     the disk is full: everything waits until there is space"
                )?,
                "busy" => writeln!(
                    out,
                    "store     another process holds the file: everything waits for it"
                )?,
                _ => {}
            }
            for (silo, feed) in &health.silos {
                writeln!(out, "silo      {silo}: {feed}")?;
            }
            for limited in &health.limited {
                let pace = limited.seconds_per_event.map_or_else(
                    || "its pace is not known yet".to_owned(),
                    |seconds| format!("one event every {seconds:.1} s"),
                );
                writeln!(out, "limited   {}: {pace}", limited.account)?;
            }
        }
    }
    Ok(())
}

/// When the lane will be empty, in seconds, if its account is rate-limited.
fn empty_after(health: Option<&HealthReport>, counters: &LaneCounters) -> Option<u64> {
    let backlog = health?.backlogs.iter().find(|backlog| {
        backlog.portal == counters.lane.portal.0 && backlog.toward == counters.lane.toward.as_str()
    });
    backlog.map(|backlog| backlog.empty_after_seconds)
}

fn write_lane(
    out: &mut String,
    counters: &LaneCounters,
    empty_after: Option<u64>,
    now: Millis,
) -> std::fmt::Result {
    let skipped: u64 = counters.skipped.iter().map(|(_, count)| count).sum();
    write!(
        out,
        "  toward {:<7} accepted {}  delivered {}  skipped {skipped}  failed {}  pending {}",
        counters.lane.toward.as_str(),
        counters.accepted,
        counters.delivered,
        counters.failed,
        counters.pending,
    )?;
    if counters.waiting > 0 {
        write!(out, " ({} without their key)", counters.waiting)?;
    }
    if let Some(oldest) = counters.oldest_pending {
        write!(out, ", oldest {}", age_text(now.since(oldest).as_secs()))?;
    }
    if let Some(seconds) = empty_after {
        write!(out, ", empty in about {}", age_text(seconds))?;
    }
    writeln!(out)?;
    if counters.failed > 0 {
        writeln!(
            out,
            "                 {} of the failed can be retried; the last error: {}",
            counters.parked,
            counters.last_failure.as_deref().unwrap_or("unknown"),
        )?;
    }
    if let Some(since) = counters.closed_since {
        writeln!(
            out,
            "                 no access to the place for {}: {}",
            in_words(now.since(since)),
            counters.closed_reason.as_deref().unwrap_or("unknown")
        )?;
    }
    for (rule, count) in &counters.skipped {
        writeln!(out, "                 skipped by `{rule}`: {count}")?;
    }
    Ok(())
}

fn age_text(seconds: u64) -> String {
    in_words(Duration::from_secs(seconds))
}

/// Portals of the configuration and of the command line that were never opened.
fn unopened(snapshot: &Snapshot, config: &Config) -> Vec<String> {
    let mut specs: Vec<PortalSpec> = config.portals.iter().map(PortalConfig::spec).collect();
    let of_operator = snapshot
        .operator_portals
        .iter()
        .filter(|spec| !specs.contains(spec));
    let of_operator: Vec<PortalSpec> = of_operator.cloned().collect();
    specs.extend(of_operator);
    specs.retain(|spec| !snapshot.portals.iter().any(|portal| portal.spec == *spec));
    let name = |spec: &PortalSpec| format!("{} - {} {}", spec.room, spec.silo, spec.channel);
    specs.iter().map(name).collect()
}

fn object(
    snapshot: &Snapshot,
    health: Option<&HealthReport>,
    config: &Config,
    now: Millis,
) -> Value {
    let lane = |counters: &LaneCounters| {
        json!({
            "toward": counters.lane.toward.as_str(),
            "accepted": counters.accepted,
            "delivered": counters.delivered,
            "skipped": counters.skipped.iter().map(|(rule, count)| (rule.as_str(), *count)).collect::<std::collections::BTreeMap<_, _>>(),
            "failed": counters.failed,
            "pending": counters.pending,
            "waiting_for_key": counters.waiting,
            "parked": counters.parked,
            "last_failure": counters.last_failure,
            "closed_why": counters.closed_reason,
            "closed_seconds": counters.closed_since.map(|since| now.since(since).as_secs()),
            "oldest_pending_seconds": counters.oldest_pending.map(|oldest| now.since(oldest).as_secs()),
            "empty_after_seconds": empty_after(health, counters),
        })
    };
    let portals: Vec<Value> = snapshot
        .portals
        .iter()
        .filter(|portal| is_shown(portal))
        .map(|portal| {
            json!({
                "id": portal.id.0,
                "room": portal.room_name(),
                "silo": portal.spec.silo,
                "channel": portal.spec.channel,
                "active": portal.active,
                "held": held(snapshot, portal, now),
                "invite_refused_seconds": refused_here(snapshot, portal).map(|at| now.since(at).as_secs()),
                "no_key_ever_from": senders_without_keys(snapshot, portal).collect::<Vec<_>>(),
                "lanes": counters_of(snapshot, portal).map(|counters| lane(&counters)).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "account": snapshot.account.as_ref().map(|info| json!({
            "user_id": info.user_id,
            "device_id": info.device_id,
            "homeserver": info.homeserver,
            "finished": info.master_key.is_some(),
        })),
        "trust": trust_of(config),
        "bridge": health,
        "portals": portals,
        "never_opened": unopened(snapshot, config),
        "invites_refused": refused_nowhere(snapshot).into_iter().map(|invite| json!({
            "room": invite.room.address(),
            "seconds": now.since(invite.at).as_secs(),
        })).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use footbridge_store::{LaneId, Place, PortalId, RefusedInvite, Side, SkipRule};

    use super::*;
    use crate::admin::{Backlog, Limited};

    fn snapshot() -> Snapshot {
        let spec = PortalSpec {
            room: "#room:example.org".into(),
            silo: "gitter".into(),
            channel: "org/room".into(),
        };
        Snapshot {
            portals: vec![Portal {
                id: PortalId(1),
                spec,
                room: Place::room("!abc:example.org"),
                channel: Place::new("gitter", "5f"),
                active: true,
                source: PortalSource::Config,
            }],
            holds: Vec::new(),
            senders_without_keys: Vec::new(),
            refused: Vec::new(),
            operator_portals: Vec::new(),
            all_counters: vec![LaneCounters {
                lane: LaneId {
                    portal: PortalId(1),
                    toward: Side::Silo,
                },
                accepted: 10,
                delivered: 5,
                skipped: vec![(SkipRule::Notice, 2)],
                failed: 1,
                pending: 2,
                waiting: 1,
                oldest_pending: Some(Millis(1_000)),
                on_hold: 0,
                oldest_not_on_hold: Some(Millis(1_000)),
                parked: 1,
                last_failure: Some("rejected".into()),
                closed_since: Some(Millis(1_000)),
                closed_reason: Some("invite @bridge:example.org".into()),
            }],
            account: None,
        }
    }

    fn config(directory: &Path) -> Config {
        let path = directory.join("config.toml");
        let text = "[matrix]\nhomeserver = \"example.org\"\nuser = \"@bridge:example.org\"\n";
        std::fs::write(&path, text).unwrap();
        Config::load(&path).unwrap()
    }

    #[test]
    fn every_counter_of_every_lane_is_shown_in_both_forms() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        let text = text(&snapshot(), None, &config, Millis(61_000));
        assert!(text.contains("toward silo    accepted 10  delivered 5  skipped 2  failed 1  pending 2 (1 without their key), oldest 60 s"), "{text}");
        assert!(text.contains("skipped by `notice`: 2"), "{text}");
        assert!(text.contains("nobody is logged in"), "{text}");
        assert!(!text.contains("empty in"), "{text}");
        let object = object(&snapshot(), None, &config, Millis(61_000));
        let lane = &object["portals"][0]["lanes"][0];
        assert!(
            text.contains("1 of the failed can be retried; the last error: rejected"),
            "{text}"
        );
        assert!(
            text.contains("no access to the place for 60 s: invite @bridge:example.org\n"),
            "{text}"
        );
        assert_eq!(lane["parked"], 1);
        assert_eq!(lane["last_failure"], "rejected");
        assert_eq!(lane["closed_seconds"], 60);
        assert_eq!(lane["closed_why"], "invite @bridge:example.org");
        assert_eq!(lane["pending"], 2);
        assert_eq!(lane["skipped"]["notice"], 2);
        assert_eq!(lane["oldest_pending_seconds"], 60);
    }

    #[test]
    fn a_refused_invite_is_shown_with_its_portal_and_without_one() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        let mut snapshot = snapshot();
        for room in ["!abc:example.org", "!nobody:example.org"] {
            snapshot.refused.push(RefusedInvite {
                room: Place::room(room),
                at: Millis(1_000),
            });
        }
        let text = text(&snapshot, None, &config, Millis(61_000));
        let here = "the bridge refused the invite to this room 60 s ago, when no portal named it: invite it again";
        assert_eq!(text.matches(here).count(), 1, "{text}");
        assert!(
            text.contains("1 invite to a room that no portal names"),
            "{text}"
        );
        assert!(text.contains("!nobody:example.org, 60 s ago"), "{text}");
        let object = object(&snapshot, None, &config, Millis(61_000));
        assert_eq!(object["portals"][0]["invite_refused_seconds"], 60);
        assert_eq!(
            object["invites_refused"],
            json!([{"room": "!nobody:example.org", "seconds": 60}])
        );
    }

    #[test]
    fn a_portal_of_the_command_line_that_was_never_opened_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        let mut snapshot = snapshot();
        let opened = snapshot.portals[0].spec.clone();
        let spec = PortalSpec {
            channel: "org/nope".to_owned(),
            ..opened.clone()
        };
        snapshot.operator_portals.extend([spec, opened]);
        let text = text(&snapshot, None, &config, Millis(61_000));
        assert!(
            text.contains("portal -  #room:example.org - gitter org/nope  (never opened yet"),
            "{text}"
        );
        let object = object(&snapshot, None, &config, Millis(61_000));
        assert_eq!(
            object["never_opened"],
            json!(["#room:example.org - gitter org/nope"])
        );
    }

    #[test]
    fn a_limited_account_reports_its_pace_and_when_its_lanes_are_empty() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        let health = HealthReport {
            limited: vec![Limited {
                account: "gitter".into(),
                seconds_per_event: Some(5.04),
                messages_per_event: 1.0,
            }],
            backlogs: vec![Backlog {
                portal: 1,
                toward: "silo".into(),
                empty_after_seconds: 600,
            }],
            ..HealthReport::default()
        };
        let text = text(&snapshot(), Some(&health), &config, Millis(61_000));
        assert!(
            text.contains("limited   gitter: one event every 5.0 s"),
            "{text}"
        );
        assert!(
            text.contains("oldest 60 s, empty in about 10 min"),
            "{text}"
        );
        let object = object(&snapshot(), Some(&health), &config, Millis(61_000));
        assert_eq!(object["portals"][0]["lanes"][0]["empty_after_seconds"], 600);
        assert_eq!(object["bridge"]["limited"][0]["seconds_per_event"], 5.04);
    }
}
