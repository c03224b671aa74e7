//! What is kept of files: where pictures lie, and which files are offered by a link.

use footbridge_store::{EntryId, Millis};

use crate::ground::{Ground, NOW, letter, to_silo};

async fn entry(ground: &Ground, id: &str) -> EntryId {
    ground.accept(vec![letter(&ground.room, id)]).await;
    ground.deliver(to_silo(&ground.a), id).await.entry
}

#[tokio::test]
async fn a_picture_is_found_again_after_a_restart() {
    let ground = Ground::new().await;
    let keep = |letter: &'static [u8]| ground.store.keep_picture("ann", letter.to_vec(), NOW);
    keep(b"mxc://a").await.unwrap();
    keep(b"mxc://b").await.unwrap();
    let ground = ground.restart().await;
    let known = ground.store.picture("ann").await.unwrap();
    assert_eq!(known.unwrap(), b"mxc://b");
    assert_eq!(ground.store.picture("bob").await.unwrap(), None);
}

#[tokio::test]
async fn an_offer_lasts_until_it_expires_or_is_withdrawn() {
    let ground = Ground::new().await;
    let (one, two) = (entry(&ground, "$1").await, entry(&ground, "$2").await);
    let until = NOW.plus(std::time::Duration::from_mins(1));
    let offer = |entry, which: &'static str| {
        let letter = which.as_bytes().to_vec();
        ground.store.offer(entry, which, letter, until, NOW)
    };
    let (cat, dog) = (
        offer(one, "cat").await.unwrap(),
        offer(two, "dog").await.unwrap(),
    );
    assert_eq!(offer(one, "cat").await.unwrap(), cat, "once");
    let found = |token: String, now| {
        let store = ground.store.clone();
        async move { store.offered(&token, now).await.unwrap() }
    };
    assert_eq!(found(cat.clone(), NOW).await.unwrap(), b"cat");
    // What one token proves, no other does.
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
    // An edit takes one of two away.
    let mouse = offer(one, "mouse").await.unwrap();
    let is_gone = |letter: &[u8]| letter == b"mouse";
    ground.store.withdraw_where(one, is_gone).await.unwrap();
    assert_eq!(found(mouse, NOW).await, None);
    assert_eq!(found(cat.clone(), NOW).await.unwrap(), b"cat");
    ground.store.withdraw(one).await.unwrap();
    assert_eq!(found(cat, NOW).await, None);
    assert!(found(dog.clone(), Millis(until.0 - 1)).await.is_some());
    assert_eq!(found(dog.clone(), until).await, None);
    // Nor does it lead anywhere when its room is joined to nothing any more.
    let portals = ground.store.portals().await.unwrap();
    let ids: Vec<_> = portals.iter().map(|portal| portal.id).collect();
    let removed = ground.store.remove_portals(&ids, None, |_| None, NOW).await;
    assert_eq!(removed.unwrap().portals, portals.len());
    assert_eq!(found(dog, NOW).await, None);
}
