//! The keys of a silo of kind `gitter`.

use footbridge_core::media_fetcher::MediaHost;
use footbridge_silo::gitter::{Feed, GitterConfig};
use url::Url;

use super::{media_host, url_of};
use crate::config::{
    diagnostic::Diagnostic,
    schema::Section,
    sections::{ConfigReader, span_of},
    values,
};

/// What Gitter's own API allows in a minute.
const GITTER_LIMIT: u32 = 100;
const GITTER_HOST: &str = "api.gitter.im";

impl ConfigReader<'_> {
    pub(super) fn gitter(
        &mut self,
        section: &Section<'_>,
        name: Option<String>,
    ) -> Option<GitterConfig> {
        let token = self.token(section);
        let walk = &mut self.schema;
        let api = url_of(
            walk,
            section,
            "api",
            "https://api.gitter.im/v1",
            &["https", "http"],
        );
        let stream = url_of(
            walk,
            section,
            "stream",
            "https://stream.gitter.im/v1",
            &["https", "http"],
        );
        let realtime = url_of(
            walk,
            section,
            "realtime",
            "wss://ws.gitter.im/bayeux",
            &["wss", "ws", "https", "http"],
        );
        let feed = walk.read(section, "feed", |text| match text {
            "realtime" => Ok(Feed::Realtime),
            "stream" => Ok(Feed::Stream),
            _ => values::one_of(text, &["realtime", "stream"]),
        });
        let settle = span_of(walk, section, "settle", 1..=300, 20);
        let overlap = span_of(walk, section, "overlap", 0..=3600, 10);
        let audit = span_of(walk, section, "audit", 10..=3600, 300);
        let named = section.key_span("media_hosts").is_some();
        let media_hosts = if named {
            walk.texts(section, "media_hosts", media_host)
        } else {
            api.as_ref()
                .and_then(MediaHost::around)
                .into_iter()
                .collect()
        };
        let requests_per_minute = self.requests_per_minute(section, api.as_ref());
        Some(GitterConfig {
            name: name?,
            token: token?,
            api: api?,
            stream: stream?,
            realtime: realtime?,
            feed: feed.unwrap_or_default(),
            media_hosts,
            requests_per_minute,
            settle,
            overlap,
            audit,
        })
    }

    fn requests_per_minute(&mut self, section: &Section<'_>, api: Option<&Url>) -> u32 {
        const DEFAULT: u32 = 95;
        let Some(given) = self
            .schema
            .number(section, "requests_per_minute", 1..=60_000)
        else {
            return DEFAULT;
        };
        let theirs = api.is_some_and(|api| api.host_str() == Some(GITTER_HOST));
        if theirs && *given.get_ref() > GITTER_LIMIT {
            self.schema.diagnostics.push(
                Diagnostic::new(
                    "B28",
                    format!(
                        "`requests_per_minute` is more than the {GITTER_LIMIT} that `api` allows"
                    ),
                )
                .at(given.span())
                .note(format!(
                    "`api` is https://{GITTER_HOST}, which refuses what goes beyond its limit"
                ))
                .help(format!(
                    "write at most {GITTER_LIMIT}, better {DEFAULT}, or remove the line"
                )),
            );
        }
        *given.get_ref()
    }
}
