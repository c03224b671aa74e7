//! An edit that is redacted itself: the other side restores the text before it. And an edit that makes a message a
//! notice.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use footbridge_core::{
    file::File,
    inbox::{Arrival, ArrivalContent, Batch},
    message::{Action, Message, Style},
    outlet::{Outcome, SendError},
    text::Body,
};
use footbridge_store::{Millis, RemoteId, Side, SkipRule};

use super::{Bench, FakeOutlet, LONG, edit, post, undecryptable, unsent::delete};

/// A message, "first", and edits of it with these texts; all of them were delivered.
pub async fn edited(bench: &Bench, outlet: &Arc<FakeOutlet>, edits: &[&str]) {
    bench.arrive("$m", post("first")).await;
    outlet.reads("$m", Some("first"));
    bench.run(outlet, LONG).await;
    for (number, text) in edits.iter().enumerate() {
        let event = format!("$e{}", number + 1);
        bench.arrive(&event, edit("$m", text)).await;
        outlet.reads(&event, Some(text));
        bench.run(outlet, LONG).await;
    }
}

/// Redacts this edit.
pub async fn redact(bench: &Bench, outlet: &FakeOutlet, edit: &str) {
    outlet.reads(edit, None);
    bench.arrive(&format!("$redacts{edit}"), delete(edit)).await;
}

pub async fn skipped(bench: &Bench) -> Vec<(SkipRule, u64)> {
    bench.tally(Side::Silo).await.skipped
}

pub fn once(rule: SkipRule) -> (SkipRule, u64) {
    (rule, 1)
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_is_redacted_gives_way_to_the_text_before_it() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(false, Vec::new());
    edited(&bench, &outlet, &["second", "third"]).await;
    assert_eq!(outlet.texts(), ["third"]);
    redact(&bench, &outlet, "$e2").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["second"]);
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["first"]);
    // The message can be edited and deleted as before.
    bench.arrive("$e3", edit("$m", "fourth")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["fourth"]);
    bench.arrive("$gone", delete("$m")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.removed().len(), 1);
    assert_eq!(skipped(&bench).await, []);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn the_redaction_of_an_older_edit_changes_nothing_while_there_is_a_newer_one() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    edited(&bench, &outlet, &["second", "third"]).await;
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(
        (outlet.texts(), outlet.keys().len()),
        (vec!["third".into()], 3)
    );
    assert_eq!(skipped(&bench).await, [once(SkipRule::Superseded)]);
    // Then only the message's own text is left.
    redact(&bench, &outlet, "$e2").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["first"]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_is_redacted_while_it_waits_is_never_sent() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(false, Vec::new());
    edited(&bench, &outlet, &[]).await;
    bench.arrive("$e1", edit("$m", "a secret")).await;
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(
        (outlet.texts(), outlet.keys().len()),
        (vec!["first".into()], 1)
    );
    assert_eq!(skipped(&bench).await, [(SkipRule::EditRedacted, 2)]);
    // The same where the room key of the edit arrives after the redaction.
    bench
        .arrive_payload("$e2", None, undecryptable(Millis(0)))
        .await;
    redact(&bench, &outlet, "$e2").await;
    bench.run(&outlet, LONG).await;
    bench.decrypt(edit("$m", "a secret")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(
        (outlet.texts(), outlet.keys().len()),
        (vec!["first".into()], 1)
    );
    assert_eq!(skipped(&bench).await, [(SkipRule::EditRedacted, 4)]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_homeserver_that_shows_nothing_now_closes_no_channel_and_keeps_no_lane_from_its_end() {
    fn closed() -> SendError {
        SendError::Closed {
            reason: "not in the room".to_owned(),
        }
    }
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    edited(&bench, &outlet, &["second"]).await;
    *outlet.unread() = Some(closed);
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, Duration::from_secs(30)).await;
    let tally = bench.tally(Side::Silo).await;
    assert_eq!((tally.pending, tally.closed_since), (1, None));
    *outlet.unread() = None;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["first"]);
    bench.balance().await;
}

/// A message, and an edit of it that is redacted after its first attempt, which ends like this.
async fn redacted_after(bench: &Bench, outlet: &Arc<FakeOutlet>, tries: Vec<super::Next>) {
    edited(bench, outlet, &[]).await;
    outlet.script().extend(tries);
    bench.arrive("$e1", edit("$m", "second")).await;
    bench.run(outlet, Duration::from_millis(50)).await;
    redact(bench, outlet, "$e1").await;
    bench.run(outlet, LONG).await;
}

