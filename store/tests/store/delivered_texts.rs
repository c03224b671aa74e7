//! Which texts of a message were sent where: only those are restored when an edit is redacted.

use footbridge_store::{
    Batch, Bundle, Change, EntryId, FailureNotice, MergedMessage, Millis, Payload, PortalId,
    RedactedEdit, RemoteId, ShownText, Undelivered,
};

use crate::support::{Ground, NOW, arrival, payload, portal, to_silo};

/// The room edits `$1`, or redacts an edit.
async fn change(ground: &Ground, event_id: &str, target: &str) {
    let said = Payload::Ready(event_id.as_bytes().to_vec());
    let change = Change {
        place: ground.room.clone(),
        event_id: event_id.into(),
        target: Some(target.into()),
        is_retraction: target != "$1",
        stays: false,
    };
    let arrival = footbridge_store::Arrival {
        message: None,
        ..arrival(&ground.room, event_id, said)
    };
    let batch = Batch {
        arrivals: vec![arrival],
        changes: vec![change],
        ..Batch::default()
    };
    ground.store.accept(batch, NOW).await.unwrap();
}

/// A portal's pending message of the room is sent, and with it the edit behind it.
async fn go_together(ground: &Ground, portal: &footbridge_store::Portal) {
    let head = ground.ready(to_silo(portal)).await;
    let behind = ground.store.pending_changes(head.id).await.unwrap();
    let rewritten = MergedMessage {
        message: head.id,
        edits: vec![(behind[0].0, b"as it reads".to_vec())],
    };
    let included = vec![(behind[0].0, "edit-included".to_owned())];
    assert!(
        ground
            .store
            .include_edits(rewritten, included)
            .await
            .unwrap()
    );
    let remote = format!("{} of {}", head.id, portal.id);
    ground.deliver(to_silo(portal), &remote).await;
}

/// A portal's pending edit is sent.
async fn edits(ground: &Ground, portal: &footbridge_store::Portal) {
    let head = ground.ready(to_silo(portal)).await;
    let event_id = RemoteId(String::from_utf8(head.payload.clone()).unwrap());
    let (from, to, target) = (&ground.room, &portal.channel, RemoteId::from("$1"));
    let latest = ground
        .store
        .advance_latest_edit(from, &target, to, head.entry);
    assert!(latest.await.unwrap(), "{event_id:?}");
    let done = ground.store.complete_step(head.id, None, None, true, NOW);
    assert!(done.await.unwrap());
}

/// What a portal's pending redaction means.
async fn redacted(ground: &Ground, portal: &footbridge_store::Portal, edit: &str) -> RedactedEdit {
    let by = ground.ready(to_silo(portal)).await;
    let edit = RemoteId::from(edit);
    let found = ground
        .store
        .redacted_edit((&ground.room, &edit), &portal.channel, by.entry);
    found.await.unwrap().unwrap()
}

fn others(found: &RedactedEdit) -> Vec<&str> {
    found
        .others
        .iter()
        .map(|edit| edit.event_id.as_str())
        .collect()
}

/// A portal's pending message includes the edits behind it, and is not sent.
async fn take_in(ground: &Ground, portal: &footbridge_store::Portal, letters: &[&str]) {
    let head = ground.ready(to_silo(portal)).await;
    let behind = ground.store.pending_changes(head.id).await.unwrap();
    assert_eq!(behind.len(), letters.len());
    let edits = behind.iter().zip(letters);
    let rewritten = MergedMessage {
        message: head.id,
        edits: edits
            .map(|((edit, _), payload)| (*edit, payload.as_bytes().to_vec()))
            .collect(),
    };
    let included = behind.iter();
    let included = included.map(|(edit, _)| (*edit, "edit-included".to_owned()));
    let included = included.collect();
    assert!(
        ground
            .store
            .include_edits(rewritten, included)
            .await
            .unwrap()
    );
}

/// What the portal sends next.
async fn says(ground: &Ground, portal: &footbridge_store::Portal) -> String {
    let head = ground.ready(to_silo(portal)).await;
    String::from_utf8(head.payload).unwrap()
}

