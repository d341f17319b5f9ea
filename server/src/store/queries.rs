//! The statements, written once. Each engine compiles this file for itself: it brings `Db`, `Engine` with `write`, and
//! the macros for what the two spell differently (`now!`, `for_update!`, `for_update_skip_locked!`, `builds_by!`).
//!
//! Statements that write run within [`Engine::write`]; everything that a transaction decides on is read inside it.

use super::{Db, Engine};
use crate::store::log;
use crate::store::*;
use kiops_app::model::{ID_LETTERS, StatusFilter};
use kiops_events::chain::Chain;
use sqlx::{Database, QueryBuilder};

#[allow(clippy::duplicate_mod, reason = "compiled for each engine")]
#[path = "queries/pieces.rs"]
mod pieces;
#[allow(clippy::duplicate_mod, reason = "compiled for each engine")]
#[path = "queries/rows.rs"]
mod rows;

use pieces::*;
pub(in crate::store) use pieces::{LogSize, Packed};
use rows::*;

type Conn = <Db as Database>::Connection;
type Row = <Db as Database>::Row;

macro_rules! running {
    () => {
        "('starting', 'checking_out', 'building', 'pushing')"
    };
}

macro_rules! select_builds {
    ($($rest:expr),+ $(,)?) => {
        select_builds!(from "builds AS b ", $($rest),+)
    };
    (from $builds:expr, $($rest:expr),+ $(,)?) => {
        concat!(
            "SELECT b.id, b.org_id, b.service_id, b.number, b.branch, b.commit_hash, b.status, b.attempt, b.queued_at, \
             b.started_at, b.finished_at, b.cancel_requested_at, b.lease_epoch, b.image_tag, b.digest, \
             b.image_size_bytes, b.failure_code, b.diagnosis, b.log_verified, b.log_removed_at, b.snapshot, \
             u.name AS created_by_name FROM ",
            $builds,
            "JOIN users u ON u.id = b.created_by ",
            $($rest),+
        )
    };
}

macro_rules! select_services {
    ($($rest:expr),+ $(,)?) => {
        concat!(
            "SELECT id, org_id, name, git_url, default_branch, git_secret, source_version, registry, registry_secret, \
             registry_version, settings, settings_version, cache_generation, build_count, created_at FROM services ",
            $($rest),+
        )
    };
}

macro_rules! select_users {
    ($($rest:expr),+ $(,)?) => {
        concat!("SELECT u.id, u.org_id, u.name, u.password_hash FROM users u ", $($rest),+)
    };
}

/// One range read of a log gives at most about this much: a log of very long lines must not fill the memory.
const MAX_READ_BYTES: i64 = 8 << 20;
/// Rows of several kilobytes each: one read never gives more pieces than this.
const MAX_READ_PIECES: i64 = 512;
/// Pieces that one transaction deletes: nobody who writes waits longer than for a log's own append.
const REMOVED_AT_ONCE: i64 = 32;
const DAY_MS: i64 = 86_400_000;
/// So long a size that proved too small is not tried again.
const OUTGROWN_FOR_MS: i64 = 30 * DAY_MS;

#[async_trait]
impl Store for Engine {
    async fn installation(&self) -> Result<Installation> {
        if let Some(known) = installation(&mut *self.readers.acquire().await?).await? {
            return Ok(known);
        }
        let mut tx = self.write(Priority::People).await?;
        let new = sqlx::query(concat!(
            "INSERT INTO installation (one, id, created_at) VALUES (1, $1, ",
            now!(),
            ") ON CONFLICT (one) DO NOTHING"
        ))
        .bind(hex::encode(&random()?[..10]))
        .execute(tx.conn())
        .await?;
        if new.rows_affected() == 1 {
            let org = OrgId::from_random(random()?);
            sqlx::query(concat!("INSERT INTO orgs (id, name, created_at) VALUES ($1, 'default', ", now!(), ")"))
                .bind(org.as_str())
                .execute(tx.conn())
                .await?;
            sqlx::query(concat!(
                "INSERT INTO users (id, org_id, name, role, created_at) VALUES ($1, $2, 'admin', 'administrator', ",
                now!(),
                ")"
            ))
            .bind(UserId::from_random(random()?).as_str())
            .bind(org.as_str())
            .execute(tx.conn())
            .await?;
        }
        let made = installation(tx.conn()).await?.ok_or(StoreError::NotFound)?;
        tx.commit().await?;
        Ok(made)
    }

    async fn set_key_check(&self, sealed: &[u8]) -> Result<()> {
        let mut tx = self.write(Priority::People).await?;
        sqlx::query("UPDATE installation SET key_check = $1 WHERE key_check IS NULL")
            .bind(sealed)
            .execute(tx.conn())
            .await?;
        tx.commit().await
    }

    async fn set_queue_paused(&self, paused: bool) -> Result<()> {
        let mut tx = self.write(Priority::People).await?;
        sqlx::query("UPDATE installation SET queue_paused = $1").bind(i64::from(paused)).execute(tx.conn()).await?;
        tx.commit().await
    }

    async fn administrator(&self) -> Result<UserRow> {
        let row = sqlx::query(select_users!("WHERE u.role = 'administrator' ORDER BY u.created_at, u.id LIMIT 1"))
            .fetch_one(&self.readers)
            .await?;
        user_row(&row)
    }

    async fn user_by_name(&self, name: &str) -> Result<Option<UserRow>> {
        if cannot_be_stored(name) {
            return Ok(None);
        }
        let row = sqlx::query(select_users!("WHERE u.name = $1")).bind(name).fetch_optional(&self.readers).await?;
        row.as_ref().map(user_row).transpose()
    }

    async fn set_password_hash(&self, user: &UserId, hash: &str) -> Result<()> {
        let mut tx = self.write(Priority::People).await?;
        let done = sqlx::query("UPDATE users SET password_hash = $2 WHERE id = $1")
            .bind(user.as_str())
            .bind(hash)
            .execute(tx.conn())
            .await?;
        one(done.rows_affected())?;
        for other in ["DELETE FROM sessions WHERE user_id = $1", "DELETE FROM setup_links WHERE user_id = $1"] {
            sqlx::query(other).bind(user.as_str()).execute(tx.conn()).await?;
        }
        tx.commit().await
    }

