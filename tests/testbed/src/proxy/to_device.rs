//! To-device messages, which include room keys, held back or removed from sync responses, as a slow or broken
//! homeserver would.

use serde_json::Value;

/// What happens to to-device messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToDevice {
    /// They are delivered.
    #[default]
    Pass,
    /// They are held until the mode is [`Self::Pass`] again.
    Hold,
    /// They are lost.
    Drop,
}

#[derive(Default)]
pub(super) struct ToDeviceQueue {
    pub(super) mode: ToDevice,
    /// Messages that are held, or delivered and not acknowledged. As a homeserver does, the proxy delivers them again
    /// until the device syncs from a later position: a device that was killed before has not stored them.
    held: Vec<Value>,
    /// Stream positions, each with the number of messages of `held` that were delivered before it.
    given: Vec<(String, usize)>,
    /// How many messages were held or dropped.
    pub(super) taken: u64,
}

impl ToDeviceQueue {
    /// Whether sync responses need not be parsed.
    pub(super) fn is_idle(&self) -> bool {
        self.mode == ToDevice::Pass && self.held.is_empty()
    }

    /// The device syncs from this position, so what was delivered before it has arrived.
    pub(super) fn acknowledge(&mut self, since: &str) {
        let Some((_, count)) = self.given.iter().find(|(place, _)| place == since) else {
            return;
        };
        let count = *count;
        self.held.drain(..count);
        self.given.retain_mut(|(_, given)| {
            *given = given.saturating_sub(count);
            *given > 0
        });
    }

    /// The response that the device gets for a sync from `since`. `None` if the body is not JSON.
    pub(super) fn rewrite(&mut self, since: Option<&str>, body: &[u8]) -> Option<Vec<u8>> {
        let mut answer: Value = serde_json::from_slice(body).ok()?;
        let came = answer
            .pointer_mut("/to_device/events")
            .and_then(Value::as_array_mut)
            .map(std::mem::take)
            .unwrap_or_default();
        let events = match self.mode {
            ToDevice::Pass => {
                // A response whose position does not advance acknowledges nothing: the next sync uses the same
                // position.
                let next = answer.get("next_batch").and_then(Value::as_str);
                if let Some(place) = next.filter(|place| Some(*place) != since) {
                    self.given.push((place.to_owned(), self.held.len()));
                }
                let mut events = self.held.clone();
                events.extend(came);
                events
            }
            mode => {
                self.taken += u64::try_from(came.len()).unwrap_or_default();
                if mode == ToDevice::Hold {
                    self.held.extend(came);
                }
                Vec::new()
            }
        };
        let object = answer.as_object_mut()?;
        object.insert(
            "to_device".to_owned(),
            serde_json::json!({ "events": events }),
        );
        serde_json::to_vec(&answer).ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(queue: &mut ToDeviceQueue, place: &str, events: &Value) -> Value {
        answer_from(queue, "s0", place, events)
    }

    fn answer_from(queue: &mut ToDeviceQueue, since: &str, place: &str, events: &Value) -> Value {
        let body = json!({"next_batch": place, "to_device": {"events": events}}).to_string();
        let body = queue.rewrite(Some(since), body.as_bytes()).unwrap();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(answer["next_batch"], place);
        answer["to_device"]["events"].clone()
    }

    #[test]
    fn held_messages_come_later_and_in_order_and_dropped_ones_never() {
        let mut queue = ToDeviceQueue::default();
        assert!(queue.is_idle());
        queue.mode = ToDevice::Hold;
        assert_eq!(answer(&mut queue, "s1", &json!([1, 2])), json!([]));
        assert_eq!(answer(&mut queue, "s2", &json!([3])), json!([]));
        queue.mode = ToDevice::Pass;
        assert!(!queue.is_idle());
        assert_eq!(answer(&mut queue, "s3", &json!([4])), json!([1, 2, 3, 4]));
        queue.acknowledge("s3");
        assert!(queue.is_idle());
        queue.mode = ToDevice::Drop;
        assert_eq!(answer(&mut queue, "s4", &json!([5])), json!([]));
        queue.mode = ToDevice::Pass;
        assert_eq!(answer(&mut queue, "s5", &json!([6])), json!([6]));
        assert_eq!(queue.taken, 4);
    }

    #[test]
    fn whoever_was_killed_before_asking_on_is_given_them_again() {
        let mut queue = ToDeviceQueue {
            mode: ToDevice::Hold,
            ..ToDeviceQueue::default()
        };
        answer(&mut queue, "s1", &json!([1]));
        queue.mode = ToDevice::Pass;
        // Nothing else is new, and the position stays the same.
        assert_eq!(answer_from(&mut queue, "s1", "s1", &json!([])), json!([1]));
        // The device syncs from the same position again; what the homeserver adds, it adds again.
        queue.acknowledge("s1");
        assert_eq!(answer(&mut queue, "s2", &json!([2])), json!([1, 2]));
        queue.acknowledge("s1");
        queue.mode = ToDevice::Hold;
        assert_eq!(answer(&mut queue, "s3", &json!([3])), json!([]));
        // A response that was sent before contains the same as then.
        queue.acknowledge("s2");
        queue.mode = ToDevice::Pass;
        assert_eq!(answer(&mut queue, "s4", &json!([])), json!([3]));
        queue.acknowledge("s4");
        assert!(queue.is_idle());
    }
}