#[tokio::test]
async fn a_text_that_was_edited_while_it_waited_has_crossed_only_where_it_went_as_it_was() {
    let ground = Ground::new().await;
    let (a, b) = (&ground.a, &ground.b);
    ground.accept(vec![payload(&ground.room, "$1")]).await;
    change(&ground, "$e1", "$1").await;
    go_together(&ground, a).await;
    // The other one sends the message's own text, and then the edit.
    assert_eq!(says(&ground, b).await, "$1");
    ground.deliver(to_silo(b), "b1").await;
    edits(&ground, b).await;
    change(&ground, "$e2", "$1").await;
    edits(&ground, a).await;
    edits(&ground, b).await;
    change(&ground, "$r2", "$e2").await;
    for (portal, own) in [(a, false), (b, true)] {
        let found = redacted(&ground, portal, "$e2").await;
        assert_eq!((others(&found), found.own), (vec!["$e1"], own));
    }
}

#[tokio::test]
async fn a_message_that_took_in_an_edit_says_what_it_said_before_once_that_is_redacted() {
    let ground = Ground::new().await;
    let (a, b) = (&ground.a, &ground.b);
    ground.accept(vec![payload(&ground.room, "$1")]).await;
    change(&ground, "$e1", "$1").await;
    change(&ground, "$e2", "$1").await;
    // One channel has it with both edits, the other is away.
    take_in(&ground, a, &["first", "second"]).await;
    ground.deliver(to_silo(a), "a1").await;
    take_in(&ground, b, &["first", "second"]).await;
    assert_eq!(says(&ground, b).await, "second");
    change(&ground, "$r2", "$e2").await;
    assert_eq!(says(&ground, b).await, "first");
    change(&ground, "$r1", "$e1").await;
    assert_eq!(says(&ground, b).await, "$1");
    ground.deliver(to_silo(b), "b1").await;
    let found = redacted(&ground, b, "$e2").await;
    assert_eq!(found.shown, ShownText::Earlier);
    let found = redacted(&ground, a, "$e2").await;
    assert_eq!((found.shown, found.own), (ShownText::Redacted, false));
}

#[tokio::test]
async fn a_message_that_may_be_there_goes_on_saying_what_it_was_tried_with() {
    let ground = Ground::with_one_portal().await;
    let (a, lane) = (&ground.a, to_silo(&ground.a));
    ground.accept(vec![payload(&ground.room, "$1")]).await;
    change(&ground, "$e1", "$1").await;
    take_in(&ground, a, &["first"]).await;
    let head = ground.ready(lane).await;
    let edit = head.text_of.unwrap();
    let store = &ground.store;
    assert!(
        store
            .begin_rewritten_attempt(head.id, edit, NOW)
            .await
            .unwrap()
    );
    change(&ground, "$r1", "$e1").await;
    assert_eq!(says(&ground, a).await, "first");
    ground.deliver(lane, "a1").await;
    let found = redacted(&ground, a, "$e1").await;
    assert_eq!((found.shown, found.own), (ShownText::Redacted, false));
    // Redacted before it is sent, it is not sent.
    let ground = Ground::with_one_portal().await;
    ground.accept(vec![payload(&ground.room, "$1")]).await;
    change(&ground, "$e1", "$1").await;
    take_in(&ground, &ground.a, &["first"]).await;
    let head = ground.ready(lane).await;
    change(&ground, "$r1", "$e1").await;
    let goes = ground.store.begin_rewritten_attempt(head.id, edit, NOW);
    assert!(!goes.await.unwrap());
    assert_eq!(ground.ready(lane).await.text_of, None);
}

#[tokio::test]
async fn messages_that_go_together_are_taken_apart_when_an_edit_in_one_is_redacted() {
    let ground = Ground::with_one_portal().await;
    let lane = to_silo(&ground.a);
    let (one, two) = (payload(&ground.room, "$1"), payload(&ground.room, "$2"));
    ground.accept(vec![one, two]).await;
    change(&ground, "$e1", "$1").await;
    let line = ground
        .store
        .lookahead(lane, ground.ready(lane).await.id, 9, NOW);
    let ids: Vec<_> = line.await.unwrap().iter().map(|owed| owed.id).collect();
    let bundle = Bundle {
        plan: b"first + $2".to_vec(),
        members: ids[..2].to_vec(),
        merged: vec![MergedMessage {
            message: ids[0],
            edits: vec![(ids[2], b"first".to_vec())],
        }],
        included: vec![(ids[2], "edit-included".to_owned())],
    };
    assert!(ground.store.create_bundle(bundle).await.unwrap());
    change(&ground, "$r1", "$e1").await;
    let head = ground.ready(lane).await;
    assert_eq!((head.plan, head.payload), (None, b"$1".to_vec()));
}

