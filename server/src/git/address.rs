//! Which hosts may be asked. An address comes from whoever may register a service, and the server stands where they do
//! not: what only the server can reach must not be reached through it.
//!
//! Private networks are allowed, for self-hosted Git hosts and registries live there. Refused are always the link-local
//! networks, where clouds keep their machines' credentials, and addresses that are no host's; the loopback where
//! [`AddressPolicy::loopback`] says so. Git is told the address that was looked at, so that a second look-up cannot give
//! another one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Metadata services that do not stand on a link-local address.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
const METADATA_V4: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);

#[derive(Clone, Copy, Debug)]
pub struct AddressPolicy {
    /// Whether services on this machine's loopback may be asked.
    pub loopback: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The name has no address.
    Unknown,
    /// One of its addresses may not be reached.
    Forbidden,
}

impl AddressPolicy {
    pub fn allows(self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let forbidden = match ip {
            IpAddr::V4(v4) => {
                v4.is_link_local() || v4.octets()[0] == 0 || v4.is_broadcast() || v4.is_multicast() || v4 == METADATA_V4
            }
            IpAddr::V6(v6) => {
                v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_multicast() || v6 == METADATA_V6
            }
        };
        !forbidden && (self.loopback || !ip.is_loopback())
    }

    /// Looks a host up; every address of it must be allowed.
    pub async fn resolve(self, host: &str, port: u16) -> Result<Vec<IpAddr>, Refused> {
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let found = tokio::net::lookup_host((name, port)).await.map_err(|_| Refused::Unknown)?;
        let mut ips: Vec<_> = found.map(|address| address.ip()).collect();
        ips.dedup();
        if ips.is_empty() {
            return Err(Refused::Unknown);
        }
        if ips.iter().all(|ip| self.allows(*ip)) { Ok(ips) } else { Err(Refused::Forbidden) }
    }
}

/// A URL's host and the addresses that were found for it.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub host: String,
    port: u16,
    ips: Vec<IpAddr>,
}

impl Address {
    pub async fn resolve(url: &str, policy: AddressPolicy) -> Result<Self, Refused> {
        let (host, port) = host_and_port(url).ok_or(Refused::Unknown)?;
        let ips = policy.resolve(&host, port).await?;
        Ok(Self { host, port, ips })
    }

    /// Value of Git's `http.curloptResolve`: none for a literal address, where there is nothing to look up.
    pub fn pin(&self) -> Option<String> {
        if self.host.starts_with('[') || self.host.parse::<IpAddr>().is_ok() {
            return None;
        }
        let ips: Vec<_> = self
            .ips
            .iter()
            .map(|ip| match ip {
                IpAddr::V4(v4) => v4.to_string(),
                IpAddr::V6(v6) => format!("[{v6}]"),
            })
            .collect();
        Some(format!("{}:{}:{}", self.host, self.port, ips.join(",")))
    }
}

/// For a sentence about it.
pub(super) fn host_of(url: &str) -> &str {
    url.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default()
}

fn host_and_port(url: &str) -> Option<(String, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let default = match scheme {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let authority = rest.split('/').next()?;
    let host = crate::config::split_host(authority)?;
    let port = match authority[host.len()..].strip_prefix(':') {
        Some(port) => port.parse().ok()?,
        None => default,
    };
    Some((host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_clouds_are_out_of_reach() {
        for loopback in [true, false] {
            let policy = AddressPolicy { loopback };
            for ip in [
                "169.254.169.254",
                "169.254.170.2",
                "::ffff:169.254.169.254",
                "fd00:ec2::254",
                "fe80::1",
                "100.100.100.200",
                "0.0.0.0",
                "0.1.2.3",
                "::",
                "255.255.255.255",
                "224.0.0.1",
            ] {
                assert!(!policy.allows(ip.parse().unwrap()), "{ip}");
            }
            for ip in ["10.1.2.3", "192.168.1.1", "172.16.0.1", "fd12::1", "8.8.8.8", "2001:db8::1"] {
                assert!(policy.allows(ip.parse().unwrap()), "{ip}");
            }
            for ip in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
                assert_eq!(policy.allows(ip.parse().unwrap()), loopback, "{ip}");
            }
        }
    }

    #[test]
    fn hosts_of_urls() {
        for (url, host, port) in [
            ("https://Git.example.com/a.git", "git.example.com", 443),
            ("http://127.0.0.1:4000/a", "127.0.0.1", 4000),
            ("http://[::1]:80/a", "[::1]", 80),
            ("http://[::1]/a", "[::1]", 80),
        ] {
            assert_eq!(host_and_port(url), Some((host.to_owned(), port)), "{url}");
        }
        for bad in ["ssh://git@x/y", "x/y", "http://a:b:c/x", "http://x:99999/y"] {
            assert_eq!(host_and_port(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn names_are_looked_up_before_they_are_judged() {
        let allow = AddressPolicy { loopback: true };
        let refuse = AddressPolicy { loopback: false };
        let pinned = Address::resolve("http://localhost:80/x", allow).await.unwrap().pin().unwrap();
        assert!(pinned.starts_with("localhost:80:") && pinned.contains("127.0.0.1"), "{pinned}");
        assert!(Address::resolve("http://127.0.0.1/x", allow).await.unwrap().pin().is_none());
        assert_eq!(Address::resolve("http://localhost/x", refuse).await.unwrap_err(), Refused::Forbidden);
        assert_eq!(Address::resolve("http://0x7f.1/x", refuse).await.map(|_| ()), Err(Refused::Forbidden));
        assert_eq!(Address::resolve("http://nosuch.invalid/x", allow).await.unwrap_err(), Refused::Unknown);
    }
}
