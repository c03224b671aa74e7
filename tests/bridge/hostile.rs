//! The defences against a malicious homeserver, at the smallest useful size; the tool `faults` runs F37 and F38 at any
//! size. Also: that the features and settings of the SDK are as required, and that events are sent in one place only.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;

use super::faults::passes;

#[tokio::test]
async fn f37_keys_never_reach_former_members_or_unsigned_devices() {
    passes("F37").await;
}

#[tokio::test]
async fn f38_nothing_forged_by_a_homeserver_is_relayed_and_nothing_is_sent_unencrypted() {
    passes("F38").await;
}

/// The features with which this package is built here.
fn features_of(metadata: &Value, package: &str) -> BTreeSet<String> {
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let node = nodes
        .iter()
        .find(|node| {
            node["id"]
                .as_str()
                .unwrap()
                .contains(&format!("/{package}@"))
        })
        .or_else(|| {
            nodes.iter().find(|node| {
                node["id"]
                    .as_str()
                    .unwrap()
                    .contains(&format!("#{package}@"))
            })
        });
    let node = node.unwrap_or_else(|| panic!("{package} is not built"));
    let features = node["features"].as_array().unwrap().iter();
    features
        .map(|feature| feature.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn p03_no_feature_of_the_sdk_shares_or_accepts_keys_behind_our_back() {
    // Packages for other platforms were never fetched.
    let version = Command::new("rustc").arg("-vV").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", host.unwrap()])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    for package in ["matrix-sdk", "matrix-sdk-base", "matrix-sdk-crypto"] {
        let features = features_of(&metadata, package);
        for forbidden in [
            "automatic-room-key-forwarding",
            "experimental-send-custom-to-device",
            "experimental-push-secrets",
            "experimental-encrypted-state-events",
            "experimental-algorithms",
            "_disable-minimum-rotation-period-ms",
            "testing",
            "uniffi",
            "sso-login",
        ] {
            assert!(!features.contains(forbidden), "{package} has {forbidden}");
        }
    }
    let features = features_of(&metadata, "matrix-sdk");
    assert!(features.contains("e2e-encryption"));
    assert!(!features.contains("default"), "{features:?}");
}

/// The code of `src/matrix` without comments, tests and the testbed's clients.
fn matrix_side() -> Vec<(String, String)> {
    fn walk(below: &Path, into: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(below).unwrap() {
            let path = entry.unwrap().path();
            let name = path.to_string_lossy().into_owned();
            if name.ends_with("_tests.rs") {
                continue;
            }
            if path.is_dir() {
                walk(&path, into);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let lines = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            // Calls may span several lines; names do not.
            into.push((name, lines.map(str::trim).collect()));
        }
    }
    let mut found = Vec::new();
    walk(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src/matrix"),
        &mut found,
    );
    assert!(found.len() > 20);
    found
}

#[test]
fn p03_p04_there_is_one_way_out_and_no_way_in_for_keys() {
    let never = [
        ".send_queue(",
        ".event_cache(",
        ".send_attachment(",
        ".send_state_event",
        ".upload(",
        ".upload_encrypted_file(",
        ".room_send_queue",
        ".import_room_keys(",
        ".export_room_keys(",
        ".download_room_keys",
        ".share_history(",
        ".add_event_handler(",
    ];
    let mut ways_out = Vec::new();
    for (file, code) in matrix_side() {
        for call in never {
            assert!(!code.contains(call), "{file} calls {call}");
        }
        for _ in 0..code.matches(".send_raw(").count() {
            ways_out.push(file.clone());
        }
        // Events are sent by `send_raw`; `Client::send` takes requests of other kinds. The one exception is an event
        // that is encrypted already.
        assert!(!code.contains("create_content"), "{file} uploads");
        let events = code.matches("send_message_event::").count();
        if file.ends_with("matrix/encrypted_send.rs") {
            assert_eq!(events, 1);
            let (before, _) = code.split_once("send_message_event::").unwrap();
            let sealing =
                "let encrypted = session.encrypt(\"m.room.message\", &content).await.content;";
            assert!(before.contains(sealing), "{before}");
            let kind = "MessageLikeEventType::RoomEncrypted,encrypted.cast_unchecked(),";
            assert!(code.contains(kind), "{code}");
        } else {
            assert_eq!(events, 0, "{file} sends an event");
        }
        // The one exception is the marker of a portal in the state of its room, which only plaintext rooms get.
        let marks = code.matches("send_state_event::").count();
        if file.ends_with("matrix/room_state.rs") {
            assert_eq!(marks, 1);
            let (before, _) = code.split_once("send_state_event::").unwrap();
            let marking = before.rsplit_once("async fn put_plaintext(").unwrap().1;
            for guard in [
                "if self.flags.was_encrypted(room).await? {return Ok(false);}",
                "if encryption.await?.is_some() {return Ok(false);}",
            ] {
                assert!(marking.contains(guard), "{marking}");
            }
        } else {
            assert_eq!(marks, 0, "{file} writes state");
        }
    }
    let [only] = &ways_out[..] else {
        panic!("{ways_out:?}")
    };
    assert!(only.ends_with("matrix/room_requests.rs"), "{only}");
}

/// The encryption check precedes every send of a message or a reaction.
#[test]
fn p04_every_send_is_checked_first() {
    let (_, code) = matrix_side()
        .into_iter()
        .find(|(file, _)| file.ends_with("matrix/event_sender.rs"))
        .unwrap();
    for (function, sends) in [
        ("async fn send_message(", ".encrypted.send("),
        (
            "async fn send_message(",
            "put(room, &key, \"m.room.message\"",
        ),
        ("async fn react(", "put(room, &key, \"m.reaction\""),
    ] {
        let (_, body) = code.split_once(function).unwrap();
        let (before, _) = body.split_once(sends).unwrap();
        assert!(!before.contains("async fn "), "{function}: {before}");
        let check = "self.guard.check(room, to).await?";
        assert!(before.contains(check), "{function}: {before}");
    }
    // Nothing else sends what it makes itself.
    let callers: Vec<_> = matrix_side()
        .into_iter()
        .map(|(file, code)| (code.matches("put(room, key").count(), file))
        .filter(|(count, _)| *count > 0)
        .collect();
    let [(1, only)] = &callers[..] else {
        panic!("{callers:?}")
    };
    assert!(only.ends_with("matrix/encrypted_send.rs"), "{only}");
}

#[test]
fn p03_every_client_is_built_with_history_sharing_off() {
    let builders: Vec<_> = matrix_side()
        .into_iter()
        .filter(|(_, code)| code.contains("Client::builder()"))
        .collect();
    let [(file, code)] = &builders[..] else {
        panic!("{builders:?}")
    };
    assert!(file.ends_with("matrix/client.rs"), "{file}");
    for switch in [
        ".with_enable_share_history_on_invite(false)",
        ".with_encryption_settings(encryption())",
        ".with_room_key_recipient_strategy(recipients(parts.trust))",
        ".with_decryption_settings(decryption(parts.trust))",
    ] {
        assert!(code.contains(switch), "{switch} is missing");
    }
}
