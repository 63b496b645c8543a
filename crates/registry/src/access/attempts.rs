//! Wrong passwords: how many come from where, and when that is enough.
//!
//! An address has a bucket of failures for each name that it tries and one for all of them; both leak with time. While one is full the address hears 429 without any
//! hashing, except for passwords that are remembered as right. And it has one verification at a time, so that its guesses never stand in a row before the first
//! login of somebody elsewhere.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Failures of one name from one address, and how long one of them counts.
const MAX_OF_NAME: f64 = 10.0;
const NAME_LEAK: Duration = Duration::from_secs(6);
/// Failures from one address, and how long one of them counts. More than for a name, since behind a proxy all clients have one address.
const MAX_OF_ADDRESS: f64 = 50.0;
const ADDRESS_LEAK: Duration = Duration::from_secs(2);
/// Failures of a name that are answered at once; later ones wait for [`DELAY`] first.
const FREE: f64 = 3.0;
const DELAY: Duration = Duration::from_secs(1);
/// Addresses that are known at once, and names of each. Beyond that those go that failed least.
const MAX_ADDRESSES: usize = 4096;
const MAX_NAMES: usize = 64;

/// What became of the attempts from everywhere.
#[derive(Default)]
pub(super) struct Attempts(Mutex<HashMap<IpAddr, Address>>);

struct Address {
    all: Bucket,
    names: HashMap<String, Bucket>,
    turn: Arc<Semaphore>,
}

#[derive(Clone, Copy)]
struct Bucket {
    level: f64,
    at: Instant,
}

impl Bucket {
    fn new() -> Self {
        Self { level: 0.0, at: Instant::now() }
    }

    fn level(&self, leak: Duration) -> f64 {
        (self.level - self.at.elapsed().as_secs_f64() / leak.as_secs_f64()).max(0.0)
    }

    fn add(&mut self, leak: Duration) -> f64 {
        *self = Self { level: self.level(leak) + 1.0, at: Instant::now() };
        self.level
    }

    /// How long until there is room for one more; `None`: there is.
    fn full(&self, most: f64, leak: Duration) -> Option<Duration> {
        let above = self.level(leak) + 1.0 - most;
        (above > 0.0).then(|| leak.mul_f64(above))
    }
}

impl Attempts {
    /// How long the address must wait before the next password for this name; `None`: not at all.
    pub(super) fn blocked(&self, from: IpAddr, name: &str) -> Option<Duration> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let address = known.get(&network(from))?;
        let of_name = address.names.get(name).and_then(|bucket| bucket.full(MAX_OF_NAME, NAME_LEAK));
        of_name.max(address.all.full(MAX_OF_ADDRESS, ADDRESS_LEAK))
    }

    /// Notes a wrong password; answers how long to wait before saying so.
    pub(super) fn failed(&self, from: IpAddr, name: &str) -> Duration {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let address = entry(&mut known, network(from));
        address.all.add(ADDRESS_LEAK);
        if address.names.len() >= MAX_NAMES && !address.names.contains_key(name) {
            address.names.retain(|_, bucket| bucket.level(NAME_LEAK) > 0.0);
            let least = address.names.iter().min_by(|a, b| a.1.level(NAME_LEAK).total_cmp(&b.1.level(NAME_LEAK)));
            if address.names.len() >= MAX_NAMES
                && let Some(least) = least.map(|(name, _)| name.clone())
            {
                address.names.remove(&least);
            }
        }
        let level = address.names.entry(name.to_owned()).or_insert_with(Bucket::new).add(NAME_LEAK);
        if level > FREE { DELAY } else { Duration::ZERO }
    }

    /// What an address takes while a password of its is verified.
    pub(super) fn turn(&self, from: IpAddr) -> Arc<Semaphore> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entry(&mut known, network(from)).turn.clone()
    }
}

fn entry(known: &mut HashMap<IpAddr, Address>, from: IpAddr) -> &mut Address {
    if known.len() >= MAX_ADDRESSES && !known.contains_key(&from) {
        known.retain(|_, address| address.all.level(ADDRESS_LEAK) > 0.0 || Arc::strong_count(&address.turn) > 1);
        let least = known.iter().min_by(|a, b| a.1.all.level(ADDRESS_LEAK).total_cmp(&b.1.all.level(ADDRESS_LEAK)));
        if known.len() >= MAX_ADDRESSES
            && let Some(least) = least.map(|(from, _)| *from)
        {
            known.remove(&least);
        }
    }
    let new = || Address { all: Bucket::new(), names: HashMap::new(), turn: Arc::new(Semaphore::new(1)) };
    known.entry(from).or_insert_with(new)
}

/// Who has one address of IPv6 has the whole network.
fn network(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn guesses_are_slowed_then_refused_and_forgotten() {
        let attempts = Attempts::default();
        let (here, there): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let delays: Vec<u64> = (0..10).map(|_| attempts.failed(here, "anna").as_secs()).collect();
        assert_eq!(delays, [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]);
        let wait = attempts.blocked(here, "anna").unwrap();
        assert!(wait <= NAME_LEAK && wait > NAME_LEAK / 2, "{wait:?}");
        assert!(attempts.blocked(here, "bert").is_none() && attempts.blocked(there, "anna").is_none());
        tokio::time::sleep(wait + Duration::from_millis(10)).await;
        assert!(attempts.blocked(here, "anna").is_none());
        for number in 0..60 {
            attempts.failed(here, &format!("user-{number}"));
        }
        assert!(attempts.blocked(here, "bert").is_some(), "one password for many names is guessing too");
        assert!(attempts.blocked(there, "bert").is_none());
    }

    #[test]
    fn the_table_is_bounded_and_networks_are_one() {
        let attempts = Attempts::default();
        for number in 0..(MAX_ADDRESSES as u32 + 100) {
            attempts.failed(IpAddr::V4(number.into()), "anna");
        }
        for number in 0..(MAX_NAMES * 2) {
            attempts.failed("::1".parse().unwrap(), &number.to_string());
        }
        let known = attempts.0.lock().unwrap();
        assert_eq!(known.len(), MAX_ADDRESSES);
        assert!(known.values().all(|address| address.names.len() <= MAX_NAMES));
        let network = |text: &str| super::network(text.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::2:3"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
    }
}
