//! The rows that apply to every silo, on a silo other than Gitter: one room, one channel, a proxy on both sides.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use footbridge_core::{capabilities::Idempotency, crash_points::POINTS};
use hyper::Method;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::scenario::first_line;
use super::{Context, Outcome};
use crate::multi_silo::{MultiSiloOptions, MultiSiloScenario, SiloChannel};
use crate::proxy::{Fault, Matcher, Page, Rule};
use crate::report::Verdict;
use crate::scenario::Load;
use footbridge_simulators::channel::SimulatorKind;
use footbridge_simulators::gitter::Cut;

/// How long the pending messages may take to arrive.
const TIMEOUT: Duration = Duration::from_mins(8);
/// How long unwanted copies may take to arrive.
const AFTERMATH: Duration = Duration::from_secs(3);
/// How long a process may take to reach the crash point.
const REACH_TIMEOUT: Duration = Duration::from_secs(8);
/// Messages a second each way.
const RATE: f64 = 4.0;

/// The faults of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Injection {
    Kills,
    Points,
    LostAnswers,
    LostRequests,
    Breaks,
    TooMany,
    Storm,
    Garbage,
}

/// The rows, with the ids of Gitter's catalogue.
const ROWS: [(&str, &str, Injection); 8] = [
    ("F01", "SIGKILL at any moment", Injection::Kills),
    (
        "F02",
        "abort at every crash point that is reached",
        Injection::Points,
    ),
    (
        "F03",
        "the response is lost after the request was handled",
        Injection::LostAnswers,
    ),
    (
        "F04",
        "the request is lost before it is handled",
        Injection::LostRequests,
    ),
    (
        "F12",
        "all connections break every second or two",
        Injection::Breaks,
    ),
    ("F18", "a series of 429 from the silo", Injection::TooMany),
    ("F33", "a series of 500, 502, 503 and 504", Injection::Storm),
    ("F34", "garbage from the silo", Injection::Garbage),
];

/// The ids and titles of the rows.
pub fn rows() -> impl Iterator<Item = (&'static str, &'static str)> {
    ROWS.iter().map(|(id, title, _)| (*id, *title))
}

/// The kind of silo with this name.
#[must_use]
pub fn kind(word: &str) -> Option<&'static SimulatorKind> {
    let mut kinds = footbridge_simulators::KINDS.iter();
    kinds.find(|kind| kind.name == word).copied()
}

/// Whether this silo cannot tell if a message was sent.
fn may_end_as_unknown(kind: &str) -> bool {
    let mut kinds = footbridge_silo::KINDS.iter();
    let kind = kinds.find(|known| known.word == kind);
    kind.is_some_and(|kind| matches!(kind.can.idempotency, Idempotency::Unknowable { .. }))
}

/// Runs a row on a silo of this kind.
pub async fn run(
    context: &Context<'_>,
    id: &str,
    kind: &'static SimulatorKind,
) -> anyhow::Result<Outcome> {
    let known = ROWS
        .iter()
        .find(|(known, ..)| known.eq_ignore_ascii_case(id));
    let Some((id, _, harm)) = known else {
        anyhow::bail!("there is no row {id} for this silo; --list shows them");
    };
    let began = Instant::now();
    context.tell("Setting the scene");
    let scene = MultiSiloScenario::build(
        context.synapse,
        MultiSiloOptions {
            binary: context.binary.clone(),
            sites: vec![kind],
            rooms: 1,
            portals: vec![(0, 0)],
            seed: context.seed,
            log_filter: "warn".to_owned(),
            ..MultiSiloOptions::default()
        },
    )
    .await?;
    let street = SiloFaultScenario {
        from_room: Load::new('r'),
        from_channel: Load::new('c'),
        scene,
    };
    street.say().await?;
    street.arrive().await;
    context.tell("Doing harm");
    let injections = street.harm(*harm, context).await?;
    let mut outcome = street.finish(id).await?;
    outcome.injections = injections;
    if matches!(harm, Injection::Kills | Injection::Points) {
        outcome.restarts = u32::try_from(injections).unwrap_or(u32::MAX);
    }
    outcome.took = began.elapsed();
    Ok(outcome)
}

/// A scenario with one portal, and its numbered messages.
struct SiloFaultScenario {
    scene: MultiSiloScenario,
    from_room: Load,
    from_channel: Load,
}

impl SiloFaultScenario {
    fn site(&self) -> anyhow::Result<&SiloChannel> {
        self.scene
            .sites
            .first()
            .ok_or_else(|| anyhow::anyhow!("there is no channel"))
    }

