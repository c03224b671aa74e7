//! The keys of a silo of kind `mattermost`.

use footbridge_silo::{mattermost::MattermostConfig, plan::Attribution};
use url::Url;

use super::url_of;
use crate::config::{
    schema::Section,
    sections::{ConfigReader, span_of},
    values::{self, ValueError},
};

/// What an address looks like.
const EXAMPLE: &str = "\"https://chat.example.org\"";

impl ConfigReader<'_> {
    pub(super) fn mattermost(
        &mut self,
        section: &Section<'_>,
        name: Option<String>,
    ) -> Option<MattermostConfig> {
        let token = self.token(section);
        let walk = &mut self.schema;
        let url = walk.required(section, "url", EXAMPLE, address);
        let names = walk.read(section, "names", |text| match text {
            "text" => Ok(Attribution::Inline),
            "override" => Ok(Attribution::Override),
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
            names: names.unwrap_or(Attribution::Inline),
            icon,
            ping,
            audit,
        })
    }
}

/// The server's address, as people open it.
fn address(text: &str) -> Result<Url, ValueError> {
    let url = values::base_url("url", text, &["https", "http"])?;
    if url.path().contains("/api/v4") {
        return Err(ValueError {
            code: "B11",
            what: "`url` has the path of the API in it".to_owned(),
            help: "remove `/api/v4` and what follows".to_owned(),
        });
    }
    Ok(url)
}
