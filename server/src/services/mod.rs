//! Services as people register and change them: form and uniqueness are checked, tokens and passwords are sealed before
//! they are stored and opened only for whoever needs them, and every change leaves its trace in the audit log.
//!
//! What never enters: how a build is made of a service's settings.

mod credentials;
pub mod demo;
mod system;

pub use credentials::Credentials;
pub use system::LocalSystem;

use crate::audit::changed;
use crate::builds::Builds;
use crate::git::{Git, Remote};
use crate::problems::{of_store, random};
use crate::registry::{RegistryClient, Repository};
use crate::store::{NewServiceRow, SecretChange, ServiceRow, SharedStore, SourceRow, StoreError};
use async_trait::async_trait;
use kiops_app::backend::{Caller, Services};
use kiops_app::error::{Problem, Result};
use kiops_app::model::*;
use std::collections::HashMap;
use std::sync::Arc;

/// Services that are kept in the store.
pub struct LocalServices {
    pub store: SharedStore,
    pub credentials: Credentials,
    pub git: Arc<Git>,
    pub registry: Arc<RegistryClient>,
    pub builds: Builds,
}

impl LocalServices {
    async fn row(&self, caller: &Caller, id: &ServiceId) -> Result<ServiceRow> {
        self.store.service(&caller.org_id, id).await.map_err(|e| of_store("service", e))
    }

    /// The branch that is built unless another is chosen. The repository is asked even where it is given: a wrong address
    /// or token is to be told to whoever entered it, and not by the first build.
    async fn default_branch(&self, given: Option<&str>, url: &str, token: Option<&str>) -> Result<String> {
        self.git.default_branch(Remote { url, token }, given).await
    }

    /// The same as [`Services::save_source`], without asking the repository: its host may come up after the server.
    pub async fn save_source_unasked(&self, caller: &Caller, id: &ServiceId, input: SourceInput) -> Result<Source> {
        self.put_source(caller, id, input, false).await
    }

    async fn put_source(&self, caller: &Caller, id: &ServiceId, input: SourceInput, ask: bool) -> Result<Source> {
        let row = self.row(caller, id).await?;
        let SourceInput::Git { url, token, default_branch, version } = input;
        let url = git_url(&url)?;
        let given = git_token(token.as_deref())?;
        let branch = given_branch(&default_branch)?;
        if version.is_some_and(|version| version != row.source_version) {
            return Err(not_saved(StoreError::Conflict));
        }
        // Nor a stored token to another host.
        if given.is_none() && row.git_secret.is_some() && authority(&url) != authority(&row.git_url) {
            return Err(Problem::invalid("required", "source.token"));
        }
        // To take a token away nobody else's consent is needed.
        let only_forgets = given == Some("") && url == row.git_url && branch.as_ref() == Some(&row.default_branch);
        let default_branch = match branch {
            Some(branch) if only_forgets || !ask => branch,
            branch => {
                let token = self.token_for(given, Some(&row)).await?;
                self.default_branch(branch.as_deref(), &url, token.as_deref()).await?
            }
        };
        let sealed = self.credentials.seal(caller, given.filter(|token| !token.is_empty()))?;
        let secret = if given.is_some() { SecretChange::to(sealed.as_ref()) } else { SecretChange::Keep };
        let source = SourceRow { git_url: &url, default_branch: &default_branch, secret };
        // Also where no version was sent: what was judged above is what is changed.
        let version = version.or(given.is_none().then_some(row.source_version));
        let version = self.store.save_source(&caller.org_id, id, source, version).await.map_err(not_saved)?;
        let detail = serde_json::json!({ "url": url, "default_branch": default_branch });
        changed(&self.store, caller, "service.source", id.as_str(), detail).await;
        self.credentials.sweep_once().await;
        let has_token = if given.is_some() { sealed.is_some() } else { row.git_secret.is_some() };
        Ok(Source { url, default_branch, has_token, version })
    }

    /// Registers without asking the repository, where a branch is given: for one whose host may come up later.
    pub async fn register_unasked(&self, caller: &Caller, new: NewService) -> Result<ServiceId> {
        self.insert(caller, new, false).await
    }

    async fn insert(&self, caller: &Caller, new: NewService, ask: bool) -> Result<ServiceId> {
        let name = service_name(&new.name)?;
        let SourceInput::Git { url, token, default_branch, .. } = &new.source;
        let url = git_url(url)?;
        let token = git_token(token.as_deref())?.filter(|token| !token.is_empty());
        let given = given_branch(default_branch)?;
        let registry = new.registry_config.validate(false)?;
        let settings = new.settings.map(|settings| settings.validate()).transpose()?.unwrap_or_default();
        if self.store.service_by_name(&caller.org_id, &name).await.map_err(|e| of_store("service", e))?.is_some() {
            return Err(Problem::conflict("name_taken").at("name"));
        }
        let default_branch = match given {
            Some(given) if !ask => given,
            given => self.default_branch(given.as_deref(), &url, token).await?,
        };
        let row = NewServiceRow {
            id: ServiceId::from_random(random()),
            org_id: caller.org_id.clone(),
            created_by: caller.user_id.clone(),
            git_secret: self.credentials.seal(caller, token)?,
            registry_secret: self.credentials.seal(caller, password_of(&new.registry_config, &registry))?,
            name,
            git_url: url,
            default_branch,
            registry,
            settings,
        };
        self.store.insert_service(&row).await.map_err(|e| of_store("service", e))?;
        changed(&self.store, caller, "service.register", row.id.as_str(), serde_json::json!({ "name": row.name }))
            .await;
        Ok(row.id)
    }

