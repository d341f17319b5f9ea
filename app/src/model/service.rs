//! A service: a repository, a registry, and the settings of its builds.

use super::{BuildHead, BuildSettings, RegistryConfig, RegistryInput, ServiceId, SettingsInput};
use crate::error::{Problem, Result};
use serde::{Deserialize, Serialize};

/// A service as it is registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewService {
    pub name: String,
    pub source: SourceInput,
    pub registry_config: RegistryInput,
    #[serde(default)]
    pub settings: Option<SettingsInput>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SourceInput {
    Git {
        url: String,
        /// Absent keeps the stored one; empty takes it away.
        #[serde(default)]
        token: Option<String>,
        /// Empty: whatever the repository's HEAD names.
        #[serde(default)]
        default_branch: String,
        /// The version that was read before the change. When somebody else has saved since, the save is refused.
        #[serde(default)]
        version: Option<i64>,
    },
}

/// A source as stored and shown: without its token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    pub url: String,
    pub default_branch: String,
    pub has_token: bool,
    /// Counts the saves.
    pub version: i64,
}

/// A card of the services page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceCard {
    pub id: ServiceId,
    pub name: String,
    pub default_branch: String,
    pub last_build: Option<BuildHead>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceDetail {
    pub id: ServiceId,
    pub name: String,
    pub source: Source,
    pub registry_config: RegistryConfig,
    /// The image name cannot change any more.
    pub image_name_fixed: bool,
    pub settings: BuildSettings,
    pub created_at: i64,
    pub last_build: Option<BuildHead>,
    /// The newest successful build.
    pub latest_image: Option<BuildHead>,
    pub now_ms: i64,
}

pub const MAX_SERVICE_NAME: usize = 63;

/// A service's name is for people: any script, but one line and not empty.
pub fn service_name(name: &str) -> Result<String> {
    let name = name.trim();
    if name.is_empty() {
        return Err(Problem::invalid("required", "name"));
    }
    if name.chars().count() > MAX_SERVICE_NAME {
        return Err(Problem::invalid("too_long", "name"));
    }
    if name.chars().any(char::is_control) {
        return Err(Problem::invalid("name_form", "name"));
    }
    Ok(name.to_owned())
}

/// An address that Git may be given: http, https or ssh, and without a credential in it.
pub fn git_url(url: &str) -> Result<String> {
    const FIELD: &str = "source.url";
    let url = url.trim();
    if url.is_empty() {
        return Err(Problem::invalid("required", FIELD));
    }
    if url.len() > 2_048 {
        return Err(Problem::invalid("too_long", FIELD));
    }
    let rest = ["https://", "http://"].iter().find_map(|scheme| url.strip_prefix(scheme));
    let Some(rest) = rest else {
        return Err(Problem::invalid("git_url_scheme", FIELD));
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if without_userinfo(url) != url {
        return Err(Problem::invalid("git_url_credential", FIELD));
    }
    let path = &rest[authority.len()..];
    if authority.is_empty()
        || path.trim_matches('/').is_empty()
        || url.chars().any(|c| c.is_control() || c.is_whitespace())
        || url.contains(['\\', '"', '<', '>', '?', '#'])
    {
        return Err(Problem::invalid("git_url_form", FIELD));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// An address, whatever its form, without the user and the password that people paste with it: only so may it be shown
/// again. What looks like a password with a slash in it counts as one.
pub fn without_userinfo(address: &str) -> String {
    let (scheme, rest) = match address.split_once("://") {
        Some((scheme, rest)) => (&address[..scheme.len() + 3], rest),
        None => ("", address),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let port = authority.rsplit_once(':').map(|(_, port)| port).filter(|_| !authority.ends_with(']'));
    let end =
        if port.is_none_or(|port| port.bytes().all(|b| b.is_ascii_digit())) { authority.len() } else { rest.len() };
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}{}", &rest[at + 1..]),
        None => address.to_owned(),
    }
}

/// A branch or tag name that may be handed to Git: the rules of `git check-ref-format`, and no leading dash.
pub fn ref_name(name: &str, field: &str) -> Result<String> {
    let name = name.trim();
    if name.is_empty() {
        return Err(Problem::invalid("required", field));
    }
    let bad = name.len() > 255
        || name.starts_with(['-', '/', '.'])
        || name.ends_with(['/', '.'])
        || name.ends_with(".lock")
        || ["..", "//", "@{", "/."].iter().any(|p| name.contains(p))
        || name.contains([' ', '~', '^', ':', '?', '*', '[', '\\'])
        || name.chars().any(char::is_control)
        || name == "@";
    if bad {
        return Err(Problem::invalid("ref_form", field));
    }
    Ok(name.to_owned())
}

/// A full commit hash: SHA-1's 40 letters or SHA-256's 64.
pub fn commit_hash(commit: &str, field: &str) -> Result<String> {
    let commit = commit.trim().to_ascii_lowercase();
    if matches!(commit.len(), 40 | 64) && commit.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(commit)
    } else {
        Err(Problem::invalid("commit_form", field))
    }
}

/// What a repository looks like before it is registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryCheck {
    pub default_branch: String,
    pub branches: u32,
}

