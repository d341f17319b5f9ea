//! Reading single values: every refusal is a sentence that names the variable and what it should be.

pub(crate) use kiops_events::address::split_host;
use std::fmt;
use std::net::SocketAddr;

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }

    /// An empty variable is the same as none: that is what an unset line of an environment file becomes.
    pub fn from_env(name: &str) -> Result<Option<Self>, String> {
        match std::env::var(name) {
            Ok(value) if value.is_empty() => Ok(None),
            Ok(value) => Ok(Some(Self(value))),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => Err(format!("{name} should be UTF-8 text")),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Where people find the server when something stands in front of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    /// `https://builds.example.com`, as a browser spells it in `Origin`.
    pub origin: String,
    /// `builds.example.com`, without a port.
    pub host: String,
}

impl PublicUrl {
    pub fn is_https(&self) -> bool {
        self.origin.starts_with("https://")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "KIOPS_LISTEN should be an IP address and a port, such as 127.0.0.1:3000".to_owned())
}

pub(super) fn public_url(text: &str) -> Result<PublicUrl, String> {
    let bad = || {
        "KIOPS_PUBLIC_URL should be the address of the site without a path, such as https://builds.example.com"
            .to_owned()
    };
    let text = text.trim().trim_end_matches('/').to_ascii_lowercase();
    let (scheme, authority) = text.split_once("://").ok_or_else(bad)?;
    let default_port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return Err(bad()),
    };
    // A browser leaves the scheme's own port out.
    let authority = authority.strip_suffix(default_port).unwrap_or(authority);
    let host = split_host(authority).ok_or_else(bad)?.to_owned();
    Ok(PublicUrl { origin: format!("{scheme}://{authority}"), host })
}

pub(super) fn host_and_port(name: &'static str, text: &str) -> Result<String, String> {
    let text = text.trim().to_ascii_lowercase();
    match split_host(&text) {
        Some(_) => Ok(text),
        None => Err(format!("{name} should be host names, with a port where one is needed, parted by commas")),
    }
}

pub(super) fn between<T: TryFrom<u64>>(
    name: &'static str,
    least: u64,
    most: u64,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let value = text.trim().parse::<u64>().ok().filter(|value| (least..=most).contains(value));
        value.and_then(|value| T::try_from(value).ok()).ok_or_else(|| {
            if most == u64::MAX {
                format!("{name} should be a whole number, {least} or more")
            } else {
                format!("{name} should be a whole number from {least} to {most}")
            }
        })
    }
}

pub(super) fn yes_or_no(name: &'static str, text: &str) -> Result<bool, String> {
    match text.trim() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("{name} should be true or false")),
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("KIOPS_LOG_FORMAT should be text or json".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let secrets = super::super::Secrets {
            database_url: Some("postgres://u:hunter2@h/d".parse().unwrap()),
            secret_key: Some(Secret::new("hunter2")),
            admin_password: Some(Secret::new("hunter2")),
        };
        assert!(!format!("{secrets:?}").contains("hunter2"));
    }

    #[test]
    fn refusals_name_the_variable() {
        for (refusal, name) in [
            (listen("3000").unwrap_err(), "KIOPS_LISTEN"),
            (listen("localhost:3000").unwrap_err(), "KIOPS_LISTEN"),
            (public_url("builds.example.com").unwrap_err(), "KIOPS_PUBLIC_URL"),
            (between::<u64>("KIOPS_HOLD_S", 1, 9)("10").unwrap_err(), "KIOPS_HOLD_S"),
            (between::<u64>("KIOPS_HOLD_S", 1, 9)("x").unwrap_err(), "KIOPS_HOLD_S"),
            (yes_or_no("KIOPS_ALLOW_LOOPBACK", "maybe").unwrap_err(), "KIOPS_ALLOW_LOOPBACK"),
            (host_and_port("KIOPS_DOCKERHUB_MIRROR", "http://x").unwrap_err(), "KIOPS_DOCKERHUB_MIRROR"),
            (log_format("xml").unwrap_err(), "KIOPS_LOG_FORMAT"),
        ] {
            assert!(refusal.contains(name) && refusal.contains("should be"), "{refusal}");
        }
    }

    #[test]
    fn public_urls_become_origins() {
        for (given, origin, host) in [
            ("https://Builds.Example.com/", "https://builds.example.com", "builds.example.com"),
            ("https://builds.example.com:443", "https://builds.example.com", "builds.example.com"),
            ("http://10.0.0.1:8080", "http://10.0.0.1:8080", "10.0.0.1"),
            ("http://[::1]:3000", "http://[::1]:3000", "[::1]"),
        ] {
            let url = public_url(given).unwrap();
            assert_eq!((url.origin.as_str(), url.host.as_str()), (origin, host));
        }
        for bad in ["", "https://", "ftp://x", "https://x/path", "https://u:p@x", "https://x:y", "https://x:99999"] {
            assert!(public_url(bad).is_err(), "{bad}");
        }
    }
}
