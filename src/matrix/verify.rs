//! Verification of our device by emoji (SAS, P08), between the bridge and a person on the admin list, begun from
//! either side. Nothing here is accepted or confirmed by itself: a person answers, on the terminal or by a command
//! in the chat. Whoever is not on the list is declined.
//!
//! What is compared must come to the person by two ways. The bridge's emoji are shown in its log and on its terminal;
//! that they are said in the chat as well is a convenience, since whoever could sit between the two devices could also
//! change what is said there.

mod flow;
mod requests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use footbridge_core::rate_limiter::{Rate, RateLimiter};
use footbridge_store::Place;
use futures_util::{StreamExt, stream::FuturesUnordered};
use matrix_sdk::{
    encryption::verification::VerificationRequest,
    ruma::{OwnedUserId, RoomId, UserId, events::key::verification::VerificationMethod},
};
use serde_json::json;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tracing::{debug, info, warn};

use super::{Boxed, Matrix, MatrixError, crypto_store, request_error::RequestError};
use flow::VerificationFlow;

/// How long saying goodbye may hold up the end.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

/// How often one user who may not verify us is told so.
const DECLINE_RATE_PER_USER: Rate = Rate {
    burst: 3,
    every: Duration::from_mins(10),
};
/// The same for all users.
const DECLINE_RATE: Rate = Rate {
    burst: 20,
    every: Duration::from_secs(30),
};

/// One of the seven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emoji {
    /// For example 🐶.
    pub symbol: String,
    /// For example `Dog`.
    pub name: String,
}

/// How far a verification is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerificationStage {
    /// The other side asks; a person must say whether to begin.
    Requested,
    /// Begun; the other side has its turn.
    Waiting,
    /// A person must compare these with what the other screen shows.
    Compare(Vec<Emoji>),
    /// Confirmed here; the other side has not said so yet.
    Confirmed,
    /// Over: both sides confirmed.
    Done,
    /// Over without success, for this reason.
    Cancelled(String),
}

/// What a person answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerificationAnswer {
    /// Begin.
    Begin,
    /// They are the same.
    Same,
    /// They are not, or it is to end.
    Different,
}

impl From<Option<bool>> for VerificationAnswer {
    /// `verify` begins, `verify yes` and `verify no` answer.
    fn from(yes: Option<bool>) -> Self {
        match yes {
            None => Self::Begin,
            Some(true) => Self::Same,
            Some(false) => Self::Different,
        }
    }
}

/// One verification per user: the newest.
#[derive(Debug)]
struct OpenVerification {
    stage: VerificationStage,
    answers: mpsc::UnboundedSender<VerificationAnswer>,
    /// The flow it belongs to.
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
    /// How often each user, and all of them (`None`), were declined.
    declined: Arc<Mutex<RateLimiter<Option<String>>>>,
}

impl Verifications {
    pub(super) fn with(admins: Vec<OwnedUserId>, patience: Duration) -> Self {
        let (requests, waiting) = mpsc::unbounded_channel();
        Self {
            admins: Arc::new(admins),
            time_limit: patience,
            open: Arc::default(),
            changed: Arc::new(watch::Sender::new(0)),
            requests,
            waiting: Arc::new(tokio::sync::Mutex::new(waiting)),
            declined: Arc::default(),
        }
    }