#[tokio::test]
async fn a_message_that_only_an_edit_made_readable_is_not_sent_once_that_is_redacted() {
    let ground = Ground::with_one_portal().await;
    let lane = to_silo(&ground.a);
    let sealed = Payload::Undecryptable {
        session: "s".to_owned(),
        raw: b"raw".to_vec(),
        key_wait_until: Millis(NOW.0 + 5),
    };
    let waiting = arrival(&ground.room, "$1", sealed);
    ground.accept(vec![waiting]).await;
    change(&ground, "$e1", "$1").await;
    let entry = ground.store.undecryptable_events(None).await.unwrap()[0].entry;
    let behind = ground
        .store
        .lookahead(lane, footbridge_store::DeliveryId(0), 9, NOW);
    assert_eq!(behind.await.unwrap().len(), 0);
    let edit = ground
        .sql()
        .query_row("SELECT id FROM journal WHERE event_id = '$e1'", [], |row| {
            row.get(0).map(footbridge_store::EntryId)
        });
    let filled = ground
        .store
        .fill_by_edit(entry, b"first".to_vec(), edit.unwrap(), NOW);
    assert_eq!(filled.await.unwrap().unwrap(), [lane]);
    assert_eq!(says(&ground, &ground.a).await, "first");
    change(&ground, "$r1", "$e1").await;
    assert_eq!(says(&ground, &ground.a).await, "$e1");
    assert_eq!(
        ground.counters(lane).await.skipped,
        [("edit-redacted".to_owned(), 1)]
    );
}

#[tokio::test]
async fn an_edit_that_certainly_never_got_there_leaves_what_is_there_alone() {
    let ground = Ground::with_one_portal().await;
    let (a, lane) = (&ground.a, to_silo(&ground.a));
    ground.accept(vec![payload(&ground.room, "$1")]).await;
    ground.deliver(lane, "a1").await;
    change(&ground, "$e1", "$1").await;
    edits(&ground, a).await;
    change(&ground, "$e2", "$1").await;
    let head = ground.ready(lane).await;
    let (from, target) = (&ground.room, RemoteId::from("$1"));
    let latest = ground
        .store
        .advance_latest_edit(from, &target, &a.channel, head.entry);
    assert!(latest.await.unwrap());
    let how = Undelivered::Failed {
        kind: "refused",
        reason: "it is too rude".to_owned(),
        about: Some(target),
        notice: FailureNotice::ToSender,
    };
    ground
        .store
        .end_undelivered(head.id, how, NOW)
        .await
        .unwrap();
    change(&ground, "$r2", "$e2").await;
    let found = redacted(&ground, a, "$e2").await;
    assert_eq!(found.shown, ShownText::Earlier);
    // The one before it is there, and counts as the newest again.
    change(&ground, "$r1", "$e1").await;
    let found = redacted(&ground, a, "$e1").await;
    assert_eq!((found.shown, found.own), (ShownText::Redacted, true));
}

#[tokio::test]
async fn a_later_edit_that_failed_in_the_middle_is_there() {
    let ground = Ground::with_one_portal().await;
    let (a, lane) = (&ground.a, to_silo(&ground.a));
    ground.accept(vec![payload(&ground.room, "$1")]).await;
    ground.deliver(lane, "a1").await;
    change(&ground, "$e1", "$1").await;
    edits(&ground, a).await;
    change(&ground, "$e2", "$1").await;
    let head = ground.ready(lane).await;
    let (from, target) = (&ground.room, RemoteId::from("$1"));
    let latest = ground
        .store
        .advance_latest_edit(from, &target, &a.channel, head.entry);
    assert!(latest.await.unwrap());
    let done = ground.store.complete_step(head.id, None, None, false, NOW);
    assert!(done.await.unwrap());
    let how = Undelivered::Failed {
        kind: "refused",
        reason: "its second part is too rude".to_owned(),
        about: Some(target),
        notice: FailureNotice::ToSender,
    };
    ground
        .store
        .end_undelivered(head.id, how, NOW)
        .await
        .unwrap();
    change(&ground, "$r1", "$e1").await;
    assert_eq!(redacted(&ground, a, "$e1").await.shown, ShownText::Later);
    change(&ground, "$r2", "$e2").await;
    assert_eq!(redacted(&ground, a, "$e2").await.shown, ShownText::Redacted);
}

