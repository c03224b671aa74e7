//! Edits that do not go out as they are: a later one was there before them, or the message they change failed and is
//! kept to be tried again.

use footbridge_store::{Copies, Delivery, Error, RemoteId};

use super::{
    Lane,
    batch::{INCLUDED, rewrite},
};
use crate::message::{Action, Message};

/// The rule for an edit that comes after a later one.
const SUPERSEDED: &str = "superseded";

impl Lane {
    /// The rule by which this edit of `target` is not sent, if any.
    pub(super) async fn edit_rule(
        &self,
        delivery: &Delivery,
        edit: &Message,
        target: &RemoteId,
        known: &Copies,
    ) -> Result<Option<&'static str>, Error> {
        let latest =
            self.store
                .is_latest_edit(&delivery.from, target, &delivery.to, delivery.entry);
        if !latest.await? {
            return Ok(Some(SUPERSEDED));
        }
        let included =
            known.copies.is_empty() && self.rewrite_failed(delivery, edit, target).await?;
        Ok(included.then_some(INCLUDED))
    }

    /// Writes the new text into the message if that failed and is kept: trying it again sends what its author wants
    /// by then.
    async fn rewrite_failed(
        &self,
        delivery: &Delivery,
        edit: &Message,
        target: &RemoteId,
    ) -> Result<bool, Error> {
        let Action::Edit { body, style, .. } = &edit.action else {
            return Ok(false);
        };
        for parked in self.store.parked_about(&delivery.from, target).await? {
            let kept = parked.letter.filter(|_| parked.to == delivery.to);
            let Some(mut message) = kept.and_then(|letter| Message::from_bytes(&letter).ok())
            else {
                continue;
            };
            rewrite(&mut message.action, body, *style);
            let is_new = matches!(message.action, Action::Post { .. });
            if let (true, Ok(letter)) = (is_new, message.to_bytes()) {
                return self.store.rewrite_failed(parked.id, letter).await;
            }
        }
        Ok(false)
    }
}
