//! `registry_config`: where a service's images go. Three kinds, and how each spells an image's reference.

use crate::error::{Problem, Result};
use serde::{Deserialize, Serialize};

/// A registry as it is entered. Fields that its kind does not have are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum RegistryInput {
    Harbor {
        url: String,
        project: String,
        image_name: String,
        username: String,
        /// Absent keeps the stored one.
        #[serde(default)]
        password: Option<String>,
        /// The version that was read before the change. When somebody else has saved since, the save is refused.
        #[serde(default)]
        version: Option<i64>,
    },
    #[serde(rename = "dockerhub")]
    DockerHub {
        namespace: String,
        image_name: String,
        username: String,
        #[serde(default)]
        password: Option<String>,
        #[serde(default)]
        version: Option<i64>,
    },
    Private {
        url: String,
        #[serde(default)]
        path: String,
        image_name: String,
        #[serde(default)]
        username: String,
        #[serde(default)]
        password: Option<String>,
        #[serde(default)]
        plain_http: bool,
        #[serde(default)]
        version: Option<i64>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegistryKind {
    #[serde(rename = "harbor")]
    Harbor,
    #[serde(rename = "dockerhub")]
    DockerHub,
    #[serde(rename = "private")]
    Private,
}

/// A registry as stored and shown: normalised, and without its password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryConfig {
    pub kind: RegistryKind,
    /// `host` or `host:port`, as it stands in an image reference.
    pub host: String,
    /// Between host and image name: Harbor's project, Docker Hub's namespace, a private registry's path; may be empty.
    pub path: String,
    pub image_name: String,
    pub username: String,
    pub has_password: bool,
    pub plain_http: bool,
    /// Counts the saves.
    #[serde(default)]
    pub version: i64,
}

pub const DOCKER_HUB_HOST: &str = "docker.io";
/// The least bytes of a secret: shorter ones cannot be kept out of a log without mangling it.
pub const MIN_SECRET_BYTES: usize = 6;

impl RegistryConfig {
    /// Image reference without a tag.
    pub fn repository(&self) -> String {
        if self.path.is_empty() {
            format!("{}/{}", self.host, self.image_name)
        } else {
            format!("{}/{}/{}", self.host, self.path, self.image_name)
        }
    }

    /// The repository's name within its registry, for the registry's own API.
    pub fn repository_path(&self) -> String {
        if self.path.is_empty() { self.image_name.clone() } else { format!("{}/{}", self.path, self.image_name) }
    }

    pub fn reference(&self, tag: &str) -> String {
        format!("{}:{tag}", self.repository())
    }

    /// Nothing is missing that a push needs.
    pub fn is_complete(&self) -> bool {
        !self.host.is_empty() && !self.image_name.is_empty() && (self.username.is_empty() || self.has_password)
    }
}

impl RegistryInput {
    pub fn password(&self) -> Option<&str> {
        match self {
            Self::Harbor { password, .. } | Self::DockerHub { password, .. } | Self::Private { password, .. } => {
                password.as_deref()
            }
        }
    }

    pub fn version(&self) -> Option<i64> {
        match self {
            Self::Harbor { version, .. } | Self::DockerHub { version, .. } | Self::Private { version, .. } => *version,
        }
    }

    /// Checks and normalises; the version is the caller's business. `stored_password` says whether one is kept when none is given.
    pub fn validate(&self, stored_password: bool) -> Result<RegistryConfig> {
        let has_password = match self.password() {
            Some("") | None => stored_password,
            Some(p) if p.len() < MIN_SECRET_BYTES => {
                return Err(
                    Problem::invalid("secret_too_short", "registry_config.password").with("min", MIN_SECRET_BYTES)
                );
            }
            Some(_) => true,
        };
        let config = match self {
            Self::Harbor { url, project, image_name, username, .. } => RegistryConfig {
                kind: RegistryKind::Harbor,
                host: host_of(url)?,
                path: path_of(project, "registry_config.project", true)?,
                image_name: image_name_of(image_name)?,
                username: username.trim().to_owned(),
                has_password,
                plain_http: false,
                version: 0,
            },
            Self::DockerHub { namespace, image_name, username, .. } => RegistryConfig {
                kind: RegistryKind::DockerHub,
                host: DOCKER_HUB_HOST.to_owned(),
                path: path_of(namespace, "registry_config.namespace", true)?,
                image_name: image_name_of(image_name)?,
                username: username.trim().to_owned(),
                has_password,
                plain_http: false,
                version: 0,
            },
            Self::Private { url, path, image_name, username, plain_http, .. } => RegistryConfig {
                kind: RegistryKind::Private,
                host: host_of(url)?,
                path: path_of(path, "registry_config.path", false)?,
                image_name: image_name_of(image_name)?,
                username: username.trim().to_owned(),
                has_password: has_password && !username.trim().is_empty(),
                plain_http: *plain_http,
                version: 0,
            },
        };
        let needs_user = config.kind != RegistryKind::Private;
        if needs_user && config.username.is_empty() {
            return Err(Problem::invalid("required", "registry_config.username"));
        }
        if !config.username.is_empty() && !config.has_password {
            return Err(Problem::invalid("required", "registry_config.password"));
        }
        if config.username.len() > 255 || config.username.contains([':', '\n', '\r']) {
            return Err(Problem::invalid("username_form", "registry_config.username"));
        }
        if config.repository().len() > 200 {
            return Err(Problem::invalid("too_long", "registry_config.image_name"));
        }
        Ok(config)
    }
}