    async fn put_setup_link(&self, user: &UserId, token_hash: &str, expires_at: i64) -> Result<()> {
        let mut tx = self.write(Priority::People).await?;
        // The server itself makes it, so nobody stands as its maker.
        let done = sqlx::query(concat!(
            "INSERT INTO setup_links (user_id, org_id, token_hash, created_at, expires_at) SELECT u.id, u.org_id, $2, ",
            now!(),
            ", $3 FROM users u WHERE u.id = $1 ON CONFLICT (user_id) DO UPDATE SET token_hash = excluded.token_hash, \
             created_at = excluded.created_at, expires_at = excluded.expires_at"
        ))
        .bind(user.as_str())
        .bind(token_hash)
        .bind(expires_at)
        .execute(tx.conn())
        .await?;
        one(done.rows_affected())?;
        tx.commit().await
    }

    async fn setup_link_user(&self, token_hash: &str) -> Result<Option<UserRow>> {
        let row = sqlx::query(select_users!(
            "JOIN setup_links l ON l.user_id = u.id WHERE l.token_hash = $1 AND l.expires_at > ",
            now!()
        ))
        .bind(token_hash)
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(user_row).transpose()
    }

    async fn use_setup_link(&self, token_hash: &str, password_hash: &str) -> Result<bool> {
        let mut tx = self.write(Priority::People).await?;
        let user: Option<String> = sqlx::query_scalar(concat!(
            "DELETE FROM setup_links WHERE token_hash = $1 AND expires_at > ",
            now!(),
            " RETURNING user_id"
        ))
        .bind(token_hash)
        .fetch_optional(tx.conn())
        .await?;
        let Some(user) = user else { return Ok(false) };
        sqlx::query("UPDATE users SET password_hash = $2 WHERE id = $1")
            .bind(&user)
            .bind(password_hash)
            .execute(tx.conn())
            .await?;
        // Whoever held the account before does not hold it any longer.
        sqlx::query("DELETE FROM sessions WHERE user_id = $1").bind(&user).execute(tx.conn()).await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn put_session(&self, user: &UserId, token_hash: &str, expires_at: i64) -> Result<()> {
        let mut tx = self.write(Priority::People).await?;
        let done = sqlx::query(concat!(
            "INSERT INTO sessions (token_hash, user_id, org_id, created_by, created_at, expires_at) \
             SELECT $1, u.id, u.org_id, u.id, ",
            now!(),
            ", $3 FROM users u WHERE u.id = $2"
        ))
        .bind(token_hash)
        .bind(user.as_str())
        .bind(expires_at)
        .execute(tx.conn())
        .await?;
        one(done.rows_affected())?;
        tx.commit().await
    }

    async fn session_user(&self, token_hash: &str) -> Result<Option<UserRow>> {
        let row = sqlx::query(select_users!(
            "JOIN sessions s ON s.user_id = u.id WHERE s.token_hash = $1 AND s.expires_at > ",
            now!()
        ))
        .bind(token_hash)
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(user_row).transpose()
    }

    async fn drop_session(&self, token_hash: &str) -> Result<()> {
        let mut tx = self.write(Priority::People).await?;
        sqlx::query("DELETE FROM sessions WHERE token_hash = $1").bind(token_hash).execute(tx.conn()).await?;
        tx.commit().await
    }

    async fn drop_expired_sessions(&self) -> Result<u64> {
        let mut tx = self.write(Priority::Logs).await?;
        let done = sqlx::query(concat!("DELETE FROM sessions WHERE expires_at <= ", now!())).execute(tx.conn()).await?;
        tx.commit().await?;
        Ok(done.rows_affected())
    }

    async fn audit(&self, entry: AuditEntry<'_>) -> Result<()> {
        let mut tx = self.write(Priority::People).await?;
        insert_audit(tx.conn(), &entry).await?;
        tx.commit().await
    }

    async fn secret(&self, id: &SecretId) -> Result<SecretRow> {
        let row = sqlx::query("SELECT id, org_id, created_by, key_id, sealed FROM secrets WHERE id = $1")
            .bind(id.as_str())
            .fetch_one(&self.readers)
            .await?;
        Ok(SecretRow {
            id: id_of(&row, "id")?,
            org_id: id_of(&row, "org_id")?,
            created_by: id_of(&row, "created_by")?,
            key_id: get(&row, "key_id")?,
            sealed: get(&row, "sealed")?,
        })
    }

    async fn sweep_secrets(&self) -> Result<u64> {
        let mut tx = self.write(Priority::Logs).await?;
        // Locked first and looked for in builds afterwards: whoever queues a build locks its secrets too, so either the
        // build is seen here or the secret is missed there.
        let loose: Vec<String> = sqlx::query_scalar(concat!(
            "SELECT s.id FROM secrets s WHERE NOT EXISTS \
             (SELECT 1 FROM services v WHERE v.git_secret = s.id OR v.registry_secret = s.id) ORDER BY s.id",
            for_update!()
        ))
        .fetch_all(tx.conn())
        .await?;
        if loose.is_empty() {
            return Ok(0);
        }
        let open: Vec<String> = sqlx::query_scalar(concat!(
            "SELECT o.snapshot FROM ",
            builds_by!("o", "builds_open"),
            "WHERE o.finished_at IS NULL"
        ))
        .fetch_all(tx.conn())
        .await?;
        let mut swept = 0;
        // As text: a snapshot that this program cannot read keeps its secrets as well.
        for id in loose.iter().filter(|id| !open.iter().any(|snapshot| snapshot.contains(id.as_str()))) {
            swept +=
                sqlx::query("DELETE FROM secrets WHERE id = $1").bind(id).execute(tx.conn()).await?.rows_affected();
        }
        tx.commit().await?;
        Ok(swept)
    }

    async fn insert_service(&self, service: &NewServiceRow) -> Result<()> {
        let mut tx = self.write(Priority::People).await?;
        for secret in service.git_secret.iter().chain(&service.registry_secret) {
            insert_secret(tx.conn(), secret).await?;
        }
        sqlx::query(concat!(
            "INSERT INTO services (id, org_id, created_by, name, git_url, default_branch, git_secret, registry, \
             registry_secret, image_repository, settings, settings_version, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, ",
            now!(),
            ")"
        ))
        .bind(service.id.as_str())
        .bind(service.org_id.as_str())
        .bind(service.created_by.as_str())
        .bind(&service.name)
        .bind(&service.git_url)
        .bind(&service.default_branch)
        .bind(service.git_secret.as_ref().map(|secret| secret.id.as_str()))
        .bind(json(&service.registry)?)
        .bind(service.registry_secret.as_ref().map(|secret| secret.id.as_str()))
        .bind(image_repository(&service.registry))
        .bind(json(&service.settings)?)
        .bind(service.settings.version)
        .execute(tx.conn())
        .await
        .map_err(taken)?;
        tx.commit().await
    }

    async fn service(&self, org: &OrgId, id: &ServiceId) -> Result<ServiceRow> {
        let row = sqlx::query(select_services!("WHERE id = $1 AND org_id = $2"))
            .bind(id.as_str())
            .bind(org.as_str())
            .fetch_one(&self.readers)
            .await?;
        service_row(&row)
    }

    async fn has_service(&self, id: &ServiceId) -> Result<bool> {
        let found: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM services WHERE id = $1")
            .bind(id.as_str())
            .fetch_one(&self.readers)
            .await?;
        Ok(found != 0)
    }

    async fn service_by_name(&self, org: &OrgId, name: &str) -> Result<Option<ServiceRow>> {
        if cannot_be_stored(name) {
            return Ok(None);
        }
        let row = sqlx::query(select_services!("WHERE org_id = $1 AND name = $2"))
            .bind(org.as_str())
            .bind(name)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(service_row).transpose()
    }

    async fn services(&self, org: &OrgId) -> Result<Vec<ServiceRow>> {
        let rows =
            sqlx::query(select_services!("WHERE org_id = $1")).bind(org.as_str()).fetch_all(&self.readers).await?;
        let mut services = readable(&rows, service_row);
        // Here and not in SQL: the two engines do not order names alike.
        services.sort_by_cached_key(|s| (s.name.to_lowercase(), s.name.clone()));
        Ok(services)
    }

    async fn save_settings(
        &self,
        org: &OrgId,
        id: &ServiceId,
        settings: &BuildSettings,
        expected_version: Option<i64>,
    ) -> Result<BuildSettings> {
        let mut tx = self.write(Priority::People).await?;
        let version: i64 = sqlx::query_scalar(concat!(
            "SELECT settings_version FROM services WHERE id = $1 AND org_id = $2",
            for_update!()
        ))
        .bind(id.as_str())
        .bind(org.as_str())
        .fetch_one(tx.conn())
        .await?;
        if expected_version.is_some_and(|expected| expected != version) {
            return Err(StoreError::Conflict);
        }
        let saved = BuildSettings { version: version + 1, ..settings.clone() };
        sqlx::query("UPDATE services SET settings = $2, settings_version = $3 WHERE id = $1")
            .bind(id.as_str())
            .bind(json(&saved)?)
            .bind(saved.version)
            .execute(tx.conn())
            .await?;
        tx.commit().await?;
        Ok(saved)
    }

    async fn save_registry(
        &self,
        org: &OrgId,
        id: &ServiceId,
        registry: &RegistryConfig,
        secret: SecretChange<'_>,
        expected_version: Option<i64>,
    ) -> Result<i64> {
        let mut tx = self.write(Priority::People).await?;
        let stored = sqlx::query(concat!(
            "SELECT registry_version AS version, registry_secret AS secret FROM services WHERE id = $1 AND org_id = $2",
            for_update!()
        ))
        .bind(id.as_str())
        .bind(org.as_str())
        .fetch_one(tx.conn())
        .await?;
        let version = next_version(&stored, expected_version)?;
        let secret = changed_secret(tx.conn(), &stored, secret).await?;
        sqlx::query(
            "UPDATE services SET registry = $2, registry_secret = $3, image_repository = $4, registry_version = $5 \
             WHERE id = $1",
        )
        .bind(id.as_str())
        .bind(json(registry)?)
        .bind(secret)
        .bind(image_repository(registry))
        .bind(version)
        .execute(tx.conn())
        .await
        .map_err(taken)?;
        tx.commit().await?;
        Ok(version)
    }

    async fn save_source(
        &self,
        org: &OrgId,
        id: &ServiceId,
        source: SourceRow<'_>,
        expected_version: Option<i64>,
    ) -> Result<i64> {
        let mut tx = self.write(Priority::People).await?;
        let stored = sqlx::query(concat!(
            "SELECT source_version AS version, git_secret AS secret FROM services WHERE id = $1 AND org_id = $2",
            for_update!()
        ))
        .bind(id.as_str())
        .bind(org.as_str())
        .fetch_one(tx.conn())
        .await?;
        let version = next_version(&stored, expected_version)?;
        let secret = changed_secret(tx.conn(), &stored, source.secret).await?;
        sqlx::query(
            "UPDATE services SET git_url = $2, default_branch = $3, git_secret = $4, source_version = $5 WHERE id = $1",
        )
        .bind(id.as_str())
        .bind(source.git_url)
        .bind(source.default_branch)
        .bind(secret)
        .bind(version)
        .execute(tx.conn())
        .await?;
        tx.commit().await?;
        Ok(version)
    }

    async fn queue_build(&self, build: &NewBuild) -> Result<QueuedBuild> {
        let mut tx = self.write(Priority::People).await?;
        // Counting first locks the service: two clicks of the same key cannot both find nothing.
        let row = sqlx::query(concat!(
            "UPDATE services SET build_count = build_count + 1, cache_generation = cache_generation + $3 \
             WHERE id = $1 AND org_id = $2 RETURNING build_count, cache_generation, ",
            now!(),
            " AS now"
        ))
        .bind(build.service_id.as_str())
        .bind(build.org_id.as_str())
        // Nothing of an earlier build may be reused, and later ones must not go back behind this one.
        .bind(i64::from(build.snapshot.settings.no_cache))
        .fetch_one(tx.conn())
        .await?;
        let (number, now): (i64, i64) = (get(&row, "build_count")?, get(&row, "now")?);
        let snapshot = BuildSnapshot { cache_generation: get(&row, "cache_generation")?, ..build.snapshot.clone() };
        if let Some(key) = &build.request_key {
            let first = sqlx::query("SELECT id, number FROM builds WHERE service_id = $1 AND request_key = $2")
                .bind(build.service_id.as_str())
                .bind(key)
                .fetch_optional(tx.conn())
                .await?;
            // Without a commit neither the number nor the generation is used up.
            if let Some(row) = first {
                return earlier_build(&row);
            }
        }
        let secrets = [&build.snapshot.git_secret, &build.snapshot.registry_secret];
        for secret in secrets.into_iter().flatten() {
            sqlx::query(concat!("SELECT id FROM secrets WHERE id = $1", for_update!()))
                .bind(secret.as_str())
                .fetch_optional(tx.conn())
                .await?
                .ok_or(StoreError::Conflict)?;
        }
        sqlx::query(
            "INSERT INTO builds (id, org_id, created_by, service_id, number, branch, commit_hash, request_key, status, \
             queued_at, snapshot) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'queued', $9, $10)",
        )
        .bind(build.id.as_str())
        .bind(build.org_id.as_str())
        .bind(build.created_by.as_str())
        .bind(build.service_id.as_str())
        .bind(number)
        .bind(&build.branch)
        .bind(&build.commit)
        .bind(&build.request_key)
        .bind(now)
        .bind(json(&snapshot)?)
        .execute(tx.conn())
        .await?;
        sqlx::query(
            "INSERT INTO build_progress (build_id, pos, attempt, seq, chain_count, chain_hash, row_count, open_pieces, \
             open_bytes, view) VALUES ($1, 0, 1, 0, 0, $2, 0, 0, 0, $3)",
        )
        .bind(build.id.as_str())
        .bind(Chain::default().hex())
        .bind(json(&BuildView::default())?)
        .execute(tx.conn())
        .await?;
        append_note(tx.conn(), &build.id, now, "queued").await?;
        // In the same transaction: each commit waits for the disk, and somebody waits for the answer.
        let entry = AuditEntry {
            org_id: &build.org_id,
            user_id: Some(&build.created_by),
            action: "build.start",
            subject: build.id.as_str(),
            detail: serde_json::json!({
                "service": build.service_id, "number": number, "branch": build.branch, "commit": build.commit,
            }),
        };
        insert_audit(tx.conn(), &entry).await?;
        tx.commit().await?;
        Ok(QueuedBuild { id: build.id.clone(), number, created: true })
    }

    async fn build_of_request(&self, org: &OrgId, service: &ServiceId, key: &str) -> Result<Option<QueuedBuild>> {
        if cannot_be_stored(key) {
            return Ok(None);
        }
        let row =
            sqlx::query("SELECT id, number FROM builds WHERE service_id = $1 AND request_key = $2 AND org_id = $3")
                .bind(service.as_str())
                .bind(key)
                .bind(org.as_str())
                .fetch_optional(&self.readers)
                .await?;
        row.as_ref().map(earlier_build).transpose()
    }

    async fn build(&self, org: &OrgId, id: &BuildId) -> Result<BuildRow> {
        let row = sqlx::query(select_builds!("WHERE b.id = $1 AND b.org_id = $2"))
            .bind(id.as_str())
            .bind(org.as_str())
            .fetch_one(&self.readers)
            .await?;
        build_row(&row)
    }

    async fn history(
        &self,
        org: &OrgId,
        service: &ServiceId,
        query: &HistoryQuery,
        limit: u32,
    ) -> Result<Vec<BuildRow>> {
        if query.branch.as_deref().is_some_and(cannot_be_stored) {
            return Ok(Vec::new());
        }
        let wanted = limit as usize + 1;
        let mut asked = wanted;
        let mut builds = loop {
            let rows = self.history_rows(org, service, query, asked).await?;
            let builds = readable(&rows, build_row);
            // One that cannot be read must not look like the end of the history.
            if builds.len() >= wanted || rows.len() < asked {
                break builds;
            }
            asked += rows.len() - builds.len();
        };
        builds.truncate(wanted);
        if query.after.is_some() {
            builds.reverse();
        }
        Ok(builds)
    }

    async fn last_build(&self, service: &ServiceId, successful: bool) -> Result<Option<BuildRow>> {
        let statement = if successful {
            select_builds!("WHERE b.service_id = $1 AND b.status = 'success' ORDER BY b.number DESC LIMIT 1")
        } else {
            select_builds!("WHERE b.service_id = $1 ORDER BY b.number DESC LIMIT 1")
        };
        let row = sqlx::query(statement).bind(service.as_str()).fetch_optional(&self.readers).await?;
        row.as_ref().map(build_row).transpose()
    }

    async fn last_builds(&self, org: &OrgId) -> Result<Vec<BuildRow>> {
        let rows = sqlx::query(select_builds!(
            "JOIN services s ON s.id = b.service_id AND s.build_count = b.number WHERE s.org_id = $1"
        ))
        .bind(org.as_str())
        .fetch_all(&self.readers)
        .await?;
        Ok(readable(&rows, build_row))
    }

    async fn expected_duration_ms(&self, service: &ServiceId) -> Result<Option<i64>> {
        let durations: Vec<i64> = sqlx::query_scalar(
            "SELECT finished_at - started_at FROM builds WHERE service_id = $1 AND status = 'success' \
             AND started_at IS NOT NULL ORDER BY number DESC LIMIT 10",
        )
        .bind(service.as_str())
        .fetch_all(&self.readers)
        .await?;
        Ok(median(durations))
    }

    async fn appetite(&self, service: &ServiceId) -> Result<Appetite> {
        let rows = sqlx::query(
            "SELECT id, snapshot, peak_anon_bytes FROM builds WHERE service_id = $1 AND status = 'success' \
             ORDER BY number DESC LIMIT 10",
        )
        .bind(service.as_str())
        .fetch_all(&self.readers)
        .await?;
        let outgrown: Option<i64> = sqlx::query_scalar(concat!(
            "SELECT MAX(o.outgrown_bytes) FROM ",
            builds_by!("o", "builds_outgrown"),
            "WHERE o.service_id = $1 AND o.outgrown_bytes IS NOT NULL AND o.finished_at > ",
            now!(),
            " - $2"
        ))
        .bind(service.as_str())
        .bind(OUTGROWN_FOR_MS)
        .fetch_one(&self.readers)
        .await?;
        Ok(Appetite { successes: readable(&rows, past_build), outgrown_bytes: outgrown.map(|bytes| bytes as u64) })
    }

    async fn queue_place(&self, id: &BuildId) -> Result<Option<QueuePlace>> {
        let row = sqlx::query(concat!(
            "SELECT (SELECT COUNT(*) FROM ",
            builds_by!("q", "builds_queue"),
            "WHERE q.status = 'queued' \
             AND (q.queued_at, q.number, q.id) <= (b.queued_at, b.number, b.id)) AS position, \
             (SELECT COUNT(*) FROM ",
            builds_by!("r", "builds_running"),
            "WHERE r.service_id = b.service_id AND r.status IN ",
            running!(),
            ") AS running FROM builds AS b WHERE b.id = $1 AND b.status = 'queued'"
        ))
        .bind(id.as_str())
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let (position, running): (i64, i64) = (get(&row, "position")?, get(&row, "running")?);
        Ok(Some(QueuePlace { position: position as u32, service_busy: running > 0 }))
    }

    async fn queue_state(&self) -> Result<QueueState> {
        let row = sqlx::query(concat!(
            "SELECT queue_paused, (SELECT COUNT(*) FROM ",
            builds_by!("q", "builds_queue"),
            "WHERE q.status = 'queued') AS queued, (SELECT COUNT(*) FROM ",
            builds_by!("r", "builds_running"),
            "WHERE r.status IN ",
            running!(),
            ") AS running FROM installation"
        ))
        .fetch_one(&self.readers)
        .await?;
        let count = |name| get::<i64>(&row, name);
        Ok(QueueState {
            paused: count("queue_paused")? != 0,
            running: count("running")? as u32,
            queued: count("queued")? as u32,
        })
    }

    async fn request_cancel(&self, org: &OrgId, id: &BuildId) -> Result<CancelOutcome> {
        let mut tx = self.write(Priority::People).await?;
        let row = sqlx::query(concat!(
            "SELECT status, ",
            now!(),
            " AS now FROM builds WHERE id = $1 AND org_id = $2",
            for_update!()
        ))
        .bind(id.as_str())
        .bind(org.as_str())
        .fetch_one(tx.conn())
        .await?;
        let (status, now) = (status_of(&row)?, get::<i64>(&row, "now")?);
        if status.is_final() {
            return Ok(CancelOutcome::Final);
        }
        if status == BuildStatus::Queued {
            // Nobody has begun it, so nothing is held for it.
            sqlx::query(
                "UPDATE builds SET status = 'cancelled', cancel_requested_at = $2, finished_at = $2, released = 1 \
                 WHERE id = $1",
            )
            .bind(id.as_str())
            .bind(now)
            .execute(tx.conn())
            .await?;
            append_note(tx.conn(), id, now, "cancelled").await?;
            tx.commit().await?;
            return Ok(CancelOutcome::WasQueued);
        }
        sqlx::query("UPDATE builds SET cancel_requested_at = COALESCE(cancel_requested_at, $2) WHERE id = $1")
            .bind(id.as_str())
            .bind(now)
            .execute(tx.conn())
            .await?;
        tx.commit().await?;
        Ok(CancelOutcome::Requested)
    }

    async fn claim(&self, owner: &str, lease_ms: i64, limit: u32) -> Result<Option<BuildRow>> {
        // Asked for again and again: an empty queue costs one read.
        let waiting: i64 = sqlx::query_scalar(concat!(
            "SELECT COUNT(*) FROM (SELECT 1 FROM ",
            builds_by!("q", "builds_queue"),
            "WHERE q.status = 'queued' LIMIT 1) AS waiting"
        ))
        .fetch_one(&self.readers)
        .await?;
        if waiting == 0 {
            return Ok(None);
        }
        let mut tx = self.write(Priority::People).await?;
        // One claim at a time, so that two cannot both count themselves below the limit.
        let paused: i64 = sqlx::query_scalar(concat!("SELECT queue_paused FROM installation", for_update!()))
            .fetch_one(tx.conn())
            .await?;
        if paused != 0 {
            return Ok(None);
        }
        let running: i64 = sqlx::query_scalar(concat!(
            "SELECT COUNT(*) FROM ",
            builds_by!("r", "builds_running"),
            "WHERE r.status IN ",
            running!()
        ))
        .fetch_one(tx.conn())
        .await?;
        if running >= i64::from(limit) {
            return Ok(None);
        }
        let mut after = (i64::MIN, 0_i64, String::new());
        let id = loop {
            // A build that is being cancelled at this moment is locked and passed over.
            let next = sqlx::query(concat!(
                "SELECT q.id, q.queued_at, q.number FROM ",
                builds_by!("q", "builds_queue"),
                "WHERE q.status = 'queued' AND (q.queued_at, q.number, q.id) > ($1, $2, $3) AND NOT EXISTS \
                 (SELECT 1 FROM ",
                builds_by!("r", "builds_running"),
                "WHERE r.service_id = q.service_id AND r.status IN ",
                running!(),
                ") ORDER BY q.queued_at, q.number, q.id LIMIT 1",
                for_update_skip_locked!()
            ))
            .bind(after.0)
            .bind(after.1)
            .bind(&after.2)
            .fetch_optional(tx.conn())
            .await?;
            let Some(next) = next else { return Ok(None) };
            let id: String = get(&next, "id")?;
            // One that cannot be read would stand before all others for ever.
            if readable_row(&build_row_by_id(tx.conn(), &id).await?, build_row).is_some() {
                break id;
            }
            after = (get(&next, "queued_at")?, get(&next, "number")?, id);
        };
        sqlx::query(concat!(
            "UPDATE builds SET status = 'starting', started_at = ",
            now!(),
            ", lease_owner = $2, lease_epoch = lease_epoch + 1, lease_until = ",
            now!(),
            " + $3 WHERE id = $1"
        ))
        .bind(&id)
        .bind(owner)
        .bind(lease_ms)
        .execute(tx.conn())
        .await?;
        let claimed = build_by_id(tx.conn(), &id).await?;
        tx.commit().await?;
        Ok(Some(claimed))
    }

    async fn adopt(&self, owner: &str, lease_ms: i64, adopt: Adopt) -> Result<Vec<BuildRow>> {
        let mut tx = self.write(Priority::People).await?;
        let orphans: Vec<String> = sqlx::query_scalar(concat!(
            "SELECT r.id FROM ",
            builds_by!("r", "builds_running"),
            "WHERE r.status IN ",
            running!(),
            " AND (r.lease_until <= ",
            now!(),
            " OR ($2 = 1 AND r.lease_owner = $1)) ORDER BY r.id",
            for_update!()
        ))
        .bind(owner)
        .bind(i64::from(adopt == Adopt::ExpiredAndOwn))
        .fetch_all(tx.conn())
        .await?;
        let mut adopted = Vec::with_capacity(orphans.len());
        for id in &orphans {
            if readable_row(&build_row_by_id(tx.conn(), id).await?, build_row).is_none() {
                continue;
            }
            sqlx::query(concat!(
                "UPDATE builds SET lease_owner = $2, lease_epoch = lease_epoch + 1, lease_until = ",
                now!(),
                " + $3 WHERE id = $1"
            ))
            .bind(id)
            .bind(owner)
            .bind(lease_ms)
            .execute(tx.conn())
            .await?;
            adopted.push(build_by_id(tx.conn(), id).await?);
        }
        if !adopted.is_empty() {
            tx.commit().await?;
        }
        Ok(adopted)
    }

    async fn renew(&self, owner: &str, lease_ms: i64) -> Result<Vec<BuildRow>> {
        const HELD: &str = select_builds!(
            from builds_by!("b", "builds_running"),
            "WHERE b.lease_owner = $1 AND b.status IN ",
            running!(),
            " ORDER BY b.queued_at, b.id"
        );
        let held = sqlx::query(HELD).bind(owner).fetch_all(&self.readers).await?;
        if held.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.write(Priority::People).await?;
        sqlx::query(concat!(
            "UPDATE builds SET lease_until = ",
            now!(),
            " + $2 WHERE id IN (SELECT r.id FROM ",
            builds_by!("r", "builds_running"),
            "WHERE r.lease_owner = $1 AND r.status IN ",
            running!(),
            " ORDER BY r.id",
            for_update!(),
            ")"
        ))
        .bind(owner)
        .bind(lease_ms)
        .execute(tx.conn())
        .await?;
        let held = sqlx::query(HELD).bind(owner).fetch_all(tx.conn()).await?;
        tx.commit().await?;
        Ok(readable(&held, build_row))
    }

    async fn append(&self, id: &BuildId, epoch: i64, append: &Append) -> Result<()> {
        let grown = self.put(Packed::of(id, epoch, append)?).await?;
        if grown.open_bytes >= log::SEALED_BYTES as i64 || grown.open_pieces >= log::MAX_OPEN_PIECES {
            self.seal_or_warn(id).await;
        }
        Ok(())
    }

    async fn next_attempt(&self, id: &BuildId, epoch: i64, larger: Option<&Larger>) -> Result<BuildRow> {
        let mut tx = self.write(Priority::People).await?;
        held(tx.conn(), id, epoch).await?;
        if let Some(larger) = larger {
            sqlx::query("UPDATE builds SET snapshot = $2, outgrown_bytes = $3 WHERE id = $1")
                .bind(id.as_str())
                .bind(json(&larger.snapshot)?)
                .bind(int(larger.outgrown_bytes))
                .execute(tx.conn())
                .await?;
        }
        sqlx::query("UPDATE builds SET status = 'starting', attempt = attempt + 1 WHERE id = $1")
            .bind(id.as_str())
            .execute(tx.conn())
            .await?;
        let build = build_by_id(tx.conn(), id.as_str()).await?;
        // Another spool, from its first event.
        sqlx::query(
            "UPDATE build_progress SET attempt = $2, seq = 0, chain_count = 0, chain_hash = $3 WHERE build_id = $1",
        )
        .bind(id.as_str())
        .bind(i64::from(build.attempt))
        .bind(Chain::default().hex())
        .execute(tx.conn())
        .await?;
        tx.commit().await?;
        Ok(build)
    }

    async fn finish(&self, id: &BuildId, epoch: i64, finish: &FinishBuild) -> Result<bool> {
        if !finish.status.is_final() {
            return Err(anyhow::anyhow!("a build cannot finish as {}", finish.status.as_str()).into());
        }
        let mut tx = self.write(Priority::People).await?;
        match held(tx.conn(), id, epoch).await {
            Ok(_) => {}
            Err(StoreError::Conflict) if is_final(tx.conn(), id).await? => return Ok(false),
            Err(error) => return Err(error),
        }
        sqlx::query(concat!(
            "UPDATE builds SET status = $2, finished_at = ",
            now!(),
            ", lease_owner = NULL, lease_until = NULL, image_tag = $3, digest = $4, image_size_bytes = $5, \
             failure_code = $6, diagnosis = $7, log_verified = $8, peak_anon_bytes = $9, \
             outgrown_bytes = COALESCE($10, outgrown_bytes) WHERE id = $1"
        ))
        .bind(id.as_str())
        .bind(finish.status.as_str())
        .bind(&finish.image_tag)
        .bind(&finish.digest)
        .bind(finish.image_size_bytes)
        .bind(&finish.failure_code)
        .bind(finish.diagnosis.as_ref().map(json).transpose()?)
        .bind(finish.log_verified.map(i64::from))
        .bind(finish.peak_anon_bytes.map(int))
        // An earlier attempt's stays.
        .bind(finish.outgrown_bytes.map(int))
        .execute(tx.conn())
        .await?;
        tx.commit().await?;
        self.seal_or_warn(id).await;
        Ok(true)
    }

    async fn unreleased(&self) -> Result<Vec<(BuildId, u32)>> {
        let rows = sqlx::query(concat!(
            "SELECT u.id, u.attempt FROM ",
            builds_by!("u", "builds_unreleased"),
            "WHERE u.released = 0 AND u.finished_at IS NOT NULL ORDER BY u.id"
        ))
        .fetch_all(&self.readers)
        .await?;
        Ok(readable(&rows, |row| Ok((id_of(row, "id")?, get::<i64>(row, "attempt")? as u32))))
    }

    async fn mark_released(&self, id: &BuildId) -> Result<()> {
        let mut tx = self.write(Priority::Logs).await?;
        sqlx::query("UPDATE builds SET released = 1 WHERE id = $1 AND finished_at IS NOT NULL")
            .bind(id.as_str())
            .execute(tx.conn())
            .await?;
        tx.commit().await?;
        // A server that died between finish and seal left the log's end in open pieces.
        self.seal_or_warn(id).await;
        Ok(())
    }

    async fn is_open(&self, id: &BuildId) -> Result<bool> {
        let open: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM builds WHERE id = $1 AND finished_at IS NULL")
            .bind(id.as_str())
            .fetch_one(&self.readers)
            .await?;
        Ok(open != 0)
    }

    async fn progress(&self, id: &BuildId) -> Result<Progress> {
        let row = sqlx::query(
            "SELECT pos, attempt, seq, chain_count, chain_hash, row_count, open_pieces, open_bytes, view \
             FROM build_progress WHERE build_id = $1",
        )
        .bind(id.as_str())
        .fetch_one(&self.readers)
        .await?;
        let place = Place::from_row(&row)?;
        Ok(Progress {
            pos: place.pos,
            attempt: place.attempt,
            seq: place.seq,
            chain_count: place.chain_count,
            chain_hash: place.chain_hash,
            view: from_json(&row, "view")?,
        })
    }

    async fn log_by_row(&self, id: &BuildId, first_row: u64, count: u64) -> Result<Vec<LogPiece>> {
        // One statement sees one state: a seal at the same moment can neither hide rows nor show them twice.
        let rows = sqlx::query(
            "WITH wanted AS (\
             SELECT first_pos, SUM(payload_bytes) OVER (ORDER BY first_pos) - payload_bytes AS bytes_before \
             FROM (SELECT first_pos, payload_bytes FROM log_pieces WHERE build_id = $1 AND row_count > 0 \
             AND first_row >= COALESCE((SELECT first_row FROM log_pieces WHERE build_id = $1 AND row_count > 0 \
             AND first_row <= $2 ORDER BY first_row DESC LIMIT 1), 0) \
             AND first_row < $3 AND first_pos >= (SELECT log_from FROM build_progress WHERE build_id = $1) \
             ORDER BY first_row LIMIT $4) AS near) \
             SELECT p.first_row, p.body FROM wanted w JOIN log_pieces p \
             ON p.build_id = $1 AND p.first_pos = w.first_pos WHERE w.bytes_before < $5 AND p.first_row + p.row_count > $2 \
             ORDER BY p.first_pos",
        )
        .bind(id.as_str())
        .bind(int(first_row))
        .bind(int(first_row.saturating_add(count)))
        .bind(MAX_READ_PIECES)
        .bind(MAX_READ_BYTES)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(log_piece).collect()
    }

    async fn log_after(&self, id: &BuildId, pos: u64, max_bytes: u64) -> Result<Vec<LogPiece>> {
        let rows = sqlx::query(
            "WITH wanted AS (\
             SELECT first_pos, SUM(payload_bytes) OVER (ORDER BY first_pos) - payload_bytes AS bytes_before \
             FROM (SELECT first_pos, payload_bytes FROM log_pieces WHERE build_id = $1 AND last_pos > $2 \
             AND first_pos >= COALESCE((SELECT first_pos FROM log_pieces WHERE build_id = $1 \
             AND first_pos <= $2 + 1 ORDER BY first_pos DESC LIMIT 1), 0) \
             AND first_pos >= (SELECT log_from FROM build_progress WHERE build_id = $1) \
             ORDER BY first_pos LIMIT $3) AS near) \
             SELECT p.first_row, p.body FROM wanted w JOIN log_pieces p \
             ON p.build_id = $1 AND p.first_pos = w.first_pos WHERE w.bytes_before < $4 ORDER BY p.first_pos",
        )
        .bind(id.as_str())
        .bind(int(pos.min(i64::MAX as u64 - 1)))
        .bind(MAX_READ_PIECES)
        .bind(int(max_bytes.max(1)))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(log_piece).collect()
    }

    async fn remove_old_log(&self, retention: Retention) -> Result<Option<BuildId>> {
        let mut tx = self.write(Priority::Logs).await?;
        let begun: Option<String> = sqlx::query_scalar(concat!(
            "SELECT l.id FROM ",
            builds_by!("l", "builds_losing_log"),
            "WHERE l.log_removed_at IS NOT NULL AND l.log_kept = 1 ORDER BY l.log_removed_at LIMIT 1",
            for_update_skip_locked!()
        ))
        .fetch_optional(tx.conn())
        .await?;
        let id = match begun {
            Some(id) => id,
            None => {
                let old = sqlx::query(concat!(
                    "SELECT w.id, ",
                    now!(),
                    " AS now FROM ",
                    builds_by!("w", "builds_with_log"),
                    "WHERE w.finished_at IS NOT NULL AND w.log_removed_at IS NULL AND w.released = 1 \
                     AND w.finished_at <= ",
                    now!(),
                    " - $1 AND w.number <= (SELECT s.build_count FROM services s WHERE s.id = w.service_id) - $2 \
                     ORDER BY w.finished_at LIMIT 1",
                    for_update_skip_locked!()
                ))
                .bind(i64::from(retention.days) * DAY_MS)
                .bind(i64::from(retention.newest))
                .fetch_optional(tx.conn())
                .await?;
                let Some(old) = old else { return Ok(None) };
                let id: String = get(&old, "id")?;
                let now: i64 = get(&old, "now")?;
                sqlx::query("UPDATE builds SET log_removed_at = $2 WHERE id = $1")
                    .bind(&id)
                    .bind(now)
                    .execute(tx.conn())
                    .await?;
                replace_log(tx.conn(), &id, now, retention.days).await?;
                id
            }
        };
        let gone = sqlx::query(
            "DELETE FROM log_pieces WHERE build_id = $1 AND first_pos IN (SELECT p.first_pos FROM log_pieces p \
             WHERE p.build_id = $1 AND p.first_pos < (SELECT log_from FROM build_progress WHERE build_id = $1) \
             ORDER BY p.first_pos LIMIT $2)",
        )
        .bind(&id)
        .bind(REMOVED_AT_ONCE)
        .execute(tx.conn())
        .await?;
        if gone.rows_affected() < REMOVED_AT_ONCE as u64 {
            sqlx::query("UPDATE builds SET log_kept = 0 WHERE id = $1").bind(&id).execute(tx.conn()).await?;
        }
        tx.commit().await?;
        Ok(Some(id.parse().map_err(anyhow::Error::from)?))
    }

    async fn close(&self) {
        self.shut().await;
    }
}

impl Engine {
    /// The page that `query` asks for, from where it begins: on the way back the oldest first.
    async fn history_rows(
        &self,
        org: &OrgId,
        service: &ServiceId,
        query: &HistoryQuery,
        count: usize,
    ) -> Result<Vec<Row>> {
        let in_progress = query.status == Some(StatusFilter::InProgress);
        let mut sql = QueryBuilder::<Db>::new(if in_progress {
            select_builds!(from builds_by!("b", "builds_open"), "")
        } else {
            select_builds!("")
        });
        // A value and not a condition on each row: guesses about conditions lead PostgreSQL away from the ordered index.
        sql.push("WHERE b.service_id = (SELECT id FROM services WHERE id = ").push_bind(service.as_str());
        sql.push(" AND org_id = ").push_bind(org.as_str()).push(")");
        // Spelled out and not bound: a condition of an index must be seen when the statement is planned.
        sql.push(match query.status {
            None => "",
            Some(StatusFilter::InProgress) => " AND b.finished_at IS NULL",
            Some(StatusFilter::Success) => " AND b.status = 'success'",
            Some(StatusFilter::Failure) => " AND b.status = 'failure'",
            Some(StatusFilter::Cancelled) => " AND b.status = 'cancelled'",
        });
        if let Some(branch) = &query.branch {
            // The few that are open are looked through; most builds of a branch are over, and its index holds them all.
            sql.push(if in_progress { " AND b.branch || '' = " } else { " AND b.branch = " })
                .push_bind(branch.as_str());
        }
        if let Some(before) = query.before {
            sql.push(" AND b.number < ").push_bind(before);
        }
        // On the way back the page next to `after` is wanted, not the newest one.
        let forward = query.after.is_some();
        if let Some(after) = query.after {
            sql.push(" AND b.number > ").push_bind(after);
        }
        sql.push(if forward { " ORDER BY b.number ASC LIMIT " } else { " ORDER BY b.number DESC LIMIT " });
        sql.push_bind(int(count as u64));
        Ok(sql.build().fetch_all(&self.readers).await?)
    }
}

/// Locks the build for a writer that claimed it; its state. `Conflict` when the lease was lost or the build is over.
async fn held(conn: &mut Conn, id: &BuildId, epoch: i64) -> Result<BuildStatus> {
    let row = sqlx::query(concat!("SELECT status, lease_epoch FROM builds WHERE id = $1", for_update!()))
        .bind(id.as_str())
        .fetch_one(conn)
        .await?;
    let status = status_of(&row)?;
    if status.is_final() || status == BuildStatus::Queued || get::<i64>(&row, "lease_epoch")? != epoch {
        return Err(StoreError::Conflict);
    }
    Ok(status)
}

async fn is_final(conn: &mut Conn, id: &BuildId) -> Result<bool> {
    let row = sqlx::query("SELECT status FROM builds WHERE id = $1").bind(id.as_str()).fetch_one(conn).await?;
    Ok(status_of(&row)?.is_final())
}

async fn build_by_id(conn: &mut Conn, id: &str) -> Result<BuildRow> {
    build_row(&build_row_by_id(conn, id).await?)
}

async fn build_row_by_id(conn: &mut Conn, id: &str) -> Result<Row> {
    Ok(sqlx::query(select_builds!("WHERE b.id = $1")).bind(id).fetch_one(conn).await?)
}

async fn insert_audit(conn: &mut Conn, entry: &AuditEntry<'_>) -> Result<()> {
    sqlx::query(concat!(
        "INSERT INTO audit (org_id, user_id, action, subject, detail, created_at) VALUES ($1, $2, $3, $4, $5, ",
        now!(),
        ")"
    ))
    .bind(entry.org_id.as_str())
    .bind(entry.user_id.map(UserId::as_str))
    .bind(entry.action)
    .bind(entry.subject)
    .bind(entry.detail.to_string())
    .execute(conn)
    .await?;
    Ok(())
}

async fn insert_secret(conn: &mut Conn, secret: &SecretRow) -> Result<()> {
    sqlx::query(concat!(
        "INSERT INTO secrets (id, org_id, created_by, key_id, sealed, created_at) VALUES ($1, $2, $3, $4, $5, ",
        now!(),
        ")"
    ))
    .bind(secret.id.as_str())
    .bind(secret.org_id.as_str())
    .bind(secret.created_by.as_str())
    .bind(&secret.key_id)
    .bind(&secret.sealed)
    .execute(conn)
    .await?;
    Ok(())
}

/// The secret that a saved part names from now on; what it named before is swept when nothing needs it any more.
async fn changed_secret(conn: &mut Conn, stored: &Row, change: SecretChange<'_>) -> Result<Option<String>> {
    match change {
        SecretChange::Keep => get(stored, "secret"),
        SecretChange::Forget => Ok(None),
        SecretChange::Replace(secret) => {
            insert_secret(conn, secret).await?;
            Ok(Some(secret.id.to_string()))
        }
    }
}

fn next_version(stored: &Row, expected: Option<i64>) -> Result<i64> {
    let version: i64 = get(stored, "version")?;
    match expected {
        Some(expected) if expected != version => Err(StoreError::Conflict),
        _ => Ok(version + 1),
    }
}

async fn installation(conn: &mut Conn) -> Result<Option<Installation>> {
    let row = sqlx::query("SELECT id, queue_paused, key_check FROM installation").fetch_optional(conn).await?;
    row.map(|row| {
        Ok(Installation {
            id: get(&row, "id")?,
            queue_paused: get::<i64>(&row, "queue_paused")? != 0,
            key_check: get(&row, "key_check")?,
        })
    })
    .transpose()
}

/// What is looked up by may be anybody's text; PostgreSQL takes no NUL, so no row holds one.
fn cannot_be_stored(text: &str) -> bool {
    text.contains('\0')
}

/// Counters and positions: far below where the sign begins.
fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn one(changed: u64) -> Result<()> {
    if changed == 1 { Ok(()) } else { Err(StoreError::NotFound) }
}

/// Both engines name the columns of a violated uniqueness in their message.
fn taken(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(inner) if inner.is_unique_violation() => {
            StoreError::Taken(if inner.message().contains("image_repository") { "image" } else { "name" })
        }
        _ => error.into(),
    }
}

/// Nothing while the registry is not complete: such services are not in one another's way.
fn image_repository(registry: &RegistryConfig) -> Option<String> {
    (!registry.host.is_empty() && !registry.image_name.is_empty()).then(|| registry.repository())
}

fn median(mut values: Vec<i64>) -> Option<i64> {
    values.sort_unstable();
    let (left, right) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some(left + (right - left) / 2)
}

fn random() -> Result<[u8; ID_LETTERS]> {
    let mut bytes = [0; ID_LETTERS];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(bytes)
}
