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
pub(super) struct Custody {
    pub(super) mode: ToDevice,
    held: Vec<Value>,
    /// How many were held or dropped.
    pub(super) taken: u64,
}

impl Custody {
    /// Whether answers have to be read at all.
    pub(super) fn is_idle(&self) -> bool {
        self.mode == ToDevice::Pass && self.held.is_empty()
    }

    /// The answer as the device gets it. What is no JSON stays what it is.
    pub(super) fn rewrite(&mut self, body: &[u8]) -> Option<Vec<u8>> {
        let mut answer: Value = serde_json::from_slice(body).ok()?;
        let came = answer
            .pointer_mut("/to_device/events")
            .and_then(Value::as_array_mut)
            .map(std::mem::take)
            .unwrap_or_default();
        let events = match self.mode {
            ToDevice::Pass => {
                let mut events = std::mem::take(&mut self.held);
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

    fn answer(custody: &mut Custody, events: &Value) -> Value {
        let body = json!({"next_batch": "s1", "to_device": {"events": events}}).to_string();
        let body = custody.rewrite(body.as_bytes()).unwrap();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(answer["next_batch"], "s1");
        answer["to_device"]["events"].clone()
    }

    #[test]
    fn held_messages_come_later_and_in_order_and_dropped_ones_never() {
        let mut custody = Custody::default();
        assert!(custody.is_idle());
        custody.mode = ToDevice::Hold;
        assert_eq!(answer(&mut custody, &json!([1, 2])), json!([]));
        assert_eq!(answer(&mut custody, &json!([3])), json!([]));
        custody.mode = ToDevice::Pass;
        assert!(!custody.is_idle());
        assert_eq!(answer(&mut custody, &json!([4])), json!([1, 2, 3, 4]));
        assert!(custody.is_idle());
        custody.mode = ToDevice::Drop;
        assert_eq!(answer(&mut custody, &json!([5])), json!([]));
        custody.mode = ToDevice::Pass;
        assert_eq!(answer(&mut custody, &json!([6])), json!([6]));
        assert_eq!(custody.taken, 4);
    }
}
