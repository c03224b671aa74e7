//! `footbridge import`: from another bridge's configuration to ours. Reads that file, changes nothing in it, and never
//! writes over one of ours.

mod matterbridge;

use std::path::Path;

use super::{CommandResult, console, init};
use crate::config::{Diagnostic, Exit, Report};

/// The file that the silo's token goes into, beside the configuration.
const TOKEN_FILE: &str = "matterbridge.token";

/// Reads, writes, and tells what is left to do.
pub fn run(path: &Path, foreign: &Path) -> CommandResult {
    init::refuse_existing(path).map_err(Report::of)?;
    let text = read(foreign).map_err(Report::of)?;
    let name = foreign.file_name().unwrap_or(foreign.as_os_str());
    let name = name.to_string_lossy();
    let found = matterbridge::read(&text)
        .map_err(|flaw| {
            Diagnostic::new("B05", format!("{} is not TOML: {flaw}", foreign.display()))
        })
        .map_err(|fault| {
            Report::of(fault.help("let Matterbridge read it first: it must start with it"))
        })?;
    let carried = matterbridge::convert(&found, TOKEN_FILE);
    if carried.portals == 0 {
        return Err(Report::of(nothing(foreign, &carried.remarks)));
    }
    if let Some(token) = &carried.token {
        let base = path.parent().unwrap_or(Path::new(""));
        let file = base.join(TOKEN_FILE);
        init::refuse_token(&file, "move it away").map_err(Report::of)?;
        init::write_new(&file, token.expose()).map_err(Report::of)?;
    }
    let head = format!(
        "# Made of {} by `footbridge import`. Every option with its default and its reason: config.toml.example\n\n",
        name.escape_debug()
    );
    init::write_new(path, &format!("{head}{}", carried.file)).map_err(Report::of)?;
    console::say(&told(path, &carried));
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
        "no gateway in {} joins a Matrix room that could be carried over",
        foreign.display()
    );
    let fault = Diagnostic::new("B04", what).exit(Exit::Usage);
    // What else is missing in a file that is not written matters to nobody.
    let of_gateways = remarks
        .iter()
        .filter(|remark| remark.starts_with("Gateway"));
    let fault = of_gateways.fold(fault, |fault, remark| fault.note(remark.clone()));
    fault.help("nothing was written; copy config.toml.example instead")
}

fn told(path: &Path, carried: &matterbridge::Imported) -> String {
    let mut lines = vec![format!(
        "Wrote {}: {} of {} Matrix rooms in {} gateways.",
        path.display(),
        carried.portals,
        carried.rooms,
        carried.gateways
    )];
    if !carried.remarks.is_empty() {
        lines.push("\nNot carried over, or to be looked at:".to_owned());
    }
    lines.extend(carried.remarks.iter().map(|remark| format!("- {remark}")));
    if !carried.changes.is_empty() {
        lines.push("\nTo be changed in Matterbridge's own configuration:".to_owned());
    }
    lines.extend(carried.changes.iter().map(|change| format!("- {change}")));
    lines.push("\nThen: footbridge login, footbridge check, footbridge run".to_owned());
    lines.join("\n")
}
