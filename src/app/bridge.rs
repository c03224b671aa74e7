//! Wiring: opens the store, builds both sides, starts every task and ends with all of them. Every task starts here:
//!
//! - one sync of the Matrix account, one of each person's account, and one listener per silo (restarted when a portal is added),
//! - two lanes per portal,
//! - the answers to chat commands,
//! - names, topics and avatars of rooms and channels, where a portal syncs them,
//! - the admin address, the signals.

mod profile_sync;
mod resolve_portals;
mod lanes;
mod silo_listener;
mod control_backend;
mod readiness;
mod active_portals;
mod account_recovery;
mod accounts;
mod disk_space;
mod disk_full_mode;
mod tasks;
mod health;
mod lane_wakeups;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use footbridge_core::{
    backoff::Backoff,
    clock::Clock,
    http_client,
    inbox::{Inbox, Signals},
    lane::{OutletHealth, RelayFilters},
    spool::Spool,
};
use footbridge_matrix::{Boxed, Matrix, Trust};
use footbridge_silo::{Channel, Silo};
use footbridge_store::{Place, Portal, PortalSource, Store, StoreKey};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, info_span, warn};

use accounts::Accounts;
use lanes::Budgets;
use tasks::{Tasks, start, task_result};

use crate::{
    admin,
    config::{Config, PortalConfig},
    control::AnswerLimits,
    media_gateway,
    shutdown::Shutdown,
};

/// Runs the bridge until a signal stops it. An error means that it could not start or could not continue; pending
/// deliveries stay in the store.
#[must_use]
pub fn run(config: Config) -> Boxed<'static, anyhow::Result<()>> {
    Box::pin(async move {
        loop {
            let ended = match App::build(config.clone()).await {
                Ok((app, listeners)) => Arc::new(app).run_tasks(listeners).await,
                Err(error) => Err(error),
            };
            match ended {
                // If the process ended here, the service manager would restart it in a loop.
                Err(error) if disk_space::was_missing(&error, &config.store) => {
                    let error = format!("{error:#}");
                    error!(
                        error,
                        "The disk is full; restarting as soon as there is space"
                    );
                    if !disk_full_mode::wait(&config).await? {
                        return Ok(());
                    }
                }
                ended => return ended,
            }
        }
    })
}

/// The addresses that others connect to.
struct Listeners {
    admin: TcpListener,
    gateway: Option<TcpListener>,
}

impl Listeners {
    async fn open(config: &Config) -> anyhow::Result<Self> {
        let listen = config.admin.listen;
        let admin = TcpListener::bind(listen).await;
        let gateway = match config.media.gateway.as_ref().map(|gateway| gateway.listen) {
            Some(listen) => Some(TcpListener::bind(listen).await.with_context(|| {
                format!("the address {listen} of the media gateway cannot be used")
            })?),
            None => None,
        };
        Ok(Self {
            admin: admin.with_context(|| format!("the admin address {listen} cannot be used"))?,
            gateway,
        })
    }
}

/// Everything that lives as long as the process.
struct App {
    config: Config,
    store: Store,
    signals: Signals,
    clock: Clock,
    inbox: Inbox,
    matrix: Arc<Matrix>,
    silos: BTreeMap<String, Arc<dyn Silo>>,
    budgets: Budgets,
    /// The key of the store, and of the SDK's stores.
    key: Arc<StoreKey>,
    accounts: Accounts,
    /// The one HTTP client.
    http: reqwest::Client,
    filters: RelayFilters,
    /// Where files are kept while they are transferred.
    spool: Spool,
    shutdown: Shutdown,
    portals_running: AtomicUsize,
    /// How many portals the configuration and the command line name, resolved or not.
    portals_named: AtomicUsize,
    /// Which portals of each silo were logged as not open yet, by the reason.
    unopened: Mutex<HashMap<String, BTreeMap<String, Vec<String>>>>,
    /// The health of the lanes toward Matrix (under its network's name) and toward each silo, shared between the lanes
    /// of a side.
    health: HashMap<String, OutletHealth>,
    /// The limits of answers to chat commands.
    answers: AnswerLimits,
}

