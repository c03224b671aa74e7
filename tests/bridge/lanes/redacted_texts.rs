//! What was redacted stays readable nowhere: the texts of redacted edits, and the parts of a message that a moderator deleted.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use footbridge_core::{
    budget::Priority,
    file::File,
    outlet::{Outcome, SendError},
};
use footbridge_store::{
    DeliveryId, FailureNotice, LaneId, QueueHead, RemoteId, Side, SkipRule, Undelivered,
};

use super::{
    Bench, FakeOutlet, LONG, Next, edit, not_now, post,
    redacted_edits::{NOTHING_BEFORE, edited, hear_with, once, redact, refused, skipped},
    unsent::delete,
};

fn too_late() -> Next {
    Next::Fail(SendError::TooLate)
}

/// Edits the message after the time in which the silo allows it.
async fn edited_late(bench: &Bench, outlet: &Arc<FakeOutlet>, event: &str, text: &str) {
    outlet.script().push_back(too_late());
    bench.hear(event, edit("$m", text)).await;
    outlet.reads(event, Some(text));
    bench.run(outlet, LONG).await;
}

/// Redacts an edit after the time in which the silo allows changes.
async fn redacted_late(bench: &Bench, outlet: &Arc<FakeOutlet>, event: &str) {
    outlet.script().push_back(too_late());
    redact(bench, outlet, event).await;
    bench.run(outlet, LONG).await;
    outlet.script().clear();
}

