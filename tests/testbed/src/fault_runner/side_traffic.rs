//! Messages in addition to the numbered ones that take other paths through the bridge: a message that the silo refuses,
//! one that cannot be decrypted, a command. Each has its own expected result.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::Method;

use super::{FaultScenario, Outcome};
use crate::proxy::{Fault, Matcher, Page, Rule};
use crate::scenario::{RawMember, RoomAndChannel};
use crate::synapse::Synapse;

/// How many portals without other traffic it needs.
pub const SPARE: usize = 2;

/// How long the last of these messages may take to end.
const TIMEOUT: Duration = Duration::from_mins(2);

/// The messages that were sent so far.
pub struct SideTraffic {
    poisoned: RoomAndChannel,
    raw_member: RawMember,
    failing: AtomicU64,
    questions: Mutex<Vec<String>>,
}

impl SideTraffic {
    /// Uses the last two portals: the silo refuses every message of the one, and in the other a member sends messages
    /// that nobody can decrypt.
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
            raw_member: RawMember::enter(synapse, &rig.scene.ann, &unreadable.room).await?,
            failing: AtomicU64::new(0),
            questions: Mutex::default(),
        })
    }

    /// Ann sends a message that the silo refuses.
    pub async fn say_refused(&self, rig: &FaultScenario) -> anyhow::Result<()> {
        let number = self.failing.fetch_add(1, Ordering::Relaxed);
        let text = format!("refused words {number}");
        rig.scene.ann.say(&self.poisoned.room, &text).await?;
        Ok(())
    }

    /// A member sends a message whose room key nobody has.
    pub async fn say_unreadable(&self) -> anyhow::Result<()> {
        self.failing.fetch_add(1, Ordering::Relaxed);
        self.raw_member.send_undecryptable().await
    }

    /// Ann sends the bridge a status command, among other traffic.
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

    /// Waits until every message that must fail has failed. To be called while the faults last, because otherwise it
    /// would not fail.
    pub async fn end(&self, rig: &FaultScenario) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        let failing = self.failing.load(Ordering::Relaxed);
        while rig.scene.bridge.conservation().await?.failed < failing {
            anyhow::ensure!(
                tokio::time::Instant::now() < deadline,
                "not every message failed that must fail"
            );
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        Ok(())
    }

    /// Compares the results: exactly the messages that must fail failed, and each command got one reply.
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
        let answers = rig.scene.in_room(|event, _| {
            let answered = event
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
            outcome.object(&format!("{wrong} of them without exactly one reply"));
        }
        Ok(())
    }
}
