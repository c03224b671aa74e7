//! The keys of a silo of kind `matterbridge`.

use footbridge_silo::matterbridge::MatterbridgeConfig;

use super::{media_host, url_of};
use crate::config::{
    schema::Section,
    sections::{ConfigReader, span_of},
    values::{self, ValueError},
};

/// Where Matterbridge listens by its own example.
const EXAMPLE: &str = "\"http://127.0.0.1:4242\"";

impl ConfigReader<'_> {
    pub(super) fn matterbridge(
        &mut self,
        section: &Section<'_>,
        name: Option<String>,
    ) -> Option<MatterbridgeConfig> {
        // Without `Token` in its API account Matterbridge lets everybody in.
        let token = self.token_if_any(section);
        let has_token = section.key_span("token").or(section.key_span("token_file"));
        let walk = &mut self.schema;
        let web: &[&str] = &["https", "http"];
        let api = walk.required(section, "api", EXAMPLE, |text| {
            values::base_url("api", text, web)
        });
        let account = walk.read(section, "account", account);
        let avatar = section
            .key_span("avatar")
            .and_then(|_| url_of(walk, section, "avatar", "", &["https"]));
        let media_hosts = walk.texts(section, "media_hosts", media_host);
        let ping = span_of(walk, section, "ping", 1..=300, 30);
        let audit = span_of(walk, section, "audit", 10..=3600, 300);
        if has_token.is_some() && token.is_none() {
            return None;
        }
        Some(MatterbridgeConfig {
            name: name?,
            token,
            api: api?,
            account,
            avatar,
            media_hosts,
            ping,
            audit,
        })
    }
}

/// An account as Matterbridge calls it: `[api.NAME]` in its own configuration.
fn account(text: &str) -> Result<String, ValueError> {
    let own = text.strip_prefix("api.").unwrap_or_default();
    if own.is_empty()
        || text.len() > 255
        || text.contains(|c: char| c.is_whitespace() || c.is_control())
    {
        return Err(ValueError {
            code: "B04",
            what: format!("`{text}` is not the name of an API account"),
            help: "write it as Matterbridge's configuration does, without the brackets, for example \"api.footbridge\""
                .to_owned(),
        });
    }
    Ok(text.to_owned())
}
