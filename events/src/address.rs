//! Which addresses may be asked on somebody's behalf. An address comes from whoever may register a service, and server
//! and agent stand where they do not: what only these can reach must not be reached through them.
//!
//! Private networks are allowed, for self-hosted Git hosts and registries live there. Refused are always the link-local
//! networks, where clouds keep their machines' credentials, and addresses that are no host's; the loopback where
//! [`AddressPolicy::loopback`] says so. Looking names up is IO and stands elsewhere; whoever does it tells Git the
//! address that was looked at ([`pin`]), so that a second look-up cannot give another one.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Metadata services that do not stand on a link-local address.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
const METADATA_V4: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);

/// The strict one is the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPolicy {
    /// Whether services on the asking machine's loopback may be asked.
    pub loopback: bool,
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
}

/// The host of `host`, `host:port` or `[v6]:port`; none when it is not of that form.
pub fn split_host(authority: &str) -> Option<&str> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if host.ends_with(']') || !host.contains(':') => (host, Some(port)),
        _ => (authority, None),
    };
    let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_ok = match inner {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')),
    };
    let port_ok = port.is_none_or(|p| p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok());
    (host_ok && port_ok).then_some(host)
}

/// Host and port of an HTTP address, whoever's name stands before them.
pub fn host_and_port(url: &str) -> Option<(String, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let default = match scheme.to_ascii_lowercase().as_str() {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let host = split_host(authority)?;
    let port = match authority[host.len()..].strip_prefix(':') {
        Some(port) => port.parse().ok()?,
        None => default,
    };
    Some((host.to_ascii_lowercase(), port))
}

/// The address of a host that needs no look-up.
pub fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Value of Git's `http.curloptResolve`: none for a literal address, where there is nothing to look up.
pub fn pin(host: &str, port: u16, ips: &[IpAddr]) -> Option<String> {
    if literal(host).is_some() {
        return None;
    }
    let ips: Vec<_> = ips
        .iter()
        .map(|ip| match ip {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        })
        .collect();
    Some(format!("{host}:{port}:{}", ips.join(",")))
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
        assert!(!AddressPolicy::default().loopback);
    }

    #[test]
    fn hosts_of_urls() {
        for (url, host, port) in [
            ("https://Git.example.com/a.git", "git.example.com", 443),
            ("HTTP://127.0.0.1:4000/a", "127.0.0.1", 4000),
            ("http://[::1]:80/a", "[::1]", 80),
            ("http://[::1]/a", "[::1]", 80),
            ("https://user:word@host?x", "host", 443),
        ] {
            assert_eq!(host_and_port(url), Some((host.to_owned(), port)), "{url}");
        }
        for bad in ["ssh://git@x/y", "x/y", "http://a:b:c/x", "http://x:99999/y", "http:///x"] {
            assert_eq!(host_and_port(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_was_looked_at_is_what_git_is_told() {
        let ips: Vec<IpAddr> = ["10.0.0.1", "fd12::1"].map(|ip| ip.parse().unwrap()).into();
        assert_eq!(pin("git.example", 443, &ips).as_deref(), Some("git.example:443:10.0.0.1,[fd12::1]"));
        assert_eq!(pin("127.0.0.1", 80, &ips), None);
        assert_eq!(pin("[::1]", 80, &ips), None);
    }
}
