//! Gitter's API as a silo.

mod config;
mod convert;
mod split;

pub use config::{Feed, GitterConfig};

use std::time::Duration;

use async_trait::async_trait;
use footbridge_store::{Copy, Millis, Place};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    inbox::Inbox,
    outlet::{Done, Outgoing, Outlet, Plan, SendError, Step},
    silo::{Channel, FeedState, Silo, SiloError},
};

/// A connection to Gitter.
pub struct Gitter;

impl Gitter {
    /// Prepares the connection; requests nothing.
    pub fn new(config: GitterConfig, http: reqwest::Client, clock: Clock) -> anyhow::Result<Self> {
        let _ = (config, http, clock);
        unimplemented!()
    }
}

#[async_trait]
impl Outlet for Gitter {
    fn plan(&self, _outgoing: &Outgoing, _now: Millis) -> Result<Plan, SendError> {
        unimplemented!()
    }
    async fn perform(&self, _to: &Place, _key: &str, _step: &Step) -> Result<Done, SendError> {
        unimplemented!()
    }
    fn dedupes(&self) -> bool {
        false
    }
    async fn recall(
        &self,
        _to: &Place,
        _step: &Step,
        _since: Millis,
    ) -> Result<Vec<Copy>, SendError> {
        unimplemented!()
    }
    fn settle(&self) -> Duration {
        unimplemented!()
    }
}

#[async_trait]
impl Silo for Gitter {
    async fn whoami(&self) -> Result<String, SiloError> {
        unimplemented!()
    }
    async fn resolve(&self, _channel: &str) -> Result<Channel, SiloError> {
        unimplemented!()
    }
    async fn listen(
        &self,
        _channels: Vec<Channel>,
        _inbox: Inbox,
        _stop: CancellationToken,
    ) -> Result<(), SiloError> {
        unimplemented!()
    }
    fn feed(&self) -> FeedState {
        unimplemented!()
    }
}
