//! A disk that is full again and again, at random moments (F21):
//! `cargo run -p footbridge-store --example full [ROUNDS]`. Linux only: it mounts a small tmpfs in a namespace of
//! its own, so it needs no rights.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use footbridge_store::{
    Arrival, Batch, Copy, LaneId, Millis, Payload, Place, PortalSpec, QueueHead, RemoteId, Side,
    Store, StoreKey,
};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

const NOW: Millis = Millis(0);
const INSIDE: &str = "FOOTBRIDGE_FULL_DISK";

fn main() -> Fallible<()> {
    if let Some(disk) = std::env::var_os(INSIDE) {
        return tokio::runtime::Runtime::new()?.block_on(play(&PathBuf::from(disk)));
    }
    let disk = std::env::temp_dir().join(format!("footbridge-full-{}", std::process::id()));
    fs::create_dir(&disk)?;
    let mount = "mount -t tmpfs -o size=4m tmpfs \"$0\" && exec \"$@\"";
    let ended = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", mount])
        .arg(&disk)
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, &disk)
        .status();
    fs::remove_dir(&disk)?;
    if ended?.success() {
        return Ok(());
    }
    Err("it did not go well".into())
}

async fn play(disk: &Path) -> Fallible<()> {
    let rounds: usize = std::env::args()
        .nth(1)
        .map_or(Ok(50), |text| text.parse())?;
    let key = StoreKey::read_or_create(&disk.join("key"))?;
    let store = Store::open(&disk.join("data"), &key).await?;
    let (room, channel) = (Place::room("!room"), Place::new("gitter", "channel"));
    let spec = PortalSpec {
        room: "#room".to_owned(),
        silo: "gitter".to_owned(),
        channel: "channel".to_owned(),
    };
    let portal = store.open_portal(&spec, &room, &channel, NOW).await?;
    let lane = LaneId {
        portal: portal.id,
        toward: Side::Silo,
    };
    let (mut said, mut heard, mut times_full) = (0_usize, Vec::new(), 0);
    for _ in 0..rounds {
        let filling = fill_and_free(disk.join("ballast"), store.clone());
        let talking = async {
            for _ in 0..20 {
                accept(&store, &room, said).await?;
                said += 1;
                heard.extend(deliver(&store, lane, heard.len()).await?);
            }
            Fallible::Ok(())
        };
        let (full, talked) = tokio::join!(filling, talking);
        talked?;
        times_full += usize::from(full?);
    }
    drop(store);
    let store = Store::open(&disk.join("data"), &key).await?;
    let lost = (0..said).filter(|number| !heard.contains(number)).count();
    let doubled = heard.len() - (said - lost);
    let reordered = heard
        .windows(2)
        .filter(|pair| pair.first() > pair.last())
        .count();
    let counters = store.lane_counters().await?;
    let counters = counters
        .iter()
        .find(|counters| counters.lane == lane)
        .ok_or("no tally")?;
    let balanced = counters.accepted == counters.delivered && counters.delivered == said as u64;
    writeln!(
        std::io::stdout(),
        "F21  rounds {rounds}, times full {times_full}, messages {said}, lost {lost}, doubled {doubled}, reordered \
         {reordered}, counters {}",
        if balanced { "agree" } else { "DISAGREE" }
    )?;
    if lost + doubled + reordered == 0 && balanced {
        return Ok(());
    }
    Err("something is wrong".into())
}

/// Takes all the space after a random while, and gives it back a random while after the store noticed. Answers
/// whether it did.
async fn fill_and_free(ballast: PathBuf, store: Store) -> Fallible<bool> {
    tokio::time::sleep(Duration::from_micros(rand::random_range(0..20_000))).await;
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&ballast)?;
    for size in [65_536, 4_096, 1] {
        while file.write(&vec![0; size]).is_ok() {}
    }
    let mut noticed = false;
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if store.transient_error().is_some() {
            noticed = true;
            break;
        }
    }
    tokio::time::sleep(Duration::from_micros(rand::random_range(0..20_000))).await;
    fs::remove_file(&ballast)?;
    Ok(noticed)
}

async fn accept(store: &Store, room: &Place, number: usize) -> Fallible<()> {
    let id = RemoteId(format!("${number}"));
    let arrival = Arrival {
        place: room.clone(),
        event_id: id.clone(),
        message: Some(id),
        thread: None,
        sent_at: NOW,
        payload: Payload::Ready(format!("{number} {}", "x".repeat(20_000)).into_bytes()),
    };
    let batch = Batch {
        arrivals: vec![arrival],
        ..Batch::default()
    };
    store.accept(batch, NOW).await?;
    Ok(())
}

async fn deliver(store: &Store, lane: LaneId, number: usize) -> Fallible<Option<usize>> {
    let QueueHead::Ready(delivery) = store.queue_head(lane, NOW).await? else {
        return Ok(None);
    };
    let text = String::from_utf8(delivery.payload.clone())?;
    let heard = text.split(' ').next().unwrap_or_default().parse()?;
    let copy = Copy {
        remote: RemoteId(format!("g{number}")),
        thread: None,
        sent_at: NOW,
        file: None,
    };
    store
        .complete_step(delivery.id, Some(&copy), None, true, NOW)
        .await?;
    Ok(Some(heard))
}
