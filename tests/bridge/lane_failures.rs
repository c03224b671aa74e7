//! Failures on a real store with an outlet that does what the test says: how often a step is tried, what is to blame,
//! which notices people get, and what they can do about it (D22, D23).

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use footbridge::control::{
    Audience, Backend, BackendError, CodeProof, Control, ControlConfig, FoundChannel, MemberRights,
    Successor,
};
use footbridge_core::{
    inbox::ArrivalContent,
    lane::{LaneEnd, OutletHealth},
    message::{Action, Command, Sender},
    outlet::{Outcome, SendError},
    persons::UserIdentities,
};
use footbridge_store::{
    FailureNotice, LaneId, Payload, Place, Portal, QueueHead, RemoteId, Scope, Side, SkipRule,
    Tombstone, Undelivered,
};
use tokio_util::sync::CancellationToken;

use crate::lanes::{Bench, FakeOutlet, LONG, Next, edit, not_now, post};

const DAYS: Duration = Duration::from_hours(10 * 24);

fn rejected() -> SendError {
    SendError::Rejected {
        reason: "it looks wrong".into(),
    }
}

fn closed() -> SendError {
    SendError::Closed {
        reason: "banned".into(),
    }
}

fn refused() -> SendError {
    SendError::Refused {
        reason: "it is bad".into(),
    }
}

fn troubled() -> SendError {
    not_now(Outcome::NotDone)
}

fn limited() -> SendError {
    SendError::Retry {
        after: Some(Duration::from_mins(1)),
        outcome: Outcome::NotDone,
        source: anyhow::anyhow!("slower"),
    }
}

fn hurried() -> SendError {
    SendError::Retry {
        after: Some(Duration::ZERO),
        outcome: Outcome::NotDone,
        source: anyhow::anyhow!("at once"),
    }
}

async fn bench(directory: &Path, messages: &[&str]) -> Bench {
    let bench = Bench::open(directory).await;
    for text in messages {
        bench.arrive(&format!("${text}"), post(text)).await;
    }
    bench
}

/// Sides that never respond.
struct Nowhere;

fn silence<T>() -> Result<T, BackendError> {
    Err(BackendError::Unavailable("nobody is there".to_owned()))
}

#[async_trait::async_trait]
impl Backend for Nowhere {
    async fn room(&self, _: &str) -> Result<Place, BackendError> {
        silence()
    }
    async fn member_rights(&self, _: &Place, _: &str) -> Result<MemberRights, BackendError> {
        silence()
    }
    async fn channel(&self, _: &str, _: &str) -> Result<FoundChannel, BackendError> {
        silence()
    }
    async fn audience(&self, _: &str, _: &str) -> Audience {
        Audience::default()
    }
    async fn find_code(
        &self,
        _: &str,
        _: &Place,
        _: &str,
    ) -> Result<Option<CodeProof>, BackendError> {
        silence()
    }
    async fn show(&self, _: &Portal) -> Result<(), BackendError> {
        silence()
    }
    async fn successor(&self, _: &Tombstone) -> Result<Successor, BackendError> {
        silence()
    }
    async fn identities(&self, _: &str) -> Result<UserIdentities, BackendError> {
        silence()
    }
    async fn approve(&self, _: &str, _: &str) -> Result<Option<u64>, BackendError> {
        silence()
    }
}

impl Bench {
    /// The bridge's own messages in the room.
    async fn notices_in(&self, room: &Arc<FakeOutlet>) -> Vec<String> {
        self.run_toward(Side::Matrix, room, LONG).await;
        room.texts()
    }

    async fn ask(&self, event_id: &str, words: &str, target: Option<&str>, by: &str) {
        let command = Command {
            sender: Sender {
                id: by.into(),
                name: "A".into(),
                avatar: None,
            },
            arguments: words.into(),
            target: target.map(RemoteId::from),
            thread: None,
            moderator: false,
            by_reaction: false,
            encrypted: false,
        };
        let payload = ArrivalContent::from(command);
        self.arrive_payload(event_id, None, payload).await;
    }

