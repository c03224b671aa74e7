//! The admin address: health and metrics for machines, on loopback. It shows booleans, ages and counts; no room, no
//! name and no text.

mod health_report;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use footbridge_core::http_server::{self, ConnectionLimits};
use footbridge_store::{LaneCounters, Millis};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use health_report::{Backlog, HealthReport, Limited, place_of};

/// A request for health or metrics takes seconds; a monitoring client keeps its connection open for the next request.
const LIMITS: ConnectionLimits = ConnectionLimits {
    at_once: 32,
    head_within: Duration::from_secs(15),
    all_within: Duration::from_mins(10),
};

/// What the running bridge reports about itself.
#[async_trait]
pub trait HealthSource: Send + Sync {
    /// The current health.
    async fn state(&self) -> HealthReport;
    /// The conservation counters; `None` when the store cannot be read.
    async fn all_counters(&self) -> Option<Vec<LaneCounters>>;
    /// The time.
    fn now(&self) -> Millis;
}

/// Serves the admin address until `stop` is cancelled.
pub async fn serve(
    listener: TcpListener,
    source: Arc<dyn HealthSource>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/health/live", get(|| async { "ok\n" }))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(source);
    http_server::serve(listener, router, LIMITS, stop).await
}

async fn ready(State(source): State<Arc<dyn HealthSource>>) -> Response {
    let health = source.state().await;
    let status = if health.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(health)).into_response()
}

