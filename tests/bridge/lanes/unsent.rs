//! Messages that people edit or redact while they are pending: the bridge sends what they say by then, or nothing.

use std::time::Duration;

use footbridge_core::message::Action;
use footbridge_store::{Batch, Consent, Flag, Side, SkipRule};

use super::{Bench, FakeOutlet, LONG, edit, post};

pub fn delete(target: &str) -> Action {
    Action::Delete {
        target: target.into(),
    }
}

/// Encrypts the room of the bench.
async fn encrypt(bench: &Bench) {
    let room = &bench.portal.room;
    bench.store.note_unencrypted_room(room).await.unwrap();
    let batch = Batch {
        flags: vec![(room.clone(), Flag::EverEncrypted)],
        ..Batch::default()
    };
    bench.store.accept(batch, bench.clock.now()).await.unwrap();
}

/// Somebody consents; everybody has a minute to object.
async fn agree(bench: &Bench) {
    let now = bench.clock.now();
    let consent = Consent {
        by: "@a:x".to_owned(),
        text_version: 1,
        effective_at: now.plus(Duration::from_mins(1)),
    };
    let agreed = bench
        .store
        .record_consent(bench.portal.id, consent, now)
        .await;
    agreed.unwrap();
}

async fn begin(bench: &Bench) {
    tokio::time::sleep(Duration::from_mins(2)).await;
    bench
        .store
        .activate_consents(bench.clock.now())
        .await
        .unwrap();
}

async fn skipped(bench: &Bench) -> Vec<(SkipRule, u64)> {
    bench.tally(Side::Silo).await.skipped
}

#[tokio::test(start_paused = true)]
async fn c21_a_message_that_is_deleted_while_a_portal_is_on_hold_is_never_sent() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let (id, now) = (bench.portal.id, bench.clock.now());
    bench.store.pause(id, "@a:x", now).await.unwrap();
    bench.arrive("$1", post("a secret")).await;
    bench.arrive("$2", post("another secret")).await;
    bench.arrive("$3", post("plain")).await;
    bench.arrive("$4", delete("$1")).await;
    bench.arrive("$5", edit("$2", "[removed]")).await;
    bench.store.resume(id).await.unwrap();
    // Where the outlet is not idempotent, the head at the start of a lane was not under way.
    let outlet = FakeOutlet::new(false, Vec::new());
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["[removed]", "plain"]);
    assert_eq!(outlet.keys.lock().unwrap().len(), 2);
    let rules = [
        (SkipRule::DeletedBeforeDelivery, 2),
        (SkipRule::EditIncluded, 1),
    ];
    assert_eq!(skipped(&bench).await, rules);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn p15_messages_that_are_deleted_or_edited_in_the_delay_of_a_consent_are_not_relayed() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    // Where the outlet is not idempotent, the head at the start of a lane was not under way.
    let outlet = FakeOutlet::new(false, Vec::new());
    bench.arrive("$0", post("crossed before")).await;
    bench.run(&outlet, LONG).await;
    encrypt(&bench).await;
    bench.arrive("$1", post("a secret")).await;
    bench.arrive("$2", post("another secret")).await;
    bench.arrive("$3", post("waits")).await;
    agree(&bench).await;
    bench.arrive("$4", delete("$1")).await;
    bench.arrive("$5", edit("$2", "[removed]")).await;
    bench.arrive("$6", delete("$0")).await;
    begin(&bench).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["crossed before", "waits"]);
    assert_eq!(outlet.gone.lock().unwrap().len(), 1);
    let rules = [
        // The edit and its target.
        (SkipRule::BeforeConsent, 2),
        (SkipRule::DeletedBeforeDelivery, 2),
    ];
    assert_eq!(skipped(&bench).await, rules);
    bench.balance().await;
}
