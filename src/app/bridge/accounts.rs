//! The personal accounts: each runs under a supervisor of its own, so that the failure of one touches no other. It sends for its
//! person from the moment on at which the person's identity has signed its device.

use std::{collections::HashMap, sync::Arc, time::Duration};

use footbridge_core::{
    backoff::Backoff,
    budget::Budget,
    lane::{
        LaneSender, OutletHealth,
        personal_accounts::{Author, PersonalAccount, PersonalAccounts, Speaker, StandIn},
    },
};
use footbridge_matrix::{
    MatrixError, PersonalDevice, account, personal_login, session::SessionState,
};
use footbridge_store::{AccountId, AccountRole, OwnAccount, Place, Side};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, info_span, warn};

use super::App;

/// The pause between the starts of two accounts: a homeserver may limit how fast sessions are resumed from one address.
const START_INTERVAL: Duration = Duration::from_millis(100);
/// The accounts are compared with the store this often even without a signal.
const SLOW_POLL: Duration = Duration::from_mins(1);

/// The lanes know within this time of what the store says of accounts and persons.
const NOTICED_WITHIN: Duration = Duration::from_mins(1);

/// The personal accounts that send into rooms.
#[derive(Default)]
pub(super) struct Accounts {
    to_matrix: PersonalAccounts,
    /// The rooms of the portals that run.
    rooms: watch::Sender<Vec<Place>>,
}

/// The accounts that run, each with its task and the token that stops it.
type Running = HashMap<AccountId, (tokio::task::Id, CancellationToken)>;

impl Accounts {
    /// Which accounts may send in a lane.
    pub(super) fn sender(&self, toward: Side) -> LaneSender {
        match toward {
            Side::Matrix => LaneSender::relay_and(self.to_matrix.clone()),
            // No silo knows accounts of persons yet.
            Side::Silo => LaneSender::default(),
        }
    }

    /// The personal accounts that send into rooms.
    pub(super) fn to_matrix(&self) -> &PersonalAccounts {
        &self.to_matrix
    }

    /// These are the rooms of the portals that run.
    pub(super) fn set_rooms(&self, rooms: Vec<Place>) {
        self.rooms.send_if_modified(|known| {
            let changed = *known != rooms;
            *known = rooms;
            changed
        });
    }
}

impl App {
    /// Runs the personal accounts that the store has, those that log in meanwhile among them, until stopped. An error is one of
    /// the store.
    pub(super) async fn run_accounts(
        self: Arc<Self>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let changed = self.signals.accounts();
        let mut running = Running::new();
        let mut tasks: JoinSet<(AccountId, anyhow::Result<()>)> = JoinSet::new();
        while !stop.is_cancelled() {
            self.refresh_accounts(&mut running, &mut tasks, &stop)
                .await?;
            tokio::select! {
                () = stop.cancelled() => {}
                _ = timeout(SLOW_POLL, changed.notified()) => {}
                Some(ended) = tasks.join_next() => self.account_ended(ended, &mut running)?,
            }
        }
        while let Some(ended) = tasks.join_next().await {
            self.account_ended(ended, &mut running)?;
        }
        Ok(())
    }

    fn account_ended(
        &self,
        ended: Result<(AccountId, anyhow::Result<()>), tokio::task::JoinError>,
        running: &mut Running,
    ) -> anyhow::Result<()> {
        match ended {
            Ok((account, result)) => {
                running.remove(&account);
                self.accounts.to_matrix.remove(account);
                result
            }
            Err(error) if error.is_cancelled() => Ok(()),
            Err(error) => {
                // Only this account is affected; the next comparison with the store starts it again.
                error!(error = %error, "The task of a person's account panicked. Please report this bug");
                running.retain(|account, (task, _)| {
                    let runs = *task != error.id();
                    if !runs {
                        self.accounts.to_matrix.remove(*account);
                    }
                    runs
                });
                Ok(())
            }
        }
    }

    /// Starts what has logged in, stops what has logged out, and reads who speaks for whom.
    async fn refresh_accounts(
        &self,
        running: &mut Running,
        tasks: &mut JoinSet<(AccountId, anyhow::Result<()>)>,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let accounts = self.store.own_accounts().await?;
        self.matrix.network().reload_accounts().await?;
        let personal = personal(&accounts);
        self.read_speakers(&personal).await?;
        running.retain(|id, (_, token)| {
            let is_active = personal.iter().any(|account| account.id == *id);
            if !is_active {
                token.cancel();
            }
            is_active
        });
        for account in &personal {
            if running.contains_key(&account.id) || stop.is_cancelled() {
                continue;
            }
            let token = stop.child_token();
            let (app, id, ends) = (self.personal_runner(), account.id, token.clone());
            let span = info_span!("account", account.id = id.0);
            let task = tasks.spawn(async move { (id, app.run(id, ends).await) }.instrument(span));
            running.insert(id, (task.id(), token));
            sleep(START_INTERVAL).await;
        }
        Ok(())
    }

