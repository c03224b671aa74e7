//! Which texts of a message went to which place: only those are restored when an edit is redacted.

use footbridge_store::{
    Batch, Bundle, Change, EntryId, FailureNotice, MergedMessage, MessageRef, Millis, Payload,
    PortalId, RedactedEdit, RemoteId, ShownText, SkipRule, Undelivered,
};

use crate::support::{Fixture, NOW, arrival, payload, portal, to_silo};

/// An event in the room that edits `$1`, or redacts an edit.
async fn change(fixture: &Fixture, event_id: &str, target: &str) {
    let said = Payload::Ready(event_id.as_bytes().to_vec());
    let change = Change {
        place: fixture.room.clone(),
        event_id: event_id.into(),
        target: Some(target.into()),
        is_retraction: target != "$1",
        stays: false,
    };
    let arrival = footbridge_store::Arrival {
        message: None,
        ..arrival(&fixture.room, event_id, said)
    };
    let batch = Batch {
        arrivals: vec![arrival],
        changes: vec![change],
        ..Batch::default()
    };
    fixture.store.accept(batch, NOW).await.unwrap();
}

/// Sends a portal's pending message with the edit behind it included.
async fn send_with_edit(fixture: &Fixture, portal: &footbridge_store::Portal) {
    let head = fixture.ready(to_silo(portal)).await;
    let behind = fixture.store.pending_changes(head.id).await.unwrap();
    let rewritten = MergedMessage {
        message: head.id,
        edits: vec![(behind[0].0, b"as it reads".to_vec())],
    };
    let included = vec![(behind[0].0, SkipRule::EditIncluded)];
    assert!(
        fixture
            .store
            .include_edits(rewritten, included)
            .await
            .unwrap()
    );
    let remote = format!("{} of {}", head.id, portal.id);
    fixture.deliver(to_silo(portal), &remote).await;
}

/// Sends a portal's pending edit.
async fn edits(fixture: &Fixture, portal: &footbridge_store::Portal) {
    let head = fixture.ready(to_silo(portal)).await;
    let event_id = RemoteId(String::from_utf8(head.payload.clone()).unwrap());
    let (from, to, target) = (&fixture.room, &portal.channel, RemoteId::from("$1"));
    let latest = fixture
        .store
        .advance_latest_edit(from, &target, to, head.entry);
    assert!(latest.await.unwrap(), "{event_id:?}");
    let done = fixture.store.complete_step(head.id, None, None, true, NOW);
    assert!(done.await.unwrap());
}

/// What the store knows of the edit that a portal's pending redaction redacts.
async fn redacted(
    fixture: &Fixture,
    portal: &footbridge_store::Portal,
    edit: &str,
) -> RedactedEdit {
    let by = fixture.ready(to_silo(portal)).await;
    let edit = RemoteId::from(edit);
    let found = fixture
        .store
        .redacted_edit(&fixture.room, &edit, &portal.channel, by.entry);
    found.await.unwrap().unwrap()
}

fn others(found: &RedactedEdit) -> Vec<&str> {
    found
        .others
        .iter()
        .map(|edit| edit.event_id.as_str())
        .collect()
}

/// Includes the edits behind a portal's pending message in it, without sending it.
async fn include_edits_behind(
    fixture: &Fixture,
    portal: &footbridge_store::Portal,
    payloads: &[&str],
) {
    let head = fixture.ready(to_silo(portal)).await;
    let behind = fixture.store.pending_changes(head.id).await.unwrap();
    assert_eq!(behind.len(), payloads.len());
    let edits = behind.iter().zip(payloads);
    let rewritten = MergedMessage {
        message: head.id,
        edits: edits
            .map(|((edit, _), payload)| (*edit, payload.as_bytes().to_vec()))
            .collect(),
    };
    let included = behind.iter();
    let included = included.map(|(edit, _)| (*edit, SkipRule::EditIncluded));
    let included = included.collect();
    assert!(
        fixture
            .store
            .include_edits(rewritten, included)
            .await
            .unwrap()
    );
}

/// The payload that the portal sends next.
async fn says(fixture: &Fixture, portal: &footbridge_store::Portal) -> String {
    let head = fixture.ready(to_silo(portal)).await;
    String::from_utf8(head.payload).unwrap()
}

