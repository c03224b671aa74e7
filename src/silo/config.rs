//! What the configuration sections of several kinds of silos share.

use footbridge_core::{
    config_keys::{Key, ValueError},
    media_fetcher::MediaHost,
};

/// How often each channel is compared with the silo's history.
pub static AUDIT: Key = Key::duration("audit", 10..=3600, 300);

/// A host that files are fetched from: a name or an address, with a port if it is not the usual one.
pub(crate) fn check_media_host(text: &str) -> Result<(), ValueError> {
    match text.parse::<MediaHost>() {
        Ok(_) => Ok(()),
        Err(why) => Err(ValueError {
            code: "B11",
            what: format!("`{text}` is {why}"),
            help: "write a host name as in the URLs of files, for example \"media.example.org\""
                .to_owned(),
        }),
    }
}

/// The hosts of texts that [`check_media_host`] accepted.
pub(crate) fn media_hosts(texts: &[String]) -> Vec<MediaHost> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}