/// Branches and tags of a service's repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefList {
    pub default_branch: String,
    /// The default branch first, then branches by age of their head, then tags.
    pub refs: Vec<RefHead>,
    pub now_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefHead {
    /// As a build is started with: `main`, `refs/tags/v1`.
    pub name: String,
    pub is_tag: bool,
    /// Full hash.
    pub commit: String,
    /// First line of the commit's message, where the server gave it cheaply.
    pub subject: Option<String>,
    pub committed_at: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_git_may_have() {
        for good in ["https://gitlab.example.com/shop/orders.git", "http://127.0.0.1:4000/hello.git/"] {
            assert!(git_url(good).is_ok(), "{good}");
        }
        for (bad, code) in [
            ("", "required"),
            ("file:///etc", "git_url_scheme"),
            ("ext::sh -c x", "git_url_scheme"),
            ("--upload-pack=x", "git_url_scheme"),
            ("https://user:pass@host/x", "git_url_credential"),
            ("https://token@host/x", "git_url_credential"),
            ("https://user:pa/ss@host/x", "git_url_credential"),
            ("https://host", "git_url_form"),
            ("https:///x", "git_url_form"),
            ("https://host/a b", "git_url_form"),
            ("https://host/x?y=1", "git_url_form"),
        ] {
            assert_eq!(git_url(bad).map_err(|p| p.code), Err(code.to_owned()), "{bad}");
        }
    }

    #[test]
    fn addresses_are_shown_without_what_opens_them() {
        for (pasted, shown) in [
            ("https://user:pass@host/a/b.git", "https://host/a/b.git"),
            ("https://token@host:8443/a", "https://host:8443/a"),
            ("https://user:p@ss@host/a", "https://host/a"),
            ("https://user:p/ss@host/a", "https://host/a"),
            ("https://user:p?s#s@host/a", "https://host/a"),
            ("HTTPS://user:pass@host", "HTTPS://host"),
            ("user:pass@registry.example.com", "registry.example.com"),
            ("git@host:a/b", "host:a/b"),
            ("https://host/a/x@y.git", "https://host/a/x@y.git"),
            ("https://host:8443/a/x@y.git", "https://host:8443/a/x@y.git"),
            ("https://[::1]/x@y", "https://[::1]/x@y"),
            ("https://[::1]:80/x@y", "https://[::1]:80/x@y"),
            ("registry.example.com:5000", "registry.example.com:5000"),
            ("", ""),
        ] {
            assert_eq!(without_userinfo(pasted), shown, "{pasted}");
        }
    }

    #[test]
    fn refs_and_commits() {
        for good in ["main", "feature/pay", "refs/tags/v1.0", "브랜치"] {
            assert!(ref_name(good, "branch").is_ok(), "{good}");
        }
        for bad in ["", "-x", "a..b", "a b", "a:b", "/a", "a/", "a.lock", "@", "a@{1}", "a\nb", ".a"] {
            assert!(ref_name(bad, "branch").is_err(), "{bad:?}");
        }
        assert!(commit_hash(&"A".repeat(40), "commit").is_ok());
        assert!(commit_hash("abc1234", "commit").is_err());
        assert!(commit_hash(&"g".repeat(40), "commit").is_err());
    }

    #[test]
    fn names_are_for_people() {
        assert_eq!(service_name("  주문 서비스 ").as_deref(), Ok("주문 서비스"));
        assert!(service_name(" ").is_err());
        assert!(service_name("a\nb").is_err());
        assert!(service_name(&"가".repeat(64)).is_err());
    }
}
