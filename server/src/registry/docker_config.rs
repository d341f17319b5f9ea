//! Docker's `config.json`, which is how buildctl is told a registry's login.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kiops_app::model::{DOCKER_HUB_HOST, RegistryConfig};
use serde_json::json;

/// Docker's own name for Docker Hub in this file.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

pub fn docker_config(registry: &RegistryConfig, password: Option<&str>) -> Vec<u8> {
    let mut auths = serde_json::Map::new();
    if let Some(password) = password.filter(|_| !registry.username.is_empty()) {
        let key = if registry.host == DOCKER_HUB_HOST { DOCKER_HUB_KEY } else { registry.host.as_str() };
        let auth = BASE64_STANDARD.encode(format!("{}:{password}", registry.username));
        auths.insert(key.to_owned(), json!({ "auth": auth }));
    }
    json!({ "auths": auths }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiops_app::model::RegistryKind;

    #[test]
    fn docker_hub_has_its_own_key() {
        let mut registry = RegistryConfig {
            kind: RegistryKind::DockerHub,
            host: DOCKER_HUB_HOST.into(),
            path: "acme".into(),
            image_name: "orders".into(),
            username: "acme".into(),
            has_password: true,
            plain_http: false,
            version: 1,
        };
        let text = |r: &RegistryConfig, p| String::from_utf8(docker_config(r, p)).unwrap();
        assert_eq!(
            text(&registry, Some("secret")),
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YWNtZTpzZWNyZXQ="}}}"#
        );
        registry.host = "r.example:5000".into();
        assert_eq!(text(&registry, Some("s")), r#"{"auths":{"r.example:5000":{"auth":"YWNtZTpz"}}}"#);
        assert_eq!(text(&registry, None), r#"{"auths":{}}"#);
        registry.username.clear();
        assert_eq!(text(&registry, Some("s")), r#"{"auths":{}}"#);
    }
}
