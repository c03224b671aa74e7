//! Links to files where a silo takes none, through the program itself: the gateway serves what Ann sent to everybody
//! with the link, until the message is redacted.

use std::path::PathBuf;

use footbridge_simulators::gitter;
use footbridge_testbed::{
    multi_silo::{MultiSiloOptions, MultiSiloScenario},
    ports::free_port,
    synapse::Synapse,
};
use reqwest::Response;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A scenario whose bridge has a media gateway, and the gateway's address.
async fn scene(in_clear: bool, portal_options: &str) -> (MultiSiloScenario, String) {
    let listen = format!("127.0.0.1:{}", free_port().unwrap());
    let plan = MultiSiloOptions {
        in_clear,
        portal_options: portal_options.to_owned(),
        media_options: format!(
            "public_url = \"http://{listen}/media\"\ngateway_listen = \"{listen}\""
        ),
        ..MultiSiloOptions::of_one(
            PathBuf::from(env!("CARGO_BIN_EXE_footbridge")),
            &gitter::SIMULATOR,
        )
    };
    let scene = MultiSiloScenario::build(Synapse::shared().await.unwrap(), plan).await;
    (scene.unwrap(), listen)
}

/// Ann sends a file; the message about it in the channel.
async fn sent(
    scene: &MultiSiloScenario,
    (name, mime): (&str, &str),
    bytes: &[u8],
) -> (String, String) {
    let file = scene
        .ann
        .send_file(&scene.rooms[0], (name, mime), bytes.to_vec(), None);
    let event = file.await.unwrap();
    let told = || {
        scene.sites[0]
            .bridge_texts()
            .into_iter()
            .find(|said| said.contains(name))
    };
    scene.wait(name, || told().is_some()).await.unwrap();
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
async fn a_link_serves_the_file_until_its_message_is_deleted() {
    let (scene, listen) = scene(false, "file_links = \"always\"").await;
    let picture: Vec<u8> = (0..300_001_u32)
        .map(|at| (at * 31 % 251).to_le_bytes()[0])
        .collect();
    let (event, said) = sent(&scene, ("cat.png", "image/png"), &picture).await;
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
    assert!(
        found.bytes().await.unwrap() == picture,
        "every byte is the same"
    );
    // A page is offered as a download, and not displayed where it could run scripts.
    let (_, said) = sent(
        &scene,
        ("page.html", "text/html"),
        b"<script>alert(1)</script>",
    )
    .await;
    let found = get(link(&said).unwrap()).await;
    assert_eq!(header(&found, "content-type"), "application/octet-stream");
    assert_eq!(header(&found, "content-disposition"), "attachment");
    assert_eq!(header(&found, "x-content-type-options"), "nosniff");
    assert!(header(&found, "content-security-policy").contains("sandbox"));
    // Nobody can guess a link, and the gateway reveals nothing else.
    for bad in [
        url.replace("/media/1-", "/media/2-"),
        url.replace('-', "-0"),
        format!("http://{listen}/"),
    ] {
        assert_eq!(get(&bad).await.status(), 404, "{bad}");
    }
    // The link survives a restart, but not its message.
    scene.bridge.kill().await.unwrap();
    scene.bridge.start().await.unwrap();
    assert_eq!(get(url).await.status(), 200);
    scene.ann.redact(&scene.rooms[0], &event).await.unwrap();
    let gone = || {
        !scene.sites[0]
            .bridge_texts()
            .iter()
            .any(|said| said.contains("cat.png"))
    };
    scene.wait("the deletion", gone).await.unwrap();
    assert_eq!(get(url).await.status(), 404);
}

#[tokio::test]
async fn what_an_encrypted_room_sends_has_a_link_only_where_the_portal_says_so() {
    let (open, _) = scene(true, "").await;
    let (_, said) = sent(&open, ("cat.png", "image/png"), b"a cat").await;
    assert_eq!(
        get(link(&said).unwrap()).await.bytes().await.unwrap(),
        "a cat"
    );
    let (encrypted, _) = scene(false, "").await;
    let (_, said) = sent(&encrypted, ("cat.png", "image/png"), b"a cat").await;
    assert_eq!(link(&said), None, "{said}");
}

/// The number of file descriptors that the bridge has open.
fn descriptors(scene: &MultiSiloScenario) -> usize {
    let pid = scene.bridge.pid().unwrap();
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count()
}

/// Opens connections that send an incomplete request.
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
    let (scene, listen) = scene(true, "").await;
    let before = descriptors(&scene);
    let silent = half_open(&listen, 150).await;
    let admin = scene.bridge.admin_url();
    let admin_address = admin.strip_prefix("http://").unwrap().trim_end_matches('/');
    let at_admin = half_open(admin_address, 40).await;
    let held = descriptors(&scene);
    assert!(held <= before + 64 + 32 + 10, "{before} became {held}");
    // After all of them, a complete request is still answered.
    assert_eq!(get(&format!("http://{listen}/x")).await.status(), 404);
    assert_eq!(get(&format!("{admin}/health/live")).await.status(), 200);
    for mut socket in silent.into_iter().chain(at_admin) {
        let mut rest = Vec::new();
        drop(socket.read_to_end(&mut rest).await);
        assert!(!rest.starts_with(b"HTTP/1.1 2"));
    }
    let few = || descriptors(&scene) <= before + 10;
    scene
        .wait("the descriptors are free again", few)
        .await
        .unwrap();
}
