//! Values that are lists of strings.

use std::ops::Range;

use footbridge_core::config_keys::Key;
use toml::de::DeValue;

use super::{
    diagnostic::Diagnostic,
    schema::{Schema, Section},
    values::ValueError,
};

impl Schema {
    /// The valid texts of a list, after `read`. Each invalid one is reported at its position.
    pub fn texts<T>(
        &mut self,
        section: &Section<'_>,
        key: &'static Key,
        read: impl Fn(&str) -> Result<T, ValueError>,
    ) -> Vec<T> {
        let Some(value) = section.value(key.name) else {
            return Vec::new();
        };
        let DeValue::Array(items) = value.get_ref() else {
            self.no_list(key.name, value.span());
            return Vec::new();
        };
        let mut texts = Vec::new();
        for item in items {
            let DeValue::String(text) = item.get_ref() else {
                self.no_list(key.name, item.span());
                continue;
            };
            match read(text.as_ref()) {
                Ok(text) => texts.push(text),
                Err(error) => self.diagnostics.push(
                    Diagnostic::new(error.code, error.what)
                        .at(item.span())
                        .help(error.help),
                ),
            }
        }
        texts
    }

    fn no_list(&mut self, key: &str, span: Range<usize>) {
        self.diagnostics.push(
            Diagnostic::new("B04", format!("`{key}` is not a list of texts"))
                .at(span)
                .help(format!(
                    "write texts in brackets, for example {key} = [\"@me:example.org\"]"
                )),
        );
    }
}
