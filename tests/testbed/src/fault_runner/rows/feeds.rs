//! Faults of the silo's feeds and of its limits.

use std::time::Duration;

use super::super::{Context, FaultScenario, Outcome, Row, ScenarioOptions};
use crate::proxy::{Cut, Fault, Matcher, Page, Rule};
use footbridge_simulators::gitter::Framing;

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            id: "F12",
            title: "feeds break every second or two",
            help: "Resets the HTTP stream, and in the second half the Bayeux connection, many times under traffic \
                   both ways; lines of the stream are split at odd places.",
            run: |context| Box::pin(resets(context)),
        },
        Row {
            id: "F15",
            title: "feeds that are open and silent",
            help: "The stream and Bayeux stay open and deliver nothing; the audit finds the messages sent meanwhile.",
            run: |context| Box::pin(silent(context)),
        },
        Row {
            id: "F18",
            title: "a series of 429 from the silo",
            help: "Refusals with missing, wrong and late reset headers, in addition to the silo's own limit of 300 a \
                   minute; the remark compares the requests made with those allowed.",
            run: |context| Box::pin(limited(context)),
        },
        Row {
            id: "F34",
            title: "garbage on the feeds",
            help: "Noise, cut frames, split characters, doubled lines and one byte at a time on stream and Bayeux; \
                   the remark gives the growth of memory.",
            run: |context| Box::pin(garbage(context)),
        },
    ]
}

async fn resets(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    for feed in ["stream", "realtime"] {
        let rig = FaultScenario::open(
            context,
            ScenarioOptions {
                feed,
                ..ScenarioOptions::default()
            },
        )
        .await?;
        rig.scene.sim.faults().set_framing(Framing {
            split: true,
            ..Framing::default()
        });
        let mut cuts = 0;
        rig.while_talking(8.0, async {
            for _ in 0..context.pick(3, 10, 100) {
                let pause = rand::random_range(1000..context.pick(1500, 2500, 5000));
                tokio::time::sleep(Duration::from_millis(pause)).await;
                for feed in rig.feeds()? {
                    cuts += u64::try_from(feed.cut_all(Cut::Reset))?;
                }
            }
            Ok(())
        })
        .await?;
        rig.scene.sim.faults().clear();
        let half = rig.finish("F12").await?;
        outcome = joined(outcome, half, cuts);
    }
    Ok(outcome)
}

/// Joins the results of two runs of one row.
fn joined(mut all: Outcome, half: Outcome, injections: u64) -> Outcome {
    all.fault = half.fault;
    all.injections += injections;
    all.verdict.join(half.verdict);
    all.restarts += half.restarts;
    all.took += half.took;
    all.objections.extend(half.objections);
    all
}

async fn silent(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    for feed in ["stream", "realtime"] {
        let rig = FaultScenario::open(
            context,
            ScenarioOptions {
                feed,
                silo: "audit = \"10s\"",
                ..ScenarioOptions::default()
            },
        )
        .await?;
        let faults = rig.scene.sim.faults();
        faults.mute_realtime(true);
        faults.set_framing(Framing {
            mute: true,
            ..Framing::default()
        });
        rig.talk(context.pick(5, 20, 100), 5.0).await?;
        // The feed is still silent: only the audit can find the message.
        rig.arrive(Duration::from_mins(6)).await;
        let unheard = rig.traffic.missing(&rig.scene);
        faults.clear();
        rig.talk(3, 3.0).await?;
        let mut half = rig.finish("F15").await?;
        if unheard > 0 {
            half.object(&format!("{feed}: the audit did not find {unheard}"));
        }
        outcome = joined(outcome, half, 1);
    }
    Ok(outcome)
}

async fn limited(context: &Context<'_>) -> anyhow::Result<Outcome> {
    const ALLOWED: u32 = 300;
    let rig = FaultScenario::open(
        context,
        ScenarioOptions {
            requests_per_minute: ALLOWED,
            ..ScenarioOptions::default()
        },
    )
    .await?;
    let api = rig.api()?;
    let soon = rig.scene.sim.now_ms() + 3_000;
    let refusals = [
        vec![("x-ratelimit-remaining", "0".to_owned())],
        vec![
            ("x-ratelimit-remaining", "50".to_owned()),
            ("x-ratelimit-reset", "0".to_owned()),
        ],
        vec![
            ("x-ratelimit-remaining", "0".to_owned()),
            ("x-ratelimit-reset", soon.to_string()),
        ],
    ];
    for headers in refusals {
        let fault = Fault::Status {
            status: 429,
            page: Page::Empty,
            headers,
            retry_after_ms: None,
            after_work: false,
        };
        let times = context.pick(1, 2, 8);
        api.add(Rule::times("429", Matcher::posts(), fault, times));
    }
    let began = std::time::Instant::now();
    rig.talk(context.pick(20, 150, 900), 8.0).await?;
    rig.arrive(Duration::from_mins(12)).await;
    let minutes = (began.elapsed().as_secs() / 60 + 1) * u64::from(ALLOWED);
    let made = api.recorded_requests(began, &Matcher::all()).len();
    let mut outcome = rig.finish("F18").await?;
    outcome.remark = format!("{made} requests, {minutes} allowed");
    if u64::try_from(made)? * 100 > minutes * 105 {
        outcome.object("more than 105 % of what is allowed");
    }
    Ok(outcome)
}

async fn garbage(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    for feed in ["stream", "realtime"] {
        let rig = FaultScenario::open(
            context,
            ScenarioOptions {
                feed,
                ..ScenarioOptions::default()
            },
        )
        .await?;
        rig.talk(20, 10.0).await?;
        rig.arrive(Duration::from_mins(1)).await;
        let before = rig.scene.bridge.usage()?.resident_kib;
        let rounds = context.pick(2, 4, 30);
        for proxy in rig.feeds()? {
            for round in 0..rounds {
                let add = |fault| proxy.add(Rule::times("noise", Matcher::all(), fault, 1));
                add(Fault::Garbage(1 << 20));
                add(Fault::CutAfter(37 + 11 * round, Cut::Close));
                add(Fault::Trickle(1, Duration::from_millis(1)));
            }
        }
        rig.scene.sim.faults().set_framing(Framing {
            split: true,
            duplicate: true,
            glue_keepalive: true,
            ..Framing::default()
        });
        rig.while_talking(6.0, async {
            for _ in 0..rounds * 3 {
                for proxy in rig.feeds()? {
                    proxy.cut_all(Cut::Reset);
                }
                tokio::time::sleep(Duration::from_millis(1200)).await;
            }
            Ok(())
        })
        .await?;
        rig.scene.sim.faults().clear();
        let after = rig.scene.bridge.usage()?.resident_kib;
        let mut half = rig.finish("F34").await?;
        let injections = half.injections;
        let grown = after.saturating_sub(before) / 1024;
        if grown > 8 {
            half.object(&format!("{feed}: memory grew by {grown} MiB"));
        }
        outcome = joined(outcome, half, injections);
        outcome.note(&format!("{feed} +{grown} MiB"));
    }
    Ok(outcome)
}