    /// Reads who speaks for whom. Called before the first lane starts, too.
    pub(super) async fn load_speakers(&self) -> anyhow::Result<()> {
        let accounts = self.store.own_accounts().await?;
        self.read_speakers(&personal(&accounts)).await
    }

    async fn read_speakers(&self, personal: &[&OwnAccount]) -> anyhow::Result<()> {
        let known = self.store.person_accounts().await?;
        let speakers = known.iter().filter_map(|person| {
            let mut personal = personal.iter();
            let account = personal.find(|account| account.user_id == person.user_id)?;
            let author = Author {
                network: person.silo.clone(),
                user: person.silo_user.clone(),
            };
            let since = account.since.max(person.proved_at).plus(NOTICED_WITHIN);
            let account = account.id;
            Some((author, Speaker { account, since }))
        });
        self.accounts.to_matrix.set_authors(speakers.collect());
        Ok(())
    }

    fn personal_runner(&self) -> PersonalRunner {
        PersonalRunner {
            matrix: self.matrix.clone(),
            store: self.store.clone(),
            key: self.key.clone(),
            config: self.config.matrix.clone(),
            accounts: self.accounts.to_matrix.clone(),
            rooms: self.accounts.rooms.subscribe(),
            signals: self.signals.clone(),
            http: self.http.clone(),
        }
    }
}

fn personal(accounts: &[OwnAccount]) -> Vec<&OwnAccount> {
    let accounts = accounts.iter();
    accounts
        .filter(|account| account.role == AccountRole::Personal && account.is_active)
        .collect()
}

/// Runs one personal account.
struct PersonalRunner {
    matrix: Arc<footbridge_matrix::Matrix>,
    store: footbridge_store::Store,
    key: Arc<footbridge_store::StoreKey>,
    config: footbridge_matrix::MatrixConfig,
    accounts: PersonalAccounts,
    rooms: watch::Receiver<Vec<Place>>,
    signals: footbridge_core::inbox::Signals,
    http: reqwest::Client,
}

impl PersonalRunner {
    /// Runs the account until it is stopped or its session is over. Any other failure is retried, ever more slowly. An error is
    /// one of the store.
    async fn run(self, account: AccountId, stop: CancellationToken) -> anyhow::Result<()> {
        let mut backoff = Backoff::default();
        while !stop.is_cancelled() {
            let ended = self.attempt(account, &stop).await;
            self.accounts.remove(account);
            let error = match ended {
                Ok(()) => return Ok(()),
                Err(MatrixError::Store(error)) => return Err(error.into()),
                Err(MatrixError::SignedOut(reason)) => {
                    if self.is_gone(account).await? {
                        warn!(
                            reason,
                            "A person has removed the bridge's device; the relay speaks for them"
                        );
                        account::forget_person(&self.store, account).await?;
                        self.accounts.stand_in(account, StandIn::Removed);
                        self.signals.notify_accounts_changed();
                        return Ok(());
                    }
                    format!("{reason}; another login of the person continues on the same device")
                }
                Err(error) => format!("{error:#}"),
            };
            let wait = backoff.failed();
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            error!(
                wait_ms,
                error, "A person's account cannot run; trying again"
            );
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.cancelled() => {}
            }
        }
        Ok(())
    }

    /// Whether the homeserver says that the device was removed, and not only that its session has expired. An error is one of the
    /// store.
    async fn is_gone(&self, account: AccountId) -> anyhow::Result<bool> {
        match personal_login::state(&self.store, &self.http, account).await {
            Ok(state) => Ok(state == SessionState::Gone),
            Err(error @ MatrixError::Store(_)) => Err(error.into()),
            // It was logged out meanwhile, which has removed everything; or it is broken, which is no reason to stop the others.
            Err(_) => Ok(false),
        }
    }

    async fn attempt(
        &self,
        account: AccountId,
        stop: &CancellationToken,
    ) -> Result<(), MatrixError> {
        let network = self.matrix.shared_network();
        let device = PersonalDevice::open(network, &self.key, &self.config, account).await?;
        let (budget, health) = (Budget::steady(), OutletHealth::default());
        let signed = |is_signed: bool| {
            if is_signed {
                self.accounts.add(PersonalAccount {
                    account,
                    outlet: device.outlet(),
                    budget: budget.clone(),
                    health: health.clone(),
                });
                info!("A person's account speaks for its person");
            } else if self.accounts.is_running(account) {
                self.accounts.remove(account);
                warn!("A person's device is no longer signed; the relay speaks for them");
            }
        };
        device.run(self.rooms.clone(), &signed, stop.clone()).await
    }
}