#[tokio::test(start_paused = true)]
async fn what_an_older_edit_posted_is_deleted_with_it_while_a_newer_one_stands() {
    for is_idempotent in [true, false] {
        let home = tempfile::tempdir().unwrap();
        let bench = Bench::open(home.path()).await;
        let outlet = FakeOutlet::new(is_idempotent, Vec::new());
        edited(&bench, &outlet, &[]).await;
        edited_late(&bench, &outlet, "$e1", "second").await;
        edited_late(&bench, &outlet, "$e2", "third").await;
        assert_eq!(outlet.readable(), ["first", "second", "third"]);
        let said = outlet.said().len();
        redact(&bench, &outlet, "$e1").await;
        bench.run(&outlet, LONG).await;
        assert_eq!(outlet.readable(), ["first", "third"]);
        assert_eq!(outlet.said().len(), said, "nothing is posted twice");
        redacted_late(&bench, &outlet, "$e2").await;
        assert_eq!(outlet.readable(), ["first", "first"]);
        bench.hear("$gone", delete("$m")).await;
        bench.run(&outlet, LONG).await;
        assert_eq!(skipped(&bench).await, []);
        bench.balance().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_redaction_restored_is_deleted_when_that_text_is_redacted_too() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(false, Vec::new());
    edited(&bench, &outlet, &[]).await;
    edited_late(&bench, &outlet, "$e1", "second").await;
    edited_late(&bench, &outlet, "$e2", "third").await;
    edited_late(&bench, &outlet, "$e3", "fourth").await;
    redacted_late(&bench, &outlet, "$e3").await;
    redacted_late(&bench, &outlet, "$e2").await;
    let left = outlet.readable();
    assert!(
        left.iter().all(|text| text == "first" || text == "second"),
        "{left:?}"
    );
    redacted_late(&bench, &outlet, "$e1").await;
    let left = outlet.readable();
    assert!(left.iter().all(|text| text == "first"), "{left:?}");
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_can_no_longer_be_changed_is_deleted_with_the_redacted_text() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    // While it can be changed, it stays.
    edited(&bench, &outlet, &["second"]).await;
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(
        (outlet.readable(), outlet.removed().len()),
        (vec!["first".into()], 0)
    );
    assert_eq!(outlet.keys().len(), 3);
    bench.hear("$e2", edit("$m", "third")).await;
    bench.run(&outlet, LONG).await;
    redacted_late(&bench, &outlet, "$e2").await;
    assert_eq!(outlet.readable(), ["first"]);
    assert_eq!(outlet.removed(), [RemoteId::from("wall-0")]);
    // The message can be edited and deleted as before.
    bench.hear("$e3", edit("$m", "fourth")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), ["fourth"]);
    bench.hear("$gone", delete("$m")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), Vec::<String>::new());
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn where_an_edit_is_an_event_no_event_keeps_a_redacted_text() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    outlet.events.store(true, Ordering::Relaxed);
    edited(&bench, &outlet, &["second", "third", "fourth"]).await;
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), ["first", "third", "fourth"]);
    redact(&bench, &outlet, "$e3").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), ["first", "third", "third"]);
    redact(&bench, &outlet, "$e2").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), ["first", "first"]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_was_sent_with_the_text_of_an_edit_goes_with_that_edit() {
    for newer in [false, true] {
        let home = tempfile::tempdir().unwrap();
        let bench = Bench::open(home.path()).await;
        let outlet = FakeOutlet::new(false, Vec::new());
        outlet.events.store(true, Ordering::Relaxed);
        let (message, first, second) = ("$m", "$e1", "$e2");
        outlet.reads(message, Some("a secret"));
        bench.hear(message, post("a secret")).await;
        bench.hear(first, edit(message, "second")).await;
        bench.run(&outlet, LONG).await;
        assert_eq!(outlet.readable(), ["second"]);
        let mut left = NOTHING_BEFORE;
        if newer {
            left = "third";
            bench.hear(second, edit(message, "third")).await;
            outlet.reads(second, Some("third"));
            bench.run(&outlet, LONG).await;
        }
        redact(&bench, &outlet, first).await;
        bench.run(&outlet, LONG).await;
        assert_eq!(outlet.readable(), [left]);
        bench
            .hear(&format!("{message} is gone"), delete(message))
            .await;
        bench.run(&outlet, LONG).await;
        assert_eq!(outlet.readable(), Vec::<String>::new());
        bench.balance().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_a_redacted_edit_added_stays_while_a_newer_edit_has_it() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(false, Vec::new());
    edited(&bench, &outlet, &[]).await;
    let file = File {
        name: "cat.png".to_owned(),
        source: "mxc://x/cat".to_owned(),
        ..File::default()
    };
    *outlet.files.lock().unwrap() = vec![file.clone()];
    for (event, text) in [("$e1", "second"), ("$e2", "third")] {
        hear_with(&bench, event, edit("$m", text), std::slice::from_ref(&file)).await;
        outlet.reads(event, Some(text));
        bench.run(&outlet, LONG).await;
    }
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), ["third", "a file"]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn of_a_copy_that_a_moderator_deleted_no_event_keeps_a_redacted_text() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    outlet.events.store(true, Ordering::Relaxed);
    edited(&bench, &outlet, &["second"]).await;
    let channel = &bench.portal.channel;
    let copy = RemoteId::from("wall-0");
    bench.store.mark_copy_deleted(channel, &copy).await.unwrap();
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.removed(), [RemoteId::from("wall-1")]);
    assert_eq!(outlet.said(), ["first", "second"]);
    bench.balance().await;
}

fn away() -> Next {
    Next::Fail(not_now(Outcome::NotDone))
}

#[tokio::test(start_paused = true)]
async fn a_saved_plan_does_not_restore_a_text_that_was_redacted_since() {
    for removes in [true, false] {
        let home = tempfile::tempdir().unwrap();
        let bench = Bench::open(home.path()).await;
        let outlet = FakeOutlet::new(true, Vec::new());
        outlet.removes.store(removes, Ordering::Relaxed);
        edited(&bench, &outlet, &["second", "third"]).await;
        outlet.script().push_back(away());
        redact(&bench, &outlet, "$e2").await;
        bench.run(&outlet, Duration::from_millis(50)).await;
        redact(&bench, &outlet, "$e1").await;
        bench.run(&outlet, LONG).await;
        assert_eq!(outlet.texts(), ["first"]);
        let seconds = outlet
            .said()
            .iter()
            .filter(|text| *text == "second")
            .count();
        assert_eq!(seconds, 1, "{:?}", outlet.said());
        bench.balance().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_restoration_that_failed_in_the_middle_leaves_no_redacted_text_beside_a_later_edit() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    edited(&bench, &outlet, &[]).await;
    edited_late(&bench, &outlet, "$e1", "second").await;
    outlet.script().extend([Next::Work, refused()]);
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), ["first", "second"]);
    bench.hear("$e2", edit("$m", "third")).await;
    bench.run(&outlet, LONG).await;
    let target = RemoteId::from("$m");
    let parked = bench
        .store
        .parked_deliveries_of(&bench.portal.room, &target);
    let parked: Vec<_> = parked.await.unwrap().iter().map(|one| one.id).collect();
    assert_eq!(bench.store.retry_parked(&parked).await.unwrap().len(), 1);
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), ["third"]);
    bench.balance().await;
}