#[tokio::test]
async fn a_text_that_was_edited_while_it_waited_was_delivered_only_where_it_was_sent_unedited() {
    let fixture = Fixture::new().await;
    let (a, b) = (&fixture.a, &fixture.b);
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    change(&fixture, "$e1", "$1").await;
    send_with_edit(&fixture, a).await;
    // The other portal sends the message's own text, and then the edit.
    assert_eq!(says(&fixture, b).await, "$1");
    fixture.deliver(to_silo(b), "b1").await;
    edits(&fixture, b).await;
    change(&fixture, "$e2", "$1").await;
    edits(&fixture, a).await;
    edits(&fixture, b).await;
    change(&fixture, "$r2", "$e2").await;
    for (portal, own) in [(a, false), (b, true)] {
        let found = redacted(&fixture, portal, "$e2").await;
        assert_eq!((others(&found), found.own), (vec!["$e1"], own));
    }
}

#[tokio::test]
async fn a_message_with_an_included_edit_shows_its_earlier_text_once_that_is_redacted() {
    let fixture = Fixture::new().await;
    let (a, b) = (&fixture.a, &fixture.b);
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    change(&fixture, "$e1", "$1").await;
    change(&fixture, "$e2", "$1").await;
    // One channel has the message with both edits; the other channel is unreachable.
    include_edits_behind(&fixture, a, &["first", "second"]).await;
    fixture.deliver(to_silo(a), "a1").await;
    include_edits_behind(&fixture, b, &["first", "second"]).await;
    assert_eq!(says(&fixture, b).await, "second");
    change(&fixture, "$r2", "$e2").await;
    assert_eq!(says(&fixture, b).await, "first");
    change(&fixture, "$r1", "$e1").await;
    assert_eq!(says(&fixture, b).await, "$1");
    fixture.deliver(to_silo(b), "b1").await;
    let found = redacted(&fixture, b, "$e2").await;
    assert_eq!(found.shown, ShownText::Earlier);
    let found = redacted(&fixture, a, "$e2").await;
    assert_eq!((found.shown, found.own), (ShownText::Redacted, false));
}

#[tokio::test]
async fn a_message_that_may_have_arrived_keeps_the_text_of_its_attempt() {
    let fixture = Fixture::with_one_portal().await;
    let (a, lane) = (&fixture.a, to_silo(&fixture.a));
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    change(&fixture, "$e1", "$1").await;
    include_edits_behind(&fixture, a, &["first"]).await;
    let head = fixture.ready(lane).await;
    let edit = head.text_of.unwrap();
    let store = &fixture.store;
    assert!(
        store
            .begin_rewritten_attempt(head.id, edit, NOW)
            .await
            .unwrap()
    );
    change(&fixture, "$r1", "$e1").await;
    assert_eq!(says(&fixture, a).await, "first");
    fixture.deliver(lane, "a1").await;
    let found = redacted(&fixture, a, "$e1").await;
    assert_eq!((found.shown, found.own), (ShownText::Redacted, false));
    // The edit was redacted before it was sent, so it is not sent.
    let fixture = Fixture::with_one_portal().await;
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    change(&fixture, "$e1", "$1").await;
    include_edits_behind(&fixture, &fixture.a, &["first"]).await;
    let head = fixture.ready(lane).await;
    change(&fixture, "$r1", "$e1").await;
    let goes = fixture.store.begin_rewritten_attempt(head.id, edit, NOW);
    assert!(!goes.await.unwrap());
    assert_eq!(fixture.ready(lane).await.text_of, None);
}

#[tokio::test]
async fn a_bundle_is_split_when_an_included_edit_is_redacted() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    let (one, two) = (payload(&fixture.room, "$1"), payload(&fixture.room, "$2"));
    fixture.accept(vec![one, two]).await;
    change(&fixture, "$e1", "$1").await;
    let line = fixture
        .store
        .lookahead(lane, fixture.ready(lane).await.id, 9, NOW);
    let ids: Vec<_> = line.await.unwrap().iter().map(|owed| owed.id).collect();
    let bundle = Bundle {
        plan: b"first + $2".to_vec(),
        members: ids[..2].to_vec(),
        merged: vec![MergedMessage {
            message: ids[0],
            edits: vec![(ids[2], b"first".to_vec())],
        }],
        included: vec![(ids[2], SkipRule::EditIncluded)],
    };
    assert!(fixture.store.create_bundle(bundle).await.unwrap());
    change(&fixture, "$r1", "$e1").await;
    let head = fixture.ready(lane).await;
    assert_eq!((head.plan, head.payload), (None, b"$1".to_vec()));
}

