//! Rows as values.

use super::{Db, Row};
use crate::store::log;
use crate::store::*;
use sqlx::Row as _;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

pub(super) fn user_row(row: &Row) -> Result<UserRow> {
    Ok(UserRow {
        id: id_of(row, "id")?,
        org_id: id_of(row, "org_id")?,
        name: get(row, "name")?,
        password_hash: get(row, "password_hash")?,
    })
}

pub(super) fn service_row(row: &Row) -> Result<ServiceRow> {
    Ok(ServiceRow {
        id: id_of(row, "id")?,
        org_id: id_of(row, "org_id")?,
        name: get(row, "name")?,
        git_url: get(row, "git_url")?,
        default_branch: get(row, "default_branch")?,
        git_secret: maybe_id_of(row, "git_secret")?,
        source_version: get(row, "source_version")?,
        registry: RegistryConfig { version: get(row, "registry_version")?, ..from_json(row, "registry")? },
        registry_secret: maybe_id_of(row, "registry_secret")?,
        settings: BuildSettings { version: get(row, "settings_version")?, ..from_json(row, "settings")? },
        cache_generation: get(row, "cache_generation")?,
        build_count: get(row, "build_count")?,
        created_at: get(row, "created_at")?,
    })
}

pub(super) fn build_row(row: &Row) -> Result<BuildRow> {
    Ok(BuildRow {
        id: id_of(row, "id")?,
        org_id: id_of(row, "org_id")?,
        service_id: id_of(row, "service_id")?,
        number: get(row, "number")?,
        branch: get(row, "branch")?,
        commit: get(row, "commit_hash")?,
        status: status_of(row)?,
        attempt: get::<i64>(row, "attempt")? as u32,
        queued_at: get(row, "queued_at")?,
        started_at: get(row, "started_at")?,
        finished_at: get(row, "finished_at")?,
        cancel_requested_at: get(row, "cancel_requested_at")?,
        lease_epoch: get(row, "lease_epoch")?,
        image_tag: get(row, "image_tag")?,
        digest: get(row, "digest")?,
        image_size_bytes: get(row, "image_size_bytes")?,
        created_by_name: get(row, "created_by_name")?,
        failure_code: get(row, "failure_code")?,
        diagnosis: get::<Option<String>>(row, "diagnosis")?
            .map(|text| serde_json::from_str(&text).map_err(anyhow::Error::from))
            .transpose()?,
        log_verified: get::<Option<i64>>(row, "log_verified")?.map(|n| n != 0),
        log_removed_at: get(row, "log_removed_at")?,
        snapshot: from_json(row, "snapshot")?,
    })
}

/// Of a request that came before.
pub(super) fn earlier_build(row: &Row) -> Result<QueuedBuild> {
    Ok(QueuedBuild { id: id_of(row, "id")?, number: get(row, "number")?, created: false })
}

pub(super) fn past_build(row: &Row) -> Result<PastBuild> {
    let snapshot: BuildSnapshot = from_json(row, "snapshot")?;
    let peak: Option<i64> = get(row, "peak_anon_bytes")?;
    Ok(PastBuild { profile: snapshot.resolved_profile, peak_anon_bytes: peak.map(|bytes| bytes as u64) })
}

/// Rows that can be read, for whoever asked for several: one that cannot (written by a newer version, or damaged) is
/// said in the log, once, and takes nothing from the others.
pub(super) fn readable<T>(rows: &[Row], read: fn(&Row) -> Result<T>) -> Vec<T> {
    rows.iter().filter_map(|row| readable_row(row, read)).collect()
}

pub(super) fn readable_row<T>(row: &Row, read: fn(&Row) -> Result<T>) -> Option<T> {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    match read(row) {
        Ok(value) => Some(value),
        Err(error) => {
            let id = get::<String>(row, "id").unwrap_or_default();
            if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone()) {
                tracing::error!(id, "a stored row cannot be read and is passed over: {error:#}");
            }
            None
        }
    }
}

pub(super) fn log_piece(row: &Row) -> Result<LogPiece> {
    let body: Vec<u8> = get(row, "body")?;
    Ok(LogPiece {
        first_row: get::<i64>(row, "first_row")? as u64,
        entries: log::unpack(&body).map_err(anyhow::Error::from)?,
    })
}

pub(super) fn get<'r, T>(row: &'r Row, name: &str) -> Result<T>
where
    T: sqlx::Decode<'r, Db> + sqlx::Type<Db>,
{
    Ok(row.try_get(name)?)
}

pub(super) fn id_of<T>(row: &Row, name: &str) -> Result<T>
where
    T: std::str::FromStr<Err = kiops_app::model::BadId>,
{
    Ok(get::<String>(row, name)?.parse().map_err(anyhow::Error::from)?)
}

pub(super) fn maybe_id_of<T>(row: &Row, name: &str) -> Result<Option<T>>
where
    T: std::str::FromStr<Err = kiops_app::model::BadId>,
{
    Ok(get::<Option<String>>(row, name)?.map(|text| text.parse().map_err(anyhow::Error::from)).transpose()?)
}

pub(super) fn status_of(row: &Row) -> Result<BuildStatus> {
    let text: String = get(row, "status")?;
    BuildStatus::parse(&text).ok_or_else(|| anyhow::anyhow!("unknown build status {text:?}").into())
}

pub(super) fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    Ok(serde_json::to_string(value).map_err(anyhow::Error::from)?)
}

pub(super) fn from_json<T: serde::de::DeserializeOwned>(row: &Row, name: &str) -> Result<T> {
    Ok(serde_json::from_str(&get::<String>(row, name)?).map_err(anyhow::Error::from)?)
}