fn lost() -> SendError {
    not_now(Outcome::Unknown)
}

#[tokio::test(start_paused = true)]
async fn a_second_step_without_an_answer_is_looked_for_when_its_edit_is_redacted() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    edited(&bench, &outlet, &[]).await;
    outlet
        .script()
        .extend([Next::Work, Next::WorkThenFail(lost())]);
    bench.hear("$e1", edit("$m", "two|a secret")).await;
    bench.run(&outlet, Duration::from_millis(50)).await;
    assert_eq!(outlet.readable(), ["two", "a secret"]);
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), ["first"]);
    // The same for a message that had the text of the edit when it was sent.
    outlet
        .script()
        .extend([Next::Work, Next::WorkThenFail(lost())]);
    bench.hear("$n", post("before")).await;
    bench.hear("$f1", edit("$n", "three|another secret")).await;
    bench.run(&outlet, Duration::from_millis(50)).await;
    redact(&bench, &outlet, "$f1").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), ["first", NOTHING_BEFORE]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_is_redacted_while_it_waits_for_its_permit_is_not_sent() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(false, Vec::new());
    edited(&bench, &outlet, &[]).await;
    let lane = LaneId {
        portal: bench.portal.id,
        toward: Side::Silo,
    };
    let permit = bench.budget.acquire(lane, Priority::Text).await;
    permit.record_rate_limit(Some(Duration::from_secs(5)));
    bench.hear("$e1", edit("$m", "a secret")).await;
    let redacts = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        redact(&bench, &outlet, "$e1").await;
    };
    tokio::join!(bench.run(&outlet, LONG), redacts);
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.said(), ["first"]);
    assert_eq!(skipped(&bench).await, [(SkipRule::EditRedacted, 2)]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_part_that_a_moderator_deleted_is_not_posted_again_by_an_edit() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    bench.hear("$m", post("one|two|three")).await;
    bench.run(&outlet, LONG).await;
    let channel = &bench.portal.channel;
    for wall in ["wall-0", "wall-2"] {
        bench
            .store
            .mark_copy_deleted(channel, &wall.into())
            .await
            .unwrap();
    }
    bench.hear("$e1", edit("$m", "four|five|six")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.said(), ["one", "two", "three", "five"]);
    // Nothing is left to be changed.
    bench
        .store
        .mark_copy_deleted(channel, &"wall-1".into())
        .await
        .unwrap();
    bench.hear("$e2", edit("$m", "seven|eight|nine")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.said().len(), 4);
    assert_eq!(skipped(&bench).await, [once(SkipRule::UnknownTarget)]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_with_the_id_of_another_message_ends_that_delivery_and_no_lane() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, vec![Next::Work, Next::Claim("wall-0")]);
    for (event, text) in [("$1", "one"), ("$2", "two"), ("$3", "three")] {
        bench.hear(event, post(text)).await;
    }
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.said(), ["one", "two", "three"]);
    let tally = bench.tally(Side::Silo).await;
    assert_eq!((tally.delivered, tally.failed, tally.pending), (2, 1, 0));
    assert_eq!(tally.last_failure.as_deref(), Some("unknown"));
    let (room, channel) = (&bench.portal.room, &bench.portal.channel);
    let first = bench.store.copies(room, &"$1".into(), channel).await;
    assert_eq!(first.unwrap().copies.len(), 1);
    bench.balance().await;
}

