//! Looking up whom an address means, and judging it before anybody is asked.

pub use kiops_events::address::AddressPolicy;
use kiops_events::address::{host_and_port, pin};
use std::net::IpAddr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The name has no address.
    Unknown,
    /// One of its addresses may not be reached.
    Forbidden,
}

/// A URL's host and the addresses that were found for it.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub host: String,
    port: u16,
    ips: Vec<IpAddr>,
}

impl Address {
    /// Every address of the host must be allowed.
    pub async fn resolve(url: &str, policy: AddressPolicy) -> Result<Self, Refused> {
        let (host, port) = host_and_port(url).ok_or(Refused::Unknown)?;
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let found = tokio::net::lookup_host((name, port)).await.map_err(|_| Refused::Unknown)?;
        let mut ips: Vec<_> = found.map(|address| address.ip()).collect();
        ips.dedup();
        if ips.is_empty() {
            return Err(Refused::Unknown);
        }
        if ips.iter().all(|ip| policy.allows(*ip)) { Ok(Self { host, port, ips }) } else { Err(Refused::Forbidden) }
    }

    /// Value of Git's `http.curloptResolve`, where there is anything to look up.
    pub fn pin(&self) -> Option<String> {
        pin(&self.host, self.port, &self.ips)
    }
}

/// For a sentence about it.
pub(super) fn host_of(url: &str) -> &str {
    url.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

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
