//! Faults of the network: responses and requests that are lost, doubled, late, or refused.

use std::time::Duration;

use super::super::{Context, FaultScenario, Outcome, Row, ScenarioOptions};
use crate::proxy::{Cut, Fault, Matcher, Page, Proxy, Rule};

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            id: "F00",
            title: "no faults",
            help: "The proxies inject no faults: the baseline for the other rows.",
            run: |context| Box::pin(control(context)),
        },
        Row {
            id: "F03",
            title: "the response is lost after the request was handled",
            help: "A third of all sends and posts is handled and its response dropped, half by a reset, half by a \
                   close; so are three in a hundred of all other requests. Nothing may be doubled.",
            run: |context| Box::pin(lost(context, "F03", Fault::DropReply)),
        },
        Row {
            id: "F04",
            title: "the request is lost before it is handled",
            help: "The same with requests that never reach the other side. Nothing may be lost.",
            run: |context| Box::pin(lost(context, "F04", Fault::DropRequest)),
        },
        Row {
            id: "F14",
            title: "requests are sent twice",
            help: "Every PUT and POST is forwarded twice. Nothing is doubled in the room; in the channel only what \
                   the network itself doubled, and the bridge relays none of these copies as a user's message.",
            run: |context| Box::pin(doubled(context)),
        },
        Row {
            id: "F33",
            title: "a series of 500, 502, 503 and 504",
            help: "Three requests in ten are refused, by the service itself, by a load balancer's page, or with an \
                   empty body; some of them after they were handled.",
            run: |context| Box::pin(storm(context)),
        },
        Row {
            id: "F35",
            title: "a slow and broken connection",
            help: "Requests are delayed by seconds, responses arrive byte by byte or at 1 kB/s, and connections are \
                   reset in the middle of a response.",
            run: |context| Box::pin(slow(context)),
        },
    ]
}

async fn control(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let portals = context.pick(2, 3, 6);
    let rig = FaultScenario::open(
        context,
        ScenarioOptions {
            portals,
            ..ScenarioOptions::default()
        },
    )
    .await?;
    rig.talk(context.pick(20, 80, 400), 12.0).await?;
    rig.finish("F00").await
}

/// Requests that create something: an unknown outcome matters for them.
fn making() -> [Matcher; 2] {
    [Matcher::sends(), Matcher::posts()]
}

async fn lost(
    context: &Context<'_>,
    id: &'static str,
    fault: fn(Cut) -> Fault,
) -> anyhow::Result<Outcome> {
    let rig = FaultScenario::open(
        context,
        ScenarioOptions {
            portals: context.pick(2, 3, 6),
            ..ScenarioOptions::default()
        },
    )
    .await?;
    for proxy in [rig.homeserver()?, rig.api()?] {
        for making in making() {
            for (how, chance) in [(Cut::Reset, 0.17), (Cut::Close, 0.2)] {
                proxy.add(Rule::sometimes("made", making.clone(), fault(how), chance));
            }
        }
        proxy.add(Rule::sometimes(
            "other",
            Matcher::all(),
            fault(Cut::Reset),
            0.03,
        ));
    }
    let target = context.pick(12, 60, 550);
    rig.talk_until_struck(target, 12.0, Duration::from_mins(15))
        .await?;
    let (sends, posts) = (count(rig.homeserver()?, "made"), count(rig.api()?, "made"));
    let mut outcome = rig.finish(id).await?;
    outcome.remark = format!("{sends} sends, {posts} posts");
    Ok(outcome)
}

fn count(proxy: &Proxy, rule: &str) -> u64 {
    proxy.injected().get(rule).copied().unwrap_or_default()
}

