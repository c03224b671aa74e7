//! One room key that arrives twice in one sync. A sender that writes after establishing a new Olm session shares the
//! key again, from its current ratchet index on; a bridge that was offline receives both at once. The SDK compares each
//! with the store, which has neither yet, and would overwrite the first with the second: all messages before that index
//! could then never be decrypted.

use matrix_sdk_crypto::olm::InboundGroupSession;

/// Of the keys of one session by one sender keeps the one with the lowest index.
pub(super) fn keep_earliest(keys: &mut Vec<InboundGroupSession>) {
    let mut kept: Vec<InboundGroupSession> = Vec::with_capacity(keys.len());
    for key in keys.drain(..) {
        match kept.iter_mut().find(|known| is_same(known, &key)) {
            Some(known) if key.first_known_index() < known.first_known_index() => *known = key,
            Some(_) => {}
            None => kept.push(key),
        }
    }
    *keys = kept;
}

fn is_same(one: &InboundGroupSession, other: &InboundGroupSession) -> bool {
    one.session_id() == other.session_id()
        && one.room_id() == other.room_id()
        && one.sender_key() == other.sender_key()
}

#[cfg(test)]
mod tests {
    use matrix_sdk_crypto::{Account, olm::SenderData, types::EventEncryptionAlgorithm};
    use ruma::{device_id, room_id, user_id};
    use vodozemac::megolm::{GroupSession, SessionConfig};

    use super::*;

    fn shared(by: &Account, session: &GroupSession) -> InboundGroupSession {
        let keys = by.identity_keys();
        InboundGroupSession::new(
            keys.curve25519,
            keys.ed25519,
            room_id!("!room:x"),
            &session.session_key(),
            SenderData::unknown(),
            None,
            EventEncryptionAlgorithm::MegolmV1AesSha2,
            None,
            false,
        )
        .unwrap()
    }

    #[test]
    fn of_a_key_that_comes_twice_the_one_that_reads_more_is_stored() {
        let ann = Account::with_device_id(user_id!("@ann:x"), device_id!("ANN"));
        let eve = Account::with_device_id(user_id!("@eve:x"), device_id!("EVE"));
        let mut session = GroupSession::new(SessionConfig::version_1());
        let other = GroupSession::new(SessionConfig::version_1());
        let first = shared(&ann, &session);
        let foreign = shared(&eve, &session);
        for _ in 0..8 {
            session.encrypt("x");
        }
        let again = shared(&ann, &session);
        assert_eq!(
            (first.first_known_index(), again.first_known_index()),
            (0, 8)
        );
        for order in [[&first, &again], [&again, &first]] {
            let mut keys: Vec<_> = order.into_iter().cloned().collect();
            keys.push(shared(&ann, &other));
            // Eve's copy proves nothing about Ann and must not replace hers.
            keys.push(foreign.clone());
            keep_earliest(&mut keys);
            let indices: Vec<_> = keys
                .iter()
                .map(InboundGroupSession::first_known_index)
                .collect();
            assert_eq!(indices, [0, 0, 0]);
            assert_eq!(keys[0].sender_key(), ann.identity_keys().curve25519);
        }
    }
}