fn lost() -> SendError {
    super::not_now(Outcome::Unknown)
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_may_be_there_is_looked_for_before_its_redaction() {
    // The edit was posted, and its answer was lost.
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    let posted = super::Next::WorkThenFail(lost());
    let late = super::Next::Fail(SendError::TooLate);
    redacted_after(&bench, &outlet, vec![late, posted]).await;
    assert_eq!(outlet.texts()[0], "first");
    assert_eq!(outlet.removed(), [RemoteId::from("wall-1")]);
    assert_eq!(bench.tally(Side::Silo).await.delivered, 3);
    bench.balance().await;
    // The edit was lost on its way, and is not sent again.
    for is_idempotent in [true, false] {
        let home = tempfile::tempdir().unwrap();
        let bench = Bench::open(home.path()).await;
        let outlet = FakeOutlet::new(is_idempotent, Vec::new());
        redacted_after(&bench, &outlet, vec![super::Next::Fail(lost())]).await;
        assert_eq!(outlet.texts(), ["first"]);
        assert_eq!(skipped(&bench).await, [once(SkipRule::EditRedacted)]);
        // The message, the edit, and the step by which the redaction reconciles it.
        assert_eq!(outlet.keys().len(), 3);
        bench.balance().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_text_that_is_being_restored_is_tried_again_as_it_was() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    edited(&bench, &outlet, &["second", "third"]).await;
    outlet.script().push_back(super::Next::WorkThenFail(lost()));
    redact(&bench, &outlet, "$e2").await;
    bench.run(&outlet, Duration::from_millis(50)).await;
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, LONG).await;
    // An idempotent outlet returns the result of the first attempt for the same key.
    assert_eq!(outlet.texts(), ["first"]);
    // Its redaction was accepted before the first one was done: that one restores the message's own text.
    assert_eq!(bench.tally(Side::Silo).await.delivered, 4);
    assert_eq!(skipped(&bench).await, [once(SkipRule::EditRedacted)]);
    bench.balance().await;
}

/// The text that replaces a redacted edit where no earlier text may be shown.
pub const NOTHING_BEFORE: &str =
    "(An edit of this message was redacted. Its earlier text cannot be shown here.)";

#[tokio::test(start_paused = true)]
async fn a_text_that_was_edited_before_it_was_sent_is_not_sent_by_the_redaction_of_the_edit() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(false, Vec::new());
    outlet.reads("$m", Some("a secret"));
    bench.arrive("$m", post("a secret")).await;
    bench.arrive("$e1", edit("$m", "second")).await;
    outlet.reads("$e1", Some("second"));
    bench.run(&outlet, LONG).await;
    assert_eq!(
        (outlet.texts(), outlet.keys().len()),
        (vec!["second".into()], 1)
    );
    // The edit that was included in the message was delivered.
    bench.arrive("$e2", edit("$m", "third")).await;
    bench.run(&outlet, LONG).await;
    redact(&bench, &outlet, "$e2").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["second"]);
    // No other text was delivered; and the text of the redacted edit does not stay.
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), [NOTHING_BEFORE]);
    assert_eq!(skipped(&bench).await, [once(SkipRule::EditIncluded)]);
    bench.arrive("$e3", edit("$m", "fourth")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["fourth"]);
    bench.arrive("$gone", delete("$m")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.removed().len(), 1);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_text_that_a_later_one_had_taken_the_place_of_is_not_sent_by_its_redaction() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    edited(&bench, &outlet, &[]).await;
    bench
        .arrive_payload("$old", None, undecryptable(Millis(0)))
        .await;
    bench.arrive("$new", edit("$m", "third")).await;
    bench.run(&outlet, LONG).await;
    bench.decrypt(edit("$m", "a secret")).await;
    outlet.reads("$old", Some("a secret"));
    bench.run(&outlet, LONG).await;
    assert_eq!(skipped(&bench).await, [once(SkipRule::Superseded)]);
    redact(&bench, &outlet, "$new").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["first"]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_message_is_retried_without_the_text_of_a_redacted_edit() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, vec![refused()]);
    edited(&bench, &outlet, &["second"]).await;
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), Vec::<String>::new());
    again(&bench, "$m").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["first"]);
    bench.balance().await;
}

