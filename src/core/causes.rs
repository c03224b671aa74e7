//! Why something failed, in one line: an error and what is behind it, each said once.

use std::error::Error;

/// The error and its causes, each of which many libraries say already in the text of what it caused.
#[must_use]
pub fn once(error: &(dyn Error + 'static)) -> String {
    // Of our own kinds some say all that is behind them.
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
    fn a_cause_is_said_once() {
        let said = anyhow::Error::new(Wire::Io(refused())).context("Cannot reach it");
        assert_eq!(once(said.as_ref()), "Cannot reach it: IO error: refused");
        let unsaid = anyhow::Error::new(Wire::Broken(refused()));
        assert_eq!(once(unsaid.as_ref()), "it broke: refused");
    }
}