#[tokio::test]
async fn a_message_that_only_an_edit_made_readable_is_not_sent_once_that_is_redacted() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    let sealed = Payload::Undecryptable {
        session: "s".to_owned(),
        raw: b"raw".to_vec(),
        key_wait_until: Millis(NOW.0 + 5),
    };
    let waiting = arrival(&fixture.room, "$1", sealed);
    fixture.accept(vec![waiting]).await;
    change(&fixture, "$e1", "$1").await;
    let entry = fixture.store.undecryptable_events(None).await.unwrap()[0].entry;
    let behind = fixture
        .store
        .lookahead(lane, footbridge_store::DeliveryId(0), 9, NOW);
    assert_eq!(behind.await.unwrap().len(), 0);
    let edit =
        fixture
            .sql()
            .query_row("SELECT id FROM journal WHERE event_id = '$e1'", [], |row| {
                row.get(0).map(footbridge_store::EntryId)
            });
    let filled = fixture
        .store
        .fill_by_edit(entry, b"first".to_vec(), edit.unwrap(), NOW);
    assert_eq!(filled.await.unwrap().unwrap(), [lane]);
    assert_eq!(says(&fixture, &fixture.a).await, "first");
    change(&fixture, "$r1", "$e1").await;
    assert_eq!(says(&fixture, &fixture.a).await, "$e1");
    assert_eq!(
        fixture.counters(lane).await.skipped,
        [(SkipRule::EditRedacted, 1)]
    );
}

#[tokio::test]
async fn an_edit_that_certainly_never_got_there_leaves_what_is_there_alone() {
    let fixture = Fixture::with_one_portal().await;
    let (a, lane) = (&fixture.a, to_silo(&fixture.a));
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    fixture.deliver(lane, "a1").await;
    change(&fixture, "$e1", "$1").await;
    edits(&fixture, a).await;
    change(&fixture, "$e2", "$1").await;
    let head = fixture.ready(lane).await;
    let (from, target) = (&fixture.room, RemoteId::from("$1"));
    let latest = fixture
        .store
        .advance_latest_edit(from, &target, &a.channel, head.entry);
    assert!(latest.await.unwrap());
    let how = Undelivered::Failed {
        kind: "refused",
        reason: "it is too rude".to_owned(),
        about: Some(target),
        notice: FailureNotice::ToSender,
    };
    fixture
        .store
        .end_undelivered(head.id, how, NOW)
        .await
        .unwrap();
    change(&fixture, "$r2", "$e2").await;
    let found = redacted(&fixture, a, "$e2").await;
    assert_eq!(found.shown, ShownText::Earlier);
    // The earlier edit was delivered, and is the latest edit again.
    change(&fixture, "$r1", "$e1").await;
    let found = redacted(&fixture, a, "$e1").await;
    assert_eq!((found.shown, found.own), (ShownText::Redacted, true));
}

#[tokio::test]
async fn a_later_edit_that_failed_in_the_middle_is_there() {
    let fixture = Fixture::with_one_portal().await;
    let (a, lane) = (&fixture.a, to_silo(&fixture.a));
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    fixture.deliver(lane, "a1").await;
    change(&fixture, "$e1", "$1").await;
    edits(&fixture, a).await;
    change(&fixture, "$e2", "$1").await;
    let head = fixture.ready(lane).await;
    let (from, target) = (&fixture.room, RemoteId::from("$1"));
    let latest = fixture
        .store
        .advance_latest_edit(from, &target, &a.channel, head.entry);
    assert!(latest.await.unwrap());
    let done = fixture.store.complete_step(head.id, None, None, false, NOW);
    assert!(done.await.unwrap());
    let how = Undelivered::Failed {
        kind: "refused",
        reason: "its second part is too rude".to_owned(),
        about: Some(target),
        notice: FailureNotice::ToSender,
    };
    fixture
        .store
        .end_undelivered(head.id, how, NOW)
        .await
        .unwrap();
    change(&fixture, "$r1", "$e1").await;
    assert_eq!(redacted(&fixture, a, "$e1").await.shown, ShownText::Later);
    change(&fixture, "$r2", "$e2").await;
    assert_eq!(
        redacted(&fixture, a, "$e2").await.shown,
        ShownText::Redacted
    );
}

