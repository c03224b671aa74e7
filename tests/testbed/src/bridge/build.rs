//! Builds the `footbridge` program for tools that are not its tests: with the cargo that started the tool and in the
//! same profile, so that nothing is compiled twice.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, bail};
use tokio::process::Command;

/// Builds the program if something changed and returns its path. Cargo's own progress goes to stderr.
pub async fn footbridge() -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        // Both packages, because otherwise the features would differ and cargo would build everything again.
        .args([
            "build",
            "--quiet",
            "-p",
            "footbridge",
            "-p",
            "footbridge-testbed",
            "--bin",
            "footbridge",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null());
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let status = command.status().await.context("cannot run cargo")?;
    if !status.success() {
        bail!("the bridge does not build");
    }
    let here = std::env::current_exe()?;
    let binary = here.with_file_name("footbridge");
    if !binary.exists() {
        bail!("cargo built no {}", binary.display());
    }
    Ok(binary)
}
