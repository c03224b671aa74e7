//! What people are told of messages that cannot be read, as letters.

use footbridge_store::{Millis, RemoteId, Tells};

use crate::message::{About, Message};

/// What is said of messages that cannot be read; nothing where there are no words.
#[derive(Clone, Debug, Default)]
pub struct Unreadable {
    /// Where they do not appear.
    pub there: Option<String>,
    /// Where they were sent.
    pub here: Option<String>,
    /// Where they were sent, of an end, if nothing was said there before.
    pub ended: Option<String>,
    /// The sign on the first of them.
    pub mark: Option<&'static str>,
}

impl Unreadable {
    /// What writes the letters of it.
    pub(super) fn letters(
        self,
        now: Millis,
    ) -> impl Fn(Tells<'_>) -> Option<Vec<u8>> + Send + Sync + 'static {
        move |what| {
            let about = |first: &RemoteId| About {
                message: first.clone(),
                thread: None,
            };
            let changed = |fact: &RemoteId, text| Message::changed_notice(fact.clone(), text, now);
            let message = match what {
                Tells::There => Message::notice(self.there.as_ref()?, now),
                Tells::Changed(fact) => changed(fact, self.there.as_ref()?),
                Tells::Here(first) => {
                    Message::notice_about(self.here.as_ref()?, Some(about(first)), now)
                }
                Tells::ChangedHere(fact) => changed(fact, self.here.as_ref()?),
                Tells::Ended => Message::notice(self.ended.as_ref()?, now),
                Tells::Mark(first) => Message::mark(first.clone(), self.mark?, now),
            };
            message.to_bytes().ok()
        }
    }
}