#[tokio::test]
async fn a_partly_failed_or_rewritten_message_counts_as_not_delivered() {
    let fixture = Fixture::new().await;
    let (a, b) = (&fixture.a, &fixture.b);
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    let head = fixture.ready(to_silo(a)).await;
    let first = crate::support::copy("a1");
    let done = fixture
        .store
        .complete_step(head.id, Some(&first), None, false, NOW);
    assert!(done.await.unwrap());
    let how = Undelivered::Failed {
        kind: "refused",
        reason: "its second part is too rude".to_owned(),
        about: None,
        notice: FailureNotice::ToSender,
    };
    fixture
        .store
        .end_undelivered(head.id, how, NOW)
        .await
        .unwrap();
    fixture.deliver(to_silo(b), "b1").await;
    change(&fixture, "$e1", "$1").await;
    edits(&fixture, a).await;
    edits(&fixture, b).await;
    change(&fixture, "$r1", "$e1").await;
    assert!(!redacted(&fixture, a, "$e1").await.own);
    assert!(redacted(&fixture, b, "$e1").await.own);
}

#[tokio::test]
async fn an_edit_that_was_sent_while_a_portal_was_removed_was_not_delivered_by_it() {
    let fixture = Fixture::new().await;
    let (a, b) = (&fixture.a, &fixture.b);
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    fixture.deliver(to_silo(a), "a1").await;
    fixture.deliver(to_silo(b), "b1").await;
    let gone: [PortalId; 1] = [b.id];
    let removed = fixture.store.remove_portals(&gone, None, |_| None, NOW);
    assert_eq!(removed.await.unwrap().portals, 1);
    change(&fixture, "$e1", "$1").await;
    edits(&fixture, a).await;
    let again = portal(&fixture.store, &fixture.room, "b").await;
    change(&fixture, "$e2", "$1").await;
    edits(&fixture, a).await;
    edits(&fixture, &again).await;
    change(&fixture, "$r2", "$e2").await;
    assert_eq!(others(&redacted(&fixture, a, "$e2").await), ["$e1"]);
    let found = redacted(&fixture, &again, "$e2").await;
    assert_eq!((others(&found), found.own), (Vec::new(), true));
}

#[tokio::test]
async fn an_edit_that_is_redacted_during_its_delivery_is_undone() {
    let fixture = Fixture::with_one_portal().await;
    let (a, lane) = (&fixture.a, to_silo(&fixture.a));
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    fixture.deliver(lane, "a1").await;
    change(&fixture, "$e1", "$1").await;
    let head = fixture.ready(lane).await;
    let (from, target) = (&fixture.room, RemoteId::from("$1"));
    let latest = fixture
        .store
        .advance_latest_edit(from, &target, &a.channel, head.entry);
    assert!(latest.await.unwrap());
    // The step is not yet recorded as under way.
    change(&fixture, "$r1", "$e1").await;
    let done = fixture.store.complete_step(head.id, None, None, true, NOW);
    assert!(done.await.unwrap());
    let by = fixture.ready(lane).await.entry;
    let found = redacted(&fixture, a, "$e1").await;
    assert_eq!((found.shown, found.own), (ShownText::Redacted, true));
    // After the text was restored, a second redaction of the edit restores nothing.
    let message = MessageRef {
        place: from,
        id: &target,
    };
    let restored = fixture
        .store
        .note_restored_text(message, &a.channel, by, None);
    restored.await.unwrap();
    fixture
        .store
        .complete_step(fixture.ready(lane).await.id, None, None, true, NOW)
        .await
        .unwrap();
    change(&fixture, "$r2", "$e1").await;
    let found = redacted(&fixture, a, "$e1").await;
    assert_eq!(found.shown, ShownText::Earlier);
}