async fn doubled(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let rig = FaultScenario::open(
        context,
        ScenarioOptions {
            portals: context.pick(1, 2, 4),
            ..ScenarioOptions::default()
        },
    )
    .await?;
    let twice = Fault::Duplicate;
    rig.homeserver()?
        .add(Rule::always("sends", Matcher::sends(), twice.clone()));
    rig.homeserver()?.add(Rule::always(
        "other",
        Matcher::of(axum::http::Method::PUT),
        twice.clone(),
    ));
    rig.homeserver()?.add(Rule::always(
        "other",
        Matcher::of(axum::http::Method::POST).without("/login"),
        twice.clone(),
    ));
    rig.api()?
        .add(Rule::sometimes("posts", Matcher::posts(), twice, 0.5));
    let target = context.pick(20, 90, 600);
    rig.talk_until_struck(target, 12.0, Duration::from_mins(10))
        .await?;
    let mut outcome = rig.finish("F14").await?;
    let (sends, posts) = (
        count(rig.homeserver()?, "sends"),
        count(rig.api()?, "posts"),
    );
    outcome.remark = format!("{sends} sends and {posts} posts were doubled");
    // Gitter has no idempotency key: two posts are two messages, and no bridge can know of the second.
    let spare = rig.traffic.spare_copies_in_channels(&rig.scene);
    if usize::try_from(posts).is_ok_and(|posts| posts == spare) {
        outcome.excused = spare;
    } else {
        outcome
            .objections
            .push(format!("{spare} extra copies in the channel"));
    }
    Ok(outcome)
}

async fn storm(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let rig = FaultScenario::open(
        context,
        ScenarioOptions {
            portals: context.pick(2, 3, 6),
            ..ScenarioOptions::default()
        },
    )
    .await?;
    for proxy in rig.everywhere()? {
        for (status, page, after_work) in [
            (500, Page::Matrix, false),
            (500, Page::Html, true),
            (502, Page::Html, false),
            (502, Page::Empty, true),
            (503, Page::Empty, false),
            (503, Page::Html, false),
            (504, Page::Html, true),
            (504, Page::Empty, false),
        ] {
            let fault = Fault::Status {
                status,
                page,
                headers: Vec::new(),
                retry_after_ms: None,
                after_work,
            };
            // Eight rules in a row, together three in ten requests.
            proxy.add(Rule::sometimes("5xx", Matcher::all(), fault, 0.043));
        }
    }
    let target = context.pick(25, 100, 700);
    rig.talk_until_struck(target, 12.0, Duration::from_mins(10))
        .await?;
    rig.finish("F33").await
}

async fn slow(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let rig = FaultScenario::open(
        context,
        ScenarioOptions {
            portals: context.pick(2, 4, 8),
            ..ScenarioOptions::default()
        },
    )
    .await?;
    let longest = context.pick(
        Duration::from_millis(800),
        Duration::from_secs(3),
        Duration::from_secs(10),
    );
    for proxy in rig.everywhere()? {
        let add = |name, fault, chance| {
            proxy.add(Rule::sometimes(name, Matcher::all(), fault, chance));
        };
        add("cut", Fault::CutAfter(1, Cut::Reset), 0.03);
        add("cut", Fault::CutAfter(40, Cut::Close), 0.03);
        add("cut", Fault::CutAfter(600, Cut::Reset), 0.05);
        add("bytes", Fault::Trickle(1, Duration::ZERO), 0.1);
        add(
            "1 kB/s",
            Fault::Trickle(100, Duration::from_millis(100)),
            0.1,
        );
        add("late", Fault::DelayReply(Duration::ZERO, longest), 0.1);
        add("late", Fault::Delay(Duration::ZERO, longest), 0.25);
    }
    let target = context.pick(25, 100, 600);
    let pace = context.pick(8.0, 6.0, 6.0);
    rig.talk_until_struck(target, pace, Duration::from_mins(10))
        .await?;
    // Feeds are opened once and rarely: they are cut so that the rules apply to them, too.
    for feed in rig.feeds()? {
        feed.cut_all(Cut::Reset);
    }
    rig.talk(context.pick(4, 10, 40), pace).await?;
    let mut outcome = rig.finish("F35").await?;
    outcome.remark = format!("latency up to {} s", longest.as_secs_f32());
    Ok(outcome)
}