    /// Lets the bridge reply to the pending commands.
    async fn answer(&self) {
        let stop = CancellationToken::new();
        let control = Control {
            verify: std::sync::Arc::new(|_, _| String::new()),
            store: self.store.clone(),
            signals: self.signals.clone(),
            clock: self.clock,
            rules: Arc::new(ControlConfig {
                limits: std::collections::HashMap::new(),
                proving_silos: std::collections::HashMap::new(),
                admins: Vec::new(),
                delay: Duration::ZERO,
                operator: "nobody".to_owned(),
                disclose_joins: false,
            }),
            backend: Arc::new(Nowhere),
            shown: Arc::default(),
            answers: footbridge::control::AnswerLimits::default(),
        };
        let watch = async {
            while !self.store.commands().await.unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            stop.cancel();
        };
        let (end, ()) = tokio::join!(control.run(stop.clone()), watch);
        end.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn d23_what_looks_refused_is_tried_a_few_times_and_then_the_next_proceeds() {
    let home = tempfile::tempdir().unwrap();
    let bench = bench(home.path(), &["poison", "good"]).await;
    let script = (0..3).map(|_| Next::Fail(rejected())).collect();
    let outlet = FakeOutlet::new(true, script);
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["good"]);
    assert_eq!(
        outlet.keys.lock().unwrap().len(),
        4,
        "three attempts and the next message"
    );
    let tally = bench.tally(Side::Silo).await;
    assert_eq!((tally.failed, tally.parked), (1, 1));
    assert_eq!(tally.last_failure.as_deref(), Some("rejected"));
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn d23_while_every_lane_of_the_side_is_rejected_no_message_is_given_up() {
    let home = tempfile::tempdir().unwrap();
    let bench = bench(home.path(), &["one"]).await;
    // The other lane's outlet belongs to the same side.
    bench
        .store
        .accept(
            footbridge_store::Batch {
                arrivals: vec![footbridge_store::Arrival {
                    place: bench.portal.channel.clone(),
                    event_id: "g1".into(),
                    message: Some("g1".into()),
                    thread: None,
                    sent_at: footbridge_store::Millis(1),
                    payload: Payload::Ready(crate::lanes::bytes(post("other"))),
                }],
                ..footbridge_store::Batch::default()
            },
            bench.clock.now(),
        )
        .await
        .unwrap();
    let (here, there) = (FakeOutlet::new(true, vec![]), FakeOutlet::new(true, vec![]));
    for outlet in [&here, &there] {
        *outlet.always.lock().unwrap() = Some(rejected);
    }
    tokio::join!(
        bench.run(&here, LONG),
        bench.run_toward(Side::Matrix, &there, LONG)
    );
    assert!(here.keys.lock().unwrap().len() > 10);
    let failed = bench.tally(Side::Silo).await.failed + bench.tally(Side::Matrix).await.failed;
    assert!(
        failed <= 1,
        "at most one before the other lane made an attempt"
    );
    // The other lane works again: now the message is to blame.
    *there.always.lock().unwrap() = None;
    bench.arrive("$two", post("two")).await;
    tokio::join!(
        bench.run(&here, LONG),
        bench.run_toward(Side::Matrix, &there, LONG)
    );
    assert!(bench.tally(Side::Silo).await.failed > 0);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn d23_a_message_that_fails_while_its_side_is_well_ends_after_the_limit() {
    let home = tempfile::tempdir().unwrap();
    let bench = bench(home.path(), &["poison", "good"]).await;
    let outlet = FakeOutlet::new(true, vec![]);
    *outlet.always.lock().unwrap() = Some(troubled);
    let began = tokio::time::Instant::now();
    let watch = async {
        while bench.tally(Side::Silo).await.failed == 0 {
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        *outlet.always.lock().unwrap() = None;
    };
    tokio::join!(bench.run(&outlet, DAYS), watch);
    assert!(
        began.elapsed() >= bench.limits.give_up,
        "{:?}",
        began.elapsed()
    );
    assert_eq!(outlet.texts(), ["good"]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn d23_neither_an_outage_nor_a_rate_limit_costs_a_message() {
    for fault in [troubled as fn() -> SendError, limited] {
        let home = tempfile::tempdir().unwrap();
        let mut bench = bench(home.path(), &["one", "two"]).await;
        bench.limits.give_up = Duration::from_mins(10);
        let outlet = FakeOutlet::new(true, vec![]);
        *outlet.always.lock().unwrap() = Some(fault);
        // A rate limit counts as one even while the side answers everything else.
        outlet
            .answers
            .store(fault().kind() == "slowed", Ordering::Relaxed);
        bench.run(&outlet, 5 * bench.limits.give_up).await;
        assert_eq!(bench.tally(Side::Silo).await.pending, 2);
        *outlet.always.lock().unwrap() = None;
        bench.run(&outlet, LONG).await;
        assert_eq!(outlet.texts(), ["one", "two"]);
    }
}

#[tokio::test(start_paused = true)]
async fn d23_what_may_have_arrived_is_looked_for_before_it_is_given_up() {
    let unknown = || not_now(Outcome::Unknown);
    let home = tempfile::tempdir().unwrap();
    let mut there = bench(home.path(), &["there"]).await;
    there.limits.give_up = Duration::from_millis(1);
    let script = vec![Next::Fail(unknown()), Next::WorkThenFail(unknown())];
    let outlet = FakeOutlet::new(false, script);
    there.run(&outlet, LONG).await;
    let tally = there.tally(Side::Silo).await;
    assert_eq!((tally.delivered, tally.failed), (1, 0));
    assert_eq!(outlet.texts(), ["there"]);

    let home = tempfile::tempdir().unwrap();
    let mut lost = bench(home.path(), &["lost"]).await;
    lost.limits.give_up = Duration::from_millis(1);
    let script = vec![Next::Fail(unknown()), Next::Fail(unknown())];
    let outlet = FakeOutlet::new(false, script);
    lost.run(&outlet, LONG).await;
    assert_eq!(lost.tally(Side::Silo).await.failed, 1);
    assert!(outlet.texts().is_empty());
    let unknown = lost
        .store
        .unknown_outcomes(&lost.portal.channel)
        .await
        .unwrap();
    assert_eq!(unknown, []);
}

#[tokio::test(start_paused = true)]
async fn d04_a_look_that_fails_leaves_the_doubt() {
    let home = tempfile::tempdir().unwrap();
    let bench = bench(home.path(), &["once"]).await;
    let outlet = FakeOutlet::new(false, vec![Next::WorkThenFail(not_now(Outcome::Unknown))]);
    *outlet.blind.lock().unwrap() = (0..3).map(|_| not_now(Outcome::NotDone)).collect();
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["once"]);
    assert_eq!(bench.tally(Side::Silo).await.delivered, 1);
}

#[tokio::test(start_paused = true)]
async fn d22_who_asks_to_be_asked_again_at_once_is_asked_once_a_second() {
    let home = tempfile::tempdir().unwrap();
    let bench = bench(home.path(), &["one"]).await;
    let outlet = FakeOutlet::new(true, vec![]);
    *outlet.always.lock().unwrap() = Some(hurried);
    bench.run(&outlet, Duration::from_secs(30)).await;
    let tries = outlet.keys().len();
    assert!((10..40).contains(&tries), "{tries}");
    *outlet.always.lock().unwrap() = None;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["one"]);
}

#[tokio::test(start_paused = true)]
async fn d22_a_closed_place_gives_one_notice_and_resumes_by_itself() {
    let home = tempfile::tempdir().unwrap();
    let bench = bench(home.path(), &["one", "two"]).await;
    let (outlet, room) = (FakeOutlet::new(true, vec![]), FakeOutlet::new(true, vec![]));
    *outlet.always.lock().unwrap() = Some(closed);
    bench.run(&outlet, LONG).await;
    // No flood of attempts: within the hour, about one a minute.
    let tries = outlet.keys.lock().unwrap().len();
    assert!((20..240).contains(&tries), "{tries}");
    let told = bench.notices_in(&room).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("cannot write to the wall channel: banned"));
    assert!(bench.tally(Side::Silo).await.closed_since.is_some());

    // As after a restart: the store remembers what is known of the lane.
    let bench = Bench {
        health: OutletHealth::default(),
        ..bench
    };
    *outlet.always.lock().unwrap() = None;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["one", "two"]);
    assert_eq!(
        bench.notices_in(&room).await,
        ["✅ The bridge can write to the wall channel again."]
    );
    assert_eq!(bench.tally(Side::Silo).await.closed_since, None);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn d22_what_waits_too_long_for_a_closed_place_ends_with_one_notice_for_all() {
    let home = tempfile::tempdir().unwrap();
    let bench = bench(home.path(), &["one", "two", "three"]).await;
    let (outlet, room) = (FakeOutlet::new(true, vec![]), FakeOutlet::new(true, vec![]));
    *outlet.always.lock().unwrap() = Some(closed);
    bench.run(&outlet, DAYS).await;
    let tally = bench.tally(Side::Silo).await;
    assert_eq!((tally.failed, tally.parked, tally.pending), (3, 3, 0));
    let told = bench.notices_in(&room).await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].contains("3 messages from here could not be delivered"));
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn d22_a_signed_out_side_gives_a_notice_and_keeps_its_pending_deliveries() {
    let home = tempfile::tempdir().unwrap();
    let bench = bench(home.path(), &["one"]).await;
    let (outlet, room) = (FakeOutlet::new(true, vec![]), FakeOutlet::new(true, vec![]));
    *outlet.always.lock().unwrap() = Some(|| SendError::SignedOut {
        reason: "the token was revoked".into(),
    });
    assert_eq!(bench.run(&outlet, LONG).await, LaneEnd::SignedOut);
    assert!(bench.notices_in(&room).await[0].contains("the token was revoked"));
    *outlet.always.lock().unwrap() = None;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["one"]);
    assert!(bench.notices_in(&room).await[0].contains("again"));
}

#[tokio::test(start_paused = true)]
async fn d23_a_failed_message_that_was_edited_is_tried_again_with_its_new_text() {
    let home = tempfile::tempdir().unwrap();
    let bench = bench(home.path(), &["too long"]).await;
    let outlet = FakeOutlet::new(true, vec![Next::Fail(refused())]);
    bench.run(&outlet, LONG).await;
    bench.arrive("$e", edit("$too long", "shorter")).await;
    bench.run(&outlet, LONG).await;
    let tally = bench.tally(Side::Silo).await;
    assert_eq!((tally.failed, tally.parked), (1, 1));
    assert_eq!(tally.skipped, [(SkipRule::EditIncluded, 1)]);
    bench.ask("$q", "retry", Some("$too long"), "@a:x").await;
    bench.answer().await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["shorter"]);
    assert_eq!(bench.tally(Side::Silo).await.failed, 0);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn failed_messages_of_a_user_who_opted_out_cannot_be_retried() {
    let home = tempfile::tempdir().unwrap();
    let bench = bench(home.path(), &["too long"]).await;
    let outlet = FakeOutlet::new(true, vec![Next::Fail(refused())]);
    bench.run(&outlet, LONG).await;
    // As earlier versions left it in the store.
    let (store, room) = (&bench.store, &bench.portal.room);
    let opted = store.opt_out(room, "@a:x", Scope::Here, |_, _| false, bench.clock.now());
    assert_eq!(opted.await.unwrap(), 0);
    let moderator = Command {
        sender: Sender {
            id: "@mod:x".into(),
            name: "Mod".into(),
            avatar: None,
        },
        arguments: "retry".into(),
        target: Some("$too long".into()),
        thread: None,
        moderator: true,
        by_reaction: false,
        encrypted: false,
    };
    let payload = ArrivalContent::from(moderator);
    bench.arrive_payload("$q", None, payload).await;
    bench.answer().await;
    let told = bench.notices_in(&FakeOutlet::new(true, vec![])).await;
    let answer = "Its author has opted out (`!bridge optout`).";
    assert!(told.iter().any(|text| text == answer), "{told:?}");
    bench.run(&outlet, LONG).await;
    assert!(outlet.texts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_failures_has_one_notice_that_follows_what_becomes_of_them() {
    let home = tempfile::tempdir().unwrap();
    let bench = bench(home.path(), &["a", "b", "c"]).await;
    let (outlet, room) = (
        FakeOutlet::new(true, (0..3).map(|_| Next::Fail(refused())).collect()),
        FakeOutlet::new(true, vec![]),
    );
    bench.run(&outlet, LONG).await;
    let told = bench.notices_in(&room).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("3 messages from here could not be delivered to the wall channel"),
        "{told:?}"
    );

    // As a reply to the notice, by another user: refused.
    bench.ask("$q1", "retry", Some("wall-0"), "@b:x").await;
    bench.answer().await;
    let told = bench.notices_in(&room).await;
    assert!(told[1].starts_with("Only its sender"), "{told:?}");

    bench.ask("$q2", "retry", Some("wall-0"), "@a:x").await;
    bench.answer().await;
    assert_eq!(bench.tally(Side::Silo).await.failed, 0);
    assert_eq!(bench.tally(Side::Silo).await.pending, 3);
    bench.balance().await;
    let told = bench.notices_in(&room).await;
    assert!(
        told[0].starts_with("🔁 Trying again to deliver 3 messages"),
        "{told:?}"
    );
    assert_eq!(told[2], "Retrying 3 messages.");

    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["a", "b", "c"], "in their order");
    let told = bench.notices_in(&room).await;
    assert_eq!(
        told[0],
        "✅ 3 messages were delivered to the wall channel after all."
    );
    assert_eq!(told.len(), 3, "the notice was edited, not repeated");
    bench.balance().await;
    let skipped = bench.tally(Side::Silo).await.skipped;
    assert_eq!(skipped, [(SkipRule::Command, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_fails_again_turns_the_notice_back() {
    let home = tempfile::tempdir().unwrap();
    let bench = bench(home.path(), &["a"]).await;
    let room = FakeOutlet::new(true, vec![]);
    let outlet = FakeOutlet::new(true, vec![Next::Fail(refused()), Next::Fail(refused())]);
    bench.run(&outlet, LONG).await;
    bench.notices_in(&room).await;
    bench.ask("$q", "retry", Some("$a"), "@a:x").await;
    bench.answer().await;
    bench.run(&outlet, LONG).await;
    let told = bench.notices_in(&room).await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("⚠ A message from here"), "{told:?}");
    let tally = bench.tally(Side::Silo).await;
    assert_eq!((tally.accepted, tally.failed, tally.parked), (2, 1, 1));
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_kill_between_the_failure_and_its_notice_costs_no_notice_and_doubles_none() {
    let home = tempfile::tempdir().unwrap();
    {
        let bench = bench(home.path(), &["a"]).await;
        let lane = LaneId {
            portal: bench.portal.id,
            toward: Side::Silo,
        };
        let QueueHead::Ready(delivery) = bench
            .store
            .queue_head(lane, bench.clock.now())
            .await
            .unwrap()
        else {
            panic!("a delivery is due")
        };
        let how = Undelivered::Failed {
            kind: "refused",
            reason: "it is bad".into(),
            about: None,
            notice: FailureNotice::ToSender,
        };
        bench
            .store
            .end_undelivered(delivery.id, how, bench.clock.now())
            .await
            .unwrap();
    }
    let (outlet, room) = (FakeOutlet::new(true, vec![]), FakeOutlet::new(true, vec![]));
    for _ in 0..2 {
        let bench = Bench::open(home.path()).await;
        bench.run(&outlet, Duration::from_secs(1)).await;
        assert_eq!(bench.notices_in(&room).await.len(), 1);
        bench.balance().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_kill_between_doing_and_answering_does_it_once_and_answers_once() {
    let home = tempfile::tempdir().unwrap();
    let outlet = FakeOutlet::new(true, vec![Next::Fail(refused())]);
    let room = FakeOutlet::new(true, vec![]);
    {
        let bench = bench(home.path(), &["a"]).await;
        bench.run(&outlet, LONG).await;
        bench.notices_in(&room).await;
        bench.ask("$q", "retry", Some("$a"), "@a:x").await;
        // What control does, up to the moment of the kill.
        let about = bench
            .store
            .parked_deliveries_of(&bench.portal.room, &"$a".into())
            .await
            .unwrap();
        bench.store.retry_parked(&[about[0].id]).await.unwrap();
    }
    let bench = Bench::open(home.path()).await;
    bench.answer().await;
    bench.answer().await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["a"]);
    let told = bench.notices_in(&room).await;
    assert_eq!(
        told,
        [
            "✅ Delivered to the wall channel after all.",
            "It is already being retried."
        ]
    );
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_message_that_its_author_deletes_is_not_kept() {
    let home = tempfile::tempdir().unwrap();
    let bench = bench(home.path(), &["a"]).await;
    let room = FakeOutlet::new(true, vec![]);
    let outlet = FakeOutlet::new(true, vec![Next::Fail(refused())]);
    bench.run(&outlet, LONG).await;
    bench
        .arrive(
            "$d",
            Action::Delete {
                target: "$a".into(),
            },
        )
        .await;
    bench.run(&outlet, LONG).await;
    assert_eq!(bench.tally(Side::Silo).await.parked, 0);
    bench.ask("$q", "retry", Some("$a"), "@a:x").await;
    bench.answer().await;
    let told = bench.notices_in(&room).await;
    assert!(told[1].contains("no longer stored"), "{told:?}");
    assert!(outlet.texts().is_empty());
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn why_shows_each_state() {
    let home = tempfile::tempdir().unwrap();
    let bench = bench(home.path(), &["sent", "failed"]).await;
    let room = FakeOutlet::new(true, vec![]);
    let outlet = FakeOutlet::new(true, vec![Next::Work, Next::Fail(refused())]);
    bench.run(&outlet, LONG).await;
    bench.arrive("$pending1", post("p")).await;
    bench.arrive("$pending2", post("p")).await;
    bench
        .arrive_payload(
            "$skipped",
            None,
            ArrivalContent::Skipped(SkipRule::Undecryptable),
        )
        .await;
    bench.notices_in(&room).await;
    for (number, (target, words)) in [
        (Some("$sent"), "To the wall channel: delivered"),
        (
            Some("$failed"),
            "it is bad. `!bridge retry` sends it again.",
        ),
        (Some("wall-0"), "it is bad. `!bridge retry` sends it again."),
        (Some("$pending1"), "it is being sent"),
        (Some("$pending2"), "behind 1 other message"),
        (
            Some("$skipped"),
            "not sent, because no room key decrypts it",
        ),
        (Some("$nothing"), "I do not know that message"),
        (None, "behind 1 other message"),
    ]
    .into_iter()
    .enumerate()
    {
        bench
            .ask(&format!("$q{number}"), "why", target, "@a:x")
            .await;
        bench.answer().await;
        let told = bench.notices_in(&room).await;
        let last = told.last().unwrap();
        assert!(last.contains(words), "{target:?}: {last}");
    }
    bench.ask("$status", "status", None, "@a:x").await;
    bench.answer().await;
    let told = bench.notices_in(&room).await;
    let last = told.last().unwrap();
    assert!(
        last.contains("To wall c: 1 delivered, 2 waiting")
            && last.contains("1 failed (1 can be retried)"),
        "{last}"
    );
    bench.balance().await;
}
