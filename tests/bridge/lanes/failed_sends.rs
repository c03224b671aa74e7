//! Failed deliveries that may have arrived: what is redacted or retried later is looked for first, and nothing of it stays or is
//! doubled.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use footbridge_core::{message::Message, outlet::SendError};
use footbridge_store::{
    DeliveryId, FailureNotice, QueueHead, RemoteId, Side, SkipRule, Undelivered,
};

use super::{
    Bench, FakeOutlet, LONG, Next, edit, post,
    redacted_edits::{NOTHING_BEFORE, edited, redact},
    redacted_texts::{lost, too_late},
    unsent::delete,
};

/// The message reached the channel, its answer was lost, and the delivery ended because the channel was closed for long.
async fn closed_after_it_arrived(bench: &Bench, outlet: &Arc<FakeOutlet>) {
    outlet.script().push_back(Next::WorkThenFail(lost()));
    bench.arrive("$m", post("first")).await;
    bench.run(outlet, Duration::from_millis(50)).await;
    let lane = bench.lane(Side::Silo, outlet.clone()).id;
    let now = bench.clock.now();
    let parked = bench
        .store
        .park_overdue(lane, now, "closed", Message::edited_by, now);
    assert_eq!(parked.await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_a_failed_message_that_may_have_arrived_follows_it_at_a_retry() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    closed_after_it_arrived(&bench, &outlet).await;
    bench.arrive("$e1", edit("$m", "second")).await;
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
    bench.arrive("$gone", delete("$m")).await;
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
    bench.arrive("$m", post("first")).await;
    bench.run(&outlet, LONG).await;
    let tally = bench.tally(Side::Silo).await;
    assert_eq!((tally.delivered, tally.failed), (1, 0));
    bench.arrive("$gone", delete("$m")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), Vec::<String>::new());
    bench.balance().await;
}

/// The channel is closed to the bridge for long: what is pending ends as failed.
async fn closed_for_long(bench: &Bench, outlet: &Arc<FakeOutlet>) {
    closed_toward(Side::Silo, bench, outlet).await;
}

/// The same for either end.
async fn closed_toward(toward: Side, bench: &Bench, outlet: &Arc<FakeOutlet>) {
    let lane = bench.lane(toward, outlet.clone()).id;
    let now = bench.clock.now();
    let parked = bench
        .store
        .park_overdue(lane, now, "closed", Message::edited_by, now);
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
    bench.arrive("$e1", edit("$m", "one|two")).await;
    bench.run(&outlet, Duration::from_millis(50)).await;
    closed_for_long(&bench, &outlet).await;
    let parked = failed(&bench, "$m").await;
    assert_eq!(parked.len(), 1, "the message stands for its edit");
    bench.arrive("$gone", delete("$m")).await;
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
    bench.arrive("$e1", edit("$m", "one|two")).await;
    bench.run(&outlet, LONG).await;
    let parked = failed(&bench, "$m").await;
    // The retry is enqueued while the deletion is.
    bench.arrive("$gone", delete("$m")).await;
    bench.store.retry_parked(&parked).await.unwrap();
    let channel = &bench.portal.channel;
    let first = RemoteId::from("wall-0");
    let mark = bench.store.mark_copy_deleted(channel, &first);
    mark.await.unwrap();
    bench.run(&outlet, LONG).await;
    assert!(!outlet.sent().contains(&"two".to_owned()));
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
        bench.arrive("$e1", edit("$m", "second")).await;
        bench.run(&outlet, Duration::from_millis(50)).await;
        closed_for_long(&bench, &outlet).await;
        assert!(outlet.readable().contains(&"second".to_owned()));
        bench.arrive("$gone", delete("$m")).await;
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
    bench.arrive("$gone", delete("$m")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), Vec::<String>::new());
    bench.balance().await;
}

