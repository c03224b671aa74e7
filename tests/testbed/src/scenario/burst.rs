//! Many messages in a minute, with an account that may send twelve events a minute: what a user in the room reads, and
//! when.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Options, Scenario, until};
use crate::bridge::Usage;
use crate::report::{Arrived, Verdict};
use crate::synapse::Synapse;

/// The field with the parts of a bundle.
const PARTS: &str = "org.footbridge.parts";

/// The options of a burst.
#[derive(Debug, Clone, Copy)]
pub struct Burst {
    /// How many messages.
    pub messages: u32,
    /// The time within which they are sent.
    pub within: Duration,
    /// How many users send them, three messages each in turn.
    pub authors: usize,
    /// Whether waiting messages may be bundled in one event.
    pub coalesce: bool,
    /// The timeout for all messages.
    pub patience: Duration,
}

/// The result of a burst.
#[derive(Debug)]
pub struct Outcome {
    /// What was lost, doubled or reordered, as Ann read it.
    pub verdict: Verdict,
    /// Messages shown under a name that is not their author's.
    pub misattributed: usize,
    /// How many events carried the messages.
    pub events: usize,
    /// From the first message sent until the last could be read.
    pub took: Duration,
    /// The bridge's memory before the burst.
    pub before: Usage,
    /// The bridge's memory after it, with its peak.
    pub after: Usage,
    /// The last values of pace and backlog in `/metrics` while messages waited, in seconds.
    pub pace: Option<f64>,
    /// The longest estimate seen.
    pub estimate: u64,
}

/// Runs a burst on this homeserver.
pub async fn burst(
    synapse: &Synapse,
    mut options: Options,
    burst: Burst,
    tell: &(dyn Fn(&str) + Sync),
) -> anyhow::Result<Outcome> {
    options.delivery_options = format!(
        "{}\ncoalesce = {}",
        options.delivery_options, burst.coalesce
    );
    let scene = Scenario::set_up(synapse, options, tell).await?;
    scene.open().await?;
    let mut authors = vec![scene.mary.clone(), scene.tom.clone()];
    for number in authors.len()..burst.authors {
        let name = format!("Person {number}");
        let user = scene.sim.add_user(&format!("person{number}"), &name);
        scene
            .sim
            .join(&scene.stage.channel.id, &user.id)
            .map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
        authors.push(user);
    }
    let author_of = |number: u32| {
        let turn = usize::try_from(number / 3).unwrap_or_default();
        authors.get(turn % authors.len().max(1))
    };
    let before = scene.bridge.usage()?;

    tell(&format!(
        "{} messages are sent in the channel",
        burst.messages
    ));
    let began = Instant::now();
    let pause = burst.within / burst.messages.max(1);
    let mut clock = tokio::time::interval(pause.max(Duration::from_millis(1)));
    for number in 0..burst.messages {
        clock.tick().await;
        let text = scene.from_channel.number();
        if let Some(author) = author_of(number) {
            scene.sim.say(&scene.stage.channel.id, &author.id, &text);
        }
    }

    tell("Waiting until the last of them can be read in the room");
    let (mut pace, mut estimate) = (None, 0);
    let deadline = began + burst.patience;
    while Instant::now() < deadline && !scene.toward_room().lost.is_empty() {
        if let Ok(text) = scene.bridge.metrics_text().await {
            pace = sample(&text, "footbridge_seconds_per_event{").or(pace);
            let seconds = sample(&text, "footbridge_empty_after_seconds{").unwrap_or_default();
            estimate = estimate.max(Duration::from_secs_f64(seconds.max(0.0)).as_secs());
        }
        let read = || scene.toward_room().lost.is_empty();
        let _still_waiting = until(Duration::from_secs(1), read).await;
    }
    let took = began.elapsed();
    scene.settle(Duration::from_secs(30)).await?;
    let (verdict, misattributed, events) = read(&scene, &author_of);
    scene.bridge.conservation().await?;
    scene.all_encrypted(synapse).await?;
    Ok(Outcome {
        verdict,
        misattributed,
        events,
        took,
        before,
        after: scene.bridge.usage()?,
        pace,
        estimate,
    })
}

/// What Ann reads: the verdict, the number of misattributed messages, and the number of events.
fn read<'a>(
    scene: &Scenario,
    author_of: &dyn Fn(u32) -> Option<&'a footbridge_simulators::gitter::User>,
) -> (Verdict, usize, usize) {
    let (mut arrived, mut misattributed) = (Vec::new(), 0);
    let load = &scene.from_channel;
    let per_event = scene.in_room(|event, text| {
        let numbers = load.numbers_in(text);
        let spoken: Vec<(u32, bool)> = match event.seen.content.get(PARTS) {
            Some(Value::Array(parts)) => parts
                .iter()
                .flat_map(|part| {
                    let field = |name| part.get(name).and_then(Value::as_str).unwrap_or_default();
                    let author = field("author").to_owned();
                    load.numbers_in(field("body"))
                        .into_iter()
                        .map(move |number| (number, author.clone()))
                })
                .map(|(number, author)| (number, named(author_of(number), &author)))
                .collect(),
            _ => numbers
                .iter()
                .map(|number| (*number, named(author_of(*number), text)))
                .collect(),
        };
        // Both representations in an event must have the same messages.
        let same = spoken.iter().map(|(number, _)| number).eq(&numbers);
        (!numbers.is_empty()).then_some((numbers, spoken, same, event.at))
    });
    let events = per_event.len();
    for (numbers, spoken, same, at) in per_event {
        misattributed += spoken.iter().filter(|(_, right)| !right || !same).count();
        arrived.extend(numbers.into_iter().map(|number| Arrived {
            number,
            at: Some(at),
        }));
    }
    let verdict = Verdict::of(&load.said(), &arrived);
    (verdict, misattributed, events)
}

fn named(author: Option<&footbridge_simulators::gitter::User>, shown: &str) -> bool {
    author.is_some_and(|author| shown.contains(author.display_name.as_str()))
}

/// The value of the first sample whose line begins like this.
fn sample(text: &str, beginning: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(beginning))?;
    line.rsplit(' ').next()?.parse().ok()
}