#[tokio::test]
async fn an_attempt_that_did_not_happen_is_not_repeated_with_the_text_of_a_redacted_edit() {
    let fixture = Fixture::with_one_portal().await;
    let (a, lane) = (&fixture.a, to_silo(&fixture.a));
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    change(&fixture, "$e1", "$1").await;
    include_edits_behind(&fixture, a, &["first"]).await;
    let head = fixture.ready(lane).await;
    let edit = head.text_of.unwrap();
    let store = &fixture.store;
    assert!(
        store
            .begin_rewritten_attempt(head.id, edit, NOW)
            .await
            .unwrap()
    );
    change(&fixture, "$r1", "$e1").await;
    assert!(store.has_redacted_text(head.id).await.unwrap());
    // The other side answers that the step did not happen.
    store.mark_answered(head.id).await.unwrap();
    assert!(
        !store
            .begin_rewritten_attempt(head.id, edit, NOW)
            .await
            .unwrap()
    );
    assert_eq!(says(&fixture, a).await, "$1");
}

/// The entry of an event of the room.
fn entry_of(fixture: &Fixture, event_id: &str) -> EntryId {
    let sql = "SELECT id FROM journal WHERE event_id = ?1";
    let found = fixture
        .sql()
        .query_row(sql, [event_id], |row| row.get(0).map(EntryId));
    found.unwrap()
}

/// The room has `$1`, whose room key is missing, and `$e1`, which edits it. Returns what makes `$1` readable by `$e1`.
async fn undecryptable(fixture: &Fixture) -> Option<Vec<footbridge_store::LaneId>> {
    let sealed = Payload::Undecryptable {
        session: "s".to_owned(),
        raw: b"raw".to_vec(),
        key_wait_until: Millis(NOW.0 + 5),
    };
    fixture
        .accept(vec![arrival(&fixture.room, "$1", sealed)])
        .await;
    change(fixture, "$e1", "$1").await;
    fill_by_e1(fixture).await
}

async fn fill_by_e1(fixture: &Fixture) -> Option<Vec<footbridge_store::LaneId>> {
    let (message, edit) = (entry_of(fixture, "$1"), entry_of(fixture, "$e1"));
    let filled = fixture
        .store
        .fill_by_edit(message, b"first".to_vec(), edit, NOW);
    filled.await.unwrap()
}

/// The pending head of a portal's lane fails with this kind of error.
async fn fail(fixture: &Fixture, portal: &footbridge_store::Portal, kind: &'static str) {
    let how = Undelivered::Failed {
        kind,
        reason: "it is too rude".to_owned(),
        about: None,
        notice: FailureNotice::ToSender,
    };
    let head = fixture.ready(to_silo(portal)).await;
    fixture
        .store
        .end_undelivered(head.id, how, NOW)
        .await
        .unwrap();
}

/// What a retry of the failed delivery of `$1` would send, if it can be retried.
async fn kept(fixture: &Fixture) -> Option<Vec<u8>> {
    let message = RemoteId::from("$1");
    let parked = fixture.store.parked_deliveries_of(&fixture.room, &message);
    let parked = parked.await.unwrap();
    parked.first().unwrap().payload.clone()
}

#[tokio::test]
async fn a_message_that_only_edits_made_readable_is_not_sent_once_all_of_them_are_redacted() {
    let fixture = Fixture::with_one_portal().await;
    let (a, lane) = (&fixture.a, to_silo(&fixture.a));
    assert_eq!(undecryptable(&fixture).await, Some(vec![lane]));
    change(&fixture, "$e2", "$1").await;
    include_edits_behind(&fixture, a, &["first", "second"]).await;
    change(&fixture, "$r1", "$e1").await;
    assert_eq!(says(&fixture, a).await, "second");
    change(&fixture, "$r2", "$e2").await;
    assert_eq!(says(&fixture, a).await, "$r1");
    let skipped = fixture.counters(lane).await.skipped;
    assert!(
        skipped.contains(&(SkipRule::EditRedacted, 1)),
        "{skipped:?}"
    );
    // The same where it failed: it stays as long as it has the text of an edit that was not redacted.
    let fixture = Fixture::with_one_portal().await;
    undecryptable(&fixture).await;
    change(&fixture, "$e2", "$1").await;
    include_edits_behind(&fixture, &fixture.a, &["first", "second"]).await;
    fail(&fixture, &fixture.a, "refused").await;
    change(&fixture, "$r1", "$e1").await;
    assert_eq!(kept(&fixture).await, Some(b"second".to_vec()));
    change(&fixture, "$r2", "$e2").await;
    assert_eq!(kept(&fixture).await, None);
}

