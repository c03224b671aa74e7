//! Verification of the bridge's device by emoji (SAS, P08), between the bridge and a user on the admin list, started by
//! either side. Nothing is accepted or confirmed automatically: a person answers, on the terminal or by a command in
//! the chat. Users who are not on the list are declined.
//!
//! The emoji must reach the person by two independent ways. The bridge shows its emoji in its log and on its terminal;
//! the message in the chat is a convenience, since an attacker between the two devices could also change that message.

mod flow;
mod requests;
mod verifier;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use footbridge_core::rate_limiter::{Rate, RateLimiter};
use matrix_sdk::{
    encryption::verification::VerificationRequest,
    ruma::{OwnedUserId, UserId},
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

pub(crate) use self::{requests::requests_in, verifier::Verifier};

/// How often one user who may not verify the bridge is declined.
const DECLINE_RATE_PER_USER: Rate = Rate {
    burst: 3,
    every: Duration::from_mins(10),
};
/// The same for all users together.
const DECLINE_RATE: Rate = Rate {
    burst: 20,
    every: Duration::from_secs(30),
};

/// One of the seven emoji.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emoji {
    /// For example 🐶.
    pub symbol: String,
    /// For example `Dog`.
    pub name: String,
}

/// The stage of a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerificationStage {
    /// The other side requests it; a person must start it.
    Requested,
    /// Started; waiting for the other side.
    Waiting,
    /// A person must compare these emoji with the other screen.
    Compare(Vec<Emoji>),
    /// Confirmed here; the other side has not confirmed yet.
    Confirmed,
    /// Finished: both sides confirmed.
    Done,
    /// Cancelled, for this reason.
    Cancelled(String),
}

/// A person's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerificationAnswer {
    /// Start the verification.
    Begin,
    /// The emoji are the same.
    Same,
    /// The emoji differ, or the person cancels.
    Different,
}

impl From<Option<bool>> for VerificationAnswer {
    /// `verify` starts, `verify yes` and `verify no` answer.
    fn from(yes: Option<bool>) -> Self {
        match yes {
            None => Self::Begin,
            Some(true) => Self::Same,
            Some(false) => Self::Different,
        }
    }
}

/// The newest verification of a user.
#[derive(Debug)]
struct OpenVerification {
    stage: VerificationStage,
    answers: mpsc::UnboundedSender<VerificationAnswer>,
    /// The id of its flow.
    flow: String,
}

/// The verifications of this account. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Verifications {
    admins: Arc<Vec<OwnedUserId>>,
    time_limit: Duration,
    open: Arc<Mutex<BTreeMap<String, OpenVerification>>>,
    changed: Arc<watch::Sender<u64>>,
    requests: mpsc::UnboundedSender<VerificationRequest>,
    waiting: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<VerificationRequest>>>,
    /// How often each user, and all users together (`None`), were declined.
    declined: Arc<Mutex<RateLimiter<Option<String>>>>,
}

impl Verifications {
    pub(super) fn with(admins: Vec<OwnedUserId>, time_limit: Duration) -> Self {
        let (requests, waiting) = mpsc::unbounded_channel();
        Self {
            admins: Arc::new(admins),
            time_limit,
            open: Arc::default(),
            changed: Arc::new(watch::Sender::new(0)),
            requests,
            waiting: Arc::new(tokio::sync::Mutex::new(waiting)),
            declined: Arc::default(),
        }
    }

    /// Whether a user who is not on the list is declined, and not only ignored: each decline is a request that delays
    /// the sync loop.
    fn admits_decline(&self, user: &str) -> bool {
        let now = Instant::now();
        let limits = [
            (Some(user.to_owned()), DECLINE_RATE_PER_USER),
            (None, DECLINE_RATE),
        ];
        let mut declined = self.declined.lock().unwrap_or_else(PoisonError::into_inner);
        let may = limits
            .iter()
            .all(|(key, rate)| declined.has(key, *rate, now));
        if may {
            for (key, rate) in &limits {
                declined.take(key, *rate, now);
            }
        }
        may
    }

    /// Whether this user may verify the bridge.
    #[must_use]
    pub fn is_admin(&self, user: &str) -> bool {
        self.admins.iter().any(|admin| admin.as_str() == user)
    }

    /// The stage of this user's verification, if there was one.
    #[must_use]
    pub fn stage(&self, user: &str) -> Option<VerificationStage> {
        self.lock().get(user).map(|open| open.stage.clone())
    }

    /// All verifications since the start, the newest of each user.
    #[must_use]
    pub fn all(&self) -> Vec<(String, VerificationStage)> {
        let open = self.lock();
        let all = open
            .iter()
            .map(|(user, open)| (user.clone(), open.stage.clone()));
        all.collect()
    }

    /// Notifies of every change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Sends a person's answer to the verification. Returns whether the answer fits the current stage.
    #[must_use]
    pub fn answer(&self, user: &str, answer: VerificationAnswer) -> bool {
        let open = self.lock();
        let Some(open) = open.get(user) else {
            return false;
        };
        let fits = matches!(
            (&open.stage, answer),
            (
                VerificationStage::Requested,
                VerificationAnswer::Begin | VerificationAnswer::Different
            ) | (VerificationStage::Waiting, VerificationAnswer::Different)
                | (
                    VerificationStage::Compare(_),
                    VerificationAnswer::Same | VerificationAnswer::Different
                )
        );
        fits && open.answers.send(answer).is_ok()
    }

