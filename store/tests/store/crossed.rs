//! Which texts of a message have gone where: only those are restored when an edit is redacted.

use footbridge_store::{
    Batch, Change, Payload, PortalId, RemoteId, Rewritten, TakenBack, Tell, Undelivered,
};

use crate::ground::{Ground, NOW, arrival, letter, portal, to_silo};

/// The room says this of `$1`, or redacts that.
async fn change(ground: &Ground, fact: &str, target: &str) {
    let said = Payload::Ready(fact.as_bytes().to_vec());
    let change = Change {
        place: ground.room.clone(),
        fact: fact.into(),
        target: Some(target.into()),
        takes_back: target != "$1",
        stays: false,
    };
    let arrival = footbridge_store::Arrival {
        message: None,
        ..arrival(&ground.room, fact, said)
    };
    let batch = Batch {
        arrivals: vec![arrival],
        changes: vec![change],
        ..Batch::default()
    };
    ground.store.accept(batch, NOW).await.unwrap();
}

/// The message of the room that a portal owes goes, and with it the edit behind it.
async fn go_together(ground: &Ground, portal: &footbridge_store::Portal) {
    let head = ground.ready(to_silo(portal)).await;
    let behind = ground.store.changes_behind(head.id).await.unwrap();
    let rewritten = Rewritten {
        message: head.id,
        edits: vec![behind[0].0],
        letter: b"as it reads".to_vec(),
    };
    let included = vec![(behind[0].0, "edit-included".to_owned())];
    assert!(ground.store.include(rewritten, included).await.unwrap());
    let remote = format!("{} of {}", head.id, portal.id);
    ground.deliver(to_silo(portal), &remote).await;
}

/// The edit that a portal owes goes.
async fn edits(ground: &Ground, portal: &footbridge_store::Portal) {
    let head = ground.ready(to_silo(portal)).await;
    let fact = RemoteId(String::from_utf8(head.payload.clone()).unwrap());
    let (from, to, target) = (&ground.room, &portal.channel, RemoteId::from("$1"));
    let latest = ground.store.is_latest_edit(from, &target, to, head.entry);
    assert!(latest.await.unwrap(), "{fact:?}");
    let done = ground.store.step_done(head.id, None, None, true, NOW);
    assert!(done.await.unwrap());
}

/// What the redaction that a portal owes means.
async fn redacted(ground: &Ground, portal: &footbridge_store::Portal, edit: &str) -> TakenBack {
    let by = ground.ready(to_silo(portal)).await;
    let edit = RemoteId::from(edit);
    let found = ground
        .store
        .taken_back((&ground.room, &edit), &portal.channel, by.entry);
    found.await.unwrap().unwrap()
}

fn others(found: &TakenBack) -> Vec<&str> {
    found.others.iter().map(|edit| edit.fact.as_str()).collect()
}

#[tokio::test]
async fn a_text_that_was_edited_while_it_waited_has_crossed_nowhere() {
    let ground = Ground::new().await;
    let (a, b) = (&ground.a, &ground.b);
    ground.accept(vec![letter(&ground.room, "$1")]).await;
    change(&ground, "$e1", "$1").await;
    go_together(&ground, a).await;
    // The letter is the same for both: the other one sends what it says, and then the edit.
    ground.deliver(to_silo(b), "b1").await;
    edits(&ground, b).await;
    change(&ground, "$e2", "$1").await;
    edits(&ground, a).await;
    edits(&ground, b).await;
    change(&ground, "$r2", "$e2").await;
    for portal in [a, b] {
        let found = redacted(&ground, portal, "$e2").await;
        assert_eq!((others(&found), found.own), (vec!["$e1"], false));
    }
}

#[tokio::test]
async fn what_failed_in_part_or_went_before_its_letter_was_rewritten_counts_as_not_crossed() {
    let ground = Ground::new().await;
    let (a, b) = (&ground.a, &ground.b);
    ground.accept(vec![letter(&ground.room, "$1")]).await;
    let head = ground.ready(to_silo(a)).await;
    let first = crate::ground::copy("a1");
    let done = ground
        .store
        .step_done(head.id, Some(&first), None, false, NOW);
    assert!(done.await.unwrap());
    let how = Undelivered::Failed {
        kind: "refused",
        reason: "its second part is too rude".to_owned(),
        about: None,
        tell: Tell::Sender,
    };
    ground.store.undelivered(head.id, how, NOW).await.unwrap();
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
    ground.accept(vec![letter(&ground.room, "$1")]).await;
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
