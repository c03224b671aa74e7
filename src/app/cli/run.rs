//! `footbridge run`

use super::{CommandResult, exit, preflight};
use crate::{
    bridge,
    config::{Config, Exit, Diagnostic, Report},
};

/// Bridges until told to stop.
pub async fn run(config: Config) -> CommandResult {
    preflight::before_opening(&config)?;
    if !config.store.key_file.exists() && !config.store.path.exists() {
        return Err(Report::of(
            Diagnostic::new(
                "B20",
                "nobody is logged in: there is neither a store nor a key",
            )
            .exit(Exit::Permission)
            .help("footbridge login"),
        ));
    }
    match bridge::run(config).await {
        Ok(()) => Ok(Exit::Fine),
        Err(error) => Err(Report::of(exit::from_bridge_error(&error))),
    }
}