#[tokio::test]
async fn a_message_is_not_made_readable_by_a_redacted_edit() {
    let fixture = Fixture::new().await;
    let lanes = [to_silo(&fixture.a), to_silo(&fixture.b)];
    assert_eq!(undecryptable(&fixture).await, Some(lanes.to_vec()));
    // Once an edit has made it readable, no older edit is sent after it.
    let (from, target) = (&fixture.room, RemoteId::from("$1"));
    for portal in [&fixture.a, &fixture.b] {
        let older = entry_of(&fixture, "$1");
        let latest = fixture
            .store
            .advance_latest_edit(from, &target, &portal.channel, older);
        assert!(!latest.await.unwrap());
    }
    let fixture = Fixture::with_one_portal().await;
    let sealed = Payload::Undecryptable {
        session: "s".to_owned(),
        raw: b"raw".to_vec(),
        key_wait_until: Millis(NOW.0 + 5),
    };
    fixture
        .accept(vec![arrival(&fixture.room, "$1", sealed)])
        .await;
    change(&fixture, "$e1", "$1").await;
    change(&fixture, "$r1", "$e1").await;
    assert_eq!(fill_by_e1(&fixture).await, None);
    let waiting = fixture.store.undecryptable_events(None).await.unwrap();
    assert_eq!(waiting.len(), 1);
}

#[tokio::test]
async fn a_message_that_kept_one_redacted_text_does_not_get_it_back_from_the_redaction_of_another()
{
    let fixture = Fixture::with_one_portal().await;
    let (a, lane) = (&fixture.a, to_silo(&fixture.a));
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    change(&fixture, "$e1", "$1").await;
    change(&fixture, "$e2", "$1").await;
    include_edits_behind(&fixture, a, &["first", "second"]).await;
    let head = fixture.ready(lane).await;
    let (store, edit) = (&fixture.store, head.text_of.unwrap());
    let begun = store.begin_rewritten_attempt(head.id, edit, NOW);
    assert!(begun.await.unwrap());
    // While the attempt is under way, nothing changes.
    change(&fixture, "$r1", "$e1").await;
    store.mark_answered(head.id).await.unwrap();
    change(&fixture, "$r2", "$e2").await;
    assert_eq!(says(&fixture, a).await, "$1");
}

#[tokio::test]
async fn what_failed_without_an_answer_may_be_there() {
    for (kind, shown) in [
        ("unknown", ShownText::Redacted),
        ("refused", ShownText::Earlier),
    ] {
        let fixture = Fixture::with_one_portal().await;
        let (a, lane) = (&fixture.a, to_silo(&fixture.a));
        fixture.accept(vec![payload(&fixture.room, "$1")]).await;
        fixture.deliver(lane, "a1").await;
        change(&fixture, "$e1", "$1").await;
        let edit = fixture.ready(lane).await.entry;
        let (from, target) = (&fixture.room, RemoteId::from("$1"));
        let latest = fixture
            .store
            .advance_latest_edit(from, &target, &a.channel, edit);
        assert!(latest.await.unwrap());
        fail(&fixture, a, kind).await;
        change(&fixture, "$r1", "$e1").await;
        assert_eq!(redacted(&fixture, a, "$e1").await.shown, shown);
    }
    // Nor does it keep the words of an older edit there.
    let fixture = Fixture::with_one_portal().await;
    let (a, lane) = (&fixture.a, to_silo(&fixture.a));
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    fixture.deliver(lane, "a1").await;
    change(&fixture, "$e1", "$1").await;
    edits(&fixture, a).await;
    change(&fixture, "$e2", "$1").await;
    let (from, target) = (&fixture.room, RemoteId::from("$1"));
    let edit = fixture.ready(lane).await.entry;
    let latest = fixture
        .store
        .advance_latest_edit(from, &target, &a.channel, edit);
    assert!(latest.await.unwrap());
    fail(&fixture, a, "unknown").await;
    change(&fixture, "$r1", "$e1").await;
    assert_eq!(
        redacted(&fixture, a, "$e1").await.shown,
        ShownText::Redacted
    );
    // A message is not retried with another text: whoever drops repeats answers with what is there.
    for (kind, again) in [("unknown", None), ("refused", Some(b"$1".to_vec()))] {
        let fixture = Fixture::with_one_portal().await;
        fixture.accept(vec![payload(&fixture.room, "$1")]).await;
        change(&fixture, "$e1", "$1").await;
        include_edits_behind(&fixture, &fixture.a, &["first"]).await;
        fail(&fixture, &fixture.a, kind).await;
        change(&fixture, "$r1", "$e1").await;
        assert_eq!(kept(&fixture).await, again, "{kind}");
    }
    // The same after a silence in a place that closed since.
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    change(&fixture, "$e1", "$1").await;
    include_edits_behind(&fixture, &fixture.a, &["first"]).await;
    let head = fixture.ready(lane).await;
    fixture.store.mark_unanswered(head.id, NOW).await.unwrap();
    let overdue = fixture
        .store
        .park_overdue(lane, NOW, "it is closed", |_| None, NOW);
    assert_eq!(overdue.await.unwrap(), 1);
    change(&fixture, "$r1", "$e1").await;
    assert_eq!(kept(&fixture).await, None);
}