#[tokio::test]
async fn what_failed_in_part_or_went_before_its_letter_was_rewritten_counts_as_not_crossed() {
    let ground = Ground::new().await;
    let (a, b) = (&ground.a, &ground.b);
    ground.accept(vec![payload(&ground.room, "$1")]).await;
    let head = ground.ready(to_silo(a)).await;
    let first = crate::support::copy("a1");
    let done = ground
        .store
        .complete_step(head.id, Some(&first), None, false, NOW);
    assert!(done.await.unwrap());
    let how = Undelivered::Failed {
        kind: "refused",
        reason: "its second part is too rude".to_owned(),
        about: None,
        notice: FailureNotice::ToSender,
    };
    ground
        .store
        .end_undelivered(head.id, how, NOW)
        .await
        .unwrap();
    ground.deliver(to_silo(b), "b1").await;
    change(&ground, "$e1", "$1").await;
    edits(&ground, a).await;
    edits(&ground, b).await;
    change(&ground, "$r1", "$e1").await;
    assert!(!redacted(&ground, a, "$e1").await.own);
    assert!(redacted(&ground, b, "$e1").await.own);
}

#[tokio::test]
async fn an_edit_that_was_said_while_a_portal_was_removed_has_not_crossed_it() {
    let ground = Ground::new().await;
    let (a, b) = (&ground.a, &ground.b);
    ground.accept(vec![payload(&ground.room, "$1")]).await;
    ground.deliver(to_silo(a), "a1").await;
    ground.deliver(to_silo(b), "b1").await;
    let gone: [PortalId; 1] = [b.id];
    let removed = ground.store.remove_portals(&gone, None, |_| None, NOW);
    assert_eq!(removed.await.unwrap().portals, 1);
    change(&ground, "$e1", "$1").await;
    edits(&ground, a).await;
    let again = portal(&ground.store, &ground.room, "b").await;
    change(&ground, "$e2", "$1").await;
    edits(&ground, a).await;
    edits(&ground, &again).await;
    change(&ground, "$r2", "$e2").await;
    assert_eq!(others(&redacted(&ground, a, "$e2").await), ["$e1"]);
    let found = redacted(&ground, &again, "$e2").await;
    assert_eq!((others(&found), found.own), (Vec::new(), true));
}

#[tokio::test]
async fn an_edit_that_was_under_way_when_it_was_redacted_is_taken_back() {
    let ground = Ground::with_one_portal().await;
    let (a, lane) = (&ground.a, to_silo(&ground.a));
    ground.accept(vec![payload(&ground.room, "$1")]).await;
    ground.deliver(lane, "a1").await;
    change(&ground, "$e1", "$1").await;
    let head = ground.ready(lane).await;
    let (from, target) = (&ground.room, RemoteId::from("$1"));
    let latest = ground
        .store
        .advance_latest_edit(from, &target, &a.channel, head.entry);
    assert!(latest.await.unwrap());
    // Nothing says yet that the step is under way.
    change(&ground, "$r1", "$e1").await;
    let done = ground.store.complete_step(head.id, None, None, true, NOW);
    assert!(done.await.unwrap());
    let by = ground.ready(lane).await.entry;
    let found = redacted(&ground, a, "$e1").await;
    assert_eq!((found.shown, found.own), (ShownText::Redacted, true));
    // Once it is restored, another redaction of the edit restores nothing.
    let restored = ground
        .store
        .note_restored_text((from, &target), &a.channel, by, None);
    restored.await.unwrap();
    ground
        .store
        .complete_step(ground.ready(lane).await.id, None, None, true, NOW)
        .await
        .unwrap();
    change(&ground, "$r2", "$e1").await;
    let found = redacted(&ground, a, "$e1").await;
    assert_eq!(found.shown, ShownText::Earlier);
}