/// Three messages, of which two go together after a rate limit, and edits of these; the delivery of both ended without an answer
/// to this attempt.
async fn bundle_without_an_answer(
    home: &std::path::Path,
    edits: &[(&str, &str, &str)],
    attempt: Next,
) -> (Bench, Arc<FakeOutlet>) {
    let bench = Bench::open(home).await;
    let limited = SendError::RateLimited {
        after: Some(Duration::from_secs(5)),
    };
    let outlet = FakeOutlet::new(true, vec![Next::Work, Next::Fail(limited), attempt]);
    for (event, text) in [("$0", "zero"), ("$1", "one"), ("$2", "two")] {
        bench.arrive(event, post(text)).await;
        outlet.reads(event, Some(text));
    }
    for (event, target, text) in edits {
        bench.arrive(event, edit(target, text)).await;
        outlet.reads(event, Some(text));
    }
    bench.run(&outlet, Duration::from_millis(5_100)).await;
    let lane = bench.lane(Side::Silo, outlet.clone()).id;
    let now = bench.clock.now().plus(Duration::from_hours(1));
    let head = bench.store.queue_head(lane, now).await.unwrap();
    let QueueHead::Ready(bundle) = head else {
        panic!("the bundle is due");
    };
    unknown(&bench, bundle.id, None).await;
    outlet.script().clear();
    (bench, outlet)
}

/// Ends a delivery, and nobody knows whether it arrived.
async fn unknown(bench: &Bench, delivery: DeliveryId, about: Option<&str>) {
    let unknown = Undelivered::Failed {
        kind: "unknown",
        reason: "nobody knows".to_owned(),
        about: about.map(RemoteId::from),
        notice: FailureNotice::ToSender,
    };
    let now = bench.clock.now();
    let ended = bench.store.end_undelivered(delivery, unknown, now);
    ended.await.unwrap();
}

/// Somebody retries all failed deliveries of a message.
async fn retry(bench: &Bench, event: &str) {
    let parked = failed(bench, event).await;
    let lanes = bench.store.retry_parked(&parked).await.unwrap();
    assert_eq!(lanes.len(), parked.len());
}