#[tokio::test]
async fn an_edit_that_ended_after_its_redaction_is_the_latest_of_nothing() {
    let fixture = Fixture::with_one_portal().await;
    let (a, lane) = (&fixture.a, to_silo(&fixture.a));
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    fixture.deliver(lane, "a1").await;
    change(&fixture, "$e1", "$1").await;
    change(&fixture, "$e2", "$1").await;
    let (from, target) = (&fixture.room, RemoteId::from("$1"));
    let older = fixture.ready(lane).await;
    let dead = fixture.store.lookahead(lane, older.id, 9, NOW);
    let dead = dead.await.unwrap()[1].clone();
    let advance = |entry| {
        fixture
            .store
            .advance_latest_edit(from, &target, &a.channel, entry)
    };
    assert!(advance(dead.entry).await.unwrap());
    assert!(!advance(older.entry).await.unwrap());
    // It is redacted while an attempt is under way, which does not happen.
    let unknown = fixture.store.mark_outcome_unknown(dead.id, None, NOW);
    unknown.await.unwrap();
    change(&fixture, "$r2", "$e2").await;
    assert!(!advance(older.entry).await.unwrap());
    fixture.store.mark_not_attempted(dead.id).await.unwrap();
    let ended = Undelivered::Skipped(SkipRule::EditRedacted);
    let ended = fixture.store.end_undelivered(dead.id, ended, NOW);
    ended.await.unwrap();
    assert!(advance(older.entry).await.unwrap());
}

#[tokio::test]
async fn the_text_of_an_edit_is_erased_where_its_message_is_done() {
    let fixture = Fixture::new().await;
    let (a, b) = (&fixture.a, &fixture.b);
    let sealed_for = |place: &footbridge_store::Place| {
        let sql = "SELECT count(*) FROM rewritten WHERE to_place = ?1 AND payload IS NOT NULL";
        let place = format!("{}:{}", place.network(), place.address());
        let count = fixture.sql().query_row(sql, [place], |row| row.get(0));
        count.unwrap_or(-1)
    };
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    change(&fixture, "$e1", "$1").await;
    change(&fixture, "$e2", "$1").await;
    include_edits_behind(&fixture, a, &["first", "second"]).await;
    include_edits_behind(&fixture, b, &["first", "second"]).await;
    assert_eq!((sealed_for(&a.channel), sealed_for(&b.channel)), (2, 2));
    fixture.deliver(to_silo(a), "a1").await;
    assert_eq!((sealed_for(&a.channel), sealed_for(&b.channel)), (0, 2));
    // What can be retried is kept, and erased when it cannot be any more.
    fail(&fixture, b, "refused").await;
    assert_eq!(sealed_for(&b.channel), 2);
    change(&fixture, "$r1", "$e1").await;
    assert_eq!(sealed_for(&b.channel), 1);
    let gone = [b.id];
    let removed = fixture.store.remove_portals(&gone, None, |_| None, NOW);
    removed.await.unwrap();
    assert_eq!(sealed_for(&b.channel), 0);
    // It stays known what the place got.
    let found = redacted(&fixture, a, "$e1").await;
    assert_eq!(
        (found.shown, others(&found)),
        (ShownText::Later, vec!["$e2"])
    );
}
