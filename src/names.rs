//! Names of people made harmless: no ping, no markup, no disguise.
