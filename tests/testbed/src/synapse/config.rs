//! The configuration of a throwaway Synapse, as JSON (which is YAML too).

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Limits;

/// The server name of every throwaway server. Federation is off, so it need not exist.
pub(super) const SERVER_NAME: &str = "footbridge.test";
/// No secret: the server listens on loopback and lives for a minute.
pub(super) const REGISTRATION_SECRET: &str = "footbridge-testbed";
/// Signs events, although federation is off: algorithm, version, unpadded base64 of 32 bytes.
const SIGNING_KEY: &str = "ed25519 a_1 Rm9vdGJyaWRnZSB0aHJvd2F3YXkgc2lnbmluZyBrZXk\n";

/// Writes all files that Synapse needs into `home`; returns the arguments to start it with.
pub(super) fn write(
    home: &Path,
    port: u16,
    limits: Limits,
    settings: &Value,
) -> anyhow::Result<Vec<PathBuf>> {
    fs::create_dir_all(home.join("media"))?;
    fs::write(home.join("signing.key"), SIGNING_KEY)?;
    fs::write(home.join("log.yaml"), log(home).to_string())?;
    let mut files = vec![home.join("homeserver.yaml")];
    fs::write(
        home.join("homeserver.yaml"),
        homeserver(home, port).to_string(),
    )?;
    // Later files override earlier ones, per top-level key.
    let own = home.join("settings.yaml");
    fs::write(&own, settings.to_string())?;
    files.push(own);
    let mut more = relaxed();
    match limits {
        Limits::Default => return Ok(files),
        Limits::Relaxed => {}
        Limits::Messages { burst, every_ms } => {
            let per_second = 1000.0 / f64::from(every_ms.max(1));
            let limit = json!({ "per_second": per_second, "burst_count": burst });
            if let Some(all) = more.as_object_mut() {
                all.insert("rc_message".to_owned(), limit);
            }
        }
    }
    let limits_file = home.join("limits.yaml");
    fs::write(&limits_file, more.to_string())?;
    files.push(limits_file);
    Ok(files)
}

fn homeserver(home: &Path, port: u16) -> Value {
    json!({
        "server_name": SERVER_NAME,
        "public_baseurl": format!("http://127.0.0.1:{port}/"),
        "listeners": [{
            "port": port,
            "bind_addresses": ["127.0.0.1"],
            "type": "http",
            "tls": false,
            "resources": [{ "names": ["client"], "compress": false }],
        }],
        "database": { "name": "sqlite3", "args": { "database": home.join("homeserver.db") } },
        "log_config": home.join("log.yaml"),
        "pid_file": home.join("synapse.pid"),
        "media_store_path": home.join("media"),
        "signing_key_path": home.join("signing.key"),
        "registration_shared_secret": REGISTRATION_SECRET,
        "macaroon_secret_key": REGISTRATION_SECRET,
        "form_secret": REGISTRATION_SECRET,
        "enable_registration": true,
        "enable_registration_without_verification": true,
        "bcrypt_rounds": 4,
        "report_stats": false,
        "trusted_key_servers": [],
        "suppress_key_server_warning": true,
        "federation_domain_whitelist": [],
        "presence": { "enabled": false },
        "url_preview_enabled": false,
        "max_upload_size": "100M",
    })
}

fn log(home: &Path) -> Value {
    json!({
        "version": 1,
        "formatters": { "line": { "format": "%(asctime)s %(levelname)s %(name)s %(message)s" } },
        "handlers": {
            "file": {
                "class": "logging.FileHandler",
                "filename": home.join("synapse.log"),
                "formatter": "line",
            },
        },
        "root": { "level": "WARNING", "handlers": ["file"] },
        "disable_existing_loggers": false,
    })
}

fn relaxed() -> Value {
    let open = json!({ "per_second": 100_000, "burst_count": 100_000 });
    json!({
        "rc_message": open,
        "rc_registration": open,
        "rc_login": { "address": open, "account": open, "failed_attempts": open },
        "rc_admin_redaction": open,
        "rc_joins": { "local": open, "remote": open },
        "rc_joins_per_room": open,
        "rc_invites": { "per_room": open, "per_user": open, "per_issuer": open },
        "rc_room_creation": open,
        "rc_key_requests": open,
        "rc_presence": { "per_user": open },
        "rc_delayed_event_mgmt": open,
        "rc_media_create": open,
    })
}