    /// Sends a numbered message each way.
    async fn say(&self) -> anyhow::Result<()> {
        self.site()?.say(&self.from_channel.number());
        let room = self
            .scene
            .rooms
            .first()
            .map(String::as_str)
            .unwrap_or_default();
        self.scene
            .ann
            .say(room, &self.from_room.number())
            .await
            .map(drop)
    }

    /// Sends messages both ways during `work`.
    async fn while_talking<T>(
        &self,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let stop = AtomicBool::new(false);
        let talking = async {
            let mut beat = tokio::time::interval(Duration::from_secs_f64(1.0 / RATE));
            while !stop.load(Ordering::Relaxed) {
                beat.tick().await;
                self.say().await?;
            }
            Ok(())
        };
        let work = async {
            let outcome = work.await;
            stop.store(true, Ordering::Relaxed);
            outcome
        };
        let ((), outcome) = tokio::try_join!(talking, work)?;
        Ok(outcome)
    }

    async fn harm(&self, harm: Injection, context: &Context<'_>) -> anyhow::Result<u64> {
        match harm {
            Injection::Kills => self.kills(context).await,
            Injection::Points => self.points(context).await,
            Injection::Breaks => self.breaks(context).await,
            Injection::Garbage => self.garbage(context).await,
            _ => {
                for (proxy, rule) in self.rules(harm)? {
                    proxy.add(rule);
                }
                let target = context.pick(8, 60, 520);
                let (homeserver, silo) = (&self.scene.homeserver, &self.site()?.proxy);
                let deadline = Instant::now() + Duration::from_mins(12);
                self.while_talking(async {
                    while homeserver.fault_count() + silo.fault_count() < target
                        && Instant::now() < deadline
                    {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    Ok(())
                })
                .await?;
                let struck = homeserver.fault_count() + silo.fault_count();
                homeserver.clear();
                silo.clear();
                Ok(struck)
            }
        }
    }

    fn rules(&self, harm: Injection) -> anyhow::Result<Vec<(&crate::proxy::Proxy, Rule)>> {
        let (homeserver, silo) = (&self.scene.homeserver, &self.site()?.proxy);
        let posts = || Matcher::of(Method::POST).with("/api/");
        Ok(match harm {
            Injection::LostAnswers | Injection::LostRequests => {
                let fault = match harm {
                    Injection::LostAnswers => Fault::DropReply,
                    _ => Fault::DropRequest,
                };
                vec![
                    (
                        homeserver,
                        Rule::sometimes("sends", Matcher::sends(), fault(Cut::Reset), 0.33),
                    ),
                    (
                        silo,
                        Rule::sometimes("posts", posts(), fault(Cut::Reset), 0.33),
                    ),
                    (
                        silo,
                        Rule::sometimes("reads", Matcher::of(Method::GET), fault(Cut::Close), 0.1),
                    ),
                ]
            }
            Injection::TooMany => {
                let slow = Fault::Status {
                    status: 429,
                    page: Page::Empty,
                    headers: vec![("retry-after", "1".to_owned())],
                    retry_after_ms: None,
                    after_work: false,
                };
                vec![(silo, Rule::sometimes("429", Matcher::all(), slow, 0.4))]
            }
            _ => {
                let status = |status, page| Fault::status(status, page);
                let all = Matcher::all;
                vec![
                    (
                        silo,
                        Rule::sometimes("500", all(), status(500, Page::Empty), 0.1),
                    ),
                    (
                        silo,
                        Rule::sometimes("502", all(), status(502, Page::Html), 0.1),
                    ),
                    (
                        silo,
                        Rule::sometimes("503", all(), status(503, Page::Html), 0.1),
                    ),
                    (
                        silo,
                        Rule::sometimes("504", all(), status(504, Page::Html), 0.1),
                    ),
                ]
            }
        })
    }

    async fn kills(&self, context: &Context<'_>) -> anyhow::Result<u64> {
        let kills: u64 = context.pick(4, 20, 250);
        let mut dice = StdRng::seed_from_u64(context.seed);
        self.while_talking(async {
            for _ in 0..kills {
                tokio::time::sleep(Duration::from_millis(dice.random_range(50..=3_000))).await;
                self.scene.bridge.kill().await?;
                self.scene.bridge.launch()?;
            }
            Ok(())
        })
        .await?;
        self.scene.bridge.wait_ready().await?;
        Ok(kills)
    }

    async fn points(&self, context: &Context<'_>) -> anyhow::Result<u64> {
        let rounds = context.pick(1, 2, 10);
        let deaths = self
            .while_talking(async {
                let mut deaths = 0;
                self.scene.bridge.kill().await?;
                let mut reached: BTreeSet<&str> = POINTS.iter().copied().collect();
                for _ in 0..rounds {
                    for point in reached.clone() {
                        self.scene.bridge.launch_armed(&format!("{point}:1"))?;
                        let deadline = Instant::now() + REACH_TIMEOUT;
                        while self.scene.bridge.ended()?.is_none() && Instant::now() < deadline {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                        if self.scene.bridge.ended()?.is_some() {
                            self.scene.bridge.reap().await?;
                            deaths += 1;
                        } else {
                            // The traffic here does not pass this point.
                            reached.remove(point);
                            self.scene.bridge.kill().await?;
                        }
                    }
                }
                self.scene.bridge.launch()?;
                Ok(deaths)
            })
            .await?;
        self.scene.bridge.wait_ready().await?;
        Ok(deaths)
    }

    async fn breaks(&self, context: &Context<'_>) -> anyhow::Result<u64> {
        let breaks: u64 = context.pick(5, 20, 120);
        let mut dice = StdRng::seed_from_u64(context.seed);
        self.while_talking(async {
            for _ in 0..breaks {
                tokio::time::sleep(Duration::from_millis(dice.random_range(400..=2_000))).await;
                self.site()?.cut();
                self.scene.homeserver.cut_all(Cut::Reset);
            }
            Ok(())
        })
        .await?;
        Ok(breaks)
    }

    async fn garbage(&self, context: &Context<'_>) -> anyhow::Result<u64> {
        let pieces: u64 = context.pick(6, 30, 200);
        let silo = &self.site()?.proxy;
        silo.add(Rule::sometimes(
            "noise",
            Matcher::of(Method::GET)
                .without("websocket")
                .without("stream"),
            Fault::Garbage(300),
            0.3,
        ));
        self.while_talking(async {
            for _ in 0..pieces {
                self.site()?.garble();
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            Ok(())
        })
        .await?;
        let struck = silo.fault_count();
        silo.clear();
        Ok(pieces + struck)
    }

    fn verdicts(&self) -> (Verdict, Verdict) {
        let toward_channel = self.scene.into_channel(&self.from_room, 0);
        (toward_channel, self.scene.into_room(&self.from_channel, 0))
    }

    /// Waits until nothing is pending any more.
    async fn arrive(&self) {
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            let (there, back) = self.verdicts();
            if there.lost.is_empty() && back.lost.is_empty() {
                return;
            }
            // It does not wait for messages that will never arrive.
            let owed = self.scene.bridge.conservation().await;
            let idle = owed.is_ok_and(|tally| tally.pending == 0);
            let quiet = self
                .from_room
                .said()
                .last()
                .is_some_and(|said| said.at.elapsed() > Duration::from_secs(40));
            if idle && quiet {
                return;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    async fn finish(&self, id: &'static str) -> anyhow::Result<Outcome> {
        self.arrive().await;
        let mut outcome = Outcome {
            fault: id,
            ..Outcome::default()
        };
        if let Err(error) = self.scene.bridge.settle(Duration::from_mins(1)).await {
            outcome.object(&first_line(&error));
        }
        tokio::time::sleep(AFTERMATH).await;
        let (mut there, mut back) = self.verdicts();
        let failed = match self.scene.bridge.conservation().await {
            Ok(tally) => tally.failed,
            Err(error) => {
                outcome.object(&first_line(&error));
                0
            }
        };
        self.excuse(&mut there, &mut back, failed, &mut outcome)?;
        there.join(back);
        outcome.verdict = there;
        Ok(outcome)
    }

    /// For a silo that cannot tell whether a message was sent: a message whose outcome is unknown must have ended as failed, and what the silo itself lost
    /// must be in the simulator's list of losses. Both are counted in the remark.
    fn excuse(
        &self,
        there: &mut Verdict,
        back: &mut Verdict,
        failed: u64,
        outcome: &mut Outcome,
    ) -> anyhow::Result<()> {
        let site = self.site()?;
        if !may_end_as_unknown(site.kind().name) {
            if failed > 0 {
                outcome.object(&format!("{failed} messages ended as failed"));
            }
            return Ok(());
        }
        let not_there = there.lost.len();
        if u64::try_from(not_there).is_ok_and(|lost| lost <= failed) {
            there.lost.clear();
        }
        outcome.note(&format!(
            "{failed} reported as unknown, of which {not_there} did not arrive"
        ));
        let by_itself: BTreeSet<u32> = site
            .lost_by_itself()
            .iter()
            .filter_map(|text| self.from_channel.number_in(text))
            .collect();
        let before = back.lost.len();
        back.lost.retain(|number| !by_itself.contains(number));
        outcome.note(&format!("{} lost by the API", before - back.lost.len()));
        Ok(())
    }
}