    /// The given token, or the stored one of this service where none was given.
    async fn token_for(&self, given: Option<&str>, row: Option<&ServiceRow>) -> Result<Option<String>> {
        match (given, row) {
            (Some(""), _) => Ok(None),
            (Some(token), _) => Ok(Some(token.to_owned())),
            (None, Some(row)) => self.credentials.open(row.git_secret.as_ref()).await,
            (None, None) => Ok(None),
        }
    }

    async fn heads(&self, rows: Vec<crate::store::BuildRow>) -> Result<HashMap<ServiceId, BuildHead>> {
        let heads = self.builds.heads(rows).await?;
        Ok(heads.into_iter().map(|head| (head.service_id.clone(), head)).collect())
    }

    async fn last_build(&self, id: &ServiceId, successful: bool) -> Result<Option<BuildHead>> {
        let row = self.store.last_build(id, successful).await.map_err(|e| of_store("build", e))?;
        Ok(self.builds.heads(row.into_iter().collect()).await?.pop())
    }
}

fn git_token(token: Option<&str>) -> Result<Option<&str>> {
    const FIELD: &str = "source.token";
    match token {
        None | Some("") => Ok(token),
        Some(token) if token.len() < MIN_SECRET_BYTES => {
            Err(Problem::invalid("secret_too_short", FIELD).with("min", MIN_SECRET_BYTES))
        }
        Some(token) if token.len() > MAX_TOKEN_BYTES => Err(Problem::invalid("too_long", FIELD)),
        Some(token) if token.chars().any(|c| c.is_control() || c.is_whitespace()) => {
            Err(Problem::invalid("token_form", FIELD))
        }
        Some(_) => Ok(token),
    }
}

const MAX_TOKEN_BYTES: usize = 4_096;

/// None: whichever HEAD names.
fn given_branch(given: &str) -> Result<Option<String>> {
    (!given.trim().is_empty()).then(|| ref_name(given, "source.default_branch")).transpose()
}

fn source_of(row: &ServiceRow) -> Source {
    Source {
        url: row.git_url.clone(),
        default_branch: row.default_branch.clone(),
        has_token: row.git_secret.is_some(),
        version: row.source_version,
    }
}

/// A failed save, where a conflict means that somebody else was faster.
fn not_saved(error: StoreError) -> Problem {
    match error {
        StoreError::Conflict => Problem::conflict("settings_conflict"),
        error => of_store("service", error),
    }
}

/// Whether the stored password may be used for what was entered: it must not be sent to another registry than the one it
/// was entered for, nor in the clear when that was not said at the time.
fn may_use_stored(entered: &RegistryConfig, stored: &RegistryConfig) -> Result<()> {
    const FIELD: &str = "registry_config.password";
    if entered.host != stored.host {
        return Err(Problem::invalid("required", FIELD));
    }
    if entered.plain_http && !stored.plain_http {
        return Err(Problem::invalid("password_for_plain_http", FIELD));
    }
    Ok(())
}

#[async_trait]
impl Services for LocalServices {
    async fn list(&self, caller: &Caller) -> Result<Vec<ServiceCard>> {
        let rows = self.store.services(&caller.org_id).await.map_err(|e| of_store("service", e))?;
        let builds = self.store.last_builds(&caller.org_id).await.map_err(|e| of_store("build", e))?;
        let mut heads = self.heads(builds).await?;
        Ok(rows
            .into_iter()
            .map(|row| ServiceCard {
                last_build: heads.remove(&row.id),
                id: row.id,
                name: row.name,
                default_branch: row.default_branch,
            })
            .collect())
    }

    async fn get(&self, caller: &Caller, id: &ServiceId) -> Result<ServiceDetail> {
        let row = self.row(caller, id).await?;
        Ok(ServiceDetail {
            last_build: self.last_build(id, false).await?,
            latest_image: self.last_build(id, true).await?,
            source: source_of(&row),
            image_name_fixed: row.build_count > 0,
            id: row.id,
            name: row.name,
            registry_config: row.registry,
            settings: row.settings,
            created_at: row.created_at,
            now_ms: crate::clock::now_ms(),
        })
    }

    async fn register(&self, caller: &Caller, new: NewService) -> Result<ServiceId> {
        self.insert(caller, new, true).await
    }

    async fn save_settings(&self, caller: &Caller, id: &ServiceId, input: SettingsInput) -> Result<BuildSettings> {
        let settings = input.validate()?;
        let saved = self.store.save_settings(&caller.org_id, id, &settings, input.version).await.map_err(not_saved)?;
        let detail = serde_json::to_value(&saved).unwrap_or_default();
        changed(&self.store, caller, "service.settings", id.as_str(), detail).await;
        Ok(saved)
    }

