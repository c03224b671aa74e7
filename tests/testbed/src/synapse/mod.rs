//! A throwaway Synapse: a real homeserver on a loopback port with its own directory. Tests can stop it, freeze it,
//! restart it on the same files and read its database. It ends with the test process, also when that is killed.

mod config;
pub mod install;
mod records;
mod running;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use hmac::{Hmac, Mac as _};
use serde::Deserialize;
use serde_json::json;
use sha1::Sha1;
use tokio::sync::OnceCell;

pub use records::StoredEvent;
use running::Running;

/// Synapse's rate limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limits {
    /// Practically none: for everything except tests of the limits.
    Relaxed,
    /// `burst` messages at once, and then one every `every_ms` milliseconds; everything else as in [`Self::Relaxed`].
    Messages {
        /// How many messages at once.
        burst: u32,
        /// Milliseconds from one message to the next.
        every_ms: u32,
    },
    /// Synapse's defaults: 10 messages and then one every 5 seconds, 5 logins, …
    Default,
}

/// A user registered by [`Synapse::register_session`], with the device of that session.
#[derive(Clone, Deserialize)]
pub struct Registered {
    /// `@name:server`
    pub user_id: String,
    /// For plain requests without an SDK.
    pub access_token: String,
    /// The device of that token.
    pub device_id: String,
}

/// One homeserver. Dropping it kills the server and removes its files.
pub struct Synapse {
    home: PathBuf,
    port: u16,
    python: PathBuf,
    arguments: Vec<PathBuf>,
    http: reqwest::Client,
    running: Mutex<Option<Running>>,
}

impl Synapse {
    /// Starts a new, empty homeserver, after installing Synapse if it is missing; returns when it answers.
    pub async fn start(limits: Limits) -> anyhow::Result<Self> {
        Self::start_with(limits, json!({})).await
    }

    /// Like [`Self::start`], with more settings, in Synapse's own terms.
    pub async fn start_with(limits: Limits, settings: serde_json::Value) -> anyhow::Result<Self> {
        let python = tokio::task::spawn_blocking(install::python).await??;
        let mut attempts = 3;
        loop {
            attempts -= 1;
            let server = Self::prepare(python.clone(), limits, &settings)?;
            match server.launch().await {
                Ok(()) => return Ok(server),
                // Another process took the port first.
                Err(error) if attempts > 0 && format!("{error:#}").contains("already in use") => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The one relaxed server that all tests of this process share; each test has its own rooms and users.
    pub async fn shared() -> anyhow::Result<&'static Self> {
        static SHARED: OnceCell<Synapse> = OnceCell::const_new();
        SHARED
            .get_or_try_init(|| Self::start(Limits::Relaxed))
            .await
    }

    fn prepare(
        python: PathBuf,
        limits: Limits,
        settings: &serde_json::Value,
    ) -> anyhow::Result<Self> {
        // The keeper removes it, also when this process is killed.
        let home = tempfile::Builder::new()
            .prefix("footbridge-synapse-")
            .tempdir()?
            .keep();
        let port = crate::ports::free_port()?;
        let arguments = config::write(&home, port, limits, settings)
            .context("cannot write the configuration of Synapse")?;
        let http = reqwest::Client::builder()
            .timeout(Duration::from_mins(1))
            // Tests that share the server have a runtime each: a pooled connection may belong to a runtime that has
            // ended.
            .pool_max_idle_per_host(0)
            .build()?;
        Ok(Self {
            home,
            port,
            python,
            arguments,
            http,
            running: Mutex::new(None),
        })
    }

    async fn launch(&self) -> anyhow::Result<()> {
        let mut running = Running::spawn(&self.python, &self.home, &self.arguments)?;
        let address = format!("{}/_matrix/client/versions", self.url());
        let deadline = tokio::time::Instant::now() + Duration::from_mins(2);
        loop {
            if let Ok(answer) = self.http.get(&address).send().await
                && answer.status().is_success()
            {
                break;
            }
            if let Some(words) = running.ended()? {
                bail!("Synapse did not start\n{words}");
            }
            if tokio::time::Instant::now() > deadline {
                bail!(
                    "Synapse gave no answer for two minutes\n{}",
                    running.last_words()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        *self.lock() = Some(running);
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The base URL, `http://127.0.0.1:port`, the same after a restart.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The part of user ids after the colon.
    #[must_use]
    pub fn server_name(&self) -> &'static str {
        config::SERVER_NAME
    }

    /// The SQLite file of the server.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.home.join("homeserver.db")
    }

    /// The directory with everything the server writes.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.home
    }

    /// Stops the server with SIGTERM; its files stay for [`Self::restart`].
    pub async fn stop(&self) -> anyhow::Result<()> {
        let Some(running) = self.lock().take() else {
            return Ok(());
        };
        tokio::task::spawn_blocking(move || running.stop()).await?
    }

    /// Stops the server if it runs, and starts it again with the same port and files.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.stop().await?;
        self.launch().await
    }

    /// Suspends the server's process: connections stay open and it answers nothing.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal("-STOP")
    }

    /// Resumes the process after [`Self::freeze`].
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal("-CONT")
    }

    fn signal(&self, signal: &str) -> anyhow::Result<()> {
        match self.lock().as_ref() {
            Some(running) => crate::signal::send(running.pid(), signal),
            None => bail!("Synapse is not running"),
        }
    }

    /// The process id of the server while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.lock().as_ref().map(Running::pid)
    }

    /// Registers a user through the shared-secret API, which has no rate limit; returns the full user id.
    pub async fn register(&self, user: &str, password: &str) -> anyhow::Result<String> {
        Ok(self.register_session(user, password).await?.user_id)
    }

    /// Like [`Self::register`], with a session for plain requests.
    pub async fn register_session(&self, user: &str, password: &str) -> anyhow::Result<Registered> {
        #[derive(Deserialize)]
        struct Nonce {
            nonce: String,
        }
        let address = format!("{}/_synapse/admin/v1/register", self.url());
        let Nonce { nonce } = self
            .http
            .get(&address)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        let mut mac = Hmac::<Sha1>::new_from_slice(config::REGISTRATION_SECRET.as_bytes())?;
        mac.update(format!("{nonce}\0{user}\0{password}\0notadmin").as_bytes());
        let proof = format!("{:x}", mac.finalize().into_bytes());
        let body = json!({
            "nonce": nonce, "username": user, "password": password, "admin": false, "mac": proof,
        });
        let answer = self.http.post(&address).json(&body).send().await?;
        if !answer.status().is_success() {
            bail!(
                "Synapse refuses to register {user}: {}",
                answer.text().await?
            );
        }
        Ok(answer.json().await?)
    }

    /// Restarts the server without its record of transaction ids, as if a day had passed; returns how many it knew.
    pub async fn forget_transactions(&self) -> anyhow::Result<usize> {
        self.stop().await?;
        let database = self.database();
        let known =
            tokio::task::spawn_blocking(move || records::forget_transactions(&database)).await??;
        self.launch().await?;
        Ok(known)
    }

    /// All events of a room as the server stores them, oldest first.
    pub async fn events(&self, room: &str) -> anyhow::Result<Vec<StoredEvent>> {
        let (database, room) = (self.database(), room.to_owned());
        tokio::task::spawn_blocking(move || records::events(&database, &room)).await?
    }
}

impl Drop for Synapse {
    fn drop(&mut self) {
        drop(self.lock().take());
        // The keeper has removed it already, unless the server was stopped before.
        std::fs::remove_dir_all(&self.home).ok();
    }
}
