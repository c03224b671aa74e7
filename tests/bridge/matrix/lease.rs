//! P12, P13, B22: two copies of one store are noticed, by the Matrix side alone. The whole program is in `lifetime`.

use std::{path::Path, process::Command};

use super::*;

/// A file of the SDK's may still be on its way out while it is copied.
fn copy(from: &Path, to: &Path) {
    let copied = (0..20).any(|_| {
        let copied = Command::new("cp").arg("-a").args([from, to]).status();
        let whole = copied.unwrap().success();
        if !whole {
            std::fs::remove_dir_all(to).unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
        whole
    });
    assert!(copied, "{} cannot be copied", from.display());
}

/// How listening ends on this copy of a store; `None` if it goes on.
async fn listening_on(house: &House, data: &Path, room: &str) -> Option<MatrixError> {
    // What listened before lets go of it a moment later.
    let waited = timeout(LIMIT, async {
        loop {
            match Store::open(data, &house.key).await {
                Err(footbridge_store::Error::Locked { .. }) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                opened => return opened.unwrap(),
            }
        }
    });
    let store = waited.await.unwrap();
    let config = house.config.clone();
    let opened = Matrix::open(
        store.clone(),
        &house.key,
        config,
        Trust::CrossSigned,
        http(),
        house.clock,
    );
    let matrix = opened.await.unwrap();
    let inbox = Inbox::new(store, Signals::default(), house.clock);
    let stop = CancellationToken::new();
    let listening = matrix.listen(vec![Place::room(room)], inbox, stop.clone());
    let ended = timeout(Duration::from_secs(8), listening).await;
    stop.cancel();
    ended.ok().map(|ended| ended.unwrap_err())
}

#[tokio::test(flavor = "multi_thread")]
async fn p13_an_old_copy_of_the_store_is_refused_and_sends_nothing() {
    let synapse = Synapse::shared().await.unwrap();
    let scene = Scene::new(synapse, true).await;
    let (mut house, room) = (scene.house, scene.room);
    house.rest().await;
    house.matrix().release_lease().await;
    house.matrix = None;
    let old = house.directory.path().join("old");
    copy(house.store.directory(), &old);
    // Nothing happens in this life: only that it was one.
    house.open(Trust::CrossSigned).await;
    house.listen(&room);
    house.post(&room, "alive", "alive").await.unwrap();
    house.rest().await;
    house.matrix().release_lease().await;
    house.matrix = None;
    let events = synapse.events(&room).await.unwrap().len();
    for _ in 0..2 {
        let refused = listening_on(&house, &old, &room).await;
        assert!(
            matches!(refused, Some(MatrixError::StaleStore(_))),
            "{refused:?}"
        );
    }
    assert_eq!(synapse.events(&room).await.unwrap().len(), events);
    // Without the record it would be as good as any other: the refusal comes from there and nowhere else.
    house.open(Trust::CrossSigned).await;
    house.listen(&room);
    house.post(&room, "again", "again").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn p12_a_copy_at_another_place_does_not_start_while_the_other_is_seen() {
    let synapse = Synapse::shared().await.unwrap();
    let scene = Scene::new(synapse, true).await;
    let (mut house, room) = (scene.house, scene.room);
    let copied = house.directory.path().join("copied");
    house.rest().await;
    house.matrix = None;
    copy(house.store.directory(), &copied);
    // Not given back: as far as anybody knows the other one lives.
    let refused = listening_on(&house, &copied, &room).await;
    let Some(MatrixError::StoreInUse(why)) = refused else {
        panic!("{refused:?}")
    };
    assert!(why.contains("was seen"), "{why}");
    // At its own place it goes on at once, as after a kill.
    house.open(Trust::CrossSigned).await;
    house.listen(&room);
    house.post(&room, "mine", "mine").await.unwrap();
    house.rest().await;
    house.matrix().release_lease().await;
    house.matrix = None;
    // Moved after a clean stop it starts at once, and what stayed behind is old from then on.
    let moved = house.directory.path().join("moved");
    copy(house.store.directory(), &moved);
    let ended = listening_on(&house, &moved, &room).await;
    assert!(ended.is_none(), "{ended:?}");
    let old = house.store.directory().to_owned();
    drop(std::mem::replace(
        &mut house.store,
        Store::open(&moved, &house.key).await.unwrap(),
    ));
    let refused = listening_on(&house, &old, &room).await;
    assert!(
        matches!(refused, Some(MatrixError::StaleStore(_))),
        "{refused:?}"
    );
}
