//! Server functions of this feature: caller, one call, the error mapped. Those that are forms take flat arguments, so
//! that a browser can post them by itself.

use super::found::FoundDockerfile;
use crate::error::Problem;
use crate::model::*;
use kiops_events::Row;
use leptos::prelude::*;
use serde::{Deserialize, Serialize};

#[cfg(feature = "ssr")]
use crate::call::{answer, backend, caller, give_back, plain_redirect};
#[cfg(feature = "ssr")]
use crate::ui::query::Query;

#[server(prefix = "/api/fn")]
pub async fn save_settings(
    id: ServiceId,
    #[server(default)] mode: DockerfileMode,
    #[server(default)] path: String,
    #[server(default)] profile: Profile,
    #[server(default)] no_cache: String,
    #[server(default)] time_limit_s: String,
    #[server(default)] version: String,
) -> Result<BuildSettings, Problem> {
    let no_cache = !no_cache.is_empty();
    let input = SettingsInput {
        dockerfile: DockerfileInput { mode, path: (mode == DockerfileMode::Path).then(|| path.clone()) },
        profile,
        no_cache,
        time_limit_s: time_limit_s.parse().ok(),
        version: version.parse().ok(),
    };
    let result = match (backend(), caller()) {
        (Ok(backend), Ok(caller)) => backend.services.save_settings(&caller, &id, input).await,
        (Err(problem), _) | (_, Err(problem)) => Err(problem),
    };
    let values = [
        ("mode", if mode == DockerfileMode::Path { "path" } else { "auto" }),
        ("path", &path),
        ("profile", profile.as_str()),
        ("no_cache", if no_cache { "true" } else { "" }),
        ("version", &version),
    ];
    let page = format!("/services/edit/{id}?build=settings");
    let saved = give_back("settings", &page, &values, result)?;
    plain_redirect(&format!("{page}&saved=1"));
    Ok(saved)
}

/// A build that was started, and how it stands: the page that asked can show it at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Begun {
    pub id: BuildId,
    pub live: Option<Box<LiveSnapshot>>,
}

/// Starts a build and leads to it. `pick` is a branch or tag, with the head that was seen in front (`<hash>:main`) where
/// one was; `commit` is one that was typed and wins. A `profile` is the service's from now on.
#[server(prefix = "/api/fn")]
pub async fn begin_build(
    service: ServiceId,
    #[server(default)] pick: String,
    #[server(default)] commit: String,
    #[server(default)] request_key: String,
    #[server(default)] profile: Option<Profile>,
) -> Result<Begun, Problem> {
    let (seen, branch) = split_pick(&pick);
    let commit = commit.trim();
    let start = StartBuild {
        branch: branch.to_owned(),
        commit: if commit.is_empty() { seen.map(str::to_owned) } else { Some(commit.to_owned()) },
        request_key: (!request_key.is_empty()).then_some(request_key),
    };
    let result = begin(&service, start, profile).await;
    let page = format!("/services/edit/{service}?build=run");
    let begun = give_back("start", &page, &[("pick", &pick), ("commit", commit)], result)?;
    let query = Query::default().with("build", "run").with("id", begun.id.as_str());
    plain_redirect(&format!("/services/edit/{service}?{query}"));
    Ok(begun)
}

#[cfg(feature = "ssr")]
async fn begin(service: &ServiceId, start: StartBuild, profile: Option<Profile>) -> Result<Begun, Problem> {
    let (backend, caller) = (backend()?, caller()?);
    if let Some(profile) = profile {
        let settings = backend.services.get(&caller, service).await?.settings;
        let input = SettingsInput { profile, ..settings.into() };
        backend.services.save_settings(&caller, service, input).await?;
    }
    let id = backend.builds.start(&caller, service, start).await?.id;
    // It is started, whether or not it can be shown now.
    let live = backend.builds.snapshot(&caller, &id).await.ok().map(Box::new);
    Ok(Begun { id, live })
}

