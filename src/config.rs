//! config.toml → Config: parse, check, secrets.
