//! Server functions of this feature: caller, one call, the error mapped. Those that are forms take flat arguments, so
//! that a browser can post them by itself.

use crate::error::Problem;
use crate::model::*;
use leptos::prelude::*;
use serde::{Deserialize, Serialize};

#[cfg(feature = "ssr")]
use crate::call::{answer, backend, caller, give_back, now_ms, plain_redirect};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceList {
    pub cards: Vec<ServiceCard>,
    /// Server clock.
    pub now_ms: i64,
}

#[server(prefix = "/api/fn", input = server_fn::codec::Json)]
pub async fn list_services() -> Result<ServiceList, Problem> {
    let cards = answer(backend()?.services.list(&caller()?).await)?;
    Ok(ServiceList { cards, now_ms: now_ms() })
}

#[server(prefix = "/api/fn", input = server_fn::codec::Json)]
pub async fn get_service(id: ServiceId) -> Result<ServiceDetail, Problem> {
    answer(backend()?.services.get(&caller()?, &id).await)
}

/// The queue and the disk: what may keep a build from starting.
#[server(prefix = "/api/fn", input = server_fn::codec::Json)]
pub async fn get_status() -> Result<SystemStatus, Problem> {
    answer(backend()?.system.status(&caller()?).await)
}

#[server(prefix = "/api/fn", input = server_fn::codec::Json)]
pub async fn list_refs(id: ServiceId) -> Result<RefList, Problem> {
    answer(backend()?.services.refs(&caller()?, &id).await)
}

#[server(prefix = "/api/fn", input = server_fn::codec::Json)]
pub async fn check_repository(id: Option<ServiceId>, source: SourceInput) -> Result<RepositoryCheck, Problem> {
    answer(backend()?.services.check_repository(&caller()?, id.as_ref(), source).await)
}

#[server(prefix = "/api/fn", input = server_fn::codec::Json)]
pub async fn check_registry(id: Option<ServiceId>, registry: RegistryInput) -> Result<(), Problem> {
    answer(backend()?.services.check_registry(&caller()?, id.as_ref(), registry).await)
}

/// What the registry part of a form holds, whatever its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryFields {
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub registry_url: String,
    #[serde(default)]
    pub project: String,
    #[serde(default)]
    pub namespace: String,
    #[serde(default)]
    pub path: String,
    #[serde(default)]
    pub image_name: String,
    #[serde(default)]
    pub username: String,
    #[serde(default)]
    pub password: String,
    #[serde(default)]
    pub plain_http: String,
    #[serde(default)]
    pub version: String,
}

impl RegistryFields {
    /// Takes what the kind has and leaves the rest out.
    pub fn into_input(self) -> RegistryInput {
        let password = (!self.password.is_empty()).then_some(self.password);
        let version = self.version.parse().ok();
        match self.kind.as_str() {
            "dockerhub" => RegistryInput::DockerHub {
                namespace: self.namespace,
                image_name: self.image_name,
                username: self.username,
                password,
                version,
            },
            "private" => RegistryInput::Private {
                url: self.registry_url,
                path: self.path,
                image_name: self.image_name,
                username: self.username,
                password,
                plain_http: !self.plain_http.is_empty(),
                version,
            },
            _ => RegistryInput::Harbor {
                url: self.registry_url,
                project: self.project,
                image_name: self.image_name,
                username: self.username,
                password,
                version,
            },
        }
    }

    /// What may stand in an address: everything but the password.
    #[cfg(feature = "ssr")]
    pub fn shown(&self) -> [(&'static str, &str); 9] {
        [
            ("kind", &self.kind),
            ("registry_url", &self.registry_url),
            ("project", &self.project),
            ("namespace", &self.namespace),
            ("path", &self.path),
            ("image_name", &self.image_name),
            ("username", &self.username),
            ("plain_http", &self.plain_http),
            ("version", &self.version),
        ]
    }
}

#[server(prefix = "/api/fn")]
pub async fn register_service(
    #[server(default)] name: String,
    #[server(default)] url: String,
    #[server(default)] token: String,
    #[server(default)] default_branch: String,
    #[server(flatten)] registry: RegistryFields,
) -> Result<ServiceId, Problem> {
    let mut values = vec![("name", name.as_str()), ("url", &url), ("default_branch", &default_branch)];
    values.extend(registry.shown());
    let new = NewService {
        name: name.clone(),
        source: SourceInput::Git {
            url: url.clone(),
            token: (!token.is_empty()).then_some(token),
            default_branch: default_branch.clone(),
            version: None,
        },
        registry_config: registry.clone().into_input(),
        settings: None,
    };
    let result = match (backend(), caller()) {
        (Ok(backend), Ok(caller)) => backend.services.register(&caller, new).await,
        (Err(problem), _) | (_, Err(problem)) => Err(problem),
    };
    let id = give_back("register", "/services?add=1", &values, result)?;
    leptos_axum::redirect(&format!("/services/edit/{id}"));
    Ok(id)
}

#[server(prefix = "/api/fn")]
pub async fn save_registry(
    id: ServiceId,
    #[server(flatten)] registry: RegistryFields,
) -> Result<RegistryConfig, Problem> {
    let result = match (backend(), caller()) {
        (Ok(backend), Ok(caller)) => backend.services.save_registry(&caller, &id, registry.clone().into_input()).await,
        (Err(problem), _) | (_, Err(problem)) => Err(problem),
    };
    let saved = give_back("registry", &format!("/services/edit/{id}?edit=registry"), &registry.shown(), result)?;
    plain_redirect(&format!("/services/edit/{id}"));
    Ok(saved)
}

#[server(prefix = "/api/fn")]
pub async fn save_source(
    id: ServiceId,
    #[server(default)] url: String,
    #[server(default)] token: String,
    #[server(default)] forget_token: String,
    #[server(default)] default_branch: String,
    #[server(default)] version: String,
) -> Result<Source, Problem> {
    let input = SourceInput::Git {
        url: url.clone(),
        token: if forget_token.is_empty() { (!token.is_empty()).then_some(token) } else { Some(String::new()) },
        default_branch: default_branch.clone(),
        version: version.parse().ok(),
    };
    let result = match (backend(), caller()) {
        (Ok(backend), Ok(caller)) => backend.services.save_source(&caller, &id, input).await,
        (Err(problem), _) | (_, Err(problem)) => Err(problem),
    };
    let page = format!("/services/edit/{id}?edit=source");
    let values = [("url", url.as_str()), ("default_branch", &default_branch), ("version", &version)];
    let saved = give_back("source", &page, &values, result)?;
    plain_redirect(&format!("/services/edit/{id}"));
    Ok(saved)
}
