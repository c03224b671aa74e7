//! Formats an error and its causes in one line, each cause once.

use std::error::Error;

/// The error and its causes. Many libraries repeat the text of a cause in the error that it caused.
#[must_use]
pub fn format(error: &(dyn Error + 'static)) -> String {
    // Some of the bridge's own error types print all of their causes.
    let mut text = format!("{error:#}");
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Wire {
        #[error("IO error: {0}")]
        Io(#[from] io::Error),
        #[error("it broke")]
        Broken(#[source] io::Error),
    }

    fn refused() -> io::Error {
        io::Error::other("refused")
    }

    #[test]
    fn each_cause_is_printed_once() {
        let chained = anyhow::Error::new(Wire::Io(refused())).context("Cannot reach it");
        assert_eq!(
            format(chained.as_ref()),
            "Cannot reach it: IO error: refused"
        );
        let separate = anyhow::Error::new(Wire::Broken(refused()));
        assert_eq!(format(separate.as_ref()), "it broke: refused");
    }
}
