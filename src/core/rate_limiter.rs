//! Token buckets: a rate limit for each key. Kept in memory: a restart fills them, and no user in a chat can cause one.

use std::{collections::HashMap, hash::Hash, time::Duration};

use tokio::time::Instant;

/// The number of keys that are remembered; beyond that the key that was used longest ago is forgotten.
const MAX_KEYS: usize = 4_096;

/// The size of a bucket, and the time to refill one token.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// The number of tokens in a full bucket.
    pub burst: u32,
    /// The time in which one token is refilled.
    pub every: Duration,
}

/// One bucket for each key.
#[derive(Debug)]
pub struct RateLimiter<K> {
    all: HashMap<K, Bucket>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// When the bucket is full again.
    full_at: Instant,
    used: Instant,
}

impl<K> Default for RateLimiter<K> {
    fn default() -> Self {
        Self {
            all: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> RateLimiter<K> {
    /// Whether a token is left.
    pub fn has(&self, key: &K, rate: Rate, now: Instant) -> bool {
        let Some(bucket) = self.all.get(key) else {
            return rate.burst > 0;
        };
        let missing = bucket.full_at.saturating_duration_since(now);
        missing + rate.every <= rate.every * rate.burst
    }

    /// Takes a token, also where none is left: then it takes longer until there is one again, but never longer than it takes to
    /// fill the whole bucket.
    pub fn take(&mut self, key: &K, rate: Rate, now: Instant) {
        if !self.all.contains_key(key) && self.all.len() >= MAX_KEYS {
            self.evict(now);
        }
        let fresh = Bucket {
            full_at: now,
            used: now,
        };
        let bucket = self.all.entry(key.clone()).or_insert(fresh);
        let full_at = bucket.full_at.max(now) + rate.every;
        bucket.full_at = full_at.min(now + rate.every * rate.burst);
        bucket.used = now;
    }

    fn evict(&mut self, now: Instant) {
        self.all.retain(|_, bucket| bucket.full_at > now);
        if self.all.len() >= MAX_KEYS {
            let oldest = self.all.iter().min_by_key(|(_, bucket)| bucket.used);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                self.all.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        burst: 3,
        every: Duration::from_secs(10),
    };

    /// How many of these attempts pass, all at once.
    fn passed(buckets: &mut RateLimiter<u64>, key: u64, tries: usize, now: Instant) -> usize {
        let mut passed = 0;
        for _ in 0..tries {
            if buckets.has(&key, RATE, now) {
                buckets.take(&key, RATE, now);
                passed += 1;
            }
        }
        passed
    }

    #[test]
    fn a_burst_passes_and_then_one_at_a_time() {
        let (mut buckets, begin) = (RateLimiter::default(), Instant::now());
        let after = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(passed(&mut buckets, 1, 200, begin), 3);
        assert_eq!(passed(&mut buckets, 1, 200, after(9)), 0);
        assert_eq!(passed(&mut buckets, 1, 200, after(10)), 1);
        assert_eq!(passed(&mut buckets, 2, 200, after(10)), 3, "another key");
        assert_eq!(passed(&mut buckets, 1, 200, after(1_000)), 3, "never more");
    }

    #[test]
    fn the_number_of_buckets_is_bounded() {
        let (mut buckets, begin) = (RateLimiter::default(), Instant::now());
        for key in 0..20_000 {
            let now = begin + Duration::from_millis(key);
            buckets.take(&key, RATE, now);
        }
        assert!(buckets.all.len() <= MAX_KEYS);
        assert!(buckets.all.contains_key(&19_999));
    }
}