/// `<hash>:main` in its two parts.
#[cfg_attr(not(feature = "ssr"), allow(dead_code))]
fn split_pick(pick: &str) -> (Option<&str>, &str) {
    match pick.split_once(':') {
        // A branch cannot hold a colon.
        Some((hash, branch)) => (Some(hash), branch),
        None => (None, pick),
    }
}

#[server(prefix = "/api/fn")]
pub async fn cancel_build(id: BuildId, #[server(default)] service: String) -> Result<(), Problem> {
    let result = match (backend(), caller()) {
        (Ok(backend), Ok(caller)) => backend.builds.cancel(&caller, &id).await,
        (Err(problem), _) | (_, Err(problem)) => Err(problem),
    };
    let query = Query::default().with("build", "run").with("id", id.as_str());
    let page = match service.parse::<ServiceId>() {
        Ok(service) => format!("/services/edit/{service}?{query}"),
        Err(_) => "/services".to_owned(),
    };
    give_back("cancel", &page, &[], result)?;
    plain_redirect(&page);
    Ok(())
}

#[server(prefix = "/api/fn", input = server_fn::codec::Json)]
pub async fn get_history(service: ServiceId, query: HistoryQuery) -> Result<HistoryPage, Problem> {
    answer(backend()?.builds.history(&caller()?, &service, query).await)
}

/// State, steps and rows of the log: those around `row` when one is asked for, those that show why it failed, else the
/// log's end. As many as fit a screen and some; the rest comes by range.
#[server(prefix = "/api/fn", input = server_fn::codec::Json)]
pub async fn get_snapshot(id: BuildId, row: Option<u64>) -> Result<LiveSnapshot, Problem> {
    use super::log::{FIRST_BYTES, FIRST_ROWS};
    let (backend, caller) = (backend()?, caller()?);
    let mut snapshot = answer(backend.builds.snapshot(&caller, &id).await)?;
    let row = row.or_else(|| super::live::telling_row(&snapshot));
    if let Some(row) = row.filter(|row| *row < snapshot.tail.first) {
        let first = row.saturating_sub(FIRST_ROWS / 2);
        snapshot.tail = answer(backend.builds.rows(&caller, &id, first, FIRST_ROWS).await)?;
    }
    let around = row.unwrap_or(snapshot.tail.total.saturating_sub(1));
    snapshot.tail.keep_around(around, FIRST_ROWS as usize, FIRST_BYTES);
    Ok(snapshot)
}

#[server(prefix = "/api/fn", input = server_fn::codec::Json)]
pub async fn get_rows(id: BuildId, first: u64, count: u64) -> Result<RowsPage, Problem> {
    answer(backend()?.builds.rows(&caller()?, &id, first, count.min(MAX_RANGE_ROWS)).await)
}

#[server(prefix = "/api/fn", input = server_fn::codec::Json)]
pub async fn get_row(id: BuildId, row: u64) -> Result<Row, Problem> {
    answer(backend()?.builds.row(&caller()?, &id, row).await)
}

/// The next row from `from` on that holds `text` as this reader sees it.
#[server(prefix = "/api/fn", input = server_fn::codec::Json)]
pub async fn search_log(id: BuildId, text: String, from: u64) -> Result<Option<SearchHit>, Problem> {
    answer(backend()?.builds.search(&caller()?, &id, &text, from, &super::log::as_shown).await)
}

/// What Auto-detect takes in this service, where a build has looked already.
#[server(prefix = "/api/fn", input = server_fn::codec::Json)]
pub async fn detected_dockerfile(service: ServiceId) -> Result<Option<FoundDockerfile>, Problem> {
    let (backend, caller) = (backend()?, caller()?);
    let detail = answer(backend.services.get(&caller, &service).await)?;
    for build in [detail.last_build, detail.latest_image].into_iter().flatten() {
        let snapshot = answer(backend.builds.snapshot(&caller, &build.id).await)?;
        if let Some(found) = FoundDockerfile::of(&snapshot) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::split_pick;

    #[test]
    fn a_pick_is_a_branch_with_or_without_its_head() {
        assert_eq!(split_pick("main"), (None, "main"));
        assert_eq!(split_pick("abc:feature/x"), (Some("abc"), "feature/x"));
    }
}
