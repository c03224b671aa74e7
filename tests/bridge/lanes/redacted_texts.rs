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
use footbridge_store::{LaneId, RemoteId, Side, SkipRule};

use super::{
    Bench, FakeOutlet, LONG, Next, edit, not_now, post,
    redacted_edits::{NOTHING_BEFORE, arrive_with, edited, once, redact, refused, skipped},
    unsent::delete,
};

pub fn too_late() -> Next {
    Next::Fail(SendError::TooLate)
}

/// Edits the message after the time in which the silo allows it.
async fn edited_late(bench: &Bench, outlet: &Arc<FakeOutlet>, event: &str, text: &str) {
    outlet.script().push_back(too_late());
    bench.arrive(event, edit("$m", text)).await;
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
        let said = outlet.sent().len();
        redact(&bench, &outlet, "$e1").await;
        bench.run(&outlet, LONG).await;
        assert_eq!(outlet.readable(), ["first", "third"]);
        assert_eq!(outlet.sent().len(), said, "nothing is posted twice");
        redacted_late(&bench, &outlet, "$e2").await;
        assert_eq!(outlet.readable(), ["first", "first"]);
        bench.arrive("$gone", delete("$m")).await;
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
    bench.arrive("$e2", edit("$m", "third")).await;
    bench.run(&outlet, LONG).await;
    redacted_late(&bench, &outlet, "$e2").await;
    assert_eq!(outlet.readable(), ["first"]);
    assert_eq!(outlet.removed(), [RemoteId::from("wall-0")]);
    // The message can be edited and deleted as before.
    bench.arrive("$e3", edit("$m", "fourth")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), ["fourth"]);
    bench.arrive("$gone", delete("$m")).await;
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
        bench.arrive(message, post("a secret")).await;
        bench.arrive(first, edit(message, "second")).await;
        bench.run(&outlet, LONG).await;
        assert_eq!(outlet.readable(), ["second"]);
        let mut left = NOTHING_BEFORE;
        if newer {
            left = "third";
            bench.arrive(second, edit(message, "third")).await;
            outlet.reads(second, Some("third"));
            bench.run(&outlet, LONG).await;
        }
        redact(&bench, &outlet, first).await;
        bench.run(&outlet, LONG).await;
        assert_eq!(outlet.readable(), [left]);
        bench
            .arrive(&format!("{message} is gone"), delete(message))
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
        arrive_with(&bench, event, edit("$m", text), std::slice::from_ref(&file)).await;
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
    assert_eq!(outlet.sent(), ["first", "second"]);
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
            .sent()
            .iter()
            .filter(|text| *text == "second")
            .count();
        assert_eq!(seconds, 1, "{:?}", outlet.sent());
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
    bench.arrive("$e2", edit("$m", "third")).await;
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

pub fn lost() -> SendError {
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
    bench.arrive("$e1", edit("$m", "two|a secret")).await;
    bench.run(&outlet, Duration::from_millis(50)).await;
    assert_eq!(outlet.readable(), ["two", "a secret"]);
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.readable(), ["first"]);
    // The same for a message that had the text of the edit when it was sent.
    outlet
        .script()
        .extend([Next::Work, Next::WorkThenFail(lost())]);
    bench.arrive("$n", post("before")).await;
    bench
        .arrive("$f1", edit("$n", "three|another secret"))
        .await;
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
    bench.arrive("$e1", edit("$m", "a secret")).await;
    let redacts = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        redact(&bench, &outlet, "$e1").await;
    };
    tokio::join!(bench.run(&outlet, LONG), redacts);
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.sent(), ["first"]);
    assert_eq!(skipped(&bench).await, [(SkipRule::EditRedacted, 2)]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_part_that_a_moderator_deleted_is_not_posted_again_by_an_edit() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    bench.arrive("$m", post("one|two|three")).await;
    bench.run(&outlet, LONG).await;
    let channel = &bench.portal.channel;
    for wall in ["wall-0", "wall-2"] {
        bench
            .store
            .mark_copy_deleted(channel, &wall.into())
            .await
            .unwrap();
    }
    bench.arrive("$e1", edit("$m", "four|five|six")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.sent(), ["one", "two", "three", "five"]);
    // Nothing is left to be changed.
    bench
        .store
        .mark_copy_deleted(channel, &"wall-1".into())
        .await
        .unwrap();
    bench.arrive("$e2", edit("$m", "seven|eight|nine")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.sent().len(), 4);
    assert_eq!(skipped(&bench).await, [once(SkipRule::UnknownTarget)]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_with_the_id_of_another_message_ends_that_delivery_and_no_lane() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, vec![Next::Work, Next::Claim("wall-0")]);
    for (event, text) in [("$1", "one"), ("$2", "two"), ("$3", "three")] {
        bench.arrive(event, post(text)).await;
    }
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.sent(), ["one", "two", "three"]);
    let tally = bench.tally(Side::Silo).await;
    assert_eq!((tally.delivered, tally.failed, tally.pending), (2, 1, 0));
    assert_eq!(tally.last_failure.as_deref(), Some("unknown"));
    let (room, channel) = (&bench.portal.room, &bench.portal.channel);
    let first = bench.store.copies(room, &"$1".into(), channel).await;
    assert_eq!(first.unwrap().copies.len(), 1);
    bench.balance().await;
}
