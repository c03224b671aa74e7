//! Free loopback ports. Another process may still take one before it is used: the caller then tries another one.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::Context as _;

/// The ports that this process has handed out, because the kernel would return the same one twice until it is bound.
static GIVEN: LazyLock<Mutex<BTreeSet<u16>>> = LazyLock::new(Mutex::default);

/// A TCP port on 127.0.0.1 that nobody listens on and that this process has not handed out before.
pub fn free_port() -> anyhow::Result<u16> {
    // The listeners stay open until a port is new, because otherwise the kernel might return the same port again.
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
    anyhow::bail!("the system only offers ports that were handed out already")
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