#[tokio::test]
async fn an_attempt_that_did_not_happen_is_not_repeated_with_the_words_of_a_redacted_edit() {
    let ground = Ground::with_one_portal().await;
    let (a, lane) = (&ground.a, to_silo(&ground.a));
    ground.accept(vec![payload(&ground.room, "$1")]).await;
    change(&ground, "$e1", "$1").await;
    take_in(&ground, a, &["first"]).await;
    let head = ground.ready(lane).await;
    let edit = head.text_of.unwrap();
    let store = &ground.store;
    assert!(
        store
            .begin_rewritten_attempt(head.id, edit, NOW)
            .await
            .unwrap()
    );
    change(&ground, "$r1", "$e1").await;
    assert!(store.has_redacted_text(head.id).await.unwrap());
    // The answer says that it did not happen.
    store.mark_answered(head.id).await.unwrap();
    assert!(
        !store
            .begin_rewritten_attempt(head.id, edit, NOW)
            .await
            .unwrap()
    );
    assert_eq!(says(&ground, a).await, "$1");
}

/// The entry of an event of the room.
fn entry_of(ground: &Ground, event_id: &str) -> EntryId {
    let sql = "SELECT id FROM journal WHERE event_id = ?1";
    let found = ground
        .sql()
        .query_row(sql, [event_id], |row| row.get(0).map(EntryId));
    found.unwrap()
}

/// The room has `$1`, whose room key is missing, and `$e1`, which edits it. Returns what makes `$1` readable by `$e1`.
async fn undecryptable(ground: &Ground) -> Option<Vec<footbridge_store::LaneId>> {
    let sealed = Payload::Undecryptable {
        session: "s".to_owned(),
        raw: b"raw".to_vec(),
        key_wait_until: Millis(NOW.0 + 5),
    };
    ground
        .accept(vec![arrival(&ground.room, "$1", sealed)])
        .await;
    change(ground, "$e1", "$1").await;
    fill_by_e1(ground).await
}

async fn fill_by_e1(ground: &Ground) -> Option<Vec<footbridge_store::LaneId>> {
    let (message, edit) = (entry_of(ground, "$1"), entry_of(ground, "$e1"));
    let filled = ground
        .store
        .fill_by_edit(message, b"first".to_vec(), edit, NOW);
    filled.await.unwrap()
}

/// The pending head of a portal's lane fails with this kind of error.
async fn fail(ground: &Ground, portal: &footbridge_store::Portal, kind: &'static str) {
    let how = Undelivered::Failed {
        kind,
        reason: "it is too rude".to_owned(),
        about: None,
        notice: FailureNotice::ToSender,
    };
    let head = ground.ready(to_silo(portal)).await;
    ground
        .store
        .end_undelivered(head.id, how, NOW)
        .await
        .unwrap();
}

/// What a retry of the failed delivery of `$1` would send, if it can be retried.
async fn kept(ground: &Ground) -> Option<Vec<u8>> {
    let message = RemoteId::from("$1");
    let parked = ground.store.parked_deliveries_of(&ground.room, &message);
    let parked = parked.await.unwrap();
    parked.first().unwrap().payload.clone()
}

#[tokio::test]
async fn a_message_that_only_edits_made_readable_is_not_sent_once_all_of_them_are_redacted() {
    let ground = Ground::with_one_portal().await;
    let (a, lane) = (&ground.a, to_silo(&ground.a));
    assert_eq!(undecryptable(&ground).await, Some(vec![lane]));
    change(&ground, "$e2", "$1").await;
    take_in(&ground, a, &["first", "second"]).await;
    change(&ground, "$r1", "$e1").await;
    assert_eq!(says(&ground, a).await, "second");
    change(&ground, "$r2", "$e2").await;
    assert_eq!(says(&ground, a).await, "$r1");
    let skipped = ground.counters(lane).await.skipped;
    assert!(
        skipped.contains(&("edit-redacted".to_owned(), 1)),
        "{skipped:?}"
    );
    // The same where it failed: it stays as long as it has the text of an edit that was not redacted.
    let ground = Ground::with_one_portal().await;
    undecryptable(&ground).await;
    change(&ground, "$e2", "$1").await;
    take_in(&ground, &ground.a, &["first", "second"]).await;
    fail(&ground, &ground.a, "refused").await;
    change(&ground, "$r1", "$e1").await;
    assert_eq!(kept(&ground).await, Some(b"second".to_vec()));
    change(&ground, "$r2", "$e2").await;
    assert_eq!(kept(&ground).await, None);
}

