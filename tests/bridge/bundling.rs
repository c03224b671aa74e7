//! D11: lanes while their account is rate-limited. Pending messages are bundled, in order, before the first attempt;
//! edits and deletions of unsent messages are never sent themselves.

use std::{sync::Arc, time::Duration};

use footbridge_core::{
    inbox::ArrivalContent,
    message::Action,
    outlet::{Outcome, SendError},
};
use footbridge_store::{Millis, QueueHead, RemoteId, Side};

use crate::lanes::{Bench, FakeOutlet, LONG, Next, edit, message_of, not_now, post};

fn limited() -> Next {
    Next::Fail(SendError::RateLimited {
        after: Some(Duration::from_secs(5)),
    })
}

fn delete(target: &str) -> Action {
    Action::Delete {
        target: target.into(),
    }
}

async fn opened() -> (tempfile::TempDir, Bench) {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::open(directory.path()).await;
    (directory, bench)
}

async fn arrive_many(bench: &Bench, numbers: std::ops::Range<u32>) {
    for number in numbers {
        bench
            .arrive(&format!("$e{number}"), post(&format!("m{number}")))
            .await;
    }
}

async fn delivered(bench: &Bench) -> u64 {
    bench.balance().await;
    bench.tally(Side::Silo).await.delivered
}

async fn skipped(bench: &Bench, rule: &str) -> u64 {
    let tally = bench.tally(Side::Silo).await;
    let found = tally.skipped.iter().find(|(name, _)| name.as_str() == rule);
    found.map_or(0, |(_, count)| *count)
}

