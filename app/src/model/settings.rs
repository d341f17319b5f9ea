//! A service's build settings and their validation.

use super::Profile;
use crate::error::{Problem, Result};
use serde::{Deserialize, Serialize};

/// How a build finds its Dockerfile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum DockerfileChoice {
    #[default]
    Auto,
    Path {
        /// Relative to the repository's root, normalised: without a leading `./`.
        path: String,
    },
}

/// Settings as stored: every build takes a copy of them when it is queued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildSettings {
    pub dockerfile: DockerfileChoice,
    pub profile: Profile,
    pub no_cache: bool,
    pub time_limit_s: u32,
    /// Counts every save; 0 means that nobody has saved any yet.
    pub version: i64,
}

impl Default for BuildSettings {
    fn default() -> Self {
        Self {
            dockerfile: DockerfileChoice::Auto,
            profile: Profile::Auto,
            no_cache: false,
            time_limit_s: DEFAULT_TIME_LIMIT_S,
            version: 0,
        }
    }
}

pub const DEFAULT_TIME_LIMIT_S: u32 = 3_600;
pub const MIN_TIME_LIMIT_S: u32 = 5;
pub const MAX_TIME_LIMIT_S: u32 = 24 * 3_600;
pub const MAX_PATH_BYTES: usize = 1_024;

/// Settings as they are sent in. Context, build arguments and target stage belong in the Dockerfile: such fields are
/// refused like any unknown one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingsInput {
    #[serde(default)]
    pub dockerfile: DockerfileInput,
    #[serde(default)]
    pub profile: Profile,
    #[serde(default)]
    pub no_cache: bool,
    #[serde(default)]
    pub time_limit_s: Option<u32>,
    /// The version that was read before the change. When somebody else has saved since, the save is refused.
    #[serde(default)]
    pub version: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DockerfileInput {
    #[serde(default)]
    pub mode: DockerfileMode,
    #[serde(default)]
    pub path: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DockerfileMode {
    #[default]
    Auto,
    Path,
}

/// As if they had been sent in by whoever read them.
impl From<BuildSettings> for SettingsInput {
    fn from(settings: BuildSettings) -> Self {
        let dockerfile = match settings.dockerfile {
            DockerfileChoice::Auto => DockerfileInput::default(),
            DockerfileChoice::Path { path } => DockerfileInput { mode: DockerfileMode::Path, path: Some(path) },
        };
        Self {
            dockerfile,
            profile: settings.profile,
            no_cache: settings.no_cache,
            time_limit_s: Some(settings.time_limit_s),
            version: Some(settings.version),
        }
    }
}

impl SettingsInput {
    /// Checks and normalises; the version is the caller's business.
    pub fn validate(&self) -> Result<BuildSettings> {
        let dockerfile = match self.dockerfile.mode {
            DockerfileMode::Auto => DockerfileChoice::Auto,
            DockerfileMode::Path => {
                DockerfileChoice::Path { path: dockerfile_path(self.dockerfile.path.as_deref().unwrap_or_default())? }
            }
        };
        let time_limit_s = self.time_limit_s.unwrap_or(DEFAULT_TIME_LIMIT_S);
        if !(MIN_TIME_LIMIT_S..=MAX_TIME_LIMIT_S).contains(&time_limit_s) {
            return Err(Problem::invalid("time_limit_range", "settings.time_limit_s")
                .with("min", MIN_TIME_LIMIT_S)
                .with("max", MAX_TIME_LIMIT_S));
        }
        Ok(BuildSettings { dockerfile, profile: self.profile, no_cache: self.no_cache, time_limit_s, version: 0 })
    }
}

/// A Dockerfile's path within the repository: `./docker/Dockerfile.prod` and `docker/Dockerfile.prod` are the same.
/// Letters are kept exactly: `dockerfile` is another name than `Dockerfile`.
pub fn dockerfile_path(path: &str) -> Result<String> {
    const FIELD: &str = "settings.dockerfile.path";
    let path = path.trim();
    let normal: Vec<&str> = path.split('/').filter(|part| *part != ".").collect();
    if path.is_empty() || normal.is_empty() {
        return Err(Problem::invalid("required", FIELD));
    }
    if path.len() > MAX_PATH_BYTES {
        return Err(Problem::invalid("too_long", FIELD));
    }
    if path.starts_with('/') {
        return Err(Problem::invalid("path_absolute", FIELD));
    }
    if normal.contains(&"..") {
        return Err(Problem::invalid("path_outside", FIELD));
    }
    if path.ends_with('/') {
        return Err(Problem::invalid("path_folder", FIELD));
    }
    if path.contains('\\') || path.chars().any(char::is_control) || normal.contains(&"") || path.starts_with('-') {
        return Err(Problem::invalid("path_form", FIELD));
    }
    Ok(normal.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_were_read_can_be_sent_in() {
        for dockerfile in [DockerfileChoice::Auto, DockerfileChoice::Path { path: "docker/Dockerfile".into() }] {
            let stored =
                BuildSettings { dockerfile, profile: Profile::Large, no_cache: true, time_limit_s: 90, version: 7 };
            let input = SettingsInput::from(stored.clone());
            assert_eq!(input.version, Some(7));
            assert_eq!(input.validate(), Ok(BuildSettings { version: 0, ..stored }));
        }
    }

    #[test]
    fn paths_of_the_guide_are_taken() {
        for (given, kept) in [
            ("./Dockerfile", "Dockerfile"),
            ("./docker/Dockerfile.prod", "docker/Dockerfile.prod"),
            ("services/api/Dockerfile", "services/api/Dockerfile"),
            (" ././a/./dockerfile ", "a/dockerfile"),
        ] {
            assert_eq!(dockerfile_path(given).as_deref(), Ok(kept));
        }
    }

    #[test]
    fn bad_paths_are_refused_with_their_reason() {
        for (given, code) in [
            ("", "required"),
            ("./", "path_folder"),
            (".", "required"),
            ("/etc/passwd", "path_absolute"),
            ("../Dockerfile", "path_outside"),
            ("a/../../b", "path_outside"),
            ("a/", "path_folder"),
            ("a\\b", "path_form"),
            ("a//b", "path_form"),
            ("a\u{7}b", "path_form"),
            ("-f", "path_form"),
        ] {
            assert_eq!(dockerfile_path(given).map_err(|p| p.code), Err(code.to_owned()), "{given:?}");
        }
        assert_eq!(dockerfile_path(&"a".repeat(2000)).map_err(|p| p.code), Err("too_long".into()));
    }

    #[test]
    fn context_arguments_and_stage_have_no_place_here() {
        for field in ["context", "build_args", "target"] {
            let sent = format!(r#"{{"{field}":"x"}}"#);
            assert!(serde_json::from_str::<SettingsInput>(&sent).is_err(), "{field}");
        }
        assert!(serde_json::from_str::<SettingsInput>("{}").unwrap().validate().is_ok());
        assert!(SettingsInput { time_limit_s: Some(1), ..Default::default() }.validate().is_err());
    }
}
