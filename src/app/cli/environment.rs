//! Checks environment variables with the prefix `FOOTBRIDGE_`: a misspelt one would silently do nothing.

use std::ffi::OsString;

use crate::config::{Diagnostic, Report, values::nearest};

/// The variables that the program reads.
const KNOWN: &[&str] = &["FOOTBRIDGE_CONFIG", "FOOTBRIDGE_LOG"];

/// Finds unknown variables with the prefix. One that looks like a misspelt known one is an error; others are warnings,
/// because container platforms make variables out of the names of their services.
pub fn check(names: impl Iterator<Item = OsString>) -> Report {
    let mut unknown: Vec<String> = names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.starts_with("FOOTBRIDGE_") && !KNOWN.contains(&name.as_str()))
        .collect();
    unknown.sort();
    let diagnostics = unknown.iter().map(|name| diagnose(name)).collect();
    Report {
        source: None,
        diagnostics,
    }
}

fn diagnose(name: &str) -> Diagnostic {
    let diagnostic = Diagnostic::new("B34", format!("unknown environment variable `{name}`"));
    match nearest(name, KNOWN.iter().copied()) {
        Some(known) => diagnostic.help(format!("did you mean `{known}`?")),
        None => diagnostic
            .warning()
            .help(format!("unset {name}, or ignore this; it changes nothing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Exit;

    #[test]
    fn a_misspelt_variable_is_an_error_and_a_foreign_one_a_warning() {
        let names = |names: &[&str]| {
            check(
                names
                    .iter()
                    .map(OsString::from)
                    .collect::<Vec<_>>()
                    .into_iter(),
            )
        };
        assert!(
            names(&["FOOTBRIDGE_LOG", "FOOTBRIDGE_CONFIG", "PATH"])
                .diagnostics
                .is_empty()
        );
        let foreign = names(&["FOOTBRIDGE_SERVICE_PORT_ADMIN"]);
        assert_eq!((foreign.diagnostics.len(), foreign.exit()), (1, Exit::Fine));
        let misspelt = names(&["FOOTBRIDGE_CONFG"]);
        assert_eq!(misspelt.exit(), Exit::Configuration);
        assert!(
            misspelt
                .to_string()
                .contains("did you mean `FOOTBRIDGE_CONFIG`?")
        );
    }
}