/// Retries every failed delivery of a message.
async fn again(bench: &Bench, message: &str) {
    let target = RemoteId::from(message);
    let parked = bench
        .store
        .parked_deliveries_of(&bench.portal.room, &target);
    let failed: Vec<_> = parked.await.unwrap().iter().map(|one| one.id).collect();
    assert_eq!(bench.store.retry_parked(&failed).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_redaction_of_an_edit_that_never_got_there_touches_nothing() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(false, vec![super::Next::Work, refused()]);
    bench.arrive("$m", post("one|two")).await;
    bench.run(&outlet, LONG).await;
    // The channel is unreachable; the edit fails, and is redacted.
    *outlet.always.lock().unwrap() = Some(|| SendError::Retry {
        after: None,
        outcome: Outcome::NotDone,
        source: anyhow::anyhow!("away"),
    });
    bench.arrive("$e1", edit("$m", "three|four")).await;
    bench.run(&outlet, LONG).await;
    redact(&bench, &outlet, "$e1").await;
    *outlet.always.lock().unwrap() = None;
    // The message cannot be read again, and need not be.
    outlet.forgets("$m");
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["one"]);
    assert_eq!(skipped(&bench).await, [(SkipRule::EditRedacted, 2)]);
    // The part that failed can still be retried.
    again(&bench, "$m").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["one", "two"]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_more_is_sent_of_an_edit_that_is_redacted_in_the_middle() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(false, Vec::new());
    edited(&bench, &outlet, &[]).await;
    outlet.script().push_back(super::Next::Work);
    *outlet.always.lock().unwrap() = Some(|| SendError::Retry {
        after: None,
        outcome: Outcome::NotDone,
        source: anyhow::anyhow!("away"),
    });
    bench.arrive("$e1", edit("$m", "two|a secret")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["two"]);
    redact(&bench, &outlet, "$e1").await;
    *outlet.always.lock().unwrap() = None;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["first"]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_more_is_sent_of_a_message_whose_text_is_redacted_in_the_middle() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(false, vec![super::Next::Work]);
    *outlet.always.lock().unwrap() = Some(|| SendError::Retry {
        after: None,
        outcome: Outcome::NotDone,
        source: anyhow::anyhow!("away"),
    });
    outlet.reads("$m", Some("first"));
    bench.arrive("$m", post("first")).await;
    bench.arrive("$e1", edit("$m", "two|a secret")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["two"]);
    redact(&bench, &outlet, "$e1").await;
    *outlet.always.lock().unwrap() = None;
    bench.run(&outlet, LONG).await;
    // What the message said before the edit was never sent.
    assert_eq!(outlet.texts(), [NOTHING_BEFORE]);
    let rules = [once(SkipRule::EditIncluded)];
    assert_eq!(skipped(&bench).await, rules);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_was_refused_may_not_be_there_whatever_is_put_on_hold_then() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let refused = super::Next::PauseThenRefuse(bench.store.clone(), bench.portal.id);
    let outlet = FakeOutlet::new(false, vec![refused]);
    let lane = bench.lane(Side::Silo, outlet.clone()).id;
    let file = File {
        name: "cat.png".to_owned(),
        source: "mxc://x/cat".to_owned(),
        ..File::default()
    };
    let files = std::slice::from_ref(&file);
    arrive_with(&bench, "$m", post("first"), files).await;
    arrive_with(&bench, "$e1", edit("$m", "second"), files).await;
    bench.run(&outlet, LONG).await;
    assert_eq!((outlet.texts().len(), outlet.keys().len()), (0, 1));
    bench.store.resume(bench.portal.id).await.unwrap();
    let head = bench.store.queue_head(lane, bench.clock.now()).await;
    let super::QueueHead::Ready(head) = head.unwrap() else {
        panic!("it may be sent");
    };
    assert!(head.text_of.is_some());
    assert_eq!(
        (head.outcome_unknown_since, head.unanswered_since),
        (None, None)
    );
    // So a redaction of the edit still gives it its own text.
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["first with a file"]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn the_text_before_is_looked_for_until_it_is_found_also_by_another_process() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    edited(&bench, &outlet, &["second"]).await;
    let away = || SendError::Retry {
        after: None,
        outcome: Outcome::NotDone,
        source: anyhow::anyhow!("the homeserver is away"),
    };
    *outlet.unread() = Some(away);
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, Duration::from_secs(3)).await;
    assert_eq!(outlet.texts(), ["second"]);
    // The text is found, but then the other side is unreachable; the process ends in between.
    *outlet.unread() = None;
    *outlet.always.lock().unwrap() = Some(away);
    bench.run(&outlet, Duration::from_secs(20)).await;
    drop(bench);
    let bench = Bench::open(home.path()).await;
    *outlet.always.lock().unwrap() = None;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["first"]);
    assert_eq!(bench.tally(Side::Silo).await.delivered, 3);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn where_the_text_before_cannot_be_read_a_redacted_edit_does_not_stay_either() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    edited(&bench, &outlet, &["second"]).await;
    outlet.forgets("$m");
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), [NOTHING_BEFORE]);
    // The message itself was redacted, and its deletion is next in the queue.
    bench.arrive("$e2", edit("$m", "third")).await;
    bench.run(&outlet, LONG).await;
    outlet.reads("$m", None);
    redact(&bench, &outlet, "$e2").await;
    bench.arrive("$gone", delete("$m")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.removed().len(), 1);
    assert_eq!(skipped(&bench).await, [once(SkipRule::MessageRedacted)]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_failed_is_not_kept_to_be_tried_again_once_it_was_redacted() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    edited(&bench, &outlet, &[]).await;
    let reason = "too rude".to_owned();
    outlet
        .script()
        .push_back(super::Next::Fail(SendError::Refused { reason }));
    bench.arrive("$e1", edit("$m", "second")).await;
    bench.run(&outlet, LONG).await;
    let target = RemoteId::from("$m");
    let kept = async || {
        let parked = bench
            .store
            .parked_deliveries_of(&bench.portal.room, &target);
        let parked = parked.await.unwrap();
        (
            parked.len(),
            parked.iter().filter(|one| one.retryable).count(),
        )
    };
    assert_eq!(kept().await, (1, 1));
    redact(&bench, &outlet, "$e1").await;
    assert_eq!(kept().await, (1, 0));
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts()[0], "first");
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn the_redaction_of_an_edit_is_relayed_also_where_a_newer_one_failed() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    edited(&bench, &outlet, &["second"]).await;
    outlet.script().push_back(refused());
    bench.arrive("$e2", edit("$m", "third")).await;
    bench.run(&outlet, LONG).await;
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts()[0], "first");
    // After a retry the newer edit is still the latest edit.
    let target = RemoteId::from("$m");
    let parked = bench
        .store
        .parked_deliveries_of(&bench.portal.room, &target);
    let failed: Vec<_> = parked.await.unwrap().iter().map(|one| one.id).collect();
    assert_eq!(bench.store.retry_parked(&failed).await.unwrap().len(), 1);
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts()[0], "third");
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_message_is_retried_with_its_newest_edit() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, vec![refused()]);
    edited(&bench, &outlet, &["second", "third"]).await;
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, LONG).await;
    let target = RemoteId::from("$m");
    let parked = bench
        .store
        .parked_deliveries_of(&bench.portal.room, &target);
    let failed: Vec<_> = parked.await.unwrap().iter().map(|one| one.id).collect();
    assert_eq!(bench.store.retry_parked(&failed).await.unwrap().len(), 1);
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["third"]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_an_undelivered_message_changes_no_failed_reply_in_its_thread() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, vec![refused()]);
    let root = RemoteId::from("$m");
    let payload = ArrivalContent::Skipped(SkipRule::Notice);
    bench
        .arrive_payload("$m", Some(root.clone()), payload)
        .await;
    let answer = Arrival {
        place: bench.portal.room.clone(),
        event_id: "$a".into(),
        message: Some("$a".into()),
        thread: Some(root.clone()),
        sent_at: Millis(1),
        payload: ArrivalContent::from(super::message_of(post("an answer"))),
    };
    let batch = Batch {
        arrivals: vec![answer],
        ..Batch::default()
    };
    bench.inbox.accept(batch).await.unwrap();
    bench.run(&outlet, LONG).await;
    bench
        .arrive("$e", edit("$m", "somebody else's words"))
        .await;
    bench.run(&outlet, LONG).await;
    let failed = bench.store.parked_deliveries_of(&bench.portal.room, &root);
    let failed: Vec<_> = failed.await.unwrap().iter().map(|one| one.id).collect();
    assert_eq!(bench.store.retry_parked(&failed).await.unwrap().len(), 1);
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["an answer"]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn an_older_edit_whose_key_comes_after_a_newer_one_was_redacted_is_shown() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    edited(&bench, &outlet, &[]).await;
    bench
        .arrive_payload("$old", None, undecryptable(Millis(0)))
        .await;
    bench.arrive("$new", edit("$m", "third")).await;
    bench.run(&outlet, LONG).await;
    redact(&bench, &outlet, "$new").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(
        outlet.texts(),
        ["first"],
        "the other edit is still undecryptable"
    );
    bench.decrypt(edit("$m", "second")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["second"]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_not_to_leave_its_room_does_not_by_the_redaction_of_an_edit() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    edited(&bench, &outlet, &[]).await;
    bench
        .arrive("$kept", edit("$m", "!nobridge a secret"))
        .await;
    outlet.reads("$kept", Some("!nobridge a secret"));
    bench.arrive("$e1", edit("$m", "second")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["second"]);
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["first"]);
    assert_eq!(skipped(&bench).await, [once(SkipRule::NoBridge)]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_redacted_edit_has_posted_is_removed() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    edited(&bench, &outlet, &[]).await;
    // The silo no longer allows the change: the edit becomes a separate message.
    outlet
        .script()
        .push_back(super::Next::Fail(SendError::TooLate));
    bench.arrive("$e1", edit("$m", "second")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["first", "second"]);
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.removed(), [RemoteId::from("wall-1")]);
    assert_eq!(outlet.texts()[0], "first");
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn where_a_late_edit_cannot_be_deleted_the_earlier_text_is_posted() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    outlet.removes.store(false, Ordering::Relaxed);
    edited(&bench, &outlet, &[]).await;
    outlet
        .script()
        .push_back(super::Next::Fail(SendError::TooLate));
    bench.arrive("$e1", edit("$m", "second")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["first", "second"]);
    redact(&bench, &outlet, "$e1").await;
    bench.run(&outlet, LONG).await;
    let tally = bench.tally(Side::Silo).await;
    assert_eq!((tally.delivered, tally.failed), (3, 0));
    assert_eq!(
        bench.tally(Side::Matrix).await.accepted,
        0,
        "nobody is notified"
    );
    bench.balance().await;
}