#[tokio::test]
async fn a_message_is_not_made_readable_by_a_redacted_edit() {
    let ground = Ground::new().await;
    let lanes = [to_silo(&ground.a), to_silo(&ground.b)];
    assert_eq!(undecryptable(&ground).await, Some(lanes.to_vec()));
    // Once an edit has made it readable, no older edit is sent after it.
    let (from, target) = (&ground.room, RemoteId::from("$1"));
    for portal in [&ground.a, &ground.b] {
        let older = entry_of(&ground, "$1");
        let latest = ground
            .store
            .advance_latest_edit(from, &target, &portal.channel, older);
        assert!(!latest.await.unwrap());
    }
    let ground = Ground::with_one_portal().await;
    let sealed = Payload::Undecryptable {
        session: "s".to_owned(),
        raw: b"raw".to_vec(),
        key_wait_until: Millis(NOW.0 + 5),
    };
    ground
        .accept(vec![arrival(&ground.room, "$1", sealed)])
        .await;
    change(&ground, "$e1", "$1").await;
    change(&ground, "$r1", "$e1").await;
    assert_eq!(fill_by_e1(&ground).await, None);
    let waiting = ground.store.undecryptable_events(None).await.unwrap();
    assert_eq!(waiting.len(), 1);
}

#[tokio::test]
async fn a_message_that_kept_one_redacted_text_does_not_get_it_back_from_the_redaction_of_another()
{
    let ground = Ground::with_one_portal().await;
    let (a, lane) = (&ground.a, to_silo(&ground.a));
    ground.accept(vec![payload(&ground.room, "$1")]).await;
    change(&ground, "$e1", "$1").await;
    change(&ground, "$e2", "$1").await;
    take_in(&ground, a, &["first", "second"]).await;
    let head = ground.ready(lane).await;
    let (store, edit) = (&ground.store, head.text_of.unwrap());
    let begun = store.begin_rewritten_attempt(head.id, edit, NOW);
    assert!(begun.await.unwrap());
    // While the attempt is under way, nothing changes.
    change(&ground, "$r1", "$e1").await;
    store.mark_answered(head.id).await.unwrap();
    change(&ground, "$r2", "$e2").await;
    assert_eq!(says(&ground, a).await, "$1");
}

#[tokio::test]
async fn what_failed_without_an_answer_may_be_there() {
    for (kind, shown) in [
        ("unknown", ShownText::Redacted),
        ("refused", ShownText::Earlier),
    ] {
        let ground = Ground::with_one_portal().await;
        let (a, lane) = (&ground.a, to_silo(&ground.a));
        ground.accept(vec![payload(&ground.room, "$1")]).await;
        ground.deliver(lane, "a1").await;
        change(&ground, "$e1", "$1").await;
        let edit = ground.ready(lane).await.entry;
        let (from, target) = (&ground.room, RemoteId::from("$1"));
        let latest = ground
            .store
            .advance_latest_edit(from, &target, &a.channel, edit);
        assert!(latest.await.unwrap());
        fail(&ground, a, kind).await;
        change(&ground, "$r1", "$e1").await;
        assert_eq!(redacted(&ground, a, "$e1").await.shown, shown);
    }
    // Nor does it keep the words of an older edit there.
    let ground = Ground::with_one_portal().await;
    let (a, lane) = (&ground.a, to_silo(&ground.a));
    ground.accept(vec![payload(&ground.room, "$1")]).await;
    ground.deliver(lane, "a1").await;
    change(&ground, "$e1", "$1").await;
    edits(&ground, a).await;
    change(&ground, "$e2", "$1").await;
    let (from, target) = (&ground.room, RemoteId::from("$1"));
    let edit = ground.ready(lane).await.entry;
    let latest = ground
        .store
        .advance_latest_edit(from, &target, &a.channel, edit);
    assert!(latest.await.unwrap());
    fail(&ground, a, "unknown").await;
    change(&ground, "$r1", "$e1").await;
    assert_eq!(redacted(&ground, a, "$e1").await.shown, ShownText::Redacted);
    // A message is not retried with another text: whoever drops repeats answers with what is there.
    for (kind, again) in [("unknown", None), ("refused", Some(b"$1".to_vec()))] {
        let ground = Ground::with_one_portal().await;
        ground.accept(vec![payload(&ground.room, "$1")]).await;
        change(&ground, "$e1", "$1").await;
        take_in(&ground, &ground.a, &["first"]).await;
        fail(&ground, &ground.a, kind).await;
        change(&ground, "$r1", "$e1").await;
        assert_eq!(kept(&ground).await, again, "{kind}");
    }
    // The same after a silence in a place that closed since.
    let ground = Ground::with_one_portal().await;
    let lane = to_silo(&ground.a);
    ground.accept(vec![payload(&ground.room, "$1")]).await;
    change(&ground, "$e1", "$1").await;
    take_in(&ground, &ground.a, &["first"]).await;
    let head = ground.ready(lane).await;
    ground.store.mark_unanswered(head.id, NOW).await.unwrap();
    let overdue = ground.store.park_overdue(lane, NOW, "it is closed", NOW);
    assert_eq!(overdue.await.unwrap(), 1);
    change(&ground, "$r1", "$e1").await;
    assert_eq!(kept(&ground).await, None);
}

