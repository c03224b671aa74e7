//! `footbridge device`: what others compare when they verify the bridge, and what is done with the device.

mod reset;
mod verify;

use footbridge_store::{AccountInfo, Store};

use super::{CommandResult, args::Device, console};
use crate::config::{Config, Exit};

/// Shows the device, verifies it, or puts another in its place.
pub async fn run(config: &Config, what: Device) -> CommandResult {
    match what {
        Device::Show => show(config).await,
        Device::Verify { user } => verify::run(config, user).await,
        Device::Reset => reset::run(config).await,
    }
}

async fn show(config: &Config) -> CommandResult {
    let snapshot = Store::snapshot(&config.store.path).await?;
    let Some(face) = snapshot.account else {
        return Err(footbridge_matrix::MatrixError::NoAccount.into());
    };
    console::say(&shown(&face));
    Ok(Exit::Fine)
}

fn shown(face: &AccountInfo) -> String {
    let key = |key: &Option<String>| {
        key.as_deref()
            .map_or_else(|| "not known yet: footbridge login".to_owned(), grouped)
    };
    format!(
        "User         {}\nDevice       {}\nHomeserver   {}\nFingerprint  {}\nMaster key   {}",
        face.user_id,
        face.device_id,
        face.homeserver,
        key(&face.ed25519),
        key(&face.master_key),
    )
}

// In groups of four, as clients show it.
fn grouped(key: &str) -> String {
    let letters: Vec<char> = key.chars().collect();
    letters
        .chunks(4)
        .map(|group| group.iter().collect::<String>())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_shown_in_groups_of_four() {
        let face = AccountInfo {
            user_id: "@bridge:example.org".to_owned(),
            device_id: "ABCDEFGHIJ".to_owned(),
            homeserver: "https://matrix.example.org/".to_owned(),
            ed25519: Some("abcdefghij".to_owned()),
            master_key: None,
        };
        let text = shown(&face);
        assert!(text.contains("Fingerprint  abcd efgh ij\n"), "{text}");
        assert!(text.contains("Master key   not known yet"), "{text}");
    }
}