#[tokio::test(start_paused = true)]
async fn d11_waiting_messages_are_bundled_in_order_and_each_is_delivered() {
    let (_directory, bench) = opened().await;
    arrive_many(&bench, 0..9).await;
    let outlet = FakeOutlet::new(true, vec![Next::Work, limited()]);
    bench.run(&outlet, LONG).await;
    // The lane sent the first before the limit was known; afterwards it bundles four at a time.
    assert_eq!(
        outlet.texts(),
        ["m0", "m1 + m2 + m3 + m4", "m5 + m6 + m7 + m8"]
    );
    assert_eq!(delivered(&bench).await, 9);
    for (number, remote, slot) in [
        (0, "wall-0", None),
        (1, "wall-1", Some(0)),
        (4, "wall-1", Some(3)),
    ] {
        let event_id = RemoteId(format!("$e{number}"));
        let copies = bench
            .store
            .copies(&bench.portal.room, &event_id, &bench.portal.channel)
            .await
            .unwrap();
        assert_eq!(copies.copies[0].remote.as_str(), remote);
        assert_eq!(copies.slot, slot, "{number}");
    }
    // A reply to the bundle is a reply to its last part.
    let answered = bench
        .store
        .copies(&bench.portal.channel, &"wall-1".into(), &bench.portal.room)
        .await
        .unwrap();
    assert_eq!(answered.copies[0].remote.as_str(), "$e4");
    assert!(
        bench
            .store
            .is_linked(&bench.portal.channel, &"wall-2".into())
            .await
            .unwrap()
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_bundled_where_the_operator_disables_it_or_the_side_cannot() {
    for (coalesce, is_idempotent) in [(false, true), (true, false)] {
        let (_directory, mut bench) = opened().await;
        bench.coalesce = coalesce;
        arrive_many(&bench, 0..4).await;
        let outlet = FakeOutlet::new(is_idempotent, vec![limited()]);
        bench.run(&outlet, LONG).await;
        assert_eq!(outlet.texts(), ["m0", "m1", "m2", "m3"]);
        assert_eq!(delivered(&bench).await, 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_speed_is_no_attempt_and_leaves_no_doubt() {
    let (_directory, bench) = opened().await;
    arrive_many(&bench, 0..1).await;
    let outlet = FakeOutlet::new(false, vec![limited(), limited(), limited()]);
    bench.run(&outlet, Duration::from_secs(12)).await;
    let lane = bench.lane(Side::Silo, outlet.clone()).id;
    let QueueHead::Ready(owed) = bench
        .store
        .queue_head(lane, bench.clock.now())
        .await
        .unwrap()
    else {
        panic!("the delivery is due at once");
    };
    assert_eq!((owed.attempts, owed.outcome_unknown_since), (0, None));
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["m0"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_bound_stays_so_whatever_comes_and_however_often_the_process_ends() {
    let (directory, bench) = opened().await;
    arrive_many(&bench, 0..3).await;
    // The response to the bundle is lost, and then every step fails for a while.
    let unknown = || not_now(Outcome::Unknown);
    let outlet = FakeOutlet::new(
        true,
        vec![Next::Work, limited(), Next::WorkThenFail(unknown())],
    );
    outlet
        .script()
        .extend((0..100).map(|_| Next::Fail(unknown())));
    bench.run(&outlet, Duration::from_secs(9)).await;
    outlet.script().clear();
    assert_eq!(outlet.texts(), ["m0", "m1 + m2"]);
    assert_eq!(bench.tally(Side::Silo).await.pending, 2);
    drop(bench);
    let bench = Bench::open(directory.path()).await;
    arrive_many(&bench, 3..6).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["m0", "m1 + m2", "m3", "m4", "m5"]);
    assert_eq!(delivered(&bench).await, 6);
    let keys = outlet.keys();
    let tries = keys.iter().filter(|key| **key == keys[2]).count();
    assert!(tries > 2, "{keys:?}");
    assert_ne!(
        keys[1], keys[2],
        "a single message and a bundle have different keys"
    );
}

#[tokio::test(start_paused = true)]
async fn what_an_ended_process_may_have_been_sending_is_sent_alone() {
    let (directory, bench) = opened().await;
    arrive_many(&bench, 0..4).await;
    drop(bench);
    let bench = Bench::open(directory.path()).await;
    let outlet = FakeOutlet::new(true, vec![limited()]);
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["m0", "m1 + m2 + m3"]);
    assert_eq!(delivered(&bench).await, 4);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_was_attempted_is_sent_alone_afterwards() {
    let (_directory, bench) = opened().await;
    arrive_many(&bench, 0..5).await;
    let failed = Next::Fail(not_now(Outcome::Unknown));
    let outlet = FakeOutlet::new(true, vec![Next::Work, failed, limited()]);
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["m0", "m1", "m2 + m3 + m4"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_together_is_tried_one_by_one() {
    let (_directory, bench) = opened().await;
    arrive_many(&bench, 0..4).await;
    let refused = || {
        Next::Fail(SendError::Refused {
            reason: "told to".into(),
        })
    };
    let outlet = FakeOutlet::new(
        true,
        vec![Next::Work, limited(), refused(), Next::Work, refused()],
    );
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["m0", "m1", "m3"]);
    let tally = bench.tally(Side::Silo).await;
    assert_eq!((tally.delivered, tally.failed), (3, 1));
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn what_may_have_arrived_together_is_not_taken_apart_by_a_rejection() {
    let (_directory, bench) = opened().await;
    arrive_many(&bench, 0..3).await;
    let rejected = SendError::Rejected {
        reason: "a proxy said so".into(),
    };
    let lost = Next::WorkThenFail(not_now(Outcome::Unknown));
    let script = vec![Next::Work, limited(), lost, Next::Fail(rejected)];
    let outlet = FakeOutlet::new(true, script);
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["m0", "m1 + m2"]);
    assert_eq!(bench.tally(Side::Silo).await.delivered, 3);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn edits_and_deletions_of_what_waits_are_never_sent_themselves() {
    let (_directory, bench) = opened().await;
    arrive_many(&bench, 0..2).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    bench.run(&outlet, LONG).await;
    arrive_many(&bench, 2..7).await;
    bench.arrive("$x1", edit("$e4", "new")).await;
    bench.arrive("$x2", edit("$e4", "newer")).await;
    bench.arrive("$x3", delete("$e5")).await;
    // An edit of a delivered message: it waits until the new texts are sent.
    bench.arrive("$x4", edit("$e0", "changed")).await;
    arrive_many(&bench, 7..8).await;
    *outlet.script() = vec![Next::Work, limited()].into();
    bench.run(&outlet, LONG).await;
    assert_eq!(
        outlet.texts(),
        ["changed", "m1", "m2", "m3 + newer + m6 + m7"]
    );
    assert_eq!(skipped(&bench, "edit-included").await, 2);
    assert_eq!(skipped(&bench, "deleted-before-delivery").await, 2);
    assert_eq!(delivered(&bench).await, 8);
}

#[tokio::test(start_paused = true)]
async fn the_last_one_in_line_is_sent_as_it_reads_by_then_or_not_at_all() {
    let (_directory, bench) = opened().await;
    let outlet = FakeOutlet::new(true, vec![Next::Work, limited()]);
    arrive_many(&bench, 0..1).await;
    bench.arrive("$a", post("old")).await;
    bench.arrive("$a1", edit("$a", "new")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["m0", "new"]);
    assert_eq!(skipped(&bench, "edit-included").await, 1);
    bench.arrive("$b", post("regretted")).await;
    bench.arrive("$b1", edit("$b", "still regretted")).await;
    bench.arrive("$b2", delete("$b")).await;
    *outlet.script() = vec![limited()].into();
    bench.arrive("$c", post("last")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts().last().unwrap(), "last");
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_part_is_edited_and_taken_out_by_itself() {
    let (_directory, bench) = opened().await;
    arrive_many(&bench, 0..4).await;
    let outlet = FakeOutlet::new(true, vec![Next::Work, limited()]);
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["m0", "m1 + m2 + m3"]);
    bench.arrive("$x1", edit("$e2", "new")).await;
    bench.arrive("$x2", delete("$e1")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["m0", " + new + m3"]);
    bench.arrive("$x3", edit("$e1", "too late")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(skipped(&bench, "unknown-target").await, 1);
    assert_eq!(outlet.texts(), ["m0", " + new + m3"]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_provides_the_text_of_a_message_whose_key_is_missing() {
    let (_directory, bench) = opened().await;
    let waiting = ArrivalContent::Undecryptable {
        session: "s".into(),
        raw: b"{}".to_vec(),
        key_wait_until: Millis(0),
    };
    bench.arrive_payload("$a", Some("$a".into()), waiting).await;
    bench
        .arrive_payload(
            "$a1",
            None,
            ArrivalContent::from(message_of(edit("$a", "as it reads now"))),
        )
        .await;
    let outlet = FakeOutlet::new(true, Vec::new());
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["as it reads now"]);
    assert_eq!(skipped(&bench, "edit-included").await, 1);
    assert_eq!(delivered(&bench).await, 1);
}

#[tokio::test(start_paused = true)]
async fn lanes_of_one_account_share_what_it_may_do() {
    let (_directory, bench) = opened().await;
    arrive_many(&bench, 0..6).await;
    let outlet = FakeOutlet::new(false, vec![Next::Work, limited(), Next::Work, limited()]);
    let began = tokio::time::Instant::now();
    bench.run(&Arc::clone(&outlet), LONG).await;
    // The second refusal showed that one message passes every five seconds.
    let spent = began.elapsed();
    assert!(
        spent > Duration::from_secs(15) && spent < Duration::from_secs(40),
        "{spent:?}"
    );
    assert_eq!(outlet.keys().len(), 8);
}