fn notice(target: &str, text: &str) -> Action {
    Action::Edit {
        target: target.into(),
        body: Body::plain(text),
        style: Style::Notice,
    }
}

#[tokio::test(start_paused = true)]
async fn an_edit_to_a_notice_deletes_the_message_where_notices_are_not_relayed() {
    let home = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(home.path()).await;
    bench.notices = false;
    let outlet = FakeOutlet::new(true, Vec::new());
    edited(&bench, &outlet, &["second"]).await;
    bench.arrive("$n", notice("$m", "beep")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.removed(), [RemoteId::from("wall-0")]);
    // The same for a message that was delivered just before.
    bench.arrive("$m2", post("words")).await;
    bench.arrive("$n2", notice("$m2", "beep")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.removed().len(), 2);
    // An edit deletes no replies of others.
    assert!(outlet.along.lock().unwrap().is_empty());
    // A message that was never delivered is not deleted.
    bench.arrive("$n3", notice("$unknown", "beep")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!((outlet.removed().len(), outlet.keys().len()), (2, 5));
    bench.balance().await;
    // Where notices are relayed, it is an ordinary edit.
    bench.notices = true;
    bench.arrive("$m4", post("words")).await;
    bench.run(&outlet, LONG).await;
    bench.arrive("$n4", notice("$m4", "beep")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["second", "words", "beep"]);
    bench.balance().await;
}

/// A message in the room, with these files.
pub async fn arrive_with(bench: &Bench, event_id: &str, action: Action, files: &[File]) {
    let is_new = matches!(action, Action::Post { .. });
    let mut message = super::message_of(action);
    message.files = files.to_vec();
    let payload = ArrivalContent::from(message);
    let message = is_new.then(|| RemoteId::from(event_id));
    bench.arrive_payload(event_id, message, payload).await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_comes_after_a_later_one_ends_no_link_to_its_files() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    edited(&bench, &outlet, &[]).await;
    bench
        .arrive_payload("$old", None, undecryptable(Millis(0)))
        .await;
    let file = File {
        name: "cat.png".to_owned(),
        source: "mxc://x/cat".to_owned(),
        ..File::default()
    };
    arrive_with(
        &bench,
        "$new",
        edit("$m", "with a cat"),
        std::slice::from_ref(&file),
    )
    .await;
    bench.run(&outlet, LONG).await;
    let (store, now) = (&bench.store, bench.clock.now());
    let (room, channel) = (&bench.portal.room, &bench.portal.channel);
    let known = store.copies(room, &"$m".into(), channel).await.unwrap();
    let payload = serde_json::to_vec(&file).unwrap();
    let until = now.plus(Duration::from_hours(24));
    let link = store.create_media_link(known.entry.unwrap(), "cat", payload, until, now);
    let link = link.await.unwrap();
    bench.decrypt(edit("$m", "without one")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(skipped(&bench).await, [once(SkipRule::Superseded)]);
    assert!(
        store
            .resolve_media_link(&link, now)
            .await
            .unwrap()
            .is_some()
    );
    // The latest edit, without a file, does.
    bench.arrive("$last", edit("$m", "without one")).await;
    bench.run(&outlet, LONG).await;
    assert!(
        store
            .resolve_media_link(&link, now)
            .await
            .unwrap()
            .is_none()
    );
    bench.balance().await;
}

/// Whether a delivery of this message, or of an edit of it, is parked for a retry.
async fn is_kept(bench: &Bench, message: &str) -> bool {
    let message = RemoteId::from(message);
    let parked = bench
        .store
        .parked_deliveries_of(&bench.portal.room, &message);
    parked.await.unwrap().iter().any(|one| one.retryable)
}

pub fn refused() -> super::Next {
    super::Next::Fail(SendError::Refused {
        reason: "too rude".to_owned(),
    })
}

#[tokio::test(start_paused = true)]
async fn what_failed_in_the_middle_does_not_follow_a_later_edit() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, vec![super::Next::Work, refused()]);
    bench.arrive("$m", post("one|a secret")).await;
    bench.run(&outlet, LONG).await;
    assert!(is_kept(&bench, "$m").await);
    bench.arrive("$e1", edit("$m", "two")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["two"]);
    assert!(!is_kept(&bench, "$m").await);
    // The same for an edit.
    outlet.script().extend([super::Next::Work, refused()]);
    bench.arrive("$e2", edit("$m", "three|a secret")).await;
    bench.run(&outlet, LONG).await;
    assert!(is_kept(&bench, "$m").await);
    bench.arrive("$e3", edit("$m", "four")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["four"]);
    assert!(!is_kept(&bench, "$m").await);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_a_later_edit_has_overtaken_is_not_finished_when_it_is_tried_again() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    let lane = bench.lane(Side::Silo, outlet.clone()).id;
    edited(&bench, &outlet, &[]).await;
    bench.arrive("$e1", edit("$m", "two|a secret")).await;
    let head = bench
        .store
        .queue_head(lane, bench.clock.now())
        .await
        .unwrap();
    let super::QueueHead::Ready(first) = head else {
        panic!("{head:?}");
    };
    outlet
        .script()
        .extend([super::Next::Work, super::Next::Fail(lost())]);
    bench.run(&outlet, Duration::from_millis(50)).await;
    // The place has been closed for long, and the delivery is given up.
    let now = bench.clock.now();
    let given_up = bench
        .store
        .park_overdue(lane, now, "closed", Message::edited_by, now);
    assert_eq!(given_up.await.unwrap(), 1);
    bench.arrive("$e2", edit("$m", "three")).await;
    bench.run(&outlet, LONG).await;
    let again = bench.store.retry_parked(&[first.id]).await.unwrap();
    assert_eq!(again, [], "the later edit cancelled it");
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["three"]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_message_that_an_edit_makes_a_notice_of_is_not_tried_again() {
    let home = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(home.path()).await;
    bench.notices = false;
    let outlet = FakeOutlet::new(true, vec![refused()]);
    edited(&bench, &outlet, &[]).await;
    assert!(is_kept(&bench, "$m").await);
    bench.arrive("$n", notice("$m", "beep")).await;
    bench.run(&outlet, LONG).await;
    assert!(!is_kept(&bench, "$m").await);
    assert_eq!(skipped(&bench).await, [once(SkipRule::Notice)]);
    bench.balance().await;
}
