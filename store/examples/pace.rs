//! How long commits take on this disk: `cargo run --release -p footbridge-store --example pace [DIRECTORY]`.

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use footbridge_store::{
    Arrival, Batch, Copy, Error, LaneId, Millis, Payload, Place, PortalSpec, QueueHead, RemoteId,
    Side, Store, StoreKey,
};

const MESSAGES: usize = 1_000;
const NOW: Millis = Millis(0);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let home = match std::env::args_os().nth(1) {
        Some(directory) => PathBuf::from(directory),
        None => std::env::temp_dir().join(format!("footbridge-pace-{}", std::process::id())),
    };
    std::fs::create_dir(&home)?;
    let key = StoreKey::read_or_create(&home.join("key"))?;
    let store = Store::open(&home.join("data"), &key).await?;
    let room = Place::room("!room");
    let channel = Place::new("gitter", "channel");
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
    let accepting = time(async |n| accept(&store, &room, n).await).await?;
    let delivering = time(async |n| deliver(&store, lane, n).await).await?;
    let walk = time(async |n| {
        accept(&store, &room, MESSAGES + n).await?;
        deliver(&store, lane, MESSAGES + n).await
    })
    .await?;
    drop(store);
    let mut out = std::io::stdout();
    writeln!(out, "milliseconds       p50     p95     p99     max")?;
    show(&mut out, "accept", &accepting)?;
    show(&mut out, "head+complete_step", &delivering)?;
    show(&mut out, "all three", &walk)?;
    clear(&home)?;
    Ok(())
}

async fn accept(store: &Store, room: &Place, n: usize) -> Result<(), Error> {
    let arrival = Arrival {
        place: room.clone(),
        event_id: RemoteId(format!("${n}")),
        message: Some(RemoteId(format!("${n}"))),
        thread: None,
        sent_at: NOW,
        payload: Payload::Ready(vec![b'x'; 500]),
    };
    let batch = Batch {
        arrivals: vec![arrival],
        cursors: vec![("sync".to_owned(), n.to_string())],
        ..Batch::default()
    };
    store.accept(batch, NOW).await.map(drop)
}

async fn deliver(store: &Store, lane: LaneId, n: usize) -> Result<(), Error> {
    if let QueueHead::Ready(delivery) = store.queue_head(lane, NOW).await? {
        let made = Copy {
            remote: RemoteId(format!("m{n}")),
            thread: None,
            sent_at: NOW,
            file: None,
        };
        store
            .complete_step(delivery.id, Some(&made), None, true, NOW)
            .await?;
    }
    Ok(())
}

async fn time(
    mut work: impl AsyncFnMut(usize) -> Result<(), Error>,
) -> Result<Vec<Duration>, Error> {
    let mut times = Vec::with_capacity(MESSAGES);
    for n in 0..MESSAGES {
        let start = Instant::now();
        work(n).await?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

fn show(out: &mut impl Write, name: &str, times: &[Duration]) -> std::io::Result<()> {
    write!(out, "{name:14}")?;
    for percent in [50, 95, 99, 100] {
        let at = (times.len() * percent / 100).saturating_sub(1);
        let time = times.get(at).copied().unwrap_or_default();
        write!(out, "{:8.2}", time.as_secs_f64() * 1_000.0)?;
    }
    writeln!(out)
}

fn clear(home: &Path) -> std::io::Result<()> {
    std::fs::remove_dir_all(home)
}
