//! Names of hosts: what users type, and what a certificate has to be for.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use airlock_oci::{Error, ErrorKind};

/// Longest name of a host, in characters (RFC 1035).
const MAX_HOST: usize = 253;
/// Longest part of one, between dots.
const MAX_LABEL: usize = 63;
/// Addresses of this machine that go into its certificate at most; a machine with more of them is a router.
const MAX_ADDRESSES: usize = 32;

/// `HOST`, `HOST:PORT`, `ADDRESS`, `ADDRESS:PORT`, `[ADDRESS]:PORT`, with or without `https://` before it.
///
/// * the host is a DNS name in lower case or an IP address without brackets
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    name: String,
    port: Option<u16>,
}

impl Host {
    /// The DNS name or address, without brackets.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port, where one was given.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Whether it is an address.
    pub fn is_address(&self) -> bool {
        self.name.parse::<IpAddr>().is_ok()
    }
}

impl FromStr for Host {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |cause: &str| {
            Err(Error::new(ErrorKind::Invalid, format!("take `{text}` as the registry's host name"), cause)
                .hint("write HOST or HOST:PORT, as clusters will write it"))
        };
        let rest = text.strip_prefix("https://").unwrap_or(text);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (name, port) = if let Some(inside) = rest.strip_prefix('[') {
            let Some((name, after)) = inside.split_once(']') else { return wrong("a bracket is not closed") };
            if name.parse::<Ipv6Addr>().is_err() {
                return wrong("what stands in brackets is no IPv6 address");
            }
            (name, after.strip_prefix(':').or(after.is_empty().then_some("")))
        } else if rest.parse::<Ipv6Addr>().is_ok() {
            (rest, Some(""))
        } else {
            match rest.split_once(':') {
                Some((name, port)) => (name, (!port.is_empty()).then_some(port)),
                None => (rest, Some("")),
            }
        };
        let port = match port {
            Some("") => None,
            Some(port) => match port.parse::<u16>() {
                Ok(port) if port > 0 => Some(port),
                _ => return wrong("the port is no number between 1 and 65535"),
            },
            None => return wrong("the port is no number between 1 and 65535"),
        };
        let name = name.to_ascii_lowercase();
        let is_label = |label: &str| {
            !label.is_empty()
                && label.len() <= MAX_LABEL
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if name.parse::<IpAddr>().is_err() && (name.len() > MAX_HOST || !name.split('.').all(is_label)) {
            return wrong("a name is made of letters, digits and hyphens between dots");
        }
        Ok(Self { name, port })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&authority(&self.name, self.port))
    }
}

/// `HOST:PORT`, an IPv6 address in brackets.
pub fn authority(host: &str, port: Option<u16>) -> String {
    let host = if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]") } else { host.to_owned() };
    port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"))
}

/// What the certificate is for: the registry's name, its first part, the machine's own name and addresses. Each once.
pub fn proposed(host: &Host, machine: &str, addresses: &[IpAddr]) -> Vec<String> {
    let mut names = vec![host.name.clone()];
    let short = (!host.is_address()).then(|| host.name.split('.').next().unwrap_or_default().to_owned());
    let machine = machine.trim().to_ascii_lowercase().parse::<Host>().ok().map(|host| host.name);
    let addresses = addresses.iter().take(MAX_ADDRESSES).map(ToString::to_string);
    for name in short.into_iter().chain(machine).chain(addresses) {
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// This machine's addresses that others can reach, from the texts of `/proc/net/fib_trie` and `/proc/net/if_inet6`.
pub fn addresses(fib_trie: &str, if_inet6: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    let mut last = None;
    for line in fib_trie.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<std::net::Ipv4Addr>().ok();
        } else if line.starts_with("/32 host LOCAL")
            && let Some(address) = last.filter(|a| !a.is_loopback() && !a.is_link_local() && !a.is_unspecified())
        {
            found.push(address.into());
        }
    }
    for line in if_inet6.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // The fourth field is the scope; 00 is global.
        if let [address, _, _, "00", ..] = fields[..]
            && let Ok(bits) = u128::from_str_radix(address, 16)
        {
            found.push(Ipv6Addr::from_bits(bits).into());
        }
    }
    let mut seen = Vec::new();
    found.retain(|address| {
        !seen.contains(address) && {
            seen.push(*address);
            true
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_people_write_them() {
        for (text, name, port, shown) in [
            ("Mirror.Example.com", "mirror.example.com", None, "mirror.example.com"),
            ("mirror:8443", "mirror", Some(8443), "mirror:8443"),
            ("https://mirror.corp:443/", "mirror.corp", Some(443), "mirror.corp:443"),
            ("10.1.2.3:5000", "10.1.2.3", Some(5000), "10.1.2.3:5000"),
            ("[fd00::1]:5000", "fd00::1", Some(5000), "[fd00::1]:5000"),
            ("fd00::1", "fd00::1", None, "[fd00::1]"),
            ("[fd00::1]", "fd00::1", None, "[fd00::1]"),
        ] {
            let host: Host = text.parse().unwrap();
            assert_eq!((host.name(), host.port(), host.to_string().as_str()), (name, port, shown), "{text}");
        }
        for bad in
            ["", "a b", "a_b", "-a", "a.", "a..b", "a:b", "a:0", "a:70000", "a:", "[a]:1", "[::1", "[::1]x", "a/b"]
        {
            assert!(bad.parse::<Host>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(64).parse::<Host>().is_err());
        assert!(!"mirror".parse::<Host>().unwrap().is_address() && "::1".parse::<Host>().unwrap().is_address());
    }

    #[test]
    fn a_certificate_is_for_every_name_of_the_machine() {
        let fib = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 10.1.2.0\n        /24 link UNICAST\n\
                   \u{20}       |-- 10.1.2.3\n           /32 host LOCAL\n     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 169.254.3.4\n\
                   \u{20}       /32 host LOCAL\nLocal:\n     |-- 10.1.2.3\n        /32 host LOCAL\n";
        let inet6 = "fd000000000000000000000000000007 02 40 00 80     eth0\nfe800000000000000000000000000001 02 40 20 80     eth0\n\
                     00000000000000000000000000000001 01 80 10 80       lo\n";
        let addresses = addresses(fib, inet6);
        assert_eq!(addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.1.2.3", "fd00::7"]);
        let host = "mirror.example.com:8443".parse().unwrap();
        let names = proposed(&host, "Bastion\n", &addresses);
        assert_eq!(names, ["mirror.example.com", "mirror", "bastion", "10.1.2.3", "fd00::7"]);
        assert_eq!(proposed(&"10.1.2.3".parse().unwrap(), "no_name", &addresses), ["10.1.2.3", "fd00::7"]);
    }
}
