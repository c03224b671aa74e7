//! Our account: who it is, what it may, and whether it is still let in.

use std::sync::atomic::Ordering;

use super::{Mattermost, api::User, fault::Fault};

impl Mattermost {
    /// Our account. The first time it also finds out whether names may stand beside the text.
    pub(super) async fn me(&self) -> Result<&User, Fault> {
        let asked = self.me.get_or_try_init(async || {
            let me = self.client.me().await?;
            if self.wants_names {
                let settings = self.client.settings().await?;
                let permits = me.is_bot && settings.names == "true";
                self.permits.store(permits, Ordering::Relaxed);
                if !permits {
                    tracing::warn!(silo.name = %self.name,
                        "`names = \"override\"` needs a bot account and a server that lets integrations override \
                         usernames; names stand in the text instead");
                }
            }
            Ok(me)
        });
        asked.await.inspect_err(|fault| self.note(fault))
    }

    /// Keeps what a fault says of the whole account, and says it once.
    pub(super) fn note(&self, fault: &Fault) {
        if matches!(fault, Fault::SignedOut) {
            self.health.signed_out();
            self.sign_out.say(&self.name, fault);
        }
    }
}