#[tokio::test]
async fn an_edit_that_ended_after_its_redaction_is_the_latest_of_nothing() {
    let ground = Ground::with_one_portal().await;
    let (a, lane) = (&ground.a, to_silo(&ground.a));
    ground.accept(vec![payload(&ground.room, "$1")]).await;
    ground.deliver(lane, "a1").await;
    change(&ground, "$e1", "$1").await;
    change(&ground, "$e2", "$1").await;
    let (from, target) = (&ground.room, RemoteId::from("$1"));
    let older = ground.ready(lane).await;
    let dead = ground.store.lookahead(lane, older.id, 9, NOW);
    let dead = dead.await.unwrap()[1].clone();
    let advance = |entry| {
        ground
            .store
            .advance_latest_edit(from, &target, &a.channel, entry)
    };
    assert!(advance(dead.entry).await.unwrap());
    assert!(!advance(older.entry).await.unwrap());
    // It is redacted while an attempt is under way, which does not happen.
    let unknown = ground.store.mark_outcome_unknown(dead.id, None, NOW);
    unknown.await.unwrap();
    change(&ground, "$r2", "$e2").await;
    assert!(!advance(older.entry).await.unwrap());
    ground.store.mark_not_attempted(dead.id).await.unwrap();
    let ended = Undelivered::Skipped("edit-redacted".to_owned());
    let ended = ground.store.end_undelivered(dead.id, ended, NOW);
    ended.await.unwrap();
    assert!(advance(older.entry).await.unwrap());
}

#[tokio::test]
async fn the_text_of_an_edit_is_erased_where_its_message_is_done() {
    let ground = Ground::new().await;
    let (a, b) = (&ground.a, &ground.b);
    let sealed_for = |place: &footbridge_store::Place| {
        let sql = "SELECT count(*) FROM rewritten WHERE to_place = ?1 AND payload IS NOT NULL";
        let place = format!("{}:{}", place.network(), place.address());
        let count = ground.sql().query_row(sql, [place], |row| row.get(0));
        count.unwrap_or(-1)
    };
    ground.accept(vec![payload(&ground.room, "$1")]).await;
    change(&ground, "$e1", "$1").await;
    change(&ground, "$e2", "$1").await;
    take_in(&ground, a, &["first", "second"]).await;
    take_in(&ground, b, &["first", "second"]).await;
    assert_eq!((sealed_for(&a.channel), sealed_for(&b.channel)), (2, 2));
    ground.deliver(to_silo(a), "a1").await;
    assert_eq!((sealed_for(&a.channel), sealed_for(&b.channel)), (0, 2));
    // What can be retried is kept, and erased when it cannot be any more.
    fail(&ground, b, "refused").await;
    assert_eq!(sealed_for(&b.channel), 2);
    change(&ground, "$r1", "$e1").await;
    assert_eq!(sealed_for(&b.channel), 1);
    let gone = [b.id];
    let removed = ground.store.remove_portals(&gone, None, |_| None, NOW);
    removed.await.unwrap();
    assert_eq!(sealed_for(&b.channel), 0);
    // It stays known what the place got.
    let found = redacted(&ground, a, "$e1").await;
    assert_eq!(
        (found.shown, others(&found)),
        (ShownText::Later, vec!["$e2"])
    );
}
