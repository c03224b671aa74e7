//! P12, P13, B22: the Matrix side alone notices two copies of one store. The test of the whole program is in
//! `lifetime`.

use std::{path::Path, process::Command};

use super::*;

/// The SDK may still be writing a file while it is copied.
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

/// How listening ends on this copy of a store; `None` if it continues.
async fn listening_on(bridge: &TestBridge, data: &Path, room: &str) -> Option<MatrixError> {
    // The previous listener releases the store a moment later.
    let waited = timeout(LIMIT, async {
        loop {
            match Store::open(data, &bridge.key).await {
                Err(footbridge_store::Error::Locked { .. }) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                opened => return opened.unwrap(),
            }
        }
    });
    let store = waited.await.unwrap();
    let config = bridge.config.clone();
    let opened = Matrix::open(
        store.clone(),
        &bridge.key,
        config,
        Trust::CrossSigned,
        http(),
        bridge.clock,
    );
    let matrix = opened.await.unwrap();
    let inbox = Inbox::new(store, Signals::default(), bridge.clock);
    let stop = CancellationToken::new();
    let listening = matrix
        .device()
        .listen(vec![Place::room(room)], inbox, stop.clone());
    let ended = timeout(Duration::from_secs(8), listening).await;
    stop.cancel();
    ended.ok().map(|ended| ended.unwrap_err())
}

#[tokio::test(flavor = "multi_thread")]
async fn p13_an_old_copy_of_the_store_is_refused_and_sends_nothing() {
    let synapse = Synapse::shared().await.unwrap();
    let scene = Scene::new(synapse, true).await;
    let (mut bridge, room) = (scene.bridge, scene.room);
    bridge.rest().await;
    bridge.device().release_lease().await;
    bridge.matrix = None;
    let old = bridge.directory.path().join("old");
    copy(bridge.store.directory(), &old);
    // The lease epoch moves on; nothing else happens in this run.
    bridge.open(Trust::CrossSigned).await;
    bridge.listen(&room);
    bridge.post(&room, "alive", "alive").await.unwrap();
    bridge.rest().await;
    bridge.device().release_lease().await;
    bridge.matrix = None;
    let events = synapse.events(&room).await.unwrap().len();
    for _ in 0..2 {
        let refused = listening_on(&bridge, &old, &room).await;
        assert!(
            matches!(refused, Some(MatrixError::StaleStore(_))),
            "{refused:?}"
        );
    }
    assert_eq!(synapse.events(&room).await.unwrap().len(), events);
    // Without the lease record the copy would be as good as any other: nothing else refuses it.
    bridge.open(Trust::CrossSigned).await;
    bridge.listen(&room);
    bridge.post(&room, "again", "again").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn p12_a_copy_at_another_place_does_not_start_while_the_other_is_seen() {
    let synapse = Synapse::shared().await.unwrap();
    let scene = Scene::new(synapse, true).await;
    let (mut bridge, room) = (scene.bridge, scene.room);
    let copied = bridge.directory.path().join("copied");
    bridge.rest().await;
    bridge.matrix = None;
    copy(bridge.store.directory(), &copied);
    // The lease was not released: as far as the bridge can tell, the other copy runs.
    let refused = listening_on(&bridge, &copied, &room).await;
    let Some(MatrixError::StoreInUse(why)) = refused else {
        panic!("{refused:?}")
    };
    assert!(why.contains("was seen"), "{why}");
    // At its own path it starts at once, as after a kill.
    bridge.open(Trust::CrossSigned).await;
    bridge.listen(&room);
    bridge.post(&room, "mine", "mine").await.unwrap();
    bridge.rest().await;
    bridge.device().release_lease().await;
    bridge.matrix = None;
    // A store that was moved after a clean stop starts at once, and the copy that stayed behind is stale from then on.
    let moved = bridge.directory.path().join("moved");
    copy(bridge.store.directory(), &moved);
    let ended = listening_on(&bridge, &moved, &room).await;
    assert!(ended.is_none(), "{ended:?}");
    let old = bridge.store.directory().to_owned();
    drop(std::mem::replace(
        &mut bridge.store,
        Store::open(&moved, &bridge.key).await.unwrap(),
    ));
    let refused = listening_on(&bridge, &old, &room).await;
    assert!(
        matches!(refused, Some(MatrixError::StaleStore(_))),
        "{refused:?}"
    );
}
