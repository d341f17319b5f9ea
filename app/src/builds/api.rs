//! Server functions of this feature: caller, one call, the error mapped. Those that are forms take flat arguments, so
//! that a browser can post them by itself.

use crate::error::Problem;
use crate::model::*;
use leptos::prelude::*;

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

/// Starts a build and leads to it. `pick` is a branch or tag, with the head that was seen in front (`<hash>:main`) where
/// one was; `commit` is one that was typed and wins.
#[server(prefix = "/api/fn")]
pub async fn begin_build(
    service: ServiceId,
    #[server(default)] pick: String,
    #[server(default)] commit: String,
    #[server(default)] request_key: String,
) -> Result<Started, Problem> {
    let (seen, branch) = split_pick(&pick);
    let commit = commit.trim();
    let start = StartBuild {
        branch: branch.to_owned(),
        commit: if commit.is_empty() { seen.map(str::to_owned) } else { Some(commit.to_owned()) },
        request_key: (!request_key.is_empty()).then_some(request_key),
    };
    let result = match (backend(), caller()) {
        (Ok(backend), Ok(caller)) => backend.builds.start(&caller, &service, start).await,
        (Err(problem), _) | (_, Err(problem)) => Err(problem),
    };
    let page = format!("/services/edit/{service}?build=run");
    let started = give_back("start", &page, &[("pick", &pick), ("commit", commit)], result)?;
    let query = Query::default().with("build", "run").with("id", started.id.as_str());
    leptos_axum::redirect(&format!("/services/edit/{service}?{query}"));
    Ok(started)
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

/// State, steps and the log's end, or the rows around `row` when one is asked for.
#[server(prefix = "/api/fn", input = server_fn::codec::Json)]
pub async fn get_snapshot(id: BuildId, row: Option<u64>) -> Result<LiveSnapshot, Problem> {
    let (backend, caller) = (backend()?, caller()?);
    let mut snapshot = answer(backend.builds.snapshot(&caller, &id).await)?;
    match row {
        Some(row) => {
            let first = row.saturating_sub(super::log::FIRST_ROWS / 2);
            snapshot.tail = answer(backend.builds.rows(&caller, &id, first, super::log::FIRST_ROWS).await)?;
        }
        // The page is written with what fits a screen; the rest comes by range.
        None => {
            let extra = snapshot.tail.rows.len().saturating_sub(super::log::FIRST_ROWS as usize);
            snapshot.tail.rows.drain(..extra);
            snapshot.tail.first += extra as u64;
        }
    }
    Ok(snapshot)
}

#[server(prefix = "/api/fn", input = server_fn::codec::Json)]
pub async fn get_rows(id: BuildId, first: u64, count: u64) -> Result<RowsPage, Problem> {
    answer(backend()?.builds.rows(&caller()?, &id, first, count.min(MAX_RANGE_ROWS)).await)
}

#[server(prefix = "/api/fn", input = server_fn::codec::Json)]
pub async fn search_log(id: BuildId, text: String, from: u64) -> Result<Option<SearchHit>, Problem> {
    answer(backend()?.builds.search(&caller()?, &id, &text, from).await)
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