    /// Whether somebody who is not on the list is declined, and not only ignored: each time is a request of ours, which
    /// the sync waits for.
    fn admits_decline(&self, user: &str) -> bool {
        let now = Instant::now();
        let asked = [
            (Some(user.to_owned()), DECLINE_RATE_PER_USER),
            (None, DECLINE_RATE),
        ];
        let mut declined = self.declined.lock().unwrap_or_else(PoisonError::into_inner);
        let may = asked
            .iter()
            .all(|(key, rate)| declined.has(key, *rate, now));
        if may {
            for (key, rate) in &asked {
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

    /// All verifications there were since the start, the newest of each user.
    #[must_use]
    pub fn all(&self) -> Vec<(String, VerificationStage)> {
        let open = self.lock();
        let all = open
            .iter()
            .map(|(user, open)| (user.clone(), open.stage.clone()));
        all.collect()
    }

    /// Hears of every change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Takes a person's answer; says whether it was one to the present stage.
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

    /// What a command in the chat does: `verify` (nothing), `verify yes`, `verify no`. Answers what to say. Only for
    /// the command's own sender: nobody answers for another.
    #[must_use]
    pub fn handle_command(&self, user: &str, said: VerificationAnswer) -> String {
        if !self.is_admin(user) {
            return "Only users on the list `[admin] users` of the bridge's configuration can verify it."
                .to_owned();
        }
        let stage = self.stage(user);
        match (self.answer(user, said), said, stage) {
            (true, VerificationAnswer::Begin, _) => "Beginning. The emoji follow.".to_owned(),
            (true, VerificationAnswer::Same, _) => "Confirmed here.".to_owned(),
            (true, VerificationAnswer::Different, _) => "Cancelled.".to_owned(),
            (false, _, Some(VerificationStage::Compare(emoji))) => compare(&emoji),
            (false, _, Some(VerificationStage::Waiting | VerificationStage::Confirmed)) => {
                "It is your client's turn.".to_owned()
            }
            _ => "There is nothing to confirm. Open the bridge's profile in your client and choose Verify."
                .to_owned(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, OpenVerification>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to keep the stage of a flow.
    fn enter(
        &self,
        user: &UserId,
        flow: &str,
        stage: VerificationStage,
    ) -> mpsc::UnboundedReceiver<VerificationAnswer> {
        let (answers, heard) = mpsc::unbounded_channel();
        let open = OpenVerification {
            stage,
            answers,
            flow: flow.to_owned(),
        };
        self.lock().insert(user.to_string(), open);
        self.changed.send_modify(|count| *count += 1);
        heard
    }

    fn set(&self, user: &UserId, flow: &str, stage: VerificationStage) {
        if let Some(open) = self.lock().get_mut(user.as_str())
            && open.flow == flow
        {
            open.stage = stage;
        }
        self.changed.send_modify(|count| *count += 1);
    }

    /// Whether a newer one of the same user has taken its place.
    fn is_passed(&self, user: &UserId, flow: &str) -> bool {
        let open = self.lock();
        open.get(user.as_str()).is_none_or(|open| open.flow != flow)
    }
}

impl Matrix {
    /// Verifications of our device, and the people's answers to them.
    #[must_use]
    pub fn verifications(&self) -> &Verifications {
        &self.verify
    }

    /// Asks a user on the admin list to verify us. It goes on while [`Matrix::listen`] runs.
    ///
    /// # Errors
    /// The user is not on the list, has no cross-signing identity, or the homeserver cannot be asked.
    pub fn ask_to_verify<'a>(&'a self, user: &'a UserId) -> Boxed<'a, Result<(), MatrixError>> {
        Box::pin(async move {
            if !self.verify.is_admin(user.as_str()) {
                return Err(MatrixError::Identity(format!(
                    "{user} is not on the list `[admin] users`"
                )));
            }
            let failed = |error: &matrix_sdk::Error| {
                RequestError::from(error).into_matrix_error("ask to verify")
            };
            let identity = self.client.encryption().request_user_identity(user).await;
            let identity = identity.map_err(|error| failed(&error))?.ok_or_else(|| {
                MatrixError::Identity(format!("{user} has no cross-signing identity"))
            })?;
            let request = identity
                .request_verification_with_methods(vec![VerificationMethod::SasV1])
                .await
                .map_err(|error| {
                    MatrixError::Unavailable(anyhow::anyhow!("cannot ask to verify: {error}"))
                })?;
            // The receiver lives as long as we do.
            let _sent = self.verify.requests.send(request);
            Ok(())
        })
    }

    /// Attends to verifications. Does not return by itself; dropped, it leaves none half-way for longer than it takes
    /// to say so.
    pub(super) async fn run_verifications(&self) {
        // The SDK ignores requests of devices that it does not know.
        for admin in self.verify.admins.iter() {
            let known = self.client.encryption().request_user_identity(admin).await;
            if let Err(error) = known {
                let error = error.to_string();
                debug!(matrix.user = %admin, error, "The devices of an admin are not known yet");
            }
        }
        let mut waiting = self.verify.waiting.lock().await;
        let mut flows = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(request) = waiting.recv() => {
                    // What the SDK says in a room of its own accord is encrypted as well.
                    flows.push(Box::pin(crypto_store::sharing(VerificationFlow::of(self, request).run())));
                }
                Some(()) = flows.next(), if !flows.is_empty() => {}
            }
        }
    }

    /// Says to the other sides of verifications that are not over that nobody attends to them any more.
    pub(super) async fn cancel_verifications(&self) {
        let open: Vec<(String, String)> = {
            let open = self.verify.lock();
            let going = open.iter().filter(|(_, open)| !open.stage.is_over());
            going
                .map(|(user, open)| (user.clone(), open.flow.clone()))
                .collect()
        };
        for (user, flow) in open {
            let Ok(user) = UserId::parse(user) else {
                continue;
            };
            let encryption = self.client.encryption();
            if let Some(request) = encryption.get_verification_request(&user, &flow).await {
                let left = tokio::time::timeout(CANCEL_TIMEOUT, request.cancel()).await;
                if !matches!(left, Ok(Ok(()))) {
                    warn!(matrix.user = %user, "The other side was not told that a verification ended");
                }
            }
            let why = "the bridge stopped".to_owned();
            self.verify
                .set(&user, &flow, VerificationStage::Cancelled(why));
        }
    }

    /// Says something to the user of a verification: in its room, or in the direct room with them.
    async fn notify_verifier(&self, request: &VerificationRequest, text: &str) {
        let user = request.other_user_id();
        let room = match request.room_id() {
            Some(room) => self.client.get_room(room),
            None if user == self.own => None,
            None => self.client.get_dm_room(user),
        };
        let Some(room) = room else {
            info!(matrix.user = %user, "There is no direct room to say it in: {text}");
            return;
        };
        self.send_notice_in(room.room_id(), text).await;
    }

    async fn send_notice_in(&self, room: &RoomId, text: &str) {
        let Some(room) = self.client.get_room(room) else {
            return;
        };
        let place = Place::room(room.room_id().as_str());
        let key = format!("verify-{:016x}", rand::random::<u64>());
        let content = json!({ "msgtype": "m.notice", "body": text });
        if let Err(error) = self.send_event(&room, &place, key.into(), content).await {
            let error = error.to_string();
            warn!(matrix.room = %room.room_id(), error, "A verification could not be told of in the chat");
        }
    }
}

impl VerificationStage {
    /// Whether nothing follows.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Done | Self::Cancelled(_))
    }
}

/// What is said when there is something to compare.
fn compare(emoji: &[Emoji]) -> String {
    format!(
        "Compare with your client: {}. The bridge's own log shows these seven, too; if somebody could be between us, \
         believe the log. Say `!bridge verify yes` if all are the same in this order, `!bridge verify no` if not.",
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
        let heard = all.enter(&admin, "flow", stage);
        (all, heard)
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
        for (stage, said, taken) in table {
            let (all, mut heard) = at(stage.clone());
            let _words = all.handle_command("@me:example.org", said.into());
            assert_eq!(heard.try_recv().ok(), taken, "{stage:?} {said:?}");
        }
    }

    #[test]
    fn b14_who_may_not_verify_us_is_told_so_a_few_times_only() {
        let (all, _heard) = at(VerificationStage::Requested);
        let told = |user: &str| (0..200).filter(|_| all.admits_decline(user)).count();
        assert_eq!(told("@eve:example.org"), 3);
        let others = (0..200).map(|number| told(&format!("@eve{number}:example.org")));
        assert_eq!(others.sum::<usize>(), 17);
    }

    #[test]
    fn p08_nobody_answers_for_another() {
        let (all, mut heard) = at(VerificationStage::Requested);
        assert!(
            all.handle_command("@you:example.org", VerificationAnswer::Begin)
                .contains("`[admin] users`")
        );
        assert!(!all.answer("@you:example.org", VerificationAnswer::Begin));
        assert!(heard.try_recv().is_err());
    }
}
