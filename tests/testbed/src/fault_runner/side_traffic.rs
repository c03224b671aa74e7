//! What people say beside the numbered messages and that takes other ways through the bridge: a message that the silo
//! refuses, one that nobody can read, a question to the bridge itself. Each has its own right end.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::Method;

use super::{FaultScenario, Outcome};
use crate::proxy::{Fault, Matcher, Page, Rule};
use crate::scenario::{RawMember, RoomAndChannel};
use crate::synapse::Synapse;

/// How many portals it needs in which nobody else talks.
pub const SPARE: usize = 2;

/// How long the last of it may take to come to its end.
const TIMEOUT: Duration = Duration::from_mins(2);

/// What was said so far.
pub struct SideTraffic {
    poisoned: RoomAndChannel,
    stranger: RawMember,
    failing: AtomicU64,
    questions: Mutex<Vec<String>>,
}

impl SideTraffic {
    /// Takes the last two portals: whatever is said in one of them is refused by the silo, and in the other somebody
    /// writes what nobody can read.
    pub async fn begin(rig: &FaultScenario, synapse: &Synapse) -> anyhow::Result<Self> {
        let [.., poisoned, unreadable] = rig.scene.pairs.as_slice() else {
            anyhow::bail!("there are too few portals");
        };
        let posts =
            Matcher::of(Method::POST).with(&format!("{}/chatMessages", poisoned.channel.id));
        rig.api()?.add(Rule::always(
            "refused",
            posts,
            Fault::status(400, Page::Empty),
        ));
        Ok(Self {
            poisoned: poisoned.clone(),
            stranger: RawMember::enter(synapse, &rig.scene.ann, &unreadable.room).await?,
            failing: AtomicU64::new(0),
            questions: Mutex::default(),
        })
    }

    /// Ann says something that the silo refuses.
    pub async fn say_refused(&self, rig: &FaultScenario) -> anyhow::Result<()> {
        let number = self.failing.fetch_add(1, Ordering::Relaxed);
        let text = format!("refused words {number}");
        rig.scene.ann.say(&self.poisoned.room, &text).await?;
        Ok(())
    }

    /// Somebody writes a message whose key nobody has.
    pub async fn say_unreadable(&self) -> anyhow::Result<()> {
        self.failing.fetch_add(1, Ordering::Relaxed);
        self.stranger.lock().await
    }

    /// Ann asks the bridge how it is doing, among everything else that is said.
    pub async fn ask(&self, rig: &FaultScenario) -> anyhow::Result<()> {
        let question = rig.scene.ann.say(&rig.scene.stage.room, "!bridge status");
        let question = question.await?;
        self.questions().push(question);
        Ok(())
    }

    fn questions(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.questions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all that must fail has failed. Before the harm ends: then it would not.
    pub async fn end(&self, rig: &FaultScenario) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        let failing = self.failing.load(Ordering::Relaxed);
        while rig.scene.bridge.conservation().await?.failed < failing {
            anyhow::ensure!(
                tokio::time::Instant::now() < deadline,
                "not everything failed that had to"
            );
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        Ok(())
    }

    /// Compares the ends: exactly what had to fail failed, and each question has one answer.
    pub async fn judge(&self, rig: &FaultScenario, outcome: &mut Outcome) -> anyhow::Result<()> {
        let failing = self.failing.load(Ordering::Relaxed);
        let failed = rig.scene.bridge.conservation().await?.failed;
        if failed == failing {
            outcome.forgive_failures();
            outcome.note(&format!("{failed} ended as failed, as they must"));
        } else {
            outcome.object(&format!("{failed} of {failing} ended as failed"));
        }
        let questions = self.questions().clone();
        let answers = rig.scene.in_room(|heard, _| {
            let answered = heard
                .seen
                .content
                .pointer("/m.relates_to/m.in_reply_to/event_id");
            answered?.as_str().map(str::to_owned)
        });
        let wrong = questions
            .iter()
            .filter(|question| answers.iter().filter(|answer| answer == question).count() != 1);
        let (wrong, asked) = (wrong.count(), questions.len());
        outcome.note(&format!("{asked} questions"));
        if wrong > 0 {
            outcome.object(&format!("{wrong} of them without exactly one answer"));
        }
        Ok(())
    }
}