async fn metrics(State(source): State<Arc<dyn HealthSource>>) -> Response {
    let Some(all_counters) = source.all_counters().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let health = source.state().await;
    let text = render(&all_counters, &health, source.now());
    (
        [(
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        text,
    )
        .into_response()
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LaneLabels {
    portal: i64,
    toward: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RuleLabels {
    portal: i64,
    toward: &'static str,
    rule: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    portal: i64,
    toward: &'static str,
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BacklogLabels {
    portal: i64,
    toward: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AccountLabels {
    account: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabels {
    class: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NetworkLabels {
    network: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SiloLabels {
    silo: String,
}

/// The metric families of `/metrics`.
#[derive(Default)]
struct MetricFamilies {
    accepted: Family<LaneLabels, Counter>,
    delivered: Family<LaneLabels, Counter>,
    failed: Family<LaneLabels, Counter>,
    skipped: Family<RuleLabels, Counter>,
    pending: Family<LaneLabels, Gauge>,
    waiting: Family<LaneLabels, Gauge>,
    oldest: Family<LaneLabels, Gauge>,
    parked: Family<LaneLabels, Gauge>,
    closed: Family<LaneLabels, Gauge>,
    last_failure: Family<FailureLabels, Gauge>,
    imbalance: Gauge,
    sync_age: Gauge,
    hindered: Gauge,
    free: Gauge,
    live: Family<SiloLabels, Gauge>,
    channels_closed: Family<SiloLabels, Gauge>,
    rooms_closed: Gauge,
    limited: Family<AccountLabels, Gauge>,
    pace: Family<AccountLabels, Gauge<f64, AtomicU64>>,
    empty_after: Family<BacklogLabels, Gauge>,
    security: Family<ClassLabels, Counter>,
    missed_events: Counter,
    answers_withheld: Family<NetworkLabels, Counter>,
    notices_withheld: Counter,
}

impl MetricFamilies {
    fn lane(&self, counters: &LaneCounters, now: Millis) {
        let labels = LaneLabels {
            portal: counters.lane.portal.0,
            toward: counters.lane.toward.as_str(),
        };
        self.accepted
            .get_or_create(&labels)
            .inc_by(counters.accepted);
        self.delivered
            .get_or_create(&labels)
            .inc_by(counters.delivered);
        self.failed.get_or_create(&labels).inc_by(counters.failed);
        self.pending
            .get_or_create(&labels)
            .set(signed(counters.pending));
        self.waiting
            .get_or_create(&labels)
            .set(signed(counters.waiting));
        let age = counters
            .oldest_pending
            .map_or(0, |since| now.since(since).as_secs());
        self.oldest.get_or_create(&labels).set(signed(age));
        self.parked
            .get_or_create(&labels)
            .set(signed(counters.parked));
        let closed = counters
            .closed_since
            .map_or(0, |since| now.since(since).as_secs().max(1));
        self.closed.get_or_create(&labels).set(signed(closed));
        if let Some(kind) = &counters.last_failure {
            let LaneLabels { portal, toward } = labels;
            let labels = FailureLabels {
                portal,
                toward,
                kind: kind.clone(),
            };
            self.last_failure.get_or_create(&labels).set(1);
        }
        let mut ended = counters.delivered + counters.failed + counters.pending;
        for (rule, count) in &counters.skipped {
            ended += count;
            let LaneLabels { portal, toward } = labels;
            let labels = RuleLabels {
                portal,
                toward,
                rule: rule.as_str().to_owned(),
            };
            self.skipped.get_or_create(&labels).inc_by(*count);
        }
        self.imbalance
            .inc_by(signed(counters.accepted) - signed(ended));
    }

    fn health(&self, health: &HealthReport) {
        self.sync_age
            .set(health.sync_age_seconds.map_or(-1, signed));
        let well = health.store_state == "well";
        self.hindered.set(i64::from(!well));
        self.free.set(health.store_free_bytes.map_or(-1, signed));
        for (silo, state) in &health.silos {
            let live = i64::from(state == "live");
            self.live
                .get_or_create(&SiloLabels { silo: silo.clone() })
                .set(live);
        }
        for (silo, closed) in &health.channels_closed {
            let labels = SiloLabels { silo: silo.clone() };
            let closed = i64::try_from(*closed).unwrap_or(i64::MAX);
            self.channels_closed.get_or_create(&labels).set(closed);
        }
        self.rooms_closed
            .set(i64::try_from(health.rooms_closed).unwrap_or(i64::MAX));
        self.missed_events.inc_by(health.missed_events);
        for (class, count) in &health.security {
            let labels = ClassLabels {
                class: class.clone(),
            };
            self.security.get_or_create(&labels).inc_by(*count);
        }
        for (network, count) in &health.answers_withheld {
            let labels = NetworkLabels {
                network: network.clone(),
            };
            self.answers_withheld.get_or_create(&labels).inc_by(*count);
        }
        self.notices_withheld.inc_by(health.notices_withheld);
        for limited in &health.limited {
            let labels = AccountLabels {
                account: limited.account.clone(),
            };
            self.limited.get_or_create(&labels).set(1);
            if let Some(seconds) = limited.seconds_per_event {
                self.pace.get_or_create(&labels).set(seconds);
            }
        }
        for backlog in &health.backlogs {
            let labels = BacklogLabels {
                portal: backlog.portal,
                toward: backlog.toward.clone(),
            };
            self.empty_after
                .get_or_create(&labels)
                .set(signed(backlog.empty_after_seconds));
        }
    }

    fn register(self) -> Registry {
        let mut all = Registry::with_prefix("footbridge");
        all.register(
            "accepted",
            "Messages accepted for a lane, in total",
            self.accepted,
        );
        all.register("delivered", "Messages delivered", self.delivered);
        all.register(
            "skipped",
            "Messages skipped by a documented rule",
            self.skipped,
        );
        all.register(
            "failed",
            "Messages that failed permanently; a notice was sent",
            self.failed,
        );
        all.register("pending", "Messages still to be delivered", self.pending);
        all.register(
            "waiting_for_key",
            "Of the pending messages, those whose room key is missing",
            self.waiting,
        );
        all.register(
            "oldest_pending_seconds",
            "Age of the oldest message still to be delivered",
            self.oldest,
        );
        all.register(
            "parked",
            "Of the failed messages, those that are kept so that people can retry them",
            self.parked,
        );
        all.register(
            "closed_seconds",
            "Time since the bridge lost access to the place; 0 while it has access",
            self.closed,
        );
        all.register(
            "last_failure",
            "1, labelled with the kind of error of the last failure",
            self.last_failure,
        );
        let conservation = "accepted - delivered - skipped - failed - pending: always 0";
        all.register("conservation_error", conservation, self.imbalance);
        let sync_age = "Time since the homeserver last answered a sync; -1 before the first";
        let missed = "Events that the homeserver's syncs left out and an audit found";
        all.register("missed_events", missed, self.missed_events);
        all.register("sync_age_seconds", sync_age, self.sync_age);
        let hindered = "1 while there is little space on the disk, or nothing can be written";
        all.register("store_hindered", hindered, self.hindered);
        let free = "Free disk space of the store; -1 when unknown";
        all.register("store_free_bytes", free, self.free);
        all.register(
            "limited",
            "1 while the other side rate-limits this account; absent otherwise",
            self.limited,
        );
        all.register(
            "seconds_per_event",
            "The pace of a rate-limited account, once it is known",
            self.pace,
        );
        all.register(
            "empty_after_seconds",
            "Estimated time until the lane of a rate-limited account is empty",
            self.empty_after,
        );
        let refused = "Security rejections since the start, by class; the numbers should not grow";
        all.register("security", refused, self.security);
        let answers = "Answers withheld since the start because somebody asked too often";
        all.register("answers_withheld", answers, self.answers_withheld);
        let notices = "Notices withheld since the start because there were too many of them";
        all.register("notices_withheld", notices, self.notices_withheld);
        all.register("silo_live", "1 while the silo's feed is live", self.live);
        let closed = "Channels that are closed to the silo's account";
        all.register("silo_channels_closed", closed, self.channels_closed);
        let closed =
            "Portals whose room the account is not in, or may not write pending messages into";
        all.register("rooms_closed", closed, self.rooms_closed);
        all
    }
}

/// The `/metrics` text, in the OpenMetrics format.
fn render(all_counters: &[LaneCounters], health: &HealthReport, now: Millis) -> String {
    let families = MetricFamilies::default();
    for counters in all_counters {
        families.lane(counters, now);
    }
    families.health(health);
    let mut text = String::new();
    // Writing into a String cannot fail.
    if encode(&mut text, &families.register()).is_err() {
        text.clear();
    }
    text
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use footbridge_store::{LaneId, PortalId, Side, SkipRule};

    use super::*;

    #[test]
    fn the_metrics_show_every_state_and_no_imbalance() {
        let counters = LaneCounters {
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
            closed_reason: None,
        };
        let text = render(&[counters], &HealthReport::default(), Millis(61_000));
        assert!(
            text.contains(r#"footbridge_accepted_total{portal="1",toward="silo"} 10"#),
            "{text}"
        );
        assert!(
            text.contains(r#"footbridge_skipped_total{portal="1",toward="silo",rule="notice"} 2"#),
            "{text}"
        );
        assert!(
            text.contains(r#"footbridge_oldest_pending_seconds{portal="1",toward="silo"} 60"#),
            "{text}"
        );
        assert!(text.contains("footbridge_conservation_error 0"), "{text}");
        assert!(
            text.contains(r#"footbridge_parked{portal="1",toward="silo"} 1"#),
            "{text}"
        );
        assert!(
            text.contains(r#"footbridge_closed_seconds{portal="1",toward="silo"} 60"#),
            "{text}"
        );
        assert!(
            text.contains(r#"footbridge_last_failure{portal="1",toward="silo",kind="rejected"} 1"#),
            "{text}"
        );
        assert!(!text.contains("footbridge_limited{"), "{text}");
    }

    #[test]
    fn closed_rooms_are_counted_beside_closed_channels() {
        let health = HealthReport {
            rooms_closed: 2,
            ..HealthReport::default()
        };
        let text = render(&[], &health, Millis(0));
        assert!(text.contains("footbridge_rooms_closed 2\n"), "{text}");
    }

    #[test]
    fn what_was_refused_is_shown_by_class() {
        let health = HealthReport {
            security: [
                ("replayed".to_owned(), 2),
                ("sender-mismatch".to_owned(), 0),
            ]
            .into(),
            ..HealthReport::default()
        };
        let text = render(&[], &health, Millis(0));
        for line in [
            r#"footbridge_security_total{class="replayed"} 2"#,
            r#"footbridge_security_total{class="sender-mismatch"} 0"#,
        ] {
            assert!(text.contains(line), "{line} is missing in {text}");
        }
    }

    #[test]
    fn a_limited_account_shows_its_pace_and_when_its_lanes_are_empty() {
        let health = HealthReport {
            limited: vec![Limited {
                account: "matrix".to_owned(),
                seconds_per_event: Some(5.1),
                messages_per_event: 3.0,
            }],
            backlogs: vec![Backlog {
                portal: 1,
                toward: "matrix".to_owned(),
                empty_after_seconds: 90,
            }],
            ..HealthReport::default()
        };
        let text = render(&[], &health, Millis(0));
        for line in [
            r#"footbridge_limited{account="matrix"} 1"#,
            r#"footbridge_seconds_per_event{account="matrix"} 5.1"#,
            r#"footbridge_empty_after_seconds{portal="1",toward="matrix"} 90"#,
        ] {
            assert!(text.contains(line), "{line} is missing in {text}");
        }
    }
}
