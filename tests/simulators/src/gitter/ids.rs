//! Object ids as Gitter's database creates them: seconds, a part per server process, a counter. Two processes create
//! ids that are out of time order within one second, which makes `afterId=<last seen>` unsafe.

use rand::{Rng, rngs::StdRng};

/// Whether this is a well-formed object id: 24 hexadecimal digits.
pub(super) fn well_formed(id: &str) -> bool {
    id.len() == 24 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Bytes as lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(u32::from(digit), 16))
        .collect()
}

/// One server process: its fixed five bytes and its running counter.
struct Process {
    mark: u64,
    counter: u32,
}

/// Creates ids, each from a process chosen at random.
pub(super) struct Ids {
    processes: Vec<Process>,
}

impl Ids {
    /// With at least one process; the processes' bytes are drawn from the seed.
    pub(super) fn new(processes: usize, rng: &mut StdRng) -> Self {
        let processes = (0..processes.max(1))
            .map(|_| Process {
                mark: rng.random_range(0..1 << 40),
                counter: rng.random_range(0..1 << 23),
            })
            .collect();
        Self { processes }
    }

    /// The next id at this time, in milliseconds since the epoch.
    pub(super) fn next(&mut self, now_ms: i64, rng: &mut StdRng) -> String {
        let seconds = now_ms.div_euclid(1000).rem_euclid(1 << 32);
        let chosen = rng.random_range(0..self.processes.len());
        let Some(process) = self.processes.get_mut(chosen) else {
            return format!("{seconds:08x}{:016x}", rng.random::<u64>());
        };
        process.counter = (process.counter + 1) & 0x00ff_ffff;
        format!("{seconds:08x}{:010x}{:06x}", process.mark, process.counter)
    }
}
