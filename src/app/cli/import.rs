//! `footbridge import`: converts another bridge's configuration. It does not change that file and never overwrites an
//! existing one.

mod matterbridge;

use std::path::Path;

use super::{CommandResult, console, init};
use crate::config::{Diagnostic, Exit, Report};

/// The file for the silo's token, beside the configuration.
const TOKEN_FILE: &str = "matterbridge.token";

/// Reads the file, writes the configuration, and reports what is left to do.
pub fn run(path: &Path, foreign: &Path) -> CommandResult {
    init::refuse_existing(path).map_err(Report::of)?;
    let text = read(foreign).map_err(Report::of)?;
    let name = foreign.file_name().unwrap_or(foreign.as_os_str());
    let name = name.to_string_lossy();
    let found = matterbridge::read(&text)
        .map_err(|error| {
            Diagnostic::new("B05", format!("{} is not TOML: {error}", foreign.display()))
        })
        .map_err(|diagnostic| {
            Report::of(diagnostic.help("check that Matterbridge starts with it"))
        })?;
    let imported = matterbridge::convert(&found, TOKEN_FILE);
    if imported.portals == 0 {
        return Err(Report::of(nothing(foreign, &imported.remarks)));
    }
    if let Some(token) = &imported.token {
        let base = path.parent().unwrap_or(Path::new(""));
        let file = base.join(TOKEN_FILE);
        init::refuse_token(&file, "move it away").map_err(Report::of)?;
        init::write_new(&file, token.expose()).map_err(Report::of)?;
    }
    let head = format!(
        "# Converted from {} by `footbridge import`. Every option, its default and its reason: config.toml.example\n\n",
        name.escape_debug()
    );
    init::write_new(path, &format!("{head}{}", imported.file)).map_err(Report::of)?;
    console::say(&summary(path, &imported));
    Ok(Exit::Fine)
}

fn read(path: &Path) -> Result<String, Diagnostic> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Diagnostic::new("B06", format!("{} cannot be read: {error}", path.display()))
            .exit(Exit::NoInput)
            .help("name Matterbridge's configuration, for example: footbridge import /etc/matterbridge.toml")
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned())
}

fn nothing(foreign: &Path, remarks: &[String]) -> Diagnostic {
    let what = format!(
        "no gateway in {} has a Matrix room that can be converted",
        foreign.display()
    );
    let diagnostic = Diagnostic::new("B04", what).exit(Exit::Usage);
    // Other remarks do not matter, as no file is written.
    let of_gateways = remarks
        .iter()
        .filter(|remark| remark.starts_with("Gateway"));
    let diagnostic = of_gateways.fold(diagnostic, |diagnostic, remark| {
        diagnostic.note(remark.clone())
    });
    diagnostic.help("nothing was written; copy config.toml.example instead")
}

fn summary(path: &Path, imported: &matterbridge::Imported) -> String {
    let mut lines = vec![format!(
        "Wrote {}: {} of {} Matrix rooms in {} gateways.",
        path.display(),
        imported.portals,
        imported.rooms,
        imported.gateways
    )];
    if !imported.remarks.is_empty() {
        lines.push("\nNot converted, or to be checked:".to_owned());
    }
    lines.extend(imported.remarks.iter().map(|remark| format!("- {remark}")));
    if !imported.changes.is_empty() {
        lines.push("\nTo be changed in Matterbridge's own configuration:".to_owned());
    }
    lines.extend(imported.changes.iter().map(|change| format!("- {change}")));
    lines.push("\nThen: footbridge login, footbridge check, footbridge run".to_owned());
    lines.join("\n")
}