impl App {
    async fn build(config: Config) -> anyhow::Result<(Self, Listeners)> {
        let clock = Clock::start();
        let key = StoreKey::read(&config.store.key_file)?;
        let store = Store::open(&config.store.path, &key).await?;
        let listeners = Listeners::open(&config).await?;
        let http = http_client::client()?;
        let trust = config
            .portals
            .first()
            .map_or(Trust::default(), |portal| portal.trust);
        if trust == Trust::AnyDevice {
            warn!("The configuration trusts every device, in both directions");
        }
        let matrix = Matrix::open(
            store.clone(),
            &key,
            config.matrix.clone(),
            trust,
            http.clone(),
            clock,
        )
        .await?;
        let mut silos = BTreeMap::new();
        for silo in &config.silos {
            silos.insert(silo.name().to_owned(), silo.build(&http, clock)?);
        }
        let sides = silos.keys().map(String::as_str).chain([Place::MATRIX]);
        let health = sides
            .map(|name| (name.to_owned(), OutletHealth::default()))
            .collect();
        let budgets = Budgets::of(silos.keys());
        let signals = Signals::default();
        let inbox = Inbox::new(store.clone(), signals.clone(), clock);
        let inbox = inbox.with_peer_bridges(matrix.network().peer_bridges().clone());
        let proving = config
            .silos
            .iter()
            .filter(|silo| silo.kind().proves_authors);
        let inbox = inbox.with_proving_silos(proving.map(|silo| silo.name().to_owned()).collect());
        let shutdown = Shutdown::default();
        let spool = Spool::new(config.store.path.clone(), config.media.max_file);
        let portals_running = AtomicUsize::new(0);
        let portals_named = AtomicUsize::new(config.portals.len());
        Ok((
            Self {
                config,
                store,
                signals,
                clock,
                inbox,
                matrix,
                silos,
                budgets,
                key: Arc::new(key),
                accounts: Accounts::default(),
                http,
                filters: RelayFilters::default(),
                spool,
                shutdown,
                portals_running,
                portals_named,
                unopened: Mutex::default(),
                health,
                answers: AnswerLimits::default(),
            },
            listeners,
        ))
    }

    /// Starts everything, adds portals as they are resolved, and ends when it is stopped or when a task has ended
    /// that must not.
    async fn run_tasks(self: Arc<Self>, listeners: Listeners) -> anyhow::Result<()> {
        let mut tasks = Tasks::new();
        let (stop, health) = (self.shutdown.soft.clone(), self.clone());
        start(&mut tasks, "admin", async move {
            Ok(admin::serve(listeners.admin, health, stop).await?)
        });
        let (app, stop) = (self.clone(), self.shutdown.soft.clone());
        start(&mut tasks, "readiness", app.watch_readiness(stop));
        for (name, silo) in &self.silos {
            let (silo, stop) = (silo.clone(), self.shutdown.soft.clone());
            let span = info_span!("account", silo.name = name);
            let task = async move {
                account_recovery::watch_account(&*silo, &stop).await;
                Ok(())
            };
            start(&mut tasks, "account", task.instrument(span));
        }
        let (app, stop) = (self.clone(), self.shutdown.soft.clone());
        start(&mut tasks, "waking", app.wake_lanes(stop));
        let (app, stop) = (self.clone(), self.shutdown.soft.clone());
        start(&mut tasks, "accounts", app.run_accounts(stop));
        let signals = self.shutdown.clone();
        start(
            &mut tasks,
            "signals",
            async move { Ok(signals.watch().await?) },
        );

        if let Some(listener) = listeners.gateway {
            let (gateway, stop) = (self.gateway(), self.shutdown.soft.clone());
            start(&mut tasks, "gateway", async move {
                Ok(media_gateway::serve(listener, gateway, stop).await?)
            });
        }

        let (control, stop) = (self.control(), self.shutdown.soft.clone());
        start(&mut tasks, "control", async move {
            Ok(control.run(stop).await?)
        });

        if self.shares_profiles() {
            let (app, stop) = (self.clone(), self.shutdown.soft.clone());
            start(&mut tasks, "facts", app.sync_profiles(stop));
        }

        let outcome = self.serve_portals(&mut tasks).await;

        // Whatever the reason was: the other tasks get a soft stop, and a hard one if that takes too long.
        self.shutdown.soft.cancel();
        let finished = async {
            while tasks.len() > 1 {
                if let Some(ended) = tasks.join_next().await {
                    let _logged = task_result(ended);
                }
            }
        };
        tokio::select! {
            () = finished => {}
            () = self.shutdown.hard.cancelled() => warn!("Some work was interrupted; it resumes at the next start"),
        }
        tasks.shutdown().await;
        self.matrix.device().release_lease().await;
        if let Err(error) = self.store.checkpoint().await {
            warn!(error = %error, "The write-ahead log of the store could not be checkpointed");
        }
        info!("Stopped");
        outcome
    }