/// The message reached the channel, its answer was lost, and the delivery ended because the channel was closed for long.
async fn closed_after_it_arrived(bench: &Bench, outlet: &Arc<FakeOutlet>) {
    outlet.script().push_back(Next::WorkThenFail(lost()));
    bench.hear("$m", post("first")).await;
    bench.run(outlet, Duration::from_millis(50)).await;
    let lane = bench.lane(Side::Silo, outlet.clone()).id;
    let now = bench.clock.now();
    let parked = bench.store.park_overdue(lane, now, "closed", now);
    assert_eq!(parked.await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_a_failed_message_that_may_have_arrived_follows_it_at_a_retry() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    closed_after_it_arrived(&bench, &outlet).await;
    bench.hear("$e1", edit("$m", "second")).await;
    bench.run(&outlet, LONG).await;
    let tally = bench.tally(Side::Silo).await;
    assert_eq!((tally.failed, tally.parked), (2, 2));
    let target = RemoteId::from("$m");
    let parked = bench
        .store
        .parked_deliveries_of(&bench.portal.room, &target);
    let parked: Vec<_> = parked.await.unwrap().iter().map(|one| one.id).collect();
    bench.store.retry_parked(&parked).await.unwrap();
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), ["second"]);
    assert_eq!(bench.tally(Side::Silo).await.delivered, 2);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_message_that_may_have_arrived_is_looked_for_when_it_is_deleted() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    closed_after_it_arrived(&bench, &outlet).await;
    assert_eq!(outlet.readable(), ["first"]);
    bench.hear("$gone", delete("$m")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), Vec::<String>::new());
    assert_eq!(bench.tally(Side::Silo).await.parked, 0);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_is_looked_for_before_it_is_given_up() {
    let home = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(home.path()).await;
    bench.limits.give_up = Duration::ZERO;
    let outlet = FakeOutlet::new(true, vec![Next::WorkThenFail(lost())]);
    bench.hear("$m", post("first")).await;
    bench.run(&outlet, LONG).await;
    let tally = bench.tally(Side::Silo).await;
    assert_eq!((tally.delivered, tally.failed), (1, 0));
    bench.hear("$gone", delete("$m")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), Vec::<String>::new());
    bench.balance().await;
}

/// The channel is closed to the bridge for long: what is pending ends as failed.
async fn closed_for_long(bench: &Bench, outlet: &Arc<FakeOutlet>) {
    let lane = bench.lane(Side::Silo, outlet.clone()).id;
    let now = bench.clock.now();
    let parked = bench.store.park_overdue(lane, now, "closed", now);
    assert_eq!(parked.await.unwrap(), 1);
    outlet.script().clear();
}

