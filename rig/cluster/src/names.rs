//! Everything that an instance takes of the machine's shared names, derived
//! from its id, so that two clusters live side by side.

use std::net::Ipv4Addr;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// The longest instance id: network interface names hold 15 bytes and carry a prefix.
pub(crate) const MAX_ID: usize = 12;

/// How many node networks there are to choose from: 10.64.0.0/10 in steps of /24.
pub(crate) const SLOTS: u32 = 1 << 14;

/// The identity of one cluster on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instance {
    id: String,
}

impl Instance {
    /// An instance by its name: lower-case letters, digits and inner dashes, at most [`MAX_ID`] bytes.
    pub(crate) fn named(id: &str) -> Result<Self> {
        let plain = id
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if id.is_empty() || id.len() > MAX_ID || !plain || id.starts_with('-') || id.ends_with('-')
        {
            return Err(Error::Name {
                what: "instance name",
                value: id.to_owned(),
                rule: "1 to 12 lower-case letters, digits and inner dashes",
            });
        }
        Ok(Self { id: id.to_owned() })
    }

    /// The instance that belongs to a checkout: a hash of its path.
    pub(crate) fn of_checkout(root: &Path) -> Self {
        let digest = Sha256::digest(root.as_os_str().as_encoded_bytes());
        Self {
            id: hex(&digest)[..8].to_owned(),
        }
    }

    /// The id itself.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// kind's name of the cluster, the prefix of its node containers.
    pub(crate) fn cluster(&self) -> String {
        format!("berth-{}", self.id)
    }

    /// The Docker network of the nodes.
    pub(crate) fn network(&self) -> String {
        self.cluster()
    }

    /// The host's end of the link to a private engine's network namespace.
    pub(crate) fn link(&self) -> String {
        format!("bh-{}", self.id)
    }

    /// The cgroup below which a private engine puts its containers.
    pub(crate) fn cgroup(&self) -> String {
        format!("berth-{}", self.id)
    }

    /// The node's container for a role and a number from 1, as kind names it.
    pub(crate) fn worker(&self, number: usize) -> String {
        match number {
            1 => format!("{}-worker", self.cluster()),
            n => format!("{}-worker{n}", self.cluster()),
        }
    }

    /// The control plane's container.
    pub(crate) fn control_plane(&self) -> String {
        format!("{}-control-plane", self.cluster())
    }

    /// The first network slot to try; taken ones are stepped over by the caller.
    pub(crate) fn slot(&self) -> u32 {
        let digest = Sha256::digest(self.id.as_bytes());
        u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) % SLOTS
    }
}

/// The addresses of one network slot.
///
/// A /24: the lower half is the nodes' network, the upper /30s the link between
/// the host and a private engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet {
    base: u32,
}

impl Subnet {
    /// The subnet of a slot (modulo [`SLOTS`]).
    pub(crate) fn of_slot(slot: u32) -> Self {
        let start = u32::from(Ipv4Addr::new(10, 64, 0, 0));
        Self {
            base: start + (slot % SLOTS) * 256,
        }
    }

    /// The nodes' network.
    pub(crate) fn nodes(self) -> String {
        format!("{}/25", self.at(0))
    }

    /// The host's end of the link.
    pub(crate) fn host_end(self) -> Ipv4Addr {
        self.at(253)
    }

    /// The engine's end of the link.
    pub(crate) fn engine_end(self) -> Ipv4Addr {
        self.at(254)
    }

    /// Whether `other` (first address, prefix length) shares an address with this slot.
    pub(crate) fn overlaps(self, other: (Ipv4Addr, u8)) -> bool {
        let length = u32::from(other.1).min(24);
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        // The default route is everyone's and takes nothing.
        other.1 > 0 && (u32::from(other.0) & mask) == (self.base & mask)
    }

    fn at(self, host: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base + host)
    }
}

/// The first subnet from `first` on that shares nothing with the taken ones.
pub(crate) fn free_subnet(first: u32, taken: &[(Ipv4Addr, u8)]) -> Option<Subnet> {
    (0..SLOTS)
        .map(|step| Subnet::of_slot(first + step))
        .find(|subnet| !taken.iter().any(|t| subnet.overlaps(*t)))
}

/// The networks in the output of `ip -4 route show table all`, and addresses in it as /32.
pub(crate) fn networks_in_routes(text: &str) -> Vec<(Ipv4Addr, u8)> {
    text.split_whitespace()
        .filter_map(|word| {
            let (address, length) = word.split_once('/').unwrap_or((word, "32"));
            Some((address.parse().ok()?, length.parse().ok()?))
        })
        .collect()
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkouts_differ_and_stay() {
        let a = Instance::of_checkout(Path::new("/src/a"));
        let b = Instance::of_checkout(Path::new("/src/b"));
        assert_ne!(a, b);
        assert_eq!(a, Instance::of_checkout(Path::new("/src/a")));
        assert!(Instance::named(a.id()).is_ok());
    }

    #[test]
    fn names_fit_where_they_go() {
        let longest = Instance::named("abcdefghij-1").unwrap();
        assert!(longest.link().len() <= 15);
        assert_eq!(longest.worker(1), "berth-abcdefghij-1-worker");
        assert_eq!(longest.worker(3), "berth-abcdefghij-1-worker3");
    }

    #[test]
    fn bad_names_are_refused() {
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a_b",
            "a/b",
            "abcdefghijklm",
            "..",
            "ü",
        ] {
            assert!(Instance::named(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_taken_subnet_is_stepped_over() {
        let first = Subnet::of_slot(5);
        let taken = networks_in_routes("default via 192.0.2.1 dev eth0\n10.64.5.0/25 dev x\n");
        assert!(first.overlaps(taken[1]) || first.overlaps(taken[0]));
        assert_eq!(free_subnet(5, &taken), Some(Subnet::of_slot(6)));
        assert_eq!(free_subnet(7, &taken), Some(Subnet::of_slot(7)));
    }

    #[test]
    fn a_wide_route_takes_all_it_covers() {
        let wide = networks_in_routes("10.64.0.0/11 dev tun0");
        assert_eq!(free_subnet(0, &wide), Some(Subnet::of_slot(8192)));
        assert_eq!(free_subnet(0, &networks_in_routes("10.0.0.0/8")), None);
        assert_eq!(
            free_subnet(3, &networks_in_routes("0.0.0.0/0")),
            Some(Subnet::of_slot(3))
        );
    }

    #[test]
    fn slots_wrap_round() {
        assert_eq!(Subnet::of_slot(SLOTS + 1), Subnet::of_slot(1));
        assert_eq!(Subnet::of_slot(SLOTS - 1).nodes(), "10.127.255.0/25");
    }
}