    /// Runs the lanes and listeners of all portals. Returns when it is stopped or when a task has ended that must
    /// not.
    async fn serve_portals(&self, tasks: &mut Tasks) -> anyhow::Result<()> {
        let stop = &self.shutdown.soft;
        // An old copy of the store must not even deliver what is pending in it (P13).
        if !self.matrix.device().take_up(stop.clone()).await? {
            return Ok(());
        }
        let (mut named, mut missing) = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            first = self.initial_portals() => first?,
        };
        self.load_speakers().await?;
        let mut backoff = Backoff::default();
        let mut lanes = HashSet::new();
        while !stop.is_cancelled() {
            let listed = active_portals::listed(&named, &missing, &self.store.portals().await?);
            self.store
                .deactivate_unlisted_portals(&listed, self.clock.now())
                .await?;
            let portals = self.active_portals(&named).await?;
            let rooms = portals
                .iter()
                .filter(|portal| portal.source != PortalSource::Management);
            self.accounts
                .set_rooms(rooms.map(|portal| portal.room.clone()).collect());
            self.matrix
                .network()
                .set_awaited_rooms(missing.iter().map(|portal| portal.room.clone()).collect());
            self.start_lanes(tasks, &mut lanes, &portals);
            self.wait_for_space(tasks).await?;
            let is_portal = |portal: &&Portal| portal.source != PortalSource::Management;
            let running = portals.iter().filter(is_portal).count();
            self.portals_running.store(running, Ordering::Relaxed);
            let all = running + missing.len();
            self.portals_named.store(all, Ordering::Relaxed);
            let generation = stop.child_token();
            let mut listeners = self.start_listeners(&portals, &generation);
            info!(portals = running, missing = missing.len(), "Listening");
            let found = self
                .wait(tasks, &mut listeners, &mut missing, &mut backoff)
                .await;
            generation.cancel();
            while let Some(ended) = listeners.join_next().await {
                task_result(ended)?;
            }
            named.extend(found?);
        }
        Ok(())
    }

    /// While disk space is low, no listener runs.
    async fn wait_for_space(&self, tasks: &mut Tasks) -> anyhow::Result<()> {
        if !disk_space::is_low(&self.config.store) {
            return Ok(());
        }
        error!("Little space is left on the disk: nothing is read until there is more");
        let enough_space = disk_space::wait_until_enough(&self.config.store);
        tokio::pin!(enough_space);
        loop {
            tokio::select! {
                () = self.shutdown.soft.cancelled() => return Ok(()),
                Some(ended) = tasks.join_next() => task_result(ended)?,
                () = &mut enough_space => {
                    info!("There is enough space on the disk again");
                    return Ok(());
                }
            }
        }
    }

    /// Waits until it is stopped, until disk space is low or until portals were added or removed (returns no
    /// portals), or until missing portals were resolved.
    async fn wait(
        &self,
        tasks: &mut Tasks,
        listeners: &mut Tasks,
        missing: &mut Vec<PortalConfig>,
        backoff: &mut Backoff,
    ) -> anyhow::Result<Vec<Portal>> {
        let changed = self.signals.portals();
        loop {
            let wait = if missing.is_empty() {
                Duration::from_hours(24)
            } else {
                backoff.failed()
            };
            let wanted = missing.clone();
            let search = async {
                tokio::time::sleep(wait).await;
                self.find(&wanted).await
            };
            tokio::pin!(search);
            let (found, still_missing) = loop {
                tokio::select! {
                    () = self.shutdown.soft.cancelled() => return Ok(Vec::new()),
                    Some(ended) = tasks.join_next() => task_result(ended)?,
                    Some(ended) = listeners.join_next() => task_result(ended)?,
                    () = disk_space::wait_until_low(&self.config.store) => return Ok(Vec::new()),
                    () = changed.notified() => return Ok(Vec::new()),
                    searched = &mut search => break searched?,
                }
            };
            *missing = still_missing;
            if !found.is_empty() {
                backoff.worked();
                return Ok(found);
            }
        }
    }

    fn start_listeners(&self, portals: &[Portal], stop: &CancellationToken) -> Tasks {
        let mut listeners = Tasks::new();
        let rooms = portals.iter().map(|portal| portal.room.clone()).collect();
        let (matrix, inbox, token) = (self.matrix.clone(), self.inbox.clone(), stop.clone());
        start(
            &mut listeners,
            "matrix",
            async move { Ok(matrix.device().listen(rooms, inbox, token).await?) }
                .instrument(info_span!("listen", side = "matrix")),
        );
        for (name, silo) in &self.silos {
            let channels: Vec<Channel> = portals
                .iter()
                .filter(|portal| &portal.spec.silo == name)
                .map(|portal| Channel {
                    place: portal.channel.clone(),
                    name: portal.spec.channel.clone(),
                    backfill: self.backfill(portal),
                })
                .collect();
            let (silo, inbox, token) = (silo.clone(), self.inbox.clone(), stop.clone());
            let span = info_span!("listen", silo.name = name);
            start(
                &mut listeners,
                "silo",
                async move { silo_listener::listen(&*silo, channels, &inbox, &token).await }
                    .instrument(span),
            );
        }
        listeners
    }
}