fn no() -> SendError {
    SendError::Refused {
        reason: "no".into(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_of_a_bundle_that_may_have_arrived_is_looked_for_when_it_is_deleted() {
    let home = tempfile::tempdir().unwrap();
    let (bench, outlet) =
        bundle_without_an_answer(home.path(), &[], Next::WorkThenFail(lost())).await;
    assert_eq!(outlet.readable(), ["zero", "one + two"]);
    bench.arrive("$gone", delete("$2")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), ["zero", "one + "]);
    bench.arrive("$gone too", delete("$1")).await;
    bench.run(&outlet, LONG).await;
    assert!(!outlet.readable().concat().contains("one"));
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_had_arrived_in_a_bundle_is_not_doubled_by_a_retry() {
    for arrived in [true, false] {
        let home = tempfile::tempdir().unwrap();
        let attempt = if arrived {
            Next::WorkThenFail(lost())
        } else {
            Next::Fail(lost())
        };
        let (bench, outlet) = bundle_without_an_answer(home.path(), &[], attempt).await;
        for event in ["$1", "$2"] {
            retry(&bench, event).await;
        }
        bench.run(&outlet, LONG).await;
        let (shown, left) = if arrived {
            (&["zero", "one + two"][..], "one + ")
        } else {
            (&["zero", "one", "two"][..], "one")
        };
        assert_eq!(outlet.readable(), shown);
        assert_eq!(bench.tally(Side::Silo).await.delivered, 3);
        bench.arrive("$gone", delete("$2")).await;
        bench.run(&outlet, LONG).await;
        assert_eq!(outlet.readable(), ["zero", left]);
        bench.balance().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_could_not_be_looked_for_is_looked_for_again_after_a_retry_that_was_refused()
{
    let home = tempfile::tempdir().unwrap();
    let (bench, outlet) =
        bundle_without_an_answer(home.path(), &[], Next::WorkThenFail(lost())).await;
    let parked = failed(&bench, "$2").await;
    bench.store.retry_parked(&parked).await.unwrap();
    outlet.blind.lock().unwrap().push_back(no());
    outlet.script().push_back(Next::Fail(no()));
    bench.run(&outlet, LONG).await;
    assert_eq!(failed(&bench, "$2").await.len(), 1);
    bench.arrive("$gone", delete("$2")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), ["zero", "one + "]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_bundle_is_looked_for_when_a_message_is_deleted_that_is_being_retried() {
    let home = tempfile::tempdir().unwrap();
    let (bench, outlet) =
        bundle_without_an_answer(home.path(), &[], Next::WorkThenFail(lost())).await;
    let now = bench.clock.now();
    let parked = failed(&bench, "$2").await;
    bench.store.retry_parked(&parked).await.unwrap();
    let (lane, parked) = (bench.lane(Side::Silo, outlet.clone()).id, parked[0]);
    bench.arrive("$gone", delete("$2")).await;
    let all = bench.store.lookahead(lane, parked, 9, now).await.unwrap();
    let deletion = all.iter().find(|one| one.id != parked).unwrap().id;
    let rule = SkipRule::DeletedBeforeDelivery;
    let ended = bench.store.cancel_pending(parked, deletion, rule);
    assert!(ended.await.unwrap());
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), ["zero", "one + "]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_from_the_channel_that_may_have_arrived_is_looked_for_when_its_message_is_deleted()
{
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    outlet.events.store(true, Ordering::Relaxed);
    bench.arrive_in_channel("m", post("first")).await;
    bench.run_toward(Side::Matrix, &outlet, LONG).await;
    outlet.script().push_back(Next::WorkThenFail(lost()));
    bench.arrive_in_channel("e", edit("m", "second")).await;
    let short = Duration::from_millis(50);
    bench.run_toward(Side::Matrix, &outlet, short).await;
    closed_toward(Side::Matrix, &bench, &outlet).await;
    assert_eq!(outlet.readable(), ["first", "second"]);
    bench.arrive_in_channel("gone", delete("m")).await;
    bench.run_toward(Side::Matrix, &outlet, LONG).await;
    assert_eq!(outlet.readable(), Vec::<String>::new());
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_may_have_arrived_is_looked_for_when_it_is_redacted() {
    for is_event in [true, false] {
        let home = tempfile::tempdir().unwrap();
        let bench = Bench::open(home.path()).await;
        let outlet = FakeOutlet::new(true, Vec::new());
        outlet.events.store(is_event, Ordering::Relaxed);
        edited(&bench, &outlet, &[]).await;
        let arrived = Next::WorkThenFail(lost());
        let script = [too_late(), arrived].into_iter();
        outlet.script().extend(script.skip(usize::from(is_event)));
        bench.arrive("$e1", edit("$m", "second")).await;
        bench.run(&outlet, Duration::from_millis(50)).await;
        closed_for_long(&bench, &outlet).await;
        assert_eq!(outlet.readable(), ["first", "second"]);
        redact(&bench, &outlet, "$e1").await;
        bench.run(&outlet, LONG).await;
        assert!(!outlet.readable().contains(&"second".to_owned()));
        assert_eq!(outlet.readable()[0], "first");
        bench.arrive("$gone", delete("$m")).await;
        bench.run(&outlet, LONG).await;
        assert_eq!(outlet.readable(), Vec::<String>::new(), "{is_event}");
        bench.balance().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_took_in_an_edit_and_may_have_arrived_is_looked_for_when_that_is_redacted() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let script = vec![Next::Work, Next::WorkThenFail(lost())];
    let outlet = FakeOutlet::new(true, script);
    outlet.reads("$m", Some("a secret"));
    // The head at the start of a lane may have been under way.
    bench.arrive("$0", post("zero")).await;
    bench.arrive("$m", post("a secret")).await;
    bench.arrive("$e1", edit("$m", "second")).await;
    bench.run(&outlet, Duration::from_millis(50)).await;
    closed_for_long(&bench, &outlet).await;
    assert_eq!(outlet.readable(), ["zero", "second"]);
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), ["zero", NOTHING_BEFORE]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn the_text_of_an_edit_that_is_redacted_during_a_retry_does_not_stay_in_a_bundle() {
    let home = tempfile::tempdir().unwrap();
    let arrived = Next::WorkThenFail(lost());
    let edits = [("$e1", "$2", "a secret")];
    let (bench, outlet) = bundle_without_an_answer(home.path(), &edits, arrived).await;
    assert_eq!(outlet.readable(), ["zero", "one + a secret"]);
    retry(&bench, "$2").await;
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, LONG).await;
    let left = outlet.readable();
    assert_eq!(left, ["zero".to_owned(), format!("one + {NOTHING_BEFORE}")]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_redacted_text_is_not_sent_by_a_retry_whether_or_not_its_first_attempt_can_be_looked_for()
{
    for can_tell in [true, false] {
        let home = tempfile::tempdir().unwrap();
        let edits = [("$e1", "$2", "a secret")];
        let lost = Next::Fail(lost());
        let (bench, outlet) = bundle_without_an_answer(home.path(), &edits, lost).await;
        retry(&bench, "$2").await;
        redact(&bench, &outlet, "$e1").await;
        let blind = (!can_tell).then(no);
        outlet.blind.lock().unwrap().extend(blind);
        bench.run(&outlet, LONG).await;
        assert_eq!(outlet.sent(), ["zero", "two"], "{can_tell}");
        bench.balance().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_edit_in_place_that_may_have_arrived_is_taken_back_when_it_is_redacted_during_a_retry() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    edited(&bench, &outlet, &[]).await;
    outlet.script().push_back(Next::WorkThenFail(lost()));
    bench.arrive("$e1", edit("$m", "a secret")).await;
    bench.run(&outlet, Duration::from_millis(50)).await;
    let lane = bench.lane(Side::Silo, outlet.clone()).id;
    let now = bench.clock.now().plus(Duration::from_hours(1));
    let QueueHead::Ready(edit) = bench.store.queue_head(lane, now).await.unwrap() else {
        panic!("the edit is due");
    };
    unknown(&bench, edit.id, Some("$m")).await;
    assert_eq!(outlet.readable(), ["a secret"]);
    retry(&bench, "$m").await;
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), ["first"]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_a_message_that_may_be_in_a_bundle_is_not_lost() {
    let home = tempfile::tempdir().unwrap();
    let arrived = Next::WorkThenFail(lost());
    let (bench, outlet) = bundle_without_an_answer(home.path(), &[], arrived).await;
    retry(&bench, "$2").await;
    outlet.blind.lock().unwrap().push_back(no());
    outlet.script().push_back(Next::Fail(no()));
    bench.run(&outlet, LONG).await;
    bench.arrive("$e1", edit("$2", "new")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(failed(&bench, "$2").await.len(), 2);
    retry(&bench, "$2").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), ["zero", "one + new"]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn both_sends_of_a_message_are_looked_for_when_it_is_deleted() {
    let home = tempfile::tempdir().unwrap();
    let arrived = Next::WorkThenFail(lost());
    let (bench, outlet) = bundle_without_an_answer(home.path(), &[], arrived).await;
    retry(&bench, "$2").await;
    outlet.blind.lock().unwrap().push_back(no());
    outlet.script().push_back(Next::WorkThenFail(lost()));
    bench.run(&outlet, Duration::from_millis(50)).await;
    closed_for_long(&bench, &outlet).await;
    assert_eq!(outlet.readable(), ["zero", "one + two", "two"]);
    bench.arrive("$gone", delete("$2")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), ["zero", "one + "]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_restored_text_that_may_have_arrived_is_looked_for_when_it_is_redacted_too() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    outlet.events.store(true, Ordering::Relaxed);
    edited(&bench, &outlet, &["second", "third"]).await;
    outlet.script().push_back(Next::WorkThenFail(lost()));
    redact(&bench, &outlet, "$e2").await;
    bench.run(&outlet, Duration::from_millis(50)).await;
    closed_for_long(&bench, &outlet).await;
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, LONG).await;
    let left = outlet.readable();
    assert!(!left.contains(&"second".to_owned()), "{left:?}");
    bench.arrive("$gone", delete("$m")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), Vec::<String>::new());
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_may_have_arrived_is_looked_for_before_a_retry_and_when_it_is_deleted_then()
{
    for is_deleted in [true, false] {
        let home = tempfile::tempdir().unwrap();
        let arrived = Next::WorkThenFail(lost());
        let (bench, outlet) = message_without_an_answer(home.path(), "first", arrived).await;
        let lane = bench.lane(Side::Silo, outlet.clone()).id;
        bench.arrive("$1", post("one")).await;
        let parked = failed(&bench, "$m").await;
        retry(&bench, "$m").await;
        let mut left = vec!["zero", "first", "one"];
        if is_deleted {
            bench.arrive("$gone", delete("$m")).await;
            let now = bench.clock.now();
            let all = bench
                .store
                .lookahead(lane, parked[0], 9, now)
                .await
                .unwrap();
            let deletion = all.last().unwrap().id;
            let rule = SkipRule::DeletedBeforeDelivery;
            let ended = bench.store.cancel_pending(parked[0], deletion, rule);
            assert!(ended.await.unwrap());
            left.remove(1);
        }
        bench.run(&outlet, LONG).await;
        assert_eq!(outlet.readable(), left);
        let attempts = outlet.sent().iter().filter(|text| *text == "first").count();
        assert_eq!(attempts, 1);
        bench.balance().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_without_an_answer_is_looked_for_also_if_a_later_one_was_refused() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let script = vec![Next::WorkThenFail(lost()), Next::Fail(no())];
    let outlet = FakeOutlet::new(true, script);
    bench.arrive("$m", post("first")).await;
    bench.run(&outlet, LONG).await;
    let tally = bench.tally(Side::Silo).await;
    assert_eq!(
        (tally.failed, tally.last_failure.as_deref()),
        (1, Some("refused"))
    );
    bench.arrive("$gone", delete("$m")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), Vec::<String>::new());
    bench.balance().await;
}

/// A message behind another one, of which this attempt was not answered, so that nobody knows whether it arrived.
async fn message_without_an_answer(
    home: &std::path::Path,
    text: &str,
    attempt: Next,
) -> (Bench, Arc<FakeOutlet>) {
    let bench = Bench::open(home).await;
    let outlet = FakeOutlet::new(true, vec![Next::Work, attempt]);
    // The head at the start of a lane may have been under way.
    bench.arrive("$0", post("zero")).await;
    bench.arrive("$m", post(text)).await;
    bench.run(&outlet, Duration::from_millis(50)).await;
    let lane = bench.lane(Side::Silo, outlet.clone()).id;
    let now = bench.clock.now().plus(Duration::from_hours(1));
    let QueueHead::Ready(message) = bench.store.queue_head(lane, now).await.unwrap() else {
        panic!("the message is due");
    };
    unknown(&bench, message.id, None).await;
    (bench, outlet)
}

#[tokio::test(start_paused = true)]
async fn a_retry_where_nobody_can_look_sends_the_text_before_a_redacted_edit() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(false, vec![Next::Fail(lost())]);
    bench.arrive("$m", post("first")).await;
    bench.arrive("$e1", edit("$m", "a secret")).await;
    bench.run(&outlet, Duration::from_millis(50)).await;
    let lane = bench.lane(Side::Silo, outlet.clone()).id;
    let now = bench.clock.now().plus(Duration::from_hours(1));
    let QueueHead::Ready(message) = bench.store.queue_head(lane, now).await.unwrap() else {
        panic!("the message is due");
    };
    unknown(&bench, message.id, None).await;
    retry(&bench, "$m").await;
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.sent(), ["first"]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_retried_message_whose_first_part_had_arrived_is_completed() {
    let home = tempfile::tempdir().unwrap();
    let arrived = Next::WorkThenFail(lost());
    let (bench, outlet) = message_without_an_answer(home.path(), "one|two", arrived).await;
    retry(&bench, "$m").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.sent(), ["zero", "one", "two"]);
    assert_eq!(bench.tally(Side::Silo).await.delivered, 2);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_later_part_without_an_answer_is_looked_for_when_it_is_retried() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let script = vec![Next::Work, Next::WorkThenFail(lost()), Next::Fail(no())];
    let outlet = FakeOutlet::new(true, script);
    bench.arrive("$m", post("one|two")).await;
    bench.run(&outlet, LONG).await;
    retry(&bench, "$m").await;
    let lane = bench.lane(Side::Silo, outlet.clone()).id;
    let QueueHead::Ready(part) = bench
        .store
        .queue_head(lane, bench.clock.now())
        .await
        .unwrap()
    else {
        panic!("the part is due");
    };
    assert_eq!(part.steps_done, 1);
    assert!(part.unanswered_since.is_some());
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), ["one", "two"]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_a_message_that_certainly_did_not_arrive_is_taken_in_by_its_retry() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let script = vec![Next::Work, Next::Fail(lost()), Next::Fail(no())];
    let outlet = FakeOutlet::new(true, script);
    bench.arrive("$0", post("zero")).await;
    bench.arrive("$m", post("first")).await;
    bench.run(&outlet, LONG).await;
    bench.arrive("$e1", edit("$m", "new")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(failed(&bench, "$m").await.len(), 2);
    // It is refused again, but a look-up has shown that it is not there.
    outlet.script().push_back(Next::Fail(no()));
    retry(&bench, "$m").await;
    bench.run(&outlet, LONG).await;
    let parked = failed(&bench, "$m").await;
    bench.store.retry_parked(&parked).await.unwrap();
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), ["zero", "new"]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_given_up_and_certainly_is_not_there_is_retried_without_a_redacted_text() {
    let home = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(home.path()).await;
    bench.limits.give_up = Duration::ZERO;
    let outlet = FakeOutlet::new(true, vec![Next::Work, Next::Fail(lost())]);
    bench.arrive("$0", post("zero")).await;
    bench.arrive("$m", post("first")).await;
    bench.arrive("$e1", edit("$m", "a secret")).await;
    bench.run(&outlet, LONG).await;
    let tally = bench.tally(Side::Silo).await;
    assert_eq!(tally.last_failure.as_deref(), Some("given-up"));
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, LONG).await;
    retry(&bench, "$m").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), ["zero", "first"]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_follows_a_retried_message_of_which_nobody_can_tell_whether_it_arrived() {
    let home = tempfile::tempdir().unwrap();
    let arrived = Next::WorkThenFail(lost());
    let (bench, outlet) = message_without_an_answer(home.path(), "first", arrived).await;
    bench.arrive("$e1", edit("$m", "new")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(failed(&bench, "$m").await.len(), 2);
    retry(&bench, "$m").await;
    outlet.blind.lock().unwrap().push_back(no());
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), ["zero", "new"]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_shows_another_message_leaves_the_outcome_unknown() {
    let home = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(home.path()).await;
    bench.limits.give_up = Duration::ZERO;
    let outlet = FakeOutlet::new(true, vec![Next::Work, Next::ClaimThenLose("wall-0")]);
    for (event, text) in [("$1", "one"), ("$2", "two")] {
        bench.arrive(event, post(text)).await;
    }
    bench.run(&outlet, LONG).await;
    let tally = bench.tally(Side::Silo).await;
    assert_eq!((tally.delivered, tally.failed, tally.pending), (1, 1, 0));
    assert_eq!(tally.last_failure.as_deref(), Some("unknown"));
    bench.balance().await;
}