/// `https://harbor.example.com/` and `harbor.example.com:443` are both ways people write a registry's address.
fn host_of(url: &str) -> Result<String> {
    let bad = || Problem::invalid("registry_url_form", "registry_config.url");
    let url = url.trim();
    if url.is_empty() {
        return Err(Problem::invalid("required", "registry_config.url"));
    }
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or(url);
    let host = rest.trim_end_matches('/').to_ascii_lowercase();
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host.as_str(), None),
    };
    let name_ok = !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        });
    let port_ok = port.is_none_or(|p| p.parse::<u16>().is_ok_and(|n| n > 0) && !p.starts_with('+'));
    // Without a dot or a port a reference's first part reads as a Docker Hub namespace.
    let reads_as_host = port.is_some() || name.contains('.') || name == "localhost";
    if !name_ok || !port_ok || !reads_as_host {
        return Err(bad());
    }
    Ok(host)
}

fn path_of(path: &str, field: &str, required: bool) -> Result<String> {
    let path = path.trim().trim_matches('/');
    if path.is_empty() {
        return if required { Err(Problem::invalid("required", field)) } else { Ok(String::new()) };
    }
    if !path.split('/').all(is_name_component) {
        return Err(Problem::invalid("repository_form", field));
    }
    Ok(path.to_owned())
}

fn image_name_of(name: &str) -> Result<String> {
    let name = name.trim();
    if name.is_empty() {
        return Err(Problem::invalid("required", "registry_config.image_name"));
    }
    if !is_name_component(name) {
        return Err(Problem::invalid("repository_form", "registry_config.image_name"));
    }
    Ok(name.to_owned())
}

/// The distribution specification's path component: lower-case letters and digits, parted by `.`, `_`, `__` or dashes.
fn is_name_component(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !bytes.first().is_some_and(alnum) || !bytes.last().is_some_and(alnum) {
        return false;
    }
    text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .filter(|sep| !sep.is_empty())
        .all(|sep| matches!(sep, "." | "_" | "__") || sep.bytes().all(|b| b == b'-'))
}