    /// Executes the chat command `verify`, `verify yes` or `verify no`. Returns the reply. It affects only the sender's
    /// own verification.
    #[must_use]
    pub fn handle_command(&self, user: &str, answer: VerificationAnswer) -> String {
        if !self.is_admin(user) {
            return "Only users on the list `[admin] users` of the bridge's configuration can verify it."
                .to_owned();
        }
        let stage = self.stage(user);
        match (self.answer(user, answer), answer, stage) {
            (true, VerificationAnswer::Begin, _) => "Starting. The emoji follow.".to_owned(),
            (true, VerificationAnswer::Same, _) => "Confirmed here.".to_owned(),
            (true, VerificationAnswer::Different, _) => "Cancelled.".to_owned(),
            (false, _, Some(VerificationStage::Compare(emoji))) => compare(&emoji),
            (false, _, Some(VerificationStage::Waiting | VerificationStage::Confirmed)) => {
                "Continue in your client.".to_owned()
            }
            _ => "There is nothing to confirm. Open the bridge's profile in your client and choose Verify."
                .to_owned(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, OpenVerification>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a flow with its stage.
    fn enter(
        &self,
        user: &UserId,
        flow: &str,
        stage: VerificationStage,
    ) -> mpsc::UnboundedReceiver<VerificationAnswer> {
        let (answers, received) = mpsc::unbounded_channel();
        let open = OpenVerification {
            stage,
            answers,
            flow: flow.to_owned(),
        };
        self.lock().insert(user.to_string(), open);
        self.changed.send_modify(|count| *count += 1);
        received
    }

    fn set(&self, user: &UserId, flow: &str, stage: VerificationStage) {
        if let Some(open) = self.lock().get_mut(user.as_str())
            && open.flow == flow
        {
            open.stage = stage;
        }
        self.changed.send_modify(|count| *count += 1);
    }

    /// Whether a newer verification of the same user has replaced this one.
    fn is_passed(&self, user: &UserId, flow: &str) -> bool {
        let open = self.lock();
        open.get(user.as_str()).is_none_or(|open| open.flow != flow)
    }
}

impl VerificationStage {
    /// Whether the verification has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Done | Self::Cancelled(_))
    }
}

/// The notice when the emoji can be compared.
fn compare(emoji: &[Emoji]) -> String {
    format!(
        "Compare with your client: {}. The bridge's log shows the same seven; if somebody could intercept this chat, \
         trust the log. Send `!bridge verify yes` if all are the same in this order, `!bridge verify no` if not.",
        listed(emoji)
    )
}

/// `🐶 Dog, 🐱 Cat, …`
fn listed(emoji: &[Emoji]) -> String {
    let each = emoji
        .iter()
        .map(|one| format!("{} {}", one.symbol, one.name));
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(
        stage: VerificationStage,
    ) -> (Verifications, mpsc::UnboundedReceiver<VerificationAnswer>) {
        let admin = UserId::parse("@me:example.org").unwrap();
        let all = Verifications::with(vec![admin.clone()], Duration::from_secs(1));
        let received = all.enter(&admin, "flow", stage);
        (all, received)
    }

    #[test]
    fn p08_only_the_answer_that_the_stage_asks_for_is_taken() {
        let emoji = VerificationStage::Compare(vec![Emoji {
            symbol: "🐶".into(),
            name: "Dog".into(),
        }]);
        let table = [
            (
                VerificationStage::Requested,
                None,
                Some(VerificationAnswer::Begin),
            ),
            (VerificationStage::Requested, Some(true), None),
            (
                VerificationStage::Requested,
                Some(false),
                Some(VerificationAnswer::Different),
            ),
            (VerificationStage::Waiting, None, None),
            (VerificationStage::Waiting, Some(true), None),
            (emoji.clone(), None, None),
            (emoji.clone(), Some(true), Some(VerificationAnswer::Same)),
            (emoji, Some(false), Some(VerificationAnswer::Different)),
            (VerificationStage::Done, Some(true), None),
        ];
        for (stage, command, taken) in table {
            let (all, mut received) = at(stage.clone());
            let _reply = all.handle_command("@me:example.org", command.into());
            assert_eq!(received.try_recv().ok(), taken, "{stage:?} {command:?}");
        }
    }

    #[test]
    fn b14_users_who_may_not_verify_the_bridge_get_a_few_replies_only() {
        let (all, _received) = at(VerificationStage::Requested);
        let declined = |user: &str| (0..200).filter(|_| all.admits_decline(user)).count();
        assert_eq!(declined("@eve:example.org"), 3);
        let others = (0..200).map(|number| declined(&format!("@eve{number}:example.org")));
        assert_eq!(others.sum::<usize>(), 17);
    }

    #[test]
    fn p08_no_user_can_answer_for_another() {
        let (all, mut received) = at(VerificationStage::Requested);
        assert!(
            all.handle_command("@you:example.org", VerificationAnswer::Begin)
                .contains("`[admin] users`")
        );
        assert!(!all.answer("@you:example.org", VerificationAnswer::Begin));
        assert!(received.try_recv().is_err());
    }
}
