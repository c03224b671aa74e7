//! Messages to a device, of which room keys are one kind, held back or taken out of the answers of `/sync`: what a slow or a
//! broken homeserver does to encryption.

use serde_json::Value;

/// What happens to messages to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToDevice {
    /// They arrive.
    #[default]
    Pass,
    /// They wait here until they pass again.
    Hold,
    /// They are gone.
    Drop,
}

#[derive(Default)]
pub(super) struct ToDeviceQueue {
    pub(super) mode: ToDevice,
    /// Held, or given and not acknowledged: as a homeserver does, they are given again until the device asks from the
    /// place behind them. Whoever is killed before has not had them.
    held: Vec<Value>,
    /// Places in the stream, with how many of the first held ones came before each.
    given: Vec<(String, usize)>,
    /// How many were held or dropped.
    pub(super) taken: u64,
}

impl ToDeviceQueue {
    /// Whether answers have to be read at all.
    pub(super) fn is_idle(&self) -> bool {
        self.mode == ToDevice::Pass && self.held.is_empty()
    }

    /// The device asks from this place on: what came before it has arrived.
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

    /// The answer as the device gets it that asks from `since`. What is no JSON stays what it is.
    pub(super) fn rewrite(&mut self, since: Option<&str>, body: &[u8]) -> Option<Vec<u8>> {
        let mut answer: Value = serde_json::from_slice(body).ok()?;
        let came = answer
            .pointer_mut("/to_device/events")
            .and_then(Value::as_array_mut)
            .map(std::mem::take)
            .unwrap_or_default();
        let events = match self.mode {
            ToDevice::Pass => {
                // An answer that leads nowhere acknowledges nothing: whoever comes next asks from there as well.
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

    fn answer(custody: &mut ToDeviceQueue, place: &str, events: &Value) -> Value {
        answer_from(custody, "s0", place, events)
    }

    fn answer_from(custody: &mut ToDeviceQueue, since: &str, place: &str, events: &Value) -> Value {
        let body = json!({"next_batch": place, "to_device": {"events": events}}).to_string();
        let body = custody.rewrite(Some(since), body.as_bytes()).unwrap();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(answer["next_batch"], place);
        answer["to_device"]["events"].clone()
    }

    #[test]
    fn held_messages_come_later_and_in_order_and_dropped_ones_never() {
        let mut custody = ToDeviceQueue::default();
        assert!(custody.is_idle());
        custody.mode = ToDevice::Hold;
        assert_eq!(answer(&mut custody, "s1", &json!([1, 2])), json!([]));
        assert_eq!(answer(&mut custody, "s2", &json!([3])), json!([]));
        custody.mode = ToDevice::Pass;
        assert!(!custody.is_idle());
        assert_eq!(answer(&mut custody, "s3", &json!([4])), json!([1, 2, 3, 4]));
        custody.acknowledge("s3");
        assert!(custody.is_idle());
        custody.mode = ToDevice::Drop;
        assert_eq!(answer(&mut custody, "s4", &json!([5])), json!([]));
        custody.mode = ToDevice::Pass;
        assert_eq!(answer(&mut custody, "s5", &json!([6])), json!([6]));
        assert_eq!(custody.taken, 4);
    }

    #[test]
    fn whoever_was_killed_before_asking_on_is_given_them_again() {
        let mut custody = ToDeviceQueue {
            mode: ToDevice::Hold,
            ..ToDeviceQueue::default()
        };
        answer(&mut custody, "s1", &json!([1]));
        custody.mode = ToDevice::Pass;
        // Nothing else is new, and the place stays the same.
        assert_eq!(
            answer_from(&mut custody, "s1", "s1", &json!([])),
            json!([1])
        );
        // The same place is asked from again; what the homeserver itself adds, it adds again.
        custody.acknowledge("s1");
        assert_eq!(answer(&mut custody, "s2", &json!([2])), json!([1, 2]));
        custody.acknowledge("s1");
        custody.mode = ToDevice::Hold;
        assert_eq!(answer(&mut custody, "s3", &json!([3])), json!([]));
        // An answer that was given before holds what it held.
        custody.acknowledge("s2");
        custody.mode = ToDevice::Pass;
        assert_eq!(answer(&mut custody, "s4", &json!([])), json!([3]));
        custody.acknowledge("s4");
        assert!(custody.is_idle());
    }
}
