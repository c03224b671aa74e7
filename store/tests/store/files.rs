//! Uploaded avatars and media links.

use footbridge_store::{EntryId, Millis};

use crate::support::{Fixture, NOW, payload, to_silo};

async fn entry(fixture: &Fixture, id: &str) -> EntryId {
    fixture.accept(vec![payload(&fixture.room, id)]).await;
    fixture.deliver(to_silo(&fixture.a), id).await.entry
}

#[tokio::test]
async fn a_picture_is_found_again_after_a_restart() {
    let fixture = Fixture::new().await;
    let keep = |payload: &'static [u8]| {
        fixture
            .store
            .save_uploaded_avatar("ann", payload.to_vec(), NOW)
    };
    keep(b"mxc://a").await.unwrap();
    keep(b"mxc://b").await.unwrap();
    let fixture = fixture.restart().await;
    let known = fixture.store.uploaded_avatar("ann").await.unwrap();
    assert_eq!(known.unwrap(), b"mxc://b");
    assert_eq!(fixture.store.uploaded_avatar("bob").await.unwrap(), None);
}

#[tokio::test]
async fn an_offer_lasts_until_it_expires_or_is_withdrawn() {
    let fixture = Fixture::new().await;
    let (one, two) = (entry(&fixture, "$1").await, entry(&fixture, "$2").await);
    let until = NOW.plus(std::time::Duration::from_mins(1));
    let offer = |entry, which: &'static str| {
        let payload = which.as_bytes().to_vec();
        fixture
            .store
            .create_media_link(entry, which, payload, until, NOW)
    };
    let (cat, dog) = (
        offer(one, "cat").await.unwrap(),
        offer(two, "dog").await.unwrap(),
    );
    assert_eq!(offer(one, "cat").await.unwrap(), cat, "once");
    let found = |token: String, now| {
        let store = fixture.store.clone();
        async move { store.resolve_media_link(&token, now).await.unwrap() }
    };
    assert_eq!(found(cat.clone(), NOW).await.unwrap(), b"cat");
    // Each token is valid for its own file only.
    let (row, _) = cat.split_once('-').unwrap();
    let (_, proof) = dog.split_once('-').unwrap();
    for bad in [
        format!("{row}-{proof}"),
        row.to_owned(),
        String::new(),
        "-".into(),
        "9-x".into(),
    ] {
        assert_eq!(found(bad, NOW).await, None);
    }
    // An edit removes one of two files.
    let mouse = offer(one, "mouse").await.unwrap();
    let is_gone = |payload: &[u8]| payload == b"mouse";
    fixture
        .store
        .revoke_media_links_where(one, is_gone)
        .await
        .unwrap();
    assert_eq!(found(mouse, NOW).await, None);
    assert_eq!(found(cat.clone(), NOW).await.unwrap(), b"cat");
    fixture.store.revoke_media_links(one).await.unwrap();
    assert_eq!(found(cat, NOW).await, None);
    assert!(found(dog.clone(), Millis(until.0 - 1)).await.is_some());
    assert_eq!(found(dog.clone(), until).await, None);
    // A link is not valid either when its room is no longer linked.
    let portals = fixture.store.portals().await.unwrap();
    let ids: Vec<_> = portals.iter().map(|portal| portal.id).collect();
    let removed = fixture
        .store
        .remove_portals(&ids, None, |_| None, NOW)
        .await;
    assert_eq!(removed.unwrap().portals, portals.len());
    assert_eq!(found(dog, NOW).await, None);
}
