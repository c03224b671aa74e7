//! The keys of a silo of kind `mattermost`.

use super::url_of;
use crate::{
    config::{
        sections::{Reader, span_of},
        values,
        walk::Section,
    },
    silo::{mattermost::MattermostConfig, plan::Names},
};

/// What an address looks like.
const EXAMPLE: &str = "\"https://chat.example.org\"";

impl Reader<'_> {
    pub(super) fn mattermost(
        &mut self,
        section: &Section<'_>,
        name: Option<String>,
    ) -> Option<MattermostConfig> {
        let token = self.token(section);
        let walk = &mut self.walk;
        let url = walk.need(section, "url", EXAMPLE, |text| {
            values::base_url("url", text, &["https", "http"])
        });
        let names = walk.read(section, "names", |text| match text {
            "text" => Ok(Names::InText),
            "override" => Ok(Names::Beside),
            _ => values::one_of(text, &["text", "override"]),
        });
        let icon = section
            .key_span("icon")
            .and_then(|_| url_of(walk, section, "icon", "", &["https", "http"]));
        let ping = span_of(walk, section, "ping", 1..=300, 30);
        let audit = span_of(walk, section, "audit", 10..=3600, 300);
        Some(MattermostConfig {
            name: name?,
            token: token?,
            url: url?,
            names: names.unwrap_or(Names::InText),
            icon,
            ping,
            audit,
        })
    }
}
