//! `footbridge device`: shows what others compare when they verify the bridge, verifies the device, or replaces it.

mod reset;
mod verify;

use footbridge_store::{AccountInfo, Store};

use super::{CommandResult, args::Device, console};
use crate::config::{Config, Exit};

/// Runs the subcommand.
pub async fn run(config: &Config, what: Device) -> CommandResult {
    match what {
        Device::Show => show(config).await,
        Device::Verify { user } => verify::run(config, user).await,
        Device::Reset => reset::run(config).await,
    }
}

async fn show(config: &Config) -> CommandResult {
    let snapshot = Store::snapshot(&config.store.path).await?;
    let Some(account) = snapshot.account else {
        return Err(footbridge_matrix::MatrixError::NoAccount.into());
    };
    console::say(&shown(&account));
    Ok(Exit::Fine)
}

fn shown(account: &AccountInfo) -> String {
    let key = |key: &Option<String>| {
        key.as_deref()
            .map_or_else(|| "not known yet: footbridge login".to_owned(), grouped)
    };
    format!(
        "User         {}\nDevice       {}\nHomeserver   {}\nFingerprint  {}\nMaster key   {}",
        account.user_id,
        account.device_id,
        account.homeserver,
        key(&account.ed25519),
        key(&account.master_key),
    )
}

// In groups of four, as clients show keys.
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
        let account = AccountInfo {
            user_id: "@bridge:example.org".to_owned(),
            device_id: "ABCDEFGHIJ".to_owned(),
            homeserver: "https://matrix.example.org/".to_owned(),
            ed25519: Some("abcdefghij".to_owned()),
            master_key: None,
        };
        let text = shown(&account);
        assert!(text.contains("Fingerprint  abcd efgh ij\n"), "{text}");
        assert!(text.contains("Master key   not known yet"), "{text}");
    }
}