/// The failed deliveries of a message of the room, and of its edits.
async fn failed(bench: &Bench, event: &str) -> Vec<DeliveryId> {
    let (room, event) = (&bench.portal.room, RemoteId::from(event));
    let failed = bench.store.parked_deliveries_of(room, &event);
    failed.await.unwrap().iter().map(|one| one.id).collect()
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_an_edit_is_not_posted_after_the_deletion_of_its_message() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(false, Vec::new());
    edited(&bench, &outlet, &[]).await;
    let closed = SendError::Closed {
        reason: "banned".into(),
    };
    outlet.script().extend([Next::Work, Next::Fail(closed)]);
    bench.hear("$e1", edit("$m", "one|two")).await;
    bench.run(&outlet, Duration::from_millis(50)).await;
    closed_for_long(&bench, &outlet).await;
    let parked = failed(&bench, "$m").await;
    assert_eq!(parked.len(), 1, "the message stands for its edit");
    bench.hear("$gone", delete("$m")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(bench.tally(Side::Silo).await.parked, 0);
    bench.store.retry_parked(&parked).await.unwrap();
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), Vec::<String>::new());
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_is_retried_behind_a_deletion_posts_nothing() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(false, Vec::new());
    edited(&bench, &outlet, &[]).await;
    let refused = SendError::Refused {
        reason: "no".into(),
    };
    outlet.script().extend([Next::Work, Next::Fail(refused)]);
    bench.hear("$e1", edit("$m", "one|two")).await;
    bench.run(&outlet, LONG).await;
    let parked = failed(&bench, "$m").await;
    // The retry is enqueued while the deletion is.
    bench.hear("$gone", delete("$m")).await;
    bench.store.retry_parked(&parked).await.unwrap();
    let channel = &bench.portal.channel;
    let first = RemoteId::from("wall-0");
    let mark = bench.store.mark_copy_deleted(channel, &first);
    mark.await.unwrap();
    bench.run(&outlet, LONG).await;
    assert!(!outlet.said().contains(&"two".to_owned()));
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_may_have_arrived_is_looked_for_when_its_message_is_deleted() {
    for is_event in [true, false] {
        let home = tempfile::tempdir().unwrap();
        let bench = Bench::open(home.path()).await;
        let outlet = FakeOutlet::new(true, Vec::new());
        outlet.events.store(is_event, Ordering::Relaxed);
        edited(&bench, &outlet, &[]).await;
        // Where an edit is no event, the silo allows it no longer: it is a message of its own.
        let arrived = Next::WorkThenFail(lost());
        let script = [too_late(), arrived].into_iter();
        outlet.script().extend(script.skip(usize::from(is_event)));
        bench.hear("$e1", edit("$m", "second")).await;
        bench.run(&outlet, Duration::from_millis(50)).await;
        closed_for_long(&bench, &outlet).await;
        assert!(outlet.readable().contains(&"second".to_owned()));
        bench.hear("$gone", delete("$m")).await;
        bench.run(&outlet, LONG).await;
        assert_eq!(outlet.readable(), Vec::<String>::new(), "{is_event}");
        bench.balance().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_may_have_arrived_is_looked_for_when_it_can_no_longer_be_retried() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    closed_after_it_arrived(&bench, &outlet).await;
    let later = bench.clock.now().plus(Duration::from_hours(31 * 24));
    bench.store.expire_parked(later).await.unwrap();
    assert_eq!(bench.tally(Side::Silo).await.parked, 0);
    bench.hear("$gone", delete("$m")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), Vec::<String>::new());
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_part_of_a_bundle_that_may_have_arrived_is_looked_for_when_it_is_deleted() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let limited = SendError::RateLimited {
        after: Some(Duration::from_secs(5)),
    };
    let script = vec![Next::Work, Next::Fail(limited), Next::WorkThenFail(lost())];
    let outlet = FakeOutlet::new(true, script);
    for (event, text) in [("$0", "zero"), ("$1", "one"), ("$2", "two")] {
        bench.hear(event, post(text)).await;
    }
    bench.run(&outlet, Duration::from_millis(5_100)).await;
    assert_eq!(outlet.readable(), ["zero", "one + two"]);
    let lane = bench.lane(Side::Silo, outlet.clone()).id;
    let now = bench.clock.now().plus(Duration::from_hours(1));
    let head = bench.store.queue_head(lane, now).await.unwrap();
    let QueueHead::Ready(bundle) = head else {
        panic!("the bundle is due");
    };
    let unknown = Undelivered::Failed {
        kind: "unknown",
        reason: "nobody knows".to_owned(),
        about: None,
        notice: FailureNotice::ToSender,
    };
    let ended = bench.store.end_undelivered(bundle.id, unknown, now);
    ended.await.unwrap();
    outlet.script().clear();
    bench.hear("$gone", delete("$2")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), ["zero", "one + "]);
    bench.hear("$gone too", delete("$1")).await;
    bench.run(&outlet, LONG).await;
    assert!(!outlet.readable().concat().contains("one"));
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_shows_another_message_leaves_the_outcome_unknown() {
    let home = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(home.path()).await;
    bench.limits.give_up = Duration::ZERO;
    let outlet = FakeOutlet::new(true, vec![Next::Work, Next::ClaimThenLose("wall-0")]);
    for (event, text) in [("$1", "one"), ("$2", "two")] {
        bench.hear(event, post(text)).await;
    }
    bench.run(&outlet, LONG).await;
    let tally = bench.tally(Side::Silo).await;
    assert_eq!((tally.delivered, tally.failed, tally.pending), (1, 1, 0));
    assert_eq!(tally.last_failure.as_deref(), Some("unknown"));
    bench.balance().await;
}
