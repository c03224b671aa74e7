//! Free loopback ports. Somebody else may still take one before it is used: whoever starts a server tries again.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::Context as _;

/// Ports this process has given out: the kernel would hand the same one out twice before it is bound.
static GIVEN: LazyLock<Mutex<BTreeSet<u16>>> = LazyLock::new(Mutex::default);

/// A TCP port on 127.0.0.1 which nobody listens on and which this process has not named before.
pub fn free_port() -> anyhow::Result<u16> {
    // Listeners are kept until one is new, or the kernel might offer the same port again.
    let mut refused = Vec::new();
    for _ in 0..100 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("no loopback port is free")?;
        let port = listener.local_addr()?.port();
        if GIVEN
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(port)
        {
            return Ok(port);
        }
        refused.push(listener);
    }
    anyhow::bail!("the system offers only ports that are already spoken for")
}

#[cfg(test)]
mod tests {
    use super::free_port;

    #[test]
    fn no_port_is_given_out_twice() {
        let mut ports: Vec<u16> = (0..50).map(|_| free_port().unwrap()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 50);
    }
}
