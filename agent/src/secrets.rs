//! Which values must never be written down: read from the files that hold them, and from the proxies' addresses, for the
//! redaction to look for.

use crate::process::environment;
use crate::proxy;
use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kiops_events::spec::FilesSpec;
use serde::Deserialize;
use std::collections::HashMap;
use std::io;
use std::path::Path;

/// Docker's `config.json`, as far as it holds secrets.
#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, DockerAuth>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
struct DockerAuth {
    /// Base64 of `user:password`.
    #[serde(default)]
    auth: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
    #[serde(default)]
    registrytoken: String,
}

/// Of the files that are there: in a Pod each container has only those that it needs, and can give away no others.
pub fn values(files: &FilesSpec) -> anyhow::Result<Vec<Vec<u8>>> {
    let read = |path: &Path| match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some).with_context(|| format!("{} cannot be read", path.display())),
    };
    let mut values: Vec<_> = read(&files.key)?.into_iter().collect();
    if let Some(path) = &files.git_credential
        && let Some(credential) = read(path)?
    {
        let text = String::from_utf8(credential).context("the git credential is not text")?;
        let mut lines = text.lines();
        let (user, token) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        values.push(token.into());
        if !token.is_empty() {
            values.push(format!("{user}:{token}").into());
        }
    }
    for path in &files.redact {
        values.extend(read(path)?);
    }
    if let Some(config) = read(&files.docker_config.join("config.json"))? {
        let config: DockerConfig = serde_json::from_slice(&config).context("docker's config.json is not clear")?;
        for auth in config.auths.into_values() {
            if let Ok(decoded) = STANDARD.decode(&auth.auth) {
                if let Some(at) = decoded.iter().position(|b| *b == b':') {
                    values.push(decoded[at + 1..].to_vec());
                }
                values.push(decoded);
            }
            values.extend([auth.auth, auth.password, auth.identitytoken, auth.registrytoken].map(String::into_bytes));
        }
    }
    values.extend(proxy::passwords(&environment()));
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec_for_tests::spec;

    #[test]
    fn every_file_gives_its_values_and_no_user_names() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut files = spec().files;
        files.key = at("key");
        files.git_credential = Some(at("git"));
        files.docker_config = folder.path().to_owned();
        files.redact = vec![at("other")];
        std::fs::write(at("key"), "relay-key").unwrap();
        std::fs::write(at("git"), "bot\ngit-token\n").unwrap();
        std::fs::write(at("other"), "build-secret\n").unwrap();
        let auth = STANDARD.encode("robot:registry-password");
        std::fs::write(
            at("config.json"),
            serde_json::json!({"auths": {"r.example": {"auth": auth, "identitytoken": "id-token"}}, "x": 1})
                .to_string(),
        )
        .unwrap();
        let values = values(&files).unwrap();
        let has = |wanted: &str| values.iter().any(|v| v == wanted.as_bytes());
        for wanted in
            ["relay-key", "git-token", "bot:git-token", "build-secret\n", "registry-password", "id-token", &auth]
        {
            assert!(has(wanted), "{wanted}");
        }
        assert!(!has("bot") && !has("robot"));
    }

    #[test]
    fn without_credentials_there_is_only_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = spec().files;
        files.key = folder.path().join("key");
        files.docker_config = folder.path().to_owned();
        std::fs::write(&files.key, "relay-key").unwrap();
        assert_eq!(values(&files).unwrap(), [b"relay-key".to_vec()]);
    }
}