/// The tag of a build: `<branch slug>-<number>-<short sha>`, at most 128 characters. A second attempt after a push may
/// have begun adds `-r2`, so that it cannot be mistaken for the first one's image.
pub fn image_tag(branch: &str, number: i64, commit: &str, again: Option<u32>) -> String {
    let tail = format!(
        "-{number}-{}{}",
        commit.get(..7).unwrap_or(commit),
        again.map(|a| format!("-r{a}")).unwrap_or_default()
    );
    let mut slug = String::new();
    for c in branch.strip_prefix("refs/tags/").unwrap_or(branch).chars() {
        match c {
            'a'..='z' | '0'..='9' | '.' | '_' => slug.push(c),
            'A'..='Z' => slug.push(c.to_ascii_lowercase()),
            _ if slug.ends_with('-') => {}
            _ => slug.push('-'),
        }
    }
    // A tag begins with a letter, a digit or an underscore.
    let slug = slug.trim_matches(['-', '.']);
    let slug = if slug.is_empty() { "build" } else { slug };
    let room = 128 - tail.len();
    format!("{}{tail}", slug.get(..room).unwrap_or(slug).trim_end_matches(['-', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn private(url: &str, path: &str, name: &str) -> RegistryInput {
        RegistryInput::Private {
            url: url.into(),
            path: path.into(),
            image_name: name.into(),
            username: String::new(),
            password: None,
            plain_http: true,
            version: None,
        }
    }

    #[test]
    fn each_kind_spells_its_reference() {
        let harbor = RegistryInput::Harbor {
            url: "https://Harbor.example.com/".into(),
            project: "shop".into(),
            image_name: "orders".into(),
            username: "robot$orders".into(),
            password: Some("secret1".into()),
            version: None,
        };
        assert_eq!(
            harbor.validate(false).unwrap().reference("main-1-abc"),
            "harbor.example.com/shop/orders:main-1-abc"
        );
        let hub = RegistryInput::DockerHub {
            namespace: "acme".into(),
            image_name: "orders".into(),
            username: "acme".into(),
            password: Some("secret1".into()),
            version: None,
        };
        assert_eq!(hub.validate(false).unwrap().repository(), "docker.io/acme/orders");
        assert_eq!(private("127.0.0.1:5000", "", "a").validate(false).unwrap().repository(), "127.0.0.1:5000/a");
        assert_eq!(private("r.example.com", "/x/y/", "a").validate(false).unwrap().repository(), "r.example.com/x/y/a");
    }

    #[test]
    fn bad_registries_are_named_by_field() {
        let code = |input: &RegistryInput| input.validate(false).map_err(|p| (p.code, p.field.unwrap_or_default()));
        for url in
            ["", "https://", "ftp://x.y", "a b.c", "host", "x.y:0", "x.y:99999", "x.y/path", "-a.b", "user@x.y", "x..y"]
        {
            let (_, field) = code(&private(url, "", "a")).unwrap_err();
            assert_eq!(field, "registry_config.url", "{url}");
        }
        for name in ["", "A", "a b", "-a", "a-", "a___b", "a/b", "ä", "a..b", ".."] {
            let (_, field) = code(&private("x.y", "", name)).unwrap_err();
            assert_eq!(field, "registry_config.image_name", "{name}");
        }
        for path in ["..", "a/../b", "a//b", "A"] {
            let (_, field) = code(&private("x.y", path, "a")).unwrap_err();
            assert_eq!(field, "registry_config.path", "{path}");
        }
        let short = RegistryInput::DockerHub {
            namespace: "a".into(),
            image_name: "a".into(),
            username: "a".into(),
            password: Some("12345".into()),
            version: None,
        };
        assert_eq!(code(&short).unwrap_err().0, "secret_too_short");
    }

    #[test]
    fn a_password_is_needed_once_and_kept_afterwards() {
        let input = RegistryInput::Private {
            url: "x.y".into(),
            path: String::new(),
            image_name: "a".into(),
            username: "u".into(),
            password: None,
            plain_http: false,
            version: None,
        };
        assert_eq!(input.validate(false).unwrap_err().field.as_deref(), Some("registry_config.password"));
        assert!(input.validate(true).unwrap().has_password);
    }

    #[test]
    fn fields_of_another_kind_and_unknown_kinds_are_refused() {
        for bad in [
            r#"{"kind":"ecr","url":"x.y","image_name":"a"}"#,
            r#"{"kind":"dockerhub","url":"x.y","namespace":"a","image_name":"a","username":"u"}"#,
        ] {
            assert!(serde_json::from_str::<RegistryInput>(bad).is_err(), "{bad}");
        }
        let sent = r#"{"kind":"private","url":"x.y:5000","path":"p","image_name":"a","username":"","password":"","plain_http":true}"#;
        assert!(serde_json::from_str::<RegistryInput>(sent).unwrap().validate(false).unwrap().is_complete());
    }

    #[test]
    fn tags_are_legal_whatever_the_branch() {
        let commit = "0d4f1c2aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        assert_eq!(image_tag("feature/Pay Now", 40, commit, None), "feature-pay-now-40-0d4f1c2");
        assert_eq!(image_tag("refs/tags/v1.2", 1, commit, Some(2)), "v1.2-1-0d4f1c2-r2");
        assert_eq!(image_tag("브랜치", 7, commit, None), "build-7-0d4f1c2");
        assert_eq!(image_tag("-.x", 7, commit, None), "x-7-0d4f1c2");
        let long = image_tag(&"x/".repeat(300), 123_456, commit, Some(2));
        assert!(long.len() <= 128 && long.ends_with("-123456-0d4f1c2-r2"), "{long}");
    }
}
