//! Links to files where a silo takes none, through the program itself: the gateway serves what Ann sent, to whoever has the
//! link, until the message is taken back.

use std::path::PathBuf;

use footbridge_testbed::{
    multi_silo::{MultiSiloOptions, MultiSiloScenario, SimulatorKind},
    ports::free_port,
    synapse::Synapse,
};
use reqwest::Response;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A town whose bridge has a gateway, and where that listens.
async fn town(in_clear: bool, portal_options: &str) -> (MultiSiloScenario, String) {
    let listen = format!("127.0.0.1:{}", free_port().unwrap());
    let plan = MultiSiloOptions {
        in_clear,
        portal_options: portal_options.to_owned(),
        media_options: format!(
            "public_url = \"http://{listen}/media\"\ngateway_listen = \"{listen}\""
        ),
        ..MultiSiloOptions::of_one(
            PathBuf::from(env!("CARGO_BIN_EXE_footbridge")),
            SimulatorKind::Gitter,
        )
    };
    let town = MultiSiloScenario::build(Synapse::shared().await.unwrap(), plan).await;
    (town.unwrap(), listen)
}

/// What the channel is told of a file that Ann sends, once it is.
async fn sent(
    town: &MultiSiloScenario,
    (name, mime): (&str, &str),
    bytes: &[u8],
) -> (String, String) {
    let file = town
        .ann
        .send_file(&town.rooms[0], (name, mime), bytes.to_vec(), None);
    let event = file.await.unwrap();
    let told = || {
        town.sites[0]
            .read()
            .into_iter()
            .find(|said| said.contains(name))
    };
    town.wait(name, || told().is_some()).await.unwrap();
    (event, told().unwrap())
}

/// The link in a message.
fn link(said: &str) -> Option<&str> {
    said.split(['(', ')'])
        .find(|part| part.starts_with("http://"))
}

async fn get(url: &str) -> Response {
    reqwest::get(url).await.unwrap()
}

fn header(response: &Response, name: &str) -> String {
    let value = response.headers().get(name);
    value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_link_leads_to_the_file_until_its_message_is_taken_back() {
    let (town, listen) = town(false, "file_links = \"always\"").await;
    let picture: Vec<u8> = (0..300_001_u32)
        .map(|at| (at * 31 % 251).to_le_bytes()[0])
        .collect();
    let (event, said) = sent(&town, ("cat.png", "image/png"), &picture).await;
    let url = link(&said).unwrap();
    assert!(
        url.starts_with(&format!("http://{listen}/media/")) && url.ends_with("/cat.png"),
        "{said}"
    );
    let found = get(url).await;
    assert_eq!(
        (found.status().as_u16(), header(&found, "content-type")),
        (200, "image/png".to_owned())
    );
    assert_eq!(header(&found, "content-length"), "300001");
    assert_eq!(header(&found, "content-disposition"), "inline");
    assert!(found.bytes().await.unwrap() == picture, "byte by byte");
    // A page is saved, and not shown where it could act.
    let (_, said) = sent(
        &town,
        ("page.html", "text/html"),
        b"<script>alert(1)</script>",
    )
    .await;
    let found = get(link(&said).unwrap()).await;
    assert_eq!(header(&found, "content-type"), "application/octet-stream");
    assert_eq!(header(&found, "content-disposition"), "attachment");
    assert_eq!(header(&found, "x-content-type-options"), "nosniff");
    assert!(header(&found, "content-security-policy").contains("sandbox"));
    // Nobody makes up a link, and nobody learns anything else there.
    for bad in [
        url.replace("/media/1-", "/media/2-"),
        url.replace('-', "-0"),
        format!("http://{listen}/"),
    ] {
        assert_eq!(get(&bad).await.status(), 404, "{bad}");
    }
    // It outlives a restart, and not its message.
    town.bridge.kill().await.unwrap();
    town.bridge.start().await.unwrap();
    assert_eq!(get(url).await.status(), 200);
    town.ann.redact(&town.rooms[0], &event).await.unwrap();
    let gone = || {
        !town.sites[0]
            .read()
            .iter()
            .any(|said| said.contains("cat.png"))
    };
    town.wait("the deletion", gone).await.unwrap();
    assert_eq!(get(url).await.status(), 404);
}

#[tokio::test]
async fn what_an_encrypted_room_sends_has_a_link_only_where_the_portal_says_so() {
    let (open, _) = town(true, "").await;
    let (_, said) = sent(&open, ("cat.png", "image/png"), b"a cat").await;
    assert_eq!(
        get(link(&said).unwrap()).await.bytes().await.unwrap(),
        "a cat"
    );
    let (encrypted, _) = town(false, "").await;
    let (_, said) = sent(&encrypted, ("cat.png", "image/png"), b"a cat").await;
    assert_eq!(link(&said), None, "{said}");
}

/// How many descriptors the bridge holds.
fn descriptors(town: &MultiSiloScenario) -> usize {
    let pid = town.bridge.pid().unwrap();
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count()
}

/// Connections that are opened and say nothing whole.
async fn half_open(address: &str, count: usize) -> Vec<TcpStream> {
    let mut silent = Vec::new();
    for _ in 0..count {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n")
            .await
            .unwrap();
        silent.push(socket);
    }
    silent
}

#[tokio::test]
async fn b17_half_open_requests_hold_few_descriptors_and_not_for_long() {
    let (town, listen) = town(true, "").await;
    let before = descriptors(&town);
    let silent = half_open(&listen, 150).await;
    let admin = town.bridge.admin_url();
    let door = admin.strip_prefix("http://").unwrap().trim_end_matches('/');
    let at_admin = half_open(door, 40).await;
    let held = descriptors(&town);
    assert!(held <= before + 64 + 32 + 10, "{before} became {held}");
    // Behind all of them somebody comes who asks.
    assert_eq!(get(&format!("http://{listen}/x")).await.status(), 404);
    assert_eq!(get(&format!("{admin}/health/live")).await.status(), 200);
    for mut socket in silent.into_iter().chain(at_admin) {
        let mut rest = Vec::new();
        drop(socket.read_to_end(&mut rest).await);
        assert!(!rest.starts_with(b"HTTP/1.1 2"));
    }
    let few = || descriptors(&town) <= before + 10;
    town.wait("the descriptors are free again", few)
        .await
        .unwrap();
}