    async fn save_registry(&self, caller: &Caller, id: &ServiceId, input: RegistryInput) -> Result<RegistryConfig> {
        let row = self.row(caller, id).await?;
        let mut registry = input.validate(row.registry_secret.is_some())?;
        if input.version().is_some_and(|version| version != row.registry.version) {
            return Err(not_saved(StoreError::Conflict));
        }
        if row.build_count > 0 && registry.image_name != row.registry.image_name {
            return Err(Problem::conflict("image_name_fixed").at("registry_config.image_name"));
        }
        let given = self.credentials.seal(caller, password_of(&input, &registry))?;
        let secret = match &given {
            Some(given) => SecretChange::Replace(given),
            None if registry.has_password => {
                may_use_stored(&registry, &row.registry)?;
                SecretChange::Keep
            }
            None => SecretChange::Forget,
        };
        // Also where no version was sent: what was judged above is what is changed.
        let version = input.version().or(matches!(secret, SecretChange::Keep).then_some(row.registry.version));
        registry.version =
            self.store.save_registry(&caller.org_id, id, &registry, secret, version).await.map_err(not_saved)?;
        let detail = serde_json::json!({ "repository": registry.repository(), "username": registry.username });
        changed(&self.store, caller, "service.registry", id.as_str(), detail).await;
        self.credentials.sweep_once().await;
        Ok(registry)
    }

    async fn save_source(&self, caller: &Caller, id: &ServiceId, input: SourceInput) -> Result<Source> {
        self.put_source(caller, id, input, true).await
    }

    async fn check_repository(
        &self,
        caller: &Caller,
        id: Option<&ServiceId>,
        input: SourceInput,
    ) -> Result<RepositoryCheck> {
        let SourceInput::Git { url, token, .. } = input;
        let url = git_url(&url)?;
        let given = git_token(token.as_deref())?;
        let row = match id {
            Some(id) => Some(self.row(caller, id).await?).filter(|row| authority(&row.git_url) == authority(&url)),
            None => None,
        };
        let token = self.token_for(given, row.as_ref()).await?;
        self.git.check(Remote { url: &url, token: token.as_deref() }).await
    }

    async fn check_registry(&self, caller: &Caller, id: Option<&ServiceId>, input: RegistryInput) -> Result<()> {
        let row = match id {
            Some(id) => Some(self.row(caller, id).await?),
            None => None,
        };
        let stored = row.filter(|row| row.registry_secret.is_some());
        let registry = input.validate(stored.is_some())?;
        let password = match (password_of(&input, &registry), stored) {
            (Some(password), _) => Some(password.to_owned()),
            (None, Some(row)) if registry.has_password => {
                may_use_stored(&registry, &row.registry)?;
                self.credentials.open(row.registry_secret.as_ref()).await?
            }
            (None, _) => None,
        };
        let repository = Repository::of(&registry, password.as_deref());
        self.registry.check_push(&repository).await.map_err(|error| {
            tracing::debug!(host = registry.host, "a registry refused: {error}");
            error.problem(&registry.host)
        })
    }

    async fn refs(&self, caller: &Caller, id: &ServiceId) -> Result<RefList> {
        let row = self.row(caller, id).await?;
        let token = self.credentials.open(row.git_secret.as_ref()).await?;
        self.git.refs(id, Remote { url: &row.git_url, token: token.as_deref() }, &row.default_branch).await
    }
}

/// The password that was entered, where the registry takes one.
fn password_of<'a>(input: &'a RegistryInput, config: &RegistryConfig) -> Option<&'a str> {
    input.password().filter(|password| !password.is_empty() && config.has_password)
}

/// Scheme, host and port: whom a token is for.
fn authority(url: &str) -> &str {
    let end = url.find("://").and_then(|at| url[at + 3..].find('/').map(|slash| at + 3 + slash));
    &url[..end.unwrap_or(url.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_enough_to_be_kept_out_of_logs() {
        assert_eq!(git_token(None), Ok(None));
        assert_eq!(git_token(Some("")), Ok(Some("")));
        assert_eq!(git_token(Some("glpat-x")), Ok(Some("glpat-x")));
        for (bad, code) in [("short", "secret_too_short"), ("with space", "token_form"), ("line\nbreak", "token_form")]
        {
            assert_eq!(git_token(Some(bad)).map_err(|p| p.code), Err(code.to_owned()), "{bad:?}");
        }
        assert!(git_token(Some(&"x".repeat(MAX_TOKEN_BYTES + 1))).is_err());
    }

    #[test]
    fn whom_a_token_is_for() {
        assert_eq!(authority("https://git.example.com:8443/a/b"), "https://git.example.com:8443");
        assert_ne!(authority("https://git.example.com/a"), authority("http://git.example.com/a"));
        assert_ne!(authority("https://git.example.com/a"), authority("https://git.example.com.evil.example/a"));
    }
}
