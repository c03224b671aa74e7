//! The notices about undecryptable messages, as payloads.

use footbridge_store::{Millis, RemoteId, UndecryptableText};

use crate::message::{Message, ReplyTarget};

/// The texts about undecryptable messages; `None` sends no notice.
#[derive(Clone, Debug, Default)]
pub struct UndecryptableTexts {
    /// For the places where the messages do not appear.
    pub elsewhere: Option<String>,
    /// For the place where they were sent.
    pub to_sender: Option<String>,
    /// For the place where they were sent, about the result, if no notice was sent there before.
    pub resolution: Option<String>,
    /// The marker on the first of them.
    pub marker: Option<&'static str>,
}

impl UndecryptableTexts {
    /// The function that builds the payloads of these notices.
    pub(super) fn renderer(
        self,
        now: Millis,
    ) -> impl Fn(UndecryptableText<'_>) -> Option<Vec<u8>> + Send + Sync + 'static {
        move |what| {
            let about = |first: &RemoteId| ReplyTarget {
                message: first.clone(),
                thread: None,
            };
            let changed =
                |notice_id: &RemoteId, text| Message::edited_notice(notice_id.clone(), text, now);
            let message = match what {
                UndecryptableText::Elsewhere => Message::notice(self.elsewhere.as_ref()?, now),
                UndecryptableText::ElsewhereEdit(notice_id) => {
                    changed(notice_id, self.elsewhere.as_ref()?)
                }
                UndecryptableText::ToSender(first) => {
                    Message::notice_about(self.to_sender.as_ref()?, Some(about(first)), now)
                }
                UndecryptableText::ToSenderEdit(notice_id) => {
                    changed(notice_id, self.to_sender.as_ref()?)
                }
                UndecryptableText::Resolution => Message::notice(self.resolution.as_ref()?, now),
                UndecryptableText::Marker(first) => {
                    Message::marker(first.clone(), self.marker?, now)
                }
            };
            message.to_bytes().ok()
        }
    }
}
