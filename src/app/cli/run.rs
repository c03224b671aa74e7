//! `footbridge run`: runs the bridge until it is stopped.

use super::{CommandResult, diagnostics, preflight};
use crate::{
    bridge,
    config::{Config, Diagnostic, Exit, Report},
};

/// Runs the bridge.
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
        Err(error) => Err(Report::of(diagnostics::from_bridge_error(&error))),
    }
}
