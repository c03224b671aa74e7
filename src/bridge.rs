//! Wiring: opens the store, builds both sides, starts every task, and ends with all of them. Tasks start here
//! and nowhere else:
//!
//! - one sync of the Matrix account, one listener per silo (begun again when a portal is added),
//! - two lanes per portal,
//! - the admin address, the signals.

mod finding;
mod vitals;

use std::{
    collections::{BTreeMap, HashSet},
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use footbridge_store::{LaneId, Portal, PortalId, Side, Store, StoreKey};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, info_span, warn};

use crate::{
    admin,
    backoff::Backoff,
    clock::Clock,
    config::{Config, PortalConfig},
    inbox::{Bells, Inbox},
    matrix::{Boxed, Matrix, Trust},
    outlet::Outlet,
    portal::{Lane, LaneEnd},
    shutdown::Shutdown,
    silo::{Channel, Silo, SiloError},
};

/// Runs the bridge until a signal stops it. An error means that it could not start or could not go on; what is
/// owed stays in the store.
#[must_use]
pub fn run(config: Config) -> Boxed<'static, anyhow::Result<()>> {
    Box::pin(async move {
        let (house, admin) = House::build(config).await?;
        Arc::new(house).live(admin).await
    })
}

/// The HTTP client that everything shares. It has no overall timeout: a sync is held open on purpose.
pub fn http_client() -> anyhow::Result<reqwest::Client> {
    reqwest::Client::builder()
        .user_agent(concat!("footbridge/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(15))
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .context("cannot set up HTTPS")
}

/// Everything that lives as long as the process.
struct House {
    config: Config,
    store: Store,
    bells: Bells,
    clock: Clock,
    inbox: Inbox,
    matrix: Arc<Matrix>,
    silos: BTreeMap<String, Arc<dyn Silo>>,
    shutdown: Shutdown,
    portals_running: AtomicUsize,
}

/// Tasks, and what each ended with.
type Tasks = JoinSet<anyhow::Result<()>>;

impl House {
    async fn build(config: Config) -> anyhow::Result<(Self, TcpListener)> {
        let clock = Clock::start();
        let key = StoreKey::read(&config.store.key_file)?;
        let store = Store::open(&config.store.path, &key).await?;
        let admin = TcpListener::bind(config.admin.listen)
            .await
            .with_context(|| format!("the admin address {} cannot be used", config.admin.listen))?;
        let http = http_client()?;
        let trust = config
            .portals
            .first()
            .map_or(Trust::default(), |portal| portal.trust);
        if trust == Trust::AnyDevice {
            warn!("Every device is trusted in both directions: the configuration asks for it");
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
        let bells = Bells::default();
        let inbox = Inbox::new(store.clone(), bells.clone(), clock);
        let shutdown = Shutdown::default();
        let portals_running = AtomicUsize::new(0);
        Ok((
            Self {
                config,
                store,
                bells,
                clock,
                inbox,
                matrix,
                silos,
                shutdown,
                portals_running,
            },
            admin,
        ))
    }

    /// Starts everything, adds portals as they are found, and ends when told to or when a task ended that must
    /// not.
    async fn live(self: Arc<Self>, admin: TcpListener) -> anyhow::Result<()> {
        let mut tasks = Tasks::new();
        let (stop, vitals) = (self.shutdown.soft.clone(), self.clone());
        start(&mut tasks, "admin", async move {
            Ok(admin::serve(admin, vitals, stop).await?)
        });
        let signals = self.shutdown.clone();
        start(
            &mut tasks,
            "signals",
            async move { Ok(signals.watch().await?) },
        );

        let outcome = self.serve_portals(&mut tasks).await;

        // Whatever the reason: the rest stops softly, and by force if that takes too long.
        self.shutdown.soft.cancel();
        let finished = async {
            while tasks.len() > 1 {
                if let Some(ended) = tasks.join_next().await {
                    let _logged = verdict(ended);
                }
            }
        };
        tokio::select! {
            () = finished => {}
            () = self.shutdown.hard.cancelled() => warn!("Some work was dropped; it goes on at the next start"),
        }
        tasks.shutdown().await;
        if let Err(error) = self.store.checkpoint().await {
            warn!(error = %error, "The store was left with a write-ahead log");
        }
        info!("Stopped");
        outcome
    }

    /// Runs lanes and listeners of all portals. Returns when told to stop or when something ended that must not.
    async fn serve_portals(&self, tasks: &mut Tasks) -> anyhow::Result<()> {
        let stop = &self.shutdown.soft;
        let (mut portals, mut missing) = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            first = self.first_portals() => first?,
        };
        let mut backoff = Backoff::default();
        let mut lanes = HashSet::new();
        while !stop.is_cancelled() {
            if missing.is_empty() {
                let listed: Vec<PortalId> = portals.iter().map(|portal| portal.id).collect();
                self.store.keep_portals(&listed, self.clock.now()).await?;
            }
            self.start_lanes(tasks, &mut lanes, &portals);
            self.portals_running.store(portals.len(), Ordering::Relaxed);
            let generation = stop.child_token();
            let mut listeners = self.start_listeners(&portals, &generation);
            info!(
                portals = portals.len(),
                missing = missing.len(),
                "Listening"
            );
            let found = self
                .wait(tasks, &mut listeners, &mut missing, &mut backoff)
                .await;
            generation.cancel();
            while let Some(ended) = listeners.join_next().await {
                verdict(ended)?;
            }
            portals.extend(found?);
        }
        Ok(())
    }

    /// Waits until told to stop (nothing found) or until missing portals were found.
    async fn wait(
        &self,
        tasks: &mut Tasks,
        listeners: &mut Tasks,
        missing: &mut Vec<PortalConfig>,
        backoff: &mut Backoff,
    ) -> anyhow::Result<Vec<Portal>> {
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
                    Some(ended) = tasks.join_next() => verdict(ended)?,
                    Some(ended) = listeners.join_next() => verdict(ended)?,
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

    fn start_lanes(&self, tasks: &mut Tasks, started: &mut HashSet<LaneId>, portals: &[Portal]) {
        for portal in portals {
            let Some(silo) = self.silos.get(&portal.spec.silo) else {
                continue;
            };
            for toward in [Side::Matrix, Side::Silo] {
                let id = LaneId {
                    portal: portal.id,
                    toward,
                };
                if !started.insert(id) {
                    continue;
                }
                let outlet: Arc<dyn Outlet> = match toward {
                    Side::Matrix => self.matrix.clone(),
                    Side::Silo => silo.clone(),
                };
                let (store, bells, clock) = (self.store.clone(), self.bells.clone(), self.clock);
                let lane = Lane {
                    id,
                    outlet,
                    store,
                    bells,
                    clock,
                };
                let stop = self.shutdown.soft.clone();
                let span = info_span!("lane", portal.id = id.portal.0, toward = toward.as_str());
                start(
                    tasks,
                    "lane",
                    async move {
                        match lane.run(stop).await? {
                            LaneEnd::Stopped => {}
                            LaneEnd::SignedOut => info!("Lane at rest until the account is mended"),
                        }
                        Ok(())
                    }
                    .instrument(span),
                );
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
            async move { Ok(matrix.listen(rooms, inbox, token).await?) }
                .instrument(info_span!("listen", side = "matrix")),
        );
        for (name, silo) in &self.silos {
            let channels = portals
                .iter()
                .filter(|portal| &portal.spec.silo == name)
                .map(|portal| Channel {
                    place: portal.channel.clone(),
                    name: portal.spec.channel.clone(),
                })
                .collect();
            let (silo, inbox, token) = (silo.clone(), self.inbox.clone(), stop.clone());
            let span = info_span!("listen", silo.name = name);
            start(
                &mut listeners,
                "silo",
                async move {
                    match silo.listen(channels, inbox, token).await {
                        Err(SiloError::Store(fault)) => Err(fault.into()),
                        // It said so itself, once.
                        Err(SiloError::SignedOut(_)) => Ok(()),
                        Err(fault) => {
                            // One silo out of order is no reason to stop the others.
                            error!(
                                error = format!("{fault:#}"),
                                "This silo needs a person; its messages wait"
                            );
                            Ok(())
                        }
                        Ok(()) => Ok(()),
                    }
                }
                .instrument(span),
            );
        }
        listeners
    }
}

/// The one way a task starts.
fn start(
    tasks: &mut Tasks,
    name: &'static str,
    task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) {
    tasks.spawn(async move { task.await.context(name) });
}

/// What the end of a task means for the house: a panic or an error is the end of it.
fn verdict(ended: Result<anyhow::Result<()>, tokio::task::JoinError>) -> anyhow::Result<()> {
    match ended {
        Ok(result) => result,
        Err(fault) if fault.is_cancelled() => Ok(()),
        Err(fault) => Err(fault).context("a task panicked"),
    }
}
