//! What a registry says, as far as it is understood here. Pure functions.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};

#[derive(Debug, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// Reads a `WWW-Authenticate` header.
pub fn challenge(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope) = (None, None, None);
    for (name, value) in parameters(rest) {
        match name.to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value),
            "service" => service = Some(value),
            "scope" => scope = Some(value),
            _ => {}
        }
    }
    Some(Challenge::Bearer { realm: realm?, service, scope })
}

/// `a="b,c",d=e`: commas also stand inside quotes.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',']);
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => match quoted.split_once('"') {
                Some((value, after)) => (value, after),
                None => break,
            },
            None => after.split_once(',').unwrap_or((after, "")),
        };
        out.push((name.trim().to_owned(), value.trim().to_owned()));
        rest = after.trim_start_matches([' ', ',']);
    }
    out
}

pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

pub fn token_url(realm: &str, service: Option<&str>, scope: &str) -> String {
    let mut url = realm.to_owned();
    let mut separator = if realm.contains('?') { '&' } else { '?' };
    for (name, value) in [("service", service), ("scope", Some(scope))] {
        if let Some(value) = value {
            url.push(separator);
            url.push_str(name);
            url.push('=');
            value.bytes().for_each(|b| push_encoded(&mut url, b));
            separator = '&';
        }
    }
    url
}

fn push_encoded(out: &mut String, byte: u8) {
    use std::fmt::Write;
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        out.push(char::from(byte));
    } else {
        let _ = write!(out, "%{byte:02X}");
    }
}

/// Docker's reply names it `token`, OAuth2's `access_token`.
pub fn token(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let token = ["token", "access_token"].iter().find_map(|name| body[*name].as_str())?;
    (!token.is_empty()).then(|| token.to_owned())
}

pub fn digest(body: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(body)))
}

/// Digest of the config, and the sum of what the registry stores for the image.
pub fn size(manifest: &Value) -> Option<(String, i64)> {
    let config = &manifest["config"];
    let layers = manifest["layers"].as_array()?;
    let sum = layers
        .iter()
        .map(|l| l["size"].as_i64())
        .try_fold(config["size"].as_i64()?, |sum, size| sum.checked_add(size.filter(|s| *s >= 0)?))?;
    Some((config["digest"].as_str()?.to_owned(), sum))
}

/// Of an index the image for this kind of machine, or its first; none when it is no index. Attestations stand in it too
/// and are no images.
pub fn image_of_index(manifest: &Value, arch: &str) -> Option<String> {
    let arch = match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let images: Vec<&Value> = manifest["manifests"]
        .as_array()?
        .iter()
        .filter(|m| m["annotations"]["vnd.docker.reference.type"].as_str() != Some("attestation-manifest"))
        .collect();
    let fits = |m: &&&Value| m["platform"]["architecture"] == arch && m["platform"]["os"] == "linux";
    let image = images.iter().find(fits).or(images.first())?;
    Some(image["digest"].as_str()?.to_owned())
}

/// Whether an error body has the form that the protocol gives errors.
pub fn is_registry_error(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|body| body["errors"].is_array())
}

/// `scheme://host`.
pub fn origin(url: &str) -> Option<&str> {
    let start = url.find("://")? + 3;
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |i| start + i);
    Some(&url[..end])
}

/// A `Location` as an address of its own; none for what is neither HTTP nor a path.
pub fn absolute(place: &str, asked: &str) -> Option<String> {
    if place.starts_with("http://") || place.starts_with("https://") {
        Some(place.to_owned())
    } else if place.starts_with('/') && !place.starts_with("//") {
        Some(format!("{}{place}", origin(asked)?))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn challenges_of_the_registries_people_have() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.into(),
                service: service.map(str::to_owned),
                scope: scope.map(str::to_owned),
            })
        };
        for (header, wanted) in [
            (r#"Basic realm="rig""#, Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some("repository:a/b:pull,push")),
            ),
            (
                r#"Bearer service="harbor-registry", realm="https://h.example/service/token", error=x"#,
                bearer("https://h.example/service/token", Some("harbor-registry"), None),
            ),
            (r#"Bearer service="x""#, None),
            (r#"Bearer realm="unclosed"#, None),
            ("Negotiate", None),
            ("", None),
        ] {
            assert_eq!(challenge(header), wanted, "{header}");
        }
    }

    #[test]
    fn a_tokens_address_is_encoded() {
        assert_eq!(
            token_url("https://h/t", Some("a b"), "repository:p/i:pull,push"),
            "https://h/t?service=a%20b&scope=repository%3Ap%2Fi%3Apull%2Cpush"
        );
        assert_eq!(token_url("https://h/t?x=1", None, "s"), "https://h/t?x=1&scope=s");
        assert_eq!(token(br#"{"token":"a","access_token":"b"}"#).as_deref(), Some("a"));
        assert_eq!(token(br#"{"access_token":"b"}"#).as_deref(), Some("b"));
        assert_eq!(token(br#"{"token":""}"#), None);
        assert_eq!(token(b"<html>"), None);
    }

    #[test]
    fn an_image_weighs_its_config_and_its_layers() {
        let manifest = json!({"config": {"digest": "sha256:c", "size": 10}, "layers": [{"size": 5}, {"size": 7}]});
        assert_eq!(size(&manifest), Some(("sha256:c".into(), 22)));
        assert_eq!(size(&json!({"config": {"digest": "d", "size": 1}, "layers": []})), Some(("d".into(), 1)));
        for bad in [
            json!({}),
            json!({"config": {"digest": "d", "size": 1}}),
            json!({"config": {"digest": "d", "size": 1}, "layers": [{"size": -1}]}),
            json!({"config": {"digest": "d", "size": i64::MAX}, "layers": [{"size": 1}]}),
        ] {
            assert_eq!(size(&bad), None, "{bad}");
        }
    }

    #[test]
    fn of_an_index_the_image_for_this_machine() {
        let entry =
            |digest: &str, arch: &str| json!({"digest": digest, "platform": {"architecture": arch, "os": "linux"}});
        let attestation = json!({"digest": "att", "platform": {"architecture": "unknown", "os": "unknown"},
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"}});
        let index = json!({"manifests": [attestation, entry("arm", "arm64"), entry("amd", "amd64")]});
        assert_eq!(image_of_index(&index, "x86_64").as_deref(), Some("amd"));
        assert_eq!(image_of_index(&index, "aarch64").as_deref(), Some("arm"));
        assert_eq!(image_of_index(&index, "riscv64").as_deref(), Some("arm"));
        assert_eq!(image_of_index(&json!({"layers": []}), "x86_64"), None);
    }

    #[test]
    fn places_are_made_absolute_and_strangers_are_not_followed() {
        let asked = "https://r.example:5000/v2/x/blobs/uploads/";
        assert_eq!(absolute("/v2/y?z", asked).as_deref(), Some("https://r.example:5000/v2/y?z"));
        assert_eq!(absolute("http://o/x", asked).as_deref(), Some("http://o/x"));
        for bad in ["//evil/x", "ftp://x", "x", ""] {
            assert_eq!(absolute(bad, asked), None, "{bad}");
        }
        assert_eq!(origin("http://a?b"), Some("http://a"));
        assert!(is_registry_error(br#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#));
        assert!(!is_registry_error(b"<html>"));
    }
}
